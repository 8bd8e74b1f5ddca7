//! Clients: what the host does around a client core, and what the application above it asks for.

use crate::client::{ClientProcess, whose};
use crate::clock::MILLI;
use crate::cluster::{Cluster, Event};
use crate::misfortune::Chance;
use crate::process::CLUSTER;
use crate::random::Random;
use crate::registers::{Reply, TOPIC};
use crate::trace::{Travel, What, short, words};
use bytes::Bytes;
use quorate_core::ids::{ClientId, Epoch, Peer};
use quorate_core::machine::Machine;
use quorate_core::node::{Input, Payload, Service};
use quorate_core::outbox::Note;
use quorate_core::protocol::{
    Answer, Call, CallError, Client, ClientEffect, ClientOutbox, Consistency, Protocol, Ticket,
};
use quorate_core::time::Instant;
use quorate_core::wire::{Envelope, Wire};
use std::collections::BTreeMap;

/// What is counted when clients name levels of criticality.
pub(crate) const NAMED: &str = "levels of criticality named";

/// Calls that a client waits for at once in a random run, at most.
const WAITING_MAX: usize = 8;

impl<P: Protocol, M: Machine> Cluster<P, M> {
    /// A client makes calls at once; returns their indices in the history.
    pub fn call(&mut self, client: usize, calls: Vec<Call>) -> Vec<usize> {
        let now = self.now();
        let mut made = Vec::new();
        for call in calls {
            let index = self.history.invoke(client, call.clone(), now);
            self.trace.add(now, || called(client, index, &call));
            made.push((index, call));
        }
        let indices = made.iter().map(|(index, _)| *index).collect();
        let named = made.iter().filter(|(_, call)| matches!(call, Call::Apply(_)));
        let levels: BTreeMap<usize, u8> = named.filter_map(|(index, _)| Some((*index, self.level(*index)?))).collect();
        if !levels.is_empty() {
            self.counts.note(&Note::Other(NAMED));
        }
        self.client_turn(client, |process, out| {
            for (index, call) in made {
                process.waiting = process.waiting.saturating_add(1);
                match (call, levels.get(&index)) {
                    (Call::Apply(operation), Some(level)) => {
                        process.core.submit_critical(Ticket(index as u64), *level, operation, out);
                    }
                    (call, _) => process.core.submit(Ticket(index as u64), call, out),
                }
            }
            process.core.flush(out);
        });
        indices
    }

    /// The level of criticality that a write names: in every second run, one in so many writes names none.
    fn level(&self, index: usize) -> Option<u8> {
        let (levels, seed) = self.levels;
        let names = levels > 0 && Random::keyed(seed, &[9]).chance(500_000);
        let drawn = || Random::keyed(seed, &[9, index as u64]).below(u64::from(levels).saturating_add(1));
        names.then(drawn).and_then(|level| u8::try_from(level).ok()).filter(|level| *level < levels)
    }

    pub(crate) fn on_client_frame(&mut self, from: Peer, to: ClientId, bytes: &Bytes, travel: Travel) {
        let now = self.now();
        let (Some((client, life)), Peer::Replica(from)) = (whose(to), from) else { return };
        let Some(process) = self.clients.get(client).filter(|process| process.life == life) else {
            return self.trace.add(now, || What::Missed(travel));
        };
        if process.paused_until > now {
            let (from, to, bytes) = (Peer::Replica(from), Peer::Client(to), bytes.clone());
            return self.queue.at(process.paused_until, Event::Frame { from, to, bytes, travel });
        }
        self.trace.add(now, || What::Arrived(travel));
        if let Ok((_, Payload::Protocol(mut message))) = Envelope::open::<Payload<P::Message>>(bytes) {
            self.client_turn(client, |process, out| {
                if P::prove(&mut message, &process.keyring).is_ok() {
                    process.core.on_message(from, message, out);
                }
            });
        }
    }

    pub(crate) fn on_client_wake(&mut self, client: usize, life: u32) {
        let now = self.now();
        let Some(process) = self.clients.get_mut(client).filter(|process| process.life == life) else { return };
        if process.wake.is_none_or(|at| at > now) {
            return;
        }
        if process.paused_until > now {
            process.wake = Some(process.paused_until);
            return self.queue.at(process.paused_until, Event::ClientWake { client, life });
        }
        process.wake = None;
        let due = process.take_due(Instant::from_nanos(now));
        self.client_turn(client, |process, out| {
            for timer in due {
                process.core.on_timer(timer, out);
            }
        });
    }

    /// A client tries to reach a replica, from now on until it has.
    pub(crate) fn connect(&mut self, client: usize, replica: usize) {
        let lives = self.replicas.get(replica).map_or(0, |process| u64::from(process.life));
        let number = lives.saturating_mul(0x100).saturating_add(replica as u64);
        let delay = self.fortune.stream(Chance::Link, client, number).between(MILLI, 20 * MILLI);
        if let Some(life) = self.clients.get(client).map(|process| process.life) {
            self.queue.after(delay, Event::LinkUp { client, life, replica });
        }
    }

    pub(crate) fn on_link_up(&mut self, client: usize, life: u32, replica: usize) {
        let Some(process) = self.clients.get(client).filter(|process| process.life == life) else { return };
        let Some(to) = self.replicas.get(replica).filter(|to| to.running.is_some()) else { return };
        let (here, there, id, deaths) = (Peer::Client(process.id), Peer::Replica(to.id), to.id, to.life);
        if self.network.is_cut(here, there) || self.network.is_cut(there, here) {
            return self.queue.after(50 * MILLI, Event::LinkUp { client, life, replica });
        }
        self.client_turn(client, |process, out| {
            if process.links.insert(replica, deaths) != Some(deaths) {
                process.core.on_connected(id, out);
            }
        });
        if client == 0 && replica.is_multiple_of(2) {
            // The first client watches at some replicas; the others have enough to do.
            let watch = Payload::<P::Message>::Service(Service::Watch { topic: TOPIC });
            let bytes = Envelope { cluster: CLUSTER, epoch: Epoch::ZERO }.seal(&watch);
            self.transmit(here, there, bytes, "Watch");
        }
    }

    pub(crate) fn on_link_down(&mut self, client: usize, life: u32, replica: usize, deaths: u32) {
        let Some(id) = self.replicas.get(replica).map(|process| process.id) else { return };
        let Some(process) = self.clients.get_mut(client).filter(|process| process.life == life) else { return };
        if process.links.get(&replica).is_some_and(|known| *known < deaths) {
            process.links.remove(&replica);
            self.client_turn(client, |process, out| process.core.on_disconnected(id, out));
        }
    }

    pub(crate) fn on_think(&mut self, client: usize, life: u32) {
        let Some(process) = self.clients.get(client).filter(|process| process.life == life) else { return };
        let (seen, found, waiting) = (process.seen, process.found, process.waiting);
        let room = WAITING_MAX.saturating_sub(waiting) as u64;
        self.workload.begin(client);
        let burst = self.workload.burst().min(room);
        let calls: Vec<Call> = (0..burst).map_while(|_| self.workload.call(seen, found)).collect();
        if !calls.is_empty() {
            self.call(client, calls);
        }
        if self.workload.left() > 0 {
            let delay = self.workload.think();
            self.queue.after(delay, Event::Think { client, life });
        }
    }

    /// One turn of one client, and everything that follows at once.
    fn client_turn(&mut self, client: usize, turn: impl FnOnce(&mut ClientProcess<P>, &mut ClientOutbox<P>)) {
        let now = self.now();
        let Some(process) = self.clients.get_mut(client) else { return };
        let mut out = ClientOutbox::new(Instant::from_nanos(now));
        turn(process, &mut out);
        let id = process.id;
        let mut completed = Vec::new();
        let mut sent = Vec::new();
        for effect in out.into_effects() {
            match effect {
                ClientEffect::Send(to, message) => sent.push((to, process.says(to, message))),
                ClientEffect::Arm { timer, at } => {
                    process.timers.insert(timer, at);
                }
                ClientEffect::Disarm(timer) => {
                    process.timers.remove(&timer);
                }
                ClientEffect::Complete(ticket, result) => completed.push((ticket, result)),
            }
        }
        if let Some(deadline) = process.deadline() {
            let at = deadline.as_nanos().max(now.saturating_add(1));
            if process.wake.is_none_or(|wake| at < wake) {
                process.wake = Some(at);
                let life = process.life;
                self.queue.at(at, Event::ClientWake { client, life });
            }
        }
        let envelope = Envelope { cluster: CLUSTER, epoch: Epoch::ZERO };
        for (to, message) in sent {
            let (label, is_brokered) = (P::label(&message), self.broker.exists() && P::goes_by_broker(&message));
            let (from, to, bytes) = (Peer::Client(id), Peer::Replica(to), envelope.seal(&Payload::Protocol(message)));
            if is_brokered {
                self.publish(from, to, &bytes, label);
            } else {
                self.transmit(from, to, bytes, label);
            }
        }
        for (ticket, result) in completed {
            self.complete(client, ticket, result);
        }
    }

    fn complete(&mut self, client: usize, ticket: Ticket, result: Result<Answer, CallError>) {
        let now = self.now();
        let index = usize::try_from(ticket.0).unwrap_or(usize::MAX);
        self.trace.add(now, || told(client, index, &result));
        if let Some(process) = self.clients.get_mut(client) {
            process.waiting = process.waiting.saturating_sub(1);
            if let Ok(answer) = &result {
                process.seen = process.seen.max(answer.op);
                process.found = Reply::decode(&answer.reply).map_or(process.found, |reply| reply.found);
            }
        }
        self.counts.answer(&result);
        self.history.complete(index, result);
    }

    /// A client dies and another one takes its place, which knows nothing.
    pub(crate) fn replace_client(&mut self, client: usize) {
        let (replicas, (retry, timeout)) = (self.replicas.len(), self.patience);
        let members = self.members; // a twin is one of them a second time
        let Some(process) = self.clients.get_mut(client) else { return };
        let (gone, life) = (process.id, process.life.saturating_add(1));
        self.trace.add(self.queue.now(), || What::ClientDied(client));
        *process = ClientProcess::new(client, life, members, retry, timeout);
        process.knows::<M>();
        let pending: Vec<usize> = (0..self.history.entries().len())
            .filter(|index| self.history.entries().get(*index).is_some_and(|it| it.client == client && it.is_pending()))
            .collect();
        for index in pending {
            self.history.abandon(index);
        }
        for replica in 0..replicas {
            let gone = Input::Disconnected(Peer::Client(gone));
            self.later(replica, MILLI, |replica, life| Event::Report { replica, life, input: gone });
            self.connect(client, replica);
        }
        self.workload.begin(client);
        let delay = self.workload.think();
        self.queue.after(delay, Event::Think { client, life });
    }
}

fn called(client: usize, call: usize, asked: &Call) -> What {
    let (words, reads) = match asked {
        Call::Apply(operation) => (words(operation), false),
        Call::Read(Consistency::Linearizable, query) => (format!("read {}", words(query)), true),
        Call::Read(Consistency::Ordered, query) => (format!("ordered read {}", words(query)), true),
        Call::Read(Consistency::Stale { at_least }, query) => {
            (format!("stale read {}, entry {at_least} or later", words(query)), true)
        }
    };
    What::Called { client, call, asked: short(words), reads }
}

fn told(client: usize, call: usize, result: &Result<Answer, CallError>) -> What {
    let told = match result {
        Ok(answer) => words(&answer.reply),
        Err(error) => error.to_string(),
    };
    What::Told { client, call, told: short(told), answered: result.is_ok() }
}
