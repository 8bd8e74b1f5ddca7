//! Speculation, and the leader that runs ahead (the seed's design, with the contract of a tree instead of a stack).
//!
//! With [`Config::run_ahead`](super::Config::run_ahead), each batch is applied as soon as its block is here, to a state that is a child of its
//! parent's, and becomes the committed state with the block; states of blocks that lose are dropped, children first. A state is
//! named by the chain of payloads that lead to it, so that blocks without requests change nothing, and a payload has its
//! name before it has a block.
//!
//! The leader's machine builds payloads on the last state of that chain, one after the other, on a thread of its own, up to
//! `run_ahead` of them before their blocks; nobody waits for it. Blocks go on without requests while there is something to
//! commit. A leader begins with it when a block of its own term is committed: until then its blocks are empty, which keeps
//! changes of leaders from costing work. When it loses the leadership, what it has built is dropped, and the requests in it
//! wait again.

use super::Outbox;
use super::durable::Root;
use super::message::{Block, Payload};
use super::replica::Replica;
use crate::pbft::Orders;
use bytes::Bytes;
use quorate_core::crypto::Digest;
use quorate_core::ids::OpNumber;
use quorate_core::mutated;
use quorate_core::protocol::{ProposeTicket, StateId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Speculative states that the executor is asked for, at most. Other batches are applied when they are committed.
const STATES_MAX: usize = 48;

/// A payload that has no block yet.
#[derive(Debug)]
struct Ready {
    parent: StateId,
    state: StateId,
    payload: Payload,
}

/// What the machine is building.
#[derive(Debug)]
struct Building {
    ticket: ProposeTicket,
    parent: StateId,
    orders: Orders,
}

/// What is ahead of the committed state.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    /// States that the executor has, neither committed nor aborted, with their parents.
    states: BTreeMap<StateId, StateId>,
    /// In the order in which they will be proposed: each on the one before.
    ready: VecDeque<Ready>,
    building: Option<Building>,
    tickets: u64,
}

impl Ahead {
    /// What has no block yet, and will have one.
    pub(super) fn payloads(&self) -> impl Iterator<Item = &Orders> {
        let building = self.building.iter().map(|it| &it.orders);
        self.ready.iter().map(|it| it.payload.orders()).chain(building)
    }
}

fn child(parent: StateId, payload: &Payload) -> StateId {
    if payload.is_empty() {
        return parent;
    }
    StateId(Digest::of_parts(&[b"hotstuff state", parent.0.as_bytes(), payload.digest().as_bytes()]))
}

/// States.
impl Replica {
    fn speculates(&self) -> bool {
        self.config.runs_ahead()
    }

    /// The name of the state after a block, if the machine has not gone beyond it.
    fn name_of(&self, block: Digest) -> Option<StateId> {
        let (mut payloads, mut at) = (Vec::new(), self.tree.root(block)?);
        while at.op > self.machine.dispatched {
            let block = self.tree.get(at.block)?;
            payloads.push(&block.payload);
            at = self.tree.root(block.header.parent)?;
        }
        let here = at.op == self.machine.dispatched;
        here.then(|| payloads.into_iter().rev().fold(self.machine.name, child))
    }

    fn is_known(&self, state: StateId) -> bool {
        state == self.machine.name || self.ahead.states.contains_key(&state)
    }

    /// Applies a block's batch before anybody knows whether it will be committed.
    pub(super) fn speculate(&mut self, block: &Block, out: &mut Outbox) {
        if !self.speculates() || block.payload.is_empty() || self.machine.fetching.is_some() {
            return;
        }
        if let Some(parent) = self.name_of(block.header.parent) {
            self.speculate_on(parent, &block.payload, out);
        }
    }

    fn speculate_on(&mut self, parent: StateId, payload: &Payload, out: &mut Outbox) {
        let state = child(parent, payload);
        let room = self.ahead.states.len() < STATES_MAX && self.is_known(parent);
        if room && !self.is_known(state) {
            self.ahead.states.insert(state, parent);
            out.speculate(parent, state, payload.batch());
        }
    }

    /// A committed block's batch, or the state that it has led to.
    pub(super) fn give(&mut self, op: OpNumber, payload: &Payload, out: &mut Outbox) {
        if !self.speculates() || payload.is_empty() {
            return out.execute(op, payload.batch());
        }
        let (parent, mut state) = (self.machine.name, child(self.machine.name, payload));
        if mutated!("hotstuff/takes-a-state-that-has-lost") {
            let of_parent = self.ahead.states.iter().find(|(_, of)| **of == parent);
            state = of_parent.map_or(state, |(first, _)| *first);
        }
        if self.ahead.states.remove(&state).is_none() {
            out.speculate(parent, state, payload.batch());
        }
        out.commit(op, state);
        self.machine.name = state;
    }

    /// Drops the states of blocks that have lost, children first.
    pub(super) fn abort_losers(&mut self, out: &mut Outbox) {
        if self.ahead.states.is_empty() {
            return;
        }
        let blocks = self.tree.above(self.machine.dispatched).filter_map(|id| self.name_of(id));
        let mut live: BTreeSet<StateId> = blocks.collect();
        live.extend(self.ahead.ready.iter().map(|it| it.state));
        live.extend(self.ahead.building.iter().map(|it| it.parent));
        let states = &mut self.ahead.states;
        loop {
            let parents: BTreeSet<StateId> = states.values().copied().collect();
            let leaf = states.keys().find(|state| !live.contains(state) && !parents.contains(state)).copied();
            let Some(leaf) = leaf else { return };
            states.remove(&leaf);
            out.abort(leaf);
        }
    }

    /// The machine was replaced: nothing of all that is there any more.
    pub(super) fn forget_ahead(&mut self) {
        let tickets = self.ahead.tickets;
        self.ahead = Ahead { tickets, ..Ahead::default() };
        self.machine.name = StateId::default();
    }
}

/// The leader.
impl Replica {
    /// A block of this leader's term is committed: it is worth while to build on it.
    fn is_stable(&self) -> bool {
        let head = self.tree.head().view;
        head.get() > 0 && self.config.term(head) == self.config.term(self.view())
    }

    /// Is there a payload that has no block yet, or is one being built?
    pub(super) fn is_ahead(&self) -> bool {
        self.ahead.payloads().next().is_some()
    }

    /// Would a block without requests let this leader begin to build?
    pub(super) fn needs_a_commit(&self) -> bool {
        self.speculates() && !self.is_stable() && (self.pool.is_ready(0).1 || self.tick_due)
    }

    /// What the next block is to bring, if there is anything.
    pub(super) fn next_payload(&mut self, parent: Root, out: &mut Outbox) -> Option<Payload> {
        if !self.speculates() {
            return self.gather(out).map(Payload::new);
        }
        let tip = self.name_of(parent.block)?;
        if self.ahead.ready.front().is_some_and(|it| it.parent != tip) {
            self.drop_ahead(out);
            self.propose_losers_again();
        }
        self.ahead.ready.pop_front().map(|it| it.payload)
    }

    /// Asks the machine for the next payload, while it is not as far ahead as it may be.
    pub(super) fn run_ahead(&mut self, out: &mut Outbox) {
        let may = self.speculates()
            && self.leads()
            && self.may_vote()
            && self.safety.voted < self.config.term_end(self.view());
        let room = self.ahead.building.is_none() && self.ahead.ready.len() < self.config.run_ahead;
        if !may || !room || !self.is_stable() || self.machine.fetching.is_some() {
            return;
        }
        let tip = self.proposed.as_ref().map_or(self.high.block(), |it| it.header.statement().id());
        let last = self.ahead.ready.back().map(|it| it.state);
        let Some(parent) = last.or_else(|| self.name_of(tip)) else { return };
        if !self.is_known(parent) || (self.config.run_ahead == 1 && parent != self.machine.name) {
            return; // it is committed first
        }
        let Some(orders) = self.gather(out) else { return };
        self.ahead.tickets = self.ahead.tickets.wrapping_add(1);
        let ticket = ProposeTicket(self.ahead.tickets);
        let batch = Payload::new(orders.clone()).batch();
        self.ahead.building = Some(Building { ticket, parent, orders });
        out.propose(parent, ticket, batch);
    }

    /// The machine has built one.
    pub(super) fn made(&mut self, ticket: ProposeTicket, made: Option<Bytes>, out: &mut Outbox) {
        let Some(building) = self.ahead.building.take_if(|it| it.ticket == ticket) else { return };
        let Building { parent, orders, .. } = building;
        let payload = Payload::with(orders, made);
        self.speculate_on(parent, &payload, out);
        self.ahead.ready.push_back(Ready { parent, state: child(parent, &payload), payload });
        self.run_ahead(out);
        self.propose_more(out);
        self.expect_progress(out);
    }

    /// Others lead, or on another branch: what was built is of no use. The caller lets its requests wait again.
    pub(super) fn drop_ahead(&mut self, out: &mut Outbox) {
        self.ahead.ready.clear();
        self.ahead.building = None;
        self.abort_losers(out);
    }
}
