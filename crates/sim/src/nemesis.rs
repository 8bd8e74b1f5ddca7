//! What goes wrong: the seed draws misfortunes, one look at a time, until the run heals.

use crate::clock::{MILLI, SECOND};
use crate::cluster::{Cluster, Event};
use crate::faults::Fault;
use crate::misfortune::{Chance, Moment};
use crate::process::Process;
use crate::trace::{What, name};
use quorate_core::ids::Peer;
use quorate_core::machine::Machine;
use quorate_core::node::Input;
use quorate_core::protocol::Protocol;
use std::collections::BTreeSet;

/// Between two looks, nanoseconds.
const LOOK: (u64, u64) = (2 * MILLI, 30 * MILLI);
/// A process that crashes does so within a turn this often, per million actions, at the usual rate.
const CRASH_IN_TURN: u64 = 100;
/// A process dies within a step of its store this often, per million steps, at the usual rate.
const CRASH_IN_STORE: u64 = 700;
/// A process dies on one side of a write this often, per million sides, at the usual rate.
const CRASH_AT_A_WRITE: u64 = 1500;
/// A sync fails this often, per million.
const SYNC_FAILS: u64 = 1000;

impl<P: Protocol, M: Machine> Cluster<P, M> {
    /// Draws what goes wrong now. Chances are per look, in millionths, at the usual rate.
    pub(crate) fn on_nemesis(&mut self) {
        let draws: [(Fault, u64); 17] = [
            (Fault::Crash, 8_000),
            (Fault::CrashAll, 1_200),
            (Fault::Pause, 6_000),
            (Fault::Partition, 5_000),
            (Fault::OneWay, 5_000),
            (Fault::Partial, 4_000),
            (Fault::SlowLink, 4_000),
            (Fault::SlowSync, 6_000),
            (Fault::BitRot, 4_000),
            (Fault::SnapshotRot, 3_000),
            (Fault::Misdirected, 3_000),
            (Fault::FullDisk, 2_000),
            (Fault::LostDisk, 1_500),
            (Fault::ClockJump, 4_000),
            (Fault::ClientCrash, 6_000),
            (Fault::ClientPause, 4_000),
            (Fault::LyingDisk, 4_000),
        ];
        for (fault, usual) in draws {
            let chance = usual.saturating_mul(u64::from(self.faults.rate(fault))) / 100;
            let drawn = self.looks.chance(chance);
            if let Some(luck) = drawn.then(|| self.fortune.look(fault, self.queue.now())).flatten() {
                self.nemesis = luck;
                self.strike(fault);
            }
        }
        let delay = self.looks.between(LOOK.0, LOOK.1);
        self.queue.after(delay, Event::Nemesis);
    }

    fn strike(&mut self, fault: Fault) {
        let replica = self.prey();
        match fault {
            Fault::Partial | Fault::SlowLink => self.trouble_links(replica, fault),
            Fault::FullDisk | Fault::LostDisk | Fault::LyingDisk => self.trouble_disk(replica, fault),
            Fault::ClockJump | Fault::ClientPause => self.trouble_time(replica, fault),
            Fault::Crash => self.crash(replica, Fault::Crash),
            Fault::CrashAll => {
                for replica in 0..self.replicas.len() {
                    self.crash(replica, Fault::CrashAll);
                }
            }
            Fault::Pause => self.pause(replica),
            Fault::Partition => self.partition(),
            Fault::OneWay => self.one_way(replica),
            Fault::SlowSync => {
                let until = self.now().saturating_add(self.nemesis.between(100 * MILLI, 2 * SECOND));
                if let Some(process) = self.replicas.get_mut(replica) {
                    process.slow_until = until;
                    self.counts.fault(fault);
                    let text = || format!("R{replica}'s disk is slow until {} ms", until / MILLI);
                    self.trace.add(self.queue.now(), || What::Fault { fault, replica: Some(replica), text: text() });
                }
            }
            Fault::BitRot | Fault::SnapshotRot | Fault::Misdirected => self.decay(fault),
            Fault::ClientCrash if !self.clients.is_empty() => {
                let client = self.nemesis.index(self.clients.len());
                self.counts.fault(fault);
                self.replace_client(client);
            }
            _ => {}
        }
    }

    /// Does the process die between these two effects? Decided by the seed, often enough that every boundary is hit by
    /// some seed: between append and sync, between sync and its report, between two sends of one broadcast.
    pub(crate) fn dies_here(&mut self, replica: usize) -> bool {
        if self.replicas.get(replica).is_none_or(|process| process.running.is_none()) {
            return true;
        }
        let chance = CRASH_IN_TURN.saturating_mul(u64::from(self.faults.rate(Fault::Crash))) / 100;
        if !self.strikes(replica, Fault::Crash, chance) {
            return false;
        }
        self.crash(replica, Fault::Crash);
        true
    }

    /// Does this fault strike at this step of a replica, so many times in a million?
    fn strikes(&mut self, replica: usize, fault: Fault, per_million: u64) -> bool {
        let luck = self.fortune.step(replica, fault, per_million, self.queue.now());
        let strikes = luck.is_some();
        self.nemesis = luck.unwrap_or(self.nemesis.clone());
        strikes
    }

    /// Does the process die on this side of a write? Much more often than elsewhere: here is where promises are made.
    pub(crate) fn dies_at_a_write(&mut self, replica: usize) -> bool {
        let chance = CRASH_AT_A_WRITE.saturating_mul(u64::from(self.faults.rate(Fault::PersistCrash))) / 100;
        if !self.strikes(replica, Fault::PersistCrash, chance) {
            return false;
        }
        self.crash(replica, Fault::PersistCrash);
        true
    }

    /// Does the process die within this step of its store, with the power, whatever the step had written so far?
    pub(crate) fn is_doomed(&mut self, replica: usize) -> bool {
        let chance = CRASH_IN_STORE.saturating_mul(u64::from(self.faults.rate(Fault::Crash))) / 100;
        self.strikes(replica, Fault::Crash, chance)
    }

    /// Does the next sync fail? Then the process stops, and is started again.
    pub(crate) fn sync_fails(&mut self, replica: usize) -> bool {
        let chance = SYNC_FAILS.saturating_mul(u64::from(self.faults.rate(Fault::SyncError))) / 100;
        if !self.strikes(replica, Fault::SyncError, chance) {
            return false;
        }
        if let Some(process) = self.replicas.get_mut(replica) {
            process.storage.fail_next_sync();
            // It succeeds where a full segment has left nothing to sync; the process dies all the same.
            let _ended = process.storage.sync();
            if quorate_core::mutated!("host/goes-on-after-a-failed-sync") {
                return false;
            }
            self.crash(replica, Fault::SyncError);
        }
        true
    }

    /// Kills a replica; it starts again a little later.
    pub(crate) fn crash(&mut self, replica: usize, fault: Fault) {
        if self.end(replica, Some(fault)) {
            self.counts.fault(fault);
            let delay = match self.nemesis.below(3) {
                0 => self.nemesis.between(MILLI, 30 * MILLI),
                _ => self.nemesis.between(30 * MILLI, 1500 * MILLI),
            };
            self.queue.after(delay, Event::Start { replica });
        }
    }

    /// Kills a replica: its memory is gone, and a random part of what its disk had not synced. False if it was not running.
    pub fn kill(&mut self, replica: usize) -> bool {
        self.end(replica, None)
    }

    fn end(&mut self, replica: usize, fault: Option<Fault>) -> bool {
        let now = self.now();
        let Some(process) = self.replicas.get_mut(replica) else { return false };
        let Some(running) = process.running.take() else { return false };
        self.audits.extend(running.node.audit());
        process.life = process.life.saturating_add(1);
        process.paused = None;
        let lives = u64::from(process.life).saturating_mul(2);
        process.storage.crash(&self.faults, &mut self.fortune.stream(Chance::Survival, replica, lives));
        self.watches.ends(replica, None);
        self.trace.add(now, || What::Crashed { replica, fault });
        self.notify_clients(replica);
        self.notify_replicas(replica);
        true
    }

    /// Connections break when a process dies; whoever is not cut off notices.
    fn notify_replicas(&mut self, replica: usize) {
        let Some(gone) = self.replicas.get(replica).map(|process| Peer::Replica(process.id)) else { return };
        for other in (0..self.replicas.len()).filter(|other| *other != replica) {
            let Some(Process { id, life, .. }) = self.replicas.get(other) else { continue };
            if !self.network.is_cut(gone, Peer::Replica(*id)) {
                let report = Event::Report { replica: other, life: *life, input: Input::Disconnected(gone) };
                self.queue.after(MILLI, report);
            }
        }
    }

    fn notify_clients(&mut self, replica: usize) {
        let Some((peer, deaths)) = self.replicas.get(replica).map(|it| (Peer::Replica(it.id), it.life)) else { return };
        for client in 0..self.clients.len() {
            let Some((id, life)) = self.clients.get(client).map(|process| (process.id, process.life)) else { continue };
            let cut = self.network.is_cut(peer, Peer::Client(id));
            let delay = if cut { SECOND } else { self.nemesis.between(MILLI, 20 * MILLI) };
            self.queue.after(delay, Event::LinkDown { client, life, replica, deaths });
        }
    }

    fn pause(&mut self, replica: usize) {
        let now = self.now();
        let delay = self.nemesis.between(10 * MILLI, 2500 * MILLI);
        let Some(process) = self.replicas.get_mut(replica) else { return };
        if process.running.is_some() && process.paused.is_none() {
            process.paused = Some(Vec::new());
            let life = process.life;
            self.trace.add(now, || What::Paused(replica));
            self.counts.fault(Fault::Pause);
            self.queue.after(delay, Event::Resume { replica, life });
        }
    }

    pub(crate) fn resume(&mut self, replica: usize, life: u32) {
        let now = self.now();
        let Some(process) = self.replicas.get_mut(replica).filter(|process| process.life == life) else { return };
        if let Some(deferred) = process.paused.take() {
            self.trace.add(now, || What::Resumed(replica));
            for event in deferred {
                self.queue.after(0, event);
            }
        }
    }

    /// Everybody is on one of two sides; sometimes some clients can reach both.
    fn partition(&mut self) {
        let replicas = self.replicas.iter().map(|process| Peer::Replica(process.id));
        let clients = self.clients.iter().map(|process| Peer::Client(process.id));
        let peers: Vec<Peer> = replicas.chain(clients).collect();
        let sides: Vec<u64> = peers.iter().map(|_| self.nemesis.below(2)).collect();
        let torn = |client: &Peer| matches!(client, Peer::Client(_));
        let reach_both = self.nemesis.chance(500_000);
        let mut links = BTreeSet::new();
        for (a, side) in peers.iter().zip(&sides) {
            for (b, other) in peers.iter().zip(&sides) {
                if side != other && !(reach_both && (torn(a) || torn(b))) {
                    links.insert((*a, *b));
                }
            }
        }
        self.cut(links, Fault::Partition);
    }

    /// One replica does not hear, or is not heard by, all or some of the others.
    fn one_way(&mut self, replica: usize) {
        let Some(it) = self.replicas.get(replica).map(|process| Peer::Replica(process.id)) else { return };
        let deaf = self.nemesis.chance(500_000);
        let others: Vec<Peer> =
            self.replicas.iter().map(|process| Peer::Replica(process.id)).filter(|id| *id != it).collect();
        let some: Vec<Peer> = others.into_iter().filter(|_| self.nemesis.chance(700_000)).collect();
        let links = some.into_iter().map(|other| if deaf { (other, it) } else { (it, other) }).collect();
        self.cut(links, Fault::OneWay);
    }

    pub(crate) fn cut(&mut self, links: BTreeSet<(Peer, Peer)>, fault: Fault) {
        let now = self.now();
        if links.is_empty() {
            return;
        }
        let names: Vec<String> = links.iter().map(|(from, to)| format!("{}→{}", name(*from), name(*to))).collect();
        let cut = self.network.cut(links);
        self.trace.add(now, || What::Fault { fault, replica: None, text: format!("cut {cut}: {}", names.join(" ")) });
        self.counts.fault(fault);
        let delay = self.nemesis.between(20 * MILLI, 3 * SECOND);
        self.queue.after(delay, Event::Heal { cut });
    }

    /// Some stay faulty for good, at most `spared`: each is down, or runs and nobody hears it.
    pub(crate) fn spare(&mut self, spared: usize) {
        let now = self.now();
        // A replica whose disk was damaged or lost counts as faulty until the others have told it what it forgot.
        let damages = [Fault::BitRot, Fault::SnapshotRot, Fault::Misdirected, Fault::LostDisk];
        let room = if damages.iter().any(|fault| self.counts.faults.contains_key(fault)) { 0 } else { spared };
        let room = room.saturating_sub(self.adversary.count());
        let mut luck = self.fortune.calm();
        for _ in 0..luck.between(0, room as u64) {
            let replica = luck.index(self.replicas.len());
            let fault = if luck.chance(500_000) { Fault::Crash } else { Fault::Partition };
            if !self.fortune.allows(Moment::Calm(replica), fault, now) {
                continue;
            }
            let Some(process) = self.replicas.get_mut(replica) else { continue };
            let me = Peer::Replica(process.id);
            process.spared = true;
            let text = || format!("R{replica} stays faulty");
            self.trace.add(now, || What::Fault { fault, replica: Some(replica), text: text() });
            if fault == Fault::Crash {
                self.kill(replica);
            } else {
                let replicas = self.replicas.iter().map(|process| Peer::Replica(process.id));
                let clients = self.clients.iter().map(|process| Peer::Client(process.id));
                let others: Vec<Peer> = replicas.chain(clients).filter(|other| *other != me).collect();
                let links = others.into_iter().flat_map(|other| [(me, other), (other, me)]).collect();
                let _for_good = self.network.cut(links);
            }
        }
    }

    /// The storm is over: links are whole, disks fast, everybody runs but for the `spared` that may stay faulty.
    pub fn heal(&mut self, spared: usize) {
        let now = self.now();
        self.trace.add(now, || What::Healed("everything heals".to_owned()));
        self.faults = self.faults.ended();
        self.network.heal_all();
        self.heal_broker();
        self.spare(spared);
        self.clients.iter_mut().for_each(|client| client.paused_until = 0);
        for replica in 0..self.replicas.len() {
            let Some(process) = self.replicas.get_mut(replica) else { continue };
            (process.slow_until, process.full_until) = (0, 0);
            process.storage.full(false);
            let life = process.life;
            self.resume(replica, life);
            self.start(replica);
        }
    }
}
