//! The replica: its state, and which handler takes what. The chapters are `ucb` and `normal` (seed 004: casts, epochs, blocks,
//! outputs), `guard` (is the model kept?), `view_change`, `checkpoint` and `recovery`.

use super::clock::{Clock, Reading};
use super::content::Block;
use super::durable::{Base, Record};
use super::guard::Guard;
use super::log::Log;
use super::message::{Message, NewView, Place, Proposal, State, ViewChange, Vote};
use super::order::Order;
use super::scb::Instance;
use super::schedule::{EpochNumber, Schedule};
use super::ucb::Ucb;
use super::votes::Ballots;
use super::{Config, Outbox, SyncTob, Timer};
use crate::pbft;
use crate::pbft::pace::{Grants, Quotas};
use crate::quorum_client::replica::Reads;
use bytes::Bytes;
use quorate_core::crypto::{Certificate, Certified, Digest, Evidence, Keyring, Signed, Verified};
use quorate_core::fault::{Fault, Why};
use quorate_core::ids::{OpNumber, Peer, RecordSeq, ReplicaId, View};
use quorate_core::protocol::{self, Checkpoint, QueryTicket, Restore, RestoreError, Status};
use quorate_core::quorum::SyncQuorums;
use quorate_core::sessions::Outcome;
use quorate_core::time::{Duration, Instant, WallTime};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The role of a replica with which all is well, for people: there is no primary.
pub(super) const IN_TURN: &str = "leads in turn";

/// Where a replica stands between views.
#[derive(Debug)]
pub(super) enum Phase {
    /// The view has started here.
    Active {
        /// Is the chain that it starts with here?
        adopted: bool,
    },
    /// It has not: nothing is voted for.
    Changing {
        /// A quorum wants this view: who leads it has had its chance since then.
        quorum: bool,
        /// Where agreement rests on time: how far its beginning is.
        beginning: Beginning,
    },
}

/// Before a view starts where agreement rests on time: two rounds each, so that all who are correct have been heard.
#[derive(Debug)]
pub(super) enum Beginning {
    /// Nothing has come.
    Nothing,
    /// I lead it, and gather what all others have confirmed.
    Gathers,
    /// This is how it starts, unless somebody knows better.
    Offered(Box<Signed<NewView>>),
    /// It does not start: who leads it says two things, or not what is certified.
    Refused,
}

/// A scheduled broadcast under way, and what its values stand for.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) instance: Instance<Proposal>,
    pub(super) blocks: Vec<Block>,
}

/// What the machine has been given. The last block that it was asked to apply is `Replica::order`'s.
#[derive(Debug, Default)]
pub(super) struct Machine {
    /// Has applied.
    pub(super) executed: OpNumber,
    /// The last block at which a snapshot was due, and bytes of requests since.
    pub(super) boundary: OpNumber,
    pub(super) boundary_bytes: u64,
    /// When it wants a tick.
    pub(super) wake: Option<WallTime>,
    /// What the order of its next block depends on is lost, or that block is: it takes a state from the others.
    pub(super) adrift: bool,
    /// This state is being fetched.
    pub(super) fetching: Option<State>,
    /// Those that were being fetched before it: each may come all the same.
    pub(super) former: BTreeMap<OpNumber, State>,
    /// Fetches that have failed.
    pub(super) failed: u64,
}

/// A replica of synchronous total-order broadcast.
#[derive(Debug)]
pub struct Replica {
    pub(super) me: ReplicaId,
    pub(super) quorums: SyncQuorums,
    pub(super) config: Config,
    pub(super) schedule: Schedule,
    pub(super) keyring: Arc<Keyring>,
    pub(super) clock: Clock,
    pub(super) guard: Guard,

    /// Durable, as records: see `durable.rs`.
    pub(super) view: View,
    pub(super) start: Option<Signed<NewView>>,
    pub(super) voted: Option<Vote>,
    pub(super) certified: Option<Certified<Vote>>,
    pub(super) base: Order,
    pub(super) state: Option<Certificate<State>>,
    pub(super) silent: bool,
    /// The last life in which anything was cast.
    pub(super) life: u64,
    /// The last epoch that I led, or let pass.
    pub(super) led: EpochNumber,
    /// What the others commit that began after this ends the silence; `None` until clocks agree.
    pub(super) silent_until: Option<WallTime>,
    pub(super) log: Log,

    /// What silent replicas were promised to get beyond.
    pub(super) grants: Grants<WallTime>,
    pub(super) phase: Phase,
    /// Votes of this view are for blocks from this one on: those before it were voted for in an earlier view.
    pub(super) vote_from: OpNumber,
    /// Everything up to here is committed, and its place in the chain is here.
    pub(super) committed: OpNumber,
    /// Somebody has proven that more is committed.
    pub(super) heard: OpNumber,
    /// What the order depends on, after the last block that the machine was asked to apply.
    pub(super) order: Order,
    pub(super) machine: Machine,
    /// What each block moved that is not executed yet.
    pub(super) moved: BTreeMap<OpNumber, Vec<Digest>>,

    pub(super) ucb: Ucb,
    pub(super) running: BTreeMap<EpochNumber, Running>,
    /// The epoch for which [`Timer::Epoch`] is armed.
    pub(super) due: Option<EpochNumber>,
    pub(super) votes: Ballots<Vote>,
    pub(super) commits: Ballots<super::message::Commit>,
    /// Leaders that have lied, with the proof that a block needs.
    pub(super) convicted: BTreeMap<ReplicaId, (Signed<Proposal>, Signed<Proposal>)>,

    /// The last view change of each replica.
    pub(super) changes: BTreeMap<ReplicaId, Verified<ViewChange>>,
    /// My own, once it is on disk.
    pub(super) own_change: Option<Signed<ViewChange>>,
    /// It could not be made: what is proven is not here yet.
    pub(super) change_due: bool,
    /// Views in a row that brought nothing.
    pub(super) attempts: u32,
    /// What was committed when [`Timer::Stuck`] was armed.
    pub(super) watched: Option<OpNumber>,

    pub(super) state_votes: BTreeMap<ReplicaId, BTreeMap<OpNumber, Verified<State>>>,
    /// Snapshots of mine that are on disk.
    pub(super) snapshots: BTreeMap<OpNumber, State>,
    /// What the order depended on where snapshots were begun.
    pub(super) orders: BTreeMap<OpNumber, Order>,
    pub(super) reads: Reads,
    /// What each of the others may still ask for in this period.
    pub(super) quotas: Quotas,

    /// How far each of the others says that it is.
    pub(super) peers: BTreeMap<ReplicaId, Place>,
    /// Who was asked for what is committed, and where we were then.
    pub(super) asked: Option<(ReplicaId, OpNumber)>,
    /// Whose history is being compared with mine, and after which block.
    pub(super) doubt: Option<(ReplicaId, OpNumber)>,
    pub(super) ask_turn: u64,
    /// The same for blocks and bundles: with one count for both, each would always come to the same few.
    pub(super) body_turn: u64,
    /// What was asked for by its digest, and when.
    pub(super) wanted: BTreeMap<Digest, Instant>,
    /// [`Timer::Again`] is armed.
    pub(super) again: bool,
    pub(super) pause: Duration,
    pub(super) told: OpNumber,
    /// When my last vote was made, until it is on disk.
    pub(super) vote_made: Option<Instant>,
}

impl Replica {
    pub(super) fn me(&self) -> Peer {
        Peer::Replica(self.me)
    }

    pub(super) fn now(&self, out: &Outbox) -> WallTime {
        self.clock.show(out.now())
    }

    pub(super) fn reading(&self, out: &Outbox) -> Reading {
        self.clock.reading(out.now())
    }

    pub(super) const fn is_active(&self) -> bool {
        matches!(self.phase, Phase::Active { .. })
    }

    /// Is the view's chain here, so that it can grow?
    pub(super) const fn is_adopted(&self) -> bool {
        matches!(self.phase, Phase::Active { adopted: true })
    }

    /// The first epoch of the view.
    pub(super) fn first_epoch(&self) -> EpochNumber {
        self.start.as_ref().map_or(EpochNumber::ZERO, |start| start.statement().first)
    }

    /// Does this replica lack something that is committed?
    pub(super) fn is_behind(&self) -> bool {
        self.heard > self.committed
    }

    pub(super) fn others(&self) -> impl Iterator<Item = ReplicaId> + use<> {
        let me = self.me;
        self.quorums.members().filter(move |replica| *replica != me)
    }

    pub(super) fn place(&self) -> Place {
        Place { view: self.view, active: self.is_active(), committed: self.committed }
    }

    pub(super) fn persist(&self, record: Record, out: &mut Outbox) -> RecordSeq {
        out.persist(record.class(), record)
    }

    /// The last proof of what is committed here.
    pub(super) fn proof(&self) -> Option<Certificate<super::message::Commit>> {
        self.log.proofs.values().next_back().map(|(proof, _)| proof.clone())
    }

    pub(super) fn base_record(&self) -> Box<Base> {
        Box::new(Base {
            order: self.base.clone(),
            view: self.view,
            start: self.start.clone(),
            voted: self.voted,
            certified: self.certified.as_ref().map(|it| it.certificate().clone()),
            committed: self.proof(),
            state: self.state.clone(),
            life: self.life,
            led: self.led,
            silent: self.silent,
        })
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

    fn on_replicas_message(&mut self, from: ReplicaId, message: Message, out: &mut Outbox) -> Result<(), Fault> {
        match message {
            Message::Cast { chain, bundle } => self.on_cast(from, chain, bundle, out)?,
            Message::Echo { head, echo } => self.on_echo(head, echo, out)?,
            Message::Propose { chain, block } => self.on_propose(from, chain, block, out)?,
            Message::Vote(vote) => self.on_vote(vote.verified()?, out),
            Message::Commit(vote) => self.on_commit(vote.verified()?, out),
            Message::State(vote) => self.on_state(vote.verified()?, out),
            Message::ViewChange(change) => self.on_view_change(from, change.verified()?, out),
            Message::NewView(start) => self.on_new_view(from, start.verified()?, out),
            Message::Status { place, asks } => self.on_status(from, place, asks, out),
            Message::GetDecided { after } => self.on_get_decided(from, after, out),
            Message::Decided { first, links, certificate } => {
                self.on_decided(from, first, &links, certificate.certified(self.quorums.quorum())?, out);
            }
            Message::StateStable(certificate) => {
                self.on_state_stable(from, certificate.certified(self.quorums.quorum())?, out);
            }
            Message::GetBodies { blocks, bundles } => self.on_get_bodies(from, &blocks, &bundles, out),
            Message::BlockBody(block) => self.on_block_body(block, out),
            Message::BundleBody(bundle) => self.on_bundle_body(bundle, out),
            Message::Probe { sent } => self.on_probed(from, sent, out),
            Message::Time { sent, clock } => self.on_time(from, sent, clock, out),
            Message::GetBeyond { until } => self.on_get_beyond(from, until, out),
            Message::Client(_) => out.ignore(Peer::Replica(from), Why::NotForSender),
        }
        Ok(())
    }

    fn on_clients_message(&mut self, from: Peer, message: Message, out: &mut Outbox) -> Result<(), Fault> {
        match (from, message) {
            (Peer::Client(client), Message::Client(pbft::Message::Request(group)))
                if group.statement().client == client =>
            {
                self.on_request(from, group.verified()?, out);
            }
            (Peer::Client(client), Message::Client(pbft::Message::Read { id, consistency, full, query })) => {
                self.on_read(client, id, consistency, full, query, out);
            }
            (from, _) => out.ignore(from, Why::NotForSender),
        }
        Ok(())
    }
}

impl protocol::Replica<SyncTob> for Replica {
    fn restore(_: Restore<SyncTob>, _: &mut Outbox) -> Result<Self, RestoreError> {
        Err(RestoreError::NoKey)
    }

    fn start(restore: Restore<SyncTob>, keyring: Arc<Keyring>, out: &mut Outbox) -> Result<Self, RestoreError> {
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
            Timer::Epoch => self.on_epoch(out),
            Timer::Output => self.on_output(out),
            Timer::Cast => self.cast_more(out),
            Timer::Probe => self.on_probe(out),
            Timer::Listen => self.on_listen(out),
            Timer::Disk => self.on_disk(out),
            Timer::Stuck => self.on_stuck(out),
            Timer::NewView => self.on_new_view_late(out),
            Timer::Settle => self.on_settle(out),
            Timer::Again => self.on_again(out),
            Timer::Tick => self.on_tick(out),
        }
    }

    fn on_executed(&mut self, op: OpNumber, outcome: Outcome, out: &mut Outbox) {
        self.executed(op, outcome, out);
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
            _ if self.silent => "silent: its promises were lost".to_owned(),
            _ if self.machine.fetching.is_some() => "fetching state".to_owned(),
            Phase::Changing { .. } => "changing view".to_owned(),
            Phase::Active { .. } => self.guard.role().unwrap_or(IN_TURN).to_owned(),
        };
        let missing = self.log.after(self.order.op).filter(|link| link.op <= self.committed).count() as u64;
        Status {
            role,
            view: self.view,
            op: self.log.tip().0.max(self.committed),
            committed: self.committed,
            executed: self.machine.executed,
            checkpoint: self.snapshots.last_key_value().map_or(OpNumber::ZERO, |(op, _)| *op),
            missing: if self.machine.fetching.is_some() { missing } else { 0 },
        }
    }

    fn check(&self) -> Result<(), String> {
        super::invariants::check(self)
    }
}
