//! What the controller decides, without doing any of it: looks go in, orders come out. No clock, no process, no file.
//!
//! # Its rules
//! - Who has ended is started again, after a pause that doubles. Who ends again and again before it has run for a while is
//!   *quarantined*: kept stopped until a person has looked.
//! - Who runs and does not answer is *suspected*, and after a while stopped, so that it is started again.
//! - Who has another state than `f + 1` equal others after one entry has *diverged*: at least one of those is right, and all of them
//!   say the same. It is *fenced*, which is stopped and kept stopped, and rebuilt as a replica whose disk was lost.
//! - Whatever takes a replica away that runs needs enough others for the cluster to go on, and never are more than `f` away because of
//!   this. Who is away already may be rebuilt under the same bound, a few times a day.
//! - What replicas hold as evidence is shown. One replica's word against another is acted on by nobody.
//!
//! # What it is not trusted with
//! Nothing that is safe depends on it. A replica may be killed and started at any moment, a rebuilding that is not safe is refused by
//! `quorate recover`, and a second process of one replica by the first one's lock. A controller that lies can keep replicas from
//! running; it cannot make them forget or contradict each other.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Milliseconds of a clock that does not go back while the controller runs.
pub type Millis = u64;

/// Before the first start of a replica that has ended; doubles with each failure.
const BACKOFF_MIN: Millis = 500;
/// The longest pause before a start.
const BACKOFF_MAX: Millis = 60_000;
/// Who has answered for so long has started well: its failures are forgotten.
const STEADY: Millis = 60_000;
/// Failures in a row after which a replica is quarantined.
const FAILURES_MAX: u32 = 8;
/// Silence after which a replica that runs is suspected.
const SUSPECT_AFTER: Millis = 5_000;
/// Silence after which a replica that is suspected is stopped.
const STOP_AFTER: Millis = 30_000;
/// How long a replica that was started may read its disk before its silence counts.
const START_PATIENCE: Millis = 120_000;
/// Entries that a replica may be behind and still count as one that keeps up.
const LAG_MAX: u64 = 1_000;
/// Rebuildings of one replica in [`REBUILD_WINDOW`]; then it stays fenced until a person has looked.
const REBUILDS_MAX: usize = 2;
/// A day.
const REBUILD_WINDOW: Millis = 86_400_000;
/// Before a rebuilding that failed is tried again.
const REBUILD_RETRY: Millis = 15_000;
/// Entries of each replica whose states are remembered.
const STATES_MAX: usize = 256;
/// Milestones that are taken from one answer.
const MILESTONES_MAX: usize = 32;
/// Pieces of evidence that are remembered, so that each is shown once; further ones are counted.
const EVIDENCE_MAX: usize = 1_024;

/// A cluster, as far as the rules need it.
#[derive(Clone, Copy, Debug)]
pub struct Model {
    /// Replicas that must run for the cluster to go on.
    pub needed: usize,
    /// Replicas that may be faulty: `f`.
    pub faults: usize,
    /// Is there one order of all operations, so that states can be compared?
    pub one_order: bool,
    /// Can a replica whose disk is lost come back, and is it to?
    pub rebuilds: bool,
}

/// What is seen of a replica at one look.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Its process.
    pub process: Process,
    /// The process is gone and so is what it knew: there is no readable folder, and not that of a new replica.
    pub lost: bool,
    /// What it says of itself.
    pub said: Option<Said>,
}

/// A replica's process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Process {
    /// On another machine: nothing is done about it.
    #[default]
    Elsewhere,
    /// It runs.
    Running,
    /// It does not.
    Gone,
}

/// What a replica says of itself. It may lie.
#[derive(Clone, Debug, Default)]
pub struct Said {
    /// Committed entries that it has not executed.
    pub lag: u64,
    /// Entries that it knows to be missing on its disk.
    pub missing: u64,
    /// The last entry that the digest covers.
    pub digest_op: u64,
    /// Of its state after that entry.
    pub digest: String,
    /// Of its states after earlier entries, at which all replicas look: under a steady load no two are asked after the same one.
    pub milestones: BTreeMap<u64, String>,
    /// Proofs against others.
    pub evidence: Vec<String>,
}

/// How a replica is, as the controller sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum State {
    /// It was not looked at yet.
    Unseen,
    /// It runs and has not answered yet.
    Starting,
    /// It answers, and is behind.
    CatchingUp,
    /// It answers and keeps up.
    Active,
    /// It runs and does not answer.
    Suspected,
    /// It has ended, and will be started.
    Down,
    /// It is kept stopped.
    Fenced {
        /// Why.
        why: String,
        /// Is it to be rebuilt when that is possible?
        rebuild: bool,
    },
    /// It is being rebuilt.
    Rebuilding,
    /// It is kept stopped: it fails again and again.
    Quarantined {
        /// Why.
        why: String,
    },
    /// It runs on another machine.
    Elsewhere,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Start its process.
    Start,
    /// Stop its process, and kill it if it does not stop.
    Stop,
    /// Give its folder up and make a new one, as for a lost disk.
    Rebuild {
        /// The old folder can be read, and is not to be believed.
        diverged: bool,
    },
}

/// What the controller says and does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Which replica, by its number.
    pub replica: u8,
    /// What is to be done, if anything.
    pub order: Option<Order>,
    /// For people.
    pub words: String,
}

/// A replica and what was seen of it.
#[derive(Clone, Debug)]
struct Watched {
    state: State,
    /// When the state began.
    since: Millis,
    /// When it last answered, or was started.
    heard: Millis,
    /// When it may be started, or rebuilt again.
    not_before: Millis,
    failures: u32,
    rebuilds: Vec<Millis>,
    /// Its states after entries, as it said, and whether as a milestone: those are other digests.
    states: BTreeMap<(u64, bool), String>,
    /// It was fenced and has not been seen to end since.
    stopping: bool,
    /// What was said last about something that cannot be done now.
    held_back: String,
}

/// What outlives the controller's process.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Kept {
    /// By the replicas' numbers.
    pub replicas: BTreeMap<u8, KeptReplica>,
}

/// One replica of [`Kept`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct KeptReplica {
    /// How it was last seen.
    #[serde(flatten)]
    pub state: State,
    /// When it was rebuilt.
    pub rebuilds: Vec<Millis>,
}

/// Looks go in, orders come out.
#[derive(Debug)]
pub struct Policy {
    model: Model,
    watched: BTreeMap<u8, Watched>,
    evidence: BTreeSet<String>,
    /// Something that no `f` faults explain was said already.
    beyond: bool,
}

impl Policy {
    /// The rules for a cluster. Of what was kept, who is fenced or quarantined stays so.
    pub fn new(model: Model, replicas: impl IntoIterator<Item = u8>, kept: &Kept, now: Millis) -> Self {
        let watched = replicas.into_iter().map(|replica| {
            let kept = kept.replicas.get(&replica);
            let state = match kept.map(|it| it.state.clone()) {
                Some(state @ (State::Fenced { .. } | State::Quarantined { .. })) => state,
                // Nobody finishes what a former controller began; whether the folder can be read tells how far it came.
                Some(State::Rebuilding) => {
                    State::Fenced { why: "its rebuilding was broken off".to_owned(), rebuild: true }
                }
                _ => State::Unseen,
            };
            let rebuilds = kept.map(|it| it.rebuilds.clone()).unwrap_or_default();
            (replica, Watched::new(state, rebuilds, now))
        });
        Self { model, watched: watched.collect(), evidence: BTreeSet::new(), beyond: false }
    }

    /// What is to be kept.
    pub fn kept(&self) -> Kept {
        let replica =
            |(id, it): (&u8, &Watched)| (*id, KeptReplica { state: it.state.clone(), rebuilds: it.rebuilds.clone() });
        Kept { replicas: self.watched.iter().map(replica).collect() }
    }

    /// How a replica is.
    #[cfg(test)]
    pub fn state(&self, replica: u8) -> &State {
        &self.watched[&replica].state
    }

    /// A person has looked: a replica that is kept stopped is started again.
    pub fn release(&mut self, replica: u8, now: Millis) {
        if let Some(it) = self.watched.get_mut(&replica) {
            *it = Watched::new(State::Down, Vec::new(), now);
        }
    }

    /// A rebuilding has ended.
    pub fn rebuilt(&mut self, replica: u8, result: Result<(), String>, now: Millis) -> Decision {
        let words = match (self.watched.get_mut(&replica), result) {
            (Some(it), Ok(())) => {
                it.rebuilds.push(now);
                it.enter(State::Down, now);
                (it.not_before, it.failures) = (now, 0);
                it.states.clear();
                "is rebuilt".to_owned()
            }
            (Some(it), Err(why)) => {
                it.enter(State::Fenced { why: format!("it could not be rebuilt: {why}"), rebuild: true }, now);
                it.not_before = now.saturating_add(REBUILD_RETRY);
                format!("could not be rebuilt, and stays fenced: {why}")
            }
            (None, _) => String::new(),
        };
        Decision { replica, order: None, words }
    }

    /// What is to be done after a look at all replicas.
    pub fn look(&mut self, seen: &BTreeMap<u8, Seen>, now: Millis) -> Vec<Decision> {
        let mut decisions = Vec::new();
        for (id, seen) in seen {
            self.remember(*id, seen, &mut decisions);
        }
        let ids: Vec<u8> = self.watched.keys().copied().collect();
        for id in ids {
            let nothing = Seen::default();
            let one = seen.get(&id).unwrap_or(&nothing);
            let diverged = self.diverged(id, &mut decisions);
            let decided = match one.process {
                Process::Elsewhere => self.elsewhere(id, now),
                Process::Gone => self.gone(id, one, seen, now),
                Process::Running => self.running(id, one, seen, diverged, now),
            };
            decisions.extend(decided.map(|(order, words)| Decision { replica: id, order, words }));
        }
        decisions
    }

    /// Remembers states and evidence.
    fn remember(&mut self, id: u8, seen: &Seen, decisions: &mut Vec<Decision>) {
        let (Some(said), Some(it)) = (&seen.said, self.watched.get_mut(&id)) else { return };
        if self.model.one_order && !it.is_kept_stopped() {
            it.states.insert((said.digest_op, false), said.digest.clone());
            let milestones = said.milestones.iter().take(MILESTONES_MAX);
            it.states.extend(milestones.map(|(op, digest)| ((*op, true), digest.clone())));
            while it.states.len() > STATES_MAX {
                it.states.pop_first();
            }
        }
        for proof in &said.evidence {
            let words = format!("holds evidence: {proof}");
            if self.evidence.len() < EVIDENCE_MAX && self.evidence.insert(format!("{id} {words}")) {
                decisions.push(Decision { replica: id, order: None, words });
            }
        }
    }

    /// The entry after which a replica has another state than `f + 1` equal others.
    fn diverged(&mut self, id: u8, decisions: &mut Vec<Decision>) -> Option<u64> {
        let own = &self.watched.get(&id)?.states;
        for (entry, digest) in own {
            let op = entry.0;
            let mut others: BTreeMap<&str, usize> = BTreeMap::new();
            for (_, other) in self.watched.iter().filter(|(other, it)| **other != id && !it.is_kept_stopped()) {
                if let Some(theirs) = other.states.get(entry) {
                    let count = others.entry(theirs).or_default();
                    *count = count.saturating_add(1);
                }
            }
            let vouched = |count: usize| count > self.model.faults;
            // It counts on its own side: two sides of f + 1 each are more than the model explains.
            let with = vouched(others.get(digest.as_str()).map_or(1, |count| count.saturating_add(1)));
            let against = others.iter().any(|(theirs, count)| *theirs != digest && vouched(*count));
            match (against, with) {
                (true, false) => return Some(op),
                (true, true) if !self.beyond => {
                    self.beyond = true;
                    let words = format!(
                        "more replicas than the cluster bears contradict each other after entry {op}: nothing is done about \
                         that. Stop writing, and keep all data folders"
                    );
                    decisions.push(Decision { replica: id, order: None, words });
                }
                _ => {}
            }
        }
        None
    }

    /// May this replica be taken away, or be rebuilt where it is away already?
    fn can_spare(&self, id: u8, seen: &BTreeMap<u8, Seen>) -> Result<(), String> {
        let well = |other: &u8| {
            let said = seen.get(other).and_then(|it| it.said.as_ref());
            let keeps_up = said.is_some_and(|it| it.missing == 0 && it.lag <= LAG_MAX);
            keeps_up && self.watched.get(other).is_some_and(|it| !it.is_kept_stopped())
        };
        let others = self.watched.keys().filter(|other| **other != id && well(other)).count();
        if others < self.model.needed {
            return Err(format!("{others} others are well, and the cluster needs {}", self.model.needed));
        }
        let away = |(other, it): (&u8, &Watched)| *other != id && it.is_away();
        let away = self.watched.iter().filter(|it| away(*it)).count();
        if away >= self.model.faults {
            return Err(format!("{away} others are away, and the cluster bears {}", self.model.faults));
        }
        Ok(())
    }

    fn elsewhere(&mut self, id: u8, now: Millis) -> Option<(Option<Order>, String)> {
        let it = self.watched.get_mut(&id)?;
        it.enter(State::Elsewhere, now);
        None
    }

    /// Its process does not run.
    fn gone(&mut self, id: u8, one: &Seen, seen: &BTreeMap<u8, Seen>, now: Millis) -> Option<(Option<Order>, String)> {
        let spare = self.can_spare(id, seen);
        let rebuilds = self.model.rebuilds;
        let it = self.watched.get_mut(&id)?;
        it.stopping = false;
        match it.state.clone() {
            State::Quarantined { .. } | State::Rebuilding => None,
            State::Fenced { rebuild: false, .. } => None,
            State::Fenced { why, rebuild: true } => it.rebuild(&why, !one.lost, rebuilds, spare, now),
            _ if one.lost => {
                it.enter(State::Fenced { why: "its disk is lost".to_owned(), rebuild: true }, now);
                Some((None, "its disk is lost: there is no replica in its folder".to_owned()))
            }
            State::Down if now < it.not_before => None,
            State::Down | State::Unseen => {
                it.enter(State::Starting, now);
                it.heard = now;
                Some((Some(Order::Start), "is started".to_owned()))
            }
            _ => Some((None, it.failed("has ended", now))),
        }
    }

    /// Its process runs.
    fn running(
        &mut self,
        id: u8,
        one: &Seen,
        seen: &BTreeMap<u8, Seen>,
        diverged: Option<u64>,
        now: Millis,
    ) -> Option<(Option<Order>, String)> {
        let spare = self.can_spare(id, seen);
        let it = self.watched.get_mut(&id)?;
        if it.is_kept_stopped() {
            if it.stopping {
                return Some((Some(Order::Stop), "does not stop; once more".to_owned()));
            }
            let rebuilds = std::mem::take(&mut it.rebuilds);
            *it = Watched::new(State::Starting, rebuilds, now);
            return Some((None, "was started by somebody else, and is watched again".to_owned()));
        }
        if let Some(op) = diverged {
            let why = format!("it has another state than enough others after entry {op}");
            if let Err(because) = spare {
                return it.hold_back(format!("{why}, and is not fenced: {because}"));
            }
            it.enter(State::Fenced { why: why.clone(), rebuild: true }, now);
            it.states.clear();
            it.stopping = true;
            return Some((Some(Order::Stop), format!("is fenced: {why}")));
        }
        let Some(said) = &one.said else { return it.silent(spare, now) };
        it.heard = now;
        it.held_back.clear();
        let state = if said.missing == 0 && said.lag <= LAG_MAX { State::Active } else { State::CatchingUp };
        if it.state == State::Active && now.saturating_sub(it.since) >= STEADY {
            it.failures = 0;
        }
        let words = match &state {
            State::Active => "is active".to_owned(),
            _ => format!("is catching up: {} entries behind, {} damaged", said.lag, said.missing),
        };
        it.enter(state, now).then_some((None, words))
    }
}

impl Watched {
    fn new(state: State, rebuilds: Vec<Millis>, now: Millis) -> Self {
        Self {
            state,
            since: now,
            heard: now,
            not_before: now,
            failures: 0,
            rebuilds,
            states: BTreeMap::new(),
            stopping: false,
            held_back: String::new(),
        }
    }

    /// Is it kept stopped, or on its way to that?
    fn is_kept_stopped(&self) -> bool {
        matches!(self.state, State::Fenced { .. } | State::Quarantined { .. } | State::Rebuilding)
    }

    /// Is it away, for whatever reason?
    fn is_away(&self) -> bool {
        self.is_kept_stopped() || matches!(self.state, State::Unseen | State::Down | State::Starting | State::Suspected)
    }

    /// Whether that is news.
    fn enter(&mut self, state: State, now: Millis) -> bool {
        if self.state == state {
            return false;
        }
        (self.state, self.since) = (state, now);
        true
    }

    /// Says once why something is not done.
    fn hold_back(&mut self, words: String) -> Option<(Option<Order>, String)> {
        if self.held_back == words {
            return None;
        }
        self.held_back.clone_from(&words);
        Some((None, words))
    }

    /// It has ended, or had to be stopped: when it is started again, if it is.
    fn failed(&mut self, how: &str, now: Millis) -> String {
        let steady = self.state == State::Active && now.saturating_sub(self.since) >= STEADY;
        self.failures = if steady { 1 } else { self.failures.saturating_add(1) };
        self.states.clear();
        if self.failures >= FAILURES_MAX {
            let why = format!("it {how}, {} times in a row", self.failures);
            self.enter(State::Quarantined { why: why.clone() }, now);
            return format!("is quarantined: {why}. Read its log, then let the controller --release it");
        }
        let doubled = BACKOFF_MIN.saturating_mul(1 << self.failures.saturating_sub(1).min(16));
        let pause = doubled.min(BACKOFF_MAX);
        self.enter(State::Down, now);
        self.not_before = now.saturating_add(pause);
        format!("{how}; it is started again in {pause} ms")
    }

    /// It runs and does not answer.
    fn silent(&mut self, spare: Result<(), String>, now: Millis) -> Option<(Option<Order>, String)> {
        let silence = now.saturating_sub(self.heard);
        let starts = matches!(self.state, State::Starting | State::Unseen);
        let patience = if starts { START_PATIENCE } else { SUSPECT_AFTER };
        if silence < patience {
            return None;
        }
        if self.state != State::Suspected {
            self.enter(State::Suspected, now);
            return Some((None, format!("is suspected: it runs and has not answered for {} s", silence / 1000)));
        }
        if now.saturating_sub(self.since) < STOP_AFTER {
            return None;
        }
        if let Err(because) = spare {
            return self.hold_back(format!("does not answer, and is not stopped: {because}"));
        }
        let words = self.failed("is stopped, since it does not answer", now);
        Some((Some(Order::Stop), words))
    }

    /// It is stopped for good, and is to be rebuilt.
    fn rebuild(
        &mut self,
        why: &str,
        readable: bool,
        rebuilds: bool,
        spare: Result<(), String>,
        now: Millis,
    ) -> Option<(Option<Order>, String)> {
        if now < self.not_before {
            return None;
        }
        if !rebuilds {
            return self.hold_back(format!("stays fenced ({why}): the controller was told not to rebuild, or cannot"));
        }
        self.rebuilds.retain(|at| now.saturating_sub(*at) < REBUILD_WINDOW);
        if self.rebuilds.len() >= REBUILDS_MAX {
            let why = format!("{why}, and was rebuilt {REBUILDS_MAX} times in a day");
            self.enter(State::Fenced { why: why.clone(), rebuild: false }, now);
            return Some((
                None,
                format!("stays fenced: {why}. Look at the machine, then let the controller --release it"),
            ));
        }
        if let Err(because) = spare {
            return self.hold_back(format!("stays fenced ({why}), and is not rebuilt yet: {because}"));
        }
        self.held_back.clear();
        self.enter(State::Rebuilding, now);
        Some((Some(Order::Rebuild { diverged: readable }), format!("is being rebuilt: {why}")))
    }
}

#[cfg(test)]
mod tests;
