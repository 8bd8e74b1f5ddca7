//! Views settle what an asynchronous moment left undecided: outputs that differ, too few that confirm. While the model is kept
//! this never happens, and view zero lasts for ever.
//!
//! Guarantees that a block that is committed anywhere stays in the chain of every later view: a quorum holds a certificate of
//! it, or of a later one, on its disks; every quorum of view changes holds one correct replica of that quorum. In one view
//! all certificates are on one chain, since whoever votes follows its last vote, or a certificate that contradicts it; so the
//! certificate of the highest view, and in it of the highest epoch, has everything that is committed below it.
//!
//! Where `f` liars and one correct replica are a quorum, that is not enough, and time has to help (`docs/adr/033-sync-tob-gaps-and-views.md`):
//! whoever hears how a view starts passes it on, and waits two rounds before it believes it. By then everybody who is correct has left the view
//! before and has said what is certified there; a start that lacks it is refused, and so are two starts of one view.

use super::durable::Record;
use super::log::{Link, chained};
use super::message::{Message, NewView, ViewChange};
use super::recovery::START_BYTES;
use super::replica::{Beginning, Phase, Replica};
use super::schedule::EpochNumber;
use super::{Outbox, Timer};
use quorate_core::crypto::{Certificate, Digest, Signed, Verified};
use quorate_core::fault::{Fault, Why};
use quorate_core::ids::{OpNumber, Peer, ReplicaId, View};
use quorate_core::mutated;
use quorate_core::outbox::Note;
use quorate_core::time::Duration;
use std::collections::BTreeMap;

/// Patience is doubled so often at most: eight times. Replicas that waited differently long before meet again within that.
const DOUBLINGS_MAX: u32 = 3;
/// Patience, in windows of a broadcast: an output takes one to appear, and a few rounds to be confirmed.
const PATIENCE_WINDOWS: u32 = 5;
/// A view does not begin so far ahead of one's own clock.
const FIRST_AHEAD: Duration = Duration::from_secs(10);

/// What a view starts with.
pub(super) struct Selected {
    /// The last block that is committed for certain: number, epoch, chain.
    pub(super) base: (OpNumber, EpochNumber, Digest),
    /// The blocks after it.
    pub(super) links: Vec<Link>,
}

impl Selected {
    /// The last block of the chain.
    pub(super) fn tip(&self) -> (OpNumber, Digest) {
        self.links.last().map_or((self.base.0, self.base.2), |link| (link.op, link.chain))
    }
}

/// View and epoch of the certificate that a view change shows beyond what it shows to be committed.
fn certified(change: &ViewChange) -> Option<(View, EpochNumber)> {
    change.certified.as_ref().map(|it| (it.statement().view, it.statement().epoch))
}

/// View and epoch of the highest certificate that a view change proves: a commit is one, too, and whoever has it
/// often shows no other. Without it, a certificate of a lower view that lost would win against a block that is committed.
fn rank(change: &ViewChange) -> Option<(View, EpochNumber)> {
    if mutated!("sync-tob/commits-do-not-rank") {
        return certified(change);
    }
    let committed = change.committed.as_ref().map(|it| (it.statement().view, it.statement().epoch));
    certified(change).max(committed)
}

/// The chain that follows from a quorum's view changes: where the highest certificate leads, be it of votes or of a commit. `None`
/// if they contradict each other, for which it takes more liars than the group tolerates.
pub(super) fn select<'a>(changes: impl Iterator<Item = &'a ViewChange> + Clone) -> Option<Selected> {
    let base = changes.clone().map(ViewChange::base).max_by_key(|base| base.0)?;
    let any = mutated!("sync-tob/any-certificate-wins");
    let best = if any { changes.min_by_key(|change| rank(change)) } else { changes.max_by_key(|change| rank(change)) }?;
    let (mut op, _, mut chain) = best.base();
    let mut links = Vec::new();
    // What was certified in a lower view than the commit before it follows from nothing any more.
    for (epoch, block) in best.links.iter().filter(|_| certified(best) == rank(best)) {
        op = op.next();
        chain = chained(chain, op, *epoch, *block);
        let link = Link { op, epoch: *epoch, block: *block, chain };
        if op == base.0 && chain != base.2 {
            return None;
        }
        if op > base.0 {
            links.push(link);
        }
    }
    (op >= base.0).then_some(Selected { base, links })
}

impl Replica {
    /// How long this replica waits for a confirmation: doubled for each view that brought nothing.
    pub(super) fn patience(&self) -> Duration {
        self.schedule.window().saturating_mul(PATIENCE_WINDOWS).saturating_mul(1 << self.attempts.min(DOUBLINGS_MAX))
    }

    /// Runs the timer while something waits to be confirmed, or to be ordered: with f + 1 leaders one after the other, what
    /// everybody has does not wait for long.
    pub(super) fn watch(&mut self, out: &mut Outbox) {
        if !self.waits() || !self.is_active() || self.silent {
            if self.watched.take().is_some() {
                out.disarm(Timer::Stuck);
            }
        } else if self.watched.is_none_or(|watched| self.committed > watched) {
            self.watched = Some(self.committed);
            out.arm(Timer::Stuck, self.patience());
        }
    }

    fn waits(&self) -> bool {
        self.log.tip().0 > self.committed || self.guard.is_at_risk() || self.can_order()
    }

    /// Is there something that a leader would order?
    fn can_order(&self) -> bool {
        let (mut order, any) = (self.order.clone(), quorate_core::time::WallTime::from_nanos(u64::MAX));
        !self.ucb.select(&mut order, self.quorums.vouch(), any, (1, u64::MAX)).is_empty()
    }

    /// What this replica had as an output is not confirmed, or nothing is ordered: the model was broken.
    pub(super) fn on_stuck(&mut self, out: &mut Outbox) {
        let Some(watched) = self.watched.take() else { return };
        if mutated!("sync-tob/nobody-gets-stuck") {
            return;
        }
        if !self.is_active() || !self.waits() {
            return;
        }
        let decides = self.log.tip().0 > self.committed || self.guard.is_at_risk();
        let clocks = self.reading(out) == super::clock::Reading::Synced;
        if self.is_behind() || self.machine.adrift || self.committed > watched || !(decides || clocks) {
            return self.watch(out); // it has to catch up, or clocks have to agree first
        }
        out.note(Note::Suspects(self.view));
        self.attempts = self.attempts.saturating_add(1);
        self.leave_view(self.view.next(), out);
    }

    /// A quorum wants the view, and nobody starts it.
    pub(super) fn on_new_view_late(&mut self, out: &mut Outbox) {
        if matches!(self.phase, Phase::Changing { quorum: true, .. }) {
            self.attempts = self.attempts.saturating_add(1);
            self.leave_view(self.view.next(), out);
        }
    }

    /// Votes for nothing of lower views from now on, and says what it has confirmed. A replica that may have forgotten what it
    /// has confirmed says nothing.
    pub(super) fn leave_view(&mut self, view: View, out: &mut Outbox) {
        assert!(view > self.view, "views only go up");
        if self.silent {
            return;
        }
        self.view = view;
        self.start = None;
        self.phase = Phase::Changing { quorum: false, beginning: Beginning::Nothing };
        self.own_change = None;
        self.end_view(out);
        out.disarm(Timer::NewView);
        out.disarm(Timer::Settle);
        out.note(Note::ViewChange(view));
        self.persist(Record::Left(view), out);
        self.change_again(out);
    }

    fn end_view(&mut self, out: &mut Outbox) {
        self.running.clear();
        self.votes.clear();
        self.commits.clear();
        (self.watched, self.due) = (None, None);
        for timer in [Timer::Stuck, Timer::Epoch, Timer::Output] {
            out.disarm(timer);
        }
    }

    /// Says what it has confirmed before the view that it changes to.
    pub(super) fn change_again(&mut self, out: &mut Outbox) {
        self.learn(out);
        let committed = self.proof();
        let base = committed.as_ref().map_or(OpNumber::ZERO, |it| it.statement().op);
        self.change_due = self.log.chain_at(base).is_none();
        if self.change_due {
            return self.ask_somebody(out); // it has fetched a state; what proves a later block is being asked for
        }
        let forgets = mutated!("sync-tob/view-change-forgets-what-is-certified");
        let certified = self.certified.as_ref().filter(|it| it.statement().op > base && !forgets);
        let last = certified.map_or(base, |it| it.statement().op);
        let links = self.log.after(base).take_while(|link| link.op <= last).map(|link| (link.epoch, link.block));
        let (links, certified) = (links.collect(), certified.map(|it| it.certificate().clone()));
        let change = self.keyring.sign(ViewChange { view: self.view, committed, certified, links });
        out.broadcast(Message::ViewChange(Box::new(change.clone())));
        out.send(self.me(), Message::ViewChange(Box::new(change)));
        self.expect_progress(out);
    }

    /// ⟨I have left all lower views⟩.
    pub(super) fn on_view_change(&mut self, from: ReplicaId, change: Verified<ViewChange>, out: &mut Outbox) {
        let (by, view) = (change.by(), change.statement().view);
        if view < self.view || (view == self.view && self.is_active()) {
            // Who says it itself has missed that the view has started; others may say it again long after.
            if from == by && by != self.me && view == self.view {
                if !self.quotas.admits(by, self.config.resend, out.now()) {
                    return out.ignore(Peer::Replica(by), Why::Busy);
                }
                self.quotas.spend(by, START_BYTES);
                self.tell_start(by, out);
            }
            return out.ignore(Peer::Replica(by), Why::OldView);
        }
        if by == self.me && view == self.view {
            self.own_change = Some(change.signed().clone());
        }
        if self.changes.get(&by).is_some_and(|known| known.statement().view >= view) {
            return out.ignore(Peer::Replica(by), Why::Duplicate);
        }
        self.changes.insert(by, change);
        // If f + 1 want higher views, one of them is correct.
        let higher = self.changes.values().map(|it| it.statement().view).filter(|view| *view > self.view);
        if higher.clone().count() >= self.quorums.vouch()
            && let Some(view) = higher.min()
        {
            self.leave_view(view, out);
        }
        self.weigh_changes(out);
        self.expect_progress(out);
    }

    /// With a quorum of view changes, the one who leads the view can start it, and has so long for it.
    fn weigh_changes(&mut self, out: &mut Outbox) {
        let Phase::Changing { quorum, ref mut beginning } = self.phase else { return };
        let wanted = self.changes.values().filter(|it| it.statement().view >= self.view).count();
        let here = self.changes.values().filter(|it| it.statement().view == self.view).count();
        if wanted < self.quorums.quorum() {
            return;
        }
        let leads = self.quorums.turn(self.view.get()) == self.me;
        let starts = leads && self.own_change.is_some() && here >= self.quorums.quorum();
        let gathers = starts && self.quorums.rests_on_time() && matches!(beginning, Beginning::Nothing);
        if gathers {
            *beginning = Beginning::Gathers;
            out.arm(Timer::Settle, self.schedule.round().saturating_mul(2));
        }
        if let Phase::Changing { quorum: wants, .. } = &mut self.phase
            && !quorum
        {
            *wants = true;
            out.arm(Timer::NewView, self.patience());
        }
        if starts && !self.quorums.rests_on_time() {
            self.start_view(out);
        }
    }

    /// ⟨the view starts with this⟩; its first epoch leaves time for everybody to hear of it.
    fn start_view(&mut self, out: &mut Outbox) {
        let view = self.view;
        let of_view = || self.changes.values().filter(|it| it.statement().view == view);
        // Those that have the most come first: nobody who knows of more would believe the others.
        let most =
            [of_view().max_by_key(|it| rank(it.statement())), of_view().max_by_key(|it| it.statement().base().0)];
        let mut changes = BTreeMap::new();
        for change in most.into_iter().flatten().chain(of_view()) {
            if changes.len() < self.quorums.quorum() {
                changes.insert(change.by(), change.signed().clone());
            }
        }
        if changes.len() < self.quorums.quorum() {
            return; // while this one gathered, some have moved on to a higher view
        }
        let changes = changes.into_values().collect();
        let rounds = if self.quorums.rests_on_time() { 4 } else { 2 };
        let soon = self.now(out).plus(self.schedule.round().saturating_mul(rounds));
        let first = self.schedule.epoch_at(soon).next();
        let start = self.keyring.sign(NewView { view, changes, first });
        if self.quorums.rests_on_time() {
            return self.weigh_start(self.me, start, out); // which passes it on, and waits
        }
        out.broadcast(Message::NewView(Box::new(start.clone())));
        if let Some(selected) = select(start.statement().changes.iter().map(Signed::statement)) {
            self.install(start, &selected, out);
        } else {
            self.contradicted(out);
        }
    }

    /// ⟨the view starts with this⟩: computed again from the view changes.
    pub(super) fn on_new_view(&mut self, from: ReplicaId, start: Verified<NewView>, out: &mut Outbox) {
        let (by, it) = (start.by(), start.statement());
        if it.view < self.view || (it.view == self.view && self.is_active()) {
            return out.ignore(Peer::Replica(from), Why::OldView);
        }
        if by != self.quorums.turn(it.view.get()) {
            let what = format!("it starts view {}, which it does not lead", it.view);
            return out.blame(Peer::Replica(by), Fault::Contradiction(what));
        }
        let ahead = self.now(out).plus(FIRST_AHEAD);
        if self.reading(out) == super::clock::Reading::Synced && self.schedule.start(it.first) > ahead {
            return out.ignore(Peer::Replica(by), Why::OutsideWindow);
        }
        let Some(selected) = select(it.changes.iter().map(Signed::statement)) else { return self.contradicted(out) };
        if self.quorums.rests_on_time() && !self.silent {
            return self.weigh_start(from, start.into_signed(), out);
        }
        self.view = it.view;
        self.install(start.into_signed(), &selected, out);
    }

    /// How the view starts, if nobody knows better within two rounds. Everybody is told, leaves the view before, and says what
    /// it has confirmed there.
    fn weigh_start(&mut self, from: ReplicaId, start: Signed<NewView>, out: &mut Outbox) {
        if start.statement().view > self.view {
            self.leave_view(start.statement().view, out);
        }
        let Phase::Changing { beginning, .. } = &mut self.phase else { return };
        match beginning {
            Beginning::Nothing | Beginning::Gathers => {
                *beginning = Beginning::Offered(Box::new(start.clone()));
                out.arm(Timer::Settle, self.schedule.round().saturating_mul(2));
                out.broadcast(Message::NewView(Box::new(start.clone())));
                for change in start.statement().changes.iter().filter_map(|it| it.clone().verified().ok()) {
                    let known = self.changes.get(&change.by()).map(|known| known.statement().view);
                    if known.is_none_or(|known| known < change.statement().view) {
                        self.changes.insert(change.by(), change);
                    }
                }
                self.weigh_changes(out);
            }
            Beginning::Offered(known) if known.statement() == start.statement() => {
                out.ignore(Peer::Replica(from), Why::Duplicate);
            }
            Beginning::Offered(known) => {
                let what =
                    format!("it starts view {} twice, from {} changes", self.view, known.statement().changes.len());
                *beginning = Beginning::Refused;
                out.blame(Peer::Replica(start.by()), Fault::Contradiction(what));
            }
            Beginning::Refused => out.ignore(Peer::Replica(from), Why::Duplicate),
        }
    }

    /// Two rounds have passed: those who are correct have said what they have confirmed.
    pub(super) fn on_settle(&mut self, out: &mut Outbox) {
        let Phase::Changing { beginning, .. } = &mut self.phase else { return };
        let start = match std::mem::replace(beginning, Beginning::Refused) {
            Beginning::Gathers => {
                *beginning = Beginning::Nothing;
                return self.start_view(out);
            }
            Beginning::Offered(start) => *start,
            Beginning::Nothing | Beginning::Refused => return,
        };
        let Some(selected) = select(start.statement().changes.iter().map(Signed::statement)) else { return };
        if self.knows_better(start.statement(), &selected) {
            out.note(Note::Other("a view's start lacks what is certified: it is refused"));
            return; // and the timer for the next view runs
        }
        self.install(start, &selected, out);
    }

    /// Has anybody said that more is certified than a view starts with?
    fn knows_better(&self, start: &NewView, selected: &Selected) -> bool {
        let its = start.changes.iter().map(Signed::statement);
        let heard = self.changes.values().map(Verified::statement).filter(|it| it.view >= start.view);
        select(its.chain(heard)).is_none_or(|all| all.tip() != selected.tip())
    }

    /// Takes the highest certificate that anybody has shown for its own, so that no liar can show it to one and not to another for
    /// ever.
    fn learn(&mut self, out: &mut Outbox) {
        let own = self.certified.as_ref().map(|it| (it.statement().view, it.statement().epoch));
        let shown = self.changes.values().map(Verified::statement);
        let best = shown.filter(|it| certified(it) > own).max_by_key(|it| certified(it));
        let Some(best) = best.filter(|_| self.quorums.rests_on_time()).cloned() else { return };
        let Some(Ok(certified)) = best.certified.clone().map(|it| it.certified(self.quorums.quorum())) else { return };
        let (mut op, _, mut chain) = best.base();
        if certified.statement().op <= self.committed || self.log.chain_at(op) != Some(chain) {
            return; // nothing new, or what is before it is not here
        }
        let mut links = Vec::new();
        for (epoch, block) in &best.links {
            op = op.next();
            chain = chained(chain, op, *epoch, *block);
            links.push(Link { op, epoch: *epoch, block: *block, chain });
        }
        if links.iter().any(|link| link.op <= self.committed && self.log.get(link.op) != Some(*link)) {
            return; // more replicas lie than the group tolerates; the start of the view will tell
        }
        let committed = self.committed;
        for link in links.into_iter().filter(|link| link.op > committed) {
            if self.log.get(link.op) != Some(link) {
                self.put(link, out);
            }
        }
        self.persist(Record::Certified(certified.certificate().clone()), out);
        self.certified = Some(certified);
    }

    /// More replicas have lied than the group tolerates.
    pub(super) fn contradicted(&self, out: &mut Outbox) {
        out.halt(
            "Diverged: a quorum has signed two histories, so more replicas lie than this group tolerates. Stop all of them, keep \
             all folders, and compare them with `quorate verify`"
                .to_owned(),
        );
    }

    /// The view starts here.
    fn install(&mut self, start: Signed<NewView>, selected: &Selected, out: &mut Outbox) {
        self.end_view(out);
        self.persist(Record::Started(start.clone()), out);
        self.start = Some(start.clone());
        self.phase = Phase::Active { adopted: false };
        (self.own_change, self.change_due) = (None, false);
        self.changes.retain(|_, change| change.statement().view > self.view);
        out.disarm(Timer::NewView);
        out.disarm(Timer::Settle);
        self.begin_judging(self.first_epoch());
        let primary = self.quorums.turn(self.view.get());
        out.note(Note::ViewStarted { view: self.view, primary, op: selected.tip().0 });
        let changes = start.statement().changes.iter().map(Signed::statement);
        let proof = changes.filter_map(|it| it.committed.clone()).max_by_key(|it| it.statement().op);
        if let Some(Ok(proof)) = proof.map(|proof: Certificate<_>| proof.certified(self.quorums.quorum())) {
            self.on_proof(proof, out);
        }
        self.adopt_start(out);
        self.expect_progress(out);
    }

    /// Takes the chain that the view starts with, once everything before it is here.
    pub(super) fn adopt_start(&mut self, out: &mut Outbox) {
        let (Phase::Active { adopted: false }, Some(start)) = (&self.phase, &self.start) else { return };
        let Some(selected) = select(start.statement().changes.iter().map(Signed::statement)) else { return };
        if self.committed < selected.base.0 {
            self.heard = self.heard.max(selected.base.0);
            return;
        }
        let mut links = selected.links.iter().filter(|link| link.op <= self.committed);
        if links.any(|link| self.log.chain_at(link.op).is_some_and(|chain| chain != link.chain)) {
            return self.diverged(self.committed, out);
        }
        let committed = self.committed;
        for link in selected.links.iter().filter(|link| link.op > committed) {
            if self.log.get(link.op) != Some(*link) {
                self.put(*link, out);
            }
        }
        let tip = selected.tip().0.max(self.committed);
        self.log.cut(tip.next());
        let on_chain =
            |vote: &super::Vote| self.log.chain_at(vote.op) == Some(vote.chain()) || vote.op <= self.committed;
        if self.certified.as_ref().is_some_and(|it| !on_chain(it.statement())) {
            self.certified = None;
        }
        self.vote_from = tip.max(self.committed.next());
        self.phase = Phase::Active { adopted: true };
        self.forget_risk(out);
        self.fetch_missing(out);
        self.vote_more(out);
        self.watch(out);
        self.arm_epoch(out);
        self.arm_tick(out);
    }

    /// How the present view started, for someone who has missed it.
    pub(super) fn tell_start(&self, to: ReplicaId, out: &mut Outbox) {
        if let Some(start) = self.start.clone().filter(|_| self.is_active()) {
            out.send(Peer::Replica(to), Message::NewView(Box::new(start)));
        }
    }
}
