//! What may go wrong, by name, and how often.

use crate::random::Random;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use thiserror::Error;

macro_rules! faults {
    ($($(#[$doc:meta])* $variant:ident = $name:literal),* $(,)?) => {
        /// One kind of misfortune.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Fault { $($(#[$doc])* $variant),* }

        impl Fault {
            /// Every kind, in the order in which they are listed for people.
            pub const ALL: &'static [Fault] = &[$(Fault::$variant),*];

            /// The name on the command line.
            pub const fn name(self) -> &'static str {
                match self { $(Fault::$variant => $name),* }
            }
        }
    };
}

faults! {
    /// A message takes far longer than usual.
    Delay = "delay",
    /// A message never arrives.
    Loss = "loss",
    /// A message arrives twice.
    Duplication = "duplication",
    /// A message overtakes earlier ones on its link.
    Reorder = "reorder",
    /// How long messages take is not spread evenly: most are fast and some much slower, or there are near and far links.
    Jitter = "jitter",
    /// Some links are slow for a while, in both directions.
    SlowLink = "slow-link",
    /// Two groups of processes cannot reach each other for a while.
    Partition = "partition",
    /// One process is not heard, or does not hear, for a while.
    OneWay = "one-way",
    /// Two replicas cannot reach each other for a while, and everybody else reaches both.
    Partial = "partial",
    /// A replica dies: its memory is gone, writes that were not synced are lost or torn. Also between two effects of a turn.
    Crash = "crash",
    /// All replicas die within a moment.
    CrashAll = "crash-all",
    /// A replica dies on one side of a write: when a record is taken, before its sync, or before anybody hears of the sync.
    PersistCrash = "persist-crash",
    /// Misfortune looks for the replica that leads, and for the one whose memory is furthest ahead of its disk.
    Hunt = "hunt",
    /// A replica stands still for a while, and then does not know that it did.
    Pause = "pause",
    /// A replica's disk takes long to sync for a while.
    SlowSync = "slow-sync",
    /// A sync fails: the process stops, as it must, and is started again.
    SyncError = "sync-error",
    /// One bit of one replica's log changes while the replica is down.
    BitRot = "bit-rot",
    /// One bit of one of the same replica's snapshots changes while the replica is down.
    SnapshotRot = "snapshot-rot",
    /// A write of the same replica, safe long ago, turns out to have landed elsewhere in its log: it is missing in its
    /// place, and what was in the other place is gone.
    Misdirected = "misdirected",
    /// There is no room on a replica's disk for a while: the process stops, as it must, and is started again.
    FullDisk = "full-disk",
    /// One replica's disk is replaced by an empty one, and its owner brings it back as `quorate recover` does.
    LostDisk = "lost-disk",
    /// Clocks run at different speeds and calendars disagree.
    ClockSkew = "clock-skew",
    /// A replica's calendar jumps, forwards or backwards.
    ClockJump = "clock-jump",
    /// A client dies in the middle of its calls.
    ClientCrash = "client-crash",
    /// A client stands still for a while; what was sent to it waits.
    ClientPause = "client-pause",
    /// Clients are so impatient that most requests are sent more than once.
    ClientRetry = "client-retry",
    /// Clocks differ in speed by more than anybody allows for.
    ClockRush = "clock-rush",
    /// A disk reports writes as done that it never does.
    LyingDisk = "lying-disk",
    /// A lying replica tells the protocol's own lies.
    OwnLies = "own-lies",
    /// A lying replica tells different peers different things.
    Equivocate = "equivocate",
    /// Lying replicas work together: they tell the same other version of everything to the same victims.
    Collude = "collude",
    /// A lying replica tells clients what did not happen.
    FalseReply = "false-reply",
    /// A lying replica serves wrong bytes of a state.
    BadChunks = "bad-chunks",
    /// A lying replica offers a state and does not serve it.
    StaleState = "stale-state",
    /// A lying replica says nothing for a while.
    Silent = "silent",
    /// A lying replica keeps some messages from some.
    Withhold = "withhold",
    /// A lying replica speaks late.
    Drip = "drip",
    /// A lying replica says again what it once said.
    Replay = "replay",
    /// A lying replica says what nobody understands.
    Corrupt = "corrupt",
    /// A lying replica says everything many times.
    Flood = "flood",
    /// Two live copies of one replica, with one name.
    Twins = "twins",
    /// The broker loses a publication.
    BrokerDrop = "broker-drop",
    /// The broker delivers a publication again, perhaps much later.
    BrokerDuplicate = "broker-duplicate",
    /// The broker lets a publication overtake others.
    BrokerReorder = "broker-reorder",
    /// The broker changes a bit of a publication.
    BrokerTamper = "broker-tamper",
    /// The broker keeps a publication for long.
    BrokerDelay = "broker-delay",
    /// The broker forgets some replicas for a while.
    BrokerPartition = "broker-partition",
    /// The broker loses everything for a while, perhaps for good.
    BrokerLoss = "broker-loss",
}

impl Fault {
    /// Does it take a replica that lies?
    pub const fn is_lie(self) -> bool {
        use Fault::{
            BadChunks, Collude, Corrupt, Drip, Equivocate, FalseReply, Flood, OwnLies, Replay, Silent, StaleState,
        };
        use Fault::{Twins, Withhold};
        matches!(
            self,
            OwnLies
                | Equivocate
                | Collude
                | FalseReply
                | BadChunks
                | StaleState
                | Silent
                | Withhold
                | Drip
                | Replay
                | Corrupt
                | Flood
                | Twins
        )
    }
}

impl Fault {
    /// Is it a fault of a broker between clients and replicas?
    pub const fn is_brokers(self) -> bool {
        use Fault::{
            BrokerDelay, BrokerDrop, BrokerDuplicate, BrokerLoss, BrokerPartition, BrokerReorder, BrokerTamper,
        };
        matches!(
            self,
            BrokerDrop | BrokerDuplicate | BrokerReorder | BrokerTamper | BrokerDelay | BrokerPartition | BrokerLoss
        )
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What other faults do besides, unless it is taken away from them. No seed draws whether it happens: it comes with its fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Aspect {
    /// With whatever ends a replica: the power goes, and writes that were not synced are gone. Without it the computer goes on,
    /// and every write stays. Usually three ends of four.
    LostWrites,
    /// With [`Aspect::LostWrites`]: each sector of what was not synced is lost or stays by itself. Without it all is lost.
    TornWrites,
    /// With [`Fault::ClockSkew`]: clocks run at different speeds, usually up to 200 millionths off. Without it only calendars
    /// disagree.
    ClockDrift,
}

impl Aspect {
    /// Every kind, in the order in which they are listed for people.
    pub const ALL: &'static [Aspect] = &[Aspect::LostWrites, Aspect::TornWrites, Aspect::ClockDrift];

    /// The name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Aspect::LostWrites => "lost-writes",
            Aspect::TornWrites => "torn-writes",
            Aspect::ClockDrift => "clock-drift",
        }
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|aspect| aspect.name() == name).copied()
    }
}

/// Which faults are injected, and how often: per cent of each fault's usual rate.
///
/// As text: names separated by commas, added from left to right; `all`, `none`, `-name` takes one away, `name:300` makes
/// it three times as frequent. A list that begins with `-name` begins with all. A [`Aspect`] needs no mention: `-torn-writes`
/// takes it away, `clock-drift:50` halves it, and 100 is the most: faster clocks than usual are [`Fault::ClockRush`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    rates: BTreeMap<Fault, u32>,
    /// Those that are not as usual.
    aspects: BTreeMap<Aspect, u32>,
}

impl Faults {
    /// Every fault at its usual rate.
    pub fn all() -> Self {
        Self { rates: Fault::ALL.iter().map(|&fault| (fault, 100)).collect(), aspects: BTreeMap::new() }
    }

    /// A perfect world.
    pub fn none() -> Self {
        Self::default()
    }

    /// Is this fault injected at all?
    pub fn has(&self, fault: Fault) -> bool {
        self.rate(fault) > 0
    }

    /// Per cent of the usual rate.
    pub fn rate(&self, fault: Fault) -> u32 {
        self.rates.get(&fault).copied().unwrap_or(0)
    }

    /// Per cent of what this aspect of other faults usually does.
    pub fn aspect(&self, aspect: Aspect) -> u32 {
        self.aspects.get(&aspect).copied().unwrap_or(100)
    }

    fn set_aspect(&mut self, aspect: Aspect, rate: u32) {
        match rate {
            100 => drop(self.aspects.remove(&aspect)),
            rate => drop(self.aspects.insert(aspect, rate)),
        }
    }

    /// How the aspects that are not as usual are written: nothing, or each after a comma.
    pub(crate) fn aspects_as_text(&self) -> String {
        let word = |(aspect, rate): (&Aspect, &u32)| match rate {
            0 => format!(",-{}", aspect.name()),
            rate => format!(",{}:{rate}", aspect.name()),
        };
        self.aspects.iter().map(word).collect()
    }

    /// None of them any more; what is an aspect of others stays as it was asked for.
    #[must_use]
    pub(crate) fn ended(&self) -> Self {
        Self { rates: BTreeMap::new(), aspects: self.aspects.clone() }
    }

    /// Without one of them.
    #[must_use]
    pub fn without(mut self, fault: Fault) -> Self {
        self.rates.remove(&fault);
        self
    }

    /// How many kinds.
    pub fn count(&self) -> usize {
        self.rates.len()
    }

    /// Those of brokers, and all others.
    #[must_use]
    pub fn split(&self) -> (Self, Self) {
        let (brokers, others) = self.rates.iter().partition(|(fault, _)| fault.is_brokers());
        (Self { rates: brokers, aspects: BTreeMap::new() }, Self { rates: others, aspects: self.aspects.clone() })
    }

    /// These and others.
    #[must_use]
    pub fn and(mut self, others: &Self) -> Self {
        self.rates.extend(&others.rates);
        self.aspects.extend(&others.aspects);
        self
    }

    /// What one seed makes of the list: some faults rest, others come thick and fast, so that seeds differ in kind and
    /// not only in detail (swarm testing). A list of three or fewer is taken at its word.
    #[must_use]
    pub fn drawn(&self, random: &mut Random) -> Self {
        let swarm = self.rates.len() > 3;
        let mut rates = BTreeMap::new();
        for (&fault, &rate) in &self.rates {
            let factor = match random.below(6) {
                0 | 1 if swarm => 0,
                2 | 3 => 1,
                4 => 2,
                _ => 4,
            };
            if factor > 0 {
                rates.insert(fault, rate.saturating_mul(factor));
            }
        }
        Self { rates, aspects: self.aspects.clone() }
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let aspects = self.aspects_as_text();
        if self.rates.is_empty() {
            return write!(f, "none{aspects}");
        }
        let missing: Vec<_> = Fault::ALL.iter().filter(|fault| !self.has(**fault)).collect();
        let usual = self.rates.values().all(|rate| *rate == 100);
        if usual && missing.is_empty() {
            return write!(f, "all{aspects}");
        }
        let words: Vec<String> = if usual && missing.len() < self.rates.len() {
            missing.iter().map(|fault| format!("-{fault}")).collect()
        } else {
            let word = |(fault, rate): (&Fault, &u32)| match rate {
                100 => fault.to_string(),
                rate => format!("{fault}:{rate}"),
            };
            self.rates.iter().map(word).collect()
        };
        write!(f, "{}{aspects}", words.join(","))
    }
}

/// A list of faults that is not understood.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{word:?} is not a fault; choose from all, none, {list}; `-name` leaves one out, `name:300` triples it; of {aspects} there is at most 100, as usual", aspects = aspects(), list = names())]
pub struct UnknownFault {
    /// What was written.
    pub word: String,
}

fn names() -> String {
    Fault::ALL.iter().map(|fault| fault.name()).collect::<Vec<_>>().join(", ")
}

fn aspects() -> String {
    Aspect::ALL.iter().map(|aspect| aspect.name()).collect::<Vec<_>>().join(", ")
}

impl FromStr for Faults {
    type Err = UnknownFault;

    fn from_str(text: &str) -> Result<Self, UnknownFault> {
        let mut faults = if text.trim_start().starts_with('-') { Self::all() } else { Self::none() };
        for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            let unknown = || UnknownFault { word: word.to_owned() };
            let named = |name: &str| Fault::ALL.iter().find(|fault| fault.name() == name).copied().ok_or_else(unknown);
            let (left_out, rated) = (word.strip_prefix('-'), word.split_once(':'));
            let name = left_out.or(rated.map(|(name, _)| name)).unwrap_or(word);
            if let Some(aspect) = Aspect::named(name) {
                let rate: u32 = rated.map_or(Ok(100), |(_, rate)| rate.parse().map_err(|_| unknown()))?;
                let rate = if left_out.is_some() { 0 } else { rate };
                faults.set_aspect(aspect, Some(rate).filter(|rate| *rate <= 100).ok_or_else(unknown)?);
                continue;
            }
            match (word, left_out, rated) {
                ("all", ..) => faults.rates = Self::all().rates,
                ("none", ..) => faults.rates.clear(),
                (_, Some(name), _) => {
                    faults.rates.remove(&named(name)?);
                }
                (_, _, Some((name, rate))) => {
                    faults.rates.insert(named(name)?, rate.parse().map_err(|_| unknown())?);
                }
                _ => {
                    faults.rates.insert(named(word)?, 100);
                }
            }
        }
        faults.rates.retain(|_, rate| *rate > 0);
        Ok(faults)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_list_reads_back_as_it_was_written() {
        for text in ["all", "none", "-partition", "loss,crash", "loss:300", "-crash,-crash-all,-pause", "crash,loss:50"]
        {
            let faults: Faults = text.parse().expect(text);
            assert_eq!(faults.to_string().parse(), Ok(faults), "{text}");
        }
        for text in
            ["all,-torn-writes", "crash,-lost-writes", "none,clock-drift:50", "-partition,-clock-drift", "-torn-writes"]
        {
            let faults: Faults = text.parse().expect(text);
            assert_eq!(faults.to_string().parse(), Ok(faults), "{text}");
        }
        let only_calendars: Faults = "clock-skew,-clock-drift".parse().expect("a list");
        assert!("clock-drift:101".parse::<Faults>().is_err(), "faster clocks have a name of their own");
        assert_eq!((only_calendars.aspect(Aspect::ClockDrift), only_calendars.aspect(Aspect::TornWrites)), (0, 100));
        assert!(!"all,-partition".parse::<Faults>().expect("a list").has(Fault::Partition));
        assert_eq!("loss,crash".parse::<Faults>().expect("a list").rates.len(), 2);
    }

    #[test]
    fn what_is_beyond_a_model_can_be_asked_for_by_name() {
        let faults: Faults = "clock-rush,lying-disk:50".parse().expect("a list");
        assert_eq!((faults.rate(Fault::ClockRush), faults.rate(Fault::LyingDisk)), (100, 50));
    }

    #[test]
    fn an_unknown_name_is_refused_with_the_names_there_are() {
        let error = "los".parse::<Faults>().expect_err("no such fault");
        assert!(error.to_string().contains("loss"), "{error}");
    }
}
