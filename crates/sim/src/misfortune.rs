//! What went wrong in a run, decision by decision, and which of it may go wrong again.
//!
//! Every decision has a name that does not depend on the others: the time at which misfortune looked, the number of a message
//! on its link, the number of a step of a replica. Its luck is drawn from a stream of its own, seeded by the run's seed and
//! that name. So a decision can be taken back, and the others stay what they were: that is what shrinking needs.

use crate::faults::Fault;
use crate::random::Random;
use crate::trace::name;
use quorate_core::ids::Peer;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use thiserror::Error;

/// Misfortunes of one run that are remembered; later ones happen and are not.
pub const REMEMBERED_MAX: usize = 100_000;

/// Which decision it was.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Moment {
    /// Misfortune looked around at this time, virtual nanoseconds.
    Look(u64),
    /// A message left: from whom, to whom, and how many before it on that link.
    Message(String, String, u64),
    /// A replica took a step: which one, and how many before it.
    Step(usize, u64),
    /// A liar sent something: which replica, and how many frames before it.
    Frame(usize, u64),
    /// The world was made.
    Beginning,
    /// The storm was over, and this replica stays faulty.
    Calm(usize),
}

/// One thing that went wrong, by its name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Misfortune {
    /// When, or to what.
    pub moment: Moment,
    /// What.
    pub fault: Fault,
}

impl fmt::Display for Misfortune {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fault = self.fault;
        match &self.moment {
            Moment::Look(at) => write!(f, "at {}.{:06} ms: {fault}", at / 1_000_000, at % 1_000_000),
            Moment::Message(from, to, before) => write!(f, "{from} to {to}, message {before}: {fault}"),
            Moment::Step(replica, before) => write!(f, "R{replica}, step {before}: {fault}"),
            Moment::Frame(replica, before) => write!(f, "R{replica}, frame {before}: {fault}"),
            Moment::Beginning => write!(f, "always: {fault}"),
            Moment::Calm(replica) => write!(f, "R{replica}, for good: {fault}"),
        }
    }
}

/// A line that names no misfortune.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "{line:?} is no misfortune; one is `at 12.345678 ms: crash`, `R0 to R1, message 7: loss`, `R2, step 40: crash` or \
     `always: clock-skew`"
)]
pub struct Misread {
    /// What was written.
    pub line: String,
}

impl FromStr for Misfortune {
    type Err = Misread;

    fn from_str(line: &str) -> Result<Self, Misread> {
        let misread = || Misread { line: line.to_owned() };
        let (moment, fault) = line.rsplit_once(':').ok_or_else(misread)?;
        let fault = Fault::ALL.iter().find(|it| it.name() == fault.trim()).copied().ok_or_else(misread)?;
        Ok(Self { moment: moment_of(moment.trim()).ok_or_else(misread)?, fault })
    }
}

fn moment_of(text: &str) -> Option<Moment> {
    if text == "always" {
        return Some(Moment::Beginning);
    }
    if let Some(time) = text.strip_prefix("at ") {
        let (whole, places) = time.strip_suffix(" ms")?.split_once('.')?;
        let places: u64 = Some(places).filter(|it| it.len() == 6 && !it.starts_with('+'))?.parse().ok()?;
        return Some(Moment::Look(whole.parse::<u64>().ok()?.checked_mul(1_000_000)?.checked_add(places)?));
    }
    let (who, which) = text.split_once(", ")?;
    if which == "for good" {
        return Some(Moment::Calm(who.strip_prefix('R')?.parse().ok()?));
    }
    match (who.split_once(" to "), which.split_once(' ')?) {
        (Some((from, to)), ("message", before)) => {
            Some(Moment::Message(from.to_owned(), to.to_owned(), before.parse().ok()?))
        }
        (None, ("frame", before)) => Some(Moment::Frame(who.strip_prefix('R')?.parse().ok()?, before.parse().ok()?)),
        (None, ("step", before)) => Some(Moment::Step(who.strip_prefix('R')?.parse().ok()?, before.parse().ok()?)),
        _ => None,
    }
}

/// Something that went wrong, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Struck {
    /// What.
    pub misfortune: Misfortune,
    /// When, virtual nanoseconds.
    pub at: u64,
}

/// What is a matter of luck without being a misfortune.
#[derive(Clone, Copy, Debug)]
pub enum Chance {
    /// How long a sync takes. Numbered by the record through which it syncs.
    Sync,
    /// How long the executor takes for a job.
    Work,
    /// How long the snapshots' thread takes.
    Snapshot,
    /// What of a disk survives its process. Numbered by lives.
    Survival,
    /// How long a client takes to reach a replica. Numbered by the replica and its lives.
    Link,
    /// How long a record that nobody waits for waits for others. Numbered by records.
    Unawaited,
}

/// Decides what goes wrong, and remembers it.
#[derive(Debug)]
pub struct Fortune {
    seed: u64,
    /// If there is a list, nothing else goes wrong.
    only: Option<BTreeSet<Misfortune>>,
    struck: Vec<Struck>,
    messages: BTreeMap<(Peer, Peer), u64>,
    frames: BTreeMap<usize, u64>,
    steps: BTreeMap<(usize, Fault), u64>,
}

impl Fortune {
    /// The luck of `seed`. With a list, what is not on it does not go wrong.
    pub fn new(seed: u64, only: Option<BTreeSet<Misfortune>>) -> Self {
        Self {
            seed,
            only,
            struck: Vec::new(),
            messages: BTreeMap::new(),
            frames: BTreeMap::new(),
            steps: BTreeMap::new(),
        }
    }

    /// May this go wrong? It was drawn. Remembers it if it may.
    pub fn allows(&mut self, moment: Moment, fault: Fault, at: u64) -> bool {
        let misfortune = Misfortune { moment, fault };
        if self.only.as_ref().is_some_and(|only| !only.contains(&misfortune)) {
            return false;
        }
        if self.struck.len() < REMEMBERED_MAX {
            self.struck.push(Struck { misfortune, at });
        }
        true
    }

    /// A message leaves: the stream of its luck, and its name.
    pub fn message(&mut self, from: Peer, to: Peer) -> (Random, u64) {
        let before = self.messages.entry((from, to)).or_default();
        let number = *before;
        *before = number.saturating_add(1);
        (Random::keyed(self.seed, &[1, address(from), address(to), number]), number)
    }

    /// A liar sends a frame: its number.
    pub fn frame(&mut self, replica: usize) -> u64 {
        let before = self.frames.entry(replica).or_default();
        let number = *before;
        *before = number.saturating_add(1);
        number
    }

    /// The stream from which a lie with this frame is drawn.
    pub fn lie(&self, replica: usize, fault: Fault, number: u64) -> Random {
        Random::keyed(self.seed, &[6, replica as u64, fault as u64, number])
    }

    /// A replica takes a step at which this fault strikes so many times in a million. Returns the stream from which the
    /// fault draws how bad it is, if it strikes.
    pub fn step(&mut self, replica: usize, fault: Fault, per_million: u64, at: u64) -> Option<Random> {
        if per_million == 0 {
            return None;
        }
        let before = self.steps.entry((replica, fault)).or_default();
        let number = *before;
        *before = number.saturating_add(1);
        let mut luck = Random::keyed(self.seed, &[2, replica as u64, fault as u64, number]);
        let strikes = luck.chance(per_million) && self.allows(Moment::Step(replica, number), fault, at);
        strikes.then_some(luck)
    }

    /// Misfortune looks around, and this fault is drawn. Returns the stream from which the fault draws how bad it is, unless
    /// it may not strike.
    pub fn look(&mut self, fault: Fault, at: u64) -> Option<Random> {
        let luck = Random::keyed(self.seed, &[3, fault as u64, at]);
        self.allows(Moment::Look(at), fault, at).then_some(luck)
    }

    /// The storm is over: the stream that says who stays faulty.
    pub fn calm(&self) -> Random {
        Random::keyed(self.seed, &[4])
    }

    /// The stream of something that is no misfortune, but a matter of luck all the same: how long the `number`-th one of its
    /// kind takes at this process.
    pub fn stream(&self, chance: Chance, process: usize, number: u64) -> Random {
        Random::keyed(self.seed, &[5, chance as u64, process as u64, number])
    }

    /// All that went wrong.
    pub fn into_struck(self) -> Vec<Struck> {
        self.struck
    }
}

/// The name of a message for [`Fortune::allows`].
pub fn message(from: Peer, to: Peer, before: u64) -> Moment {
    Moment::Message(name(from), name(to), before)
}

fn address(peer: Peer) -> u64 {
    match peer {
        Peer::Replica(id) => u64::from(id.get()),
        Peer::Client(id) => u64::try_from(id.get() >> 96).unwrap_or(0) | 1 << 40,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_core::ids::ReplicaId;

    const A: Peer = Peer::Replica(ReplicaId::new(0));
    const B: Peer = Peer::Replica(ReplicaId::new(1));

    #[test]
    fn every_misfortune_reads_back_as_it_was_written() {
        let moments = [
            Moment::Look(12_345_678),
            Moment::Look(60_000_000_000),
            message(A, B, 7),
            Moment::Message("C0.1".to_owned(), "R2".to_owned(), 0),
            Moment::Step(2, 40),
            Moment::Frame(3, 17),
            Moment::Beginning,
            Moment::Calm(1),
        ];
        for moment in moments {
            let misfortune = Misfortune { moment, fault: Fault::Crash };
            assert_eq!(misfortune.to_string().parse(), Ok(misfortune));
        }
    }

    #[test]
    fn a_line_that_names_no_misfortune_is_refused() {
        for line in
            ["", "crash", "at 5 ms: crash", "at 5.1 ms: crash", "R0, step x: crash", "R0 to R1: loss", "always: luck"]
        {
            assert!(line.parse::<Misfortune>().is_err(), "{line}");
        }
    }

    #[test]
    fn what_is_taken_back_leaves_the_others_as_they_were() {
        let steps = |only| {
            let mut fortune = Fortune::new(7, only);
            for at in 0..2000 {
                fortune.step(0, Fault::Crash, 5_000, at);
            }
            fortune.into_struck()
        };
        let all = steps(None);
        assert!(all.len() > 3, "{all:?}");
        let kept: BTreeSet<Misfortune> = all.iter().skip(1).map(|it| it.misfortune.clone()).collect();
        assert_eq!(steps(Some(kept)), all[1..]);
        assert_eq!(steps(Some(BTreeSet::new())), []);
    }

    #[test]
    fn the_luck_of_a_message_depends_on_its_link_alone() {
        let mut quiet = Fortune::new(7, None);
        let mut busy = Fortune::new(7, None);
        for _ in 0..5 {
            busy.message(B, A);
        }
        assert_eq!(quiet.message(A, B).0.bits(), busy.message(A, B).0.bits());
        assert_ne!(quiet.message(A, B).0.bits(), busy.message(B, A).0.bits());
    }
}
