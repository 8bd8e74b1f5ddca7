//! Snapshots: serving them to peers, fetching them from a peer, and what waits while one is being installed.

use super::recorder::transfer_label;
use super::{Action, Node, Part, Payload, Wake};
use crate::executor::Manifest;
use crate::fault::{Fault, Why};
use crate::ids::{Peer, ReplicaId};
use crate::outbox::{To, Turn};
use crate::protocol::{Checkpoint, Protocol, Replica};
use crate::time::Instant;
use crate::transfer::{self, Fetch, Step};
use crate::wire::Wire;
use bytes::Bytes;

/// Snapshots that a replica keeps: the last one, and the one before for a peer that is fetching it.
pub const SNAPSHOTS_KEPT: usize = 2;

/// Parts of snapshots that are being read for one peer: twice what a correct one asks for, as it repeats itself after a
/// silence.
pub const READS_MAX: usize = 2 * transfer::IN_FLIGHT_MAX;

impl<P: Protocol> Node<P> {
    pub(super) fn keep_snapshot(&mut self, checkpoint: Checkpoint, actions: &mut Vec<Action>) {
        self.snapshots.insert(checkpoint);
        while self.snapshots.len() > SNAPSHOTS_KEPT {
            self.snapshots.pop_first();
        }
        if let Some(first) = self.snapshots.first() {
            actions.push(Action::ForgetSnapshots(first.op));
        }
    }

    pub(super) fn on_stored(&mut self, checkpoint: Checkpoint, actions: &mut Vec<Action>) {
        if self.fetches(checkpoint) && self.fetch.as_ref().is_some_and(Fetch::is_finishing) {
            self.installing = Some(checkpoint);
            actions.push(Action::Install(checkpoint));
        } // otherwise the protocol has asked for another one meanwhile
    }

    pub(super) fn fetches(&self, checkpoint: Checkpoint) -> bool {
        self.fetch.as_ref().is_some_and(|fetch| fetch.checkpoint() == checkpoint)
    }

    /// Lets the jobs go that waited for this checkpoint, unless yet another one is being installed.
    pub(super) fn end_install(&mut self, checkpoint: Checkpoint, actions: &mut Vec<Action>) {
        if self.installing == Some(checkpoint) {
            self.installing = None;
            actions.extend(self.waiting.drain(..).map(Action::Run));
        }
    }

    pub(super) fn not_installed(&mut self, checkpoint: Checkpoint, turn: Turn, actions: &mut Vec<Action>) {
        self.end_install(checkpoint, actions);
        if self.fetches(checkpoint) {
            self.take_steps(vec![Step::Fail], turn, actions);
        }
    }

    pub(super) fn on_transfer(
        &mut self,
        from: ReplicaId,
        message: transfer::Message,
        turn: Turn,
        actions: &mut Vec<Action>,
    ) {
        use transfer::Message as M;
        match message {
            M::GetManifest(checkpoint) | M::GetChunk(checkpoint, _) if !self.snapshots.contains(&checkpoint) => {
                self.send_transfer(from, M::Unavailable(checkpoint), actions);
            }
            M::GetManifest(checkpoint) => self.read(from, checkpoint, Part::Manifest, actions),
            M::GetChunk(checkpoint, index) => self.read(from, checkpoint, Part::Chunk(index), actions),
            M::Manifest(_) | M::Chunk(..) | M::Unavailable(_) => {
                let steps = match &mut self.fetch {
                    Some(fetch) if fetch.source() == from => match message {
                        M::Manifest(manifest) => fetch.on_manifest(manifest, turn.now),
                        M::Chunk(checkpoint, index, bytes) if checkpoint == fetch.checkpoint() => {
                            fetch.on_chunk(index, bytes, turn.now)
                        }
                        M::Unavailable(checkpoint) if checkpoint == fetch.checkpoint() => vec![Step::Fail],
                        _ => Vec::new(),
                    },
                    _ => return self.ledger.ignore(Why::Unasked),
                };
                self.take_steps(steps, turn, actions);
            }
        }
    }

    fn read(&mut self, to: ReplicaId, checkpoint: Checkpoint, part: Part, actions: &mut Vec<Action>) {
        let reading = self.reading.entry(to).or_default();
        if *reading >= READS_MAX {
            return self.ledger.ignore(Why::Busy);
        }
        *reading += 1;
        actions.push(Action::Read { to, checkpoint, part });
    }

    pub(super) fn on_read(
        &mut self,
        to: ReplicaId,
        checkpoint: Checkpoint,
        part: Part,
        bytes: Option<Bytes>,
        actions: &mut Vec<Action>,
    ) {
        if let Some(reading) = self.reading.get_mut(&to) {
            *reading = reading.saturating_sub(1);
        }
        let message = match (part, bytes) {
            (Part::Manifest, None) => {
                self.snapshots.remove(&checkpoint); // damaged or gone: do not offer it again
                transfer::Message::Unavailable(checkpoint)
            }
            // Perhaps damaged; perhaps there is no such chunk, and asking for it must not withdraw the snapshot.
            (Part::Chunk(_), None) => transfer::Message::Unavailable(checkpoint),
            (Part::Manifest, Some(bytes)) => match Manifest::decode(&bytes) {
                Ok(manifest) => transfer::Message::Manifest(manifest),
                Err(_) => transfer::Message::Unavailable(checkpoint),
            },
            (Part::Chunk(index), Some(bytes)) => transfer::Message::Chunk(checkpoint, index, bytes),
        };
        self.send_transfer(to, message, actions);
    }

    pub(super) fn start_fetch(
        &mut self,
        checkpoint: Checkpoint,
        from: ReplicaId,
        now: Instant,
        actions: &mut Vec<Action>,
    ) {
        let (fetch, step) = Fetch::new(checkpoint, from, now);
        self.timers.insert(Wake::Transfer, fetch.deadline());
        self.fetch = Some(fetch);
        if let Step::Ask(message) = step {
            self.send_transfer(from, message, actions);
        }
    }

    pub(super) fn end_fetch(&mut self) {
        self.fetch = None;
        self.timers.remove(&Wake::Transfer);
    }

    pub(super) fn take_steps(&mut self, steps: Vec<Step>, turn: Turn, actions: &mut Vec<Action>) {
        for step in steps {
            let Some(fetch) = &self.fetch else { return };
            let (checkpoint, from) = (fetch.checkpoint(), fetch.source());
            match step {
                Step::Ask(message) => self.send_transfer(from, message, actions),
                Step::Begin(manifest) => actions.push(Action::Prepare(manifest)),
                Step::Put(index, bytes) => actions.push(Action::Put(checkpoint, index, bytes)),
                Step::Finish(checkpoint) => actions.push(Action::Finish(checkpoint)),
                Step::Blame(what) => self.ledger.blame(Peer::Replica(from), Fault::WrongBytes(what)),
                Step::Fail => {
                    self.end_fetch();
                    self.turn(turn, actions, |replica, out| replica.on_fetch_failed(checkpoint, out));
                }
            }
        }
        if let Some(fetch) = &self.fetch {
            self.timers.insert(Wake::Transfer, fetch.deadline());
        }
    }

    fn send_transfer(&self, to: ReplicaId, message: transfer::Message, actions: &mut Vec<Action>) {
        let label = transfer_label(&message);
        let bytes = self.envelope.seal(&Payload::<P::Message>::Transfer(message));
        actions.push(Action::Send { to: To::One(Peer::Replica(to)), bytes, label });
    }
}
