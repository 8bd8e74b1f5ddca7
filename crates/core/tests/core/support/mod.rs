//! A protocol that does what its messages tell it to: for tests of the node, which must hold whatever a protocol does.

use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;
use quorate_core::crypto::Digest;
use quorate_core::ids::{ClientId, ClusterId, Epoch, OpNumber, Peer, RecordSeq, ReplicaId};
use quorate_core::node::{Action, Identity, Input, Node, Payload};
use quorate_core::outbox::{Class, Outbox, Turn};
use quorate_core::protocol::{
    Call, Checkpoint, Client, ClientConfig, ClientOutbox, Protocol, QueryTicket, Replica, Restore, RestoreError,
    Status, Ticket,
};
use quorate_core::sessions::Outcome;
use quorate_core::time::{Duration, Instant, WallTime};
use quorate_core::wire::Envelope;

#[derive(Debug)]
pub struct Puppet;

/// What a puppet can be told to do.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Act {
    Persist(u8),
    Tell(u8, u8),
    TellNow(u8, u8),
    TellAll(u8),
    TellNonce,
    Forget(u64),
    Arm(u8, u64),
    Execute(u64),
    Checkpoint(u64),
    Fetch(u64, Digest, u8),
    Halt,
}

#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Message {
    Do(Vec<Act>),
    Word(u64),
}

#[derive(Debug, Default)]
pub struct Strings {
    pub heard: Vec<String>,
}

impl Protocol for Puppet {
    const NAME: &'static str = "puppet";
    type Message = Message;
    type Record = u8;
    type Timer = u8;
    type ClientTimer = u8;
    type Config = ();
    type Replica = Strings;
    type Client = Unused;

    fn label(_: &Message) -> &'static str {
        "Word"
    }
}

impl Strings {
    fn act(acts: &[Act], out: &mut Outbox<Puppet>) {
        let replica = |index: u8| Peer::Replica(ReplicaId::new(index));
        for act in acts {
            match act {
                Act::Persist(record) => drop(out.persist(Class::Entry, *record)),
                Act::Tell(to, word) => out.send(replica(*to), Message::Word(u64::from(*word))),
                Act::TellNow(to, word) => out.send_unsynced(replica(*to), Message::Word(u64::from(*word))),
                Act::TellAll(word) => out.broadcast(Message::Word(u64::from(*word))),
                Act::TellNonce => out.send(replica(0), Message::Word(out.nonce())),
                Act::Forget(before) => out.forget(RecordSeq::new(*before)),
                Act::Arm(timer, millis) => out.arm(*timer, Duration::from_millis(*millis)),
                Act::Execute(op) => out.execute(OpNumber::new(*op), Bytes::new()),
                Act::Checkpoint(op) => out.checkpoint(OpNumber::new(*op)),
                Act::Fetch(op, id, from) => {
                    out.fetch(Checkpoint { op: OpNumber::new(*op), id: *id }, ReplicaId::new(*from));
                }
                Act::Halt => out.halt("told to".to_owned()),
            }
        }
    }
}

impl Replica<Puppet> for Strings {
    fn restore(_: Restore<Puppet>, _: &mut Outbox<Puppet>) -> Result<Self, RestoreError> {
        Ok(Self::default())
    }
    fn on_message(&mut self, from: Peer, message: Message, out: &mut Outbox<Puppet>) {
        match message {
            Message::Do(acts) => Self::act(&acts, out),
            Message::Word(word) => self.heard.push(format!("{from} says {word}")),
        }
    }
    fn on_timer(&mut self, timer: u8, out: &mut Outbox<Puppet>) {
        self.heard.push(format!("timer {timer}"));
        match timer {
            99 => Self::act(&[Act::Halt], out),
            50 | 51 => Self::act(&[Act::TellNonce], out),
            _ => Self::act(&[Act::TellAll(timer)], out),
        }
    }
    fn on_executed(&mut self, op: OpNumber, _: Outcome, _: &mut Outbox<Puppet>) {
        self.heard.push(format!("executed {op}"));
    }
    fn on_queried(&mut self, ticket: QueryTicket, _: Bytes, _: &mut Outbox<Puppet>) {
        self.heard.push(format!("queried {}", ticket.0));
    }
    fn on_checkpoint(&mut self, checkpoint: Checkpoint, _: &mut Outbox<Puppet>) {
        self.heard.push(format!("checkpoint {}", checkpoint.op));
    }
    fn on_installed(&mut self, checkpoint: Checkpoint, _: Option<WallTime>, _: &mut Outbox<Puppet>) {
        self.heard.push(format!("installed {}", checkpoint.op));
    }
    fn on_fetch_failed(&mut self, checkpoint: Checkpoint, _: &mut Outbox<Puppet>) {
        self.heard.push(format!("fetch failed {}", checkpoint.op));
    }
    fn status(&self) -> Status {
        Status::default()
    }
    fn check(&self) -> Result<(), String> {
        Ok(())
    }
}

pub const ENVELOPE: Envelope = Envelope { cluster: ClusterId::new(7), epoch: Epoch::ZERO };

/// Replica 1 of three, with its host's part played by the test.
pub struct Stage {
    pub node: Node<Puppet>,
    pub now: Instant,
}

impl Stage {
    pub fn new() -> Self {
        let identity = Identity { cluster: ENVELOPE.cluster, epoch: ENVELOPE.epoch, replica: ReplicaId::new(1) };
        let restore = Restore {
            replica: identity.replica,
            replicas: 3,
            config: (),
            records: Vec::new(),
            tail_damaged: false,
            checkpoint: None,
            wake: None,
        };
        let started = Node::start(identity, restore, RecordSeq::new(1), true, Turn::default());
        let (node, _) = started.unwrap_or_else(|error| panic!("{error}"));
        Self { node, now: Instant::default() }
    }

    /// Gives the node an input; returns what it asks for.
    pub fn input(&mut self, input: Input) -> Vec<Action> {
        let turn = Turn { now: self.now, wall: WallTime::default(), entropy: 77 };
        let mut actions = Vec::new();
        self.node.handle(input, turn, &mut actions);
        actions
    }

    pub fn payload(&mut self, from: Peer, payload: &Payload<Message>) -> Vec<Action> {
        self.input(Input::Frame { from, bytes: ENVELOPE.seal(payload) })
    }

    /// Replica 2 tells the puppet what to do.
    pub fn tell(&mut self, acts: &[Act]) -> Vec<Action> {
        self.payload(replica(2), &Payload::Protocol(Message::Do(acts.to_vec())))
    }

    pub fn later(&mut self, millis: u64) {
        self.now = self.now.plus(Duration::from_millis(millis));
    }

    pub fn heard(&self) -> Vec<&str> {
        self.node.replica().heard.iter().map(String::as_str).collect()
    }
}

pub fn replica(index: u8) -> Peer {
    Peer::Replica(ReplicaId::new(index))
}

pub fn client(id: u128) -> Peer {
    Peer::Client(ClientId::new(id))
}

/// The actions in short: enough to compare.
pub fn short(actions: &[Action]) -> Vec<String> {
    actions.iter().map(one).collect()
}

fn one(action: &Action) -> String {
    match action {
        Action::Append { seq, .. } => format!("append {seq}"),
        Action::Send { to, bytes, label } => match Envelope::open::<Payload<Message>>(bytes) {
            Ok((_, Payload::Protocol(Message::Word(word)))) => format!("send {word} to {to:?}"),
            _ => format!("send {label} to {to:?}"),
        },
        Action::Run(_) => "run".to_owned(),
        Action::Make(_) => "make".to_owned(),
        Action::Save(_) => "save".to_owned(),
        Action::Read { to, .. } => format!("read for {to}"),
        Action::Prepare(_) => "prepare".to_owned(),
        Action::Put(_, index, _) => format!("put {index}"),
        Action::Finish(checkpoint) => format!("finish {}", checkpoint.op),
        Action::Install(checkpoint) => format!("install {}", checkpoint.op),
        Action::Forget(before) => format!("forget {before}"),
        Action::ForgetSnapshots(op) => format!("forget snapshots {op}"),
        Action::Note(_) => "note".to_owned(),
        Action::Halt(_) => "halt".to_owned(),
    }
}

/// A replica and a client that no test calls.
pub struct Unused;

impl<P: Protocol> Replica<P> for Unused {
    fn restore(_: Restore<P>, _: &mut Outbox<P>) -> Result<Self, RestoreError> {
        Ok(Self)
    }
    fn on_message(&mut self, _: Peer, _: P::Message, _: &mut Outbox<P>) {}
    fn on_timer(&mut self, _: P::Timer, _: &mut Outbox<P>) {}
    fn on_executed(&mut self, _: OpNumber, _: Outcome, _: &mut Outbox<P>) {}
    fn on_queried(&mut self, _: QueryTicket, _: Bytes, _: &mut Outbox<P>) {}
    fn on_checkpoint(&mut self, _: Checkpoint, _: &mut Outbox<P>) {}
    fn on_installed(&mut self, _: Checkpoint, _: Option<WallTime>, _: &mut Outbox<P>) {}
    fn on_fetch_failed(&mut self, _: Checkpoint, _: &mut Outbox<P>) {}
    fn status(&self) -> Status {
        Status::default()
    }
    fn check(&self) -> Result<(), String> {
        Ok(())
    }
}

impl<P: Protocol> Client<P> for Unused {
    fn new(_: ClientConfig) -> Self {
        Self
    }
    fn submit(&mut self, _: Ticket, _: Call, _: &mut ClientOutbox<P>) {}
    fn flush(&mut self, _: &mut ClientOutbox<P>) {}
    fn on_message(&mut self, _: ReplicaId, _: P::Message, _: &mut ClientOutbox<P>) {}
    fn on_timer(&mut self, _: P::ClientTimer, _: &mut ClientOutbox<P>) {}
    fn on_connected(&mut self, _: ReplicaId, _: &mut ClientOutbox<P>) {}
    fn on_disconnected(&mut self, _: ReplicaId, _: &mut ClientOutbox<P>) {}
}
