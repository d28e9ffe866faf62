//! The demo's folder: its `firn.yaml`, and one demo in it at a time.

use std::fs::{self, File, TryLockError};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use super::{PIPELINE, TOPIC};
use crate::settings::{Brokers, Pipeline, RegistryUrl, Settings, Topics};
use crate::{Error, Result};

const TEMPLATE: &str = include_str!("firn.yaml");
const FILE: &str = "firn.yaml";
/// The settings before they are whole; a demo that was killed may have left it.
const UNFINISHED: &str = ".firn.yaml.new";

/// A folder that holds a demo, and nothing of anyone else's.
#[derive(Debug)]
pub(super) struct Folder {
    /// The settings file, as it is to be named in commands.
    pub(super) config: PathBuf,
    /// What it says, without pipelines other than the demo's.
    pub(super) settings: Settings,
    /// Somebody changed the settings file since a demo wrote it.
    pub(super) edited: bool,
    /// Held for as long as the demo runs: a second one in the folder would fence this one's writer off.
    _lock: File,
}

impl Folder {
    /// Makes the folder and its `firn.yaml` where they are missing.
    ///
    /// # Errors
    /// [`Error::Config`] when the folder holds something else, when its settings are not a demo's, or when another demo
    /// runs in it; [`Error::Unreachable`] when the disk does not take it.
    pub(super) fn open(dir: &Path) -> Result<Folder> {
        fs::create_dir_all(dir).map_err(|e| refused("create the folder", dir, &e))?;
        let config = dir.join(FILE);
        if !config.try_exists().map_err(|e| refused("look at", &config, &e))? {
            refuse_strangers(dir)?;
            write_whole(dir, &config)?;
        }
        let lock = File::open(&config).map_err(|e| refused("open", &config, &e))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::Config(format!(
                    "another `firn demo` is running in {}; end it, or choose another folder with --dir",
                    dir.display()
                )));
            }
            // Where files cannot be locked, a second demo would be noticed by its epoch in the table.
            Err(TryLockError::Error(error)) => tracing::debug!(%error, "the settings file cannot be locked"),
        }
        let text = fs::read_to_string(&config).map_err(|e| refused("read", &config, &e))?;
        let mut settings = Settings::load(&config)?;
        demo_pipeline(&settings)?;
        settings.pipelines.retain(|name, _| name == PIPELINE);
        Ok(Folder { config, settings, edited: text != TEMPLATE, _lock: lock })
    }

    /// The pipeline of the demo.
    ///
    /// # Errors
    /// [`Error::Config`] where the settings have none.
    pub(super) fn pipeline(&self) -> Result<&Pipeline> {
        self.settings.pipeline(PIPELINE)
    }
}

/// Checks that the settings are still those of a demo: it must not write to, nor read from, anything but its own parts.
fn demo_pipeline(settings: &Settings) -> Result<()> {
    let wrong = |why: &str| {
        let file = settings.path.display();
        Err(Error::Config(format!(
            "{file} was edited and is not a demo's any more: {why}; use it with `firn run`, or choose another folder with --dir"
        )))
    };
    if settings.kafka.brokers != Brokers::Embedded {
        return wrong("kafka.brokers is not `embedded`");
    }
    if settings.schema_registry.url != RegistryUrl::Embedded {
        return wrong("schema_registry.url is not `embedded`");
    }
    let Some(pipeline) = settings.pipelines.get(PIPELINE) else {
        return wrong(&format!("it has no pipeline `{PIPELINE}`"));
    };
    if pipeline.topics != Topics::Names(vec![TOPIC.to_owned()]) {
        return wrong(&format!("pipelines.{PIPELINE}.topics is not [{TOPIC}]"));
    }
    Ok(())
}

fn refuse_strangers(dir: &Path) -> Result<()> {
    let entries = fs::read_dir(dir).map_err(|e| refused("look into", dir, &e))?;
    for entry in entries {
        let entry = entry.map_err(|e| refused("look into", dir, &e))?;
        if entry.file_name() != UNFINISHED {
            return Err(Error::Config(format!(
                "{} holds other things ({}) and no {FILE} of a demo; choose another folder with --dir",
                dir.display(),
                entry.file_name().display()
            )));
        }
    }
    Ok(())
}

/// Writes the settings so that they are there as a whole, or not at all.
fn write_whole(dir: &Path, config: &Path) -> Result<()> {
    let unfinished = dir.join(UNFINISHED);
    let write = || {
        let mut file = File::create(&unfinished)?;
        file.write_all(TEMPLATE.as_bytes())?;
        file.sync_all()?;
        fs::rename(&unfinished, config)
    };
    write().map_err(|e| {
        // The error is what matters; a leftover does not disturb the next start.
        let _ = fs::remove_file(&unfinished);
        refused("write", config, &e)
    })
}

fn refused(what: &str, path: &Path, error: &std::io::Error) -> Error {
    let text = format!("cannot {what} {}: {error}; choose another folder with --dir", path.display());
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::TimedOut => Error::Unreachable(text),
        _ => Error::Config(text),
    }
}

#[cfg(test)]
mod tests;
