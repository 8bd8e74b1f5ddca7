//! The client of protocols some of whose replicas may lie is PBFT's (`pbft/client`): it believes what `f + 1` replicas say of
//! a request that was ordered, and many equal answers to a read that was not. A protocol that has no reason for rules of its
//! own says how it differs ([`pbft::Manner`]), carries PBFT's words in its own messages, and has this client.

pub(crate) mod replica;

use crate::pbft::{self, Pbft};
use quorate_core::crypto::Keyring;
use quorate_core::fault::Fault;
use quorate_core::ids::ReplicaId;
use quorate_core::protocol::{self, Call, ClientConfig, ClientEffect, ClientOutbox, Protocol, Ticket};
use std::marker::PhantomData;
use std::sync::Arc;

/// A protocol whose clients ask, and believe, like PBFT's.
pub trait Speaks: Protocol<ClientTimer = pbft::ClientTimer> {
    /// After an answer has been missing for so many times the usual pause, it is asked for again: more than one where an
    /// answer takes several rounds of a known length. A power of two. The longest pause is the same for all protocols: a call
    /// is made again before its time is over.
    const PATIENCE: u32 = 1;

    /// What a client of so many replicas does otherwise than PBFT's.
    fn manner(replicas: usize) -> pbft::Manner;

    /// In the protocol's own words.
    fn from_pbft(message: pbft::Message) -> Self::Message;

    /// What [`Speaks::from_pbft`] was given; `None` for all other messages.
    fn into_pbft(message: Self::Message) -> Option<pbft::Message>;
}

/// The client's half of such a protocol.
#[derive(Debug)]
pub struct Client<P> {
    inner: pbft::Client,
    protocol: PhantomData<P>,
}

impl<P: Speaks> Client<P> {
    fn turn(&mut self, out: &mut ClientOutbox<P>, act: impl FnOnce(&mut pbft::Client, &mut ClientOutbox<Pbft>)) {
        let mut inner = ClientOutbox::new(out.now());
        act(&mut self.inner, &mut inner);
        for effect in inner.into_effects() {
            match effect {
                ClientEffect::Send(to, message) => out.send(to, P::from_pbft(message)),
                ClientEffect::Arm { timer, at } => out.arm(timer, at.since(out.now())),
                ClientEffect::Disarm(timer) => out.disarm(timer),
                ClientEffect::Complete(ticket, result) => out.complete(ticket, result),
            }
        }
    }
}

impl<P: Speaks> protocol::Client<P> for Client<P> {
    fn new(config: ClientConfig) -> Self {
        Self::start(config, Arc::new(pbft::nobody()))
    }

    fn start(config: ClientConfig, keyring: Arc<Keyring>) -> Self {
        let patient = ClientConfig { retry: config.retry.saturating_mul(P::PATIENCE), ..config };
        let doublings = pbft::DOUBLINGS_MAX.saturating_sub(P::PATIENCE.max(1).ilog2());
        let inner = pbft::Client::with(P::manner(config.replicas), patient, keyring).doubling(doublings);
        Self { inner, protocol: PhantomData }
    }

    fn submit(&mut self, ticket: Ticket, call: Call, out: &mut ClientOutbox<P>) {
        self.turn(out, |client, inner| client.submit(ticket, call, inner));
    }

    fn flush(&mut self, out: &mut ClientOutbox<P>) {
        self.turn(out, |client, inner| client.flush(inner));
    }

    fn on_message(&mut self, from: ReplicaId, message: P::Message, out: &mut ClientOutbox<P>) {
        if let Some(message) = P::into_pbft(message) {
            self.turn(out, |client, inner| client.on_message(from, message, inner));
        }
    }

    fn on_timer(&mut self, timer: pbft::ClientTimer, out: &mut ClientOutbox<P>) {
        self.turn(out, |client, inner| client.on_timer(timer, inner));
    }

    fn on_connected(&mut self, replica: ReplicaId, out: &mut ClientOutbox<P>) {
        self.turn(out, |client, inner| client.on_connected(replica, inner));
    }

    fn on_disconnected(&mut self, replica: ReplicaId, out: &mut ClientOutbox<P>) {
        self.turn(out, |client, inner| client.on_disconnected(replica, inner));
    }
}

/// Checks one of PBFT's words that came inside another protocol's message: form, kind, then signatures.
///
/// # Errors
///
/// [`Fault::Malformed`] if only PBFT's replicas say such a thing to each other; what PBFT says against it.
pub(crate) fn prove(message: &mut pbft::Message, keyring: &Keyring) -> Result<(), Fault> {
    if !message.is_clients() {
        return Err(Fault::Malformed("a word of PBFT's replicas inside another protocol".to_owned()));
    }
    Pbft::prove(message, keyring)
}
