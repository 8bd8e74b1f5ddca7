//! Scenarios written by hand: who says what, which links are held, who dies when. Any protocol, any machine.

use crate::adversary::{Lies, Misdeed};
use crate::client::OtherWords;
use crate::clock::MILLI;
use crate::cluster::{Cluster, Setup};
use crate::faults::Faults;
use crate::trace::{Recording, What};
use bytes::Bytes;
use quorate_core::ids::{Peer, ReplicaId};
use quorate_core::machine::Machine;
use quorate_core::outbox::Class;
use quorate_core::protocol::{Answer, Call, CallError, Consistency, Protocol, Replica, Status};
use quorate_core::wire::Wire;

/// Longest wait in [`Scenario::settle`], virtual nanoseconds.
const SETTLE_MAX: u64 = 20_000 * MILLI;

/// A cluster in a perfect world, in which only the script goes wrong.
pub struct Scenario<P: Protocol, M> {
    /// The cluster, to look at.
    pub cluster: Cluster<P, M>,
}

impl<P: Protocol, M: Machine> Scenario<P, M> {
    /// So many replicas and clients, started. `seed` decides latencies.
    pub fn new(seed: u64, replicas: usize, clients: usize, config: P::Config, machine: fn() -> M) -> Self {
        Self::begin(seed, (replicas, clients), config, machine, true)
    }

    /// As [`Scenario::new`], for long runs: nothing is recorded.
    pub fn unrecorded(seed: u64, replicas: usize, clients: usize, config: P::Config, machine: fn() -> M) -> Self {
        Self::begin(seed, (replicas, clients), config, machine, false)
    }

    fn begin(
        seed: u64,
        (replicas, clients): (usize, usize),
        config: P::Config,
        machine: fn() -> M,
        trace: bool,
    ) -> Self {
        let setup = Setup {
            seed,
            replicas,
            clients,
            calls: 0,
            levels: 0,
            pairs: false,
            faults: Faults::none(),
            liars: 0,
            lies: None,
            rejoin: None,
            config,
            machine,
            trace,
            only: None,
        };
        let mut scenario = Self { cluster: Cluster::new(setup) };
        scenario.run_ms(20);
        scenario
    }

    /// A client asks for an operation; returns the call's index.
    pub fn apply(&mut self, client: usize, operation: impl Into<Vec<u8>>) -> usize {
        let call = Call::Apply(Bytes::from(operation.into()));
        self.cluster.call(client, vec![call]).first().copied().unwrap_or(usize::MAX)
    }

    /// Lets virtual time pass.
    pub fn run_ms(&mut self, millis: u64) -> &mut Self {
        let until = self.cluster.now().saturating_add(millis.saturating_mul(MILLI));
        self.cluster.run_until(until);
        self
    }

    /// Lets time pass until every call is answered, at most 20 s. True if that happened.
    pub fn settle(&mut self) -> bool {
        let end = self.cluster.now().saturating_add(SETTLE_MAX);
        while self.cluster.clients.iter().any(|client| client.waiting > 0) {
            if self.cluster.now() > end || self.cluster.violation().is_some() {
                return false;
            }
            self.run_ms(1);
        }
        true
    }

    /// What became of a call.
    pub fn result(&self, index: usize) -> Option<&Result<Answer, CallError>> {
        self.cluster.history().entries().get(index)?.returned.as_ref().map(|(_, result)| result)
    }

    /// Keeps what `from` sends to `to` from now on.
    pub fn hold(&mut self, from: Peer, to: Peer) -> &mut Self {
        self.cluster.network.hold(from, to);
        self
    }

    /// Lets what was kept on this link go, and what follows.
    pub fn release(&mut self, from: Peer, to: Peer) -> &mut Self {
        self.cluster.network.release(from, to);
        let (go, stay): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.cluster.held).into_iter().partition(|(it, _)| (it.from, it.to) == (from, to));
        self.cluster.held = stay;
        for (travel, bytes) in go {
            self.cluster.trace.add(self.cluster.queue.now(), || What::Released(travel));
            self.cluster.dispatch(travel, bytes);
        }
        self
    }

    /// A replica's address.
    pub fn replica(&self, replica: usize) -> Peer {
        let id = self.cluster.replicas.get(replica).map(|process| process.id);
        Peer::Replica(id.unwrap_or(ReplicaId::new(u8::MAX)))
    }

    /// A client's address.
    pub fn client(&self, client: usize) -> Peer {
        let id = self.cluster.clients.get(client).map(|process| process.id);
        Peer::Client(id.unwrap_or_default())
    }

    /// Writes a sentence into the recording, at this moment.
    pub fn say(&mut self, text: &str) -> &mut Self {
        let now = self.cluster.now();
        self.cluster.trace.add(now, || What::Said(text.to_owned()));
        self
    }

    /// A client reads; returns the call's index.
    pub fn read(&mut self, client: usize, consistency: Consistency, query: impl Into<Vec<u8>>) -> usize {
        let call = Call::Read(consistency, Bytes::from(query.into()));
        self.cluster.call(client, vec![call]).first().copied().unwrap_or(usize::MAX)
    }

    /// Nobody of `here` reaches anybody of `there`, nor the other way round, until the cut with the returned number heals.
    pub fn cut(&mut self, here: &[Peer], there: &[Peer]) -> u64 {
        let both = here.iter().flat_map(|a| there.iter().flat_map(move |b| [(*a, *b), (*b, *a)]));
        self.cluster.network.cut(both.collect())
    }

    /// Ends a cut.
    pub fn heal(&mut self, cut: u64) -> &mut Self {
        self.cluster.network.heal(cut);
        self
    }

    /// Replaces a replica's disk by an empty one, on which its owner has written `record`: what `quorate recover` does. The
    /// replica must be down.
    ///
    /// # Panics
    /// When the replica runs.
    pub fn lose_disk(&mut self, replica: usize, record: &P::Record) -> &mut Self {
        let life = self.cluster.replicas.get(replica).map_or(0, |process| u64::from(process.life));
        if let Some(process) = self.cluster.replicas.get_mut(replica) {
            assert!(process.running.is_none(), "a disk is replaced while its replica is down");
            let replaced = process.storage.replace(life, &(Class::Promise, record.encode()));
            replaced.expect("an empty disk in memory takes a format");
        }
        self
    }

    /// From now on a replica does this, and `lies` say what its protocol's messages can be turned into. What it does is not
    /// judged.
    pub fn lies(&mut self, replica: usize, misdeed: Misdeed, lies: Option<Box<dyn Lies<P>>>) -> &mut Self {
        if let Some(id) = self.cluster.replicas.get(replica).map(|process| process.id) {
            self.cluster.adversary.begin(id, self.cluster.members, misdeed, lies);
        }
        self
    }

    /// From now on a client tells these replicas something else: what `other` makes of its messages.
    pub fn contradicts_itself(&mut self, client: usize, victims: &[Peer], other: OtherWords<P>) -> &mut Self {
        let replicas = victims.iter().filter_map(|peer| match peer {
            Peer::Replica(id) => Some(*id),
            Peer::Client(_) => None,
        });
        if let Some(process) = self.cluster.clients.get_mut(client) {
            process.two_words = Some((replicas.collect(), other));
        }
        self
    }

    /// A client dies, with its calls; another one takes its place.
    pub fn crash_client(&mut self, client: usize) -> &mut Self {
        self.cluster.replace_client(client);
        self
    }

    /// A replica's status; `None` while it is down.
    pub fn status(&self, replica: usize) -> Option<Status> {
        let running = self.cluster.replicas.get(replica)?.running.as_ref()?;
        Some(running.node.replica().status())
    }

    /// What happened, event by event.
    pub fn into_recording(self) -> Recording {
        self.cluster.into_recording()
    }

    /// Kills a replica, with what it had not synced.
    pub fn crash(&mut self, replica: usize) -> &mut Self {
        self.cluster.kill(replica);
        self
    }

    /// Starts a replica again.
    pub fn restart(&mut self, replica: usize) -> &mut Self {
        self.cluster.start(replica);
        self
    }
}
