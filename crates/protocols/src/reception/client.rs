//! The client: PBFT's, which believes what `f + 1` replicas say, with its requests published to everybody instead of sent to the
//! primary. One signature covers all copies: whoever carries them can lose them, but not change them. What is not answered in
//! time is submitted to every replica directly, whatever became of the broker (step 1 and C.5, total loss).

use super::Reception;
use super::message::{Message, PUBLICATION_BYTES_MAX};
use crate::pbft::{self, ClientTimer, Group, Pbft};
use quorate_core::crypto::Keyring;
use quorate_core::ids::{ReplicaId, RequestNumber, SessionId};
use quorate_core::mutated;
use quorate_core::protocol::{self, Call, CallError, ClientConfig, ClientEffect, ClientOutbox, Ticket};
use std::sync::Arc;

type Outbox = ClientOutbox<Reception>;

/// Bytes of an operation, at most: a publication has some of its own.
const OPERATION_BYTES_MAX: usize = PUBLICATION_BYTES_MAX - 1024;

/// The client's half.
#[derive(Debug)]
pub struct Client {
    module: pbft::Client,
    replicas: usize,
    /// The session that has published last, and the highest number that it has.
    published: Option<(SessionId, RequestNumber)>,
}

impl Client {
    /// Runs a handler of PBFT's client, and publishes what it sends to anybody.
    fn module(&mut self, out: &mut Outbox, handler: impl FnOnce(&mut pbft::Client, &mut ClientOutbox<Pbft>)) {
        let mut inner = ClientOutbox::new(out.now());
        handler(&mut self.module, &mut inner);
        let mut published: Vec<Group> = Vec::new();
        for effect in inner.into_effects() {
            match effect {
                ClientEffect::Send(_, pbft::Message::Request(group)) => {
                    if !published.contains(&group) {
                        let again = self.has_published(&group) && !mutated!("reception/never-submits");
                        let message = |group| if again { Message::Submit(group) } else { Message::Publish(group) };
                        for replica in (0_u8..).take(self.replicas).map(ReplicaId::new) {
                            out.send(replica, message(group.clone()));
                        }
                        published.push(group);
                    }
                }
                ClientEffect::Send(to, message) => out.send(to, Message::Module(message)),
                ClientEffect::Arm { timer, at } => out.arm(timer, at.since(out.now())),
                ClientEffect::Disarm(timer) => out.disarm(timer),
                ClientEffect::Complete(ticket, result) => out.complete(ticket, result),
            }
        }
    }
}

impl Client {
    /// Was any of these published before? From now on, all of them were. Who asks for a session, having had one, asks again: the
    /// bytes are the same as the first time.
    fn has_published(&mut self, group: &Group) -> bool {
        let it = group.statement();
        let (first, last) = it
            .requests
            .first()
            .zip(it.requests.last())
            .map_or_else(Default::default, |(first, last)| (first.0, last.0));
        let before = self.published.replace((it.session, last));
        before.is_some_and(|(session, highest)| {
            if session == it.session {
                self.published = Some((session, highest.max(last)));
            }
            it.session == SessionId::ZERO || (session == it.session && first <= highest)
        })
    }
}

impl protocol::Client<Reception> for Client {
    fn new(config: ClientConfig) -> Self {
        Self { module: pbft::Client::new(config), replicas: config.replicas, published: None }
    }

    fn start(config: ClientConfig, keyring: Arc<Keyring>) -> Self {
        Self { module: pbft::Client::start(config, keyring), replicas: config.replicas, published: None }
    }

    fn submit(&mut self, ticket: Ticket, call: Call, out: &mut Outbox) {
        let (Call::Apply(bytes) | Call::Read(_, bytes)) = &call;
        if bytes.len() > OPERATION_BYTES_MAX {
            let why = format!("an operation has at most {OPERATION_BYTES_MAX} bytes under this protocol");
            return out.complete(ticket, Err(CallError::Refused(why)));
        }
        self.module(out, |module, inner| module.submit(ticket, call, inner));
    }

    fn flush(&mut self, out: &mut Outbox) {
        self.module(out, |module, inner| module.flush(inner));
    }

    fn on_message(&mut self, from: ReplicaId, message: Message, out: &mut Outbox) {
        if let Message::Module(message) = message {
            self.module(out, |module, inner| module.on_message(from, message, inner));
        }
    }

    fn on_timer(&mut self, timer: ClientTimer, out: &mut Outbox) {
        self.module(out, |module, inner| module.on_timer(timer, inner));
    }

    fn on_connected(&mut self, replica: ReplicaId, out: &mut Outbox) {
        self.module(out, |module, inner| module.on_connected(replica, inner));
    }

    fn on_disconnected(&mut self, replica: ReplicaId, out: &mut Outbox) {
        self.module(out, |module, inner| module.on_disconnected(replica, inner));
    }
}
