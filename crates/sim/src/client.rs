//! One client as a process: the protocol's client core, its timers, and the calls it waits for.

use crate::process::CLUSTER;
use quorate_core::crypto::Keyring;
use quorate_core::ids::{ClientId, Epoch, OpNumber, ReplicaId};
use quorate_core::machine::StateMachine;
use quorate_core::objects::Touches;
use quorate_core::protocol::{Client, ClientConfig, Protocol};
use quorate_core::time::{Duration, Instant};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a client that lies says in the place of a message, signed with its own key; `None` if it has nothing to lie about.
pub type OtherWords<P> = fn(&<P as Protocol>::Message, &Keyring) -> Option<<P as Protocol>::Message>;

/// A client.
pub struct ClientProcess<P: Protocol> {
    /// Its address; another one after each death.
    pub id: ClientId,
    /// How often it has died.
    pub life: u32,
    /// The protocol's client.
    pub core: P::Client,
    /// Its key, and those of the replicas.
    pub keyring: Arc<Keyring>,
    /// Its timers.
    pub timers: BTreeMap<P::ClientTimer, Instant>,
    /// When it will be woken, virtual nanoseconds.
    pub wake: Option<u64>,
    /// Calls that it waits for, as indices into the history.
    pub waiting: usize,
    /// The entry that its last answer reflected.
    pub seen: OpNumber,
    /// The links that it believes to be up: to which replicas, each in which of its lives.
    pub links: BTreeMap<usize, u32>,
    /// What it last found in a register.
    pub found: u64,
    /// It stands still while the virtual clock has not reached this, nanoseconds.
    pub paused_until: u64,
    /// It tells these replicas something else.
    pub two_words: Option<(Vec<ReplicaId>, OtherWords<P>)>,
}

impl<P: Protocol> ClientProcess<P> {
    /// A client that has not said anything yet.
    pub fn new(index: usize, life: u32, replicas: usize, retry: Duration, timeout: Duration) -> Self {
        let id = address(index, life);
        let keyring = Arc::new(Keyring::simulated_client(CLUSTER, Epoch::ZERO, replicas, id));
        let core = P::Client::start(ClientConfig { client: id, replicas, retry, timeout }, keyring.clone());
        Self {
            id,
            life,
            core,
            keyring,
            timers: BTreeMap::new(),
            wake: None,
            waiting: 0,
            seen: OpNumber::ZERO,
            links: BTreeMap::new(),
            found: 0,
            paused_until: 0,
            two_words: None,
        }
    }

    /// What it tells a replica when it should tell it this.
    pub fn says(&self, to: ReplicaId, message: P::Message) -> P::Message {
        let lie = self.two_words.as_ref().filter(|(victims, _)| victims.contains(&to));
        lie.and_then(|(_, other)| other(&message, &self.keyring)).unwrap_or(message)
    }

    /// Tells it what the machine's operations touch.
    pub fn knows<M: StateMachine>(&mut self) {
        self.core.knows(Touches::of::<M>());
    }

    /// When it wants to be woken.
    pub fn deadline(&self) -> Option<Instant> {
        self.timers.values().min().copied()
    }

    /// The timers that are due, which will not ring again unless armed again.
    pub fn take_due(&mut self, now: Instant) -> Vec<P::ClientTimer> {
        let due: Vec<_> = self.timers.iter().filter(|(_, at)| **at <= now).map(|(timer, _)| *timer).collect();
        for timer in &due {
            self.timers.remove(timer);
        }
        due
    }
}

/// The address of a client in one of its lives: index and life can be read back from it, also by people.
pub fn address(index: usize, life: u32) -> ClientId {
    let number = (index as u128).saturating_add(1).saturating_mul(0x1000).saturating_add(u128::from(life));
    ClientId::new(number << 96)
}

/// The index of the client that has this address, and the life in which it had it.
pub fn whose(id: ClientId) -> Option<(usize, u32)> {
    let number = u32::try_from(id.get() >> 96).ok()?;
    let index = usize::try_from(number / 0x1000).ok()?.checked_sub(1)?;
    Some((index, number % 0x1000))
}
