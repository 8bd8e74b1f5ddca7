//! Normal operation (VRR §4.1): the primary orders, the backups follow, an entry that a replication quorum holds durably is
//! committed, executed and answered.

use super::message::{Entry, Message, Reply, Request};
use super::replica::{Key, Phase, Primary, Replica, header_for};
use super::{BATCH_BYTES_MAX, HEADERS_MAX, Outbox, REQUESTS_MAX, Timer, WINDOW_ENTRIES};
use bytes::Bytes;
use quorate_core::crypto::Digest;
use quorate_core::fault::{Fault, Why};
use quorate_core::ids::{ClientId, OpNumber, Peer, ReplicaId, RequestNumber, SessionId, View};
use quorate_core::mutated;
use quorate_core::outbox::Note;
use quorate_core::protocol::Checkpoint;
use quorate_core::sessions::{self, Batch, Outcome, Ruling};
use quorate_core::votes::Votes;
use quorate_core::wire::Wire;
use std::collections::BTreeMap;

/// Entries that the machine may have been given and not applied. More wait in the log.
const EXECUTING_MAX: u64 = 64;
/// Entries in a primary's log: one message can name them all. When no checkpoint becomes stable for so long, clients wait.
const LOG_ENTRIES_MAX: u64 = HEADERS_MAX as u64 - WINDOW_ENTRIES;
/// Bytes that one request costs beside its operation, for budgets.
const REQUEST_OVERHEAD_BYTES: usize = 64;

/// The primary's side.
impl Replica {
    /// ⟨Request op, c, s⟩ (§4.1 step 1). Requests that were ordered before are ordered again: whoever applies them knows
    /// (sessions, CT2). Only what is under way is filtered here.
    pub(super) fn on_request(&mut self, from: Peer, request: Request, out: &mut Outbox) {
        let primary_is = self.primary();
        let view = self.view();
        let (pending_max, pipeline_full) = (self.config.pending_bytes, self.is_execution_far_behind());
        let Phase::Primary(primary) = &mut self.phase else {
            if matches!(self.phase, Phase::Backup(_)) && matches!(from, Peer::Client(_)) {
                // What a client says may be passed on at once: it is the client's promise, not ours.
                out.send_unsynced(Peer::Replica(primary_is), Message::Request(request));
            }
            return out.ignore(from, Why::NotPrimary);
        };
        let bytes = request.requests.iter().map(|(_, body)| body.len() + REQUEST_OVERHEAD_BYTES).sum::<usize>();
        if primary.pending_bytes.saturating_add(bytes) > pending_max || pipeline_full {
            // Promises nothing; `view` is durable since this replica is in it.
            out.send_unsynced(Peer::Client(request.client), Message::Busy { view });
            return out.ignore(from, Why::Busy);
        }
        let Request { client, session, acknowledged, requests } = request;
        for (number, body) in requests {
            if primary.under_way.insert((client, session, number)) {
                primary.pending_bytes += body.len() + REQUEST_OVERHEAD_BYTES;
                primary.pending.push_back(sessions::Request { client, session, number, acknowledged, body });
            }
        }
        self.prepare_more(out);
    }

    /// Makes entries while it makes sense: at once if the disk is idle, else when a batch is full; never more than the
    /// window (D20). What waits meanwhile goes into one entry: the disk sets the pace, no timer.
    pub(super) fn prepare_more(&mut self, out: &mut Outbox) {
        loop {
            let head = self.log.head();
            let in_flight = head.since(self.committed_max);
            let batch_bytes = self.config.batch_bytes;
            let Phase::Primary(primary) = &mut self.phase else { return };
            let idle = primary.acks.get(&self.me).is_some_and(|own| *own == head);
            let full = primary.pending_bytes >= batch_bytes || primary.pending.len() >= REQUESTS_MAX;
            let something = !primary.pending.is_empty() || primary.tick_due;
            let window = in_flight < WINDOW_ENTRIES || mutated!("vr/no-window");
            let room = window && head.since(self.log.base().op) < LOG_ENTRIES_MAX;
            if !something || !room || !(idle || full) {
                return;
            }
            let (requests, keys) = take_batch(primary, batch_bytes);
            let tick = std::mem::take(&mut primary.tick_due);
            if tick {
                primary.ticked = head.next();
            }
            self.batch_time = self.batch_time.max(out.wall());
            let batch = Batch { time: self.batch_time, tick, requests };
            self.prepare(batch.encode().into(), keys, out);
        }
    }

    /// §4.1 step 3: the next op-number, the log, ⟨Prepare v, m, n, k⟩ to the backups.
    fn prepare(&mut self, batch: Bytes, keys: Vec<Key>, out: &mut Outbox) {
        assert!(self.log.is_whole(), "a primary has its whole log");
        let view = self.view();
        let header = header_for(&self.log, view, &batch).expect("the head of a whole log has a checksum");
        let entry = Entry { header, batch };
        self.append(entry.clone(), out);
        // May overtake our own disk: it asks for something and promises nothing. The primary counts itself only when its
        // own PrepareOk comes back durable (R5). `view` is durable: our own DoViewChange came back (R2). `log_view` may not
        // be yet; then nobody is in this view, for StartView waits for it, and nobody takes this (R3).
        out.broadcast_unsynced(Message::Prepare { view, entry, committed: self.committed_max });
        self.acknowledge_own(out);
        if let Phase::Primary(primary) = &mut self.phase {
            primary.prepared.push_back((header.op, keys));
        }
        out.arm(Timer::PrepareAgain, self.config.resend);
        out.arm(Timer::Abdicate, self.config.abdicate);
    }

    /// The primary's vote for itself: a message that comes back when everything before it is on disk (R5).
    pub(super) fn acknowledge_own(&self, out: &mut Outbox) {
        let op = self.log.whole_to();
        if let Some(checksum) = self.log.checksum(op) {
            let (view, checkpoint) = (self.view(), self.checkpoint());
            out.send(Peer::Replica(self.me), Message::PrepareOk { view, op, checksum, checkpoint });
        }
    }

    /// ⟨PrepareOk v, n, i⟩ (§4.1 step 5). Cumulative: the sender holds everything up to `op` (R1).
    pub(super) fn on_prepare_ok(
        &mut self,
        from: ReplicaId,
        (view, op, checksum): (View, OpNumber, Digest),
        checkpoint: Checkpoint,
        out: &mut Outbox,
    ) {
        if let Some(why) = self.refuses_from_backup(view) {
            return out.ignore(Peer::Replica(from), why);
        }
        if op > self.log.head() || op < self.log.base().op {
            return out.ignore(Peer::Replica(from), Why::OutsideWindow);
        }
        if self.log.checksum(op) != Some(checksum) {
            let what = format!("it acknowledges another entry {op} in view {view}");
            return out.blame(Peer::Replica(from), Fault::Contradiction(what));
        }
        self.note_checkpoint(from, checkpoint, out);
        let quorums = self.quorums;
        let Phase::Primary(primary) = &mut self.phase else { return };
        let acked = primary.acks.entry(from).or_insert(op);
        *acked = (*acked).max(op);
        let replicated = quorums.replicated(primary.acks.values().copied());
        if from != self.me {
            self.heard(out);
        }
        if replicated > self.committed_max {
            out.arm(Timer::PrepareAgain, self.config.resend);
            out.arm(Timer::Abdicate, self.config.abdicate);
        }
        self.commit_through(replicated, out);
        self.rest(out);
        self.prepare_more(out);
    }

    /// What a primary does not take from a backup.
    pub(super) fn refuses_from_backup(&self, view: View) -> Option<Why> {
        if view < self.view() {
            return Some(Why::OldView); // also our own acknowledgement from before a view change (D12)
        }
        if view > self.view() {
            return Some(Why::NewerView);
        }
        (!matches!(self.phase, Phase::Primary(_))).then_some(Why::NotPrimary)
    }

    /// ⟨Commit v, k⟩ (§4.1 step 6), which is also the sign that the primary lives.
    pub(super) fn on_heartbeat(&mut self, out: &mut Outbox) {
        let Phase::Primary(primary) = &self.phase else { return };
        if !primary.muted {
            self.send_commit(out);
        }
        out.arm(Timer::Heartbeat, self.config.heartbeat);
    }

    pub(super) fn send_commit(&self, out: &mut Outbox) {
        let Phase::Primary(primary) = &self.phase else { return };
        let (view, committed, op) = (self.view(), self.committed_max, self.log.head());
        let (checkpoint, stable, round) = (self.checkpoint(), self.stable, primary.reads.round());
        let sent = out.now().as_nanos();
        // Says what a quorum holds and what is durable here already; nothing in it waits for our disk.
        out.broadcast_unsynced(Message::Commit { view, committed, op, checkpoint, stable, round, sent });
    }

    /// What no quorum has acknowledged is sent again: the network may have lost it.
    pub(super) fn on_prepare_again(&mut self, out: &mut Outbox) {
        let Phase::Primary(primary) = &self.phase else { return };
        if self.committed_max >= self.log.head() {
            return;
        }
        out.arm(Timer::PrepareAgain, self.config.resend);
        if primary.muted {
            return; // whoever hears a Prepare does not look for another primary
        }
        let view = self.view();
        for replica in self.quorums.members().filter(|replica| *replica != self.me) {
            let acked = primary.acks.get(&replica).copied().unwrap_or(OpNumber::ZERO);
            let mut op = acked.max(self.committed_max).next();
            while let Some(entry) = self.log.entry(op) {
                let message = Message::Prepare { view, entry, committed: self.committed_max };
                out.send_unsynced(Peer::Replica(replica), message); // as when it was prepared
                op = op.next();
            }
        }
    }

    /// Entries or reads wait and nobody answers: a primary that cannot reach a quorum must not keep others from finding one.
    /// It falls silent and wants to leave the view like everybody else: where every replica is needed for that, it is too.
    pub(super) fn on_abdicate(&mut self, out: &mut Outbox) {
        let exits = Votes::new(self.quorums.view_change());
        let Phase::Primary(primary) = &mut self.phase else { return };
        if (self.committed_max < self.log.head() || primary.reads.is_asking()) && !primary.muted {
            primary.muted = true;
            primary.exits = exits;
            out.note(Note::Suspects(self.view()));
            self.say_exit(out);
        }
    }

    /// A backup answers: the primary is heard, and goes on.
    pub(super) fn heard(&mut self, out: &mut Outbox) {
        let Phase::Primary(primary) = &mut self.phase else { return };
        if primary.muted {
            primary.muted = false;
            out.disarm(Timer::ViewAgain);
            out.arm(Timer::Abdicate, self.config.abdicate);
        }
    }

    /// Nothing waits for an answer any more.
    pub(super) fn rest(&mut self, out: &mut Outbox) {
        let Phase::Primary(primary) = &self.phase else { return };
        let caught_up = self.committed_max == self.log.head();
        if caught_up {
            out.disarm(Timer::PrepareAgain);
        }
        if caught_up && !primary.reads.is_asking() {
            out.disarm(Timer::Abdicate);
        }
    }

    /// The machine wants a tick, and the clock says that it is time: the next entry carries it.
    pub(super) fn on_tick(&mut self, out: &mut Outbox) {
        self.arm_tick(out);
        self.prepare_more(out);
    }

    pub(super) fn arm_tick(&mut self, out: &mut Outbox) {
        let Phase::Primary(primary) = &mut self.phase else { return };
        let Some(wake) = self.machine.wake else { return out.disarm(Timer::Tick) };
        if primary.ticked > self.machine.executed {
            return; // it is ordered; the machine says what comes next when it has had it
        }
        if out.wall() >= wake {
            primary.tick_due = true;
        } else {
            out.arm(Timer::Tick, wake.since(out.wall()));
        }
    }
}

/// The backup's side.
impl Replica {
    /// ⟨Prepare v, m, n, k⟩ (§4.1 step 4): append the entry, then say so.
    pub(super) fn on_prepare(
        &mut self,
        from: ReplicaId,
        view: View,
        entry: Entry,
        committed: OpNumber,
        out: &mut Outbox,
    ) {
        if let Some(why) = self.refuses_from_primary(from, view, out) {
            if mutated!("vr/acknowledges-in-an-old-view") && why == Why::OldView && self.log.is_next(&entry.header) {
                let (op, checksum, checkpoint) = (entry.header.op, entry.header.checksum(), self.checkpoint());
                self.append(entry, out);
                return out.send(Peer::Replica(from), Message::PrepareOk { view, op, checksum, checkpoint });
            }
            return out.ignore(Peer::Replica(from), why);
        }
        self.primary_lives(out);
        let op = entry.header.op;
        if op <= self.log.head() {
            if self.log.wants(&entry) {
                self.fill(&entry, out);
            } else {
                out.ignore(Peer::Replica(from), Why::Duplicate);
            }
        } else if self.log.is_next(&entry.header) {
            self.append(entry, out);
            self.append_ahead(out);
        } else {
            self.keep_ahead(from, entry, out);
        }
        self.acknowledge(true, out);
        self.commit_through(committed, out);
    }

    /// What a backup does not take from a primary, in the order in which it is cheapest to tell.
    fn refuses_from_primary(&mut self, from: ReplicaId, view: View, out: &mut Outbox) -> Option<Why> {
        if view < self.view() && !mutated!("vr/takes-a-prepare-of-an-old-view") {
            return Some(Why::OldView); // once in a view, nothing of a lower one (§4.2; D8)
        }
        if from != self.quorums.primary(view) || from == self.me {
            return Some(Why::NotForSender);
        }
        if view > self.view() || !matches!(self.phase, Phase::Backup(_)) {
            self.ask_view(out); // its start was missed: ask, and wait for the answer before acknowledging (§2.11)
            return Some(if view > self.view() { Why::NewerView } else { Why::NotNow });
        }
        None
    }

    /// An entry whose predecessors are missing: kept for later, never acknowledged (R1).
    fn keep_ahead(&mut self, from: ReplicaId, entry: Entry, out: &mut Outbox) {
        let (head, op) = (self.log.head(), entry.header.op);
        let Phase::Backup(backup) = &mut self.phase else { return };
        if op <= head.plus(WINDOW_ENTRIES) && op > head.next() {
            backup.ahead.insert(op, entry);
        }
        out.ignore(Peer::Replica(from), if op == head.next() { Why::WrongChain } else { Why::Gap });
        self.ask_view(out);
    }

    /// Appends what was kept and now fits.
    pub(super) fn append_ahead(&mut self, out: &mut Outbox) {
        loop {
            let head = self.log.head();
            let Phase::Backup(backup) = &mut self.phase else { return };
            backup.ahead.retain(|op, _| *op > head && *op <= head.plus(WINDOW_ENTRIES));
            match backup.ahead.remove(&head.next()) {
                Some(entry) if self.log.is_next(&entry.header) => self.append(entry, out),
                Some(_) | None => return,
            }
        }
    }

    /// ⟨PrepareOk v, n, i⟩ for everything that is here without a hole. Leaves when it is on disk (R1). To the primary of
    /// the *current* view, whatever view the entries are from.
    pub(super) fn acknowledge(&mut self, again: bool, out: &mut Outbox) {
        let (mut op, view, checkpoint) = (self.log.whole_to(), self.view(), self.checkpoint());
        if mutated!("vr/acknowledges-what-is-missing") {
            op = self.log.head();
        }
        if !self.may_acknowledge() {
            return;
        }
        let Some(checksum) = self.log.checksum(op) else { return };
        let primary = Peer::Replica(self.primary());
        let Phase::Backup(backup) = &mut self.phase else { return };
        if again || op > backup.acknowledged {
            backup.acknowledged = op;
            if mutated!("vr/acknowledges-before-the-sync") {
                return out.send_unsynced(primary, Message::PrepareOk { view, op, checksum, checkpoint });
            }
            out.send(primary, Message::PrepareOk { view, op, checksum, checkpoint });
        }
    }

    /// ⟨Commit v, k⟩ (§4.1 step 7).
    pub(super) fn on_commit(
        &mut self,
        from: ReplicaId,
        view: View,
        (committed, op): (OpNumber, OpNumber),
        (checkpoint, stable): (Checkpoint, OpNumber),
        (round, sent): (u64, u64),
        out: &mut Outbox,
    ) {
        if let Some(why) = self.refuses_from_primary(from, view, out) {
            return out.ignore(Peer::Replica(from), why);
        }
        self.primary_lives(out);
        if self.diverges(checkpoint, out) {
            return;
        }
        self.make_promise(out);
        let own = self.checkpoint();
        // Sent durably: with leases it promises to stay in this view, and `view` is durable; it costs no sync.
        out.send(Peer::Replica(from), Message::CommitOk { view, round, sent, checkpoint: own });
        self.commit_through(committed, out);
        if op > self.log.head() {
            self.ask_view(out);
        } else {
            self.repair_if_needed(out);
        }
        self.skip_to(stable, out);
        self.catch_up_state(from, checkpoint, out);
        self.trim(stable, out);
    }

    /// The primary of this view lives: nobody here wants to leave it.
    pub(super) fn primary_lives(&mut self, out: &mut Outbox) {
        let delay = self.silence();
        let Phase::Backup(backup) = &mut self.phase else { return };
        if backup.suspects {
            backup.suspects = false;
            backup.exits = Votes::new(self.quorums.view_change());
            out.disarm(Timer::ViewAgain);
        }
        out.arm(Timer::PrimarySilent, delay);
    }
}

/// Committing and executing, on either side.
impl Replica {
    /// Entries up to `op` are committed.
    pub(super) fn commit_through(&mut self, op: OpNumber, out: &mut Outbox) {
        self.committed_max = self.committed_max.max(op);
        let mut here = self.committed_max.min(self.log.whole_to());
        if mutated!("vr/commits-what-is-only-prepared") {
            (here, self.committed_max) = (self.log.whole_to(), self.log.whole_to().max(op));
        }
        if here > self.committed {
            self.committed = here;
            out.note(Note::Committed(here));
            if let Phase::Primary(primary) = &mut self.phase {
                primary.reads.inherited_committed(here >= primary.inherited);
            }
        }
        self.dispatch(out);
    }

    /// Gives committed entries to the machine, in order, each once.
    pub(super) fn dispatch(&mut self, out: &mut Outbox) {
        while !self.machine.behind
            && self.machine.saving.is_none()
            && self.machine.dispatched < self.committed
            && self.machine.dispatched.since(self.machine.executed) < EXECUTING_MAX
        {
            let op = self.machine.dispatched.next();
            let Some(whole) = self.log.whole(op) else { return };
            let bytes = u64::from(whole.header.bytes);
            out.execute(op, whole.batch.clone());
            self.machine.dispatched = op;
            self.pass_boundary(op, bytes, out);
        }
    }

    fn is_execution_far_behind(&self) -> bool {
        self.committed.since(self.machine.executed) >= EXECUTING_MAX
    }

    /// §4.1 step 5, the end: the answers go to the clients; the primary's only.
    pub(super) fn executed(&mut self, op: OpNumber, outcome: Outcome, out: &mut Outbox) {
        assert_eq!(op, self.machine.executed.next(), "the machine applies in order");
        self.machine.executed = op;
        self.machine.wake = outcome.wake;
        if let Phase::Primary(primary) = &mut self.phase {
            while primary.prepared.front().is_some_and(|(prepared, _)| *prepared <= op) {
                for key in primary.prepared.pop_front().into_iter().flat_map(|(_, keys)| keys) {
                    primary.under_way.remove(&key);
                }
            }
            self.reply(op, outcome, out);
            self.arm_tick(out);
            self.prepare_more(out);
        }
        self.dispatch(out);
        self.answer_reads(out);
    }

    fn reply(&self, op: OpNumber, outcome: Outcome, out: &mut Outbox) {
        let mut rulings: BTreeMap<(ClientId, SessionId), Vec<(RequestNumber, Ruling)>> = BTreeMap::new();
        for reply in outcome.replies {
            rulings.entry((reply.client, reply.session)).or_default().push((reply.number, reply.ruling));
        }
        let view = self.view();
        for ((client, session), rulings) in rulings {
            // A replication quorum holds the entry durably, in this view; our own disk adds nothing to that (CT6).
            out.send_unsynced(Peer::Client(client), Message::Reply(Reply { view, op, session, rulings }));
        }
    }
}

/// Takes what fits into one entry: at least one request, at most about `bytes`, never more than an entry holds.
fn take_batch(primary: &mut Primary, bytes: usize) -> (Vec<sessions::Request>, Vec<Key>) {
    let (mut requests, mut keys, mut sum) = (Vec::new(), Vec::new(), 0_usize);
    while let Some(next) = primary.pending.front() {
        let cost = next.body.len() + REQUEST_OVERHEAD_BYTES;
        let beyond = sum.saturating_add(cost) > bytes.min(BATCH_BYTES_MAX / 2);
        if requests.len() >= REQUESTS_MAX || (beyond && !requests.is_empty()) {
            break;
        }
        sum += cost;
        primary.pending_bytes = primary.pending_bytes.saturating_sub(cost);
        keys.push((next.client, next.session, next.number));
        requests.extend(primary.pending.pop_front());
    }
    (requests, keys)
}
