//! A client of a cluster: the protocol's client core, driven over real links. Cheap to clone; every clone shares the session
//! and its window, so many calls may be in flight at once.

use crate::broker::{Broker, Direct, Left};
use crate::config::ClusterConfig;
use crate::host::Clock;
use crate::keys::{KeyError, KeyPair};
use crate::link::{ClientLinks, DialError, Incoming, LinkError, LinkHandle, LinkStatus, Pace};
use crate::vouched::{self, Vouched};
use bytes::Bytes;
use quorate_core::crypto::{ClientKey, Keyring, KeyringError};
use quorate_core::ids::{Peer, ReplicaId};
use quorate_core::node::{Payload, Recorded, Report, Service};
use quorate_core::objects::Touches;
use quorate_core::protocol::{
    Answer, Call, CallError, Client as _, ClientConfig, ClientEffect, ClientOutbox, Consistency, Protocol, Ticket,
};
use quorate_core::sessions::{Event, OPERATION_BYTES_MAX};
use quorate_core::time::Instant;
use quorate_core::wire::Envelope;
use ring::rand::{SecureRandom, SystemRandom};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

/// Calls that wait to be taken by the client's task; further callers wait.
const COMMANDS_MAX: usize = 2048;
/// Event batches that wait for a slow watcher; then the watch ends and says so.
const WATCH_BATCHES_MAX: usize = 1024;

/// How a client behaves.
#[derive(Clone, Copy, Debug)]
pub struct ClientOptions {
    /// Silence after which a request is sent to all replicas. 150 ms.
    pub retry: Duration,
    /// Silence after which a call fails. 10 s.
    pub timeout: Duration,
    /// What the operations of the cluster's machine touch. Protocols that order each object by itself refuse operations and
    /// read many times what one read would do without it; others need not know. None.
    pub touches: Option<Touches>,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self { retry: Duration::from_millis(150), timeout: Duration::from_secs(10), touches: None }
    }
}

/// Why a call has no answer.
#[derive(Clone, Debug, Error)]
pub enum ClientError {
    /// What the protocol's client says; and what is known of the links, if that may explain it.
    #[error("{error}{}", explain(links))]
    Call {
        /// Why.
        error: CallError,
        /// Replicas that cannot be reached, with the reason.
        links: Vec<DialError>,
    },
    /// The operation is longer than a cluster takes.
    #[error("the operation has {bytes} bytes; a cluster takes at most {OPERATION_BYTES_MAX}")]
    TooLong {
        /// How long it is.
        bytes: usize,
    },
    /// The client's task has ended: the runtime is shutting down.
    #[error("the client is closed")]
    Closed,
}

fn explain(links: &[DialError]) -> String {
    links.iter().map(|error| format!("\n  {error}")).collect()
}

/// Why a client could not be made.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// The links could not be set up.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The system has no randomness to draw an identity from.
    #[error("the system gives no random bytes to draw a client identity from")]
    NoRandomness,
    /// Its own key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The keys of the replicas.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    /// The cluster runs another protocol than this client was built for.
    #[error("the cluster runs `{found}`, this client speaks `{expected}`")]
    OtherProtocol {
        /// What the cluster file says.
        found: String,
        /// What was asked for.
        expected: &'static str,
    },
}

/// What a replica has recorded, and the number to go on from.
type Told = (Vec<Recorded>, u64);

enum Command {
    Call(Call, oneshot::Sender<Result<Answer, ClientError>>),
    Critical(u8, Bytes, oneshot::Sender<Result<Answer, ClientError>>),
    Status(ReplicaId, oneshot::Sender<Report>),
    Recorded(ReplicaId, u64, oneshot::Sender<Told>),
    Watch(u32, mpsc::Sender<Vec<Event>>, oneshot::Sender<()>),
    Links(oneshot::Sender<LinkStatus>),
}

/// A client of a cluster.
#[derive(Clone, Debug)]
pub struct Client {
    commands: mpsc::Sender<Command>,
    timeout: Duration,
    vouch: usize,
}

impl Client {
    /// A client of the cluster that `config` describes. Dials in the background; the first call waits for it.
    ///
    /// # Errors
    /// [`ConnectError`], before anything is sent.
    pub fn connect<P: Protocol>(
        config: &ClusterConfig,
        key: &KeyPair,
        options: ClientOptions,
    ) -> Result<Self, ConnectError> {
        Self::connect_through::<P>(config, key, options, |links| Arc::new(Direct::over(links)))
    }

    /// As [`Client::connect`], with a broker for what the protocol lets go through one; whoever makes it is given the client's
    /// own links. What the broker does not take goes over these links.
    ///
    /// # Errors
    /// [`ConnectError`], before anything is sent.
    pub fn connect_through<P: Protocol>(
        config: &ClusterConfig,
        key: &KeyPair,
        options: ClientOptions,
        broker: impl FnOnce(LinkHandle) -> Arc<dyn Broker>,
    ) -> Result<Self, ConnectError> {
        if config.protocol != P::NAME {
            return Err(ConnectError::OtherProtocol { found: config.protocol.clone(), expected: P::NAME });
        }
        let mut bits = [0; 8];
        SystemRandom::new().fill(&mut bits).map_err(|_| ConnectError::NoRandomness)?;
        let nonce = u64::from_le_bytes(bits);
        let client = ClientKey { key: key.public().for_statements(), nonce }.client();
        let keyring = Arc::new(keyring::<P>(config, key, nonce)?);
        let links = ClientLinks::start(config, key, nonce, Pace::default())?;
        let replicas = config.members.len();
        let client_config = ClientConfig { client, replicas, retry: options.retry, timeout: options.timeout };
        let mut core = P::Client::start(client_config, keyring.clone());
        options.touches.into_iter().for_each(|touches| core.knows(touches));
        let (commands, inbox) = mpsc::channel(COMMANDS_MAX);
        let task = Task::<P> {
            core,
            keyring,
            broker: broker(links.handle()),
            links,
            clock: Clock::start(),
            envelope: Envelope { cluster: config.cluster, epoch: config.epoch },
            timers: BTreeMap::new(),
            waiting: BTreeMap::new(),
            statuses: BTreeMap::new(),
            recorded: BTreeMap::new(),
            watch: None,
            vouch: P::vouch(replicas),
            next: 0,
            failed: BTreeMap::new(),
        };
        tokio::spawn(task.run(inbox));
        Ok(Self { commands, timeout: options.timeout, vouch: P::vouch(replicas) })
    }

    /// Applies an operation, exactly once.
    ///
    /// # Errors
    /// [`ClientError`]; it says whether the operation may have been applied.
    pub async fn apply(&self, operation: impl Into<Bytes>) -> Result<Answer, ClientError> {
        self.call(Call::Apply(operation.into())).await
    }

    /// Applies an operation, exactly once, at a level of criticality: how many liars among those who certify its reception it
    /// bears. For protocols that have levels; the others refuse it.
    ///
    /// # Errors
    /// As [`Client::apply`]; and if the cluster has no such level.
    pub async fn apply_critical(&self, level: u8, operation: impl Into<Bytes>) -> Result<Answer, ClientError> {
        let operation = operation.into();
        self.ask_for(operation.len(), |sender| Command::Critical(level, operation, sender)).await
    }

    /// Asks a query.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn read(&self, consistency: Consistency, query: impl Into<Bytes>) -> Result<Answer, ClientError> {
        self.call(Call::Read(consistency, query.into())).await
    }

    /// Makes a call.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn call(&self, call: Call) -> Result<Answer, ClientError> {
        let (Call::Apply(bytes) | Call::Read(_, bytes)) = &call;
        self.ask_for(bytes.len(), |sender| Command::Call(call, sender)).await
    }

    /// Has the client's task do something with so many bytes, and waits for the answer.
    async fn ask_for(
        &self,
        bytes: usize,
        command: impl FnOnce(oneshot::Sender<Result<Answer, ClientError>>) -> Command,
    ) -> Result<Answer, ClientError> {
        if bytes > OPERATION_BYTES_MAX {
            return Err(ClientError::TooLong { bytes });
        }
        let (sender, answer) = oneshot::channel();
        self.commands.send(command(sender)).await.map_err(|_| ClientError::Closed)?;
        answer.await.map_err(|_| ClientError::Closed)?
    }

    /// Asks one replica how it is; `None` if it does not say within `patience`.
    pub async fn status(&self, replica: ReplicaId, patience: Duration) -> Option<Report> {
        let (sender, report) = oneshot::channel();
        self.commands.send(Command::Status(replica, sender)).await.ok()?;
        tokio::time::timeout(patience, report).await.ok()?.ok()
    }

    /// The greatest number that is no liar's alone, of what each replica claims ([`Client::status`]): as many replicas as are needed for one
    /// of them to be right ([`Protocol::vouch`]) claim it or a greater one. Zero if fewer claim anything.
    pub fn vouched(&self, claims: impl IntoIterator<Item = u64>) -> u64 {
        vouched::greatest(claims, self.vouch)
    }

    /// What messages came and went at one replica lately, from number `from` on, and the number to go on from; `None` if it
    /// does not say within `patience`. A replica records only while somebody asks: the first answer is empty.
    pub async fn recorded(&self, replica: ReplicaId, from: u64, patience: Duration) -> Option<(Vec<Recorded>, u64)> {
        let (sender, answer) = oneshot::channel();
        self.commands.send(Command::Recorded(replica, from, sender)).await.ok()?;
        tokio::time::timeout(patience, answer).await.ok()?.ok()
    }

    /// Watches a topic of the machine's events. Where replicas do not lie, at one of them; otherwise at all, and an event is
    /// told when enough of them have told it ([`Protocol::vouch`]). Events are in their order, and some may be missing, which
    /// the watcher must be able to see by their content. The stream ends when a link does that it needs, or when the watcher
    /// is too slow; the watcher then reads the history and watches again. One watch for each client.
    ///
    /// # Errors
    /// [`ClientError::Call`] if not enough replicas confirm the watch in time.
    pub async fn watch(&self, topic: u32) -> Result<mpsc::Receiver<Vec<Event>>, ClientError> {
        let (sender, events) = mpsc::channel(WATCH_BATCHES_MAX);
        let (ready, confirmed) = oneshot::channel();
        self.commands.send(Command::Watch(topic, sender, ready)).await.map_err(|_| ClientError::Closed)?;
        match tokio::time::timeout(self.timeout, confirmed).await {
            Ok(Ok(())) => Ok(events),
            Ok(Err(_)) => Err(ClientError::Closed),
            Err(_) => {
                let error = CallError::Timeout { maybe_applied: false };
                let replicas = self.link_status().await.map(|status| status.replicas).unwrap_or_default();
                let links = replicas.into_iter().filter_map(|replica| replica.dial_error).collect();
                Err(ClientError::Call { error, links })
            }
        }
    }

    /// What the links have done so far.
    pub async fn link_status(&self) -> Option<LinkStatus> {
        let (sender, status) = oneshot::channel();
        self.commands.send(Command::Links(sender)).await.ok()?;
        status.await.ok()
    }
}

/// The keys of a client whose protocol signs; none for others.
fn keyring<P: Protocol>(config: &ClusterConfig, key: &KeyPair, nonce: u64) -> Result<Keyring, ConnectError> {
    if !P::SIGNS {
        return Ok(Keyring::keyless(config.cluster, config.epoch));
    }
    let replicas: Vec<_> = config.members.iter().map(|member| member.public_key.for_statements()).collect();
    let keyring = Keyring::ed25519(config.cluster, config.epoch, &replicas, &[])?;
    Ok(keyring.of_client(nonce, key.secret()?))
}

struct Watch {
    topic: u32,
    /// Where it watches, or has asked to; and whether that was confirmed.
    at: BTreeMap<ReplicaId, bool>,
    vouched: Vouched,
    events: mpsc::Sender<Vec<Event>>,
    ready: Option<oneshot::Sender<()>>,
}

impl Watch {
    fn confirmed(&self) -> usize {
        self.at.values().filter(|confirmed| **confirmed).count()
    }
}

struct Task<P: Protocol> {
    core: P::Client,
    keyring: Arc<Keyring>,
    broker: Arc<dyn Broker>,
    links: ClientLinks,
    clock: Clock,
    envelope: Envelope,
    timers: BTreeMap<P::ClientTimer, Instant>,
    waiting: BTreeMap<Ticket, oneshot::Sender<Result<Answer, ClientError>>>,
    statuses: BTreeMap<u64, (ReplicaId, oneshot::Sender<Report>)>,
    recorded: BTreeMap<u64, (ReplicaId, oneshot::Sender<Told>)>,
    watch: Option<Watch>,
    /// How many replicas must tell an event.
    vouch: usize,
    next: u64,
    failed: BTreeMap<ReplicaId, DialError>,
}

impl<P: Protocol> Task<P> {
    /// Runs until every handle is gone.
    async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let mut batch = Vec::new();
        loop {
            let deadline = self.timers.values().min().map(|at| self.clock.at(*at));
            let mut incoming = Vec::new();
            let mut closed = false;
            tokio::select! {
                received = self.links.recv() => incoming = received,
                count = commands.recv_many(&mut batch, COMMANDS_MAX) => closed = count == 0,
                () = crate::host::sleep_until(deadline) => {}
            }
            if closed {
                return;
            }
            let mut out = ClientOutbox::new(self.clock.now());
            for one in incoming {
                self.on_incoming(one, &mut out);
            }
            for command in batch.drain(..) {
                self.on_command(command, &mut out);
            }
            self.on_timers(&mut out);
            self.core.flush(&mut out);
            self.carry_out(out);
        }
    }

    fn on_command(&mut self, command: Command, out: &mut ClientOutbox<P>) {
        match command {
            Command::Call(call, sender) => {
                let ticket = self.ticket(sender);
                self.core.submit(ticket, call, out);
            }
            Command::Critical(level, operation, sender) => {
                let ticket = self.ticket(sender);
                self.core.submit_critical(ticket, level, operation, out);
            }
            Command::Status(replica, sender) => {
                self.statuses.retain(|_, (_, sender)| !sender.is_closed());
                self.next = self.next.wrapping_add(1);
                self.statuses.insert(self.next, (replica, sender));
                self.ask(replica, Service::GetStatus { nonce: self.next });
            }
            Command::Recorded(replica, from, sender) => {
                self.recorded.retain(|_, (_, sender)| !sender.is_closed());
                self.next = self.next.wrapping_add(1);
                self.recorded.insert(self.next, (replica, sender));
                self.ask(replica, Service::GetRecorded { nonce: self.next, from });
            }
            Command::Watch(topic, events, ready) => {
                let vouched = Vouched::new(self.vouch);
                self.watch = Some(Watch { topic, at: BTreeMap::new(), vouched, events, ready: Some(ready) });
                let replicas = self.links.status().replicas;
                replicas.iter().filter(|it| it.connected).for_each(|it| self.watch_at(it.replica));
            }
            Command::Links(sender) => drop(sender.send(self.links.status())),
        }
    }

    /// A name for a call, whose answer this one waits for.
    fn ticket(&mut self, sender: oneshot::Sender<Result<Answer, ClientError>>) -> Ticket {
        self.next = self.next.wrapping_add(1);
        let ticket = Ticket(self.next);
        self.waiting.insert(ticket, sender);
        ticket
    }

    fn on_incoming(&mut self, incoming: Incoming, out: &mut ClientOutbox<P>) {
        match incoming {
            Incoming::Message { from: Peer::Replica(from), body } => self.on_message(from, &body, out),
            Incoming::Connected(Peer::Replica(replica)) => {
                self.failed.remove(&replica);
                self.core.on_connected(replica, out);
                for (nonce, (asked, _)) in &self.statuses {
                    if *asked == replica {
                        self.ask(replica, Service::GetStatus { nonce: *nonce });
                    }
                }
                self.watch_at(replica);
            }
            Incoming::Disconnected { peer: Peer::Replica(replica), .. } => {
                self.core.on_disconnected(replica, out);
                self.on_watch_lost(replica);
            }
            Incoming::DialFailed { replica, error } => {
                self.failed.insert(replica, error);
            }
            Incoming::Message { .. } | Incoming::Connected(_) | Incoming::Disconnected { .. } => {}
        }
    }

    fn on_message(&mut self, from: ReplicaId, body: &[u8], out: &mut ClientOutbox<P>) {
        // A replica that does not speak our language is not worth more than silence.
        let Ok((envelope, payload)) = Envelope::open::<Payload<P::Message>>(body) else { return };
        if envelope != self.envelope {
            return;
        }
        match payload {
            Payload::Protocol(mut message) => {
                if P::prove(&mut message, &self.keyring).is_ok() {
                    self.core.on_message(from, message, out);
                }
            }
            Payload::Service(Service::Status { nonce, report }) => {
                // Nobody speaks for another replica.
                if self.statuses.get(&nonce).is_some_and(|(asked, _)| *asked == from && report.replica == from)
                    && let Some((_, sender)) = self.statuses.remove(&nonce)
                {
                    let _gone = sender.send(*report);
                }
            }
            Payload::Service(Service::Recorded { nonce, recorded, next }) => {
                if self.recorded.get(&nonce).is_some_and(|(asked, _)| *asked == from)
                    && let Some((_, sender)) = self.recorded.remove(&nonce)
                {
                    let _gone = sender.send((recorded, next));
                }
            }
            Payload::Service(Service::Watching { topic }) => {
                let Some(watch) = self.watch.as_mut().filter(|it| it.topic == topic) else { return };
                let Some(confirmed) = watch.at.get_mut(&from) else { return };
                *confirmed = true;
                if watch.confirmed() >= self.vouch {
                    let _gone = watch.ready.take().map(|ready| ready.send(()));
                }
            }
            Payload::Service(Service::Events(events)) => {
                let Some(watch) = self.watch.as_mut().filter(|watch| watch.at.contains_key(&from)) else { return };
                let believed = if self.vouch == 1 { events } else { watch.vouched.hear(from, events) };
                if !believed.is_empty() && watch.events.try_send(believed).is_err() {
                    self.watch = None; // too slow, or gone
                }
            }
            Payload::Service(_) | Payload::Transfer(_) => {}
        }
    }

    fn on_timers(&mut self, out: &mut ClientOutbox<P>) {
        let now = out.now();
        let due: Vec<_> = self.timers.iter().filter(|(_, at)| **at <= now).map(|(timer, _)| *timer).collect();
        for timer in due {
            self.timers.remove(&timer);
            self.core.on_timer(timer, out);
        }
    }

    fn carry_out(&mut self, out: ClientOutbox<P>) {
        for effect in out.into_effects() {
            match effect {
                ClientEffect::Send(to, message) => {
                    let is_brokered = P::goes_by_broker(&message);
                    let body = self.envelope.seal(&Payload::Protocol(message));
                    if !is_brokered || self.broker.publish(to, body.clone()) == Left::Unavailable {
                        let _unconnected = self.links.send(to, body);
                    }
                }
                ClientEffect::Arm { timer, at } => {
                    self.timers.insert(timer, at);
                }
                ClientEffect::Disarm(timer) => {
                    self.timers.remove(&timer);
                }
                ClientEffect::Complete(ticket, result) => {
                    let Some(sender) = self.waiting.remove(&ticket) else { continue };
                    let result = result.map_err(|error| {
                        let explains = matches!(error, CallError::Timeout { .. });
                        let links = self.failed.values().filter(|_| explains).cloned().collect();
                        ClientError::Call { error, links }
                    });
                    let _gone = sender.send(result);
                }
            }
        }
    }

    /// Watches at this replica, too, unless one is enough.
    fn watch_at(&mut self, replica: ReplicaId) {
        let one_is_enough = self.vouch == 1;
        if let Some(watch) = self.watch.as_mut().filter(|watch| !one_is_enough || watch.at.is_empty()) {
            watch.at.insert(replica, false);
            let topic = watch.topic;
            self.ask(replica, Service::Watch { topic });
        }
    }

    /// A stream that has begun, and that too few tell from now on, ends; the watcher decides where to go on.
    fn on_watch_lost(&mut self, replica: ReplicaId) {
        let Some(watch) = &mut self.watch else { return };
        let told = watch.at.remove(&replica).is_some();
        watch.vouched.forget(replica);
        if told && (self.vouch == 1 || watch.ready.is_none() && watch.confirmed() < self.vouch) {
            self.watch = None; // dropping the sender ends the stream
        }
    }

    fn ask(&self, replica: ReplicaId, service: Service) {
        let bytes = self.envelope.seal(&Payload::<P::Message>::Service(service));
        let _unconnected = self.links.send(replica, bytes);
    }
}
