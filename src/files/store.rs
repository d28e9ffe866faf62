//! The object store behind every file of a table: one stack for data files, deletes, manifests and metadata.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions};
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Reads and writes objects by the locations that table metadata spells.
///
/// Local files are `file:///a/b`; `file:/a/b` (Hadoop's spelling) and a bare `/a/b` are the same object. A location is
/// taken literally first, as every engine does for partition folders such as `name=a%2Fb`; only where no such object
/// exists is its percent-decoded form read.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Store {
    #[serde(skip, default = "local_disk")]
    disk: Arc<dyn ObjectStore>,
    /// Whether `disk` is this machine's: what is written is then flushed, so that a catalog that survives a power cut
    /// names nothing that did not.
    flushed: bool,
}

/// An object that [`Store::list`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// `file:///…`, spelled literally.
    pub location: String,
    /// Its size.
    pub bytes: u64,
    /// When it was last written, in milliseconds since 1970-01-01.
    pub modified_ms: i64,
}

fn local_disk() -> Arc<dyn ObjectStore> {
    Arc::new(LocalFileSystem::new())
}

impl Store {
    /// The local file system.
    #[must_use]
    pub fn local() -> Self {
        Store { disk: local_disk(), flushed: true }
    }

    /// `disk` in place of the local file system, addressed from the root `/`.
    #[must_use]
    pub fn over(disk: Arc<dyn ObjectStore>) -> Self {
        Store { disk, flushed: false }
    }

    /// The store and the key in it that `location` stands for, taken literally.
    ///
    /// # Errors
    /// [`Error::Config`] where the scheme is unknown or the location is not absolute.
    pub fn object(&self, location: &str) -> Result<(Arc<dyn ObjectStore>, Path)> {
        Ok((self.disk.clone(), key(location)?))
    }

    /// Writes a new object: afterwards it is there complete, or it is absent.
    ///
    /// # Errors
    /// [`Error::Unreachable`] where the store or the disk does not take it, [`Error::Internal`] where an object of this
    /// name exists: names are never used twice.
    pub async fn put(&self, location: &str, bytes: Bytes) -> Result<()> {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let key = key(location)?;
        let flush = self.flushed.then(|| Flush::before(&key));
        match self.disk.put_opts(&key, bytes.into(), options).await {
            Ok(_) => match flush {
                Some(flush) => flush.run().await.map_err(|e| store_error("write", location, &e)),
                None => Ok(()),
            },
            Err(object_store::Error::AlreadyExists { .. }) => {
                Err(Error::Internal(format!("{location} exists already, and file names are never used twice")))
            }
            Err(e) => Err(store_error("write", location, &e)),
        }
    }

    /// Writes a new object unless there is one of that name: true where it was written. Tried once.
    ///
    /// # Errors
    /// [`Error::Unreachable`] where the answer is neither: then it may be there, now or later.
    pub async fn create(&self, location: &str, bytes: Bytes) -> Result<bool> {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let key = key(location)?;
        let flush = self.flushed.then(|| Flush { kept: true, ..Flush::before(&key) });
        match self.disk.put_opts(&key, bytes.into(), options).await {
            Ok(_) => match flush {
                Some(flush) => flush.run().await.map(|()| true).map_err(|e| store_error("write", location, &e)),
                None => Ok(true),
            },
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => Ok(false),
            Err(e) => Err(store_error("write", location, &e)),
        }
    }

    /// Writes an object in place of the one that is there, if any. For hints that may be wrong, and nothing else.
    ///
    /// # Errors
    /// [`Error::Unreachable`] where the store or the disk does not take it.
    pub async fn replace(&self, location: &str, bytes: Bytes) -> Result<()> {
        let put = self.disk.put(&key(location)?, bytes.into()).await;
        put.map(|_| ()).map_err(|e| store_error("write", location, &e))
    }

    /// The whole object, or none where there is no such object.
    ///
    /// # Errors
    /// [`Error::Unreachable`] where it cannot be read.
    pub async fn get_if_there(&self, location: &str) -> Result<Option<Bytes>> {
        match self.disk.get(&key(location)?).await {
            Ok(found) => found.bytes().await.map(Some).map_err(|e| store_error("read", location, &e)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(store_error("read", location, &e)),
        }
    }

    /// Names of the folders directly below a folder; none below one that does not exist.
    ///
    /// # Errors
    /// [`Error::Unreachable`] where it cannot be listed.
    pub async fn folders(&self, prefix: &str) -> Result<Vec<String>> {
        match self.disk.list_with_delimiter(Some(&key(prefix)?)).await {
            Ok(found) => Ok(found.common_prefixes.iter().filter_map(|p| p.filename().map(str::to_owned)).collect()),
            Err(object_store::Error::NotFound { .. }) => Ok(Vec::new()),
            Err(e) => Err(store_error("list", prefix, &e)),
        }
    }

    /// The whole object.
    ///
    /// # Errors
    /// [`Error::Unreachable`] where it cannot be read; the message says so when it does not exist.
    pub async fn get(&self, location: &str) -> Result<Bytes> {
        let key = self.existing(location).await?;
        let read = async { self.disk.get(&key).await?.bytes().await };
        read.await.map_err(|e| store_error("read", location, &e))
    }

    /// Bytes `range` of the object.
    ///
    /// # Errors
    /// As [`Store::get`], and where the object ends before `range` does.
    pub async fn get_range(&self, location: &str, range: Range<u64>) -> Result<Bytes> {
        let key = self.existing(location).await?;
        let wanted = range.end.saturating_sub(range.start);
        let bytes = self.disk.get_range(&key, range.clone()).await.map_err(|e| store_error("read", location, &e))?;
        if bytes.len() as u64 != wanted {
            let text = format!("cannot read bytes {}..{} of {location}: it ends before", range.start, range.end);
            return Err(Error::Unreachable(text));
        }
        Ok(bytes)
    }

    /// Size of the object in bytes.
    ///
    /// # Errors
    /// As [`Store::get`].
    pub async fn size(&self, location: &str) -> Result<u64> {
        Ok(self.found_object(location).await?.2)
    }

    /// The store, key and size of an object that exists, by whichever reading of its location finds it.
    ///
    /// # Errors
    /// As [`Store::get`].
    pub async fn found_object(&self, location: &str) -> Result<(Arc<dyn ObjectStore>, Path, u64)> {
        let key = self.existing(location).await?;
        let size = self.disk.head(&key).await.map_err(|e| store_error("read", location, &e))?.size;
        Ok((self.disk.clone(), key, size))
    }

    /// Whether the object exists.
    ///
    /// # Errors
    /// [`Error::Unreachable`] where the store does not answer.
    pub async fn exists(&self, location: &str) -> Result<bool> {
        self.found(&self.existing(location).await?).await.map_err(|e| store_error("read", location, &e))
    }

    /// Objects under the folder `prefix`, in no particular order.
    ///
    /// # Errors
    /// [`Error::Config`] as [`Store::object`]; items are [`Error::Unreachable`] where listing fails.
    pub fn list(&self, prefix: &str) -> Result<BoxStream<'static, Result<Listed>>> {
        let (key, prefix) = (key(prefix)?, prefix.to_string());
        let listing = self.disk.list(Some(&key)).map(move |found| match found {
            Ok(meta) => Ok(Listed {
                location: format!("file:///{}", meta.location),
                bytes: meta.size,
                modified_ms: meta.last_modified.timestamp_millis(),
            }),
            Err(e) => Err(store_error("list", &prefix, &e)),
        });
        Ok(listing.boxed())
    }

    /// Removes an object; one that is absent is fine. Only for [`iceberg::io::Storage`], whose callers drop what they
    /// own, and for cleaning the log of a Delta table: writers never delete data files.
    pub(crate) async fn remove(&self, location: &str) -> Result<()> {
        match self.disk.delete(&key(location)?).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(e) => Err(store_error("delete", location, &e)),
        }
    }

    /// The literal key, unless only the percent-decoded one exists.
    async fn existing(&self, location: &str) -> Result<Path> {
        let literal = key(location)?;
        let Some(decoded) = decoded_key(&literal) else { return Ok(literal) };
        let look = async { Ok(!self.found(&literal).await? && self.found(&decoded).await?) };
        let only_decoded: bool = look.await.map_err(|e| store_error("read", location, &e))?;
        Ok(if only_decoded { decoded } else { literal })
    }

    async fn found(&self, key: &Path) -> object_store::Result<bool> {
        match self.disk.head(key).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(e) => Err(e),
        }
    }
}

/// What has to reach the disk for a new file to be there after a power cut.
struct Flush {
    file: PathBuf,
    /// Folders that get an entry: the file's, and those above folders that the file is the first in.
    folders: Vec<PathBuf>,
    /// The file stays where flushing it fails, because others may have seen it.
    kept: bool,
}

impl Flush {
    /// Looks which folders are there before the file at `key` is written.
    fn before(key: &Path) -> Flush {
        let file = PathBuf::from(format!("/{key}"));
        let mut folders = Vec::new();
        for folder in file.ancestors().skip(1) {
            folders.push(folder.to_owned());
            if folder.is_dir() {
                break;
            }
        }
        Flush { file, folders, kept: false }
    }

    async fn run(self) -> object_store::Result<()> {
        let flush = move || {
            let file = std::fs::File::open(&self.file).and_then(|file| file.sync_data());
            // A file that did not reach the disk was not written: nothing refers to it yet, and its name is free again.
            file.inspect_err(|_| {
                if !self.kept {
                    drop(std::fs::remove_file(&self.file))
                }
            })?;
            self.folders.iter().try_for_each(|folder| std::fs::File::open(folder)?.sync_all())
        };
        let failed = |source| object_store::Error::Generic { store: "LocalFileSystem", source };
        let flushed: std::io::Result<()> = tokio::task::spawn_blocking(flush).await.map_err(|e| failed(Box::new(e)))?;
        flushed.map_err(|e| failed(Box::new(e)))
    }
}

/// The part of a location after its scheme and authority, as a key.
fn key(location: &str) -> Result<Path> {
    let path = match location.split_once(':') {
        Some(("file", rest)) => match rest.strip_prefix("//") {
            // An authority can only be this machine.
            Some(after) => after.strip_prefix("localhost").unwrap_or(after),
            None => rest,
        },
        Some((scheme, _)) if !scheme.contains('/') => {
            let text = format!("cannot open {location}: the scheme {scheme} is not supported yet, use file:///…");
            return Err(Error::Config(text));
        }
        _ => location,
    };
    if !path.starts_with('/') {
        return Err(Error::Config(format!("cannot open {location}: a location has to be absolute, as in file:///a/b")));
    }
    // Doubled slashes mean nothing to a file system, and object keys have none.
    let clean = path.split('/').filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/");
    Path::parse(&clean).map_err(|e| Error::Config(format!("cannot open {location}: {e}")))
}

/// The percent-decoded form of a key, where that is another one.
fn decoded_key(key: &Path) -> Option<Path> {
    if !key.as_ref().contains('%') {
        return None;
    }
    Path::from_url_path(key.as_ref()).ok().filter(|decoded| decoded != key)
}

fn store_error(verb: &str, location: &str, error: &object_store::Error) -> Error {
    if let object_store::Error::NotFound { .. } = error {
        return Error::Unreachable(format!("cannot {verb} {location}: it does not exist"));
    }
    Error::Unreachable(format!("cannot {verb} {location}: {}", cause(error)))
}

/// What the operating system said where it said something, else the whole chain of errors.
fn cause(error: &(dyn std::error::Error + 'static)) -> String {
    let (mut chain, mut at) = (vec![error.to_string()], error.source());
    while let Some(e) = at {
        if let Some(io) = e.downcast_ref::<std::io::Error>()
            && io.kind() == std::io::ErrorKind::StorageFull
        {
            return "no space is left on the device; free some, and the work resumes".to_string();
        }
        chain.push(e.to_string());
        at = e.source();
    }
    // A link of the chain often repeats the ones below it.
    chain.dedup_by(|below, above| above.contains(below.as_str()));
    chain.join(": ")
}

#[cfg(test)]
mod tests;
