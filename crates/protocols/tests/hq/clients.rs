//! Clients in the hands of the test: real client cores, whose answers are kept.

use crate::harness::{Cluster, ENVELOPE, Flying, replica};
use crate::tape::Tape;
use bytes::Bytes;
use quorate_core::crypto::Keyring;
use quorate_core::ids::{ClientId, Peer, ReplicaId};
use quorate_core::node::Payload;
use quorate_core::objects::Touches;
use quorate_core::protocol::{Answer, Call, CallError, Client as _, ClientConfig, ClientEffect, ClientOutbox};
use quorate_core::protocol::{Consistency, Protocol, Ticket};
use quorate_core::time::{Duration, Instant};
use quorate_protocols::hq::{Client, ClientTimer, Hq};
use std::collections::BTreeMap;
use std::sync::Arc;

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
        let mut core = Client::start(config, Arc::new(keyring));
        core.knows(Touches::of::<Tape>());
        self.clients.insert(id(client), User { core, timers, answers, tickets: 0 });
        (0..self.hosts.len()).for_each(|replica| self.connect(id(client), replica));
        self
    }

    pub fn connect(&mut self, client: ClientId, to: usize) {
        let to = ReplicaId::new(u8::try_from(to).expect("small"));
        self.at(client, |core, out| core.on_connected(to, out));
    }

    /// The client hears that its link to a replica is gone.
    pub fn disconnect(&mut self, client: u128, from: usize) {
        let from = ReplicaId::new(u8::try_from(from).expect("small"));
        self.at(id(client), |core, out| core.on_disconnected(from, out));
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

    /// Several operations in one turn: they go together.
    pub fn submit_together(&mut self, client: u128, operations: &[&str]) -> Vec<Ticket> {
        let user = self.clients.get_mut(&id(client)).expect("a client");
        let first = user.tickets + 1;
        user.tickets += operations.len() as u64;
        let tickets: Vec<Ticket> = (first..=user.tickets).map(Ticket).collect();
        self.at(id(client), |core, out| {
            for (ticket, operation) in tickets.iter().zip(operations) {
                core.submit(*ticket, Call::Apply(Bytes::from((*operation).to_owned().into_bytes())), out);
            }
            core.flush(out);
        });
        tickets
    }

    pub fn read(&mut self, client: u128, query: &str) -> Ticket {
        self.ask(client, Call::Read(Consistency::Linearizable, Bytes::from(query.to_owned().into_bytes())))
    }

    /// The answer to a read, however long it takes.
    pub fn look(&mut self, client: u128, query: &str) -> String {
        if !self.clients.contains_key(&id(client)) {
            self.client(client);
        }
        let ticket = self.read(client, query);
        self.run_until(query, |it| it.answer(client, ticket).is_some());
        self.answer(client, ticket).expect("an answer")
    }

    /// A client that is gone for good: nothing reaches it, and it says nothing.
    pub fn gone(&mut self, client: u128) -> &mut Self {
        self.clients.remove(&id(client));
        self.flying.retain(|it| it.from != Peer::Client(id(client)));
        self
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

    pub fn at_client(&mut self, client: ClientId, it: &Flying) {
        let (Peer::Replica(from), Some(mut message)) = (it.from, it.message()) else { return };
        let keyring = Keyring::simulated_client(ENVELOPE.cluster, ENVELOPE.epoch, self.hosts.len(), client);
        if Hq::prove(&mut message, &keyring).is_err() {
            return;
        }
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

    fn at(&mut self, client: ClientId, act: impl FnOnce(&mut Client, &mut ClientOutbox<Hq>)) {
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
            let label = Hq::label(&message);
            let bytes = ENVELOPE.seal(&Payload::Protocol(message));
            self.send(Flying { from: Peer::Client(client), to: replica(to.index()), label, bytes });
        }
    }
}
