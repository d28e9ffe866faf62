//! Locations as table metadata spells them: which store, and which key in it.

use object_store::path::Path;

use crate::{Error, Result};

/// Where an object is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// On this machine.
    Disk(Path),
    /// In a bucket or container.
    Bucket(BucketName, Path),
}

/// A bucket or container by its whole name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct BucketName {
    pub provider: Provider,
    /// As the location spells it: tables keep the spelling that they began with.
    pub scheme: String,
    /// `bucket`, or `container@account.host`.
    pub authority: String,
}

/// Whose protocol a bucket speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Provider {
    S3,
    Google,
    Azure,
}

const SCHEMES: [(&str, Provider); 6] = [
    ("s3", Provider::S3),
    // Hadoop's spelling, in tables that others made.
    ("s3a", Provider::S3),
    ("gs", Provider::Google),
    ("abfss", Provider::Azure),
    ("abfs", Provider::Azure),
    ("wasbs", Provider::Azure),
];

impl Place {
    /// Takes a location apart.
    ///
    /// # Errors
    /// [`Error::Config`] where the scheme is unknown or the location is not absolute.
    pub(super) fn of(location: &str) -> Result<Place> {
        if let Some((scheme, rest)) = location.split_once("://")
            && let Some((_, provider)) = SCHEMES.iter().find(|(name, _)| *name == scheme)
        {
            let (authority, key) = rest.split_once('/').unwrap_or((rest, ""));
            if authority.is_empty() {
                return Err(Error::Config(format!("cannot open {location}: it names no bucket")));
            }
            let name = BucketName { provider: *provider, scheme: scheme.into(), authority: authority.into() };
            // Keys are taken as they are: a doubled slash would be another object.
            return Ok(Place::Bucket(name, parsed(location, key.trim_end_matches('/'))?));
        }
        disk(location).map(Place::Disk)
    }
}

impl BucketName {
    /// The location of a key.
    pub(super) fn location(&self, key: &Path) -> String {
        format!("{}://{}/{key}", self.scheme, self.authority)
    }
}

fn disk(location: &str) -> Result<Path> {
    let path = match location.split_once(':') {
        Some(("file", rest)) => match rest.strip_prefix("//") {
            // An authority can only be this machine.
            Some(after) => after.strip_prefix("localhost").unwrap_or(after),
            None => rest,
        },
        Some((scheme, _)) if !scheme.contains('/') => {
            let text = format!(
                "cannot open {location}: the scheme {scheme} is not supported; there are file:///, s3://, gs:// and abfss://"
            );
            return Err(Error::Config(text));
        }
        _ => location,
    };
    if !path.starts_with('/') {
        return Err(Error::Config(format!("cannot open {location}: a location has to be absolute, as in file:///a/b")));
    }
    // Doubled slashes mean nothing to a file system.
    let clean = path.split('/').filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/");
    parsed(location, &clean)
}

fn parsed(location: &str, key: &str) -> Result<Path> {
    Path::parse(key).map_err(|e| Error::Config(format!("cannot open {location}: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_file_has_many_spellings() {
        let spellings =
            ["/a/b c", "file:/a/b c", "file:///a/b c", "file://localhost/a/b c", "file:///a//b c", "file:///a/b c/"];
        for spelling in spellings {
            assert_eq!(Place::of(spelling).unwrap(), Place::Disk(Path::parse("a/b c").unwrap()), "{spelling}");
        }
        // A colon in a path is no scheme.
        assert_eq!(Place::of("/a:b/c").unwrap(), Place::Disk(Path::parse("a:b/c").unwrap()));
    }

    #[test]
    fn buckets_keep_their_spelling() {
        for (location, provider, authority, key) in [
            ("s3://b/a/b%20c", Provider::S3, "b", "a/b%20c"),
            ("s3a://b/n=1/x", Provider::S3, "b", "n=1/x"),
            ("gs://b", Provider::Google, "b", ""),
            ("abfss://c@a.dfs.core.windows.net/t/", Provider::Azure, "c@a.dfs.core.windows.net", "t"),
        ] {
            let Place::Bucket(name, found) = Place::of(location).unwrap() else { panic!("{location} is on no disk") };
            assert_eq!((name.provider, name.authority.as_str(), found.as_ref()), (provider, authority, key));
            assert_eq!(name.location(&found).trim_end_matches('/'), location.trim_end_matches('/'));
        }
    }

    #[test]
    fn locations_that_cannot_be_opened_are_named() {
        for location in ["ftp://host/x", "a/b", "file:a", "", "file:///a/../b", "s3:///x", "s3://b/a//b", "s3://b/../b"]
        {
            let error = Place::of(location).unwrap_err();
            assert!(matches!(&error, Error::Config(m) if m.contains(location)), "{error}");
        }
    }
}
