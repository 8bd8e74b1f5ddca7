//! Clients in the hands of the test: real client cores, whose answers are kept.

use crate::harness::{Cluster, ENVELOPE, Flying, replica};
use crate::subject::Subject;
use bytes::Bytes;
use quorate_core::crypto::Keyring;
use quorate_core::ids::{ClientId, OpNumber, Peer, ReplicaId};
use quorate_core::node::Payload;
use quorate_core::protocol::{Answer, Call, CallError, Client as _, ClientConfig, ClientEffect, ClientOutbox};
use quorate_core::protocol::{Consistency, Protocol, Ticket};
use quorate_core::time::{Duration, Instant};
use std::collections::BTreeMap;
use std::sync::Arc;

type Client = <Subject as Protocol>::Client;
type ClientTimer = <Subject as Protocol>::ClientTimer;

/// A client and what it was answered.
pub struct User {
    core: Client,
    timers: BTreeMap<ClientTimer, Instant>,
    pub answers: BTreeMap<Ticket, Result<Answer, CallError>>,
    tickets: u64,
}

impl User {
    pub fn deadline(&self) -> Option<Instant> {
        self.timers.values().min().copied()
    }
}

fn id(client: u128) -> ClientId {
    ClientId::new(client)
}

impl Cluster {
    /// A client, connected to everybody.
    pub fn client(&mut self, client: u128) -> &mut Self {
        let (retry, timeout) = (Duration::from_millis(150), Duration::from_secs(60));
        let config = ClientConfig { client: id(client), replicas: self.hosts.len(), retry, timeout };
        let keyring = Keyring::simulated_client(ENVELOPE.cluster, ENVELOPE.epoch, self.hosts.len(), id(client));
        let (timers, answers) = (BTreeMap::new(), BTreeMap::new());
        self.clients
            .insert(id(client), User { core: Client::start(config, Arc::new(keyring)), timers, answers, tickets: 0 });
        (0..self.hosts.len()).for_each(|replica| self.connect(id(client), replica));
        self
    }

    pub fn connect(&mut self, client: ClientId, to: usize) {
        let to = ReplicaId::new(u8::try_from(to).expect("small"));
        self.at(client, |core, out| core.on_connected(to, out));
    }

    /// Asks for something, and sends it.
    pub fn ask(&mut self, client: u128, call: Call) -> Ticket {
        let user = self.clients.get_mut(&id(client)).expect("a client");
        user.tickets += 1;
        let ticket = Ticket(user.tickets);
        self.at(id(client), |core, out| {
            core.submit(ticket, call, out);
            core.flush(out);
        });
        ticket
    }

    pub fn submit(&mut self, client: u128, operation: &str) -> Ticket {
        self.ask(client, Call::Apply(Bytes::from(operation.to_owned().into_bytes())))
    }

    /// Asks for something at a level of criticality, and sends it.
    pub fn submit_at(&mut self, client: u128, level: u8, operation: &str) -> Ticket {
        let user = self.clients.get_mut(&id(client)).expect("a client");
        user.tickets += 1;
        let ticket = Ticket(user.tickets);
        self.at(id(client), |core, out| {
            core.submit_critical(ticket, level, Bytes::from(operation.to_owned().into_bytes()), out);
            core.flush(out);
        });
        ticket
    }

    pub fn read(&mut self, client: u128, consistency: Consistency) -> Ticket {
        self.ask(client, Call::Read(consistency, Bytes::new()))
    }

    /// Has it applied, however long it takes.
    pub fn apply(&mut self, client: u128, operation: &str) -> &mut Self {
        if !self.clients.contains_key(&id(client)) {
            self.client(client);
        }
        let ticket = self.submit(client, operation);
        self.run_until(operation, |it| it.answer(client, ticket).is_some());
        assert!(self.answer(client, ticket).is_some_and(|answer| !answer.starts_with("error")));
        self
    }

    /// The answer, as text.
    pub fn answer(&self, client: u128, ticket: Ticket) -> Option<String> {
        self.clients[&id(client)].answers.get(&ticket).map(|result| match result {
            Ok(answer) => String::from_utf8_lossy(&answer.reply).into_owned(),
            Err(error) => format!("error: {error}"),
        })
    }

    /// The entry that the answer names.
    pub fn answered_at(&self, client: u128, ticket: Ticket) -> OpNumber {
        match &self.clients[&id(client)].answers[&ticket] {
            Ok(answer) => answer.op,
            Err(error) => panic!("{error}"),
        }
    }

    /// A stale read comes while the machines, which take their time, have a write before them. It sees that, and names its
    /// entry or a later one.
    pub fn reads_behind_a_write(&mut self, until_it_is_committed_ms: u64) {
        self.client(1).client(2).apply(1, "a").apply(2, "b");
        self.run(2_000);
        self.hosts.iter_mut().for_each(|host| host.fast_machine = false);
        let write = self.submit(1, "c");
        self.run(until_it_is_committed_ms);
        let read = self.read(2, Consistency::Stale { at_least: OpNumber::ZERO });
        self.deliver();
        assert_eq!((self.answer(1, write), self.answer(2, read)), (None, None));
        for id in 0..self.hosts.len() {
            self.hosts[id].fast_machine = true;
            self.work(id);
        }
        self.deliver();
        assert_eq!(self.answer(2, read).as_deref(), Some("a b c"));
        let (write, read) = (self.answered_at(1, write), self.answered_at(2, read));
        assert!(read >= write, "the next stale read would go back: {read} before {write}");
    }

    pub fn at_client(&mut self, client: ClientId, it: &Flying) {
        let (Peer::Replica(from), Some(message)) = (it.from, it.message()) else { return };
        self.at(client, |core, out| core.on_message(from, message, out));
    }

    pub fn client_timers(&mut self) {
        for client in self.clients.keys().copied().collect::<Vec<_>>() {
            let now = Instant::from_nanos(self.now);
            let user = self.clients.get_mut(&client).expect("a client");
            let due: Vec<_> = user.timers.iter().filter(|(_, at)| **at <= now).map(|(timer, _)| *timer).collect();
            for timer in due {
                self.clients.get_mut(&client).expect("a client").timers.remove(&timer);
                self.at(client, |core, out| core.on_timer(timer, out));
            }
        }
    }

    fn at(&mut self, client: ClientId, act: impl FnOnce(&mut Client, &mut ClientOutbox<Subject>)) {
        let mut out = ClientOutbox::new(Instant::from_nanos(self.now));
        let Some(user) = self.clients.get_mut(&client) else { return };
        act(&mut user.core, &mut out);
        let mut send = Vec::new();
        for effect in out.into_effects() {
            match effect {
                ClientEffect::Send(to, message) => send.push((to, message)),
                ClientEffect::Arm { timer, at } => drop(user.timers.insert(timer, at)),
                ClientEffect::Disarm(timer) => drop(user.timers.remove(&timer)),
                ClientEffect::Complete(ticket, result) => {
                    assert!(user.answers.insert(ticket, result).is_none(), "a call completes once");
                }
            }
        }
        for (to, message) in send {
            let label = Subject::label(&message);
            let bytes = ENVELOPE.seal(&Payload::Protocol(message));
            self.send(Flying { from: Peer::Client(client), to: replica(to.index()), label, bytes });
        }
    }
}
