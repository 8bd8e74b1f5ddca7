//! Reads without the log (VRR §6.3; vr.md §2.8).
//!
//! *Index*: the primary notes its commit number, proves by a round of heartbeats that it still leads, and answers from a state
//! that contains that entry. One round serves all reads that wait. *Lease*: backups promise with each heartbeat not to help
//! to end the view for a while; until the earliest of enough promises runs out, counted from when the heartbeat was *sent*
//! and shortened by the drift of clocks, no other primary can exist. *Stale*: any replica, any state that contains an entry.

use super::replica::{Phase, Replica};
use super::{Message, Outbox, Reads, Timer};
use bytes::Bytes;
use quorate_core::fault::Why;
use quorate_core::ids::{ClientId, OpNumber, Peer, ReplicaId, View};
use quorate_core::mutated;
use quorate_core::protocol::{Checkpoint, Consistency, QueryTicket};
use quorate_core::time::{Duration, Instant};
use quorate_core::votes::Votes;
use std::collections::{BTreeMap, VecDeque};

/// Reads that wait at a replica, at most; a further client is told that it is busy.
const READS_MAX: usize = 8192;

#[derive(Clone, Debug)]
struct Read {
    client: ClientId,
    id: u64,
    query: Bytes,
    /// Answered under a lease: it must still hold when the answer leaves.
    lease: bool,
}

/// Reads that wait for this replica's machine, and those that it is answering.
#[derive(Debug, Default)]
pub(super) struct LocalReads {
    waiting: BTreeMap<(OpNumber, u64), Read>,
    asked: BTreeMap<QueryTicket, (OpNumber, Read)>,
    next: u64,
}

impl LocalReads {
    /// The machine was replaced: what it was asked before is not answered. Clients ask again.
    pub(super) fn forget_asked(&mut self) {
        self.asked.clear();
    }
}

/// A primary's proofs that it leads.
#[derive(Debug, Default)]
pub(super) struct ReadRounds {
    /// The round that is out.
    round: u64,
    votes: Option<Votes<()>>,
    /// Reads that wait for a round, with the entry that they must reflect.
    waiting: VecDeque<(u64, OpNumber, Read)>,
    /// The log that the view started with is committed in this view: before that, the commit number may be too low.
    ready: bool,
    /// When the last heartbeat was sent that each backup has answered.
    promises: BTreeMap<ReplicaId, Instant>,
}

impl ReadRounds {
    pub(super) fn new(ready: bool) -> Self {
        Self { ready, ..Self::default() }
    }

    /// A round is out.
    pub(super) fn is_asking(&self) -> bool {
        self.votes.is_some()
    }

    pub(super) fn round(&self) -> u64 {
        self.round
    }

    pub(super) fn inherited_committed(&mut self, committed: bool) {
        self.ready |= committed;
    }
}

impl Replica {
    pub(super) fn on_read(
        &mut self,
        client: ClientId,
        id: u64,
        consistency: Consistency,
        query: Bytes,
        out: &mut Outbox,
    ) {
        let read = Read { client, id, query, lease: false };
        match consistency {
            Consistency::Stale { at_least } => self.wait_for(at_least, read, out),
            Consistency::Linearizable => self.on_linearizable(read, out),
            Consistency::Ordered => return out.ignore(Peer::Client(client), Why::NotForSender), // it is a request
        }
        self.answer_reads(out);
    }

    fn on_linearizable(&mut self, mut read: Read, out: &mut Outbox) {
        let (view, index) = (self.view(), self.committed_max);
        let client = Peer::Client(read.client);
        let leased = self.config.reads == Reads::Lease && self.lease_holds(out.now());
        let Phase::Primary(primary) = &mut self.phase else {
            out.send(client, Message::NotPrimary { view });
            return out.ignore(client, Why::NotPrimary);
        };
        if mutated!("vr/reads-without-confirmation") {
            return self.wait_for(index, read, out);
        }
        if leased {
            read.lease = true;
            return self.wait_for(index, read, out);
        }
        if primary.reads.waiting.len() >= READS_MAX {
            out.send_unsynced(client, Message::Busy { view }); // as for requests
            return out.ignore(client, Why::Busy);
        }
        // A round that is out may have been answered before this read came: it needs the next one.
        let round = primary.reads.round + 1;
        primary.reads.waiting.push_back((round, index, read));
        if primary.reads.votes.is_none() {
            self.start_round(out);
        }
    }

    fn start_round(&mut self, out: &mut Outbox) {
        let (me, quorum) = (self.me, self.quorums.replication());
        let Phase::Primary(primary) = &mut self.phase else { return };
        if !primary.reads.ready || primary.reads.waiting.is_empty() || primary.reads.is_asking() {
            return;
        }
        primary.reads.round += 1;
        // A read that came before the inherited log was committed here took a commit number that may have been too low.
        let committed = self.committed_max;
        for (_, index, _) in &mut primary.reads.waiting {
            *index = committed.max(*index);
        }
        let mut votes = Votes::new(quorum);
        votes.add(me, ());
        let alone = votes.reached();
        primary.reads.votes = Some(votes);
        let muted = primary.muted;
        if !muted {
            self.send_commit(out);
        }
        out.arm(Timer::ReadAgain, self.config.resend);
        if self.committed_max == self.log.head() && !muted {
            out.arm(Timer::Abdicate, self.config.abdicate);
        }
        if alone {
            self.end_round(out);
        }
    }

    pub(super) fn on_read_again(&mut self, out: &mut Outbox) {
        let Phase::Primary(primary) = &self.phase else { return };
        if primary.reads.is_asking() && !primary.muted {
            self.send_commit(out); // the same round: its echo proves no less
            out.arm(Timer::ReadAgain, self.config.resend);
        }
    }

    /// A backup is in this view; with leases, it promises to stay.
    pub(super) fn on_commit_ok(
        &mut self,
        from: ReplicaId,
        view: View,
        (round, sent): (u64, u64),
        checkpoint: Checkpoint,
        out: &mut Outbox,
    ) {
        if let Some(why) = self.refuses_from_backup(view) {
            return out.ignore(Peer::Replica(from), why);
        }
        self.note_checkpoint(from, checkpoint, out);
        self.heard(out);
        let now = out.now();
        let Phase::Primary(primary) = &mut self.phase else { return };
        let promise = primary.reads.promises.entry(from).or_default();
        *promise = (*promise).max(Instant::from_nanos(sent).min(now));
        if round != primary.reads.round {
            return;
        }
        let Some(votes) = &mut primary.reads.votes else { return };
        votes.add(from, ());
        if votes.reached() {
            self.end_round(out);
        }
    }

    /// A quorum was in this view after the round began: no other primary had committed anything until then.
    fn end_round(&mut self, out: &mut Outbox) {
        let Phase::Primary(primary) = &mut self.phase else { return };
        let round = primary.reads.round;
        primary.reads.votes = None;
        out.disarm(Timer::ReadAgain);
        let mut proven = Vec::new();
        while primary.reads.waiting.front().is_some_and(|(needed, _, _)| *needed <= round) {
            proven.extend(primary.reads.waiting.pop_front());
        }
        for (_, index, read) in proven {
            self.wait_for(index, read, out);
        }
        self.answer_reads(out);
        self.start_round(out);
        self.rest(out);
    }

    fn wait_for(&mut self, index: OpNumber, read: Read, out: &mut Outbox) {
        self.reads.next += 1;
        self.reads.waiting.insert((index, self.reads.next), read);
        if self.reads.waiting.len() + self.reads.asked.len() > READS_MAX {
            // The one that waits for the most distant entry goes: perhaps no entry will ever satisfy it.
            let Some((_, read)) = self.reads.waiting.pop_last() else { return };
            let view = self.view();
            out.send(Peer::Client(read.client), Message::Busy { view });
            out.ignore(Peer::Client(read.client), Why::Busy);
        }
    }

    /// Asks the machine what its state can answer. The executor keeps order: a query sees every entry given before it.
    pub(super) fn answer_reads(&mut self, out: &mut Outbox) {
        self.start_round(out);
        while let Some(entry) = self.reads.waiting.first_entry() {
            let (index, number) = *entry.key();
            if index > self.machine.dispatched || self.machine.behind {
                return;
            }
            let read = entry.remove();
            out.query(QueryTicket(number), read.query.clone());
            self.reads.asked.insert(QueryTicket(number), (self.machine.dispatched, read));
        }
    }

    pub(super) fn queried(&mut self, ticket: QueryTicket, answer: Bytes, out: &mut Outbox) {
        let Some((op, read)) = self.reads.asked.remove(&ticket) else { return };
        if read.lease && !self.lease_holds(out.now()) {
            return self.on_linearizable(Read { lease: false, ..read }, out); // it ran out meanwhile: prove it (§2.8)
        }
        let (view, id) = (self.view(), read.id);
        // Says what committed entries lead to; nothing of it waits for our disk. `view` is a hint whom to ask next, of which
        // nothing is remembered or counted: a backup's may be on its way to disk.
        out.send_unsynced(Peer::Client(read.client), Message::ReadReply { view, id, op, answer });
    }

    /// How long a backup stays in its view after a heartbeat.
    pub(super) fn lease(&self) -> Duration {
        self.config.view_change
    }

    /// Can no other primary exist now?
    fn lease_holds(&self, now: Instant) -> bool {
        let Phase::Primary(primary) = &self.phase else { return false };
        if !primary.reads.ready {
            return false;
        }
        let needed = self.quorums.lease_promises();
        let mut sent: Vec<Instant> = primary.reads.promises.values().copied().collect();
        sent.sort_unstable_by(|one, other| other.cmp(one));
        let percent = 100_u32.saturating_sub(self.config.drift_percent);
        let factor = if mutated!("vr/lease-too-long") { 8 } else { 1 };
        let length = self.lease() * percent / 100 * factor;
        match needed.checked_sub(1) {
            None => true,
            Some(last) => sent.get(last).is_some_and(|sent| now < sent.plus(length)),
        }
    }
}
