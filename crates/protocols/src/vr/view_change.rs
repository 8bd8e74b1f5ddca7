//! View change (VRR §4.2). Guarantees that an entry that was committed in a view is in the log of every later view.
//!
//! Deviation: a view is left only when a quorum wants to leave it (ExitView while still in the view, vr.md §2.4 step 1), so a
//! replica that is cut off, or deaf on one side, deposes nobody (D16). `view` is durable before anyone is told (R2), and
//! `log_view` before a log is vouched for (R3). Logs travel as headers; what they name is fetched afterwards.

use super::durable::{Record, Suffix};
use super::message::{DoViewChange, Header, Message, StartView};
use super::replica::{Backup, Phase, Primary, Replica, Stage, ViewChange};
use super::select::{Selected, Selection, select};
use super::{HEADERS_MAX, Outbox, Timer, ViewChangePolicy, WINDOW_ENTRIES};
use quorate_core::fault::Why;
use quorate_core::ids::{OpNumber, Peer, ReplicaId, View};
use quorate_core::mutated;
use quorate_core::outbox::Note;
use quorate_core::time::{Duration, Instant};
use quorate_core::votes::Votes;
use std::collections::BTreeMap;

/// Suspicions older than this, in view change timeouts, do not count any more (vr.md §2.11: ExitView's window).
const EXIT_WINDOW: u32 = 16;
/// A view change that has not come to an end after this many view change timeouts is given up.
const STALLED: u32 = 2;

/// Leaving a view.
impl Replica {
    /// How long a backup waits for its primary: a little longer the later its own turn to lead comes, so that the next
    /// primary is the first to suspect.
    pub(super) fn silence(&self) -> Duration {
        let turn = self.quorums.members().filter(|replica| *replica < self.me).count();
        let turn = u32::try_from(turn).unwrap_or(0);
        self.config.view_change.saturating_add(self.config.resend / 4 * turn)
    }

    pub(super) fn on_primary_silent(&mut self, out: &mut Outbox) {
        let Phase::Backup(backup) = &mut self.phase else { return };
        if out.now() < self.promised_until {
            let wait = self.promised_until.since(out.now());
            return out.arm(Timer::PrimarySilent, wait); // leases: the promise not to help ends first (§2.8)
        }
        backup.suspects = true;
        out.note(Note::Suspects(self.view()));
        match self.config.policy {
            ViewChangePolicy::Quorum => self.say_exit(out),
            ViewChangePolicy::Direct => self.enter_view(self.view().next(), out),
        }
    }

    /// ⟨ExitView v⟩: says it, and counts it.
    pub(super) fn say_exit(&mut self, out: &mut Outbox) {
        let view = self.view();
        out.broadcast(Message::ExitView { view });
        out.arm(Timer::ViewAgain, self.config.resend);
        self.count_exit(self.me, out);
    }

    pub(super) fn on_exit_view(&mut self, from: ReplicaId, view: View, out: &mut Outbox) {
        if view > self.view() {
            return self.follow(view, out);
        }
        if view < self.view() {
            self.tell_view(from, self.committed_max, 0, out); // it has missed something, and asks if it is more
            return out.ignore(Peer::Replica(from), Why::OldView);
        }
        self.count_exit(from, out);
    }

    /// A quorum that wants to leave the view ends it (step 1).
    fn count_exit(&mut self, from: ReplicaId, out: &mut Outbox) {
        let (me, now, window) = (self.me, out.now(), self.config.view_change.saturating_mul(EXIT_WINDOW));
        let fresh = || Votes::new(self.quorums.view_change());
        let reached = match &mut self.phase {
            Phase::Backup(backup) => {
                if now.since(backup.exits_since) > window {
                    backup.exits_since = now;
                    if backup.suspects { backup.exits.retain_only(me) } else { backup.exits = fresh() }
                }
                backup.exits.add(from, ());
                backup.exits.reached()
            }
            Phase::ViewChange(change) => {
                change.exits.add(from, ());
                change.exits.reached()
            }
            Phase::Primary(primary) if primary.muted => {
                primary.exits.add(from, ());
                primary.exits.reached()
            }
            Phase::Primary(_) | Phase::RecoveringHead => return out.ignore(Peer::Replica(from), Why::NotNow),
        };
        if reached && now >= self.promised_until {
            self.enter_view(self.view().next(), out); // leases: else when it is said again
        }
    }

    /// Somebody is in a higher view: a quorum went there, or its former self may have been there (`rejoin`). Go there.
    pub(super) fn follow(&mut self, view: View, out: &mut Outbox) {
        assert!(view > self.view());
        match self.phase {
            Phase::RecoveringHead => self.ask_view(out), // vouches for nothing
            _ if out.now() < self.promised_until => {}   // leases: not yet; it will be said again
            _ => self.enter_view(view, out),
        }
    }

    /// Step 2: from now on nothing of a lower view is accepted, and every replica is told what this one's log holds.
    pub(super) fn enter_view(&mut self, view: View, out: &mut Outbox) {
        let record = self.durable.enter(view, self.committed);
        if !mutated!("vr/view-is-not-durable") {
            self.promise(record, out);
        }
        for timer in [Timer::Heartbeat, Timer::PrepareAgain, Timer::Abdicate, Timer::PrimarySilent, Timer::Tick] {
            out.disarm(timer);
        }
        self.begin_view_change(out);
    }

    /// In a view that has not started: says what this replica's log holds.
    pub(super) fn begin_view_change(&mut self, out: &mut Outbox) {
        assert!(self.view() > self.durable.log_view(), "a view whose log is known has started");
        let exits = Votes::new(self.quorums.view_change());
        let change = ViewChange { exits, changes: BTreeMap::new(), stage: Stage::Gathering };
        self.phase = Phase::ViewChange(Box::new(change));
        self.asked = None;
        out.note(Note::ViewChange(self.view()));
        self.send_do_view_change(out);
        out.arm(Timer::ViewAgain, self.config.resend);
        out.arm(Timer::ViewChangeStalled, self.config.view_change.saturating_mul(STALLED));
    }

    /// ⟨DoViewChange v, l, v', n, k, i⟩ to all: the backups learn the view, the new primary counts it. The log does not change
    /// while a view has not started, so every one that is sent for this view says the same (R3).
    fn send_do_view_change(&self, out: &mut Outbox) {
        let change = self.do_view_change();
        if self.primary() == self.me {
            out.send(Peer::Replica(self.me), Message::DoViewChange(change.clone()));
        }
        if mutated!("vr/view-change-before-the-sync") {
            return out.broadcast_unsynced(Message::DoViewChange(change));
        }
        out.broadcast(Message::DoViewChange(change));
    }

    fn do_view_change(&self) -> DoViewChange {
        let mut change = DoViewChange {
            view: self.view(),
            log_view: self.durable.log_view(),
            committed: self.committed, // one's own commit number (D13)
            committed_checksum: self.log.checksum(self.committed).unwrap_or_default(),
            checkpoint: self.checkpoint(),
            vouches: self.log.vouches_after(self.committed),
        };
        if mutated!("vr/last-entrys-view-chooses-the-log") {
            let last = self.log.headers_after(self.log.head().previous(), 1);
            change.log_view = last.first().map_or(change.log_view, |last| last.view);
        }
        change
    }

    /// Nothing came of it: say it again (D9).
    pub(super) fn on_view_again(&mut self, out: &mut Outbox) {
        match &self.phase {
            Phase::Backup(backup) if backup.suspects => self.say_exit(out),
            Phase::Primary(primary) if primary.muted => self.say_exit(out),
            Phase::Backup(_) | Phase::Primary(_) => {}
            Phase::ViewChange(change) => {
                match &change.stage {
                    Stage::Gathering | Stage::Headers { .. } => self.send_do_view_change(out),
                    Stage::Entries => {}
                }
                if change.exits.has(self.me) {
                    out.broadcast(Message::ExitView { view: self.view() });
                }
                if matches!(change.stage, Stage::Headers { .. }) {
                    self.try_select(out); // asks again, from where our commit number is now
                }
                out.arm(Timer::ViewAgain, self.config.resend);
            }
            Phase::RecoveringHead => {
                self.asked = None;
                self.ask_view(out);
            }
        }
    }

    /// The view change has taken too long: a quorum may give it up.
    pub(super) fn on_view_change_stalled(&mut self, out: &mut Outbox) {
        if !matches!(self.phase, Phase::ViewChange(_)) {
            return;
        }
        out.note(Note::Suspects(self.view()));
        out.arm(Timer::ViewChangeStalled, self.config.view_change.saturating_mul(STALLED));
        match self.config.policy {
            ViewChangePolicy::Quorum => self.say_exit(out),
            ViewChangePolicy::Direct => self.enter_view(self.view().next(), out),
        }
    }
}

/// Starting a view: the new primary.
impl Replica {
    pub(super) fn on_do_view_change(&mut self, from: ReplicaId, change: DoViewChange, out: &mut Outbox) {
        if change.view > self.view() {
            self.follow(change.view, out);
        }
        if change.view < self.view() {
            self.tell_view(from, change.committed, 0, out);
            return out.ignore(Peer::Replica(from), Why::OldView);
        }
        match &mut self.phase {
            Phase::Primary(_) => self.tell_view(from, change.committed, 0, out), // it has missed the start
            Phase::ViewChange(waiting)
                if self.quorums.primary(change.view) == self.me && change.view == self.durable.view() =>
            {
                if !matches!(waiting.stage, Stage::Gathering) {
                    return out.ignore(Peer::Replica(from), Why::Duplicate);
                }
                waiting.changes.entry(from).or_insert(change); // at most one of each counts
                self.try_select(out);
            }
            _ => out.ignore(Peer::Replica(from), Why::NotPrimary),
        }
    }

    /// Step 3: with a quorum of DoViewChanges, choose the log.
    fn try_select(&mut self, out: &mut Outbox) {
        let Phase::ViewChange(waiting) = &self.phase else { return };
        let changes: Vec<_> = waiting.changes.iter().map(|(replica, change)| (*replica, change)).collect();
        match select(&changes, &self.quorums, WINDOW_ENTRIES) {
            Selection::Wait => {}
            Selection::Stuck(_) => out.note(Note::Other("stuck: every copy of an entry is damaged")), // wait for repair
            Selection::Start(selected) => self.adopt(selected, out),
        }
    }

    /// The chosen log begins after the smallest commit number among those that count. If that is beyond our own, what is
    /// between must be verified, or asked for.
    fn adopt(&mut self, selected: Selected, out: &mut Outbox) {
        if self.machine.behind && !mutated!("vr/leads-without-its-state") {
            return self.forfeit(out); // §2.4 step 4: a primary has its state
        }
        let Phase::ViewChange(waiting) = &mut self.phase else { return };
        // Its commit number is a sender's: that sender has the log up to there.
        let source = waiting.changes.iter().find(|(_, change)| change.committed == selected.after);
        let source = source.map(|(replica, change)| (*replica, change.committed_checksum));
        let (from, checksum) = source.expect("a selected log begins at a sender's commit number");
        if selected.after <= self.committed || self.log.checksum(selected.after) == Some(checksum) {
            return self.install(selected, out); // the same checksum there: the same log up to there
        }
        waiting.stage = Stage::Headers { selected, from };
        self.ask_headers(from, out);
    }

    fn ask_headers(&self, from: ReplicaId, out: &mut Outbox) {
        out.send(Peer::Replica(from), Message::GetHeaders { view: self.view(), after: self.committed });
    }

    /// The log does not change while the view has not started, so what is told is what was vouched for.
    pub(super) fn on_get_headers(&mut self, from: ReplicaId, view: View, after: OpNumber, out: &mut Outbox) {
        if view != self.view() || !matches!(self.phase, Phase::ViewChange(_)) {
            return out.ignore(Peer::Replica(from), Why::NotNow);
        }
        let known = after >= self.log.base().op;
        let headers = if known { self.log.headers_after(after, HEADERS_MAX) } else { Vec::new() };
        out.send(Peer::Replica(from), Message::Headers { view, after, headers });
    }

    pub(super) fn on_headers(
        &mut self,
        from: ReplicaId,
        view: View,
        after: OpNumber,
        headers: &[Header],
        out: &mut Outbox,
    ) {
        let same_view = view == self.view();
        let Phase::ViewChange(waiting) = &mut self.phase else { return out.ignore(Peer::Replica(from), Why::NotNow) };
        let Stage::Headers { selected, from: asked } = &waiting.stage else {
            return out.ignore(Peer::Replica(from), Why::Unasked);
        };
        if !same_view || *asked != from || after != self.committed {
            return out.ignore(Peer::Replica(from), Why::Unasked);
        }
        let between = headers.iter().filter(|header| header.op <= selected.after);
        let between: Vec<Header> = between.copied().collect();
        let complete = between.last().is_some_and(|last| last.op == selected.after);
        let linked = between.first().is_some_and(|first| Some(first.parent) == self.log.checksum(after))
            && selected.headers.first().is_none_or(|next| between.last().map(Header::checksum) == Some(next.parent));
        if !complete || !linked {
            return self.forfeit(out); // its log begins beyond ours: whoever has it should lead
        }
        let headers = between.into_iter().chain(selected.headers.iter().copied()).collect();
        let selected = Selected { committed: selected.committed, after, headers };
        self.install(selected, out);
    }

    /// Another replica can lead, this one cannot: on to the first view whose primary has the log (step 4, D17).
    fn forfeit(&mut self, out: &mut Outbox) {
        let Phase::ViewChange(waiting) = &self.phase else { return };
        let newest = waiting.changes.values().map(|change| change.log_view).max();
        let able = |replica: ReplicaId| {
            replica != self.me && waiting.changes.get(&replica).is_some_and(|change| Some(change.log_view) == newest)
        };
        let mut view = self.view().next();
        for _ in self.quorums.members() {
            if able(self.quorums.primary(view)) {
                break;
            }
            view = view.next();
        }
        if std::mem::replace(&mut self.forfeited, true) {
            return; // once at once, then at the pace of stalled view changes: perhaps nobody can lead
        }
        out.note(Note::Other("forfeits the view: its log or state is too far behind"));
        self.enter_view(view, out);
    }

    /// Step 5: the log is ours, durably, together with the view that it is the log of.
    fn install(&mut self, selected: Selected, out: &mut Outbox) {
        let after = self.committed.max(selected.after);
        let headers: Vec<Header> = selected.headers.into_iter().filter(|header| header.op > after).collect();
        let own = self.log.checksum(after);
        if headers.first().is_some_and(|next| own.is_some_and(|own| own != next.parent)) {
            return out
                .halt(format!("entry {after} is committed here, and the others have another: replicas have diverged"));
        }
        self.install_suffix(Suffix { after, headers }, selected.committed, out);
        let Phase::ViewChange(waiting) = &mut self.phase else { return };
        waiting.stage = Stage::Entries;
        self.start_if_whole(out);
        if matches!(self.phase, Phase::ViewChange(_)) {
            self.on_repair(out);
        }
    }

    pub(super) fn install_suffix(&mut self, suffix: Suffix, committed: OpNumber, out: &mut Outbox) {
        assert!(suffix.after >= self.committed, "a view never starts without what is committed");
        self.log.install(&suffix, &BTreeMap::new());
        let view = self.view();
        let record = self.durable.start(view, self.committed, self.log.base(), suffix);
        self.promise_log(record, out);
        self.committed_max = self.committed_max.max(committed.min(self.log.head()));
    }

    /// Log and view in one record (R4).
    fn promise_log(&mut self, record: Record, out: &mut Outbox) {
        if mutated!("vr/log-view-apart-from-its-log") {
            let bare = self.durable.rebase(self.durable.base(), self.committed, None);
            self.promise(bare, out);
        }
        if !mutated!("vr/log-of-a-view-is-not-durable") {
            self.promise(record, out);
        }
    }

    /// Step 5, the end: ⟨StartView v, l, n, k⟩ once the whole log is here.
    pub(super) fn start_if_whole(&mut self, out: &mut Outbox) {
        let Phase::ViewChange(waiting) = &self.phase else { return };
        if !matches!(waiting.stage, Stage::Entries) || !self.log.is_whole() {
            return;
        }
        let told: BTreeMap<ReplicaId, OpNumber> =
            waiting.changes.iter().map(|(replica, change)| (*replica, change.committed)).collect();
        let head = self.log.head();
        let reads =
            super::reads::ReadRounds::new(self.committed_max >= head || mutated!("vr/reads-before-the-inherited-log"));
        self.phase = Phase::Primary(Box::new(Primary::new(head, reads, &self.quorums)));
        self.forfeited = false;
        out.disarm(Timer::ViewAgain);
        out.disarm(Timer::ViewChangeStalled);
        out.disarm(Timer::Repair);
        out.note(Note::ViewStarted { view: self.view(), primary: self.me, op: head });
        for replica in self.quorums.members().filter(|replica| *replica != self.me) {
            let committed = told.get(&replica).copied().unwrap_or(self.committed);
            self.tell_view(replica, committed, 0, out);
        }
        out.arm(Timer::Heartbeat, self.config.heartbeat);
        if self.committed_max < head {
            out.arm(Timer::PrepareAgain, self.config.resend);
            out.arm(Timer::Abdicate, self.config.abdicate);
        }
        self.acknowledge_own(out);
        self.commit_through(self.committed_max, out); // what is committed and not executed comes first
        self.arm_tick(out);
    }

    /// Tells one replica the log of the view that this one leads, from the other's commit number on.
    pub(super) fn tell_view(&self, to: ReplicaId, committed: OpNumber, nonce: u64, out: &mut Outbox) {
        if !matches!(self.phase, Phase::Primary(_)) || to == self.me {
            return;
        }
        let after = committed.max(self.log.base().op).min(self.log.head());
        let Some(after_checksum) = self.log.checksum(after) else { return };
        let start = StartView {
            view: self.view(),
            committed: self.committed_max,
            checkpoint: self.checkpoint(),
            after,
            after_checksum,
            headers: self.log.headers_after(after, HEADERS_MAX),
            nonce,
        };
        out.send(Peer::Replica(to), Message::StartView(start));
    }
}

/// Starting a view: the backups.
impl Replica {
    /// Step 6.
    pub(super) fn on_start_view(&mut self, from: ReplicaId, start: StartView, out: &mut Outbox) {
        if let Some(why) = self.refuses_start_view(from, &start) {
            return out.ignore(Peer::Replica(from), why);
        }
        if start.op() < self.committed {
            let what = format!(
                "view {} starts with entry {}, but entry {} is committed here: replicas have diverged",
                start.view,
                start.op(),
                self.committed
            );
            return out.halt(what);
        }
        let answered = self.asked.is_some_and(|(nonce, committed)| nonce == start.nonce && committed == self.committed);
        if start.after <= self.committed {
            self.start_from_own(start, out);
        } else if self.log.checksum(start.after) == Some(start.after_checksum) && start.after <= self.log.whole_to() {
            self.start_from(start, out); // the same checksum there: the same log up to there
        } else if answered {
            self.start_from_state(start, out); // asked from our commit number on, the primary's log begins later
        } else {
            // Not what was asked for, or our commit number has moved since. One question at a time: two whose answers each
            // led to another would never end.
            self.asked = self.asked.filter(|(nonce, _)| *nonce != start.nonce);
            self.ask_view(out);
        }
    }

    fn refuses_start_view(&self, from: ReplicaId, start: &StartView) -> Option<Why> {
        let asked = self.asked.is_some_and(|(nonce, _)| nonce == start.nonce);
        if from != self.quorums.primary(start.view) || from == self.me {
            return Some(Why::NotForSender);
        }
        if start.view < self.view() {
            return Some(Why::OldView); // D8
        }
        if start.view > self.view() {
            return None;
        }
        match &self.phase {
            // The view's log was known to the former self and its end is not: only an answer to a fresh question tells
            // (case C). After a lost disk nothing of this view was ever known (case D).
            Phase::RecoveringHead if self.durable.log_view() == start.view && !asked => Some(Why::Unasked),
            Phase::Backup(_) if start.op() < self.log.head() && !mutated!("vr/an-old-start-truncates") => {
                Some(Why::Duplicate) // an old copy
            }
            Phase::Primary(_) => Some(Why::NotBackup),
            _ => None,
        }
    }

    /// The headers overlap what is committed here: they must agree with it.
    fn start_from_own(&mut self, mut start: StartView, out: &mut Outbox) {
        let mut checksum = start.after_checksum;
        let mut rest = Vec::new();
        for header in std::mem::take(&mut start.headers) {
            if header.op <= self.committed {
                checksum = header.checksum();
            } else {
                rest.push(header);
            }
        }
        if self.log.checksum(self.committed).is_some_and(|own| own != checksum) {
            let what =
                format!("entry {} of view {} is another than the one committed here", self.committed, start.view);
            return out.halt(format!("{what}: replicas have diverged"));
        }
        let after = self.committed;
        self.start_from(StartView { after, after_checksum: checksum, headers: rest, ..start }, out);
    }

    /// R4: log and view in one record, then normal, then the acknowledgement.
    fn start_from(&mut self, start: StartView, out: &mut Outbox) {
        let unchanged = self.durable.log_view() == start.view
            && !matches!(self.phase, Phase::RecoveringHead)
            && start.headers.iter().all(|header| self.log.checksum(header.op) == Some(header.checksum()))
            && start.op() == self.log.head();
        if !unchanged {
            let suffix = Suffix { after: start.after, headers: start.headers };
            self.log.install(&suffix, &BTreeMap::new());
            let record = self.durable.start(start.view, self.committed, self.log.base(), suffix);
            self.promise_log(record, out);
        }
        self.become_backup(start.committed, out);
        self.fetch(start.checkpoint, self.primary(), out);
    }

    /// State transfer (§5.2; vr.md §2.6): the log begins where the primary's does; the state before it is fetched. The old
    /// records stay on disk until the new beginning is durable (D1).
    fn start_from_state(&mut self, start: StartView, out: &mut Outbox) {
        let base = super::durable::Base { op: start.after, checksum: start.after_checksum };
        if base.op >= self.log.base().op && base.op <= self.log.head() {
            self.log.rebase(base); // what is here beyond it stays here: it may have been acknowledged in an earlier view
        } else {
            self.log = super::log::Log::new(base);
        }
        let suffix = Suffix { after: start.after, headers: start.headers };
        self.log.install(&suffix, &BTreeMap::new());
        self.committed = base.op;
        self.committed_max = self.committed_max.max(base.op);
        let record = self.durable.start(start.view, base.op, base, suffix);
        self.promise(record, out);
        self.machine.behind = self.machine.dispatched < base.op;
        out.note(Note::StateTransfer(start.checkpoint.op));
        self.become_backup(start.committed, out);
        self.fetch(start.checkpoint, self.primary(), out);
    }

    pub(super) fn become_backup(&mut self, committed: OpNumber, out: &mut Outbox) {
        let mut ahead = match std::mem::replace(&mut self.phase, Phase::RecoveringHead) {
            Phase::Backup(backup) => backup.ahead,
            _ => BTreeMap::new(),
        };
        if !mutated!("vr/keeps-what-another-view-prepared") {
            // What an earlier primary has prepared beyond this log is not in this view, though it follows from the log (D8).
            ahead.retain(|_, entry| entry.header.view == self.view());
        }
        self.phase = Phase::Backup(Backup {
            exits: Votes::new(self.quorums.view_change()),
            exits_since: Instant::default(),
            suspects: false,
            ahead,
            acknowledged: OpNumber::ZERO,
        });
        self.asked = None;
        self.forfeited = false;
        for timer in [Timer::Heartbeat, Timer::Tick, Timer::ViewAgain, Timer::ViewChangeStalled] {
            out.disarm(timer);
        }
        out.note(Note::ViewStarted { view: self.view(), primary: self.primary(), op: self.log.head() });
        out.arm(Timer::PrimarySilent, self.silence());
        self.append_ahead(out);
        self.acknowledge(true, out);
        self.commit_through(committed, out);
        self.repair_if_needed(out);
    }
}
