mod bucket;

use futures::TryStreamExt;

use super::*;

fn key(location: &str) -> Path {
    Store::local().target(location).unwrap().key
}

#[tokio::test]
async fn odd_names_are_kept_literally_on_disk_and_found_decoded() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().to_str().unwrap();
    let store = Store::local();
    for name in ["n=a%2Fb+ü/x#y.parquet", "sp ace/[a]{b}~?*.parquet", "100%.parquet"] {
        let location = format!("file://{root}/{name}");
        store.put(&location, Bytes::from_static(b"abcdef")).await.unwrap();
        assert_eq!(std::fs::read(folder.path().join(name)).unwrap(), b"abcdef");
        assert_eq!(store.get_range(&location, 2..4).await.unwrap(), "cd");
        assert_eq!(store.size(&format!("file:{root}/{name}")).await.unwrap(), 6);
    }
    assert_eq!(store.get(&format!("file://{root}/sp%20ace/%5Ba%5D%7Bb%7D~%3F%2A.parquet")).await.unwrap(), "abcdef");
    let listed: Vec<_> = store.list(&format!("file://{root}")).unwrap().try_collect().await.unwrap();
    assert_eq!(listed.len(), 3);
    for found in listed {
        assert_eq!(store.size(&found.location).await.unwrap(), found.bytes, "{}", found.location);
    }
}

#[test]
fn every_folder_that_gets_an_entry_is_flushed() {
    let folder = tempfile::tempdir().unwrap();
    let flush = Flush::before(&key(&format!("{}/day=1/hour=2/x", folder.path().display())));
    assert_eq!(flush.file, folder.path().join("day=1/hour=2/x"));
    assert_eq!(flush.folders, ["day=1/hour=2", "day=1", ""].map(|f| folder.path().join(f)));
    std::fs::create_dir_all(folder.path().join("day=1/hour=2")).unwrap();
    let flush = Flush::before(&key(&format!("{}/day=1/hour=2/x", folder.path().display())));
    assert_eq!(flush.folders, [folder.path().join("day=1/hour=2")]);
}

/// INV-10
#[tokio::test]
async fn nothing_is_overwritten_and_what_is_missing_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let location = format!("file://{}/new/x", folder.path().display());
    let store = Store::local();
    store.put(&location, Bytes::from_static(b"one")).await.unwrap();
    assert!(matches!(store.put(&location, Bytes::from_static(b"two")).await, Err(Error::Internal(_))));
    assert_eq!(store.get(&location).await.unwrap(), "one");
    assert!(matches!(store.get_range(&location, 1..9).await, Err(Error::Unreachable(_))));
    let missing = store.get(&format!("{location}y")).await.unwrap_err();
    assert!(matches!(&missing, Error::Unreachable(m) if m.contains("new/xy: it does not exist")), "{missing}");
    assert!(!store.exists(&format!("{location}y")).await.unwrap());
    // Nothing but the object is left: no temporary file.
    assert_eq!(std::fs::read_dir(folder.path().join("new")).unwrap().count(), 1);
}

#[test]
fn errors_say_what_to_do_and_no_secret() {
    use object_store::Error::{Generic, NotFound, PermissionDenied};
    let text = |why: &str| -> Box<dyn std::error::Error + Send + Sync> { why.into() };
    for (error, wanted) in [
        (NotFound { path: "k".into(), source: text("<Code>NoSuchBucket</Code>") }, "there is no such bucket"),
        (NotFound { path: "k".into(), source: text("<Code>NoSuchKey</Code>") }, "it does not exist"),
        (PermissionDenied { path: "k".into(), source: text("InvalidAccessKeyId") }, "access is denied"),
        (
            Generic { store: "Azure", source: text("Error performing GET https://a/b/c?sv=1&sig=hunter2 in 3 ms") },
            "?… in 3 ms",
        ),
    ] {
        let error = store_error("read", "s3://b/k", &error).to_string();
        assert!(error.contains(wanted) && !error.contains("hunter2"), "{error}");
    }
}

#[test]
fn a_full_disk_is_waited_out_and_names_the_path() {
    let io = std::io::Error::from_raw_os_error(libc::ENOSPC);
    let full = object_store::Error::Generic { store: "LocalFileSystem", source: Box::new(io) };
    let error = store_error("write", "file:///d/x", &full);
    assert!(matches!(&error, Error::Unreachable(m) if m.contains("file:///d/x: no space is left")), "{error}");
}

#[tokio::test]
async fn the_iceberg_crate_reads_and_writes_through_this_store() {
    let folder = tempfile::tempdir().unwrap();
    let location = format!("file://{}/m/x.avro", folder.path().display());
    let io = Store::local().file_io();
    let mut writer = io.new_output(&location).unwrap().writer().await.unwrap();
    writer.write(Bytes::from_static(b"abc")).await.unwrap();
    assert!(!io.exists(&location).await.unwrap(), "absent until complete");
    writer.write(Bytes::from_static(b"def")).await.unwrap();
    writer.close().await.unwrap();
    let input = io.new_input(&location).unwrap();
    assert_eq!(input.read().await.unwrap(), "abcdef");
    assert_eq!(input.reader().await.unwrap().read(1..3).await.unwrap(), "bc");
    assert_eq!(input.metadata().await.unwrap().size, 6);

    let error = io.new_input("file:///no/such").unwrap().read().await.unwrap_err();
    let error = crate::files::from_iceberg("cannot load table t", &error);
    assert!(matches!(&error, Error::Unreachable(m) if m.starts_with("cannot load table t: cannot read")), "{error}");
    io.delete(&location).await.unwrap();
    assert!(!io.exists(&location).await.unwrap());

    // A factory can be sent to another process.
    let factory: std::sync::Arc<dyn iceberg::io::StorageFactory> = std::sync::Arc::new(Store::local());
    let sent = serde_json::to_string(&factory).unwrap();
    serde_json::from_str::<Box<dyn iceberg::io::StorageFactory>>(&sent).unwrap();
}
