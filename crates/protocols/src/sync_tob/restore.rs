//! Starting from what the disk holds.

use super::clock::Clock;
use super::durable::{Base, Record};
use super::guard::Guard;
use super::log::Log;
use super::message::{Cast, Chain, Commit, State};
use super::order::{Demotion, Next, Order};
use super::recovery::listen;
use super::replica::{Beginning, Machine, Phase, Replica};
use super::schedule::{EpochNumber, Schedule};
use super::ucb::Ucb;
use super::view_change::{Selected, select};
use super::votes::Ballots;
use super::{Config, Outbox, SyncTob, Timer};
use crate::pbft::pace::{Grants, Quotas};
use crate::quorum_client::replica::Reads;
use quorate_core::crypto::{Certificate, Digest, Keyring, Signed};
use quorate_core::ids::{OpNumber, RecordSeq, ReplicaId, View};
use quorate_core::mutated;
use quorate_core::outbox::{Class, Note};
use quorate_core::protocol::{Restore, RestoreError, Restored};
use quorate_core::quorum::SyncQuorums;
use quorate_core::time::{Duration, WallTime};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What the records say, in their order.
struct Replayed {
    base: Base,
    left: bool,
    log: Log,
    committed: OpNumber,
    orders: BTreeMap<OpNumber, Order>,
    bundles: BTreeMap<Digest, (super::Bundle, RecordSeq)>,
    heads: Vec<Signed<Cast>>,
    lost: Option<String>,
    /// The last epoch that any record names.
    last: EpochNumber,
}

impl Replayed {
    fn new(replicas: usize) -> Self {
        let base = Base { order: Order::new(replicas), ..Base::default() };
        Self {
            base,
            left: false,
            log: Log::default(),
            committed: OpNumber::ZERO,
            orders: BTreeMap::new(),
            bundles: BTreeMap::new(),
            heads: Vec::new(),
            lost: None,
            last: EpochNumber::ZERO,
        }
    }

    fn take(&mut self, record: Restored<Record>) {
        let (seq, record) = match record {
            Restored::Found { seq, record } => (seq, record),
            Restored::Damaged { class: Some(Class::Entry), .. } => return, // peers have it
            Restored::Damaged { seq, .. } => {
                self.lost = Some(format!("record {seq}"));
                return;
            }
        };
        match record {
            Record::Bundle(head, bundle) => {
                self.heads.extend(head);
                self.bundles.insert(bundle.digest(), (bundle, seq));
            }
            Record::Block(block) => drop(self.log.blocks.insert(block.digest(), (block, seq))),
            Record::Link(link) => {
                self.last = self.last.max(link.epoch);
                let follows = self.log.following(link.op, link.epoch, link.block).is_some_and(|it| it == link);
                if follows {
                    self.log.put(link, seq); // else what it follows was lost
                } else if link.op > self.log.base.0 {
                    self.log.cut(link.op);
                }
            }
            Record::Voted(vote) => {
                self.last = self.last.max(vote.epoch);
                self.base.voted = Some(vote);
            }
            Record::Certified(certificate) => self.base.certified = Some(certificate),
            Record::Committed(certificate) => self.commit(certificate, seq),
            Record::Left(view) => (self.base.view, self.base.start, self.left) = (view, None, true),
            Record::Started(start) => {
                self.base.view = start.statement().view;
                if let Some(selected) = select(start.statement().changes.iter().map(Signed::statement)) {
                    self.start_with(&selected, seq);
                }
                (self.base.start, self.left) = (Some(start), false);
            }
            Record::Life(life) => self.base.life = self.base.life.max(life),
            Record::Led(epoch) => self.base.led = self.base.led.max(epoch),
            Record::Ordered(order) => drop(self.orders.insert(order.op, order)),
            Record::Base(base) => {
                self.left = base.start.is_none() && base.view > View::ZERO;
                self.last = self.last.max(base.order.epoch);
                if base.order.op > self.log.base.0 {
                    self.log.begin_after((base.order.op, base.order.epoch, base.order.chain));
                }
                self.committed = self.committed.max(base.order.op);
                if let Some(proof) = base.committed.clone() {
                    self.commit(proof, seq);
                }
                // After a lost disk nothing stands before it; else it repeats what does.
                let (life, led) = (self.base.life.max(base.life), self.base.led.max(base.led));
                self.base = Base { life, led, ..*base };
            }
        }
    }

    /// The view starts with this chain. What of it was here already when it was adopted has no record after this one.
    fn start_with(&mut self, selected: &Selected, seq: RecordSeq) {
        self.log.cut(self.committed.max(selected.base.0).next());
        for link in &selected.links {
            let follows = self.log.following(link.op, link.epoch, link.block).is_some_and(|it| it == *link);
            if follows && self.log.get(link.op).is_none() {
                self.log.put(*link, seq);
            }
        }
    }

    fn commit(&mut self, proof: Certificate<Commit>, seq: RecordSeq) {
        let it = *proof.statement();
        if self.log.get(it.op).is_some_and(|link| link.chain == it.chain) {
            self.committed = self.committed.max(it.op);
            self.log.proofs.insert(it.op, (proof, seq));
        }
    }
}

/// The order after a block, from the log's base on, as far as blocks are here.
fn order_at(log: &Log, base: &Order, to: OpNumber, demote_epochs: u64) -> Option<Order> {
    let mut order = base.clone();
    while order.op < to {
        let link = log.get(order.op.next())?;
        let (block, _) = log.blocks.get(&link.block)?;
        let _moved = order.apply(&link, block, demote_epochs);
    }
    (order.op == to).then_some(order)
}

/// Starts from what the disk holds.
pub(super) fn restore(
    restore: Restore<SyncTob>,
    keyring: Arc<Keyring>,
    out: &mut Outbox,
) -> Result<Replica, RestoreError> {
    let quorums = SyncQuorums::new(restore.replicas).ok_or(RestoreError::GroupSize(restore.replicas))?;
    if keyring.replica() != Some(restore.replica) || keyring.replicas() != restore.replicas {
        return Err(RestoreError::NoKey);
    }
    let is_new = restore.records.is_empty() && !restore.tail_damaged;
    let mut replayed = Replayed::new(restore.replicas);
    // Links that follow a base may be older than its record, and what came before them is forgotten.
    let bases = restore.records.iter().filter_map(|it| match it {
        Restored::Found { record: Record::Base(base), .. } => Some(&base.order),
        _ => None,
    });
    if let Some(order) = bases.max_by_key(|order| order.op).filter(|order| order.op > OpNumber::ZERO) {
        replayed.log.begin_after((order.op, order.epoch, order.chain));
    }
    restore.records.into_iter().for_each(|record| replayed.take(record));
    if restore.tail_damaged {
        replayed.lost = replayed.lost.or(Some("the end of the log".to_owned()));
    }
    if let Some(what) = replayed.lost.as_ref().filter(|_| quorums.quorum() == restore.replicas) {
        return Err(RestoreError::PromisesLost(what.clone())); // the others cannot go on without it
    }
    replayed.base.order.next.resize(restore.replicas, Next::default());
    replayed.base.order.demoted.resize(restore.replicas, Demotion::default());
    let at = restore.checkpoint.map_or(OpNumber::ZERO, |checkpoint| checkpoint.op);
    let config = restore.config;
    let order = match replayed.orders.get(&at) {
        Some(order) => Some(order.clone()),
        None => order_at(&replayed.log, &replayed.base.order, at, config.demote_epochs),
    };
    let state = restore.checkpoint.zip(order.clone()).map(|(checkpoint, order)| State { checkpoint, order });
    let adrift = order.is_none();
    let order = order.unwrap_or_else(|| Order::new(restore.replicas));
    let at = order.op; // wherever the machine is: while it is adrift it is given nothing
    let (me, machine) =
        (restore.replica, Machine { executed: at, boundary: at, wake: restore.wake, adrift, ..Machine::default() });
    let mut replica = build(me, quorums, config, keyring, replayed, order, machine, out);
    replica.resume(is_new, state, out);
    Ok(replica)
}

#[expect(clippy::too_many_arguments, reason = "it is `restore`, in two pieces")]
fn build(
    me: ReplicaId,
    quorums: SyncQuorums,
    config: Config,
    keyring: Arc<Keyring>,
    replayed: Replayed,
    order: Order,
    machine: Machine,
    out: &Outbox,
) -> Replica {
    let Replayed { base, left, mut log, committed, orders, bundles, heads, lost, last } = replayed;
    if order.op > committed {
        log.begin_after((order.op, order.epoch, order.chain)); // a fetched state, of which the log knows nothing yet
    }
    let committed = committed.max(order.op);
    let schedule = Schedule::new(&config, &quorums);
    let floor = schedule.output(schedule.start(last)).max(schedule.start(base.led)); // its clock has shown that
    let clock = Clock::new(me, quorums, &config, (out.now(), out.wall()), floor);
    let mut ucb = Ucb::new();
    for head in heads {
        if order.is_open(head.statement().id) && ucb.get(head.statement().id).is_none() && head.by() != me {
            let mut head = head;
            if head.prove(&keyring).is_ok() {
                ucb.insert(Chain::new(head));
            }
        }
    }
    for (bundle, seq) in bundles.into_values() {
        ucb.hold(bundle, seq, WallTime::default(), false);
    }
    let quorum = quorums.quorum();
    let certified =
        base.certified.and_then(|mut it| it.prove(&keyring, quorum).ok().and_then(|()| it.certified(quorum).ok()));
    let certified = certified.filter(|it| log.chain_at(it.statement().op) == Some(it.statement().chain()));
    let silent = base.silent || lost.is_some();
    let mut start = base.start;
    if let Some(it) = &mut start
        && it.prove(&keyring).is_err()
    {
        start = None;
    }
    // A chain that was adopted is not adopted again: what was voted for since then stays.
    let selected = start.as_ref().and_then(|it| select(it.statement().changes.iter().map(Signed::statement)));
    let adopted = selected.as_ref().map_or(start.is_none(), |it| {
        let (op, chain) = it.tip();
        committed >= it.base.0 && (committed >= op || log.chain_at(op) == Some(chain))
    });
    let phase =
        if left { Phase::Changing { quorum: false, beginning: Beginning::Nothing } } else { Phase::Active { adopted } };
    let guard = Guard::default();
    let vote_from = selected.map_or(committed.next(), |it| it.tip().0.max(committed.next()));
    let heard = committed;
    let mut replica = Replica {
        me,
        quorums,
        config,
        schedule,
        keyring,
        clock,
        guard,
        view: base.view,
        start,
        voted: base.voted,
        certified,
        base: base.order,
        state: base.state,
        silent,
        life: if mutated!("sync-tob/lives-are-not-durable") { 0 } else { base.life },
        led: last.max(base.led),
        silent_until: None,
        log,
        grants: Grants::default(),
        phase,
        vote_from,
        committed,
        heard,
        order,
        machine,
        moved: BTreeMap::new(),
        ucb,
        running: BTreeMap::new(),
        due: None,
        votes: Ballots::default(),
        commits: Ballots::default(),
        convicted: BTreeMap::new(),
        changes: BTreeMap::new(),
        own_change: None,
        change_due: false,
        attempts: 0,
        watched: None,
        state_votes: BTreeMap::new(),
        snapshots: BTreeMap::new(),
        orders,
        reads: Reads::default(),
        quotas: Quotas::default(),
        peers: BTreeMap::new(),
        asked: None,
        doubt: None,
        ask_turn: u64::from(me.get()),
        body_turn: u64::from(me.get()),
        wanted: BTreeMap::new(),
        again: false,
        pause: config.resend,
        told: committed,
        vote_made: None,
    };
    if replica.base.op < replica.order.op && replica.log.base.0 == replica.order.op {
        replica.base = replica.order.clone();
    }
    replica
}

impl Replica {
    /// Takes up what the former life was doing.
    fn resume(&mut self, is_new: bool, state: Option<State>, out: &mut Outbox) {
        if is_new || self.silent {
            self.persist(Record::Base(self.base_record()), out);
        }
        if self.silent {
            out.note(Note::Other("promises are damaged: it confirms nothing until the others have gone on without it"));
            self.need_clock(out); // until when it is silent, only a clock that others agree with says
        }
        if !is_new {
            self.fence(listen(self), "fenced: it has just started, and listens", out);
        }
        let _old = self.orders.split_off(&self.order.op.next());
        self.orders.clear();
        if let Some(state) = state {
            self.own_state(state, out); // perhaps the vote was lost, and it is not executed again
        }
        if !self.is_active() && !self.silent {
            self.change_again(out);
        }
        self.adopt_start(out);
        self.vote_again(out);
        self.vote_more(out);
        self.dispatch(out);
        self.fetch_missing(out);
        self.watch(out);
        self.arm_tick(out);
        self.expect_progress(out);
        out.arm(Timer::Again, Duration::ZERO);
        self.again = true;
    }

    /// The votes of the former life in this view, said again: they are on disk.
    fn vote_again(&mut self, out: &mut Outbox) {
        if self.silent || !self.is_active() {
            return;
        }
        if let Some(vote) = self.voted.filter(|vote| vote.view == self.view && vote.op > self.committed) {
            let vote = self.keyring.sign(vote);
            out.broadcast(super::Message::Vote(vote.clone()));
            out.send(self.me(), super::Message::Vote(vote));
        }
        if let Some(it) = self.certified.as_ref().map(|it| *it.statement()).filter(|it| it.view == self.view) {
            let commit = Commit { view: it.view, op: it.op, epoch: it.epoch, chain: it.chain() };
            let commit = self.keyring.sign(commit);
            out.broadcast(super::Message::Commit(commit.clone()));
            out.send(self.me(), super::Message::Commit(commit));
        }
    }
}
