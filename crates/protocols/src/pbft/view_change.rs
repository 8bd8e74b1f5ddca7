//! View changes (Castro and Liskov §4.4), with signatures: each replica shows certificates of what it prepared, the new
//! primary and every backup compute from a quorum of them what the view starts with.
//!
//! Guarantees that an entry that is committed anywhere keeps its proposal in every later view: a quorum has prepared it, and
//! has it on disk; every quorum of view changes holds one correct replica of that quorum, hence its certificate.

use super::durable::Record;
use super::message::{Message, NewView, Prepare, Proposal, ViewChange};
use super::replica::{Phase, Replica};
use super::select::{Selected, select};
use super::{Outbox, Timer};
use quorate_core::crypto::{Digest, Signed, Verified};
use quorate_core::fault::{Fault, Why};
use quorate_core::ids::{OpNumber, Peer, ReplicaId, View};
use quorate_core::mutated;
use quorate_core::outbox::Note;
use quorate_core::time::Duration;

/// Patience is doubled so often at most: eight times what is configured, 2.4 s. A group whose faults have lasted for long has
/// doubled it as often as it may when they end, and then waits that long for each replica that is still away and whose view it
/// is: at most `f` in a row. Longer than messages and disks ever take is of no use.
const DOUBLINGS_MAX: u32 = 3;

impl Replica {
    /// How long this replica waits for a view to do something: doubled for each view that brought nothing, so that at some
    /// time all wait long enough (§4.4).
    pub(super) fn patience(&self) -> Duration {
        self.config.view_change.saturating_mul(1 << self.attempts.min(DOUBLINGS_MAX))
    }

    /// A request waits too long.
    pub(super) fn on_progress(&mut self, out: &mut Outbox) {
        if self.watched.take().is_none() || !self.is_active() || self.is_primary() {
            return;
        }
        out.note(Note::Suspects(self.view));
        self.attempts = self.attempts.saturating_add(1);
        self.leave_view(self.view.next(), out);
    }

    /// A quorum wants the view, and its primary does not start it.
    pub(super) fn on_new_view_late(&mut self, out: &mut Outbox) {
        if matches!(self.phase, Phase::Changing { quorum: true }) {
            self.attempts = self.attempts.saturating_add(1);
            self.leave_view(self.view.next(), out);
        }
    }

    /// ⟨VIEW-CHANGE v+1, h, C, P, i⟩: takes nothing of lower views from now on, and says what it has prepared. A replica
    /// that may have forgotten what it has prepared says nothing.
    pub(super) fn leave_view(&mut self, view: View, out: &mut Outbox) {
        assert!(view > self.view, "views only go up");
        if !self.may_vote() {
            return;
        }
        self.view = view;
        self.keyring.reached(view);
        self.start = None;
        self.phase = Phase::Changing { quorum: false };
        self.own_change = None;
        self.watched = None;
        self.tick_due = false;
        self.early.clear();
        self.shown.clear();
        self.undo(out);
        self.log.leave_view(self.low());
        out.disarm(Timer::Progress);
        out.disarm(Timer::NewView);
        out.disarm(Timer::Tick);
        out.note(Note::ViewChange(view));
        self.persist(Record::Left(view), out);
        self.change_again(out);
    }

    /// Says what it has prepared before the view that it changes to.
    pub(super) fn change_again(&mut self, out: &mut Outbox) {
        let view = self.view;
        let prepared = self.log.after(self.low()).filter_map(|(_, slot)| slot.prepared.as_ref());
        let mut prepared: Vec<_> = prepared.map(|it| it.certificate().clone()).collect();
        if mutated!("pbft/view-change-forgets-what-is-prepared") {
            prepared.clear();
        }
        let change = self.keyring.sign(ViewChange { view, stable: self.stable.clone(), prepared });
        out.broadcast(Message::ViewChange(Box::new(change.clone())));
        out.send(self.me(), Message::ViewChange(Box::new(change)));
        self.expect_progress(out);
    }

    /// ⟨VIEW-CHANGE v, h, C, P, i⟩.
    pub(super) fn on_view_change(&mut self, change: Verified<ViewChange>, out: &mut Outbox) {
        let (by, view) = (change.by(), change.statement().view);
        if view < self.view {
            return out.ignore(Peer::Replica(by), Why::OldView);
        }
        if by == self.me && view == self.view {
            self.own_change = Some(change.signed().clone());
        }
        if self.changes.get(&by).is_some_and(|known| known.statement().view >= view) {
            return out.ignore(Peer::Replica(by), Why::Duplicate);
        }
        self.changes.insert(by, change);
        if let Some(view) = self.joins(by, view) {
            self.leave_view(view, out);
        }
        self.fetch_shown(if by == self.me { None } else { Some(by) }, out);
        self.weigh_changes(out);
    }

    /// The view that the others' view changes draw this replica to: if f + 1 want higher ones, one of them is correct, and
    /// the smallest of those is enough (§4.5.2). And whom the primary itself leaves, nobody has to wait for.
    fn joins(&self, by: ReplicaId, view: View) -> Option<View> {
        if by == self.primary() && view > self.view {
            return Some(self.view.next());
        }
        let higher = self.changes.values().map(|it| it.statement().view).filter(|view| *view > self.view);
        if higher.clone().count() >= self.quorums.vouch() { higher.min() } else { None }
    }

    /// What a view change shows as prepared above the watermark and is not here.
    fn lacks_of<'a>(&'a self, change: &'a ViewChange) -> impl Iterator<Item = (OpNumber, Digest)> + 'a {
        let shown = change.prepared.iter().map(|it| (it.statement().op, it.statement().digest));
        shown.filter(|(op, digest)| {
            let is_here = self.log.get(*op).is_some_and(|slot| slot.proposal(*digest).is_some());
            *op > self.low() && !is_here && !self.shown.contains_key(&(*op, *digest))
        })
    }

    /// Who is to start the view asks each replica for what it shows: whoever is correct has what it has prepared.
    pub(super) fn fetch_shown(&self, by: Option<ReplicaId>, out: &mut Outbox) {
        if self.is_active() || !self.is_primary() {
            return;
        }
        let of_view = self.changes.iter().filter(|(_, it)| it.statement().view == self.view);
        for (by, change) in of_view.filter(|(it, _)| **it != self.me && by.is_none_or(|by| by == **it)) {
            let wanted: Vec<_> = self.lacks_of(change.statement()).take(super::WANTED_MAX).collect();
            if !wanted.is_empty() {
                out.send_unsynced(Peer::Replica(*by), Message::GetProposals { wanted }); // a question
            }
        }
    }

    /// Is this replica to start the view, and lacks what a view change shows there?
    pub(super) fn lacks_shown(&self, op: OpNumber, digest: Digest) -> bool {
        let mut of_view = self.changes.values().filter(|it| it.statement().view == self.view);
        let mut lacks = || of_view.any(|it| self.lacks_of(it.statement()).any(|it| it == (op, digest)));
        !self.is_active() && self.is_primary() && lacks()
    }

    /// What a view change shows has come.
    pub(super) fn take_shown(&mut self, op: OpNumber, proposal: Proposal, out: &mut Outbox) {
        self.shown.insert((op, proposal.digest()), proposal);
        self.weigh_changes(out);
    }

    /// With a quorum of view changes, its primary can start the view, and has so long for it.
    pub(super) fn weigh_changes(&mut self, out: &mut Outbox) {
        let Phase::Changing { quorum } = self.phase else { return };
        // Who is further on has wanted this view, too, and does not say it again.
        let wanted = self.changes.values().filter(|it| it.statement().view >= self.view).count();
        if wanted < self.quorums.quorum() {
            return;
        }
        if !quorum {
            // Only now: if the others are not there yet, their view cannot start, and hurrying on would leave them behind.
            self.phase = Phase::Changing { quorum: true };
            out.arm(Timer::NewView, self.patience());
        }
        if self.is_primary() && self.own_change.is_some() {
            self.start_view(out);
        }
    }

    /// ⟨NEW-VIEW v, V, O⟩, once V is a quorum of view changes of which everything is here: what a view starts with and nobody
    /// has, holds up the view and all after it, and a liar alone can show a certificate of what the others have forgotten.
    fn start_view(&mut self, out: &mut Outbox) {
        let view = self.view;
        let of_view = self.changes.values().filter(|it| it.statement().view == view);
        let here = of_view.filter(|it| self.lacks_of(it.statement()).next().is_none());
        let changes: Vec<_> = here.take(self.quorums.quorum()).map(|it| it.signed().clone()).collect();
        if changes.len() < self.quorums.quorum() {
            return;
        }
        let selected = select(changes.iter().map(Signed::statement));
        let votes = selected.digests.iter().map(|(op, digest)| Prepare { view, op: *op, digest: *digest });
        let proposals: Vec<_> = votes.map(|vote| self.keyring.sign(vote)).collect();
        let start = self.keyring.sign(NewView { view, changes, proposals });
        out.broadcast(Message::NewView(Box::new(start.clone())));
        // Proposals overtake the disk, and NEW-VIEW does not: they wait for this, or nobody would know their view.
        self.ready = false;
        out.send(self.me(), Message::Status(self.place()));
        self.install(start, &selected, out);
    }

    /// ⟨NEW-VIEW v, V, O⟩: computed again from V; a primary whose O is another one is left at once.
    pub(super) fn on_new_view(&mut self, from: ReplicaId, start: Verified<NewView>, out: &mut Outbox) {
        let (by, it) = (start.by(), start.statement());
        let view = it.view;
        if view < self.view || (view == self.view && self.is_active()) {
            return out.ignore(Peer::Replica(from), Why::OldView);
        }
        if by != self.quorums.primary(view) {
            return out.blame(
                Peer::Replica(by),
                Fault::Contradiction(format!("it starts view {view}, which it does not lead")),
            );
        }
        let selected = select(it.changes.iter().map(Signed::statement));
        if !is_what_follows(it, by, &selected) && !mutated!("pbft/new-view-is-not-computed-again") {
            out.blame(
                Peer::Replica(by),
                Fault::Contradiction(format!("its view {view} does not follow from its proofs")),
            );
            if view == self.view {
                self.attempts = self.attempts.saturating_add(1);
                self.leave_view(view.next(), out);
            }
            return;
        }
        self.view = view;
        self.install(start.into_signed(), &selected, out);
    }

    /// The view starts here.
    fn install(&mut self, start: Signed<NewView>, selected: &Selected, out: &mut Outbox) {
        let (view, votes) = (self.view, start.statement().proposals.clone());
        self.keyring.reached(view);
        self.persist(Record::Started(start.clone()), out);
        self.start = Some(start);
        self.phase = Phase::Active;
        self.own_change = None;
        self.watched = None;
        self.undo(out);
        self.changes.retain(|_, change| change.statement().view > view);
        self.early.retain(|_, it| matches!(it, Message::PrePrepare { vote, .. } if vote.statement().view == view));
        self.log.leave_view(self.low());
        self.proposed = selected.last();
        self.view_began = selected.last();
        self.pace.begin(self.quorums.replicas());
        self.pool.propose_again();
        out.disarm(Timer::NewView);
        out.note(Note::ViewStarted { view, primary: self.primary(), op: selected.last() });
        let quorum = self.quorums.quorum();
        let stable = selected.stable.clone().and_then(|stable| stable.certified(quorum).ok());
        if let Some(stable) = stable.filter(|stable| stable.statement().op > self.low()) {
            self.raise_watermarks(stable, out);
        }
        for vote in votes {
            if let Ok(vote) = vote.verified() {
                self.propose_from(vote, out);
            }
        }
        self.shown.clear();
        self.use_window(out); // not before O: a primary that lies may have proposed something else for its entries
        self.fetch_missing(out);
        self.reconsider_reads();
        self.watch(out);
        self.arm_tick(out);
        self.propose_more(out);
        self.expect_progress(out);
    }

    /// One entry that the view starts with: voted for again, also by those who have executed it (§4.4).
    fn propose_from(&mut self, vote: Verified<Prepare>, out: &mut Outbox) {
        let Prepare { op, digest, .. } = *vote.statement();
        if op <= self.low() {
            return;
        }
        let null = Proposal::null(op);
        let proposal = if null.digest() == digest { Some(null) } else { self.shown.remove(&(op, digest)) };
        self.accept(op, vote, proposal, out);
    }

    /// Asks for what this replica knows by its digest only.
    pub(super) fn fetch_missing(&mut self, out: &mut Outbox) {
        let begin = self.base.0.min(self.committed);
        let missing = self.log.after(begin).filter_map(|(op, slot)| Some((op, slot.missing()?)));
        let wanted: Vec<(OpNumber, _)> = missing.take(super::WANTED_MAX).collect();
        if !wanted.is_empty() {
            out.broadcast_unsynced(Message::GetProposals { wanted }); // a question
        }
    }
}

/// Does O follow from V: the same entries, the same digests, signed by the view's primary?
fn is_what_follows(start: &NewView, primary: ReplicaId, selected: &Selected) -> bool {
    let told = start.proposals.iter().map(|vote| (vote.by(), *vote.statement()));
    let right = selected.digests.iter().map(|(op, digest)| {
        let vote = Prepare { view: start.view, op: *op, digest: *digest };
        (primary, vote)
    });
    told.eq(right)
}
