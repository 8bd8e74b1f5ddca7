//! One replica with its cores, its disk and its line.

use super::{Costs, Work};
use crate::process::CLUSTER;
use bytes::Bytes;
use quorate_core::crypto::Keyring;
use quorate_core::executor::{Executor, Job};
use quorate_core::ids::{Epoch, Peer, RecordSeq, ReplicaId};
use quorate_core::node::{Action, Identity, Input, Node, Opened, Opener, Refused};
use quorate_core::outbox::Turn;
use quorate_core::protocol::{Protocol, Restore, RestoreError};
use quorate_core::time::{Instant, WallTime};
use quorate_machines::Kv;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// What time it is in the world when it begins, nanoseconds since 1970.
const EPOCH_NANOS: u64 = 1_700_000_000_000_000_000;

/// What waits for the protocol's core.
pub enum Waiting<P: Protocol> {
    /// A frame that was looked at elsewhere.
    Frame { opened: Box<Result<Opened<P>, Refused>>, bytes: u64 },
    /// A frame that is looked at here.
    Sealed { from: Peer, bytes: Bytes },
    /// Anything else.
    Input(Input),
}

/// A replica.
pub struct Replica<P: Protocol> {
    pub id: ReplicaId,
    pub node: Node<P>,
    pub opener: Opener<P>,
    pub keyring: Arc<Keyring>,
    pub executor: Executor<Kv>,
    pub waiting: VecDeque<Waiting<P>>,
    /// Is the protocol's core busy?
    pub busy: bool,
    pub jobs: VecDeque<Job>,
    pub working: bool,
    pub appended: RecordSeq,
    /// Bytes appended since the last sync began.
    pub unsynced: u64,
    pub syncing: bool,
    pub synced: RecordSeq,
    pub wake: Option<u64>,
    /// When each core that checks signatures is free, virtual nanoseconds.
    openers: Vec<u64>,
    /// When the last frame of a link was or will be looked at.
    opened: BTreeMap<Peer, u64>,
    /// When its line is free, outwards and inwards.
    pub line_out: u64,
    pub line_in: u64,
    pub work: Work,
}

impl<P: Protocol> Replica<P> {
    pub fn start(
        id: ReplicaId,
        replicas: usize,
        config: P::Config,
        costs: &Costs,
    ) -> Result<(Self, Vec<Action>), RestoreError> {
        let keyring = Arc::new(Keyring::simulated_replica(CLUSTER, Epoch::ZERO, replicas, id));
        let identity = Identity { cluster: CLUSTER, epoch: Epoch::ZERO, replica: id };
        let restore = Restore {
            replica: id,
            replicas,
            config,
            records: Vec::new(),
            tail_damaged: false,
            checkpoint: None,
            wake: None,
        };
        let first = RecordSeq::new(1);
        let (node, actions) = Node::start_with(identity, keyring.clone(), restore, first, false, turn(0, id))?;
        let openers = vec![0; usize::try_from(costs.openers).unwrap_or(1).clamp(1, 1024)];
        let replica = Self {
            id,
            opener: node.opener(),
            node,
            keyring,
            executor: Executor::new(Kv::default()),
            waiting: VecDeque::new(),
            busy: false,
            jobs: VecDeque::new(),
            working: false,
            appended: first.previous(),
            unsynced: 0,
            syncing: false,
            synced: first.previous(),
            wake: None,
            openers,
            opened: BTreeMap::new(),
            line_out: 0,
            line_in: 0,
            work: Work::default(),
        };
        Ok((replica, actions))
    }

    /// A frame has arrived whose signatures other cores check: what it is, and when they will have done it.
    pub fn open(&mut self, from: Peer, bytes: &Bytes, now: u64, costs: &Costs) -> (Waiting<P>, u64) {
        let before = self.keyring.work().checked;
        let opened = Box::new(self.opener.open(from, bytes));
        let checked = self.keyring.work().checked.saturating_sub(before);
        let length = bytes.len() as u64;
        let takes = checked.saturating_mul(costs.verify_ns).saturating_add(Costs::bytes(length, costs.frame_byte_ps));
        let free = self.openers.iter_mut().min();
        let last = self.opened.entry(from).or_default();
        let mut done = now.saturating_add(takes);
        if let Some(free) = free {
            done = (*free).max(now).saturating_add(takes);
            *free = done;
        }
        *last = (*last).max(done);
        self.work.checked = self.work.checked.saturating_add(checked);
        self.work.opening = self.work.opening.saturating_add(takes);
        (Waiting::Frame { opened, bytes: length }, *last)
    }

    /// Lets the protocol's core do what waits in front: what follows, and how long it takes, nanoseconds.
    pub fn take_turn(&mut self, now: u64, costs: &Costs) -> Option<(Vec<Action>, u64)> {
        let waiting = self.waiting.pop_front()?;
        let before = self.keyring.work();
        let mut actions = Vec::new();
        let turn = turn(now, self.id);
        let mut takes = costs.turn_ns;
        self.work.turns = self.work.turns.saturating_add(1);
        match waiting {
            Waiting::Frame { opened, bytes } => {
                self.received(bytes);
                takes = takes.saturating_add(costs.frame_ns);
                self.node.handle_opened(*opened, turn, &mut actions);
            }
            Waiting::Sealed { from, bytes } => {
                let length = bytes.len() as u64;
                self.received(length);
                takes = takes.saturating_add(costs.frame_ns);
                takes = takes.saturating_add(Costs::bytes(length, costs.frame_byte_ps));
                self.node.handle(Input::Frame { from, bytes }, turn, &mut actions);
            }
            Waiting::Input(input) => self.node.handle(input, turn, &mut actions),
        }
        let after = self.keyring.work();
        let (signed, checked) =
            (after.signed.saturating_sub(before.signed), after.checked.saturating_sub(before.checked));
        self.work.signed = self.work.signed.saturating_add(signed);
        self.work.checked = self.work.checked.saturating_add(checked);
        takes = takes.saturating_add(signed.saturating_mul(costs.sign_ns));
        takes = takes.saturating_add(checked.saturating_mul(costs.verify_ns));
        for action in &actions {
            let more = match action {
                Action::Append { bytes, .. } => Costs::bytes(bytes.len() as u64, costs.log_byte_ps),
                _ => 0,
            };
            takes = takes.saturating_add(more);
        }
        Some((actions, takes))
    }

    fn received(&mut self, bytes: u64) {
        self.work.frames_in = self.work.frames_in.saturating_add(1);
        self.work.bytes_in = self.work.bytes_in.saturating_add(bytes);
    }
}

/// What a replica reads from its clocks.
pub fn turn(now: u64, id: ReplicaId) -> Turn {
    let wall = WallTime::from_nanos(EPOCH_NANOS.saturating_add(now));
    Turn { now: Instant::from_nanos(now), wall, entropy: now ^ u64::from(id.get()).rotate_right(8) }
}
