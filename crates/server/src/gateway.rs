//! A gateway as a whole: made of a cluster's files and an address, it serves until it is dropped.

use crate::access::{Access, Tokens};
use crate::http::Front;
use crate::hub::Hub;
use crate::limits::{SNAPSHOTS_MAX, TOKEN_LIFETIME};
use crate::listen::{self, ListenError, Security};
use crate::metrics::Metrics;
use crate::passwords::Passwords;
use crate::store::Store;
use quorate_core::protocol::Protocol;
use quorate_runtime::client::ConnectError;
use quorate_runtime::config::ClusterConfig;
use quorate_runtime::keys::KeyPair;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tonic::metadata::MetadataMap;

/// The responses of a streaming call.
pub(crate) type Responses<T> = tokio_stream::wrappers::ReceiverStream<Result<T, tonic::Status>>;

/// How a gateway behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// Who may connect, and how. [`Security::Plain`] is for loopback only.
    pub security: Security,
    /// Between two progress notifications to a watch that asked for them and has heard nothing; 10 minutes, etcd's.
    pub progress_interval: Duration,
    /// Where clients are told to connect, `http://host:port`; `None` for the address that is listened on.
    pub advertise: Option<String>,
    /// How long a user who has logged in need not do it again; [`crate::limits::TOKEN_LIFETIME`].
    pub token_lifetime: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            security: Security::Plain,
            progress_interval: Duration::from_secs(600),
            advertise: None,
            token_lifetime: TOKEN_LIFETIME,
        }
    }
}

/// Why a gateway does not serve.
#[derive(Debug, Error)]
pub enum GatewayError {
    /// The address, or what protects it.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The cluster.
    #[error(transparent)]
    Connect(#[from] ConnectError),
}

/// What the services share. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Api {
    pub(crate) store: Arc<Store>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) url: Arc<str>,
    pub(crate) progress_interval: Duration,
    pub(crate) tokens: Arc<Tokens>,
    pub(crate) passwords: Arc<Passwords>,
    pub(crate) snapshots: Arc<Semaphore>,
}

impl Api {
    /// The store, for whoever sent this.
    pub(crate) fn access(&self, metadata: &MetadataMap) -> Access {
        self.tokens.access(&self.store, metadata)
    }
}

/// A gateway that serves. Dropping it ends all its connections; the cluster does not notice.
#[derive(Debug)]
pub struct Gateway {
    address: SocketAddr,
    url: Arc<str>,
    tasks: [JoinHandle<()>; 2],
}

impl Gateway {
    /// Serves the cluster that `config` describes, at an address that [`listen::bind`] gave.
    ///
    /// # Errors
    /// [`GatewayError`], before anything is sent to the cluster.
    pub fn start<P: Protocol>(
        config: &ClusterConfig,
        key: &KeyPair,
        listener: TcpListener,
        options: Options,
    ) -> Result<Self, GatewayError> {
        let address = listener.local_addr().map_err(ListenError::Address)?;
        let tls = listen::acceptor(address, &options.security)?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        let url: Arc<str> = options.advertise.unwrap_or_else(|| format!("{scheme}://{address}")).into();
        let store = Arc::new(Store::connect::<P>(config, key)?);
        let hub = Hub::new(store.clone());
        let api = Api {
            store,
            hub: hub.clone(),
            url: url.clone(),
            progress_interval: options.progress_interval,
            tokens: Arc::new(Tokens::new(key, options.token_lifetime)),
            passwords: Arc::new(Passwords::new()),
            snapshots: Arc::new(Semaphore::new(SNAPSHOTS_MAX)),
        };
        let front = Front::new(api, Metrics::new());
        let tasks = [tokio::spawn(hub.run()), tokio::spawn(listen::serve(listener, tls, front))];
        Ok(Self { address, url, tasks })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where clients are told to connect.
    pub fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}
