//! What happens to a frame before the protocol sees it: whose is it, does it decode, are its signatures good? Needs nothing
//! of the replica's state, so a host may do it on other threads.

use super::recorder::mark;
use super::{Identity, Payload};
use crate::crypto::Keyring;
use crate::fault::{Fault, Why};
use crate::ids::{ClientId, Peer, ReplicaId};
use crate::protocol::Protocol;
use crate::wire::{Envelope, Wire};
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A frame that decodes, belongs here, and whose signatures are good.
#[derive(Debug)]
pub struct Opened<P: Protocol> {
    pub(super) from: Peer,
    pub(super) payload: Payload<P::Message>,
    /// While the node records: what tells the frame from others.
    pub(super) mark: Option<u32>,
}

/// What became of a frame that goes no further.
#[derive(Debug)]
pub enum Refused {
    /// It is late, early or not for us.
    Ignored(Why),
    /// It is a lie.
    Blamed(Peer, Fault),
}

/// Opens frames.
#[derive(Debug)]
pub struct Opener<P: Protocol> {
    me: ReplicaId,
    replicas: usize,
    envelope: Envelope,
    keyring: Arc<Keyring>,
    recording: Arc<AtomicBool>,
    protocol: std::marker::PhantomData<fn() -> P>,
}

impl<P: Protocol> Clone for Opener<P> {
    fn clone(&self) -> Self {
        Self { keyring: self.keyring.clone(), recording: self.recording.clone(), ..*self }
    }
}

impl<P: Protocol> Opener<P> {
    pub(super) fn new(identity: &Identity, replicas: usize, keyring: Arc<Keyring>) -> Self {
        let envelope = Envelope { cluster: identity.cluster, epoch: identity.epoch };
        let recording = Arc::default();
        Self { me: identity.replica, replicas, envelope, keyring, recording, protocol: std::marker::PhantomData }
    }

    /// Set while the node records what happens.
    pub(super) fn recording(&self) -> Arc<AtomicBool> {
        self.recording.clone()
    }

    /// Decodes a frame that came over an authenticated link, and checks its signatures.
    ///
    /// # Errors
    /// [`Refused`], to be handed to the node all the same: it counts.
    pub fn open(&self, from: Peer, bytes: &[u8]) -> Result<Opened<P>, Refused> {
        self.open_with(from, bytes, &self.keyring)
    }

    /// Opens several frames, and checks all their signatures together: less than half the work. If one of them is bad, every
    /// frame is opened by itself, so whoever sends bad ones is found, and costs the others what they would have cost anyway.
    pub fn open_all(&self, frames: &[(Peer, Bytes)]) -> Vec<Result<Opened<P>, Refused>> {
        if let Some(keyring) = self.keyring.deferring() {
            let opened: Vec<_> = frames.iter().map(|(from, bytes)| self.open_with(*from, bytes, &keyring)).collect();
            if keyring.settle() {
                return opened;
            }
        }
        frames.iter().map(|(from, bytes)| self.open(*from, bytes)).collect()
    }

    fn open_with(&self, from: Peer, bytes: &[u8], keyring: &Keyring) -> Result<Opened<P>, Refused> {
        if matches!(from, Peer::Replica(it) if it == self.me || it.index() >= self.replicas) {
            // Not a member, or someone with our own key: its votes must not count, least of all as ours.
            return Err(Refused::Ignored(Why::NotForSender));
        }
        let malformed = |error: crate::wire::Malformed| Refused::Blamed(from, Fault::Malformed(error.0));
        let (envelope, body) = Envelope::split(bytes).map_err(malformed)?;
        if envelope.cluster != self.envelope.cluster {
            return Err(Refused::Blamed(from, Fault::OtherCluster));
        }
        if envelope.epoch != self.envelope.epoch {
            return Err(Refused::Ignored(Why::OtherEpoch)); // perhaps of another protocol: do not even decode it
        }
        let mut payload = Payload::<P::Message>::decode(body).map_err(malformed)?;
        let is_brokered = matches!(&payload, Payload::Protocol(message) if P::goes_by_broker(message));
        if from == Peer::Client(ClientId::BROKER) && !is_brokered {
            return Err(Refused::Ignored(Why::NotForSender));
        }
        if let Payload::Protocol(message) = &mut payload {
            P::prove(message, keyring).map_err(|fault| match fault {
                Fault::NotNow(why) => Refused::Ignored(why),
                fault => Refused::Blamed(from, fault),
            })?;
        }
        let mark = self.recording.load(Ordering::Relaxed).then(|| mark(bytes));
        Ok(Opened { from, payload, mark })
    }
}
