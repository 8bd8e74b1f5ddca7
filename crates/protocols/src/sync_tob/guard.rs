//! Is the model kept? Clocks that agree, timers that ring in time, messages that come in time. If not, this replica signs
//! nothing, outputs wait, and `status` says why.
//!
//! | state | because | until |
//! |---|---|---|
//! | `Unsynced` | no quorum of clocks within ε | clocks agree again, and one round has passed |
//! | fenced | this process stood still, or has just started: what it took in meanwhile has wrong times | every broadcast that began before is over |
//! | abstains | a broadcast was there, and this replica could not judge it: it does not know the group's history | as below |
//! | `SafetyAtRisk` | a chain that a correct replica has signed came too late: an output may have differed | a quorum has confirmed a later output, or a view has started |
//! | `Diverged` | a quorum has confirmed something else than was executed here | never: the replica halts |

use super::clock::Reading;
use super::message::Message;
use super::recovery::listen;
use super::replica::Replica;
use super::schedule::EpochNumber;
use super::{Outbox, Timer};
use quorate_core::fault::Why;
use quorate_core::ids::{Peer, ReplicaId};
use quorate_core::outbox::Note;
use quorate_core::time::{Duration, Instant, WallTime};

/// Between two rounds of probes while clocks do not agree.
const PROBE_AGAIN: Duration = Duration::from_millis(50);
/// That pause is doubled so often at most.
const PROBE_DOUBLINGS_MAX: u32 = 3;

/// Why this replica may not be trusted now.
#[derive(Debug, Default)]
pub(super) struct Guard {
    /// Broadcasts that began before this are not judged here.
    open_from: WallTime,
    /// When that is, whatever becomes of the clock until then.
    open_at: Instant,
    fenced: bool,
    unsynced: bool,
    /// [`Timer::Probe`] is armed.
    probing: bool,
    /// Rounds of probes in a row after which clocks did not agree.
    tries: u32,
    /// The epoch whose output may have differed.
    at_risk: Option<EpochNumber>,
    /// Others may have an output of this epoch, and this replica has not judged it.
    missed: Option<EpochNumber>,
    /// The same, in a view that has not started here.
    missed_ahead: Option<EpochNumber>,
    /// The disk takes longer than Δ.
    slow_disk: bool,
}

impl Guard {
    /// In words, if something is wrong.
    pub(super) fn role(&self) -> Option<&'static str> {
        match self {
            Self { at_risk: Some(_), .. } => Some("SafetyAtRisk: a message came too late, outputs wait"),
            Self { unsynced: true, .. } => Some("Unsynced: its clock does not agree with a majority, it signs nothing"),
            Self { slow_disk: true, .. } => Some("slow disk: a sync takes longer than the delay bound, outputs wait"),
            Self { missed: Some(_), .. } => {
                Some("abstains: it has missed an output, and follows when a quorum has confirmed")
            }
            Self { fenced: true, .. } => Some("fenced: it stood still or has just started, it listens"),
            _ => None,
        }
    }

    pub(super) const fn is_at_risk(&self) -> bool {
        self.at_risk.is_some()
    }

    pub(super) const fn has_missed(&self) -> bool {
        self.missed.is_some()
    }
}

/// Standing still.
impl Replica {
    /// Does this replica judge a broadcast that began then?
    pub(super) fn may_judge(&self, start: WallTime, out: &Outbox) -> bool {
        start >= self.guard.open_from && self.reading(out) == Reading::Synced
    }

    /// Takes no part in broadcasts that have begun, or begin within so long.
    pub(super) fn fence(&mut self, listen: Duration, why: &'static str, out: &mut Outbox) {
        let until = self.now(out).plus(listen);
        self.guard.open_at = self.guard.open_at.max(out.now().plus(listen));
        if until > self.guard.open_from {
            self.guard.open_from = until;
            self.guard.fenced = true;
            out.arm(Timer::Listen, listen);
            self.watched = None; // what it waited for meanwhile says nothing
            self.watch(out);
            out.note(Note::Other(why));
        }
    }

    /// It has listened long enough.
    pub(super) fn on_listen(&mut self, out: &mut Outbox) {
        let rest = self.clock.until(self.guard.open_from, out.now());
        self.guard.fenced = rest > Duration::ZERO;
        if self.guard.fenced {
            return out.arm(Timer::Listen, rest); // the clock was set back meanwhile
        }
        self.arm_epoch(out);
    }

    /// A timer should have rung at `due`. If it rings later than a message may come, this process stood still.
    pub(super) fn stood_still(&mut self, due: WallTime, out: &mut Outbox) -> bool {
        let late = self.now(out).since(due);
        if late <= self.config.delta {
            return false;
        }
        self.fence(self.schedule.round(), "fenced: a timer rang late, this process stood still", out);
        true
    }

    /// My own vote came back from the disk.
    pub(super) fn vote_is_durable(&mut self, out: &mut Outbox) {
        self.on_disk(out);
        self.vote_made = None;
        self.guard.slow_disk = false;
        out.disarm(Timer::Disk);
    }

    /// A vote that is on its way to the disk for longer than Δ: outputs wait for it, and people are told.
    pub(super) fn on_disk(&mut self, out: &mut Outbox) {
        let slow = self.vote_made.is_some_and(|made| out.now().since(made) > self.config.delta);
        if slow && !self.guard.slow_disk {
            out.note(Note::Other("slow disk: a sync takes longer than the delay bound"));
        }
        self.guard.slow_disk = slow;
    }
}

/// Late evidence.
impl Replica {
    /// A chain that a correct replica has signed came too late to count: what this replica takes for the output of that epoch
    /// may not be what others do. It confirms nothing until a quorum has.
    pub(super) fn on_evidence(&mut self, epoch: EpochNumber, out: &mut Outbox) {
        if self.log.tip().1 >= epoch && self.is_certified_from(epoch) {
            return; // decided meanwhile
        }
        if self.guard.at_risk.is_none() {
            out.note(Note::Other("SafetyAtRisk: a chain with a correct signer came too late"));
        }
        self.guard.at_risk = self.guard.at_risk.max(Some(epoch));
        self.watch(out);
    }

    /// Has a quorum confirmed an output of this epoch or a later one?
    fn is_certified_from(&self, epoch: EpochNumber) -> bool {
        let certified = self.certified.as_ref().is_some_and(|it| it.statement().epoch >= epoch);
        certified || self.log.epoch_at(self.committed).is_some_and(|committed| committed >= epoch)
    }

    /// There was a broadcast in this epoch that this replica did not judge. Others may have an output, so it does not know the
    /// history that a later vote would name, and votes for none until a quorum has confirmed one. Where two quorums meet in a
    /// correct replica whatever time does, that is safety enough, and it goes on.
    pub(super) fn miss(&mut self, epoch: EpochNumber, out: &mut Outbox) {
        if !self.quorums.rests_on_time() || self.is_certified_from(epoch) {
            return;
        }
        if self.guard.missed.is_none() {
            out.note(Note::Other("abstains: it could not judge a broadcast"));
        }
        self.guard.missed = self.guard.missed.max(Some(epoch));
        self.watch(out);
    }

    /// The same, in a view that has not started here.
    pub(super) fn miss_ahead(&mut self, epoch: EpochNumber) {
        if self.quorums.rests_on_time() {
            self.guard.missed_ahead = self.guard.missed_ahead.max(Some(epoch));
        }
    }

    /// A view has started, with this epoch: what was missed before belongs to it no more.
    pub(super) fn begin_judging(&mut self, first: EpochNumber) {
        self.guard.missed = self.guard.missed_ahead.take().filter(|epoch| *epoch >= first);
    }

    /// What was at risk is settled, if a quorum has gone past it.
    pub(super) fn reconsider_risk(&mut self, out: &mut Outbox) {
        if self.guard.missed.is_some_and(|epoch| self.is_certified_from(epoch)) {
            self.guard.missed = None;
            self.vote_more(out);
        }
        if let Some(epoch) = self.guard.at_risk.filter(|epoch| self.is_certified_from(*epoch)) {
            let _settled = epoch;
            self.forget_risk(out);
        }
    }

    /// A view has started: it settles everything before it.
    pub(super) fn forget_risk(&mut self, out: &mut Outbox) {
        if self.guard.at_risk.take().is_some() {
            out.note(Note::Other("safe again: a quorum has confirmed what follows"));
            self.vote_more(out);
        }
    }
}

/// Clocks.
impl Replica {
    /// Something is to be ordered: clocks are needed.
    pub(super) fn need_clock(&mut self, out: &mut Outbox) {
        if !self.guard.probing && self.clock.is_older_than(self.config.probe, out.now()) {
            self.ask_time(out);
        }
    }

    fn ask_time(&mut self, out: &mut Outbox) {
        self.guard.probing = true;
        self.clock.ask(out.now());
        out.broadcast_unsynced(Message::Probe { sent: out.now().as_nanos() }); // a question
        let pause = self.answers_by().saturating_mul(1 << self.guard.tries.min(PROBE_DOUBLINGS_MAX));
        self.guard.tries = self.guard.tries.saturating_add(1);
        out.arm(Timer::Probe, pause);
    }

    /// After so long all correct replicas have answered, while bounds are kept.
    fn answers_by(&self) -> Duration {
        if self.quorums.rests_on_time() {
            PROBE_AGAIN.max(self.schedule.round().saturating_mul(2))
        } else {
            PROBE_AGAIN
        }
    }

    /// Those who have not answered are not waited for. While there is something to order and clocks do not agree, asks again.
    pub(super) fn on_probe(&mut self, out: &mut Outbox) {
        self.guard.probing = false;
        let before = self.reading(out);
        let moved = self.clock.settle(out.now(), out.wall());
        self.clock_moved(moved, out);
        self.on_reading(before, out);
        if moved > 0 {
            self.guard.tries = 0; // clocks come together: the next round is soon
        }
        if self.reading(out) != Reading::Synced && (self.has_work() || self.guard.unsynced) {
            self.ask_time(out);
        } else if self.has_work() {
            self.guard.tries = 0;
            self.guard.probing = true;
            out.arm(Timer::Probe, self.config.probe);
            if self.clock.is_older_than(self.config.probe, out.now()) {
                self.clock.ask(out.now());
                out.broadcast_unsynced(Message::Probe { sent: out.now().as_nanos() }); // a question
            }
        }
    }

    /// Is anything under way for which clocks matter?
    pub(super) fn has_work(&self) -> bool {
        let running = self.running.values().any(|it| !it.instance.is_concluded());
        running || !self.ucb.is_empty() || self.log.tip().0 > self.committed
    }

    /// ⟨PROBE⟩: what does your clock show? Whoever asks is told, whatever the clock is worth: the asker judges.
    pub(super) fn on_probed(&mut self, from: ReplicaId, sent: u64, out: &mut Outbox) {
        let clock = self.now(out);
        out.send_unsynced(Peer::Replica(from), Message::Time { sent, clock }); // promises nothing
    }

    /// ⟨TIME⟩.
    pub(super) fn on_time(&mut self, from: ReplicaId, sent: u64, shown: WallTime, out: &mut Outbox) {
        let before = self.reading(out);
        let Some(moved) = self.clock.on_answer(from, sent, shown, (out.now(), out.wall())) else {
            return out.ignore(Peer::Replica(from), Why::Unasked);
        };
        self.clock_moved(moved, out);
        self.on_reading(before, out);
    }

    /// Others' clocks were heard of, or not in time: what one's own is worth may be something else than `before`.
    fn on_reading(&mut self, before: Reading, out: &mut Outbox) {
        self.listen_for_silence(out);
        let reading = self.reading(out);
        if before == reading {
            return;
        }
        if reading == Reading::Synced {
            if self.guard.unsynced {
                out.note(Note::Other("synced again: a majority of clocks agrees"));
                self.fence(self.schedule.round(), "fenced: clocks did not agree until now", out);
            }
            self.guard.unsynced = false;
            self.cast_more(out);
            self.arm_epoch(out);
        } else if reading == Reading::Unsynced {
            if !self.guard.unsynced {
                out.note(Note::Other("Unsynced: no majority of clocks agrees within the bound"));
            }
            self.guard.unsynced = true;
            (self.guard.probing, self.guard.tries) = (true, 0);
            out.arm(Timer::Probe, self.answers_by()); // until now the next round was far away
        }
    }

    /// What was noted in times of the clock as it was: a clock that was far ahead would keep this replica out until it is
    /// there again, and one that was far behind would let it in too soon.
    fn forget_times(&mut self, out: &Outbox) {
        let now = self.now(out);
        self.guard.open_from = now.plus(self.guard.open_at.since(out.now()));
        self.silent_until = None;
        self.running.retain(|_, it| !it.instance.is_concluded() || it.instance.start() <= now);
    }

    /// A silent replica listens from when its clock can be trusted.
    fn listen_for_silence(&mut self, out: &Outbox) {
        if self.silent && self.silent_until.is_none() && self.reading(out) == Reading::Synced {
            self.silent_until = Some(self.now(out).plus(listen(self)).plus(self.schedule.round()));
        }
    }

    /// The clock was moved by so many nanoseconds: timers are armed anew, and times before it say little.
    fn clock_moved(&mut self, by: u64, out: &mut Outbox) {
        if u128::from(by) > self.config.epsilon.as_nanos() / 4 {
            self.forget_times(out);
            self.fence(listen(self), "fenced: the clock was set", out);
        }
        if by > 0 {
            self.due = None;
            self.arm_epoch(out);
            self.arm_output(out);
            self.arm_tick(out);
        }
    }
}
