//! What a client may ask beside the protocol: the status of this replica, and the events of its machine.

use super::{Action, Node, Payload, Report, Service};
use crate::crypto::Digest;
use crate::executor::Job;
use crate::fault::Why;
use crate::ids::{ClientId, OpNumber, Peer, Position};
use crate::outbox::To;
use crate::protocol::{Protocol, Replica};
use crate::sessions::Event;
use crate::time::Instant;
use std::collections::{BTreeMap, BTreeSet};

/// The names of what goes to clients beside the protocol.
pub(super) const LABELS: [&str; 4] = ["Status", "Watching", "Events", "Recorded"];
/// Clients that may watch events at one replica.
pub const WATCHERS_MAX: usize = 1024;
/// Clients that may wait for the next answer to [`Service::GetStatus`]: as many as may be connected, so that none keeps others from asking.
pub const ASKING_MAX: usize = 1024;

/// Clients that ask for the status, with their nonces. The digest that the answer holds costs the executor as much as a
/// batch does: one is computed at a time, for all who had asked when it was begun.
#[derive(Default)]
pub(super) struct Asking {
    pub(super) being_answered: BTreeMap<ClientId, u64>,
    pub(super) waiting: BTreeMap<ClientId, u64>,
}

/// Who watches events. The executor makes them only while somebody does: they cost a write more than its reply.
#[derive(Default)]
pub(super) struct Watchers {
    /// Those who were told that watching has begun, with their topics: every event since then reaches them.
    told: BTreeMap<ClientId, u32>,
    /// Those who wait until the executor makes events.
    waiting: BTreeMap<ClientId, u32>,
    /// What the executor was last asked for, and how often it was asked.
    wanted: bool,
    wishes: u64,
    /// The executor makes events from here on.
    is_on: bool,
}

impl Watchers {
    fn contains(&self, client: &ClientId) -> bool {
        self.told.contains_key(client) || self.waiting.contains_key(client)
    }

    fn len(&self) -> usize {
        self.told.len().saturating_add(self.waiting.len())
    }

    /// What to ask the executor for, if that has changed.
    fn wish(&mut self) -> Option<Job> {
        let on = self.len() > 0;
        if std::mem::replace(&mut self.wanted, on) == on {
            return None;
        }
        self.is_on = false;
        self.wishes = self.wishes.saturating_add(1);
        Some(Job::Listen { on, wish: self.wishes })
    }
}

impl<P: Protocol> Node<P> {
    pub(super) fn on_service(&mut self, from: ClientId, message: Service, now: Instant, actions: &mut Vec<Action>) {
        match message {
            Service::GetStatus { nonce } => {
                if self.asking.waiting.len() >= ASKING_MAX && !self.asking.waiting.contains_key(&from) {
                    return self.ledger.ignore(Why::Busy);
                }
                self.asking.waiting.insert(from, nonce);
                self.compute_digest(actions);
            }
            Service::Watch { topic } => {
                if self.watchers.len() >= WATCHERS_MAX && !self.watchers.contains(&from) {
                    return self.ledger.ignore(Why::Busy);
                }
                if self.watchers.is_on {
                    self.watchers.told.insert(from, topic);
                    return self.answer(Peer::Client(from), Service::Watching { topic }, "Watching", actions);
                }
                self.watchers.waiting.insert(from, topic);
                actions.extend(self.watchers.wish().map(Action::Run));
            }
            Service::GetRecorded { nonce, from: seen } => {
                let (recorded, next) = self.recorder.answer(seen, now);
                let answer = Service::Recorded { nonce, recorded, next };
                self.answer(Peer::Client(from), answer, "Recorded", actions);
            }
            Service::Status { .. } | Service::Watching { .. } | Service::Events(_) | Service::Recorded { .. } => {
                self.ledger.ignore(Why::NotForSender);
            }
        }
    }

    /// Has the digest computed for those who wait for it, unless it is being computed for others.
    pub(super) fn compute_digest(&mut self, actions: &mut Vec<Action>) {
        if !self.asking.being_answered.is_empty() {
            return;
        }
        if let Some((client, nonce)) = self.asking.waiting.first_key_value() {
            actions.push(Action::Run(Job::Digest { to: Peer::Client(*client), nonce: *nonce }));
            self.asking.being_answered = std::mem::take(&mut self.asking.waiting);
        }
    }

    pub(super) fn on_disconnected(&mut self, peer: Peer, actions: &mut Vec<Action>) {
        if let Peer::Client(client) = peer {
            self.watchers.told.remove(&client);
            self.watchers.waiting.remove(&client);
            self.asking.waiting.remove(&client);
            actions.extend(self.watchers.wish().map(Action::Run));
        }
    }

    /// The executor has heard a wish. If it was the last one, whoever waits for events gets all of those that follow.
    pub(super) fn on_listening(&mut self, wish: u64, actions: &mut Vec<Action>) {
        if wish != self.watchers.wishes || !self.watchers.wanted {
            return;
        }
        self.watchers.is_on = true;
        for (client, topic) in std::mem::take(&mut self.watchers.waiting) {
            self.watchers.told.insert(client, topic);
            self.answer(Peer::Client(client), Service::Watching { topic }, "Watching", actions);
        }
    }

    /// Sends an entry's events to those who watch. They follow from committed entries, so they may leave at once.
    pub(super) fn publish(&mut self, events: &[Event], actions: &mut Vec<Action>) {
        if events.is_empty() {
            return;
        }
        let topics: BTreeSet<u32> = self.watchers.told.values().copied().collect();
        for topic in topics {
            let events: Vec<Event> = events.iter().filter(|event| event.topic == topic).cloned().collect();
            if events.is_empty() {
                continue;
            }
            let bytes = self.envelope.seal(&Payload::<P::Message>::Service(Service::Events(events)));
            for (client, _) in self.watchers.told.iter().filter(|(_, watched)| **watched == topic) {
                let to = To::One(Peer::Client(*client));
                actions.push(Action::Send { to, bytes: bytes.clone(), label: "Events" });
            }
        }
    }

    /// The machine has jumped: the events in between were not published here.
    pub(super) fn tell_watchers(&self, actions: &mut Vec<Action>) {
        for (client, topic) in &self.watchers.told {
            self.answer(Peer::Client(*client), Service::Watching { topic: *topic }, "Watching", actions);
        }
    }

    pub(super) fn report(&self, op: OpNumber, position: Position, digest: Digest) -> Report {
        Report {
            replica: self.identity.replica,
            protocol: P::NAME.to_owned(),
            status: self.replica.status(),
            op,
            position,
            digest,
            milestones: Vec::new(),
            ignored: self.ledger.ignored().values().fold(0, |sum, count| sum.saturating_add(*count)),
            blamed: self.ledger.blamed().values().fold(0, |sum, count| sum.saturating_add(*count)),
            evidence: self.ledger.proofs().iter().map(|(id, proof)| format!("{id} {}", proof.words())).collect(),
            last_fault: self.ledger.last().map(|(peer, fault)| format!("{peer}: {fault:?}")),
            syncs: self.syncs,
        }
    }

    pub(super) fn answer(&self, to: Peer, message: Service, label: &'static str, actions: &mut Vec<Action>) {
        let bytes = self.envelope.seal(&Payload::<P::Message>::Service(message));
        actions.push(Action::Send { to: To::One(to), bytes, label });
    }
}
