//! The replica: its state, and which handler takes what. The chapters are `normal` (HotStuff §5), `safety` (its rules, and
//! Jolteon's), `pacemaker` (views), `checkpoint`, `recovery` and `restore` (what was lost) and `reads`.

use super::ahead::Ahead;
use super::durable::{Base, Record, Root, Safety, Silence};
use super::message::{Header, Message, Place, Proposal, Qc, StateCheckpoint, Tc, Timeout, Vote};
use super::pacemaker::Concern;
use super::tree::Tree;
use super::{Config, HotStuff, Outbox, Timer};
use crate::pbft;
use crate::pbft::pace::{Grants, Quotas};
use crate::pbft::pool::Pool;
use crate::quorum_client::replica::Reads;
use bytes::Bytes;
use quorate_core::crypto::{Certificate, Evidence, Keyring, Signed, Verified};
use quorate_core::fault::{Fault, Why};
use quorate_core::ids::{OpNumber, Peer, RecordSeq, ReplicaId, View};
use quorate_core::protocol::{self, Checkpoint, ProposeTicket, QueryTicket, Restore, RestoreError, StateId, Status};
use quorate_core::quorum::ByzantineQuorums;
use quorate_core::sessions::Outcome;
use quorate_core::time::{Duration, WallTime};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What the machine has been given.
#[derive(Debug, Default)]
pub(super) struct Machine {
    /// Asked to apply.
    pub(super) dispatched: OpNumber,
    /// Has applied.
    pub(super) executed: OpNumber,
    /// The last block with requests that it has applied.
    pub(super) worked: OpNumber,
    /// The last height at which a snapshot was due, and bytes of payloads since.
    pub(super) boundary: OpNumber,
    pub(super) boundary_bytes: u64,
    /// A snapshot is due at the last block dispatched, once the record of it is on disk.
    pub(super) holding: Option<OpNumber>,
    /// The name of the state that it has been asked to come to.
    pub(super) name: StateId,
    /// When it wants a tick.
    pub(super) wake: Option<WallTime>,
    /// This state is being fetched.
    pub(super) fetching: Option<StateCheckpoint>,
    /// Those that were being fetched before it: each may come all the same.
    pub(super) former: BTreeMap<OpNumber, StateCheckpoint>,
    /// Who was asked for it, and who did not give one since the last that was installed.
    pub(super) source: Option<ReplicaId>,
    pub(super) failed: BTreeSet<ReplicaId>,
}

/// What a replica that has lost promises has been told (`recovery.rs`).
#[derive(Debug, Default)]
pub(super) struct Bounds {
    pub(super) nonce: u64,
    /// The highest certificate of each.
    pub(super) told: BTreeMap<ReplicaId, View>,
}

/// A question for blocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    /// Who was asked.
    pub(super) replica: ReplicaId,
    /// What follows after this height?
    pub(super) after: OpNumber,
    /// The highest certified block that it has brought and that is here.
    pub(super) brought: OpNumber,
    /// It has said since where it is, as it does at the end of its answer.
    pub(super) told: bool,
}

/// A replica of HotStuff.
#[derive(Debug)]
pub struct Replica {
    pub(super) me: ReplicaId,
    pub(super) quorums: ByzantineQuorums,
    pub(super) config: Config,
    pub(super) keyring: Arc<Keyring>,

    /// Durable, as records: see `durable.rs`.
    pub(super) safety: Safety,
    pub(super) state: Option<Certificate<StateCheckpoint>>,
    pub(super) silent: Option<Silence>,
    /// The promises have changed in this turn and are not written yet.
    pub(super) dirty: bool,

    pub(super) tree: Tree,
    /// The highest certificate (*qc_high*), checked.
    pub(super) high: Qc,
    /// The certificate that has committed the last block, since this replica started. Perhaps its branch was left, and nobody else has it.
    pub(super) decisive: Option<Qc>,
    /// The highest timeout certificate, checked.
    pub(super) tc: Option<Tc>,
    /// The leader's proposal in the present view.
    pub(super) seen: Option<Verified<Header>>,
    /// My proposal in the present view, to be said again.
    pub(super) proposed: Option<Proposal>,
    /// The program has said "now", and no block has followed yet (see [`super::Pacing`]).
    pub(super) cued: bool,
    /// A proposal whose parent is not here yet.
    pub(super) early: Option<Box<Proposal>>,
    /// The last vote of each replica for which I collect them.
    pub(super) votes: BTreeMap<ReplicaId, Verified<Vote>>,
    /// The last timeout of each replica.
    pub(super) timeouts: BTreeMap<ReplicaId, Verified<Timeout>>,
    /// My own, once they are on disk.
    pub(super) own_vote: Option<Signed<Vote>>,
    pub(super) own_timeout: Option<Signed<Timeout>>,
    /// No proposals up to this view: a former life has begun its term.
    pub(super) not_before: View,

    pub(super) pool: Pool,
    /// What the timer waits for.
    pub(super) concern: Option<Concern>,
    /// Attempts since the last commit.
    pub(super) attempts: usize,
    pub(super) state_votes: BTreeMap<ReplicaId, BTreeMap<OpNumber, Verified<StateCheckpoint>>>,
    /// Blocks of which a snapshot was asked for.
    pub(super) boundaries: BTreeMap<OpNumber, Root>,
    /// Snapshots of mine that are on disk.
    pub(super) snapshots: BTreeMap<OpNumber, StateCheckpoint>,
    pub(super) machine: Machine,
    pub(super) ahead: Ahead,
    pub(super) reads: Reads,
    pub(super) batch_time: WallTime,
    pub(super) tick_due: bool,
    pub(super) ticked: OpNumber,
    /// Where each of the others says that it is.
    pub(super) peers: BTreeMap<ReplicaId, Place>,
    /// The last question for blocks.
    pub(super) asked: Option<Asked>,
    /// Whom to ask next.
    pub(super) ask_turn: u64,
    /// [`Timer::Again`] is armed.
    pub(super) again: bool,
    /// The pause before it rings, and where we were when it last did.
    pub(super) pause: Duration,
    pub(super) told: Place,
    /// How much was answered to whom.
    pub(super) quotas: Quotas,
    pub(super) bounds: Bounds,
    /// What silent replicas were promised to get beyond.
    pub(super) grants: Grants<View>,
}

impl Replica {
    /// The view that this replica is in.
    pub(super) const fn view(&self) -> View {
        self.safety.view
    }

    pub(super) fn leader(&self, view: View) -> ReplicaId {
        self.config.leader(&self.quorums, view)
    }

    pub(super) fn leads(&self) -> bool {
        self.leader(self.view()) == self.me
    }

    /// What clients are told as the view: they find the leader by PBFT's rule.
    pub(super) fn term(&self) -> View {
        View::new(self.config.term(self.view()))
    }

    /// Everything up to here is committed, and here.
    pub(super) const fn committed(&self) -> OpNumber {
        self.tree.head().op
    }

    /// May this replica vote? Not while a former self may have voted otherwise.
    pub(super) const fn may_vote(&self) -> bool {
        self.silent.is_none()
    }

    pub(super) fn place(&self) -> Place {
        Place { view: self.view(), high: self.high.view(), committed: self.committed() }
    }

    pub(super) fn me(&self) -> Peer {
        Peer::Replica(self.me)
    }

    pub(super) fn new_view(&self) -> Message {
        // A certificate of a higher view makes the timeouts of a lower one worthless.
        let tc = self.tc.as_ref().filter(|tc| tc.view() > self.high.view() && self.high.view() >= tc.high());
        Message::NewView { justify: self.high.justify(), tc: tc.map(|tc| tc.certificate().clone()) }
    }

    pub(super) fn persist(&self, record: Record, out: &mut Outbox) -> RecordSeq {
        out.persist(record.class(), record)
    }

    /// The promises are written once in a turn, after everything that changes them; all that the turn sends waits for it.
    fn keep_promises(&mut self, out: &mut Outbox) {
        if std::mem::take(&mut self.dirty) {
            self.persist(Record::Safety(Box::new(self.safety.clone())), out);
        }
    }

    /// Everything small, anew. Holds the promises as they are.
    pub(super) fn write_base(&mut self, out: &mut Outbox) -> RecordSeq {
        self.dirty = false;
        let (root, safety, state) = (self.tree.base(), self.safety.clone(), self.state.clone());
        let roots = self.boundaries.values().copied().collect();
        self.persist(Record::Base(Box::new(Base { root, safety, roots, state, silent: self.silent })), out)
    }

    /// Proof, if there is any, else nobody is to blame: something was repeated.
    pub(super) fn convict(&self, evidence: Option<Evidence>, out: &mut Outbox) {
        match evidence {
            Some(evidence) => out.blame(Peer::Replica(evidence.accused()), evidence.into()),
            None => out.ignore(self.me(), Why::Duplicate),
        }
    }

    fn on_replicas_message(&mut self, from: ReplicaId, message: Message, out: &mut Outbox) -> Result<(), Fault> {
        let quorum = self.quorums.quorum();
        match message {
            Message::Client(pbft::Message::Request(group)) => {
                self.on_request(Peer::Replica(from), group.verified()?, out);
            }
            Message::Proposal(proposal) => self.on_proposal(from, *proposal, out)?,
            Message::Vote(vote) => self.on_vote(vote.verified()?, out),
            Message::Timeout { timeout, justify } => {
                self.on_timeout(from, timeout.verified()?, justify.certified(quorum)?, out);
            }
            Message::NewView { justify, tc } => {
                let tc = tc.map(|tc| tc.certified(quorum)).transpose()?;
                self.on_new_view(from, justify.certified(quorum)?, tc, out);
            }
            Message::State(vote) => self.on_state_vote(vote.verified()?, out),
            Message::Status(place) => self.on_status(from, place, out),
            Message::GetBlocks { after } => self.on_get_blocks(from, after, out),
            Message::Block { block, proof } => self.on_block(from, *block, proof.certified(quorum)?, out),
            Message::StateStable(certificate) => self.on_state_stable(from, certificate.certified(quorum)?, out),
            Message::GetBound { nonce } => self.on_get_bound(from, nonce, out),
            Message::Bound { nonce, justify, tc } => {
                let tc = tc.map(|tc| tc.certified(quorum)).transpose()?;
                self.on_bound(from, nonce, justify.certified(quorum)?, tc, out);
            }
            Message::GetBeyond { until } => self.on_get_beyond(from, until, out),
            Message::Durable(op) if from == self.me => self.on_durable(op, out),
            Message::Client(_) | Message::Durable(_) => out.ignore(Peer::Replica(from), Why::NotForSender),
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

impl protocol::Replica<HotStuff> for Replica {
    fn restore(_: Restore<HotStuff>, _: &mut Outbox) -> Result<Self, RestoreError> {
        Err(RestoreError::NoKey)
    }

    fn start(restore: Restore<HotStuff>, keyring: Arc<Keyring>, out: &mut Outbox) -> Result<Self, RestoreError> {
        let mut replica = super::restore::restore(restore, keyring, out)?;
        replica.keep_promises(out);
        Ok(replica)
    }

    fn on_message(&mut self, from: Peer, message: Message, out: &mut Outbox) {
        let taken = match from {
            Peer::Replica(replica) if self.quorums.contains(replica) => self.on_replicas_message(replica, message, out),
            from => self.on_clients_message(from, message, out),
        };
        if let Err(fault) = taken {
            out.blame(from, fault);
        }
        self.keep_promises(out);
    }

    fn on_timer(&mut self, timer: Timer, out: &mut Outbox) {
        match timer {
            Timer::Progress => self.on_progress(out),
            Timer::Again => self.on_again(out),
            Timer::Tick => self.on_tick(out),
        }
        self.keep_promises(out);
    }

    fn on_executed(&mut self, op: OpNumber, outcome: Outcome, out: &mut Outbox) {
        self.executed(op, outcome, out);
        self.keep_promises(out);
    }

    fn on_proposed(&mut self, ticket: ProposeTicket, made: Option<Bytes>, out: &mut Outbox) {
        self.made(ticket, made, out);
        self.keep_promises(out);
    }

    fn on_cue(&mut self, out: &mut Outbox) {
        self.cue(out);
        self.keep_promises(out);
    }

    fn on_queried(&mut self, ticket: QueryTicket, answer: Bytes, out: &mut Outbox) {
        self.queried(ticket, answer, out);
    }

    fn on_checkpoint(&mut self, checkpoint: Checkpoint, out: &mut Outbox) {
        self.saved(checkpoint, out);
        self.keep_promises(out);
    }

    fn on_installed(&mut self, checkpoint: Checkpoint, wake: Option<WallTime>, out: &mut Outbox) {
        self.installed(checkpoint, wake, out);
        self.keep_promises(out);
    }

    fn on_fetch_failed(&mut self, checkpoint: Checkpoint, out: &mut Outbox) {
        self.fetch_failed(checkpoint, out);
        self.keep_promises(out);
    }

    fn status(&self) -> Status {
        let role = if self.silent.is_some() {
            "silent: its promises were lost"
        } else if self.machine.fetching.is_some() {
            "fetching state"
        } else if self.safety.voted >= self.config.term_end(self.view()) {
            "changing view" // it has given the leader up
        } else if self.leads() {
            "primary"
        } else {
            "backup"
        };
        let heights: BTreeSet<OpNumber> = self.tree.open().map(|(_, block)| block.header.height).collect();
        Status {
            role: role.to_owned(),
            view: self.view(),
            op: heights.last().copied().unwrap_or_default().max(self.committed()),
            committed: self.committed(),
            executed: self.machine.executed,
            checkpoint: self.snapshots.last_key_value().map_or(OpNumber::ZERO, |(op, _)| *op),
            missing: u64::from(!self.tree.contains(self.high.block())),
        }
    }

    fn check(&self) -> Result<(), String> {
        super::invariants::check(self)
    }
}
