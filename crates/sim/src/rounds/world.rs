//! Four or five processes in the hands of a scenario: messages arrive at once or never, disks sync at once, patience ends when the
//! scenario says so.

use super::{Late, PROCESSES, Played, Round, TERM_VIEWS, TWIN, When};
use crate::process::CLUSTER;
use crate::registers::{Operation, Registers};
use bytes::Bytes;
use quorate_core::crypto::{Digest, Keyring};
use quorate_core::executor::{Executor, Job};
use quorate_core::ids::{ClientId, Epoch, OpNumber, Peer, RecordSeq, ReplicaId, RequestNumber, SessionId, View};
use quorate_core::node::{Action, Identity, Input, Node, Payload};
use quorate_core::outbox::{To, Turn};
use quorate_core::protocol::{Replica as _, Restore, Restored};
use quorate_core::quorum::ByzantineQuorums;
use quorate_core::sessions::Body;
use quorate_core::time::{Instant, WallTime};
use quorate_core::wire::{Envelope, Wire};
use quorate_protocols::hotstuff::{Config, HotStuff, Message, Record, Rules, rejoin};
use quorate_protocols::pbft;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, LazyLock};

const REPLICAS: usize = 4;
const ENVELOPE: Envelope = Envelope { cluster: CLUSTER, epoch: Epoch::ZERO };
/// Everybody's patience is over after this, however often it has grown.
const LONG: u64 = 3_600_000_000_000;
/// So often patience ends in one term before the scenario goes on without.
const RINGS_MAX: u32 = 3;
/// Frames after which a scenario is not believed to end.
const FRAMES_MAX: u64 = 100_000;

/// Keys are made once for all worlds.
static KEYRINGS: LazyLock<Vec<Arc<Keyring>>> = LazyLock::new(|| {
    let replicas = (0..REPLICAS).map(identity);
    replicas.map(|me| Arc::new(Keyring::simulated_replica(CLUSTER, Epoch::ZERO, REPLICAS, me))).collect()
});

/// Who a process says that it is.
fn identity(process: usize) -> ReplicaId {
    ReplicaId::new(u8::try_from(if process == TWIN { 0 } else { process }).unwrap_or(0))
}

struct Process {
    node: Node<HotStuff>,
    executor: Executor<Registers>,
}

/// A frame from one process to another.
#[derive(Clone)]
struct Flying {
    from: usize,
    to: usize,
    bytes: Bytes,
    kind: Kind,
}

/// What tells frames apart here.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A proposal or a vote, and its view.
    Proposal(View),
    Vote(View),
    Timeout,
    Other,
}

impl Flying {
    const fn view(&self) -> Option<View> {
        match self.kind {
            Kind::Proposal(view) | Kind::Vote(view) => Some(view),
            Kind::Timeout | Kind::Other => None,
        }
    }
}

/// What becomes of a frame.
enum Fate {
    Arrives,
    /// It is the next round's.
    Waits,
    IsLate,
    IsLost,
}

/// What gets through.
#[derive(Clone, Copy)]
enum Phase {
    /// Between those who are on one side; of proposals and votes only those of the term's first views.
    Leads { term: u64, round: Round },
    /// Between those who are not alone. No proposals and votes; those of the next term wait.
    Ends { alone: [bool; PROCESSES], next: u64 },
}

/// The processes, and what is on its way between them.
pub(super) struct World {
    config: Config,
    quorums: ByzantineQuorums,
    processes: Vec<Process>,
    flying: VecDeque<Flying>,
    /// Proposals of the next round.
    waiting: VecDeque<Flying>,
    /// What is late in the present round; in the one before; and until the last one.
    late: [Vec<Flying>; 3],
    phase: Phase,
    now: u64,
    frames: u64,
    requests: u64,
    /// What was executed first as each entry, and by whom.
    executed: BTreeMap<OpNumber, (usize, Digest)>,
    /// Who proposed in each round.
    leaders: Vec<usize>,
    /// Disks that were lost, and by whom.
    lost: Vec<usize>,
    violation: Option<String>,
}

impl World {
    pub(super) fn new(rules: Rules, twin: bool) -> Self {
        let config = Config { rules, leader_views: TERM_VIEWS, ..Config::default() };
        let mut world = Self {
            config,
            quorums: ByzantineQuorums::new(REPLICAS).unwrap_or_else(|| unreachable!("four are a group")),
            processes: Vec::new(),
            flying: VecDeque::new(),
            waiting: VecDeque::new(),
            late: Default::default(),
            phase: Phase::Ends { alone: [false; PROCESSES], next: 0 },
            now: 1,
            frames: 0,
            requests: 0,
            executed: BTreeMap::new(),
            leaders: Vec::new(),
            lost: Vec::new(),
            violation: None,
        };
        for process in 0..if twin { PROCESSES } else { TWIN } {
            world.start(process, None);
        }
        world
    }

    /// Plays the rounds.
    pub(super) fn play(&mut self, rounds: &[Round]) {
        let term_of = |rounds: Option<&Round>, from: u64| {
            let leads = |term: &u64| rounds.is_none_or(|round| self.leader_of(*term) == round.leader);
            (from..).find(leads).unwrap_or(from)
        };
        let mut terms = Vec::new();
        for round in rounds {
            terms.push(term_of(Some(round), terms.last().map_or(0, |term| term + 1)));
        }
        self.end([false; PROCESSES], terms.first().copied().unwrap_or(0));
        for (index, (round, term)) in rounds.iter().zip(&terms).enumerate() {
            if index.saturating_add(1) == rounds.len() {
                self.arrive_late(When::Last);
            }
            self.lead(round, *term);
            self.arrive_late(When::Next);
            if matches!(round.late, Late::Timeouts(_)) {
                self.ring(); // their timeouts are late
                self.deliver();
            }
            for process in round.lose.iter().flatten() {
                self.lose_disk(*process, round.asks);
            }
            self.set_aside(round.late);
            let next = terms.iter().copied().find(|later| later > term).unwrap_or(term + 1);
            let mut alone = [false; PROCESSES];
            for (process, alone) in alone.iter_mut().enumerate() {
                *alone = round.cut && identity(process).index() == round.leader;
            }
            self.end(alone, next);
            if self.violation.is_some() {
                return;
            }
        }
    }

    /// What it came to.
    pub(super) fn judge(mut self) -> Played {
        let votes_again = |process: &&usize| !self.is_silent(**process);
        Played {
            executed: self.executed.len() as u64,
            lost: self.lost.len() as u64,
            back: self.lost.iter().filter(votes_again).count() as u64,
            wrong: self.violation.take(),
        }
    }

    /// Who proposed in each round.
    #[cfg(test)]
    pub(super) fn leaders(&self) -> &[usize] {
        &self.leaders
    }

    fn leader_of(&self, term: u64) -> usize {
        let first = View::new(term.saturating_mul(self.config.views()).saturating_add(1));
        self.config.leader(&self.quorums, first).index()
    }

    fn term(&self, process: usize) -> u64 {
        self.processes.get(process).map_or(0, |it| self.config.term(it.node.replica().status().view))
    }

    fn is_silent(&self, process: usize) -> bool {
        self.processes.get(process).is_some_and(|it| it.node.replica().status().role.starts_with("silent"))
    }

    /// A disk is lost, unless somebody counts as faulty already: the replica begins anew, as `quorate recover` lets it.
    fn lose_disk(&mut self, process: usize, asks: bool) {
        if process < self.processes.len() && !(0..self.processes.len()).any(|other| self.is_silent(other)) {
            self.lost.push(process);
            self.start(process, Some(rejoin()));
            if asks {
                self.now = self.now.saturating_add(LONG);
                self.input(process, Input::Timers);
                self.deliver();
            }
        }
    }

    /// What was late in this round arrives now, or is kept.
    fn set_aside(&mut self, late: Late) {
        let [present, next, last] = &mut self.late;
        match late {
            Late::Nothing => {}
            Late::Votes(When::Next) | Late::Timeouts(When::Next) => *next = std::mem::take(present),
            Late::Votes(When::Last) | Late::Timeouts(When::Last) => last.append(present),
            Late::Votes(When::Soon) | Late::Timeouts(When::Soon) => self.arrive_late(When::Soon),
        }
    }

    /// What was late until now arrives, whoever is aside.
    fn arrive_late(&mut self, when: When) {
        let [present, next, last] = &mut self.late;
        let late = match when {
            When::Soon => std::mem::take(present),
            When::Next => std::mem::take(next),
            When::Last => std::mem::take(last),
        };
        for Flying { from, to, bytes, .. } in late {
            self.input(to, Input::Frame { from: Peer::Replica(identity(from)), bytes });
        }
        self.deliver();
    }

    /// One leads: everybody has a request of its own, so that no two leaders propose the same.
    fn lead(&mut self, round: &Round, term: u64) {
        self.phase = Phase::Leads { term, round: *round };
        self.ask_everybody();
        let held = std::mem::take(&mut self.waiting);
        self.leaders.extend(held.front().map(|it| identity(it.from).index()));
        self.flying.extend(held);
        self.deliver();
    }

    /// The leader is alone, and the others give it up, and those after it, until they are in the next round's term.
    fn end(&mut self, alone: [bool; PROCESSES], next: u64) {
        self.phase = Phase::Ends { alone, next };
        let others: Vec<usize> =
            (0..self.processes.len()).filter(|process| alone.get(*process) == Some(&false)).collect();
        let there = |world: &Self| others.iter().filter(|process| world.term(**process) >= next).count();
        let mut term = 0;
        let mut rings = 0;
        while there(self) < others.len() && rings < RINGS_MAX && self.violation.is_none() {
            let reached = others.iter().map(|process| self.term(*process)).max().unwrap_or(0);
            rings = if reached > term { 0 } else { rings + 1 };
            term = reached;
            self.ask_everybody();
            self.ring();
            self.deliver();
        }
    }

    /// Nobody has patience any more.
    fn ring(&mut self) {
        self.now = self.now.saturating_add(LONG);
        for process in 0..self.processes.len() {
            self.input(process, Input::Timers);
        }
    }

    /// A client has a request for each process, another one for each: none of them is ever satisfied, so there is always
    /// something to wait for.
    fn ask_everybody(&mut self) {
        self.requests = self.requests.saturating_add(1);
        for process in 0..self.processes.len() {
            let client = ClientId::new(100 + process as u128);
            let put = Operation::Put { key: 0, value: self.requests };
            let operation = put.encode().into();
            let requests = pbft::Requests {
                client,
                session: SessionId::new(1),
                acknowledged: RequestNumber::ZERO,
                full: None,
                requests: vec![(RequestNumber::new(self.requests), Body::Apply(operation))],
            };
            let keyring = Keyring::simulated_client(CLUSTER, Epoch::ZERO, REPLICAS, client);
            let message = Message::Client(pbft::Message::Request(keyring.sign_as_client(requests)));
            let bytes = ENVELOPE.seal(&Payload::Protocol(message));
            self.input(process, Input::Frame { from: Peer::Client(client), bytes });
        }
    }

    fn deliver(&mut self) {
        while let Some(it) = self.flying.pop_front() {
            self.frames = self.frames.saturating_add(1);
            if self.frames > FRAMES_MAX {
                return self.violate("it does not come to rest".to_owned());
            }
            match self.fate(&it) {
                Fate::Arrives => {
                    let from = Peer::Replica(identity(it.from));
                    self.input(it.to, Input::Frame { from, bytes: it.bytes });
                }
                Fate::Waits => self.waiting.push_back(it),
                Fate::IsLate => {
                    let [present, ..] = &mut self.late;
                    present.push(it);
                }
                Fate::IsLost => {}
            }
        }
    }

    /// Does it arrive?
    fn fate(&self, it: &Flying) -> Fate {
        let of = |flags: &[bool; PROCESSES], process: usize| flags.get(process).copied().unwrap_or(true);
        let term = it.view().map(|view| self.config.term(view));
        let arrives = match &self.phase {
            Phase::Leads { term: now, round } => {
                let place = it.view().map_or(0, |view| view.previous().get() % self.config.views());
                let is_last = term == Some(*now) && place.saturating_add(1) == round.heard;
                let is_late = match (it.kind, round.late) {
                    (Kind::Vote(_), Late::Votes(_)) => is_last,
                    (Kind::Timeout, Late::Timeouts(_)) => true,
                    _ => false,
                };
                if is_late {
                    return Fate::IsLate;
                }
                let in_time = term.is_none_or(|term| term == *now && place < round.heard);
                let is_for =
                    !is_last || !matches!(it.kind, Kind::Proposal(_)) || round.last.is_none_or(|last| last == it.to);
                of(&round.aside, it.from) == of(&round.aside, it.to) && in_time && is_for
            }
            Phase::Ends { next, .. } if term == Some(*next) => return Fate::Waits,
            Phase::Ends { alone, .. } => term.is_none() && !of(alone, it.from) && !of(alone, it.to),
        };
        if arrives { Fate::Arrives } else { Fate::IsLost }
    }

    /// A process begins, perhaps with one record on its disk.
    fn start(&mut self, process: usize, record: Option<Record>) {
        let me = identity(process);
        let first = RecordSeq::new(1);
        let next_seq = if record.is_some() { first.next() } else { first };
        let restore = Restore {
            replica: me,
            replicas: REPLICAS,
            config: self.config,
            records: record.map(|record| Restored::Found { seq: first, record }).into_iter().collect(),
            tail_damaged: false,
            checkpoint: None,
            wake: None,
        };
        let identity = Identity { cluster: CLUSTER, epoch: Epoch::ZERO, replica: me };
        let Some(keyring) = KEYRINGS.get(me.index()) else { return };
        match Node::start_with(identity, keyring.clone(), restore, next_seq, false, self.turn()) {
            Ok((node, actions)) => {
                let begun = Process { node, executor: Executor::new(Registers::default()) };
                match self.processes.get_mut(process) {
                    Some(former) => *former = begun,
                    None => self.processes.push(begun),
                }
                self.carry_out(process, actions);
            }
            Err(error) => self.violate(format!("{me} does not start: {error}")),
        }
    }

    fn turn(&self) -> Turn {
        Turn { now: Instant::from_nanos(self.now), wall: WallTime::from_nanos(1), entropy: self.now }
    }

    fn input(&mut self, process: usize, input: Input) {
        let turn = self.turn();
        let Some(it) = self.processes.get_mut(process) else { return };
        let mut actions = Vec::new();
        it.node.handle(input, turn, &mut actions);
        if let Err(broken) = it.node.replica().check() {
            self.violate(format!("{}: {broken}", name(process)));
        }
        self.carry_out(process, actions);
    }

    fn carry_out(&mut self, process: usize, actions: Vec<Action>) {
        let (mut synced, mut done) = (None, Vec::new());
        for action in actions {
            match action {
                Action::Append { seq, .. } => synced = Some(seq),
                Action::Send { to, bytes, .. } => self.send(process, to, &bytes),
                Action::Run(job) => {
                    self.look(process, &job);
                    done.extend(self.processes.get_mut(process).map(|it| it.executor.run(job)));
                }
                Action::Halt(why) => self.violate(format!("{} halts: {why}", name(process))),
                _ => {}
            }
        }
        if let Some(seq) = synced {
            self.input(process, Input::Synced(seq));
        }
        for done in done {
            self.input(process, Input::Done(done));
        }
    }

    fn send(&mut self, from: usize, to: To, bytes: &Bytes) {
        let kind = match Envelope::open::<Payload<Message>>(bytes) {
            Ok((_, Payload::Protocol(Message::Proposal(it)))) => Kind::Proposal(it.header.statement().view),
            Ok((_, Payload::Protocol(Message::Vote(it)))) => Kind::Vote(it.statement().view),
            Ok((_, Payload::Protocol(Message::Timeout { .. }))) => Kind::Timeout,
            _ => Kind::Other,
        };
        let others = (0..self.processes.len()).filter(|other| identity(*other) != identity(from));
        let receivers: Vec<usize> = match to {
            To::Others => others.collect(),
            To::One(Peer::Replica(replica)) => others.filter(|other| identity(*other) == replica).collect(),
            To::One(Peer::Client(_)) => return,
        };
        for to in receivers {
            self.flying.push_back(Flying { from, to, bytes: bytes.clone(), kind });
        }
    }

    /// What those who have no twin execute must be the same.
    fn look(&mut self, process: usize, job: &Job) {
        let Job::Execute { op, batch } = job else { return };
        if self.processes.len() == PROCESSES && identity(process) == identity(TWIN) {
            return;
        }
        let digest = Digest::of(batch);
        let (first, expected) = *self.executed.entry(*op).or_insert((process, digest));
        if expected != digest {
            let (first, second) = (name(first), name(process));
            self.violate(format!("Agreement: {first} and {second} executed different batches as entry {op}"));
        }
    }

    fn violate(&mut self, what: String) {
        self.violation.get_or_insert(what);
    }
}

/// As pictures name it.
pub(super) fn name(process: usize) -> String {
    if process == TWIN { "R0'".to_owned() } else { format!("R{process}") }
}
