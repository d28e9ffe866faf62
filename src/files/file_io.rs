//! Our object store as Iceberg's file interface, so that manifests and metadata take the same way as data files.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use iceberg::io::{
    FileIO, FileIOBuilder, FileMetadata, FileRead, FileWrite, InputFile, OutputFile, Storage, StorageConfig,
    StorageFactory,
};
use iceberg::{Error as IcebergError, ErrorKind, Result as IcebergResult};

use super::Store;
use crate::Error;

impl Store {
    /// This store as the `iceberg` crate wants it. Writes create objects and never replace one.
    #[must_use]
    pub fn file_io(&self) -> FileIO {
        FileIOBuilder::new(Arc::new(self.clone())).build()
    }
}

/// An error of the `iceberg` crate by what the operator can do: one that this store raised comes back as it was, any other
/// one means that what was read is not what it should be.
#[must_use]
pub fn from_iceberg(context: &str, error: &IcebergError) -> Error {
    let mut at: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(e) = at {
        if let Some(ours) = e.downcast_ref::<Error>() {
            return ours.clone().within(context);
        }
        at = e.source();
    }
    Error::Decision(format!("{context}: {error}"))
}

fn to_iceberg(error: Error) -> IcebergError {
    IcebergError::new(ErrorKind::Unexpected, error.to_string()).with_source(error)
}

#[typetag::serde(name = "FirnStore")]
impl StorageFactory for Store {
    fn build(&self, _config: &StorageConfig) -> IcebergResult<Arc<dyn Storage>> {
        Ok(Arc::new(self.clone()))
    }
}

#[async_trait]
#[typetag::serde(name = "FirnStore")]
impl Storage for Store {
    async fn exists(&self, path: &str) -> IcebergResult<bool> {
        Store::exists(self, path).await.map_err(to_iceberg)
    }

    async fn metadata(&self, path: &str) -> IcebergResult<FileMetadata> {
        Ok(FileMetadata { size: self.size(path).await.map_err(to_iceberg)? })
    }

    async fn read(&self, path: &str) -> IcebergResult<Bytes> {
        self.get(path).await.map_err(to_iceberg)
    }

    async fn reader(&self, path: &str) -> IcebergResult<Box<dyn FileRead>> {
        Ok(Box::new(RangeReader { store: self.clone(), location: path.to_string() }))
    }

    async fn write(&self, path: &str, bs: Bytes) -> IcebergResult<()> {
        self.put(path, bs).await.map_err(to_iceberg)
    }

    async fn writer(&self, path: &str) -> IcebergResult<Box<dyn FileWrite>> {
        Ok(Box::new(WholeWriter { store: self.clone(), location: path.to_string(), held: Some(Vec::new()) }))
    }

    async fn delete(&self, path: &str) -> IcebergResult<()> {
        self.remove(path).await.map_err(to_iceberg)
    }

    async fn delete_prefix(&self, path: &str) -> IcebergResult<()> {
        let mut listing = self.list(path).map_err(to_iceberg)?;
        while let Some(found) = listing.next().await {
            self.remove(&found.map_err(to_iceberg)?.location).await.map_err(to_iceberg)?;
        }
        Ok(())
    }

    async fn delete_stream(&self, mut paths: BoxStream<'static, String>) -> IcebergResult<()> {
        while let Some(path) = paths.next().await {
            self.remove(&path).await.map_err(to_iceberg)?;
        }
        Ok(())
    }

    fn new_input(&self, path: &str) -> IcebergResult<InputFile> {
        Ok(InputFile::new(Arc::new(self.clone()), path.to_string()))
    }

    fn new_output(&self, path: &str) -> IcebergResult<OutputFile> {
        Ok(OutputFile::new(Arc::new(self.clone()), path.to_string()))
    }
}

struct RangeReader {
    store: Store,
    location: String,
}

#[async_trait]
impl FileRead for RangeReader {
    async fn read(&self, range: Range<u64>) -> IcebergResult<Bytes> {
        self.store.get_range(&self.location, range).await.map_err(to_iceberg)
    }
}

/// Holds what is written until the end: manifests and metadata are small, and one put is complete or absent.
struct WholeWriter {
    store: Store,
    location: String,
    /// `None` once closed.
    held: Option<Vec<u8>>,
}

impl WholeWriter {
    fn closed(&self) -> IcebergError {
        IcebergError::new(ErrorKind::Unexpected, format!("{} is written and closed already", self.location))
    }
}

#[async_trait]
impl FileWrite for WholeWriter {
    async fn write(&mut self, bs: Bytes) -> IcebergResult<()> {
        match &mut self.held {
            Some(held) => held.extend_from_slice(&bs),
            None => return Err(self.closed()),
        }
        Ok(())
    }

    async fn close(&mut self) -> IcebergResult<()> {
        let held = self.held.take().ok_or_else(|| self.closed())?;
        self.store.put(&self.location, held.into()).await.map_err(to_iceberg)
    }
}
