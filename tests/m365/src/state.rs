//! What outlives a restart beside the authority: the configuration that `PUT /config` has set.
//!
//! A file in the state directory. It comes before the configuration that the program was started with, until
//! `DELETE /config` removes it.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::{config::Config, files::write_atomically};

const CONFIG: &str = "config.json";

/// Where the configuration is stored; without a directory nowhere.
#[derive(Clone, Debug)]
pub struct Stored(Option<PathBuf>);

impl Stored {
    /// In this directory, which is there.
    #[must_use]
    pub fn in_directory(directory: Option<&Path>) -> Self {
        Self(directory.map(|directory| directory.join(CONFIG)))
    }

    /// The stored configuration. One that cannot be used, as an older program may have written it, is reported and
    /// passed over.
    #[must_use]
    pub fn config(&self) -> Option<Config> {
        let path = self.0.as_ref()?;
        let text = fs::read_to_string(path).ok()?;
        match serde_json::from_str::<Config>(&text).map_err(|error| error.to_string()).and_then(usable) {
            Ok(config) => {
                tracing::info!(file = %path.display(), "the configuration of an earlier PUT /config is used");
                Some(config)
            }
            Err(error) => {
                tracing::warn!(file = %path.display(), "the stored configuration is not used: {error}");
                None
            }
        }
    }

    /// Stores a configuration.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn keep(&self, config: &Config) -> io::Result<()> {
        let Some(path) = &self.0 else { return Ok(()) };
        write_atomically(path, &serde_json::to_string_pretty(config)?)
    }

    /// Removes the stored configuration, if there is one.
    ///
    /// # Errors
    /// The file cannot be removed.
    pub fn forget(&self) -> io::Result<()> {
        let Some(path) = &self.0 else { return Ok(()) };
        fs::remove_file(path).or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => Ok(()),
            _ => Err(error),
        })
    }
}

fn usable(config: Config) -> Result<Config, String> {
    match config.faults() {
        faults if faults.is_empty() => Ok(config),
        faults => Err(faults.join("; ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_is_stored_read_and_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let stored = Stored::in_directory(Some(directory.path()));
        assert_eq!(stored.config(), None);
        stored.keep(&Config::contoso()).unwrap();
        assert_eq!(stored.config(), Some(Config::contoso()));
        stored.forget().unwrap();
        stored.forget().unwrap();
        assert_eq!(stored.config(), None);
    }

    #[test]
    fn a_damaged_file_is_passed_over() {
        let directory = tempfile::tempdir().unwrap();
        let stored = Stored::in_directory(Some(directory.path()));
        let mut config = Config::contoso();
        config.tokens.lifetime_seconds = 0;
        for text in
            ["{", r#"{"directory": {"tenants": []}, "limit": {}}"#, &serde_json::to_string(&config).unwrap()]
        {
            fs::write(directory.path().join(CONFIG), text).unwrap();
            assert_eq!(stored.config(), None, "{text}");
        }
    }
}
