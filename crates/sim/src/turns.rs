//! Replicas: what the host does around a node. Inputs in, actions out, disk and executor beside it.

use crate::checker::Property;
use crate::clock::{MICRO, MILLI};
use crate::cluster::{Cluster, Event};
use crate::disk::Storage;
use crate::faults::Fault;
use crate::misfortune::Chance;
use crate::process::{Running, StartError};
use crate::random::Random;
use crate::trace::{Applied, Travel, What, short, words};
use bytes::Bytes;
use quorate_core::crypto::Digest;
use quorate_core::executor::{Done, Job, Make, Save};
use quorate_core::ids::{ClientId, Peer, RecordSeq};
use quorate_core::machine::{Corrupt, Machine};
use quorate_core::mutated;
use quorate_core::node::{Action, Input, Payload, Service};
use quorate_core::outbox::{Class, Note, To};
use quorate_core::protocol::{Checkpoint, Protocol, Replica};
use quorate_core::sessions::{Batch, Outcome};
use quorate_core::wire::{Envelope, Wire};
use quorate_store::replica::SnapshotsError;

impl<P: Protocol, M: Machine> Cluster<P, M> {
    pub(crate) fn on_frame(&mut self, from: Peer, replica: usize, bytes: Bytes, travel: Travel) {
        self.trace.add(self.queue.now(), || What::Arrived(travel));
        self.input(replica, Input::Frame { from, bytes });
    }

    /// One input of one node, and everything that follows at once.
    pub(crate) fn input(&mut self, replica: usize, input: Input) {
        let (now, entropy) = (self.now(), self.entropy.bits());
        if let Input::Disconnected(Peer::Client(client)) = input {
            self.watches.ends(replica, Some(client));
        }
        let Some(process) = self.replicas.get_mut(replica) else { return };
        let turn = process.turn(now, entropy);
        let Some(running) = &mut process.running else { return };
        let mut actions = Vec::new();
        running.node.handle(input, turn, &mut actions);
        self.look_at(replica);
        self.carry_out(replica, actions);
        self.sync(replica);
        self.rearm(replica);
    }

    /// The protocol's own invariants. And whom does it hold a proof against? Two signatures for one slot are a broken promise,
    /// whether or not anything came of it.
    pub(crate) fn look_at(&mut self, replica: usize) {
        let Some(running) = self.replicas.get(replica).and_then(|process| process.running.as_ref()) else { return };
        self.trace.stated(self.queue.now(), replica, || running.node.replica().status());
        if self.adversary.lies(replica) {
            return;
        }
        if let Err(broken) = running.node.replica().check() {
            return self.violate(Property::INVARIANT, format!("R{replica}: {broken}"));
        }
        let proofs = running.node.ledger().proofs().iter();
        let mut unjust = proofs.filter(|(accused, _)| !self.adversary.lies(accused.index()));
        if let Some(detail) = unjust.next().map(|(accused, proof)| format!("{accused} {}", proof.words())) {
            self.violate(Property::NO_FALSE_PROOF, detail);
        }
    }

    /// Carries actions out in order. With crashes, the process may die between any two of them.
    pub(crate) fn carry_out(&mut self, replica: usize, actions: Vec<Action>) {
        for action in actions {
            if self.dies_here(replica) {
                return;
            }
            self.act(replica, action);
        }
    }

    fn act(&mut self, replica: usize, action: Action) {
        match action {
            Action::Append { seq, class, bytes } => {
                if self.disk(replica, |storage| storage.append(seq, class, &bytes)).is_none() {
                    return;
                }
                if let Some(running) = self.replicas.get_mut(replica).and_then(|process| process.running.as_mut()) {
                    running.appended = seq;
                }
                let promise = class == Class::Promise;
                self.trace.add(self.queue.now(), || What::Appended { replica, seq, promise });
                if self.dies_at_a_write(replica) {
                    return;
                }
                self.sync(replica);
            }
            Action::Send { to, bytes, label } => self.send(replica, to, &bytes, label),
            Action::Run(job) => self.enqueue(replica, job),
            Action::Make(make) => {
                let delay = self.of_the_executor(replica, Chance::Work).between(100 * MICRO, 150 * MILLI);
                self.later(replica, delay, |replica, life| Event::Make { replica, life, make });
            }
            Action::Save(save) => {
                let delay = self.on_snapshots_thread(replica, 40 * MILLI);
                self.later(replica, delay, |replica, life| Event::Save { replica, life, save });
            }
            Action::Read { to, checkpoint, part } => {
                let Some(process) = self.replicas.get_mut(replica) else { return };
                let bytes = process.storage.read(checkpoint, part);
                self.report(replica, Input::Read { to, checkpoint, part, bytes });
            }
            Action::Prepare(manifest) => {
                let prepared = self.store(replica, manifest.checkpoint(), |storage| storage.prepare(&manifest));
                if let Some(missing) = prepared {
                    self.report(replica, Input::Prepared(manifest, missing));
                }
            }
            Action::Put(checkpoint, index, bytes) => {
                self.disk(replica, |storage| match storage.put(checkpoint, index, &bytes) {
                    Ok(()) | Err(SnapshotsError::Unusable { .. }) => Ok(()), // the chunk is then missing at the end
                    Err(error) => Err(error.to_string()),
                });
            }
            Action::Finish(checkpoint) => {
                if self.store(replica, checkpoint, |storage| storage.finish(checkpoint)).is_some() {
                    self.report(replica, Input::Stored(checkpoint));
                }
            }
            Action::Install(checkpoint) => {
                if let Some((manifest, chunks)) = self.store(replica, checkpoint, |storage| storage.load(checkpoint)) {
                    self.enqueue(replica, Job::Install { manifest, chunks });
                }
            }
            Action::Forget(seq) => {
                self.disk(replica, |storage| storage.forget(seq));
            }
            Action::ForgetSnapshots(op) => {
                self.disk(replica, |storage| storage.forget_snapshots(op).map_err(|error| error.to_string()));
            }
            Action::Note(note) => self.note(replica, &note),
            Action::Halt(reason) => self.halt(replica, &reason),
        }
    }

    fn send(&mut self, replica: usize, to: To, bytes: &Bytes, label: &'static str) {
        let Some(from) = self.replicas.get(replica).map(|process| process.id) else { return };
        let to: Vec<Peer> = match to {
            To::One(peer) => vec![peer],
            To::Others => {
                let group = self.replicas.iter().take(self.members);
                group.map(|process| process.id).filter(|id| *id != from).map(Peer::Replica).collect()
            }
        };
        for peer in to {
            if let (Peer::Client(client), "Events" | "Watching") = (peer, label) {
                self.look_at_watch(replica, client, bytes);
            }
            self.say(replica, peer, bytes.clone(), label);
            if self.dies_here(replica) {
                return;
            }
        }
    }

    /// A client is told of events, or that it watches.
    fn look_at_watch(&mut self, replica: usize, client: ClientId, bytes: &Bytes) {
        if self.adversary.lies(replica) {
            return;
        }
        let op = self.replicas.get(replica).and_then(|it| it.running.as_ref()).map(|it| it.executor.op());
        let Ok((_, Payload::Service(service))) = Envelope::open::<Payload<P::Message>>(bytes) else { return };
        let seen = match service {
            Service::Events(events) => self.watches.told(replica, client, &events),
            Service::Watching { .. } => self.watches.begins(replica, client, op.unwrap_or_default()),
            _ => Ok(()),
        };
        if let Err(detail) = seen {
            self.violate(Property::WATCHES, detail);
        }
    }

    /// Syncs what somebody waits for; what nobody waits for goes with it, or a little later.
    fn sync(&mut self, replica: usize) {
        let Some(running) = self.replicas.get_mut(replica).and_then(|it| it.running.as_mut()) else { return };
        if running.node.awaited().is_some_and(|awaited| awaited > running.synced) {
            return self.begin_sync(replica);
        }
        if running.unhurried || running.syncing || running.appended == running.synced {
            return;
        }
        running.unhurried = true;
        let mut luck = self.fortune.stream(Chance::Unawaited, replica, running.appended.get());
        let delay = luck.between(MILLI, 40 * MILLI);
        self.later(replica, delay, |replica, life| Event::SyncAnyhow { replica, life });
    }

    pub(crate) fn on_sync_anyhow(&mut self, replica: usize) {
        if let Some(running) = self.replicas.get_mut(replica).and_then(|it| it.running.as_mut()) {
            running.unhurried = false;
        }
        self.begin_sync(replica);
    }

    /// One sync at a time; it covers what was appended before it began. What is appended meanwhile waits for the next.
    fn begin_sync(&mut self, replica: usize) {
        let now = self.now();
        let Some(process) = self.replicas.get_mut(replica) else { return };
        let slow = process.slow_until > now;
        let Some(running) = &mut process.running else { return };
        if running.syncing || running.appended == running.synced {
            return;
        }
        running.syncing = true;
        let seq = running.appended;
        let mut luck = self.fortune.stream(Chance::Sync, replica, seq.get());
        let usual = luck.between(100 * MICRO, 2 * MILLI);
        let delay = if slow { luck.between(20 * MILLI, 500 * MILLI) } else { usual };
        self.later(replica, delay, |replica, life| Event::Synced { replica, life, seq });
    }

    pub(crate) fn on_synced(&mut self, replica: usize, seq: RecordSeq) {
        if self.dies_at_a_write(replica) {
            return;
        }
        if !mutated!("host/reports-before-the-sync")
            && (self.sync_fails(replica) || self.disk(replica, Storage::sync).is_none())
        {
            return; // also if it dies after the sync and before anybody hears of it
        }
        if let Some(running) = self.replicas.get_mut(replica).and_then(|process| process.running.as_mut()) {
            (running.syncing, running.synced) = (false, seq);
        }
        self.trace.add(self.queue.now(), || What::Synced { replica, seq });
        if self.dies_at_a_write(replica) {
            return;
        }
        self.input(replica, Input::Synced(seq));
        let is_idle = |running: &Running<P, M>| !running.syncing;
        if self.replicas.get(replica).and_then(|process| process.running.as_ref()).is_some_and(is_idle) {
            self.disk(replica, Storage::idle);
        }
    }

    fn enqueue(&mut self, replica: usize, job: Job) {
        let Some(running) = self.replicas.get_mut(replica).and_then(|process| process.running.as_mut()) else { return };
        running.jobs.push_back(job);
        if running.jobs.len() == 1 {
            self.work(replica);
        }
    }

    fn work(&mut self, replica: usize) {
        let delay = self.of_the_executor(replica, Chance::Work).between(5 * MICRO, 300 * MICRO);
        self.later(replica, delay, |replica, life| Event::Worked { replica, life });
    }

    /// The luck of what the executor does next, named by how far it has got.
    fn of_the_executor(&self, replica: usize, chance: Chance) -> Random {
        let running = self.replicas.get(replica).and_then(|process| process.running.as_ref());
        let op = running.map_or(0, |running| running.executor.op().get());
        self.fortune.stream(chance, replica, op)
    }

    /// The executor has done its front job: everything that it did is shown to the checkers before the node hears of it.
    pub(crate) fn on_worked(&mut self, replica: usize) {
        let now = self.now();
        let Some(process) = self.replicas.get_mut(replica) else { return };
        let id = process.id;
        let Some(running) = &mut process.running else { return };
        let Some(job) = running.jobs.pop_front() else { return };
        let input = match &job {
            Job::Execute { batch, .. } => Some(batch.clone()),
            Job::Commit { state, .. } => running.executor.speculated(*state).cloned(),
            _ => None,
        };
        let is_ordered = matches!(job, Job::Execute { .. });
        let mut done = running.run(job);
        let seen = match (&done, input) {
            _ if self.adversary.lies(replica) => Ok(()), // nobody expects anything of a liar
            (Done::Executed { op, outcome }, Some(bytes)) => {
                self.watches.published(*op, &outcome.events);
                let output = Digest::of_parts(&[&outcome.replies.encode(), &outcome.events.encode()]);
                let (op, batch, state) = (*op, Digest::of(&bytes), running.executor.digest());
                let applied = || applied(&bytes, outcome);
                self.trace.add(now, || What::Executed { replica, op, batch, state, applied: applied() });
                self.witness.executed(id, op, batch, output, state)
            }
            (Done::Installed { checkpoint, error: None, .. }, _) => {
                let (op, state) = (checkpoint.op, running.executor.digest());
                self.trace.add(now, || What::Installed { replica, op, state });
                self.witness.installed(id, op, state)
            }
            (Done::Installed { error: Some(error), .. }, _) => {
                self.trace.add(now, || What::Failed { replica, what: format!("cannot install: {error}") });
                Ok(())
            }
            _ => Ok(()),
        };
        if let Done::Executed { outcome, .. } = &mut done
            && is_ordered
            && !running.listens
        {
            outcome.events.clear();
        }
        if !running.jobs.is_empty() {
            self.work(replica);
        }
        if let Err((property, detail)) = seen {
            self.violate(property, detail);
        }
        self.input(replica, Input::Done(done));
    }

    pub(crate) fn on_wake(&mut self, replica: usize) {
        let now = self.now();
        let Some(process) = self.replicas.get_mut(replica) else { return };
        let local = process.clock.monotonic(now);
        let Some(running) = &mut process.running else { return };
        if running.wake.is_none_or(|at| at > now) {
            return; // an earlier one was scheduled meanwhile and has rung
        }
        running.wake = None;
        if running.node.deadline().is_some_and(|deadline| deadline <= local) {
            self.input(replica, Input::Timers);
        } else {
            self.rearm(replica);
        }
    }

    pub(crate) fn rearm(&mut self, replica: usize) {
        let now = self.now();
        let Some(process) = self.replicas.get_mut(replica) else { return };
        let (clock, life) = (process.clock, process.life);
        let Some(running) = &mut process.running else { return };
        let Some(deadline) = running.node.deadline() else { return };
        let at = clock.when(deadline).max(now.saturating_add(1));
        if running.wake.is_none_or(|wake| at < wake) {
            running.wake = Some(at);
            self.queue.at(at, Event::Wake { replica, life });
        }
    }

    pub(crate) fn on_make(&mut self, replica: usize, make: Box<dyn Make>) {
        let (ticket, made) = make.make();
        self.input(replica, Input::Made(ticket, made));
    }

    pub(crate) fn on_save(&mut self, replica: usize, save: Box<dyn Save>) {
        if let Some(checkpoint) = self.disk(replica, |storage| storage.save(save).map_err(|error| error.to_string())) {
            self.input(replica, Input::Saved(checkpoint));
        }
    }

    /// When the snapshots' thread will have done one more thing.
    fn on_snapshots_thread(&mut self, replica: usize, longest: u64) -> u64 {
        let takes = self.of_the_executor(replica, Chance::Snapshot).between(50 * MICRO, longest);
        let now = self.now();
        let Some(running) = self.replicas.get_mut(replica).and_then(|process| process.running.as_mut()) else {
            return 0;
        };
        running.snapshots_busy = running.snapshots_busy.max(now).saturating_add(takes);
        running.snapshots_busy.saturating_sub(now)
    }

    /// Like [`Cluster::disk`], for a snapshot that arrives: one that cannot be used has failed to be installed.
    fn store<T>(
        &mut self,
        replica: usize,
        checkpoint: Checkpoint,
        work: impl FnOnce(&mut Storage) -> Result<T, SnapshotsError>,
    ) -> Option<T> {
        let done = self.disk(replica, |storage| match work(storage) {
            Ok(done) => Ok(Ok(done)),
            Err(SnapshotsError::Unusable { why, .. }) => Ok(Err(why)),
            Err(error) => Err(error.to_string()),
        });
        match done? {
            Ok(done) => Some(done),
            Err(why) => {
                let error = Some(Corrupt(why));
                self.report(replica, Input::Done(Done::Installed { checkpoint, error, wake: None }));
                None
            }
        }
    }

    /// The snapshots' thread reports something a little later.
    fn report(&mut self, replica: usize, input: Input) {
        let delay = self.on_snapshots_thread(replica, 3 * MILLI);
        self.later(replica, delay, |replica, life| Event::Report { replica, life, input });
    }

    pub(crate) fn later(&mut self, replica: usize, delay: u64, event: impl FnOnce(usize, u32) -> Event) {
        if let Some(process) = self.replicas.get(replica) {
            self.queue.after(delay, event(replica, process.life));
        }
    }

    /// Does something with a replica's disk. `None` if the process died over it; a disk that refuses without one of our
    /// faults is a defect of the store.
    fn disk<T>(&mut self, replica: usize, work: impl FnOnce(&mut Storage) -> Result<T, String>) -> Option<T> {
        let doomed = self.is_doomed(replica);
        let now = self.now();
        let process = self.replicas.get_mut(replica).filter(|process| process.running.is_some())?;
        let full = process.full_until > now;
        if doomed {
            let lives = u64::from(process.life).saturating_mul(2).saturating_add(1);
            process.storage.doom(&mut self.fortune.stream(Chance::Survival, replica, lives));
        }
        match work(&mut process.storage) {
            _ if doomed => {
                self.crash(replica, Fault::Crash);
                None
            }
            Ok(done) => Some(done),
            Err(_) if full => {
                self.crash(replica, Fault::FullDisk); // as the host does: it stops, and is started again
                None
            }
            Err(error) => {
                self.violate(Property::STORE, format!("R{replica}: {error}"));
                None
            }
        }
    }

    fn note(&mut self, replica: usize, note: &Note) {
        let now = self.now();
        self.trace.add(now, || What::Noted { replica, note: note.clone() });
        self.counts.note(note);
        if let Note::ViewStarted { view, primary, .. } = note
            && self.leader.is_none_or(|(known, _)| *view > known)
        {
            self.leader = Some((*view, primary.index()));
        }
    }

    fn halt(&mut self, replica: usize, reason: &str) {
        let now = self.now();
        self.trace.add(now, || What::Halted { replica, why: reason.to_owned() });
        if self.adversary.lies(replica) {
            return;
        }
        self.violate(Property::NO_HALT, format!("R{replica} halts: {reason}"));
    }

    /// A replica whose log is rotten may refuse to start, if it says so; any other refusal is a violation.
    pub(crate) fn did_not_start(&mut self, replica: usize, error: &StartError) {
        let text = match error {
            StartError::Disk(error) => error.clone(),
            StartError::Protocol(error) => error.to_string(),
        };
        let now = self.now();
        self.trace.add(now, || What::Refused { replica, why: text.clone() });
        let decays = [Fault::BitRot, Fault::Misdirected, Fault::SnapshotRot];
        let decayed = decays.iter().any(|fault| self.counts.faults.contains_key(fault));
        let Some(process) = self.replicas.get_mut(replica) else { return };
        if process.full_until > now {
            self.queue.at(process.full_until.saturating_add(1), Event::Start { replica });
        } else if replica == self.rot_victim && decayed {
            self.counts.refused = self.counts.refused.saturating_add(1);
            process.stopped = Some(text);
            self.give_to_owner(replica);
        } else {
            self.violate(Property::STORE, format!("R{replica} does not start: {text}"));
        }
    }

    /// Everything that two runs of a seed must agree on.
    pub(crate) fn audit(&self) -> Digest {
        let mut parts: Vec<Vec<u8>> = self.audits.iter().map(|audit| audit.as_bytes().to_vec()).collect();
        parts.push(self.now().encode());
        for running in self.replicas.iter().filter_map(|process| process.running.as_ref()) {
            parts.extend(running.node.audit().map(|audit| audit.as_bytes().to_vec()));
            parts.push(running.executor.digest().as_bytes().to_vec());
        }
        let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        Digest::of_parts(&parts)
    }
}

/// A batch in words, each request with what it came to.
fn applied(batch: &Bytes, outcome: &Outcome) -> Vec<Applied> {
    let Ok(batch) = Batch::decode(batch) else { return Vec::new() };
    let applied = batch.requests.iter().map(|request| {
        let mut replies = outcome.replies.iter();
        let reply = replies.find(|reply| (reply.client, reply.number) == (request.client, request.number));
        let reply = reply.map(|reply| short(reply.ruling.text(&words)));
        Applied { request: short(request.body.text(&words)), reply }
    });
    applied.collect()
}
