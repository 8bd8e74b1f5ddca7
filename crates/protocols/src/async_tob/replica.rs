//! The replica: its state, and which handler takes what. The chapters are `normal` (requests, lanes, execution), `epoch`
//! (proposals, agreements, union, commit), `checkpoint` (states), `recovery` (retransmission, catching up, lost promises),
//! `restore` (the disk) and `reads`.

use super::durable::{Base, Record, Silence};
use super::epoch::Epoch;
use super::lanes::{Lane, Uncertified};
use super::message::{Decided, Head, Message, StateMark, Vote};
use super::pool::Pool;
use super::{AsyncTob, Config, Outbox, Timer};
use crate::pbft;
use crate::pbft::pace::{Grants, Quotas};
use crate::quorum_client::replica::Reads;
use bytes::Bytes;
use quorate_core::crypto::{Digest, Evidence, Keyring};
use quorate_core::fault::{Fault, Why};
use quorate_core::ids::{OpNumber, Peer, RecordSeq, ReplicaId, View};
use quorate_core::protocol::{self, Checkpoint, QueryTicket, Restore, RestoreError, Status};
use quorate_core::quorum::ByzantineQuorums;
use quorate_core::sessions::Outcome;
use quorate_core::time::{Duration, Instant, WallTime};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What the machine has been given.
#[derive(Debug, Default)]
pub(super) struct Machine {
    /// Asked to apply.
    pub(super) dispatched: OpNumber,
    /// Has applied.
    pub(super) executed: OpNumber,
    /// The last epoch at which a snapshot was due, and bytes of payloads since.
    pub(super) boundary: OpNumber,
    pub(super) boundary_bytes: u64,
    /// When it wants a tick.
    pub(super) wake: Option<WallTime>,
    /// This state is being fetched.
    pub(super) fetching: Option<StateMark>,
    /// Those that were being fetched before: whoever changes its mind while a state is being installed gets that one all the
    /// same.
    pub(super) former: BTreeMap<OpNumber, StateMark>,
}

/// Where another replica says that it is.
#[derive(Debug, Default)]
pub(super) struct Place {
    pub(super) committed: OpNumber,
    /// Its last Commit. Other words may have told of more since.
    pub(super) said: Option<(OpNumber, Digest)>,
    /// Its log begins after this epoch.
    pub(super) base: OpNumber,
    pub(super) states: Vec<StateMark>,
}

/// What a replica that is behind has been told.
#[derive(Debug, Default)]
pub(super) struct CatchUp {
    /// What each of the others says was decided, above what is committed here.
    pub(super) claims: BTreeMap<ReplicaId, BTreeMap<OpNumber, Decided>>,
    /// Where we were when we last asked.
    pub(super) asked: Option<OpNumber>,
    /// At how many rings in a row nothing had come of that.
    pub(super) in_vain: u8,
    /// A batch that is decided and missing.
    pub(super) wanted: Option<(ReplicaId, Head)>,
    /// Somebody was asked for this lane's batches from this height down.
    pub(super) stream: Option<(ReplicaId, u64)>,
    /// Whom to ask next.
    pub(super) turn: u64,
}

/// What a replica that has lost promises has been told.
#[derive(Debug, Default)]
pub(super) struct Bounds {
    pub(super) nonce: u64,
    /// The epoch that each replica has committed.
    pub(super) told: BTreeMap<ReplicaId, OpNumber>,
}

/// A replica of asynchronous total-order broadcast.
#[derive(Debug)]
pub struct Replica {
    pub(super) me: ReplicaId,
    pub(super) quorums: ByzantineQuorums,
    pub(super) config: Config,
    pub(super) keyring: Arc<Keyring>,

    /// Durable, as records: see `durable.rs`.
    pub(super) base: Decided,
    pub(super) decided: BTreeMap<OpNumber, (Decided, RecordSeq)>,
    /// One's own batches are above this height, and nothing is said in the epochs that it stands for (`restore.rs`).
    pub(super) floor: u64,
    pub(super) silent: Option<Silence>,

    /// By the replicas' numbers.
    pub(super) lanes: Vec<Lane>,
    pub(super) uncertified: Uncertified,
    /// What `n - t` replicas had certainly committed when this life began: the former one has spoken a window above it.
    pub(super) closed_before: OpNumber,
    /// Above what `n - t` replicas have committed.
    pub(super) epochs: BTreeMap<OpNumber, Epoch>,
    /// Words that are to be said; a message of them waits for the disk at any time, and they gather meanwhile.
    pub(super) words: Vec<Vote>,
    pub(super) speaking: bool,

    pub(super) pool: Pool,
    pub(super) machine: Machine,
    pub(super) reads: Reads,
    /// What each of the others may still ask for in this period.
    pub(super) quotas: Quotas,
    /// What silent replicas were promised to get beyond.
    pub(super) grants: Grants<OpNumber>,
    pub(super) tick_due: bool,
    /// Snapshots of mine that are on disk.
    pub(super) snapshots: BTreeMap<OpNumber, StateMark>,
    pub(super) peers: BTreeMap<ReplicaId, Place>,
    pub(super) catch_up: CatchUp,
    pub(super) bounds: Bounds,
    /// [`Timer::Resend`] is armed; the pause before it rings; how much had happened when it last did, and what was committed.
    pub(super) again: bool,
    pub(super) pause: Duration,
    pub(super) told: u64,
    pub(super) was_at: OpNumber,
    /// My lowest batch that is not certified, and since when; or when it was said again.
    pub(super) stands: Option<(u64, Instant)>,
    /// Grows whenever something gets on.
    pub(super) progress: u64,
}

impl Replica {
    /// Everything up to this epoch is decided and here.
    pub(super) fn committed(&self) -> OpNumber {
        self.last_decided().op
    }

    pub(super) fn last_decided(&self) -> &Decided {
        self.decided.last_key_value().map_or(&self.base, |(_, (decided, _))| decided)
    }

    /// What an epoch came to, if it is in the log or just below it.
    pub(super) fn decided_at(&self, op: OpNumber) -> Option<&Decided> {
        if op == self.base.op { Some(&self.base) } else { self.decided.get(&op).map(|(decided, _)| decided) }
    }

    /// `n - t` replicas say that they have committed this epoch: `t + 1` correct ones have, and tell whoever asks.
    pub(super) fn closed(&self) -> OpNumber {
        let place = |replica: ReplicaId| self.peers.get(&replica).map_or(OpNumber::ZERO, |place| place.committed);
        let of = |replica: ReplicaId| if replica == self.me { self.committed() } else { place(replica) };
        let mut committed: Vec<OpNumber> = self.quorums.members().map(of).collect();
        committed.sort_unstable_by(|one, other| other.cmp(one));
        let reached = committed.get(self.quorums.answering() - 1).copied().unwrap_or_default();
        reached.max(self.closed_before)
    }

    /// May this replica speak in this epoch? Not where a former self may have said something else.
    pub(super) fn may_speak(&self, op: OpNumber) -> bool {
        self.silent.is_none() && op.get() > self.floor >> super::HEIGHTS_PER_EPOCH_BITS
    }

    /// What is not taken up any more, or not yet.
    pub(super) fn refuses_epoch(&self, op: OpNumber) -> Option<Why> {
        let closed = self.closed();
        if op <= closed {
            Some(Why::OldView)
        } else {
            (op > closed.plus(super::WINDOW_EPOCHS)).then_some(Why::OutsideWindow)
        }
    }

    pub(super) fn epoch(&mut self, op: OpNumber) -> &mut Epoch {
        let quorums = self.quorums;
        self.epochs.entry(op).or_insert_with(|| Epoch::new(quorums))
    }

    pub(super) fn lane(&self, lane: ReplicaId) -> Option<&Lane> {
        self.lanes.get(lane.index())
    }

    pub(super) fn lane_mut(&mut self, lane: ReplicaId) -> Option<&mut Lane> {
        self.lanes.get_mut(lane.index())
    }

    pub(super) fn others(&self) -> impl Iterator<Item = ReplicaId> + use<> {
        let me = self.me;
        self.quorums.members().filter(move |replica| *replica != me)
    }

    pub(super) fn me(&self) -> Peer {
        Peer::Replica(self.me)
    }

    pub(super) fn persist(&self, record: Record, out: &mut Outbox) -> RecordSeq {
        out.persist(record.class(), record)
    }

    pub(super) fn base_record(&self) -> Box<Base> {
        let decided = (self.base.op > OpNumber::ZERO).then(|| self.base.clone());
        Box::new(Base { decided, height: self.floor, silent: self.silent })
    }

    /// Proof, if there is any, else nobody is to blame: a statement was repeated.
    pub(super) fn convict(&self, evidence: Option<Evidence>, out: &mut Outbox) {
        match evidence {
            Some(evidence) => out.blame(Peer::Replica(evidence.accused()), evidence.into()),
            None => out.ignore(self.me(), Why::Duplicate),
        }
    }

    fn on_replicas_message(&mut self, from: ReplicaId, message: Message, out: &mut Outbox) -> Result<(), Fault> {
        match message {
            Message::Batch { batch, certificate } => self.on_batch(from, batch, certificate, out)?,
            Message::Ack(ack) => self.on_ack(ack.verified()?, out),
            Message::Prop(vector) => self.on_prop(from, vector.verified()?, out),
            Message::PAck(approval) => self.on_pack(approval.verified()?, out),
            Message::PCert(certificate) => self.on_pcert(certificate.certified(self.quorums.quorum())?, out),
            Message::Agree(votes) => self.on_agree(from, votes, out),
            Message::Commit { op, root } => self.on_commit(from, op, root, out),
            Message::Status { committed, base, states, asks } => {
                self.on_status(from, committed, base, states, asks, out);
            }
            Message::GetProp { op, proposer } => self.on_get_prop(from, op, proposer, out),
            Message::GetDecided { after } => self.on_get_decided(from, after, out),
            Message::Decided(decided) => self.on_decided(from, decided, out),
            Message::GetChain { lane, head, above } => self.on_get_chain(from, lane, head, above, out),
            Message::GetBound { nonce } => self.on_get_bound(from, nonce, out),
            Message::Bound { nonce, committed } => self.on_bound(from, nonce, committed, out),
            Message::GetBeyond { until } => self.on_get_beyond(from, until, out),
            // Nobody relays requests: who did could fill a client's part of the pool with what it once asked for.
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

impl protocol::Replica<AsyncTob> for Replica {
    fn restore(_: Restore<AsyncTob>, _: &mut Outbox) -> Result<Self, RestoreError> {
        Err(RestoreError::NoKey)
    }

    fn start(restore: Restore<AsyncTob>, keyring: Arc<Keyring>, out: &mut Outbox) -> Result<Self, RestoreError> {
        super::restore::restore(restore, keyring, out)
    }

    fn on_message(&mut self, from: Peer, message: Message, out: &mut Outbox) {
        let taken = match from {
            Peer::Replica(replica) if self.quorums.contains(replica) => self.on_replicas_message(replica, message, out),
            from => self.on_clients_message(from, message, out),
        };
        if let Err(fault) = taken {
            out.blame(from, fault);
        }
        self.speak(out);
    }

    fn on_timer(&mut self, timer: Timer, out: &mut Outbox) {
        match timer {
            Timer::Resend => self.on_resend(out),
            Timer::Tick => self.on_tick(out),
        }
        self.speak(out);
    }

    fn on_executed(&mut self, op: OpNumber, outcome: Outcome, out: &mut Outbox) {
        self.executed(op, outcome, out);
        self.speak(out);
    }

    fn on_queried(&mut self, ticket: QueryTicket, answer: Bytes, out: &mut Outbox) {
        self.queried(ticket, answer, out);
    }

    fn on_checkpoint(&mut self, checkpoint: Checkpoint, out: &mut Outbox) {
        self.saved(checkpoint, out);
    }

    fn on_installed(&mut self, checkpoint: Checkpoint, wake: Option<WallTime>, out: &mut Outbox) {
        self.installed(checkpoint, wake, out);
        self.speak(out);
    }

    fn on_fetch_failed(&mut self, checkpoint: Checkpoint, out: &mut Outbox) {
        self.fetch_failed(checkpoint, out);
    }

    fn status(&self) -> Status {
        let role = match self.silent {
            Some(_) => "silent: its promises were lost",
            None if self.machine.fetching.is_some() => "fetching state",
            None if self.is_behind() => "catching up",
            None => "member",
        };
        let started = self.epochs.last_key_value().map_or(OpNumber::ZERO, |(op, _)| *op);
        Status {
            role: role.to_owned(),
            view: View::ZERO,
            op: started.max(self.committed()),
            committed: self.committed(),
            executed: self.machine.executed,
            checkpoint: self.snapshots.last_key_value().map_or(OpNumber::ZERO, |(op, _)| *op),
            missing: u64::from(self.catch_up.wanted.is_some()),
        }
    }

    fn check(&self) -> Result<(), String> {
        super::invariants::check(self)
    }
}
