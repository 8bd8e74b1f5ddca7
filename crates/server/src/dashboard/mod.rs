//! The dashboard: one page that shows a cluster while it runs, and a browser of its keys and events.
//!
//! # What it promises
//! - It is a client of the cluster like any other, keeps no state that matters, and asks nothing while nobody looks.
//! - What it shows of replicas is what each says of itself; what it shows of keys and events, the cluster's client has
//!   believed by its protocol's rule.
//! - It is useful without JavaScript: the server draws everything, forms do what buttons do. The script only puts newer
//!   drawings in the place of older ones.
//! - Nothing on the page comes from elsewhere, nothing in it runs inline (`guard::POLICY`), and what a key, a fault or
//!   a replica says is text (`html::escaped`).
//! - A web page of somebody else can neither read it nor press its buttons (`guard`): the request's `Host` must be an
//!   address, not a name that could be bent to point here; a button needs a token that only our own page knows.
//! - Beyond loopback there are no buttons, no keys and no events: there is nobody to ask for a password yet.
//!
//! # How to read it
//! [`Source`] is what whoever starts a dashboard must tell it. `sampler` asks, while somebody looks; `history` makes rates of
//! it, `tape` arrows of messages; `overview`, `strip`, `spark`, `browse` draw; `live` streams; `http` answers, `guard` refuses.

mod browse;
mod form;
mod guard;
mod history;
mod html;
mod http;
mod live;
mod overview;
mod sampler;
mod source;
mod spark;
mod strip;
mod tape;

pub(crate) use guard::is_own as is_own_host;
pub use history::{History, Point};
pub use source::{Facts, Health, Lies, Look, Order, Process, ReplicaLook, Source};

use crate::listen::ListenError;
use http::Server;
use quorate_runtime::client::Client;
use sampler::Sampler;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// A dashboard that serves. Dropping it ends all its connections; the cluster does not notice.
#[derive(Debug)]
pub struct Dashboard {
    address: SocketAddr,
    tasks: [JoinHandle<()>; 2],
}

impl Dashboard {
    /// Serves at an address that [`crate::listen::bind`] gave. `client` is a client of the same cluster as `source`, for
    /// messages, keys and events.
    ///
    /// # Errors
    /// [`ListenError::Address`], or that there is no randomness for the token of its buttons.
    pub fn start<S: Source>(source: S, client: Client, listener: TcpListener) -> Result<Self, ListenError> {
        let address = listener.local_addr().map_err(ListenError::Address)?;
        let token = quorate_runtime::keys::random::<16>();
        let token = token.map_err(|error| ListenError::Address(std::io::Error::other(error)))?;
        let source = Arc::new(source);
        let sampler = Arc::new(Sampler::new(source.clone(), client.clone()));
        let server = Server::new(source, client, sampler.clone(), address, token);
        let tasks = [tokio::spawn(sampler.run()), tokio::spawn(http::serve(listener, server))];
        Ok(Self { address, tasks })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What to type into a browser.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Dashboard {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}
