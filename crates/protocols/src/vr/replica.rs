//! The replica: its state, and which handler takes what. The chapters are `normal` (VRR §4.1), `view_change` (§4.2),
//! `recovery` (§4.3, §5.2 and the disk), `checkpoint` (§5.1) and `reads` (§6.3).

use super::durable::{Durable, Record};
use super::log::Log;
use super::message::{DoViewChange, Entry, Header, Message};
use super::reads::{LocalReads, ReadRounds};
use super::select::Selected;
use super::{Config, Outbox, Timer, Vr};
use bytes::Bytes;
use quorate_core::fault::{Fault, Why};
use quorate_core::ids::{ClientId, OpNumber, Peer, RecordSeq, ReplicaId, RequestNumber, SessionId, View};
use quorate_core::outbox::Class;
use quorate_core::protocol::{self, Checkpoint, QueryTicket, Restore, RestoreError, Status};
use quorate_core::quorum::CrashQuorums;
use quorate_core::sessions::{self, Outcome};
use quorate_core::time::{Instant, WallTime};
use quorate_core::votes::Votes;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A request as the filter against repetitions knows it.
pub(super) type Key = (ClientId, SessionId, RequestNumber);

/// What only a primary has.
#[derive(Debug)]
pub(super) struct Primary {
    /// The last entry that each replica, this one included, holds durably with all before it, said in this view.
    pub(super) acks: BTreeMap<ReplicaId, OpNumber>,
    /// Who has a checkpoint where.
    pub(super) checkpoints: BTreeMap<ReplicaId, OpNumber>,
    /// The log that the view started with ends here: until it is committed, the primary answers no reads.
    pub(super) inherited: OpNumber,
    /// Requests that wait for an entry; bounded by `Config::pending_bytes`.
    pub(super) pending: VecDeque<sessions::Request>,
    pub(super) pending_bytes: usize,
    /// Requests that wait, or are in an entry that is not executed.
    pub(super) under_way: BTreeSet<Key>,
    pub(super) prepared: VecDeque<(OpNumber, Vec<Key>)>,
    /// The machine's tick is due: the next entry carries it.
    pub(super) tick_due: bool,
    /// The last entry that carries a tick.
    pub(super) ticked: OpNumber,
    /// Nobody acknowledges: say nothing, so that the others look for another primary.
    pub(super) muted: bool,
    /// While it is silent: who wants to leave the view. It does.
    pub(super) exits: Votes<()>,
    pub(super) reads: ReadRounds,
}

impl Primary {
    pub(super) fn new(inherited: OpNumber, reads: ReadRounds, quorums: &CrashQuorums) -> Self {
        Self {
            acks: BTreeMap::new(),
            checkpoints: BTreeMap::new(),
            inherited,
            pending: VecDeque::new(),
            pending_bytes: 0,
            under_way: BTreeSet::new(),
            prepared: VecDeque::new(),
            tick_due: false,
            ticked: OpNumber::ZERO,
            muted: false,
            exits: Votes::new(quorums.view_change()),
            reads,
        }
    }
}

/// What only a backup has.
#[derive(Debug)]
pub(super) struct Backup {
    /// Who wants to leave this view.
    pub(super) exits: Votes<()>,
    pub(super) exits_since: Instant,
    /// This replica does.
    pub(super) suspects: bool,
    /// Entries that came before those in front of them; bounded by the window. Not acknowledged.
    pub(super) ahead: BTreeMap<OpNumber, Entry>,
    pub(super) acknowledged: OpNumber,
}

/// What a replica has between two views.
#[derive(Debug)]
pub(super) struct ViewChange {
    /// Who wants to give this view up, too.
    pub(super) exits: Votes<()>,
    /// What came in, if this replica is to lead.
    pub(super) changes: BTreeMap<ReplicaId, DoViewChange>,
    pub(super) stage: Stage,
}

/// How far a new primary is.
#[derive(Debug)]
pub(super) enum Stage {
    /// Waiting for a quorum, or for its start.
    Gathering,
    /// The log is chosen; what is between it and our own is asked of a replica that has it.
    Headers { selected: Selected, from: ReplicaId },
    /// The log is ours, but some of its entries are still missing.
    Entries,
}

/// Where a replica stands. Each phase carries its data.
#[derive(Debug)]
pub(super) enum Phase {
    /// VRR's status normal, leading.
    Primary(Box<Primary>),
    /// VRR's status normal, following.
    Backup(Backup),
    /// VRR's status view-change.
    ViewChange(Box<ViewChange>),
    /// The end of the own log is not known: no acknowledgement, no vote, until a view's log is told (vr.md §2.5, C and D).
    RecoveringHead,
}

/// What the machine has been given.
#[derive(Debug)]
pub(super) struct Machine {
    /// Asked to apply.
    pub(super) dispatched: OpNumber,
    /// Has applied.
    pub(super) executed: OpNumber,
    /// The last entry at which a checkpoint was due, and bytes of batches since.
    pub(super) boundary: OpNumber,
    pub(super) boundary_bytes: u64,
    /// Nothing more is applied until this entry is on the own disk, and then saved.
    pub(super) saving: Option<OpNumber>,
    /// When it wants a tick.
    pub(super) wake: Option<WallTime>,
    /// The machine is behind the log's beginning: this checkpoint is being fetched.
    pub(super) fetching: Option<Checkpoint>,
    /// The machine is behind the log's beginning.
    pub(super) behind: bool,
}

/// A replica of Viewstamped Replication.
#[derive(Debug)]
pub struct Replica {
    pub(super) me: ReplicaId,
    pub(super) quorums: CrashQuorums,
    pub(super) config: Config,
    pub(super) durable: Durable,
    pub(super) log: Log,
    pub(super) phase: Phase,
    /// Entries up to here are committed and here (commit_min).
    pub(super) committed: OpNumber,
    /// Entries up to here are committed (commit_max).
    pub(super) committed_max: OpNumber,
    pub(super) machine: Machine,
    /// The last checkpoints that are durable here.
    pub(super) checkpoints: BTreeMap<OpNumber, Checkpoint>,
    /// A replication quorum has a checkpoint at this entry.
    pub(super) stable: OpNumber,
    pub(super) reads: LocalReads,
    /// The question for a view's log that is out: nonce, and our commit number then.
    pub(super) asked: Option<(u64, OpNumber)>,
    /// Whom to ask for missing entries next.
    pub(super) repair_turn: u8,
    /// The last entry that was asked for.
    pub(super) repair_until: OpNumber,
    /// Not before this time does this replica help to end a view (leases).
    pub(super) promised_until: Instant,
    pub(super) batch_time: WallTime,
    /// Since it was last in a view that had started, this replica has given up leading one.
    pub(super) forfeited: bool,
}

impl Replica {
    pub(super) fn view(&self) -> View {
        self.durable.view()
    }

    pub(super) fn primary(&self) -> ReplicaId {
        self.quorums.primary(self.view())
    }

    pub(super) fn is_normal(&self) -> bool {
        matches!(self.phase, Phase::Primary(_) | Phase::Backup(_))
    }

    /// The last checkpoint that is durable here.
    pub(super) fn checkpoint(&self) -> Checkpoint {
        self.checkpoints.last_key_value().map(|(_, checkpoint)| *checkpoint).unwrap_or_default()
    }

    /// Appends an entry to log and journal.
    pub(super) fn append(&mut self, entry: Entry, out: &mut Outbox) {
        let seq = out.persist(Class::Entry, Record::Entry(entry.clone()));
        self.log.append(entry, seq);
    }

    pub(super) fn promise(&mut self, record: Record, out: &mut Outbox) -> RecordSeq {
        out.persist(Class::Promise, record)
    }

    /// May this replica say that it holds what its log holds? Not while its machine lacks the state before the log: it
    /// would count for durability that it does not provide (vr.md §2.6).
    pub(super) fn may_acknowledge(&self) -> bool {
        !self.machine.behind
    }

    fn on_replicas_message(&mut self, from: ReplicaId, message: Message, out: &mut Outbox) {
        match message {
            Message::Request(request) => self.on_request(Peer::Replica(from), request, out),
            Message::Prepare { view, entry, committed } => self.on_prepare(from, view, entry, committed, out),
            Message::PrepareOk { view, op, checksum, checkpoint } => {
                self.on_prepare_ok(from, (view, op, checksum), checkpoint, out);
            }
            Message::Commit { view, committed, op, checkpoint, stable, round, sent } => {
                self.on_commit(from, view, (committed, op), (checkpoint, stable), (round, sent), out);
            }
            Message::CommitOk { view, round, sent, checkpoint } => {
                self.on_commit_ok(from, view, (round, sent), checkpoint, out);
            }
            Message::ExitView { view } => self.on_exit_view(from, view, out),
            Message::DoViewChange(change) => self.on_do_view_change(from, change, out),
            Message::StartView(start) => self.on_start_view(from, start, out),
            Message::GetView { view, committed, nonce } => self.on_get_view(from, view, committed, nonce, out),
            Message::GetHeaders { view, after } => self.on_get_headers(from, view, after, out),
            Message::Headers { view, after, headers } => self.on_headers(from, view, after, &headers, out),
            Message::CheckpointDue { op } => self.on_checkpoint_due(from, op, out),
            Message::GetEntries { wanted } => self.on_get_entries(from, &wanted, out),
            Message::Entry(entry) => self.on_entry(from, &entry, out),
            Message::Reply(_)
            | Message::Busy { .. }
            | Message::Read { .. }
            | Message::ReadReply { .. }
            | Message::NotPrimary { .. } => out.ignore(Peer::Replica(from), Why::NotForSender),
        }
    }
}

impl protocol::Replica<Vr> for Replica {
    fn restore(restore: Restore<Vr>, out: &mut Outbox) -> Result<Self, RestoreError> {
        super::recovery::restore(restore, out)
    }

    fn on_message(&mut self, from: Peer, message: Message, out: &mut Outbox) {
        if let Some(reason) = message.check() {
            return out.blame(from, Fault::Malformed(reason));
        }
        match (from, message) {
            (Peer::Replica(replica), message) if self.quorums.contains(replica) => {
                self.on_replicas_message(replica, message, out);
            }
            (Peer::Client(client), Message::Request(request)) if request.client == client => {
                self.on_request(from, request, out);
            }
            (Peer::Client(client), Message::Read { id, consistency, query }) => {
                self.on_read(client, id, consistency, query, out);
            }
            (from, _) => out.ignore(from, Why::NotForSender),
        }
    }

    fn on_timer(&mut self, timer: Timer, out: &mut Outbox) {
        match timer {
            Timer::Heartbeat => self.on_heartbeat(out),
            Timer::PrepareAgain => self.on_prepare_again(out),
            Timer::Abdicate => self.on_abdicate(out),
            Timer::PrimarySilent => self.on_primary_silent(out),
            Timer::ViewAgain => self.on_view_again(out),
            Timer::ViewChangeStalled => self.on_view_change_stalled(out),
            Timer::Repair => self.on_repair(out),
            Timer::ReadAgain => self.on_read_again(out),
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
        let role = match &self.phase {
            Phase::Primary(primary) if primary.muted => "primary, without a quorum",
            Phase::Primary(_) => "primary",
            Phase::Backup(_) if self.machine.behind => "backup, fetching state",
            Phase::Backup(_) => "backup",
            Phase::ViewChange(_) => "changing view",
            Phase::RecoveringHead => "recovering",
        };
        Status {
            role: role.to_owned(),
            view: self.view(),
            op: self.log.head(),
            committed: self.committed,
            executed: self.machine.executed,
            checkpoint: self.checkpoint().op,
            missing: self.log.missing().0,
        }
    }

    fn check(&self) -> Result<(), String> {
        super::invariants::check(self)
    }
}

/// The header of a batch that would follow the log.
pub(super) fn header_for(log: &Log, view: View, batch: &Bytes) -> Option<Header> {
    Some(Header {
        op: log.head().next(),
        view,
        parent: log.checksum(log.head())?,
        batch: quorate_core::crypto::Digest::of(batch),
        bytes: u32::try_from(batch.len()).ok()?,
    })
}
