//! The event store over HTTP and JSON, with server-sent events for whoever follows.
//!
//! # What it promises
//! - It is a client of the cluster like any other and keeps no state that matters: stop it, start it elsewhere, run several. What
//!   it answers, the cluster's client has believed by its protocol's rule; under a protocol whose replicas may lie no single one is
//!   believed.
//! - An append is done once if its events have ids, or its request an `Idempotency-Key`, however often it is sent.
//! - A subscription tells each event once and in order. The id of each message is the event's number: whoever comes again with it
//!   as `Last-Event-ID`, here or at another gateway, goes on behind it. When the cluster is not heard it says so, and goes on by
//!   itself.
//! - What comes is bounded before it is decoded, and a refusal names the bound.
//! - A web page of somebody else can neither write nor read: a request that has an `Origin` is refused, and without TLS one whose
//!   `Host` is a name that could be bent to point here. Beyond loopback nothing is served without TLS and client certificates.
//!
//! # How to read it
//! `http` is the listener's end: which request gets which answer, and how many at a time. `append`, `read`, `subscribe`, `groups`
//! and `projections` answer; `asked` reads parameters and bodies, `refusal` is what is said instead of an answer. `line` is an event
//! as JSON, `tally` the reducers of projections; the command line uses both.

mod append;
mod asked;
mod groups;
mod http;
pub mod limits;
pub mod line;
mod projections;
mod read;
mod refusal;
mod subscribe;
pub mod tally;

use crate::gateway::Options;
use crate::listen::{self, ListenError};
use http::Front;
use quorate::events::EventStore;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// A gateway to an event store that serves. Dropping it ends all its connections; the cluster does not notice.
#[derive(Debug)]
pub struct EventsGateway {
    address: SocketAddr,
    url: Arc<str>,
    task: JoinHandle<()>,
}

impl EventsGateway {
    /// Serves a store at an address that [`listen::bind`] gave. Of the options, `security` and `advertise` count.
    ///
    /// # Errors
    /// [`ListenError`]
    pub fn start(store: EventStore, listener: TcpListener, options: &Options) -> Result<Self, ListenError> {
        let address = listener.local_addr().map_err(ListenError::Address)?;
        let tls = listen::acceptor(address, &options.security)?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        let url = options.advertise.clone().unwrap_or_else(|| format!("{scheme}://{address}")).into();
        let front = Front::new(store, tls.is_none().then_some(address));
        Ok(Self { address, url, task: tokio::spawn(listen::serve(listener, tls, front)) })
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

impl Drop for EventsGateway {
    fn drop(&mut self) {
        self.task.abort();
    }
}
