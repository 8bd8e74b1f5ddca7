//! The pacemaker: when a replica enters a view, and when it gives a leader up. As Jolteon's (§4), with one change: a timeout is for the
//! last view of the leader's term, and ends the whole term.
//!
//! Guarantees that a view is entered only with a certificate that the one before is over, by votes or by timeouts of a
//! quorum; and that, once messages arrive in time, all correct replicas meet in the term of a correct leader.

use super::message::{Message, Qc, Tc, Timeout, TimeoutCertificate};
use super::replica::Replica;
use super::{Outbox, Timer};
use quorate_core::crypto::Verified;
use quorate_core::fault::Why;
use quorate_core::ids::{OpNumber, Peer, ReplicaId, View};
use quorate_core::mutated;
use quorate_core::outbox::Note;
use quorate_core::time::Duration;

/// Patience after so many attempts since the last commit, in halves: it grows by a half each time, to eight times its length at
/// most. A group whose faults have lasted for long would otherwise wait that much longer for each term of a replica that is
/// still away (ADR 022).
const PATIENCE_HALVES: [u32; 7] = [2, 3, 4, 7, 10, 15, 16];
/// Bytes of waiting requests that are passed on to a new leader at once. Clients send the others again.
const PASSED_ON_BYTES_MAX: usize = 1 << 20;

/// What a replica waits for: while there is such a thing, a timer runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Concern {
    /// The request that has waited longest, by its place in the order of arrival; and the last block with requests that was
    /// executed, if the leader's machine builds them: then that counts, for requests may wait while it works.
    Request(u64, OpNumber),
    /// The lowest block with requests that is not committed.
    Block(OpNumber),
}

impl Replica {
    /// How long this replica waits for what concerns it.
    pub(super) fn patience(&self) -> Duration {
        let halves = PATIENCE_HALVES.get(self.attempts).or(PATIENCE_HALVES.last()).copied().unwrap_or(2);
        self.config.timeout.saturating_mul(halves) / 2
    }

    fn concerned(&self) -> Option<Concern> {
        let open = || self.tree.open().filter(|(_, block)| !block.payload.is_empty());
        let lowest = || open().map(|(_, block)| block.header.height).min();
        let done = if self.config.runs_ahead() { self.machine.worked } else { OpNumber::ZERO };
        self.pool.oldest().map(|place| Concern::Request(place, done)).or_else(|| lowest().map(Concern::Block))
    }

    /// Keeps the timer on what has waited longest.
    pub(super) fn watch(&mut self, out: &mut Outbox) {
        let concern = self.concerned();
        if concern == self.concern {
            return;
        }
        self.concern = concern;
        match concern {
            Some(_) => out.arm(Timer::Progress, self.patience()),
            None => out.disarm(Timer::Progress),
        }
    }

    /// It has waited too long.
    pub(super) fn on_progress(&mut self, out: &mut Outbox) {
        if self.concern.take().is_none() {
            return;
        }
        out.note(Note::Suspects(self.view()));
        self.attempts = self.attempts.saturating_add(1);
        self.time_out(self.config.term_end(self.view()), out);
        self.expect_progress(out);
    }

    /// ⟨TIMEOUT v, qc_high⟩: votes in no view up to this one any more.
    pub(super) fn time_out(&mut self, view: View, out: &mut Outbox) {
        if !self.may_vote() || self.safety.timeout.is_some_and(|timeout| timeout.view >= view) {
            return;
        }
        let timeout = Timeout { view, high: self.high.view() };
        self.safety.timeout = Some(timeout);
        if !mutated!("hotstuff/votes-after-a-timeout") {
            self.safety.voted = self.safety.voted.max(view);
        }
        self.dirty = true;
        self.own_timeout = None;
        out.note(Note::ViewChange(view.next()));
        let timeout = self.keyring.sign(timeout);
        out.broadcast(Message::Timeout { timeout: timeout.clone(), justify: self.high.justify() });
        out.send(self.me(), Message::Timeout { timeout, justify: self.high.justify() });
        self.expect_progress(out);
    }

    /// ⟨TIMEOUT v, qc_high⟩, one's own included: it comes back when it is on disk.
    pub(super) fn on_timeout(&mut self, from: ReplicaId, timeout: Verified<Timeout>, qc: Qc, out: &mut Outbox) {
        let (by, it) = (timeout.by(), *timeout.statement());
        if !mutated!("hotstuff/two-chains-without-timeouts") {
            self.on_qc(&qc, out);
        }
        if it.view < self.view() {
            if from != self.me && self.admits(from, out) {
                out.send(Peer::Replica(from), self.new_view()); // it does not know how we got here
            }
            return out.ignore(Peer::Replica(by), Why::OldView);
        }
        if by == self.me {
            self.own_timeout = Some(timeout.signed().clone());
        }
        match self.timeouts.get(&by) {
            Some(known) if known.statement() == &it => return out.ignore(Peer::Replica(by), Why::Duplicate),
            Some(known) if known.statement().view > it.view => return out.ignore(Peer::Replica(by), Why::OldView),
            _ => {}
        }
        self.timeouts.insert(by, timeout);
        // f + 1 have given up: one of them is correct. And whom the leader itself leaves, nobody has to wait for.
        let later = self.timeouts.values().map(|it| it.statement().view).filter(|view| *view >= self.view());
        let vouched = self.quorums.vouched(later);
        let left = (by == self.leader(self.view())).then(|| self.config.term_end(self.view()));
        if let Some(view) = vouched.max(left) {
            self.time_out(view, out);
        }
        if let Some(tc) = self.certify_timeout(it.view) {
            self.on_tc(tc, out);
            self.propose_more(out);
        }
        self.expect_progress(out);
    }

    /// TC: a quorum has given this view up.
    fn certify_timeout(&self, view: View) -> Option<Tc> {
        let quorum = self.quorums.quorum() - usize::from(mutated!("hotstuff/timeouts-of-one-less"));
        let alike = self.timeouts.values().filter(|it| it.statement().view == view);
        let timeouts: Vec<_> = alike.take(quorum).map(|it| it.signed().clone()).collect();
        if timeouts.len() < quorum { None } else { TimeoutCertificate::claimed(timeouts).certified(quorum).ok() }
    }

    /// A view is over without a block.
    pub(super) fn on_tc(&mut self, tc: Tc, out: &mut Outbox) {
        let view = tc.view();
        if view < self.view() {
            return;
        }
        self.safety.tc = Some(tc.certificate().clone());
        self.tc = Some(tc);
        self.dirty = true;
        self.enter(view.next(), out);
        let leader = self.leader(self.view());
        if leader != self.me {
            out.send(Peer::Replica(leader), self.new_view());
        }
    }

    /// ⟨NEW-VIEW qc_high, tc⟩: certificates, whoever sends them.
    pub(super) fn on_new_view(&mut self, from: ReplicaId, qc: Qc, tc: Option<Tc>, out: &mut Outbox) {
        let before = self.place();
        self.on_qc(&qc, out);
        if let Some(tc) = tc {
            self.on_tc(tc, out);
        }
        if self.place() == before {
            return out.ignore(Peer::Replica(from), Why::Duplicate);
        }
        if !self.tree.contains(self.high.block()) && !self.awaits_blocks() {
            self.ask(from, out);
        }
        self.propose_more(out);
        self.watch(out);
        self.expect_progress(out);
    }

    /// The view before is over.
    pub(super) fn enter(&mut self, view: View, out: &mut Outbox) {
        if view <= self.view() {
            return;
        }
        let other_term = self.config.term(view) != self.config.term(self.view());
        self.safety.view = view;
        self.dirty = true;
        (self.seen, self.proposed) = (None, None);
        if self.early.as_ref().is_some_and(|it| it.header.statement().view < view) {
            self.early = None;
        }
        self.timeouts.retain(|_, it| it.statement().view >= view);
        if self.own_timeout.as_ref().is_some_and(|it| it.statement().view < view) {
            self.own_timeout = None;
        }
        if other_term {
            self.enter_term(out);
        }
    }

    /// Another one leads: what waits is its to propose, and what has lost waits again.
    fn enter_term(&mut self, out: &mut Outbox) {
        let (view, primary) = (self.view(), self.leader(self.view()));
        out.note(Note::ViewStarted { view, primary, op: self.committed() });
        self.concern = None;
        (self.tick_due, self.cued) = (false, false);
        out.disarm(Timer::Progress);
        self.drop_ahead(out);
        self.propose_losers_again();
        if primary != self.me {
            for group in self.pool.waiting(PASSED_ON_BYTES_MAX) {
                // What a client has signed may be passed on at once: it is the client's promise, not ours.
                let request = crate::pbft::Message::Request(group);
                out.send_unsynced(Peer::Replica(primary), Message::Client(request));
            }
        }
        self.watch(out);
        self.arm_tick(out);
    }

    /// What is not on the branch of the highest certificate may be proposed again.
    pub(super) fn propose_losers_again(&mut self) {
        if mutated!("hotstuff/what-has-lost-is-forgotten") {
            return;
        }
        self.pool.propose_again();
        let tip = self.proposed.as_ref().map_or(self.high.block(), |it| it.header.statement().id());
        let branch = self.tree.branch(tip).unwrap_or_default();
        for id in branch {
            if let Some(block) = self.tree.get(id) {
                self.pool.proposed(block.payload.orders());
            }
        }
        let given = self.tree.line(self.machine.executed, self.tree.head().block);
        for id in given {
            if let Some(block) = self.tree.get(id) {
                self.pool.proposed(block.payload.orders()); // committed, and not applied yet
            }
        }
        self.ahead.payloads().for_each(|orders| self.pool.proposed(orders));
    }
}
