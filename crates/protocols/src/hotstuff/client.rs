//! The client is PBFT's (`pbft/client`): it believes what `f + 1` replicas say of a request that is ordered, and a quorum of
//! equal answers to a read that is not. All that it must know of this protocol is whom to send requests to: what replicas
//! call a view to a client is their term, so that the client finds its leader by PBFT's rule.

use super::HotStuff;
use super::message::Message;
use crate::pbft;
use quorate_core::crypto::Keyring;
use quorate_core::ids::ReplicaId;
use quorate_core::protocol::{self, Call, ClientConfig, ClientEffect, ClientOutbox, Ticket};
use std::sync::Arc;

type Outbox = ClientOutbox<HotStuff>;
type Inner = ClientOutbox<pbft::Pbft>;

/// The client's half of HotStuff.
#[derive(Debug)]
pub struct Client(pbft::Client);

impl Client {
    fn turn(&mut self, out: &mut Outbox, act: impl FnOnce(&mut pbft::Client, &mut Inner)) {
        let mut inner = Inner::new(out.now());
        act(&mut self.0, &mut inner);
        for effect in inner.into_effects() {
            match effect {
                ClientEffect::Send(to, message) => out.send(to, Message::Client(message)),
                ClientEffect::Arm { timer, at } => out.arm(timer, at.since(out.now())),
                ClientEffect::Disarm(timer) => out.disarm(timer),
                ClientEffect::Complete(ticket, result) => out.complete(ticket, result),
            }
        }
    }
}

impl protocol::Client<HotStuff> for Client {
    fn new(config: ClientConfig) -> Self {
        Self(<pbft::Client as protocol::Client<pbft::Pbft>>::new(config))
    }

    fn start(config: ClientConfig, keyring: Arc<Keyring>) -> Self {
        Self(<pbft::Client as protocol::Client<pbft::Pbft>>::start(config, keyring))
    }

    fn submit(&mut self, ticket: Ticket, call: Call, out: &mut Outbox) {
        self.turn(out, |client, inner| client.submit(ticket, call, inner));
    }

    fn flush(&mut self, out: &mut Outbox) {
        self.turn(out, |client, inner| client.flush(inner));
    }

    fn on_message(&mut self, from: ReplicaId, message: Message, out: &mut Outbox) {
        if let Message::Client(message) = message {
            self.turn(out, |client, inner| client.on_message(from, message, inner));
        }
    }

    fn on_timer(&mut self, timer: pbft::ClientTimer, out: &mut Outbox) {
        self.turn(out, |client, inner| client.on_timer(timer, inner));
    }

    fn on_connected(&mut self, replica: ReplicaId, out: &mut Outbox) {
        self.turn(out, |client, inner| client.on_connected(replica, inner));
    }

    fn on_disconnected(&mut self, replica: ReplicaId, out: &mut Outbox) {
        self.turn(out, |client, inner| client.on_disconnected(replica, inner));
    }
}
