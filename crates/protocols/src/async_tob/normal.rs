//! Requests, lanes, execution: what goes on all the time, whatever epoch it is.

use super::durable::Record;
use super::lanes::{LANE_BATCHES_MAX, LANE_BYTES_MAX, OWN_BATCHES_MAX, OWN_BYTES_MAX};
use super::message::{Ack, Batch, Link, Message, Payload};
use super::replica::Replica;
use super::{Outbox, Timer};
use crate::pbft::pool::Added;
use crate::pbft::{self, Group, REQUESTS_MAX, Requests};
use crate::quorum_client;
use quorate_core::crypto::{Certificate, Certified, ClientKey, Evidence, Verified};
use quorate_core::fault::{Fault, Why};
use quorate_core::ids::{OpNumber, Peer, ReplicaId, View};
use quorate_core::mutated;
use quorate_core::sessions::{self, Outcome};
use quorate_core::time::Duration;
use quorate_core::wire::Wire;

/// Epochs that the machine may have been given and not applied. More wait in the log.
const EXECUTING_MAX: u64 = 16;
/// The pause before another epoch is begun for a tick that the last one was too early for: clocks differ.
const TICK_AGAIN: Duration = Duration::from_millis(50);

/// Requests.
impl Replica {
    /// A client wants these ordered: they go into my lane. Those that are in a certified batch of any lane, or wait here, are
    /// on their way already. What was executed before is ordered again: whoever applies it knows, and answers again.
    pub(super) fn on_request(&mut self, from: Peer, group: Verified<Requests, ClientKey>, out: &mut Outbox) {
        let client = group.statement().client;
        let limits = (self.config.pending_bytes, self.config.client_bytes);
        match self.pool.add(group.into_signed(), limits) {
            Added::Full => {
                let busy = pbft::Message::Busy { view: View::ZERO };
                out.send_unsynced(Peer::Client(client), Message::Client(busy)); // promises nothing
                out.ignore(from, Why::Busy);
            }
            Added::Known => out.ignore(from, Why::Duplicate),
            Added::New => self.fill_lane(out),
        }
    }

    /// Makes batches while it makes sense: at once while few are under way, else when one is full. What waits meanwhile goes
    /// into one batch: disks and signatures set the pace, no timer.
    pub(super) fn fill_lane(&mut self, out: &mut Outbox) {
        while self.may_speak(self.committed().next()) {
            let (full, any) = self.pool.waiting.is_ready(self.config.batch_bytes);
            let Some(lane) = self.lane(self.me) else { return };
            let (batches, bytes) = lane.pending();
            let room = batches < OWN_BATCHES_MAX && (bytes < OWN_BYTES_MAX || batches == 0);
            if !any || !room || !(full || self.uncertified.len() < self.config.in_flight_batches) {
                return;
            }
            let parent = lane.last();
            let groups = self.pool.waiting.take(REQUESTS_MAX, self.config.batch_bytes);
            if groups.is_empty() {
                return;
            }
            let height = parent.height.max(self.floor).saturating_add(1);
            let payload = Payload::new(groups);
            let link = self.keyring.sign(Link { height, parent, payload: payload.digest() });
            self.extend_lane(Batch { link, payload }, out);
        }
    }

    /// ⟨Batch i, h, parent, payload⟩ to all, when it is on my disk: a lane never forks.
    fn extend_lane(&mut self, batch: Batch, out: &mut Outbox) {
        let head = batch.head();
        let seq = self.persist(Record::Batch(batch.clone(), true), out);
        self.uncertified.add(head.height);
        let (me, ack) = (self.me(), self.keyring.sign(Ack { lane: self.me, head }));
        let Some(lane) = self.lane_mut(self.me) else { return };
        lane.hold(batch.clone());
        lane.recorded(head, seq);
        lane.ack(head);
        let certificate = lane.certified.clone();
        out.broadcast(Message::Batch { batch, certificate });
        out.send(me, Message::Ack(ack)); // comes back when it is on disk
        self.expect_progress(out);
    }
}

/// Lanes.
impl Replica {
    /// ⟨Batch i, h, parent, payload⟩ of any lane, from its owner or from whoever was asked for it.
    pub(super) fn on_batch(
        &mut self,
        from: ReplicaId,
        batch: Batch,
        certificate: Option<Certificate<Ack>>,
        out: &mut Outbox,
    ) -> Result<(), Fault> {
        batch.link.clone().verified()?;
        if let Some(certificate) = certificate {
            self.learn(certificate.certified(self.quorums.quorum())?);
        }
        let (owner, head, sender) = (batch.lane(), batch.head(), Peer::Replica(from));
        if self.catch_up.wanted == Some((owner, head)) {
            self.take_wanted(batch, out);
            return Ok(());
        }
        if let Some(why) = self.refuses_batch(&batch, from, out) {
            out.ignore(sender, why);
            self.begin(out); // the certificate may be new
            return Ok(());
        }
        let Some(lane) = self.lane_mut(owner) else { return Ok(()) };
        lane.hold(batch);
        self.ack_more(owner, out);
        self.ask_below(from, owner, head, out);
        self.begin(out);
        Ok(())
    }

    /// What is known, too low, a lie or too much.
    fn refuses_batch(&self, batch: &Batch, from: ReplicaId, out: &mut Outbox) -> Option<Why> {
        let (owner, head) = (batch.lane(), batch.head());
        let lane = self.lane(owner)?;
        if head.height <= lane.committed.height || owner == self.me {
            return Some(Why::Duplicate);
        }
        if let Some(acked) = lane.acked_at(head.height) {
            if acked == head {
                if from == owner {
                    // It has not heard of it. The acknowledgement waits for the disk, as the first one did.
                    out.send(Peer::Replica(owner), Message::Ack(self.keyring.sign(Ack { lane: owner, head })));
                }
            } else {
                let earlier = lane.batch(acked).and_then(|it| it.link.clone().verified().ok());
                let evidence = earlier.zip(batch.link.clone().verified().ok());
                self.convict(evidence.and_then(|(one, other)| Evidence::of(&one, &other)), out);
                return Some(Why::WrongChain);
            }
            return Some(Why::Duplicate);
        }
        let (batches, bytes) = lane.pending();
        if lane.holds(head) {
            return Some(Why::Duplicate);
        }
        // A lane that runs away is not acknowledged: it cannot fill disks, nor memory.
        (batches >= LANE_BATCHES_MAX || bytes >= LANE_BYTES_MAX).then_some(Why::Busy)
    }

    /// ⟨Ack i, h, d⟩ for all batches that can be acknowledged now, once for each height, when they are on disk.
    pub(super) fn ack_more(&mut self, owner: ReplicaId, out: &mut Outbox) {
        if self.silent.is_some() || owner == self.me {
            return;
        }
        while let Some(lane) = self.lane_mut(owner)
            && let Some(head) = lane.to_ack()
            && let Some(batch) = lane.batch(head).cloned()
        {
            lane.ack(head);
            if !mutated!("async-tob/acknowledges-without-keeping") {
                let seq = self.persist(Record::Batch(batch, true), out);
                if let Some(lane) = self.lane_mut(owner) {
                    lane.recorded(head, seq);
                }
            }
            out.send(Peer::Replica(owner), Message::Ack(self.keyring.sign(Ack { lane: owner, head })));
        }
    }

    /// Something below a batch is missing: its owner is asked, once until the resend timer rings.
    fn ask_below(&mut self, from: ReplicaId, owner: ReplicaId, head: super::Head, out: &mut Outbox) {
        let Some(lane) = self.lane_mut(owner) else { return };
        let Some(parent) = lane.batch(head).map(Batch::parent).filter(|it| !lane.is_grounded(*it)) else { return };
        if from != owner || lane.asked || lane.holds(parent) {
            return;
        }
        lane.asked = true;
        let above = lane.committed.height;
        out.send_unsynced(Peer::Replica(from), Message::GetChain { lane: owner, head: parent, above }); // a question
    }

    /// ⟨Ack i, h, d⟩, one's own included. A quorum of them is a certificate, for everything below, too.
    pub(super) fn on_ack(&mut self, ack: Verified<Ack>, out: &mut Outbox) {
        let (by, it, quorum) = (ack.by(), *ack.statement(), self.quorums.quorum());
        let acked = self.lane(self.me).and_then(|lane| lane.acked_at(it.head.height));
        if it.lane != self.me || acked != Some(it.head) {
            return out.ignore(Peer::Replica(by), Why::NotForSender);
        }
        let Some(acks) = self.uncertified.get_mut(it.head.height) else {
            return out.ignore(Peer::Replica(by), Why::Duplicate);
        };
        acks.insert(by, ack);
        if let Some(certified) = Certified::assemble(acks.values(), &it, quorum) {
            self.uncertified.forget(it.head.height);
            self.learn(certified);
            self.progress = self.progress.wrapping_add(1);
            self.begin(out);
            self.fill_lane(out);
        }
    }

    /// What is committed of my lane was certified, perhaps by acknowledgements that a former life has collected: it keeps no
    /// new batch waiting.
    pub(super) fn forget_certified(&mut self) {
        if mutated!("async-tob/waits-for-what-is-committed") {
            return;
        }
        let committed = self.lane(self.me).map_or(0, |lane| lane.committed.height);
        self.uncertified.forget(committed);
    }

    /// A lane is certified up to here: its requests are on their way, whatever its owner does.
    pub(super) fn learn(&mut self, certified: Certified<Ack>) {
        let it = *certified.statement();
        let Some(lane) = self.lanes.get_mut(it.lane.index()) else { return };
        let from = lane.certified_height().max(lane.committed.height);
        if lane.certify(certified.into_certificate()) {
            for batch in lane.known(it.head, from) {
                let groups = batch.payload.groups().iter();
                groups.for_each(|group| self.pool.note(it.lane, batch.height(), group));
            }
        }
    }
}

/// Execution.
impl Replica {
    /// Gives the machine what is committed, and asks for a snapshot where one is due.
    pub(super) fn dispatch(&mut self, out: &mut Outbox) {
        while self.machine.dispatched < self.committed()
            && self.machine.dispatched.since(self.machine.executed) < EXECUTING_MAX
            && self.machine.fetching.is_none()
        {
            let op = self.machine.dispatched.next();
            let Some(batches) = self.batches(op) else { return };
            let Some(decided) = self.decided_at(op) else { return };
            let groups = batches.iter().flat_map(|batch| batch.payload.groups());
            let requests = quorum_client::replica::requests(groups.map(Group::statement));
            // The machine looks by itself whether it is time for the tick that it wants: agreed time decides.
            let batch = sessions::Batch { time: decided.time, tick: true, requests };
            let bytes: u64 = batches.iter().map(|batch| batch.payload.len() as u64).sum();
            self.machine.dispatched = op;
            out.execute(op, batch.encode().into());
            self.machine.boundary_bytes = self.machine.boundary_bytes.saturating_add(bytes);
            let epochs = op.since(self.machine.boundary);
            if epochs >= self.config.state_epochs || self.machine.boundary_bytes >= self.config.state_bytes {
                (self.machine.boundary, self.machine.boundary_bytes) = (op, 0);
                out.checkpoint(op);
            }
        }
    }

    /// What an epoch orders, in its order: one batch of each lane in turn, the lane that begins changes with the epoch.
    pub(super) fn batches(&self, op: OpNumber) -> Option<Vec<&Batch>> {
        let (before, after) = (self.decided_at(op.previous())?, self.decided_at(op)?);
        let mut chains = Vec::new();
        for (lane, (before, after)) in self.lanes.iter().zip(before.heads.iter().zip(&after.heads)) {
            chains.push(lane.chain(*after, before.height).ok()?); // the highest first
        }
        let n = self.quorums.replicas() as u64;
        let first = if mutated!("async-tob/own-lane-first") { u64::from(self.me.get()) } else { op.get() % n };
        chains.rotate_left(usize::try_from(first).unwrap_or(0));
        let mut merged = Vec::new();
        while chains.iter().any(|chain| !chain.is_empty()) {
            merged.extend(chains.iter_mut().filter_map(Vec::pop));
        }
        Some(merged)
    }

    /// Answers, and what follows from an execution.
    pub(super) fn executed(&mut self, op: OpNumber, outcome: Outcome, out: &mut Outbox) {
        self.machine.executed = op;
        self.machine.wake = outcome.wake;
        let batches = self.batches(op).unwrap_or_default();
        let groups = batches.iter().flat_map(|batch| batch.payload.groups()).map(Group::statement);
        let full = quorum_client::replica::in_full(groups);
        for (client, reply) in quorum_client::replica::replies((self.me, View::ZERO, op), &full, outcome.replies) {
            // Follows from what a quorum has on its disks; nothing in it is a promise of ours alone.
            out.send_unsynced(Peer::Client(client), Message::Client(reply));
        }
        for key in full.into_keys() {
            self.pool.waiting.executed(key);
        }
        let heads = self.decided_at(op).map(|decided| decided.heads.clone()).unwrap_or_default();
        for (lane, head) in self.quorums.members().zip(heads) {
            self.pool.settle(lane, head.height);
        }
        self.dispatch(out);
        self.answer_reads(out);
        self.arm_tick(out);
        self.fill_lane(out);
        self.expect_progress(out);
    }

    /// The machine wants a tick, and my clock says that it is time: an epoch is begun, also if it orders nothing.
    pub(super) fn on_tick(&mut self, out: &mut Outbox) {
        if self.machine.wake.is_some_and(|wake| wake <= out.wall()) {
            self.tick_due = true;
            self.begin(out);
            self.expect_progress(out);
        } else {
            self.arm_tick(out);
        }
    }

    pub(super) fn arm_tick(&mut self, out: &mut Outbox) {
        match self.machine.wake {
            None => {
                self.tick_due = false;
                out.disarm(Timer::Tick);
            }
            Some(wake) => out.arm(Timer::Tick, wake.since(out.wall()).max(TICK_AGAIN)),
        }
    }
}
