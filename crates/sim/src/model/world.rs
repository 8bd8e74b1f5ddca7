//! The cluster, its clients, and what happens when.

use super::replica::{Replica, Waiting};
use super::{Costs, Found, Question, Unanswered, Work};
use crate::client::{address, whose};
use crate::clock::{Queue, SECOND};
use crate::process::CLUSTER;
use bytes::Bytes;
use quorate_core::crypto::Keyring;
use quorate_core::executor::Done;
use quorate_core::ids::{Epoch, Peer, RecordSeq, ReplicaId};
use quorate_core::node::{Action, Input, Payload};
use quorate_core::outbox::To;
use quorate_core::protocol::{Call, Client, ClientConfig, ClientEffect, ClientOutbox, Protocol, Ticket};
use quorate_core::time::{Duration, Instant};
use quorate_core::wire::Envelope;
use quorate_machines::kv::{Operation, Put};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Virtual time after which the model gives up.
const SECONDS_MAX: u64 = 120;
/// Keys that the load is spread over, evenly.
const KEYS: u64 = 10_000;
/// Without an answer for this long a client asks again: as real ones do.
const RETRY: Duration = Duration::from_millis(150);
const TIMEOUT: Duration = Duration::from_secs(60);

enum Event<P: Protocol> {
    /// The last byte of a frame has arrived.
    Arrive {
        from: Peer,
        to: usize,
        bytes: Bytes,
    },
    /// Something is ready for the protocol's core.
    Ready {
        replica: usize,
        waiting: Waiting<P>,
    },
    /// The protocol's core has done a turn.
    Turned {
        replica: usize,
        actions: Vec<Action>,
    },
    Synced {
        replica: usize,
        seq: RecordSeq,
    },
    Worked {
        replica: usize,
        done: Box<Done>,
    },
    Wake {
        replica: usize,
    },
    ToClient {
        from: ReplicaId,
        client: usize,
        bytes: Bytes,
    },
    ClientWake {
        client: usize,
    },
}

struct Caller<P: Protocol> {
    core: P::Client,
    keyring: Arc<Keyring>,
    timers: BTreeMap<P::ClientTimer, Instant>,
    wake: Option<u64>,
    /// When each call that waits was made.
    made: BTreeMap<u64, u64>,
}

pub struct World<P: Protocol> {
    queue: Queue<Event<P>>,
    replicas: Vec<Replica<P>>,
    callers: Vec<Caller<P>>,
    costs: Costs,
    payload: usize,
    calls: u64,
    answered: u64,
    asked: u64,
    /// Answers before which nothing is counted.
    warm: u64,
    counted_from: u64,
    latencies: Vec<u64>,
    outside: Option<Unanswered>,
}

impl<P: Protocol> World<P> {
    pub fn new(question: &Question<P>) -> Result<Self, Unanswered> {
        let Question { replicas: count, clients, in_flight, payload, answers, config, costs } = question;
        let mut replicas = Vec::new();
        let mut started = Vec::new();
        for id in (0..*count).filter_map(|index| u8::try_from(index).ok()).map(ReplicaId::new) {
            let start = Replica::start(id, *count, config.clone(), costs);
            let (replica, actions) = start.map_err(|error| Unanswered::Start(error.to_string()))?;
            replicas.push(replica);
            started.push(actions);
        }
        let callers = (0..*clients).map(|index| Caller::new(index, *count)).collect();
        let mut world = Self {
            queue: Queue::default(),
            replicas,
            callers,
            costs: *costs,
            payload: *payload,
            calls: 0,
            answered: 0,
            asked: *answers,
            warm: *answers / 10,
            counted_from: 0,
            latencies: Vec::new(),
            outside: None,
        };
        for (replica, actions) in started.into_iter().enumerate() {
            world.carry_out(replica, actions);
        }
        for client in 0..world.callers.len() {
            world.caller_turn(client, |caller, out| {
                (0..*count).filter_map(|index| u8::try_from(index).ok()).for_each(|index| {
                    caller.core.on_connected(ReplicaId::new(index), out);
                });
            });
        }
        for number in 0..*in_flight {
            let client = number % (*clients).max(1);
            world.call(client);
        }
        for client in 0..world.callers.len() {
            world.caller_turn(client, |caller, out| caller.core.flush(out));
        }
        Ok(world)
    }

    pub fn run(mut self) -> Result<Found, Unanswered> {
        while self.answered < self.asked {
            if self.queue.now() > SECONDS_MAX.saturating_mul(SECOND) {
                break;
            }
            let Some(event) = self.queue.pop() else { break };
            self.happen(event);
            if let Some(outside) = self.outside {
                return Err(outside);
            }
        }
        if self.answered < self.asked {
            let (answers, asked) = (self.answered, self.asked);
            return Err(Unanswered::TooSlow { answers, asked, seconds: self.queue.now() / SECOND });
        }
        self.latencies.sort_unstable();
        Ok(Found {
            answers: self.answered.saturating_sub(self.warm),
            nanos: self.queue.now().saturating_sub(self.counted_from),
            latencies: self.latencies,
            replicas: self.replicas.iter().map(|replica| replica.work).collect(),
        })
    }

    fn happen(&mut self, event: Event<P>) {
        match event {
            Event::Arrive { from, to, bytes } => self.arrive(from, to, bytes),
            Event::Ready { replica, waiting } => self.ready(replica, waiting),
            Event::Turned { replica, actions } => {
                self.carry_out(replica, actions);
                if let Some(replica) = self.replicas.get_mut(replica) {
                    replica.busy = false;
                }
                self.begin_turn(replica);
            }
            Event::Synced { replica, seq } => {
                if let Some(process) = self.replicas.get_mut(replica) {
                    (process.syncing, process.synced) = (false, seq);
                    process.work.syncs = process.work.syncs.saturating_add(1);
                }
                self.begin_sync(replica);
                self.ready(replica, Waiting::Input(Input::Synced(seq)));
            }
            Event::Worked { replica, done } => {
                if let Some(process) = self.replicas.get_mut(replica) {
                    process.working = false;
                }
                self.begin_job(replica);
                self.ready(replica, Waiting::Input(Input::Done(*done)));
            }
            Event::Wake { replica } => self.wake(replica),
            Event::ToClient { from, client, bytes } => {
                let opened = Envelope::open::<Payload<P::Message>>(&bytes);
                if let Ok((_, Payload::Protocol(mut message))) = opened {
                    self.caller_turn(client, |caller, out| {
                        if P::prove(&mut message, &caller.keyring).is_ok() {
                            caller.core.on_message(from, message, out);
                        }
                    });
                }
            }
            Event::ClientWake { client } => self.caller_wake(client),
        }
    }

    /// A frame is there; before the protocol's core has it, its signatures are checked elsewhere.
    fn arrive(&mut self, from: Peer, to: usize, bytes: Bytes) {
        let (now, costs) = (self.queue.now(), self.costs);
        let Some(replica) = self.replicas.get_mut(to) else { return };
        if P::SIGNS {
            let (waiting, at) = replica.open(from, &bytes, now, &costs);
            self.queue.at(at, Event::Ready { replica: to, waiting });
        } else {
            self.ready(to, Waiting::Sealed { from, bytes });
        }
    }

    fn ready(&mut self, replica: usize, waiting: Waiting<P>) {
        if let Some(process) = self.replicas.get_mut(replica) {
            process.waiting.push_back(waiting);
        }
        self.begin_turn(replica);
    }

    fn begin_turn(&mut self, replica: usize) {
        let (now, costs) = (self.queue.now(), self.costs);
        let Some(process) = self.replicas.get_mut(replica).filter(|process| !process.busy) else { return };
        let Some((actions, mut takes)) = process.take_turn(now, &costs) else { return };
        let others = self.replicas.len().saturating_sub(1) as u64;
        for action in &actions {
            if let Action::Send { to, bytes, .. } = action {
                let copies = if matches!(to, To::Others) { others } else { 1 };
                let each = costs.frame_ns.saturating_add(Costs::bytes(bytes.len() as u64, costs.frame_byte_ps));
                takes = takes.saturating_add(copies.saturating_mul(each));
            }
        }
        if let Some(process) = self.replicas.get_mut(replica) {
            process.busy = true;
            process.work.busy = process.work.busy.saturating_add(takes);
        }
        self.queue.after(takes, Event::Turned { replica, actions });
        self.rearm(replica);
    }

    fn carry_out(&mut self, replica: usize, actions: Vec<Action>) {
        for action in actions {
            self.act(replica, action);
        }
        self.begin_sync(replica);
        self.rearm(replica);
    }

    fn act(&mut self, at: usize, action: Action) {
        let Some(replica) = self.replicas.get_mut(at) else { return };
        match action {
            Action::Append { seq, bytes, .. } => {
                replica.appended = seq;
                replica.unsynced = replica.unsynced.saturating_add(bytes.len() as u64);
            }
            Action::Send { to: To::One(to), bytes, .. } => self.send(at, to, &bytes),
            Action::Send { to: To::Others, bytes, .. } => {
                let others: Vec<ReplicaId> = self.replicas.iter().map(|it| it.id).collect();
                for to in others.into_iter().filter(|to| to.index() != at) {
                    self.send(at, Peer::Replica(to), &bytes);
                }
            }
            Action::Run(job) => {
                replica.jobs.push_back(job);
                self.begin_job(at);
            }
            Action::Save(mut save) => {
                while save.next_chunk().is_some() {}
                let checkpoint = save.finish().checkpoint();
                self.ready(at, Waiting::Input(Input::Saved(checkpoint)));
            }
            Action::Make(make) => {
                let (ticket, made) = make.make();
                self.ready(at, Waiting::Input(Input::Made(ticket, made)));
            }
            Action::Forget(_) | Action::ForgetSnapshots(_) | Action::Note(_) => {}
            Action::Read { .. } | Action::Prepare(_) | Action::Put(..) | Action::Finish(_) | Action::Install(_) => {
                self.leave(at, "fetches a checkpoint".to_owned());
            }
            Action::Halt(why) => self.leave(at, format!("stops ({why})")),
        }
    }

    fn leave(&mut self, replica: usize, what: String) {
        self.outside.get_or_insert(Unanswered::Outside { replica, what });
    }

    fn send(&mut self, at: usize, to: Peer, bytes: &Bytes) {
        let (now, costs) = (self.queue.now(), self.costs);
        let length = bytes.len() as u64;
        let on_the_line = Costs::bytes(length, costs.line_byte_ps);
        let Some(from) = self.replicas.get_mut(at) else { return };
        from.work.frames_out = from.work.frames_out.saturating_add(1);
        from.work.bytes_out = from.work.bytes_out.saturating_add(length);
        from.line_out = from.line_out.max(now).saturating_add(on_the_line);
        let (id, there) = (from.id, from.line_out.saturating_add(costs.latency_ns));
        match to {
            Peer::Replica(to) => {
                let Some(receiver) = self.replicas.get_mut(to.index()) else { return };
                receiver.line_in = receiver.line_in.saturating_add(on_the_line).max(there);
                let event = Event::Arrive { from: Peer::Replica(id), to: to.index(), bytes: bytes.clone() };
                self.queue.at(receiver.line_in, event);
            }
            Peer::Client(client) => {
                if let Some((client, _)) = whose(client) {
                    self.queue.at(there, Event::ToClient { from: id, client, bytes: bytes.clone() });
                }
            }
        }
    }

    fn begin_sync(&mut self, at: usize) {
        let costs = self.costs;
        let Some(replica) = self.replicas.get_mut(at) else { return };
        if replica.syncing || replica.node.awaited().is_none_or(|awaited| awaited <= replica.synced) {
            return; // what nobody waits for is synced with what somebody does
        }
        replica.syncing = true;
        let takes = costs.sync_ns.saturating_add(Costs::bytes(replica.unsynced, costs.sync_byte_ps));
        replica.unsynced = 0;
        let seq = replica.appended;
        self.queue.after(takes, Event::Synced { replica: at, seq });
    }

    fn begin_job(&mut self, at: usize) {
        let costs = self.costs;
        let Some(replica) = self.replicas.get_mut(at).filter(|replica| !replica.working) else { return };
        let Some(job) = replica.jobs.pop_front() else { return };
        replica.working = true;
        let done = replica.executor.run(job);
        let operations = match &done {
            Done::Executed { outcome, .. } => outcome.replies.len() as u64,
            _ => 1,
        };
        let takes = operations.saturating_mul(costs.apply_ns);
        self.queue.after(takes, Event::Worked { replica: at, done: Box::new(done) });
    }

    fn wake(&mut self, at: usize) {
        let now = self.queue.now();
        let Some(replica) = self.replicas.get_mut(at) else { return };
        if replica.wake.is_none_or(|wake| wake > now) {
            return; // an earlier one was scheduled meanwhile and has rung
        }
        replica.wake = None;
        if replica.node.deadline().is_some_and(|deadline| deadline.as_nanos() <= now) {
            self.ready(at, Waiting::Input(Input::Timers));
        } else {
            self.rearm(at);
        }
    }

    fn rearm(&mut self, at: usize) {
        let now = self.queue.now();
        let Some(replica) = self.replicas.get_mut(at) else { return };
        let Some(deadline) = replica.node.deadline() else { return };
        let time = deadline.as_nanos().max(now.saturating_add(1));
        if replica.wake.is_none_or(|wake| time < wake) {
            replica.wake = Some(time);
            self.queue.at(time, Event::Wake { replica: at });
        }
    }
}

/// Clients.
impl<P: Protocol> World<P> {
    /// A client makes its next call; it leaves with the next flush.
    fn call(&mut self, client: usize) {
        let (number, now) = (self.calls, self.queue.now());
        self.calls = number.saturating_add(1);
        let key = format!("key-{:08}", number.wrapping_mul(0x9e37_79b9) % KEYS);
        let put = Put { key: key.into(), value: vec![b'x'; self.payload].into(), ..Put::default() };
        let Ok(operation) = Operation::Put(put).encode() else { return };
        self.caller_acts(client, |caller, out| {
            caller.made.insert(number, now);
            caller.core.submit(Ticket(number), Call::Apply(operation.into()), out);
        });
    }

    fn caller_wake(&mut self, client: usize) {
        let now = self.queue.now();
        let Some(caller) = self.callers.get_mut(client) else { return };
        if caller.wake.is_none_or(|wake| wake > now) {
            return;
        }
        caller.wake = None;
        let time = Instant::from_nanos(now);
        let due: Vec<_> = caller.timers.iter().filter(|(_, at)| **at <= time).map(|(timer, _)| *timer).collect();
        self.caller_turn(client, |caller, out| {
            for timer in due {
                caller.timers.remove(&timer);
                caller.core.on_timer(timer, out);
            }
        });
    }

    /// One turn of a client; every answer is followed by the next request.
    fn caller_turn(&mut self, client: usize, turn: impl FnOnce(&mut Caller<P>, &mut ClientOutbox<P>)) {
        let mut answers = self.caller_acts(client, turn);
        while answers > 0 {
            (0..answers).for_each(|_| self.call(client));
            answers = self.caller_acts(client, |caller, out| caller.core.flush(out));
        }
    }

    /// One turn of a client: how many answers it brought.
    fn caller_acts(&mut self, client: usize, turn: impl FnOnce(&mut Caller<P>, &mut ClientOutbox<P>)) -> usize {
        let (now, latency) = (self.queue.now(), self.costs.latency_ns);
        let Some(caller) = self.callers.get_mut(client) else { return 0 };
        let mut out = ClientOutbox::new(Instant::from_nanos(now));
        turn(caller, &mut out);
        let envelope = Envelope { cluster: CLUSTER, epoch: Epoch::ZERO };
        let mut answers = 0_usize;
        for effect in out.into_effects() {
            match effect {
                ClientEffect::Send(to, message) => {
                    let bytes = envelope.seal(&Payload::Protocol(message));
                    let on_the_line = Costs::bytes(bytes.len() as u64, self.costs.line_byte_ps);
                    let Some(receiver) = self.replicas.get_mut(to.index()) else { continue };
                    receiver.line_in = receiver.line_in.saturating_add(on_the_line).max(now.saturating_add(latency));
                    let from = Peer::Client(address(client, 0));
                    self.queue.at(receiver.line_in, Event::Arrive { from, to: to.index(), bytes });
                }
                ClientEffect::Arm { timer, at } => {
                    caller.timers.insert(timer, at);
                }
                ClientEffect::Disarm(timer) => {
                    caller.timers.remove(&timer);
                }
                ClientEffect::Complete(ticket, _) => {
                    let Some(made) = caller.made.remove(&ticket.0) else { continue };
                    self.answered = self.answered.saturating_add(1);
                    if self.answered == self.warm {
                        self.counted_from = now;
                        self.replicas.iter_mut().for_each(|replica| replica.work = Work::default());
                    } else if self.answered > self.warm {
                        self.latencies.push(now.saturating_sub(made));
                    }
                    answers = answers.saturating_add(1);
                }
            }
        }
        if let Some(deadline) = caller.timers.values().min() {
            let time = deadline.as_nanos().max(now.saturating_add(1));
            if caller.wake.is_none_or(|wake| time < wake) {
                caller.wake = Some(time);
                self.queue.at(time, Event::ClientWake { client });
            }
        }
        answers
    }
}

impl<P: Protocol> Caller<P> {
    fn new(index: usize, replicas: usize) -> Self {
        let id = address(index, 0);
        let keyring = Arc::new(Keyring::simulated_client(CLUSTER, Epoch::ZERO, replicas, id));
        let config = ClientConfig { client: id, replicas, retry: RETRY, timeout: TIMEOUT };
        let core = P::Client::start(config, keyring.clone());
        Self { core, keyring, timers: BTreeMap::new(), wake: None, made: BTreeMap::new() }
    }
}
