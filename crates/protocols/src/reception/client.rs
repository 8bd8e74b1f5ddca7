//! The client: PBFT's, which believes what `f + 1` replicas say, with its requests published to everybody instead of sent to the
//! primary. One signature covers all copies: whoever carries them can lose them, but not change them. What is not answered in
//! time is submitted to every replica directly, whatever became of the broker (step 1 and C.5, total loss).

use super::Reception;
use super::criticality::recipients;
use super::message::{Message, PUBLICATION_BYTES_MAX};
use crate::pbft::{self, ClientTimer, Group, Pbft};
use bytes::Bytes;
use quorate_core::crypto::Keyring;
use quorate_core::ids::{ReplicaId, RequestNumber, SessionId};
use quorate_core::mutated;
use quorate_core::protocol::{self, Call, CallError, ClientConfig, ClientEffect, ClientOutbox, Ticket};
use quorate_core::quorum::ByzantineQuorums;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

type Outbox = ClientOutbox<Reception>;

/// Bytes of an operation, at most: a publication has some of its own.
const OPERATION_BYTES_MAX: usize = PUBLICATION_BYTES_MAX - 1024;

/// The client's half.
#[derive(Debug)]
pub struct Client {
    module: pbft::Client,
    /// The group's; none for a group that cannot be.
    quorums: Option<ByzantineQuorums>,
    /// What was published and is not answered, by the first number in it: at most what PBFT's client has in flight. What is asked
    /// again is asked in the same words: signed anew it would be another publication, received, certified and ordered beside the
    /// first, and a group that is slow would be given the more to do the slower it is.
    published: BTreeMap<(SessionId, RequestNumber), Group>,
}

impl Client {
    /// Runs a handler of PBFT's client, and publishes what it sends to anybody.
    fn module(&mut self, out: &mut Outbox, handler: impl FnOnce(&mut pbft::Client, &mut ClientOutbox<Pbft>)) {
        let mut inner = ClientOutbox::new(out.now());
        handler(&mut self.module, &mut inner);
        self.forget_what_was_answered();
        let (mut seen, mut submitted) = (None, BTreeSet::new());
        for effect in inner.into_effects() {
            match effect {
                // PBFT's client has one copy for each of those whom it asks, one after the other.
                ClientEffect::Send(_, pbft::Message::Request(group)) if seen.as_ref() == Some(&group) => {}
                ClientEffect::Send(_, pbft::Message::Request(group)) => {
                    self.publish(&group, &mut submitted, out);
                    seen = Some(group);
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
    fn over(module: pbft::Client, config: ClientConfig) -> Self {
        Self { module, quorums: ByzantineQuorums::new(config.replicas), published: BTreeMap::new() }
    }

    /// What is new is published; what was published is submitted, each publication once in a turn.
    fn publish(&mut self, group: &Group, submitted: &mut BTreeSet<(SessionId, RequestNumber)>, out: &mut Outbox) {
        let mut earlier = BTreeSet::new();
        for (number, _) in &group.statement().requests {
            earlier.extend(self.published_with(group.statement().session, *number));
        }
        if earlier.is_empty() || mutated!("reception/never-submits") {
            if let Some(first) = first_of(group) {
                self.published.insert(first, group.clone());
            }
            let message = Message::Publish(group.clone());
            let to = self.quorums.as_ref().map(|quorums| recipients(group, quorums)).unwrap_or_default();
            return to.into_iter().for_each(|replica| out.send(replica, message.clone()));
        }
        for first in earlier {
            if let Some(group) = self.published.get(&first).filter(|_| submitted.insert(first)) {
                for replica in self.quorums.iter().flat_map(ByzantineQuorums::members) {
                    out.send(replica, Message::Submit(group.clone()));
                }
            }
        }
    }

    /// The first number of the publication in which this one was.
    fn published_with(&self, session: SessionId, number: RequestNumber) -> Option<(SessionId, RequestNumber)> {
        let before = self.published.range((session, RequestNumber::ZERO)..=(session, number)).next_back();
        let (first, group) = before?;
        group.statement().requests.last().is_some_and(|(last, _)| *last >= number).then_some(*first)
    }

    /// Keeps what may be asked again. Who asks for a session, having had one, asks in the same words as the first time.
    fn forget_what_was_answered(&mut self) {
        let (session, acknowledged) = self.module.acknowledged_in();
        self.published.retain(|(of, _), group| {
            let last = group.statement().requests.last();
            *of == SessionId::ZERO || (*of == session && last.is_some_and(|(last, _)| *last > acknowledged))
        });
    }
}

/// Why an operation is refused that does not fit into a publication.
fn too_long(operation: &Bytes) -> Option<String> {
    let is_too_long = operation.len() > OPERATION_BYTES_MAX;
    is_too_long.then(|| format!("an operation has at most {OPERATION_BYTES_MAX} bytes under this protocol"))
}

/// What a publication is known by: its session and its first number.
fn first_of(group: &Group) -> Option<(SessionId, RequestNumber)> {
    let it = group.statement();
    it.requests.first().map(|(number, _)| (it.session, *number))
}

impl protocol::Client<Reception> for Client {
    fn new(config: ClientConfig) -> Self {
        Self::over(pbft::Client::new(config), config)
    }

    fn start(config: ClientConfig, keyring: Arc<Keyring>) -> Self {
        Self::over(pbft::Client::start(config, keyring), config)
    }

    fn submit(&mut self, ticket: Ticket, call: Call, out: &mut Outbox) {
        let (Call::Apply(bytes) | Call::Read(_, bytes)) = &call;
        if let Some(why) = too_long(bytes) {
            return out.complete(ticket, Err(CallError::Refused(why)));
        }
        self.module(out, |module, inner| module.submit(ticket, call, inner));
    }

    fn submit_critical(&mut self, ticket: Ticket, level: u8, operation: Bytes, out: &mut Outbox) {
        let highest = self.quorums.map_or(0, |quorums| quorums.faults());
        if usize::from(level) > highest {
            let why = format!(
                "there is no level of criticality {level} in this cluster: its highest is {highest}; name that or a lower one, or none"
            );
            return out.complete(ticket, Err(CallError::Refused(why)));
        }
        if let Some(why) = too_long(&operation) {
            return out.complete(ticket, Err(CallError::Refused(why)));
        }
        self.module(out, |module, inner| module.submit_at(ticket, level, operation, inner));
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
