//! A replica whose disk is lost, in a tiny cluster: its owner does what `quorate recover` does, one step at a time, while
//! everything else goes on, and what the former self had sent may arrive at any later time.
//!
//! The owner has a client of its own. It has the others commit entries until as many have passed as could be in doubt: here
//! every client has one request at a time, so there are no more than clients. Then it reads the others' states, writes the
//! new disk's first record, starts the replica, and asks for one entry more, which the replica may acknowledge; and for a few more,
//! when nothing else is due, while the replica is silent. When it is not any more, another disk may be lost.

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
    /// The replica is back; asks for one more entry, and so many times still if it goes on being silent.
    Tries(u8),
    /// It is silent: asks for one more when nothing else is due.
    Waits(u8),
    /// That was answered.
    Done,
}

/// Entries that an owner asks for, at most, until a replica that is back is not silent any more.
const TRIES_MAX: u8 = 4;

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
        matches!(self.step, Step::Idle | Step::Done)
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
        if matches!(step, Step::Commits { .. } | Step::Tries(_)) {
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
            Some(Step::Tries(_)) if !self.is_somebody_silent() => self.owner_goes_on(Step::Done),
            Some(Step::Tries(left)) if left > 0 => self.owner_goes_on(Step::Waits(left.saturating_sub(1))),
            _ => {}
        }
    }

    /// Does the owner wait until nothing else is due?
    pub(super) fn owner_waits(&self) -> bool {
        matches!(self.owner, Some(Owner { step: Step::Waits(_), .. }))
    }

    /// The owner has waited: asks for one more entry.
    pub(super) fn owner_asks(&mut self) {
        if let Some(Step::Waits(left)) = self.owner.as_ref().map(|owner| owner.step) {
            self.owner_goes_on(Step::Tries(left));
        }
    }

    /// Is there a replica that does not vote, since it may have voted otherwise before its disk was lost?
    fn is_somebody_silent(&self) -> bool {
        let running = self.hosts.iter().filter_map(|host| host.running.as_ref());
        running.map(|(node, _)| node.replica().status()).any(|status| status.role.starts_with("silent"))
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
            self.owner_goes_on(Step::Tries(TRIES_MAX));
        }
    }

    /// Is a replica back that had lost its disk, and was one more entry committed?
    pub fn is_back(&self) -> bool {
        self.owner.as_ref().is_some_and(Owner::is_done)
    }
}
