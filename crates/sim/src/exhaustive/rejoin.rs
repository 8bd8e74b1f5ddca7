//! A replica whose disk is lost, in a tiny cluster: its owner does what `quorate recover` does, one step at a time, while
//! everything else goes on, and what the former self had sent may arrive at any later time.
//!
//! The owner has a client of its own. It has the others commit entries until as many have passed as could be in doubt: here
//! every client has one request at a time, so there are no more than clients. Then it reads the others' states, writes the
//! new disk's first record, starts the replica, and asks for one entry more, which the replica may acknowledge.

use super::Scope;
use super::world::World;
use crate::protocols::Simulated;
use quorate_core::ids::OpNumber;
use quorate_core::mutated;
use quorate_core::protocol::{Replica, Status};
use quorate_core::wire::Wire;
use std::fmt::Debug;

/// What an owner is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Nothing is lost.
    Idle,
    /// Has the others commit entries.
    Commits {
        /// The first of them.
        first: Option<OpNumber>,
    },
    /// Enough are committed.
    MayRejoin {
        /// The first of them.
        first: OpNumber,
    },
    /// The replica is back; asks for one more entry.
    Tries,
    /// That was answered.
    Done,
}

/// The owner of the replicas.
#[derive(Debug)]
pub(super) struct Owner {
    step: Step,
    /// Entries that it has asked for.
    asked: u64,
}

impl Owner {
    /// An owner, if a disk may be lost and there is a way to bring its replica back.
    pub(super) fn of<P: Simulated>(scope: &Scope) -> Option<Self> {
        let needed = scope.lost_disks > 0 && P::rejoin().is_some();
        needed.then_some(Self { step: Step::Idle, asked: 0 })
    }

    /// Has it nothing to bring back?
    pub(super) fn is_idle(&self) -> bool {
        self.step == Step::Idle
    }

    /// Is a replica back that had lost its disk, and was one more entry committed?
    pub(super) fn is_done(&self) -> bool {
        self.step == Step::Done
    }
}

impl<P: Simulated> World<P>
where
    P::Config: Default,
    P::Replica: Debug,
{
    /// A disk is lost: its owner begins.
    pub(super) fn give_to_owner(&mut self, index: usize) {
        if mutated!("recover/an-empty-disk-is-a-first-start") {
            return self.start_from(index, Vec::new());
        }
        self.away(index);
        self.listen(self.left.clients, usize::MAX);
        self.owner_goes_on(Step::Commits { first: None });
    }

    fn owner_goes_on(&mut self, step: Step) {
        let Some(owner) = &mut self.owner else { return };
        owner.step = step;
        if matches!(step, Step::Commits { .. } | Step::Tries) {
            owner.asked = owner.asked.saturating_add(1);
            let value = owner.asked.saturating_add(1000); // nobody else's
            self.ask(self.left.clients, value);
        }
    }

    /// The owner's entry is committed.
    pub(super) fn owner_is_told(&mut self, op: OpNumber) {
        let window = self.left.clients as u64;
        match self.owner.as_ref().map(|owner| owner.step) {
            Some(Step::Commits { first }) => {
                let first = first.unwrap_or(op);
                let enough = op.since(first) > window;
                self.owner_goes_on(if enough {
                    Step::MayRejoin { first }
                } else {
                    Step::Commits { first: Some(first) }
                });
            }
            Some(Step::Tries) => self.owner_goes_on(Step::Done),
            _ => {}
        }
    }

    /// The first record of a replica's new disk, as soon as one can be written.
    pub(super) fn record(&self, index: usize) -> Option<P::Record> {
        let Some(Step::MayRejoin { first }) = self.owner.as_ref().map(|owner| owner.step) else { return None };
        let others = self.hosts.iter().enumerate().filter(|(at, _)| *at != index);
        let statuses = others.filter_map(|(_, host)| host.running.as_ref()).map(|(node, _)| node.replica().status());
        let statuses: Vec<Status> = statuses.filter(|status| status.op >= first).collect();
        let (_, record) = (P::rejoin()?.record)(self.hosts.len(), first, &statuses)?;
        Some(record)
    }

    /// The replica starts from the new disk.
    pub(super) fn rejoin(&mut self, index: usize) {
        if let Some(record) = self.record(index) {
            self.start_from(index, vec![record.encode()]);
            self.owner_goes_on(Step::Tries);
        }
    }

    /// Is a replica back that had lost its disk, and was one more entry committed?
    pub fn is_back(&self) -> bool {
        self.owner.as_ref().is_some_and(Owner::is_done)
    }
}
