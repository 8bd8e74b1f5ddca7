//! Links: encrypted, mutually authenticated connections between replicas, and from clients to replicas.
//!
//! **Promises.** A message comes from the peer that it is said to come from: TLS 1.3 proves the Ed25519 key, the key
//! decides who may speak in which role. Messages of one connection arrive in the order in which they were sent, each at
//! most once. `send` never waits. Memory is bounded, whatever others do or fail to do. A connection whose other end is
//! gone is found out within `Pace::silence_max + Pace::ping_after`.
//!
//! **Does not promise** that a message arrives. What waits when a connection ends, what finds no connection, and what
//! does not fit into an outbox is dropped and counted; protocols repeat themselves.
//!
//! **Who dials.** There is one connection for each pair of replicas; the lower number dials the higher. Clients dial
//! every replica. Whoever dials tries again for ever: 20 ms after the first failure, about 500 ms after later ones.
//! When the same replica, or the same client id with the same key, connects again, the newer connection replaces the
//! older: the older is the one whose other end has gone.
//!
//! **How a connection starts.** TCP; TLS with raw public keys (`tls`); a Hello from the dialler, a Hello or a Refused
//! with a sentence from the acceptor (`hello`); then messages and pings (`frame`).
//!
//! **Tasks.** Everything runs as tasks on the runtime of the caller, one for each connection; on a `current_thread`
//! runtime a message never changes threads. A connection's task writes all that was queued since it last ran as one
//! stretch of TLS records. Backpressure on the receiving side is TCP's: while the host is behind, sockets are not read.
//!
//! **Bounds**, beside those of `Limits`: 8 MiB from each replica and 16 MiB from clients wait for the host; each connection
//! holds 64 KiB of read buffer (or up to twice the frame that is arriving) and up to 256 KiB and one frame being written;
//! 256 handshakes. A body is a view of its read buffer: a host that keeps a small body for long keeps up to 64 KiB alive
//! and should copy it.
//!
//! **Left out.** The set of members and clients is fixed when links start; a new epoch starts new links.

mod accept;
mod client;
mod connection;
mod dial;
pub mod frame;
pub mod hello;
mod hub;
mod inbox;
mod outbox;
mod replica;
mod status;
pub mod tls;

pub use accept::listen;
pub use client::ClientLinks;
pub use inbox::Except;
pub use replica::{LinkHandle, Links};
pub use status::{CloseReason, DialError, HandshakeStatus, LinkStatus, ReplicaStatus, TrafficStatus};

use bytes::Bytes;
use quorate_core::ids::{Peer, ReplicaId};
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What links hand to the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// A message.
    Message {
        /// Who sent it; proved.
        from: Peer,
        /// What it says.
        body: Bytes,
    },
    /// A connection is there: what is sent from now on goes over it.
    Connected(Peer),
    /// The connection is gone, with all that it had not delivered.
    Disconnected {
        /// Whose.
        peer: Peer,
        /// Why.
        reason: CloseReason,
    },
    /// A replica cannot be dialled. Said once, and again when the reason changes; links go on trying.
    DialFailed {
        /// Which.
        replica: ReplicaId,
        /// Why.
        error: DialError,
    },
}

/// What became of a message that was to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It waits to be written.
    Queued,
    /// Dropped: there is no connection.
    Unconnected,
    /// Dropped: the outbox is full. A client's connection is closed as well.
    Full,
    /// Dropped: it is longer than a frame may be.
    TooLong,
}

/// How patient links are. The defaults suit a data centre and a continent alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// From the first TCP packet to the last greeting; 5 s.
    pub handshake_max: Duration,
    /// Silence of ours after which a ping is sent; 5 s. A connection's task wakes up this often when nothing else happens.
    pub ping_after: Duration,
    /// Silence of theirs after which a connection is given up; 15 s. At least twice `ping_after`.
    pub silence_max: Duration,
    /// The wait after the first failed attempt to dial; 20 ms, so that a cluster that starts together is connected soon.
    pub retry_min: Duration,
    /// The longest wait between attempts while nobody answers; 500 ms: what a restarted replica waits for its peers.
    pub retry_max: Duration,
    /// The wait after somebody who answers says no, or is not who it should be; 3 s. A person has to change a file first,
    /// and each attempt costs the other side a handshake.
    pub refused_retry: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            handshake_max: Duration::from_secs(5),
            ping_after: Duration::from_secs(5),
            silence_max: Duration::from_secs(15),
            retry_min: Duration::from_millis(20),
            retry_max: Duration::from_millis(500),
            refused_retry: Duration::from_secs(3),
        }
    }
}

/// Why links cannot start.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// Somebody listens there already.
    #[error("cannot listen on {address}: another process does; stop it, or choose another `listen` address")]
    AddressInUse {
        /// Where.
        address: String,
    },
    /// The system does not let us listen there.
    #[error("cannot listen on {address}: {source}; `listen` must be an address of this machine, host:port")]
    Listen {
        /// Where.
        address: String,
        /// What it said.
        source: io::Error,
    },
    /// The TLS library does not take our own key.
    #[error("the TLS library rejects this process's own key: {0}")]
    Key(#[from] rustls::Error),
}

/// Locks. A panic elsewhere leaves none of the structures here half-changed, so a poisoned lock is as good as any.
pub(crate) fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
