//! What is written on this machine reaches its disk, so that a catalog that survives a power cut names nothing that did not.

use std::path::PathBuf;

use object_store::path::Path;

/// What has to reach the disk for a new file to be there after a power cut.
pub(super) struct Flush {
    pub(super) file: PathBuf,
    /// Folders that get an entry: the file's, and those above folders that the file is the first in.
    pub(super) folders: Vec<PathBuf>,
    /// The file stays where flushing it fails, because others may have seen it.
    pub(super) kept: bool,
}

impl Flush {
    /// Looks which folders are there before the file at `key` is written.
    pub(super) fn before(key: &Path) -> Flush {
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

    pub(super) async fn run(self) -> object_store::Result<()> {
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
