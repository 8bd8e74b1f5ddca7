//! More of what goes wrong: whom misfortune looks for, and troubles of links, disks and clocks beside those of `nemesis.rs`.

use crate::clock::{MILLI, SECOND};
use crate::cluster::{Cluster, Event};
use crate::faults::Fault;
use crate::history::Moment;
use crate::trace::What;
use quorate_core::ids::{OpNumber, Peer};
use quorate_core::machine::Machine;
use quorate_core::protocol::{Protocol, Replica, Status};
use quorate_core::wire::Wire;
use std::collections::BTreeSet;

/// Of all blows, so many per million are aimed, at the usual rate.
const AIMED: u64 = 350_000;
/// How long an owner waits before looking again whether a replica can come back.
const OWNER_LOOKS: u64 = 15 * MILLI;

/// Whom it hits.
impl<P: Protocol, M: Machine> Cluster<P, M> {
    /// Any replica; or, on the hunt, the one that leads or the one whose memory is furthest ahead of its disk: whoever has
    /// most to forget.
    pub(crate) fn prey(&mut self) -> usize {
        let any = self.nemesis.index(self.replicas.len());
        let chance = AIMED.saturating_mul(u64::from(self.faults.rate(Fault::Hunt))) / 100;
        if chance == 0 || !self.nemesis.chance(chance) {
            return any;
        }
        let leader = self.leader.map(|(_, leader)| leader);
        let prey = if self.nemesis.chance(500_000) { leader } else { self.most_forgetful() };
        if prey.is_some() {
            self.counts.fault(Fault::Hunt);
        }
        prey.unwrap_or(any)
    }

    fn most_forgetful(&self) -> Option<usize> {
        let running = self.replicas.iter().enumerate().filter_map(|(at, it)| Some((at, it.running.as_ref()?)));
        let ahead = running.map(|(at, it)| (it.appended.since(it.synced), it.node.held(), at));
        ahead.max().filter(|(records, held, _)| *records > 0 || *held > 0).map(|(.., at)| at)
    }
}

/// Links, clocks and clients.
impl<P: Protocol, M: Machine> Cluster<P, M> {
    /// Two replicas that do not hear each other while everybody else hears both; or one whose links are slow.
    pub(crate) fn trouble_links(&mut self, replica: usize, fault: Fault) {
        let now = self.now();
        let id = |at: usize| self.replicas.get(at).map(|process| Peer::Replica(process.id));
        let Some(one) = id(replica) else { return };
        if fault == Fault::Partial {
            let other = self.nemesis.index(self.replicas.len());
            let Some(other) = id(other).filter(|other| *other != one) else { return };
            return self.cut(BTreeSet::from([(one, other), (other, one)]), fault);
        }
        let replicas = self.replicas.iter().map(|process| Peer::Replica(process.id));
        let clients = self.clients.iter().map(|process| Peer::Client(process.id));
        let others: Vec<Peer> = replicas.chain(clients).filter(|other| *other != one).collect();
        let some: Vec<Peer> = others.into_iter().filter(|_| self.nemesis.chance(500_000)).collect();
        let links: BTreeSet<_> = some.into_iter().flat_map(|other| [(one, other), (other, one)]).collect();
        if links.is_empty() {
            return;
        }
        let extra = self.nemesis.between(10 * MILLI, 300 * MILLI);
        let text = format!("{} links of R{replica} become slow", links.len());
        self.trace.add(now, || What::Fault { fault, replica: Some(replica), text });
        self.counts.fault(fault);
        let cut = self.network.slow_down(links, extra);
        let delay = self.nemesis.between(100 * MILLI, 4 * SECOND);
        self.queue.after(delay, Event::Heal { cut });
    }

    /// A calendar that jumps, or a client that stands still.
    pub(crate) fn trouble_time(&mut self, replica: usize, fault: Fault) {
        let now = self.now();
        if fault == Fault::ClockJump {
            let jump = i64::try_from(self.nemesis.below(20 * SECOND)).unwrap_or(0) - 10_000_000_000;
            let Some(process) = self.replicas.get_mut(replica) else { return };
            process.clock.skew = process.clock.skew.saturating_add(jump);
            let text = || format!("the calendar of R{replica} jumps by {} ms", jump / 1_000_000);
            self.trace.add(now, || What::Fault { fault, replica: Some(replica), text: text() });
            return self.counts.fault(fault);
        }
        let client = self.nemesis.index(self.clients.len());
        let until = now.saturating_add(self.nemesis.between(50 * MILLI, 2 * SECOND));
        if let Some(process) = self.clients.get_mut(client) {
            process.paused_until = until;
            let text = || format!("C{client} stands still until {} ms", until / MILLI);
            self.trace.add(now, || What::Fault { fault, replica: None, text: text() });
            self.counts.fault(fault);
        }
    }
}

/// Disks.
impl<P: Protocol, M: Machine> Cluster<P, M> {
    /// Damage on the disk of the one replica that this seed has chosen, while it is down: peers can repair what they hold.
    pub(crate) fn decay(&mut self, fault: Fault) {
        let (victim, now) = (self.rot_victim, self.now());
        let Some(process) = self.replicas.get_mut(victim) else { return };
        if process.running.is_some() || process.lost.is_some() {
            return;
        }
        let struck = match fault {
            Fault::BitRot => process.storage.rot(&mut self.nemesis),
            Fault::SnapshotRot => process.storage.rot_snapshot(&mut self.nemesis),
            _ => process.storage.misdirect(&mut self.nemesis),
        };
        if struck {
            let text = || format!("the disk of R{victim} is damaged");
            self.trace.add(now, || What::Fault { fault, replica: Some(victim), text: text() });
            self.counts.fault(fault);
        }
    }

    /// No room, nothing left, or a lie.
    pub(crate) fn trouble_disk(&mut self, replica: usize, fault: Fault) {
        match fault {
            Fault::FullDisk => {
                let until = self.now().saturating_add(self.nemesis.between(50 * MILLI, 2 * SECOND));
                let Some(process) = self.replicas.get_mut(replica) else { return };
                process.full_until = until;
                process.storage.full(true);
                self.counts.fault(fault);
                let text = || format!("R{replica}'s disk is full until {} ms", until / MILLI);
                self.trace.add(self.queue.now(), || What::Fault { fault, replica: Some(replica), text: text() });
                self.queue.at(until, Event::Room { replica });
            }
            Fault::LyingDisk => {
                if let Some(process) = self.replicas.get_mut(replica).filter(|process| process.running.is_some()) {
                    process.storage.lie(&mut self.nemesis);
                    self.counts.fault(fault);
                    let text = || format!("R{replica}'s disk loses a write or puts it elsewhere");
                    self.trace.add(self.queue.now(), || What::Fault { fault, replica: Some(replica), text: text() });
                }
            }
            _ => self.lose_disk(),
        }
    }

    pub(crate) fn on_room(&mut self, replica: usize) {
        let now = self.now();
        if let Some(process) = self.replicas.get_mut(replica).filter(|process| process.full_until <= now) {
            process.storage.full(false);
        }
    }

    /// The disk of the one replica that this seed has chosen is gone, with all that it had promised. Once in a run: the others
    /// must have what it knew, and while it is away they must be enough.
    fn lose_disk(&mut self) {
        let victim = self.rot_victim;
        if !self.owned || self.disks_lost > 0 {
            return;
        }
        self.kill(victim);
        self.counts.fault(Fault::LostDisk);
        self.give_to_owner(victim);
    }

    /// The owner of a replica that cannot come back by itself begins to do what `quorate recover` does.
    pub(crate) fn give_to_owner(&mut self, replica: usize) {
        let now = self.now();
        if !self.owned {
            return;
        }
        self.disks_lost = self.disks_lost.saturating_add(1);
        let moment = self.history.moment();
        let Some(process) = self.replicas.get_mut(replica) else { return };
        (process.lost, process.stopped) = (Some(moment), None);
        let (fault, text) = (Fault::LostDisk, || format!("the disk of R{replica} is lost"));
        self.trace.add(now, || What::Fault { fault, replica: Some(replica), text: text() });
        let delay = self.nemesis.between(MILLI, 300 * MILLI);
        self.queue.after(delay, Event::Recover { replica });
    }

    /// `quorate recover`, step by step: the others commit entries until nothing that the old self knew is in doubt; they say
    /// in which views they are; the new folder begins after those.
    pub(crate) fn on_recover(&mut self, replica: usize) {
        let now = self.now();
        let Some(since) = self.replicas.get(replica).and_then(|process| process.lost) else { return };
        let Some(rejoin) = self.rejoin else { return };
        let later = Event::Recover { replica };
        let Some(first) = self.flushed(since, rejoin.entries) else {
            self.ask_for_an_entry();
            return self.queue.after(OWNER_LOOKS, later);
        };
        let others = self.replicas.iter().enumerate().filter(|(at, it)| *at != replica && it.paused.is_none());
        let statuses = others.filter_map(|(_, it)| it.running.as_ref()).map(|it| it.node.replica().status());
        let statuses: Vec<Status> = statuses.filter(|status| status.op >= first).collect();
        let Some((class, record)) = (rejoin.record)(self.members, first, &statuses) else {
            return self.queue.after(OWNER_LOOKS, later);
        };
        let number = self.disks_lost.saturating_mul(0x100).saturating_add(replica as u64);
        let Some(process) = self.replicas.get_mut(replica) else { return };
        process.storage.full(false);
        let replaced = process.storage.replace(number, &(class, record.encode()));
        process.lost = None;
        self.trace.add(now, || What::Healed(format!("R{replica} has a new disk")));
        if let Err(error) = replaced {
            return self
                .violate(crate::checker::Property::STORE, format!("R{replica} cannot be brought back: {error}"));
        }
        self.start(replica);
    }

    /// The first of so many entries that the others have committed since this moment, if they have; any if none are needed.
    fn flushed(&self, since: Moment, entries: u64) -> Option<OpNumber> {
        if entries == 0 {
            return Some(OpNumber::ZERO);
        }
        let heard = |op: &OpNumber| *op > OpNumber::ZERO;
        let asked = self.history.entries().iter().filter(|entry| entry.invoked > since && entry.is_write());
        let ops: Vec<OpNumber> = asked.filter_map(|it| it.answer()).map(|answer| answer.op).filter(heard).collect();
        let (first, last) = (ops.iter().min().copied(), ops.iter().max().copied());
        first.zip(last).filter(|(first, last)| last.since(*first) > entries).map(|(first, _)| first)
    }

    /// One more entry, so that the window passes.
    fn ask_for_an_entry(&mut self) {
        let client = self.nemesis.index(self.clients.len());
        if self.clients.get(client).is_some_and(|process| process.waiting == 0) {
            let call = self.workload.probe();
            self.call(client, vec![call]);
        }
    }
}
