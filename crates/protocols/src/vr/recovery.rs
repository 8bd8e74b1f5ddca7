//! Coming back (VRR §4.3, §5.2, and what a disk adds: vr.md §2.5, §2.6), and getting what is missing.
//!
//! | case | found | done |
//! |---|---|---|
//! | A | intact | a backup goes on; the primary of its view starts the next one, since its pipeline is gone |
//! | B | damaged entries, the end is known | as A; the entries are fetched, and are neither *present* nor *nack* until then |
//! | C | the end of the log is damaged | RecoveringHead: asks, and says nothing else, until a view's log is told |
//! | D | the disk was lost | `rejoin` writes the only record; then as C, two views on |

use super::durable::{Durable, Record};
use super::log::{Log, Replayed, replay};
use super::message::{Entry, Message};
use super::reads::LocalReads;
use super::replica::{Machine, Phase, Replica, Stage};
use super::{ENTRIES_MAX, Outbox, Reads, Timer, Vr};
use quorate_core::crypto::Digest;
use quorate_core::fault::Why;
use quorate_core::ids::{OpNumber, Peer, ReplicaId, View};
use quorate_core::mutated;
use quorate_core::outbox::{Class, Note};
use quorate_core::protocol::{Restore, RestoreError};
use quorate_core::quorum::CrashQuorums;
use quorate_core::time::{Instant, WallTime};

/// Bytes of entries that one question asks for, about.
const REPAIR_BYTES: u64 = 4 << 20;

/// Starts a replica from its disk.
pub(super) fn restore(restore: Restore<Vr>, out: &mut Outbox) -> Result<Replica, RestoreError> {
    let quorums = CrashQuorums::new(restore.replicas).ok_or(RestoreError::GroupSize(restore.replicas))?;
    let (durable, log, hint, head_known, fresh) = match replay(restore.records)? {
        None => {
            let (durable, record) = Durable::first();
            out.persist(Class::Promise, record);
            (durable, Log::new(super::Base::default()), OpNumber::ZERO, true, true)
        }
        Some(Replayed { promise, log, head_known }) => {
            (Durable::restored(&promise), log, promise.committed, head_known && !restore.tail_damaged, false)
        }
    };
    let saved = restore.checkpoint.map_or(OpNumber::ZERO, |checkpoint| checkpoint.op);
    let machine = Machine {
        dispatched: saved,
        executed: saved,
        boundary: saved,
        boundary_bytes: 0,
        saving: None,
        wake: restore.wake,
        fetching: None,
        behind: saved < log.base().op,
    };
    let mut replica = Replica {
        me: restore.replica,
        quorums,
        config: restore.config,
        durable,
        phase: Phase::RecoveringHead,
        committed: log.base().op,
        committed_max: log.base().op,
        log,
        machine,
        checkpoints: restore.checkpoint.into_iter().map(|checkpoint| (checkpoint.op, checkpoint)).collect(),
        stable: OpNumber::ZERO,
        reads: LocalReads::default(),
        asked: None,
        repair_turn: 0,
        repair_until: OpNumber::ZERO,
        promised_until: Instant::default(),
        batch_time: WallTime::default(),
        forfeited: false,
    };
    replica.alone_and_broken(head_known)?;
    replica.begin_at_checkpoint(saved, out);
    replica.make_promise(out); // a former self may have made one (leases)
    replica.commit_through(hint.max(saved).min(replica.log.head()), out);
    replica.choose_phase(head_known, fresh, out);
    Ok(replica)
}

impl Replica {
    /// Others replace what a replica cannot read. One that is alone must not pretend.
    fn alone_and_broken(&self, head_known: bool) -> Result<(), RestoreError> {
        if self.quorums.replicas() > 1 || (head_known && self.durable.head_known() && !self.machine.behind) {
            return Ok(());
        }
        let what = if self.machine.behind { "its last checkpoint" } else { "the end of its log" };
        Err(RestoreError::PromisesLost(format!("{what} cannot be read, and there is no other replica")))
    }

    /// What the checkpoint contains need not be in the log. If the log does not reach it, or cannot name its entry, then the
    /// checkpoint was fetched and the crash came before the log knew: the log is what was promised, the machine is ahead.
    fn begin_at_checkpoint(&mut self, saved: OpNumber, out: &mut Outbox) {
        if let Some(checksum) = self.log.checksum(saved).filter(|_| saved > self.log.whole_to()) {
            self.committed = saved;
            self.committed_max = saved;
            self.rebase(super::Base { op: saved, checksum }, out);
        }
    }

    /// The decision table of vr.md §2.5.
    fn choose_phase(&mut self, head_known: bool, fresh: bool, out: &mut Outbox) {
        if (!head_known || !self.durable.head_known()) && !mutated!("vr/takes-its-head-as-known") {
            out.note(Note::RecoveringHead);
            self.phase = Phase::RecoveringHead;
            self.ask_view(out);
        } else if self.view() > self.durable.log_view() {
            self.begin_view_change(out); // says again what it said before (R3)
        } else if self.primary() != self.me {
            self.become_backup(self.committed_max, out);
        } else if fresh || mutated!("vr/leads-its-view-again") {
            self.lead_first_view(out);
        } else {
            self.enter_view(self.view().next(), out); // case A: a view is led by one life of its primary only
        }
    }

    /// The first start of a cluster: view 0 has an empty log, which everybody knows.
    fn lead_first_view(&mut self, out: &mut Outbox) {
        let reads = super::reads::ReadRounds::new(true);
        let primary = super::replica::Primary::new(OpNumber::ZERO, reads, &self.quorums);
        self.phase = Phase::Primary(Box::new(primary));
        out.note(Note::ViewStarted { view: self.view(), primary: self.me, op: OpNumber::ZERO });
        out.arm(Timer::Heartbeat, self.config.heartbeat);
        self.acknowledge_own(out);
        self.arm_tick(out);
    }

    /// With leases, a promise not to help to end this view for a while (§2.8).
    pub(super) fn make_promise(&mut self, out: &Outbox) {
        if self.config.reads == Reads::Lease {
            self.promised_until = self.promised_until.max(out.now().plus(self.lease()));
        }
    }
}

/// Asking for a view's log.
impl Replica {
    /// ⟨GetView⟩ to all; the primary answers. One question at a time, asked again after a while.
    pub(super) fn ask_view(&mut self, out: &mut Outbox) {
        if self.asked.is_some() {
            return;
        }
        let nonce = out.nonce().max(1);
        self.asked = Some((nonce, self.committed));
        out.broadcast(Message::GetView { view: self.view(), committed: self.committed, nonce });
        self.arm_ask(out);
    }

    fn arm_ask(&self, out: &mut Outbox) {
        match &self.phase {
            Phase::RecoveringHead => out.arm(Timer::ViewAgain, self.config.resend),
            Phase::Backup(_) | Phase::Primary(_) | Phase::ViewChange(_) => {
                out.arm(Timer::Repair, self.config.resend);
            }
        }
    }

    pub(super) fn on_get_view(
        &mut self,
        from: ReplicaId,
        view: View,
        committed: OpNumber,
        nonce: u64,
        out: &mut Outbox,
    ) {
        if view > self.view() {
            return self.follow(view, out);
        }
        match self.phase {
            Phase::Primary(_) => self.tell_view(from, committed, nonce, out),
            _ => out.ignore(Peer::Replica(from), Why::NotPrimary),
        }
    }
}

/// Getting entries by their checksums.
impl Replica {
    /// Something is missing: ask for entries now, and for the view's log after a while. Whoever leads has perhaps just told
    /// it, and could not say more.
    pub(super) fn repair_if_needed(&mut self, out: &mut Outbox) {
        if self.asked.is_none() {
            if self.wants_view() {
                out.arm(Timer::Repair, self.config.resend);
            }
            self.ask_entries(out);
        }
    }

    /// Whoever leads has to say which checkpoint there is, or which entries are missing.
    fn wants_view(&self) -> bool {
        let (_, named) = self.log.missing();
        // Everybody was asked for entries, and none came: perhaps the others' logs begin later by now.
        let in_vain = usize::from(self.repair_turn) > self.quorums.replicas() && !self.log.is_whole();
        (self.machine.behind && self.machine.fetching.is_none())
            || ((!named || in_vain) && matches!(self.phase, Phase::Backup(_)))
    }

    /// It was asked for a while ago.
    pub(super) fn on_repair(&mut self, out: &mut Outbox) {
        self.asked = None;
        if self.wants_view() {
            self.ask_view(out);
        }
        self.ask_entries(out);
    }

    /// Asks for the first missing entries, each time another replica.
    fn ask_entries(&mut self, out: &mut Outbox) {
        let frozen = matches!(&self.phase, Phase::ViewChange(it) if !matches!(it.stage, Stage::Entries));
        if self.log.is_whole() || frozen {
            return;
        }
        let wanted = self.log.wanted(ENTRIES_MAX, REPAIR_BYTES);
        out.arm(Timer::Repair, self.config.resend);
        let Some((last, _)) = wanted.last() else { return };
        self.repair_until = *last;
        let others: Vec<_> = self.quorums.members().filter(|replica| *replica != self.me).collect();
        let first =
            if matches!(self.phase, Phase::Backup(_)) && self.repair_turn == 0 { Some(self.primary()) } else { None };
        let next = others.get(usize::from(self.repair_turn) % others.len().max(1)).copied();
        self.repair_turn = self.repair_turn.wrapping_add(1);
        if let Some(replica) = first.filter(|replica| *replica != self.me).or(next) {
            out.send(Peer::Replica(replica), Message::GetEntries { wanted });
        }
    }

    /// Serves what is here and is exactly what is asked for. Silence otherwise: it means nothing, never a nack.
    pub(super) fn on_get_entries(&mut self, from: ReplicaId, wanted: &[(OpNumber, Digest)], out: &mut Outbox) {
        let mut budget = REPAIR_BYTES.saturating_mul(2);
        for (op, checksum) in wanted {
            let Some(entry) = self.log.entry(*op).filter(|entry| entry.header.checksum() == *checksum) else {
                out.ignore(Peer::Replica(from), Why::NotHere);
                continue;
            };
            // An entry is what it is, whoever holds it: nothing is promised by passing it on.
            budget = budget.saturating_sub(entry.batch.len() as u64);
            out.send_unsynced(Peer::Replica(from), Message::Entry(entry));
            if budget == 0 {
                return;
            }
        }
    }

    pub(super) fn on_entry(&mut self, from: ReplicaId, entry: &Entry, out: &mut Outbox) {
        let may = match &self.phase {
            Phase::Backup(_) => true,
            Phase::ViewChange(waiting) => matches!(waiting.stage, Stage::Entries),
            Phase::Primary(_) | Phase::RecoveringHead => false,
        };
        if !may || !self.log.wants(entry) {
            // While a view has not started, the log that was vouched for must not change (R3).
            return out.ignore(Peer::Replica(from), Why::Unasked);
        }
        self.fill(entry, out);
        self.repair_turn = 0;
        self.acknowledge(false, out);
        self.commit_through(self.committed_max, out);
        self.start_if_whole(out);
        if !self.log.is_whole() && self.log.whole_to() >= self.repair_until {
            self.ask_entries(out); // all that was asked for has come: ask for the next
        }
    }

    /// Puts a missing entry into log and journal.
    pub(super) fn fill(&mut self, entry: &Entry, out: &mut Outbox) {
        let op = entry.header.op;
        let was_damaged = self.log.is_damaged(op);
        let seq = out.persist(Class::Entry, Record::Entry(entry.clone()));
        let filled = self.log.fill(entry, seq);
        assert!(filled, "only what is wanted is filled in");
        out.note(if was_damaged { Note::Repaired(op) } else { Note::Fetched(op) });
    }
}
