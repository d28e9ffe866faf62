//! The object store behind every file of a table: one stack for data files, deletes, manifests and metadata.

mod flush;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions};
use serde::{Deserialize, Serialize};

use self::flush::Flush;
use super::buckets::{Bucket, Buckets};
use super::lent::Lent;
use super::place::{BucketName, Place};
use crate::{Error, Result};

/// Reads and writes objects by the locations that table metadata spells.
///
/// Local files are `file:///a/b`; `file:/a/b` (Hadoop's spelling) and a bare `/a/b` are the same object. Buckets are
/// `s3://`, `gs://` and `abfss://`. A location is taken literally first, as every engine does for partition folders such as
/// `name=a%2Fb`; only where no such object exists is its percent-decoded form read.
///
/// Every object is sent in one piece, so that it is there complete or absent, and no half of one is left behind.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Store {
    #[serde(skip, default = "local_disk")]
    disk: Arc<dyn ObjectStore>,
    /// Whether `disk` is this machine's: what is written is then flushed, so that a catalog that survives a power cut
    /// names nothing that did not.
    flushed: bool,
    /// In another process these are opened with what its environment has.
    #[serde(skip)]
    buckets: Arc<Buckets>,
}

/// A location, resolved.
struct Target {
    key: Path,
    /// For everything but a put-if-absent.
    store: Arc<dyn ObjectStore>,
    /// Where it is in a bucket: the bucket.
    bucket: Option<(BucketName, Bucket)>,
}

/// An object that [`Store::list`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Spelled literally.
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
        Store { disk: local_disk(), flushed: true, buckets: Arc::default() }
    }

    /// The local file system, and buckets that are opened with those of a catalog's properties that concern them: see
    /// [`super::STORE_PROPERTIES`]. What they leave open comes from the environment.
    #[must_use]
    pub fn with_properties(properties: &BTreeMap<String, String>) -> Self {
        Store { buckets: Arc::new(Buckets::new(properties)), ..Store::local() }
    }

    /// The same store, its buckets opened with what a catalog lends.
    #[must_use]
    pub fn lent(&self, lent: Arc<Lent>) -> Self {
        Store { buckets: Arc::new(self.buckets.lent(lent)), ..self.clone() }
    }

    /// `disk` in place of the local file system, addressed from the root `/`.
    #[must_use]
    pub fn over(disk: Arc<dyn ObjectStore>) -> Self {
        Store { disk, flushed: false, buckets: Arc::default() }
    }

    fn target(&self, location: &str) -> Result<Target> {
        match Place::of(location)? {
            Place::Disk(key) => Ok(Target { key, store: self.disk.clone(), bucket: None }),
            Place::Bucket(name, key) => {
                let bucket = self.buckets.get(&name, location)?;
                Ok(Target { key, store: bucket.patient.clone(), bucket: Some((name, bucket)) })
            }
        }
    }

    /// What went wrong, for whoever asked. Where lent credentials were refused, others are fetched before the next request.
    fn failed(&self, verb: &str, location: &str, error: &object_store::Error) -> Error {
        if let Some(lent) = self.buckets.lent.as_ref().filter(|_| refused(error)) {
            lent.doubt();
        }
        store_error(verb, location, error)
    }

    /// The store and the key in it that `location` stands for, taken literally.
    ///
    /// # Errors
    /// [`Error::Config`] where the scheme is unknown, the location is not absolute, or its bucket cannot be opened with the
    /// properties that there are.
    pub fn object(&self, location: &str) -> Result<(Arc<dyn ObjectStore>, Path)> {
        let target = self.target(location)?;
        Ok((target.store, target.key))
    }

    /// Writes a new object: afterwards it is there complete, or it is absent. No two objects may ever get the same name:
    /// in a bucket a put may be repeated, and one that was given up may still arrive.
    ///
    /// # Errors
    /// [`Error::Unreachable`] where the store or the disk does not take it, [`Error::Internal`] where a file of this
    /// name exists: names are never used twice.
    pub async fn put(&self, location: &str, bytes: Bytes) -> Result<()> {
        let target = self.target(location)?;
        if target.bucket.is_some() {
            let put = target.store.put(&target.key, bytes.into()).await;
            return put.map(|_| ()).map_err(|e| self.failed("write", location, &e));
        }
        let flush = self.flushed.then(|| Flush::before(&target.key));
        match self.disk.put_opts(&target.key, bytes.into(), create_only()).await {
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

    /// Writes a new object unless there is one of that name: true where it was written. Sent once.
    ///
    /// False may also mean that the store was busy with this name, or that the request was repeated on the way and met
    /// itself: only what is there tells whose it is.
    ///
    /// # Errors
    /// [`Error::Unreachable`] where the answer is neither: then it may be there, now or later.
    pub async fn create(&self, location: &str, bytes: Bytes) -> Result<bool> {
        let target = self.target(location)?;
        let flush =
            (self.flushed && target.bucket.is_none()).then(|| Flush { kept: true, ..Flush::before(&target.key) });
        let store = target.bucket.map_or(target.store, |(_, bucket)| bucket.once);
        match store.put_opts(&target.key, bytes.into(), create_only()).await {
            Ok(_) => match flush {
                Some(flush) => flush.run().await.map(|()| true).map_err(|e| store_error("write", location, &e)),
                None => Ok(true),
            },
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => Ok(false),
            Err(e) => Err(self.failed("write", location, &e)),
        }
    }

    /// Shows that [`Store::create`] never replaces an object below `folder`, which a log of versions rests on. A local disk
    /// needs no showing; in a bucket one small object is written and removed again.
    ///
    /// # Errors
    /// [`Error::Config`] where the store replaces objects, or does not know how to refuse that; [`Error::Unreachable`] where
    /// it does not answer.
    pub async fn probe_create(&self, folder: &str) -> Result<()> {
        let location = format!("{folder}/_firn_probe/{}", uuid::Uuid::new_v4());
        if self.target(&location)?.bucket.is_none() {
            return Ok(());
        }
        let unfit = |what: &str| {
            Error::Config(format!(
                "{folder}: the object store {what}, so two writers could take the same version of a Delta table and one \
                 would be lost; use a store with conditional writes (If-None-Match), or an Iceberg catalog"
            ))
        };
        let first = match self.create(&location, Bytes::from_static(b"first")).await {
            // An answer that says so, not a lost one: this name was never used.
            Err(Error::Unreachable(why)) if why.contains("501") || why.contains("NotImplemented") => {
                return Err(unfit("does not know conditional writes"));
            }
            other => other?,
        };
        if !first {
            let text = format!("cannot write {location}: the store said that it exists, but this name was never used");
            return Err(Error::Unreachable(text));
        }
        let second = self.create(&location, Bytes::from_static(b"second")).await?;
        let kept = self.get_if_there(&location).await?;
        // What is left behind harms nothing, and some may write and not delete.
        if let Err(error) = self.remove(&location).await {
            tracing::debug!(location, %error, "the probe object was not removed");
        }
        match (second, kept.as_deref()) {
            (false, Some(b"first")) => Ok(()),
            (true, _) | (_, Some(b"second")) => Err(unfit("replaces an object that it was told to leave alone")),
            _ => Err(Error::Unreachable(format!(
                "cannot write {location}: the store said that it exists, but it does not"
            ))),
        }
    }

    /// Writes an object in place of the one that is there, if any. For hints that may be wrong, and nothing else.
    ///
    /// # Errors
    /// [`Error::Unreachable`] where the store or the disk does not take it.
    pub async fn replace(&self, location: &str, bytes: Bytes) -> Result<()> {
        let target = self.target(location)?;
        let put = target.store.put(&target.key, bytes.into()).await;
        put.map(|_| ()).map_err(|e| self.failed("write", location, &e))
    }

    /// The whole object, or none where there is no such object.
    ///
    /// # Errors
    /// [`Error::Unreachable`] where it cannot be read.
    pub async fn get_if_there(&self, location: &str) -> Result<Option<Bytes>> {
        let target = self.target(location)?;
        match target.store.get(&target.key).await {
            Ok(found) => found.bytes().await.map(Some).map_err(|e| self.failed("read", location, &e)),
            Err(e) if absent(&e) => Ok(None),
            Err(e) => Err(self.failed("read", location, &e)),
        }
    }

    /// Names of the folders directly below a folder; none below one that does not exist.
    ///
    /// # Errors
    /// [`Error::Unreachable`] where it cannot be listed.
    pub async fn folders(&self, prefix: &str) -> Result<Vec<String>> {
        let target = self.target(prefix)?;
        match target.store.list_with_delimiter(Some(&target.key)).await {
            Ok(found) => Ok(found.common_prefixes.iter().filter_map(|p| p.filename().map(str::to_owned)).collect()),
            Err(e) if absent(&e) => Ok(Vec::new()),
            Err(e) => Err(self.failed("list", prefix, &e)),
        }
    }

    /// The whole object.
    ///
    /// # Errors
    /// [`Error::Unreachable`] where it cannot be read; the message says so when it does not exist.
    pub async fn get(&self, location: &str) -> Result<Bytes> {
        let (store, key) = self.existing(location).await?;
        let read = async { store.get(&key).await?.bytes().await };
        read.await.map_err(|e| self.failed("read", location, &e))
    }

    /// Bytes `range` of the object.
    ///
    /// # Errors
    /// As [`Store::get`], and where the object ends before `range` does.
    pub async fn get_range(&self, location: &str, range: Range<u64>) -> Result<Bytes> {
        let (store, key) = self.existing(location).await?;
        let wanted = range.end.saturating_sub(range.start);
        let bytes = store.get_range(&key, range.clone()).await.map_err(|e| self.failed("read", location, &e))?;
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
        let (store, key) = self.existing(location).await?;
        let size = store.head(&key).await.map_err(|e| self.failed("read", location, &e))?.size;
        Ok((store, key, size))
    }

    /// Whether the object exists.
    ///
    /// # Errors
    /// [`Error::Unreachable`] where the store does not answer.
    pub async fn exists(&self, location: &str) -> Result<bool> {
        let (store, key) = self.existing(location).await?;
        found(&store, &key).await.map_err(|e| self.failed("read", location, &e))
    }

    /// Objects under the folder `prefix`, in no particular order.
    ///
    /// # Errors
    /// [`Error::Config`] as [`Store::object`]; items are [`Error::Unreachable`] where listing fails.
    pub fn list(&self, prefix: &str) -> Result<BoxStream<'static, Result<Listed>>> {
        let (target, prefix, store) = (self.target(prefix)?, prefix.to_string(), self.clone());
        let bucket = target.bucket.map(|(name, _)| name);
        let listing = target.store.list(Some(&target.key)).map(move |found| match found {
            Ok(meta) => Ok(Listed {
                location: match &bucket {
                    Some(name) => name.location(&meta.location),
                    None => format!("file:///{}", meta.location),
                },
                bytes: meta.size,
                modified_ms: meta.last_modified.timestamp_millis(),
            }),
            Err(e) => Err(store.failed("list", &prefix, &e)),
        });
        Ok(listing.boxed())
    }

    /// Removes an object; one that is absent is fine. Only for [`iceberg::io::Storage`], whose callers drop what they
    /// own, and for cleaning the log of a Delta table: writers never delete data files.
    pub(crate) async fn remove(&self, location: &str) -> Result<()> {
        let target = self.target(location)?;
        match target.store.delete(&target.key).await {
            Ok(()) => Ok(()),
            Err(e) if absent(&e) => Ok(()),
            Err(e) => Err(self.failed("delete", location, &e)),
        }
    }

    /// The literal key, unless only the percent-decoded one exists.
    async fn existing(&self, location: &str) -> Result<(Arc<dyn ObjectStore>, Path)> {
        let Target { key: literal, store, .. } = self.target(location)?;
        let Some(decoded) = decoded_key(&literal) else { return Ok((store, literal)) };
        let look = async { Ok(!found(&store, &literal).await? && found(&store, &decoded).await?) };
        let only_decoded: bool = look.await.map_err(|e| self.failed("read", location, &e))?;
        Ok((store, if only_decoded { decoded } else { literal }))
    }
}

fn create_only() -> PutOptions {
    PutOptions { mode: PutMode::Create, ..PutOptions::default() }
}

async fn found(store: &Arc<dyn ObjectStore>, key: &Path) -> object_store::Result<bool> {
    match store.head(key).await {
        Ok(_) => Ok(true),
        Err(e) if absent(&e) => Ok(false),
        Err(e) => Err(e),
    }
}

/// There is no such object, but there is a bucket where it would be.
fn absent(error: &object_store::Error) -> bool {
    matches!(error, object_store::Error::NotFound { source, .. } if !source.to_string().contains("NoSuchBucket"))
}

/// The store did not accept the credentials. Some say so with a status that means something else.
fn refused(error: &object_store::Error) -> bool {
    use object_store::Error::{PermissionDenied, Unauthenticated};
    let expired = || ["ExpiredToken", "InvalidToken", "TokenRefreshRequired"].iter().any(|c| cause(error).contains(c));
    matches!(error, PermissionDenied { .. } | Unauthenticated { .. }) || expired()
}

/// The percent-decoded form of a key, where that is another one.
fn decoded_key(key: &Path) -> Option<Path> {
    if !key.as_ref().contains('%') {
        return None;
    }
    Path::from_url_path(key.as_ref()).ok().filter(|decoded| decoded != key)
}

fn store_error(verb: &str, location: &str, error: &object_store::Error) -> Error {
    use object_store::Error::{NotFound, PermissionDenied, Unauthenticated};
    let why = match error {
        NotFound { .. } if absent(error) => "it does not exist".to_owned(),
        NotFound { .. } => "there is no such bucket; create it, or correct the warehouse".to_owned(),
        PermissionDenied { .. } | Unauthenticated { .. } => {
            format!("access is denied; check the credentials and what they allow: {}", cause(error))
        }
        _ => cause(error),
    };
    Error::Unreachable(format!("cannot {verb} {location}: {why}"))
}

/// What the operating system said where it said something, else the whole chain of errors.
pub(super) fn cause(error: &(dyn std::error::Error + 'static)) -> String {
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
    without_queries(&chain.join(": "))
}

/// Signatures are in the queries of addresses.
fn without_queries(text: &str) -> String {
    let words = text.split(' ').map(|word| match word.split_once('?') {
        Some((address, _)) if address.contains("://") => format!("{address}?…"),
        _ => word.to_owned(),
    });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests;
