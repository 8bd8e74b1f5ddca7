//! `gateway.toml`: a gateway beyond loopback needs more than an address.

use crate::gateway::Options;
use crate::limits::TOKEN_LIFETIME;
use crate::listen::Security;
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::time::Duration;
use thiserror::Error;

/// A gateway's file. Unknown fields are errors; relative paths start at the file's folder.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GatewayConfig {
    /// The cluster's file, `cluster.toml`.
    pub cluster: PathBuf,
    /// Where it listens, `host:port`.
    pub listen: String,
    /// Where clients are told to connect, `https://host:port`; without it, the address that is listened on.
    pub advertise: Option<String>,
    /// How long a user who has logged in need not do it again, in seconds; a day without it.
    pub token_seconds: Option<u64>,
    /// The certificates that the gateway shows, its own first, in PEM. Needed beyond loopback, as are the next two.
    pub cert_file: Option<PathBuf>,
    /// The private key of the first certificate, in PEM.
    pub key_file: Option<PathBuf>,
    /// The authorities whose certificates clients may come with, in PEM.
    pub client_ca_file: Option<PathBuf>,
}

/// Why a gateway's file could not be used.
#[derive(Debug, Error)]
pub enum GatewayConfigError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not what it should be.
    #[error("{}: {message}", path.display())]
    Wrong {
        /// Which.
        path: PathBuf,
        /// Where, and what is wrong there.
        message: String,
    },
}

impl GatewayConfig {
    /// Reads `path`.
    ///
    /// # Errors
    /// [`GatewayConfigError`]
    pub fn load(path: &Path) -> Result<Self, GatewayConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| GatewayConfigError::Read { path: path.to_owned(), source })?;
        let mut config: Self = toml::from_str(&text).map_err(|error| GatewayConfigError::Wrong {
            path: path.to_owned(),
            message: error.to_string().trim_end().to_owned(),
        })?;
        let beside = |it: &Path| path.parent().unwrap_or(Path::new("")).join(it);
        config.cluster = beside(&config.cluster);
        for file in [&mut config.cert_file, &mut config.key_file, &mut config.client_ca_file].into_iter().flatten() {
            *file = beside(file);
        }
        if config.cert_file.is_some() != config.key_file.is_some() {
            let message = "`cert_file` and `key_file` belong together: name both, or neither".to_owned();
            return Err(GatewayConfigError::Wrong { path: path.to_owned(), message });
        }
        if config.client_ca_file.is_some() && config.cert_file.is_none() {
            let message = "`client_ca_file` needs `cert_file` and `key_file`: without TLS there are no certificates";
            return Err(GatewayConfigError::Wrong { path: path.to_owned(), message: message.to_owned() });
        }
        Ok(config)
    }

    /// How the gateway is to behave.
    pub fn options(&self) -> Options {
        let security = match (&self.cert_file, &self.key_file) {
            (Some(cert_file), Some(key_file)) => Security::Tls {
                cert_file: cert_file.clone(),
                key_file: key_file.clone(),
                client_ca_file: self.client_ca_file.clone(),
            },
            _ => Security::Plain,
        };
        let token_lifetime = self.token_seconds.map_or(TOKEN_LIFETIME, Duration::from_secs);
        Options { security, advertise: self.advertise.clone(), token_lifetime, ..Options::default() }
    }
}
