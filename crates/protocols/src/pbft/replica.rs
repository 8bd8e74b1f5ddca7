//! The replica: its state, and which handler takes what. The chapters are `normal` (Castro and Liskov §4.2), `checkpoint`
//! (§4.3), `view_change` (§4.4), `recovery` (retransmission, transfer, the disk) and `reads` (§5.1).

use super::answered::Answered;
use super::durable::{Base, Record, Silence};
use super::log::{Log, Slot};
use super::message::{LogCheckpoint, Message, NewView, Place, Proposal, StateCheckpoint, ViewChange};
use super::pace::{Grants, Pace, Quotas};
use super::pool::Pool;
use super::tentative::Tentative;
use super::{Config, Outbox, Pbft, Timer};
use crate::quorum_client::replica::Reads;
use bytes::Bytes;
use quorate_core::crypto::{Certificate, Certified, Digest, Evidence, Keyring, Signed, Verified};
use quorate_core::fault::{Fault, Why};
use quorate_core::ids::{OpNumber, Peer, RecordSeq, ReplicaId, View};
use quorate_core::mutated;
use quorate_core::protocol::{self, Checkpoint, QueryTicket, Restore, RestoreError, StateId, Status};
use quorate_core::quorum::ByzantineQuorums;
use quorate_core::sessions::Outcome;
use quorate_core::time::{Duration, WallTime};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Where a replica stands between views.
#[derive(Debug)]
pub(super) enum Phase {
    /// The view has started here.
    Active,
    /// It has not (§4.4: no PRE-PREPARE, PREPARE or COMMIT is taken or sent).
    Changing {
        /// A quorum wants this view: its primary has had its chance since then.
        quorum: bool,
    },
}

/// What the machine has been given.
#[derive(Debug, Default)]
pub(super) struct Machine {
    /// Asked to apply.
    pub(super) dispatched: OpNumber,
    /// Has applied.
    pub(super) executed: OpNumber,
    /// The last entry at which a snapshot was due, and bytes of proposals since.
    pub(super) boundary: OpNumber,
    pub(super) boundary_bytes: u64,
    /// When it wants a tick.
    pub(super) wake: Option<WallTime>,
    /// This state is being fetched.
    pub(super) fetching: Option<StateCheckpoint>,
    /// From this replica. These have failed to give one since the last that was installed.
    pub(super) source: Option<ReplicaId>,
    pub(super) failed: BTreeSet<ReplicaId>,
    /// The last of which there is a record because it was to be fetched.
    pub(super) noted: Option<StateCheckpoint>,
    /// Those that were being fetched before it: each may come all the same.
    pub(super) former: BTreeMap<OpNumber, StateCheckpoint>,
}

/// What a replica that has lost promises has been told (`recovery.rs`).
#[derive(Debug, Default)]
pub(super) struct Bounds {
    pub(super) nonce: u64,
    /// The stable checkpoint that each replica reports.
    pub(super) told: BTreeMap<ReplicaId, OpNumber>,
}

/// A replica of PBFT.
#[derive(Debug)]
pub struct Replica {
    pub(super) me: ReplicaId,
    pub(super) quorums: ByzantineQuorums,
    pub(super) config: Config,
    pub(super) keyring: Arc<Keyring>,

    /// Durable, as records: see `durable.rs`.
    pub(super) view: View,
    pub(super) start: Option<Signed<NewView>>,
    pub(super) stable: Option<Certificate<LogCheckpoint>>,
    pub(super) state: Option<Certificate<StateCheckpoint>>,
    pub(super) base: (OpNumber, Digest),
    pub(super) silent: Option<Silence>,

    pub(super) phase: Phase,
    pub(super) log: Log,
    /// Everything up to here is committed and here.
    pub(super) committed: OpNumber,
    /// The last entry that I, as primary, have proposed.
    pub(super) proposed: OpNumber,
    /// PRE-PREPAREs above the high watermark, which is about to move, or of a view that is about to start; a few of them.
    pub(super) early: BTreeMap<OpNumber, Message>,
    pub(super) pool: Pool,
    /// What clients may ask for again.
    pub(super) answered: Answered,
    /// The request whose execution the timer waits for.
    pub(super) watched: Option<u64>,
    /// What the primary of this view achieves, and how much was answered to whom.
    pub(super) pace: Pace,
    pub(super) quotas: Quotas,
    /// The last entry that the view started with.
    pub(super) view_began: OpNumber,
    /// Views in a row that brought nothing.
    pub(super) attempts: u32,
    /// The last view change of each replica.
    pub(super) changes: BTreeMap<ReplicaId, Verified<ViewChange>>,
    /// Proposals that those of the present view show, fetched to start it: each is named by a certificate, hence they are no
    /// more than a window for each replica.
    pub(super) shown: BTreeMap<(OpNumber, Digest), Proposal>,
    /// My own, once it is on disk.
    pub(super) own_change: Option<Signed<ViewChange>>,
    pub(super) checkpoint_votes: BTreeMap<OpNumber, super::log::Ballots<LogCheckpoint>>,
    /// My last, once it is on disk.
    pub(super) own_checkpoint: Option<Signed<LogCheckpoint>>,
    pub(super) state_votes: BTreeMap<ReplicaId, BTreeMap<OpNumber, Verified<StateCheckpoint>>>,
    /// Snapshots of mine that are on disk.
    pub(super) snapshots: BTreeMap<OpNumber, StateCheckpoint>,
    pub(super) machine: Machine,
    /// What the machine has executed and is not committed.
    pub(super) tentative: Tentative,
    pub(super) reads: Reads,
    pub(super) batch_time: WallTime,
    pub(super) tick_due: bool,
    pub(super) ticked: OpNumber,
    /// How far each of the others says that it is.
    pub(super) peers: BTreeMap<ReplicaId, Place>,
    /// Who was asked for committed entries, and where we were then.
    pub(super) asked: Option<(ReplicaId, OpNumber)>,
    /// Whom to ask next.
    pub(super) ask_turn: u64,
    /// [`Timer::Again`] is armed.
    pub(super) again: bool,
    /// The pause before it rings, and where we were when it last did.
    pub(super) pause: Duration,
    pub(super) told: OpNumber,
    /// Everything from before this life, and that the view has started, is on disk: a primary may send what overtakes it.
    pub(super) ready: bool,
    pub(super) bounds: Bounds,
    /// What silent replicas were promised to get beyond.
    pub(super) grants: Grants<OpNumber>,
}

impl Replica {
    pub(crate) fn primary(&self) -> ReplicaId {
        self.quorums.primary(self.view)
    }

    pub(super) fn is_primary(&self) -> bool {
        self.primary() == self.me
    }

    /// For a protocol around this one: the view that this replica is in.
    pub(crate) const fn view(&self) -> View {
        self.view
    }

    /// For a protocol around this one: does this replica propose?
    pub(crate) fn leads(&self) -> bool {
        self.is_active() && self.is_primary() && self.may_vote()
    }

    pub(super) fn is_active(&self) -> bool {
        matches!(self.phase, Phase::Active)
    }

    /// The low watermark (h).
    pub(super) fn low(&self) -> OpNumber {
        self.stable.as_ref().map_or(OpNumber::ZERO, |stable| stable.statement().op)
    }

    /// The high watermark (H = h + L).
    pub(super) fn high(&self) -> OpNumber {
        self.low().plus(self.config.window())
    }

    /// May this replica vote? Not while a former self may have voted otherwise.
    pub(crate) const fn may_vote(&self) -> bool {
        self.silent.is_none()
    }

    pub(super) fn place(&self) -> Place {
        Place { view: self.view, active: self.is_active(), committed: self.committed, stable: self.low() }
    }

    pub(super) fn me(&self) -> Peer {
        Peer::Replica(self.me)
    }

    pub(super) fn persist(&self, record: Record, out: &mut Outbox) -> RecordSeq {
        out.persist(record.class(), record)
    }

    /// Keeps a record about an entry.
    pub(super) fn keep(&mut self, op: OpNumber, record: Record, out: &mut Outbox) {
        let seq = self.persist(record, out);
        self.log.slot(op).recorded(seq);
    }

    pub(super) fn base_record(&self) -> Box<Base> {
        let (op, chain) = self.base;
        let (start, stable, state) = (self.start.clone(), self.stable.clone(), self.state.clone());
        Box::new(Base { op, chain, view: self.view, start, stable, state, silent: self.silent })
    }

    /// Proof, if there is any, else nobody is to blame: a vote was repeated.
    pub(super) fn convict(&self, evidence: Option<Evidence>, out: &mut Outbox) {
        match evidence {
            Some(evidence) => out.blame(Peer::Replica(evidence.accused()), evidence.into()),
            None => out.ignore(self.me(), Why::Duplicate),
        }
    }

    /// What does not belong to the view that is active here.
    pub(super) fn refuses_view(&self, view: View) -> Option<Why> {
        if view < self.view {
            Some(Why::OldView)
        } else if view > self.view {
            Some(Why::NewerView)
        } else {
            (!self.is_active()).then_some(Why::NotNow)
        }
    }

    /// What is outside the watermarks.
    pub(super) fn refuses_op(&self, op: OpNumber) -> Option<Why> {
        let outside = op <= self.low() || op > self.high();
        (outside && !mutated!("pbft/no-watermarks")).then_some(Why::OutsideWindow)
    }

    fn on_replicas_message(&mut self, from: ReplicaId, message: Message, out: &mut Outbox) -> Result<(), Fault> {
        match message {
            Message::Request(group) => self.on_request(Peer::Replica(from), group.verified()?, out),
            Message::PrePrepare { vote, proposal } => self.on_pre_prepare(vote.verified()?, proposal, out),
            Message::Prepare(vote) => self.on_prepare(vote.verified()?, out),
            Message::Commit(vote) => self.on_commit(vote.verified()?, out),
            Message::Checkpoint(vote) => self.on_checkpoint_vote(vote.verified()?, out),
            Message::State(vote) => self.on_state_vote(vote.verified()?, out),
            Message::ViewChange(change) => self.on_view_change(change.verified()?, out),
            Message::NewView(start) => self.on_new_view(from, start.verified()?, out),
            Message::Status(place) => self.on_status(from, place, out),
            Message::GetCommitted { after } => self.on_get_committed(from, after, out),
            Message::Committed { certificate, proposal } => {
                self.on_committed(certificate.certified(self.quorums.quorum())?, proposal, out);
            }
            Message::Stable(certificate) => {
                let certified: Certified<LogCheckpoint> = certificate.certified(self.quorums.quorum())?;
                self.on_stable(certified, out);
            }
            Message::StateStable(certificate) => {
                self.on_state_stable(from, certificate.certified(self.quorums.quorum())?, out);
            }
            Message::GetProposals { wanted } => self.on_get_proposals(from, &wanted, out),
            Message::Proposal { op, proposal } => self.on_proposal(op, proposal, out),
            Message::GetBound { nonce } => self.on_get_bound(from, nonce, out),
            Message::GetBeyond { until } => self.on_get_beyond(from, until, out),
            Message::Bound { nonce, view, stable } => self.on_bound(from, nonce, view, stable, out)?,
            Message::Reply(_)
            | Message::Tentative(_)
            | Message::Busy { .. }
            | Message::Read { .. }
            | Message::ReadReply { .. } => {
                out.ignore(Peer::Replica(from), Why::NotForSender);
            }
        }
        Ok(())
    }

    fn on_clients_message(&mut self, from: Peer, message: Message, out: &mut Outbox) -> Result<(), Fault> {
        match (from, message) {
            (Peer::Client(client), Message::Request(group)) if group.statement().client == client => {
                self.on_request(from, group.verified()?, out);
            }
            (Peer::Client(client), Message::Read { id, consistency, full, query }) => {
                self.on_read(client, id, consistency, full, query, out);
            }
            (from, _) => out.ignore(from, Why::NotForSender),
        }
        Ok(())
    }
}

impl protocol::Replica<Pbft> for Replica {
    fn restore(_: Restore<Pbft>, _: &mut Outbox) -> Result<Self, RestoreError> {
        Err(RestoreError::NoKey)
    }

    fn start(restore: Restore<Pbft>, keyring: Arc<Keyring>, out: &mut Outbox) -> Result<Self, RestoreError> {
        super::recovery::restore(restore, keyring, out)
    }

    fn on_message(&mut self, from: Peer, message: Message, out: &mut Outbox) {
        let taken = match from {
            Peer::Replica(replica) if self.quorums.contains(replica) => self.on_replicas_message(replica, message, out),
            from => self.on_clients_message(from, message, out),
        };
        if let Err(fault) = taken {
            out.blame(from, fault);
        }
    }

    fn on_timer(&mut self, timer: Timer, out: &mut Outbox) {
        match timer {
            Timer::Progress => self.on_progress(out),
            Timer::NewView => self.on_new_view_late(out),
            Timer::Again => self.on_again(out),
            Timer::Tick => self.on_tick(out),
        }
    }

    fn on_executed(&mut self, op: OpNumber, outcome: Outcome, out: &mut Outbox) {
        self.executed(op, outcome, out);
    }

    fn on_speculated(&mut self, state: StateId, outcome: Outcome, out: &mut Outbox) {
        self.tried(state, outcome, out);
    }

    fn on_queried(&mut self, ticket: QueryTicket, answer: Bytes, out: &mut Outbox) {
        self.queried(ticket, answer, out);
    }

    fn on_checkpoint(&mut self, checkpoint: Checkpoint, out: &mut Outbox) {
        self.saved(checkpoint, out);
    }

    fn on_installed(&mut self, checkpoint: Checkpoint, wake: Option<WallTime>, out: &mut Outbox) {
        self.installed(checkpoint, wake, out);
    }

    fn on_fetch_failed(&mut self, checkpoint: Checkpoint, out: &mut Outbox) {
        self.fetch_failed(checkpoint, out);
    }

    fn status(&self) -> Status {
        let role = match self.phase {
            _ if self.silent.is_some() => "silent: its promises were lost",
            _ if self.machine.fetching.is_some() => "fetching state",
            Phase::Changing { .. } => "changing view",
            Phase::Active if self.is_primary() => "primary",
            Phase::Active => "backup",
        };
        Status {
            role: role.to_owned(),
            view: self.view,
            op: self.log.last().max(self.committed),
            committed: self.committed,
            executed: self.machine.executed,
            checkpoint: self.snapshots.last_key_value().map_or(OpNumber::ZERO, |(op, _)| *op),
            missing: self.log.iter().filter(|(_, slot)| slot.missing().is_some()).count() as u64,
        }
    }

    fn check(&self) -> Result<(), String> {
        super::invariants::check(self)
    }
}

/// Is the entry's slot of use to a view change: prepared, above the watermark?
pub(super) fn is_prepared(slot: &Slot) -> bool {
    slot.prepared.is_some()
}
