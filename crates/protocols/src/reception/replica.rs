//! The replica: its state, and which handler takes what. The chapters are `publication` (receive, certify, pull), `criticality` (who is
//! enough), `compare` (what is pending elsewhere), `order` (PBFT, insertion), `replies` (clients) and `recovery` (what was lost, the
//! disk).

use super::compare::Comparisons;
use super::criticality::Levels;
use super::message::{Certified, Message, Reception as Received};
use super::publication::{Pending, Stage, Told, Unknown};
use super::replies::{Asked, named};
use super::spent::Spent;
use super::{Config, Outbox, Reception, Timer};
use crate::pbft::pace::Quotas;
use crate::pbft::{self, Pbft};
use bytes::Bytes;
use quorate_core::crypto::{Digest, Keyring, Verified};
use quorate_core::fault::{Fault, Why};
use quorate_core::ids::{ClientId, OpNumber, Peer, RecordSeq, ReplicaId};
use quorate_core::protocol::{self, Checkpoint, QueryTicket, Restore, RestoreError, Status};
use quorate_core::quorum::ByzantineQuorums;
use quorate_core::sessions::Outcome;
use quorate_core::time::{Instant, WallTime};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// A replica.
#[derive(Debug)]
pub struct Replica {
    pub(super) me: ReplicaId,
    pub(super) config: Config,
    pub(super) keyring: Arc<Keyring>,
    /// The group's: PBFT's.
    pub(super) quorums: ByzantineQuorums,
    /// Committees'.
    pub(super) levels: Levels,
    /// PBFT, inside.
    pub(super) module: pbft::Replica,

    /// Durable, as records: the last reception time, and times promised for publications that this disk has lost.
    pub(super) clock: WallTime,
    pub(super) promised: BTreeMap<Digest, WallTime>,
    /// Publications that are received here and not ordered, by digest. Durable, as records.
    pub(super) pending: BTreeMap<Digest, Pending>,

    /// Receptions of publications that are not ordered here.
    pub(super) receptions: BTreeMap<Digest, BTreeMap<ReplicaId, Verified<Received>>>,
    /// Publications that are not here, and of which of them each replica has told.
    pub(super) unknown: BTreeMap<Digest, Unknown>,
    pub(super) parked: BTreeMap<ReplicaId, Told>,
    /// What each of the others was given of what it has asked for.
    pub(super) quotas: Quotas,
    /// Digests that were ordered lately, as far as this replica knows when, and the oldest first: copies and receptions of them
    /// are late.
    pub(super) inserted: BTreeMap<Digest, Instant>,
    pub(super) inserted_order: VecDeque<Digest>,
    /// What the machine was given and has not applied, by entry: whom to answer. PBFT bounds the entries.
    pub(super) asked: BTreeMap<OpNumber, Asked>,
    /// What clients may ask for again, and what they will not.
    pub(super) answered: pbft::Answered,
    pub(super) spent: Spent,
    /// Bytes of what is pending, by who gave it; and, of what clients gave, by client.
    pub(super) bytes: BTreeMap<Option<ReplicaId>, usize>,
    pub(super) client_bytes: BTreeMap<ClientId, usize>,
    /// The first record of each publication in `pending`.
    pub(super) needed: BTreeSet<RecordSeq>,
    /// PBFT needs no records before this one.
    pub(super) module_needs: RecordSeq,
    pub(super) forgotten: RecordSeq,
    /// How what is pending compares with what is pending elsewhere.
    pub(super) comparisons: Comparisons,
    /// [`Timer::Again`] and [`Timer::Pull`] are armed.
    pub(super) again: bool,
    pub(super) pulling: bool,
}

impl Replica {
    pub(super) fn me(&self) -> Peer {
        Peer::Replica(self.me)
    }

    fn on_replicas_message(&mut self, from: ReplicaId, message: Message, out: &mut Outbox) -> Result<(), Fault> {
        match message {
            Message::Publish(group) | Message::Submit(group) => self.on_publish(Peer::Replica(from), group, out),
            Message::Reception { vote, again } => self.on_reception(from, vote.verified()?, again, out),
            Message::GetPublication { digest } => self.on_get_publication(from, digest, out),
            Message::Publication(group) => self.on_publication(from, group, out),
            Message::Compare(parts) => self.on_compare(from, parts, out),
            Message::Same { digest } => self.on_same(from, digest, out),
            Message::Module(pbft::Message::Request(group)) if self.is_done(&group, out) => {
                out.ignore(Peer::Replica(from), Why::Duplicate);
            }
            Message::Module(message) => {
                self.module(out, |module, inner| {
                    protocol::Replica::on_message(module, Peer::Replica(from), message, inner);
                });
            }
        }
        Ok(())
    }

    fn on_clients_message(&mut self, from: Peer, message: Message, out: &mut Outbox) {
        match message {
            Message::Publish(group) => self.on_publish(from, group, out),
            Message::Submit(group) => self.on_submit(from, group, out),
            Message::Module(message @ pbft::Message::Read { .. }) => {
                self.module(out, |module, inner| protocol::Replica::on_message(module, from, message, inner));
            }
            _ => out.ignore(from, Why::NotForSender),
        }
    }

    /// Does a replica ask PBFT for what was ordered just now? It has not seen it yet. Later on it may have missed it. Or for what
    /// this one asks for itself? Each replica asks in its own name, and PBFT would order the same thing for each.
    fn is_done(&self, group: &pbft::Group, out: &Outbox) -> bool {
        let is_late = |at: &Instant| out.now().since(*at) < self.config.resend;
        let done = |name| self.inserted.range(named(name)).any(|(_, at)| is_late(at));
        let is_mine = |pending: &Pending| matches!(pending.stage, Stage::Certified { request: Some(_), .. });
        let mine = |name| self.pending.range(named(name)).any(|(_, pending)| is_mine(pending));
        group.statement().requests.iter().all(|(name, _)| done(*name) || mine(*name))
    }

    /// The certificate of a publication that is here, if enough have received it.
    pub(super) fn certificate(&self, digest: Digest) -> Option<Certified> {
        let pending = self.pending.get(&digest)?;
        let receptions = self.receptions.get(&digest)?;
        Certified::assemble(&pending.group, receptions.values(), &self.levels)
    }
}

impl protocol::Replica<Reception> for Replica {
    fn restore(_: Restore<Reception>, _: &mut Outbox) -> Result<Self, RestoreError> {
        Err(RestoreError::NoKey)
    }

    fn start(restore: Restore<Reception>, keyring: Arc<Keyring>, out: &mut Outbox) -> Result<Self, RestoreError> {
        super::recovery::restore(restore, keyring, out)
    }

    fn on_message(&mut self, from: Peer, message: Message, out: &mut Outbox) {
        let taken = match from {
            Peer::Replica(replica) if self.quorums.contains(replica) => self.on_replicas_message(replica, message, out),
            from => {
                self.on_clients_message(from, message, out);
                Ok(())
            }
        };
        if let Err(fault) = taken {
            out.blame(from, fault);
        }
    }

    fn on_timer(&mut self, timer: Timer, out: &mut Outbox) {
        match timer {
            Timer::Module(timer) => {
                self.module(out, |module, inner| protocol::Replica::<Pbft>::on_timer(module, timer, inner));
            }
            Timer::Pull => self.on_pull(out),
            Timer::Again => self.on_again(out),
        }
    }

    fn on_executed(&mut self, op: OpNumber, outcome: Outcome, out: &mut Outbox) {
        let Outcome { replies, events, wake } = outcome;
        self.reply(op, replies, out);
        let outcome = Outcome { replies: Vec::new(), events, wake }; // PBFT's clients are replicas, who wait for no answer
        self.module(out, |module, inner| protocol::Replica::on_executed(module, op, outcome, inner));
    }

    fn on_queried(&mut self, ticket: QueryTicket, answer: Bytes, out: &mut Outbox) {
        self.module(out, |module, inner| protocol::Replica::on_queried(module, ticket, answer, inner));
    }

    fn on_checkpoint(&mut self, checkpoint: Checkpoint, out: &mut Outbox) {
        self.module(out, |module, inner| protocol::Replica::on_checkpoint(module, checkpoint, inner));
    }

    fn on_installed(&mut self, checkpoint: Checkpoint, wake: Option<WallTime>, out: &mut Outbox) {
        self.forget_what_was_heard();
        self.module(out, |module, inner| protocol::Replica::on_installed(module, checkpoint, wake, inner));
    }

    fn on_fetch_failed(&mut self, checkpoint: Checkpoint, out: &mut Outbox) {
        self.module(out, |module, inner| protocol::Replica::on_fetch_failed(module, checkpoint, inner));
    }

    fn status(&self) -> Status {
        protocol::Replica::status(&self.module)
    }

    fn check(&self) -> Result<(), String> {
        super::invariants::check(self)
    }
}
