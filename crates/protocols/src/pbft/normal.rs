//! Normal operation (Castro and Liskov §4.2): the primary proposes, a quorum prepares, a quorum commits, everybody executes
//! and answers.

use super::durable::Record;
use super::message::{Commit, Content, Group, Message, Orders, Prepare, Proposal, REQUESTS_MAX, Reply, Requests, Told};
use super::pool::{self, Added};
use super::replica::Replica;
use super::{Outbox, Timer};
use quorate_core::crypto::{ClientKey, Verified};
use quorate_core::fault::{Fault, Why};
use quorate_core::ids::{ClientId, OpNumber, Peer, ReplicaId, RequestNumber, SessionId, View};
use quorate_core::mutated;
use quorate_core::outbox::Note;
use quorate_core::sessions::{self, Outcome, Ruling};
use std::collections::BTreeMap;

/// Entries that the machine may have been given and not applied. More wait in the log.
const EXECUTING_MAX: u64 = 64;

/// PRE-PREPAREs above the high watermark, or of a view that has not started here, that are kept until that changes.
pub(super) const EARLY_ENTRIES_MAX: usize = 16;

type Rulings = Vec<(RequestNumber, Told<Ruling>)>;

/// Requests.
impl Replica {
    /// ⟨REQUEST o, t, c⟩ (§4.1, §4.2). Requests that were answered lately are answered again; those of long ago are ordered
    /// again: whoever applies them knows, and answers again. The client's signature makes it authentic to all or to none.
    ///
    /// What a replica passes on, only the primary takes (§4.1), and a backup that waits for something has told the primary of it:
    /// otherwise one liar could have the backups wait for what the primary never hears of.
    pub(super) fn on_request(&mut self, from: Peer, group: Verified<Requests, ClientKey>, out: &mut Outbox) {
        let client = group.statement().client;
        let relayed_by = self.relayed_by(from, &group.by());
        let group: Group = group.into_signed();
        let is_primary = self.is_active() && self.is_primary();
        if relayed_by.is_some() && !is_primary {
            return out.ignore(from, Why::NotPrimary);
        }
        // A replica passes on what it cannot answer (it may have restarted): that is ordered again, whoever could answer.
        let is_asked = matches!(from, Peer::Client(_));
        let answered = if is_asked { self.answer_again(&group, out) } else { Vec::new() };
        let is_answered = answered.len() == group.statement().requests.len();
        let is_mine = from == self.me(); // a protocol around this one waits for what the primary has (reception)
        let forward = relayed_by.is_none() && !is_mine && self.is_active() && !is_primary && !is_answered;
        let added = match relayed_by {
            // As much as one client may have: what that one asks of a backup alone is not dropped here.
            Some(by) => self.pool.relay(group.clone(), by, self.config.client_bytes, false),
            None => {
                // Inside another protocol the clients are the replicas: each has its share.
                let share = pool::share(self.config.pending_bytes, self.quorums.replicas());
                let of_one = if group.by().is_proxy() { share } else { usize::MAX };
                let limits = (self.config.pending_bytes, self.config.client_bytes.min(of_one));
                self.pool.add(group.clone(), |key| answered.contains(&key.2), limits)
            }
        };
        match added {
            Added::Full => {
                if relayed_by.is_none() {
                    // Promises nothing; the view is no secret.
                    out.send_unsynced(Peer::Client(client), Message::Busy { view: self.view });
                }
                return out.ignore(from, Why::Busy);
            }
            Added::Known if !forward => return out.ignore(from, Why::Duplicate),
            Added::Known | Added::New => {}
        }
        if forward || is_mine {
            self.pool.tell(&group);
        }
        if forward {
            // What a client has signed may be passed on at once: it is the client's promise, not ours.
            out.send_unsynced(Peer::Replica(self.primary()), Message::Request(group));
        }
        self.watch(out);
        self.propose_more(out);
    }

    /// The replica that passes on what another one has signed. Inside another protocol a replica asks for itself, too.
    fn relayed_by(&self, from: Peer, signer: &ClientKey) -> Option<ReplicaId> {
        let Peer::Replica(replica) = from else { return None };
        let is_own = signer.is_proxy() && self.keyring.proxy_of(replica).as_ref() == Some(signer);
        (replica != self.me && !is_own).then_some(replica)
    }

    /// Says again what the client may not have heard; returns which of the requests that answers.
    fn answer_again(&self, group: &Group, out: &mut Outbox) -> Vec<RequestNumber> {
        let it = group.statement();
        let is_full = it.full.is_none_or(|replica| replica == self.me);
        let mut answered = Vec::new();
        for (op, rulings) in self.answered.to(group) {
            answered.extend(rulings.iter().map(|(number, _)| *number));
            let rulings = rulings.into_iter().map(|(number, ruling)| (number, Told::new(ruling, is_full))).collect();
            let reply = Reply { view: self.view, op, session: it.session, rulings };
            out.send_unsynced(Peer::Client(it.client), Message::Reply(reply)); // as when it was executed
        }
        answered
    }

    /// For a protocol around this one, whose replicas ask for the same thing under one name: it is done, nobody waits for it.
    pub(crate) fn withdraw(
        &mut self,
        session: SessionId,
        numbers: impl Iterator<Item = RequestNumber>,
        out: &mut Outbox,
    ) {
        numbers.for_each(|number| self.pool.withdraw(session, number));
        self.watch(out);
    }

    /// Runs the timer while an authentic request waits, from its arrival (§4.4; a request of somebody else that is executed
    /// meanwhile does not stop it, or a primary could leave one client out for ever).
    pub(super) fn watch(&mut self, out: &mut Outbox) {
        self.pace.note(self.pool.oldest().is_some(), out.now());
        if !self.is_active() || self.is_primary() || !self.may_vote() {
            if self.watched.take().is_some() {
                out.disarm(Timer::Progress);
            }
            return;
        }
        let oldest = self.pool.oldest();
        if oldest == self.watched {
            return;
        }
        self.watched = oldest;
        match oldest {
            Some(_) if mutated!("pbft/nobody-suspects-the-primary") => {}
            Some(_) => {
                out.arm(Timer::Progress, self.patience());
                if let Some(group) = self.pool.tell_oldest() {
                    // It came when nobody led, or this replica did. As when a client asks.
                    out.send_unsynced(Peer::Replica(self.primary()), Message::Request(group));
                }
            }
            None => out.disarm(Timer::Progress),
        }
    }

    /// Makes entries while it makes sense: at once while few are under way, else when one is full. What waits meanwhile goes
    /// into one entry: disks and signatures set the pace, no timer.
    pub(super) fn propose_more(&mut self, out: &mut Outbox) {
        while self.is_active() && self.is_primary() && self.may_vote() && self.ready {
            let next = self.proposed.max(self.committed).next();
            let under_way = next.previous().since(self.committed);
            let (full, any) = self.pool.is_ready(self.config.batch_bytes);
            let sought = self.seeks_beyond(next);
            let something = any || self.tick_due || sought;
            let room = next <= self.high() && under_way < self.config.window();
            if !something || !room || !(full || under_way < self.config.in_flight_entries) {
                return;
            }
            let groups = self.pool.take(REQUESTS_MAX, self.config.batch_bytes);
            let tick = std::mem::take(&mut self.tick_due);
            if groups.is_empty() && !tick && !sought {
                return;
            }
            if tick {
                self.ticked = next;
            }
            self.batch_time = self.batch_time.max(out.wall());
            self.propose(next, Proposal::new(Content::Orders(Orders { time: self.batch_time, tick, groups })), out);
        }
    }

    /// ⟨PRE-PREPARE v, n, d⟩, m to the backups.
    fn propose(&mut self, op: OpNumber, proposal: Proposal, out: &mut Outbox) {
        let prepare = Prepare { view: self.view, op, digest: proposal.digest() };
        let vote = self.keyring.sign(prepare);
        self.proposed = op;
        // May overtake our own disk. The primary's vote is in it, and a power failure can make us forget it: therefore a
        // primary that restarts never votes in its view again (`recovery.rs::restore`). It counts itself only when the
        // same vote comes back durable.
        out.broadcast_unsynced(Message::PrePrepare { vote: vote.clone(), proposal: proposal.clone() });
        let slot = self.log.slot(op);
        slot.accepted = Some(prepare);
        slot.pre_prepare = Some(vote);
        slot.keep(proposal.clone());
        self.keep(op, Record::Proposal(op, proposal), out);
        self.vote(op, out);
        self.expect_progress(out);
    }

    /// The machine wants a tick, and the clock says that it is time: the next entry carries it. A backup that sees it missed
    /// for long suspects the primary.
    pub(super) fn on_tick(&mut self, out: &mut Outbox) {
        let Some(wake) = self.machine.wake else { return };
        if self.is_active() && !self.is_primary() && out.wall() >= wake.plus(self.config.clock_ahead) {
            out.note(Note::Suspects(self.view));
            return self.leave_view(self.view.next(), out);
        }
        self.arm_tick(out);
        self.propose_more(out);
    }

    pub(super) fn arm_tick(&mut self, out: &mut Outbox) {
        let Some(wake) = self.machine.wake.filter(|_| self.is_active()) else { return out.disarm(Timer::Tick) };
        if !self.is_primary() {
            // Clocks may differ by `clock_ahead`, and the primary needs a moment.
            let late = wake.plus(self.config.clock_ahead).since(out.wall());
            return out.arm(Timer::Tick, late.saturating_add(self.patience()));
        }
        if self.ticked > self.machine.executed {
            return; // it is ordered; the machine says what comes next when it has had it
        }
        if out.wall() >= wake {
            self.tick_due = true;
        } else {
            out.arm(Timer::Tick, wake.since(out.wall()));
        }
    }
}

/// The three phases.
impl Replica {
    /// ⟨PRE-PREPARE v, n, d⟩, m (§4.2).
    pub(super) fn on_pre_prepare(&mut self, vote: Verified<Prepare>, proposal: Proposal, out: &mut Outbox) {
        let (from, it) = (Peer::Replica(vote.by()), *vote.statement());
        let near = it.op > self.low() && it.op <= self.high().plus(self.config.window());
        if !self.is_active() && it.view == self.view && vote.by() == self.primary() && near {
            self.hold(vote, proposal); // it has overtaken its NEW-VIEW
            return out.ignore(from, Why::NotNow);
        }
        if let Some(why) = self.refuses_view(it.view) {
            return out.ignore(from, why);
        }
        if vote.by() != self.primary() {
            return out
                .blame(from, Fault::Contradiction(format!("it proposes in view {}, which it does not lead", it.view)));
        }
        if it.op > self.high() && near {
            self.hold(vote, proposal); // dropping it would cost a pause with a correct primary
            return out.ignore(from, Why::OutsideWindow);
        }
        if let Some(why) = self.refuses_op(it.op) {
            return out.ignore(from, why);
        }
        let slot = self.log.slot(it.op);
        let again = slot.accepted == Some(it);
        if mutated!("pbft/accepts-a-second-proposal") && !again {
            slot.leave_view();
        }
        if let Some(accepted) = slot.accepted.filter(|accepted| *accepted != it) {
            let earlier = slot.pre_prepare.clone().and_then(|earlier| earlier.verified().ok());
            let evidence = earlier.and_then(|earlier| quorate_core::crypto::Evidence::of(&earlier, &vote));
            let what = || format!("two proposals for view {}, entry {}", accepted.view, accepted.op);
            return out.blame(from, evidence.map_or_else(|| Fault::Contradiction(what()), Fault::from));
        }
        if !again && let Some(why) = self.refuses_content(it.op, &proposal, out) {
            return out.ignore(from, why);
        }
        self.accept(it.op, vote, Some(proposal), out);
    }

    /// Keeps a PRE-PREPARE that comes too early.
    fn hold(&mut self, vote: Verified<Prepare>, proposal: Proposal) {
        if self.early.len() < EARLY_ENTRIES_MAX {
            let op = vote.statement().op;
            self.early.entry(op).or_insert(Message::PrePrepare { vote: vote.into_signed(), proposal });
        }
    }

    /// Takes those that were too early, up to an entry.
    pub(super) fn take_early(&mut self, through: OpNumber, out: &mut Outbox) {
        let later = self.early.split_off(&through.next());
        for (_, message) in std::mem::replace(&mut self.early, later) {
            if let Message::PrePrepare { vote, proposal } = message
                && let Ok(vote) = vote.verified()
            {
                self.on_pre_prepare(vote, proposal, out);
            }
        }
    }

    /// What a correct primary does not propose, or not now.
    fn refuses_content(&self, op: OpNumber, proposal: &Proposal, out: &Outbox) -> Option<Why> {
        if self.log.get(op).is_some_and(|slot| slot.decided().is_some_and(|it| it != proposal.digest())) {
            return Some(Why::WrongChain); // something else is committed there
        }
        match &*proposal.content() {
            Content::Null(_) => Some(Why::NotNow), // only a new view fills gaps
            Content::Orders(orders) => (orders.time > out.wall().plus(self.config.clock_ahead)).then_some(Why::NotNow),
        }
    }

    /// Takes the primary's choice for an entry, and votes for it as soon as the proposal is here.
    pub(super) fn accept(
        &mut self,
        op: OpNumber,
        vote: Verified<Prepare>,
        proposal: Option<Proposal>,
        out: &mut Outbox,
    ) {
        let slot = self.log.slot(op);
        slot.accepted = Some(*vote.statement());
        slot.pre_prepare = Some(vote.signed().clone());
        if vote.by() != self.me
            && let Err(evidence) = slot.prepares.add(vote)
        {
            return self.convict(evidence, out);
        }
        if let Some(proposal) = proposal.filter(|it| slot.proposal(it.digest()).is_none()) {
            slot.keep(proposal.clone());
            let is_decided = slot.decided() == Some(proposal.digest());
            self.keep(op, Record::Proposal(op, proposal), out);
            if is_decided {
                self.advance(out); // a quorum's commits overtook it
            }
        }
        self.vote(op, out);
        self.check_prepared(op, out);
        self.expect_progress(out);
    }

    /// ⟨PREPARE v, n, d, i⟩, once for each view and entry, for something that is here, and never before it is on disk.
    pub(super) fn vote(&mut self, op: OpNumber, out: &mut Outbox) {
        let (is_primary, me) = (self.is_primary(), self.me());
        if !self.may_vote() {
            return;
        }
        let Some(slot) = self.log.get_mut(op) else { return };
        let Some(accepted) = slot.accepted.filter(|it| slot.voted.is_none() && slot.proposal(it.digest).is_some())
        else {
            return;
        };
        slot.voted = Some(accepted);
        if !mutated!("pbft/vote-is-not-durable") {
            self.keep(op, Record::Prepare(accepted), out);
        }
        let vote = self.keyring.sign(accepted);
        if !is_primary && mutated!("pbft/prepare-before-the-sync") {
            out.broadcast_unsynced(Message::Prepare(vote.clone()));
        } else if !is_primary {
            out.broadcast(Message::Prepare(vote.clone())); // the primary's is its PRE-PREPARE
        }
        out.send(me, Message::Prepare(vote));
    }

    /// ⟨PREPARE v, n, d, i⟩, one's own included: it comes back when it is on disk.
    pub(super) fn on_prepare(&mut self, vote: Verified<Prepare>, out: &mut Outbox) {
        let (from, it) = (Peer::Replica(vote.by()), *vote.statement());
        if let Some(why) = self.refuses_view(it.view).or_else(|| self.refuses_op(it.op)) {
            return out.ignore(from, why); // also our own, from before a view change
        }
        let is_own = vote.by() == self.me;
        let signed = vote.signed().clone();
        let slot = self.log.slot(it.op);
        if let Err(evidence) = slot.prepares.add(vote) {
            return self.convict(evidence, out);
        }
        if is_own {
            slot.own_prepare = Some(signed);
        }
        self.check_prepared(it.op, out);
    }

    /// prepared(m, v, n, i): a quorum has accepted what I have accepted, and hold. Then ⟨COMMIT v, n, d, i⟩.
    pub(super) fn check_prepared(&mut self, op: OpNumber, out: &mut Outbox) {
        let (quorum, view, me) = (self.quorums.quorum(), self.view, self.me());
        if !self.may_vote() {
            return;
        }
        let Some(slot) = self.log.get_mut(op) else { return };
        let Some(accepted) = slot.accepted.filter(|it| slot.voted == Some(*it) && !slot.is_prepared_in(view)) else {
            return;
        };
        let Some(certified) = slot.prepares.certify(&accepted, quorum) else { return };
        let certificate = certified.certificate().clone();
        slot.prepared = Some(certified);
        self.keyring.has_enough(&accepted);
        if !mutated!("pbft/certificate-is-not-durable") {
            self.keep(op, Record::Prepared(certificate), out);
        }
        let vote = self.keyring.sign(Commit { view, op, digest: accepted.digest });
        if mutated!("pbft/commit-before-the-sync") {
            out.broadcast_unsynced(Message::Commit(vote.clone()));
        } else {
            out.broadcast(Message::Commit(vote.clone()));
        }
        out.send(me, Message::Commit(vote));
        self.try_next(out);
    }

    /// ⟨COMMIT v, n, d, i⟩, one's own included.
    pub(super) fn on_commit(&mut self, vote: Verified<Commit>, out: &mut Outbox) {
        let (from, it) = (Peer::Replica(vote.by()), *vote.statement());
        if let Some(why) = self.refuses_view(it.view).or_else(|| self.refuses_op(it.op)) {
            return out.ignore(from, why);
        }
        let is_own = vote.by() == self.me;
        let (signed, quorum) = (vote.signed().clone(), self.quorums.quorum());
        let quorum = if mutated!("pbft/one-commit-is-enough") { 1 } else { quorum };
        let slot = self.log.slot(it.op);
        if let Err(evidence) = slot.commits.add(vote) {
            return self.convict(evidence, out);
        }
        if is_own {
            slot.own_commit = Some(signed);
        }
        if slot.committed.is_none()
            && let Some(certified) = slot.commits.certify(&it, quorum)
        {
            let certificate = certified.into_certificate();
            slot.committed = Some(certificate.clone());
            self.keyring.has_enough(&it);
            self.keep(it.op, Record::Committed(certificate), out);
            self.advance(out);
        }
        self.expect_progress(out);
    }

    /// committed-local(m, v, n, i) for one entry after the other (§4.2: executed in the order of their numbers).
    pub(super) fn advance(&mut self, out: &mut Outbox) {
        let before = self.committed;
        loop {
            let next = self.committed.next();
            let chain = self.log.get(self.committed).and_then(|slot| slot.chain);
            let chain = if self.committed == self.base.0 { Some(self.base.1) } else { chain };
            let Some(slot) = self.log.get_mut(next) else { break };
            let Some(digest) = slot.decided().filter(|digest| slot.proposal(*digest).is_some()) else { break };
            slot.chain = chain.map(|chain| super::log::chained(chain, digest));
            if slot.chain.is_none() {
                slot.chain = self.stable.as_ref().filter(|it| it.statement().op == next).map(|it| it.statement().chain);
            }
            self.committed = next;
        }
        if self.committed > before {
            self.attempts = 0;
            self.proposed = self.proposed.max(self.committed);
            out.note(Note::Committed(self.committed));
        }
        self.dispatch(out);
        self.propose_more(out);
    }

    /// Gives the machine what is committed, and asks for a snapshot where one is due.
    pub(super) fn dispatch(&mut self, out: &mut Outbox) {
        while self.machine.dispatched < self.committed
            && self.machine.dispatched.since(self.machine.executed) < EXECUTING_MAX
            && self.machine.fetching.is_none()
        {
            let op = self.machine.dispatched.next();
            let slot = self.log.get(op);
            let Some(proposal) = slot.and_then(|slot| slot.proposal(slot.decided()?)).cloned() else { return };
            let bytes = proposal.len() as u64;
            self.give(op, &proposal, out);
            self.machine.dispatched = op;
            self.machine.boundary_bytes = self.machine.boundary_bytes.saturating_add(bytes);
            let entries = op.since(self.machine.boundary);
            if entries >= self.config.state_entries || self.machine.boundary_bytes >= self.config.state_bytes {
                (self.machine.boundary, self.machine.boundary_bytes) = (op, 0);
                out.checkpoint(op);
            }
        }
        self.try_next(out);
    }

    /// An entry is executed: its requests are answered, and what waited for it goes on.
    pub(super) fn executed(&mut self, op: OpNumber, outcome: Outcome, out: &mut Outbox) {
        self.machine.executed = op;
        self.machine.wake = outcome.wake;
        let requests = self.answer(op, outcome.replies, out);
        self.vote_checkpoint(op, out);
        self.dispatch(out);
        self.answer_reads(out);
        self.watch(out);
        self.arm_tick(out);
        self.propose_more(out);
        self.keeps_up(requests, out);
        self.expect_progress(out);
    }

    /// ⟨REPLY v, t, c, i, r⟩ (§4.2), to each session of the entry one. Returns how many requests the entry had.
    fn answer(&mut self, op: OpNumber, replies: Vec<sessions::Reply>, out: &mut Outbox) -> u64 {
        let slot = self.log.get_mut(op);
        let content = slot.and_then(|slot| slot.unpack(slot.decided()?)); // its bytes are enough from now on
        let Some(Content::Orders(orders)) = content.as_deref() else { return 0 };
        let (pool, answered, mut requests) = (&mut self.pool, &mut self.answered, 0_u64);
        let replies = replies_to(orders, (self.me, self.view, op), replies, |group, rulings| {
            let of = (group.client, group.session);
            for (number, _) in &group.requests {
                requests = requests.saturating_add(1);
                pool.executed((group.client, group.session, *number));
            }
            if group.session != SessionId::ZERO {
                answered.give(of, group.acknowledged, op, rulings.iter().map(|(number, ruling)| (*number, ruling)));
            }
        });
        for (client, reply) in replies {
            // Follows from what a quorum has on its disks; nothing in it is a promise of ours alone.
            out.send_unsynced(Peer::Client(client), Message::Reply(reply));
        }
        requests
    }
}

/// ⟨REPLY v, t, c, i, r⟩ by i in v, to each session of an entry one, from what the machine says to its requests; shows each
/// group, and what is said to it.
pub(super) fn replies_to(
    orders: &Orders,
    (me, view, op): (ReplicaId, View, OpNumber),
    replies: Vec<sessions::Reply>,
    mut of_group: impl FnMut(&Requests, &[(RequestNumber, Ruling)]),
) -> Vec<(ClientId, Reply)> {
    let mut replies = replies.into_iter().peekable(); // in the order of the requests, one for each at most
    let mut told: BTreeMap<(ClientId, SessionId), Rulings> = BTreeMap::new();
    for group in orders.groups.iter().map(Group::statement) {
        let of = (group.client, group.session);
        let mut rulings = Vec::with_capacity(group.requests.len());
        for (number, _) in &group.requests {
            let is_its = |it: &sessions::Reply| ((it.client, it.session), it.number) == (of, *number);
            rulings.extend(replies.next_if(is_its).map(|reply| (*number, reply.ruling)));
        }
        of_group(group, &rulings);
        let is_full = group.full.is_none_or(|replica| replica == me);
        let rulings = rulings.into_iter().map(|(number, ruling)| (number, Told::new(ruling, is_full)));
        told.entry(of).or_default().extend(rulings);
    }
    let reply = |((client, session), rulings)| (client, Reply { view, op, session, rulings });
    told.into_iter().filter(|(_, rulings)| !rulings.is_empty()).map(reply).collect()
}
