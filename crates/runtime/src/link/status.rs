//! Why connections end, and the numbers that a status page shows.

use super::frame::Malformed;
use quorate_core::ids::{ClientId, ReplicaId};
use rustls::AlertDescription;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

/// Why a connection that had greeted ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    /// The other side closed it, or its process ended.
    #[error("the other side closed the connection")]
    PeerClosed,
    /// The network, or the TLS layer, gave up.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// The other side does not know our key; it says so after we have finished our half of the handshake.
    #[error("the other side does not know our key")]
    UnknownKey,
    /// Not even a ping came for `Pace::silence_max`: the other machine is gone, or the network between.
    #[error("the other side was silent for too long")]
    Silent,
    /// The same peer has connected again.
    #[error("the same peer connected again")]
    Replaced,
    /// All places of clients are taken, another key needs one, and this one's key has most of them.
    #[error("its key holds most of the places for clients, and another key needs one")]
    CrowdedOut,
    /// A client did not read its replies.
    #[error("the client does not read fast enough: its outbox is full")]
    TooSlow,
    /// This side's links were dropped.
    #[error("this side shut its links down")]
    ShutDown,
    /// The peer broke the frame format.
    #[error("the other side sent {0}")]
    Malformed(#[from] Malformed),
}

impl From<io::Error> for CloseReason {
    fn from(error: io::Error) -> Self {
        let tls = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
        if let Some(rustls::Error::AlertReceived(AlertDescription::AccessDenied)) = tls {
            return CloseReason::UnknownKey;
        }
        match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                CloseReason::PeerClosed
            }
            _ => CloseReason::Broken(error.to_string()),
        }
    }
}

/// Why a replica could not be dialled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DialError {
    /// Nobody answers there.
    #[error("cannot reach {replica} at {address}: {cause}; is it running?")]
    Unreachable {
        /// Who was dialled.
        replica: ReplicaId,
        /// Where.
        address: String,
        /// What the system said.
        cause: String,
    },
    /// Somebody listens there, but the handshake did not end in time.
    #[error("{replica} at {address} did not complete the handshake in time")]
    TimedOut {
        /// Who was dialled.
        replica: ReplicaId,
        /// Where.
        address: String,
    },
    /// Our key is not in its files.
    #[error("{replica} at {address} does not know our key; add our public key to its replica.toml")]
    UnknownKey {
        /// Who was dialled.
        replica: ReplicaId,
        /// Where.
        address: String,
    },
    /// Its key is not the one in our file: another process, or an impostor.
    #[error("whoever answers at {address} does not hold the key that `members` lists for {replica}")]
    WrongKey {
        /// Who was dialled.
        replica: ReplicaId,
        /// Where.
        address: String,
    },
    /// It knows us and does not want us; the sentence is its own.
    #[error("{replica} refused the connection: {sentence}")]
    Refused {
        /// Who was dialled.
        replica: ReplicaId,
        /// Why.
        sentence: String,
    },
    /// It does not speak our language, or stopped in the middle.
    #[error("the handshake with {replica} at {address} failed: {cause}")]
    Failed {
        /// Who was dialled.
        replica: ReplicaId,
        /// Where.
        address: String,
        /// What happened.
        cause: String,
    },
}

impl DialError {
    /// Whether trying again soon may help: nobody there yet, rather than somebody who says no.
    pub fn is_transient(&self) -> bool {
        matches!(self, DialError::Unreachable { .. } | DialError::TimedOut { .. } | DialError::Failed { .. })
    }
}

/// A number that only grows.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What went over the connections of one replica, or of all clients.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    pub(super) connects: Counter,
    pub(super) frames_in: Counter,
    pub(super) frames_out: Counter,
    pub(super) bytes_in: Counter,
    pub(super) bytes_out: Counter,
    pub(super) dropped_full: Counter,
    pub(super) dropped_unconnected: Counter,
    pub(super) malformed: Counter,
}

/// Handshakes that came to nothing.
#[derive(Debug, Default)]
pub(super) struct Handshakes {
    pub(super) unknown_key: Counter,
    pub(super) refused: Counter,
    pub(super) failed: Counter,
    pub(super) timed_out: Counter,
    pub(super) crowded_out: Counter,
    pub(super) accept_errors: Counter,
}

/// What went over the connections of one replica, or of all clients, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrafficStatus {
    /// Connections that greeted.
    pub connects: u64,
    /// Messages received; pings and greetings are not counted.
    pub frames_in: u64,
    /// Messages written.
    pub frames_out: u64,
    /// Bytes received after decryption, frame headers included.
    pub bytes_in: u64,
    /// Bytes written before encryption, frame headers included.
    pub bytes_out: u64,
    /// Messages dropped because the outbox was full or the message longer than a frame may be.
    pub dropped_full: u64,
    /// Messages dropped because there was no connection, or it ended before they were written, or the link was cut on purpose
    /// (in both directions).
    pub dropped_unconnected: u64,
    /// Connections closed because the peer broke the frame format.
    pub malformed: u64,
}

/// Handshakes, incoming unless it says otherwise, that came to nothing since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HandshakeStatus {
    /// The key is in no list; or, when dialling, it is another one than expected.
    pub unknown_key: u64,
    /// The key is known, but cluster, epoch, protocol, role or number of clients do not fit.
    pub refused: u64,
    /// No TLS, no Hello, or the connection ended.
    pub failed: u64,
    /// Not done within `Pace::handshake_max`.
    pub timed_out: u64,
    /// Given up because 256 newer ones were waiting.
    pub crowded_out: u64,
    /// The system could not give us a connection that was there (out of file descriptors).
    pub accept_errors: u64,
}

/// One replica as seen from here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaStatus {
    /// Which replica.
    pub replica: ReplicaId,
    /// Where it should be.
    pub address: String,
    /// Whether there is a connection.
    pub connected: bool,
    /// Bytes that wait to be written to it.
    pub outbox_bytes: usize,
    /// Why the last attempt to dial it failed; none once one succeeds.
    pub dial_error: Option<DialError>,
    /// What went over its connections.
    pub traffic: TrafficStatus,
}

/// All links of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkStatus {
    /// The other replicas.
    pub replicas: Vec<ReplicaStatus>,
    /// Connected clients.
    pub clients: Vec<ClientId>,
    /// What went over all clients' connections.
    pub client_traffic: TrafficStatus,
    /// Handshakes that came to nothing.
    pub handshakes: HandshakeStatus,
}

impl Traffic {
    pub(super) fn status(&self) -> TrafficStatus {
        TrafficStatus {
            connects: self.connects.get(),
            frames_in: self.frames_in.get(),
            frames_out: self.frames_out.get(),
            bytes_in: self.bytes_in.get(),
            bytes_out: self.bytes_out.get(),
            dropped_full: self.dropped_full.get(),
            dropped_unconnected: self.dropped_unconnected.get(),
            malformed: self.malformed.get(),
        }
    }
}

impl Handshakes {
    pub(super) fn status(&self) -> HandshakeStatus {
        HandshakeStatus {
            unknown_key: self.unknown_key.get(),
            refused: self.refused.get(),
            failed: self.failed.get(),
            timed_out: self.timed_out.get(),
            crowded_out: self.crowded_out.get(),
            accept_errors: self.accept_errors.get(),
        }
    }
}
