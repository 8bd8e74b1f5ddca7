//! Checkpoints (VRR §5.1), and the state that a replica fetches when its log cannot catch up (§5.2; vr.md §2.6).
//!
//! A checkpoint is due at entries that the log alone determines, so it is the same everywhere, and its id can be compared:
//! two replicas with different ids at one entry have diverged, and the one that disagrees with its primary stops.

use super::durable::Base;
use super::replica::{Phase, Replica};
use super::{Message, Outbox, Timer};
use quorate_core::fault::{Fault, Why};
use quorate_core::ids::{OpNumber, Peer, ReplicaId};
use quorate_core::outbox::Note;
use quorate_core::protocol::Checkpoint;
use quorate_core::time::WallTime;

/// Own checkpoints that are remembered, to compare with others'.
const CHECKPOINTS_KEPT: usize = 4;

/// Saving.
impl Replica {
    /// An entry was given to the machine. If a checkpoint is due at it, nothing more is given until the entry is on our own
    /// disk: a checkpoint never runs ahead of the log that it belongs to.
    pub(super) fn pass_boundary(&mut self, op: OpNumber, bytes: u64, out: &mut Outbox) {
        let machine = &mut self.machine;
        machine.boundary_bytes = machine.boundary_bytes.saturating_add(bytes);
        let due = op.since(machine.boundary) >= self.config.checkpoint_entries
            || machine.boundary_bytes >= self.config.checkpoint_bytes;
        if due {
            machine.boundary = op;
            machine.boundary_bytes = 0;
            machine.saving = Some(op);
            out.send(Peer::Replica(self.me), Message::CheckpointDue { op });
        }
    }

    pub(super) fn on_checkpoint_due(&mut self, from: ReplicaId, op: OpNumber, out: &mut Outbox) {
        if from != self.me || self.machine.saving != Some(op) {
            return out.ignore(Peer::Replica(from), Why::Unasked);
        }
        assert_eq!(self.machine.dispatched, op, "nothing was given to the machine since");
        self.machine.saving = None;
        out.checkpoint(op);
        self.dispatch(out);
    }

    /// Our own checkpoint is durable.
    pub(super) fn saved(&mut self, checkpoint: Checkpoint, out: &mut Outbox) {
        self.remember(checkpoint);
        out.note(Note::Checkpointed(checkpoint.op));
        self.note_checkpoint(self.me, checkpoint, out);
        self.trim(self.stable, out);
    }

    fn remember(&mut self, checkpoint: Checkpoint) {
        self.checkpoints.insert(checkpoint.op, checkpoint);
        while self.checkpoints.len() > CHECKPOINTS_KEPT {
            self.checkpoints.pop_first();
        }
    }

    /// The primary keeps book of who has which checkpoint: what a replication quorum has is stable.
    pub(super) fn note_checkpoint(&mut self, from: ReplicaId, checkpoint: Checkpoint, out: &mut Outbox) {
        let own = self.checkpoints.get(&checkpoint.op);
        if own.is_some_and(|own| own.id != checkpoint.id) {
            let what = format!("its state after entry {} is another than ours", checkpoint.op);
            return out.blame(Peer::Replica(from), Fault::Contradiction(what)); // it compares too, and stops
        }
        let quorums = self.quorums;
        let Phase::Primary(primary) = &mut self.phase else { return };
        let known = primary.checkpoints.entry(from).or_default();
        *known = (*known).max(checkpoint.op);
        let stable = quorums.replicated(primary.checkpoints.values().copied());
        self.trim(stable, out);
    }

    /// Does our state contradict the primary's? Then this replica stops rather than answer wrongly (§2.3 step 5).
    pub(super) fn diverges(&self, checkpoint: Checkpoint, out: &mut Outbox) -> bool {
        let own = self.checkpoints.get(&checkpoint.op).filter(|own| own.id != checkpoint.id);
        if let Some(own) = own {
            out.halt(format!(
                "the state after entry {} is {} here and {} at the primary: the copies have diverged, by a machine that is \
                 not deterministic or by damaged memory; compare the two, then run `quorate recover` on the wrong one",
                own.op,
                own.id.short(),
                checkpoint.id.short()
            ));
        }
        own.is_some()
    }

    /// Entries up to `stable` are in a checkpoint at a replication quorum: the log may begin after them. The promise is
    /// written again first, so that the records before it can go.
    pub(super) fn trim(&mut self, stable: OpNumber, out: &mut Outbox) {
        self.stable = self.stable.max(stable);
        let op = self.stable.min(self.checkpoint().op).min(self.machine.executed);
        if !self.is_normal() || self.machine.behind || op <= self.log.base().op || op > self.log.whole_to() {
            return;
        }
        let Some(checksum) = self.log.checksum(op) else { return };
        self.rebase(Base { op, checksum }, out);
    }

    /// The log begins later. Its records can go if the promise says what the log is without them: entries that were fetched
    /// lie in the journal in the order in which they came, and what named their places may be among what goes.
    pub(super) fn rebase(&mut self, base: Base, out: &mut Outbox) {
        self.log.rebase(base);
        let suffix = self.log.as_suffix();
        let forget = suffix.is_some();
        let record = self.durable.rebase(base, self.committed, suffix);
        let seq = self.promise(record, out);
        if forget {
            let first = self.log.first_seq().unwrap_or(seq);
            out.forget(first.min(seq));
        }
    }

    /// Entries up to `stable` are in a checkpoint at a replication quorum, and others may have dropped them: what is
    /// missing here before it may be nowhere any more. The checkpoint instead (vr.md §2.6).
    pub(super) fn skip_to(&mut self, stable: OpNumber, out: &mut Outbox) {
        let lacking = stable > self.log.whole_to() && stable <= self.log.head();
        if !lacking || !matches!(self.phase, Phase::Backup(_)) {
            return;
        }
        let Some(checksum) = self.log.checksum(stable) else { return };
        self.committed = self.committed.max(stable);
        self.committed_max = self.committed_max.max(stable);
        self.machine.behind = stable > self.machine.dispatched;
        self.rebase(Base { op: stable, checksum }, out);
    }
}

/// Fetching.
impl Replica {
    /// The machine lacks the state before the log: the primary's checkpoint will do, if the log reaches it.
    pub(super) fn catch_up_state(&mut self, from: ReplicaId, checkpoint: Checkpoint, out: &mut Outbox) {
        if self.machine.behind && self.machine.fetching.is_none() {
            self.fetch(checkpoint, from, out);
        }
    }

    pub(super) fn fetch(&mut self, checkpoint: Checkpoint, from: ReplicaId, out: &mut Outbox) {
        let useful = checkpoint.op >= self.log.base().op && checkpoint.op <= self.log.head();
        if self.machine.behind && useful && self.machine.fetching != Some(checkpoint) {
            self.machine.fetching = Some(checkpoint);
            out.note(Note::StateTransfer(checkpoint.op));
            out.fetch(checkpoint, from);
        }
    }

    /// The machine is in the checkpoint's state. What was asked of it before is void.
    pub(super) fn installed(&mut self, checkpoint: Checkpoint, wake: Option<WallTime>, out: &mut Outbox) {
        let op = checkpoint.op;
        assert!(op >= self.machine.executed, "the machine is never set back");
        self.machine.dispatched = op;
        self.machine.executed = op;
        self.machine.boundary = op;
        self.machine.boundary_bytes = 0;
        self.machine.saving = None;
        self.machine.wake = wake;
        self.machine.fetching = None;
        self.machine.behind = op < self.log.base().op;
        self.reads.forget_asked();
        self.remember(checkpoint);
        if self.machine.behind {
            return self.ask_view(out); // the log moved on meanwhile
        }
        if op > self.log.whole_to() {
            match self.log.checksum(op) {
                Some(checksum) => self.rebase(Base { op, checksum }, out),
                None => return self.ask_view(out),
            }
        }
        self.committed = self.committed.max(op);
        self.committed_max = self.committed_max.max(op);
        self.acknowledge(true, out);
        self.commit_through(self.committed_max, out);
        self.repair_if_needed(out);
    }

    /// The source does not have it any more, or not in order. Whoever leads says what there is now; not at once, so that
    /// two replicas do not ask each other as fast as they can.
    pub(super) fn fetch_failed(&mut self, checkpoint: Checkpoint, out: &mut Outbox) {
        if self.machine.fetching == Some(checkpoint) {
            self.machine.fetching = None;
            out.arm(Timer::Repair, self.config.resend);
        }
    }
}
