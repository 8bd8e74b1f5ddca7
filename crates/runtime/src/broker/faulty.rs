//! Any broker, at its worst: for tests, and to show that nothing comes of it. A seed decides about each publication in turn.

use super::{Broker, Intake, Left};
use crate::link::held;
use bytes::Bytes;
use quorate_core::ids::ReplicaId;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// A broker that is away, or that forgets some replicas, does so for this long.
const OUTAGE: Duration = Duration::from_millis(400);
/// Publications that are held back, at most; further ones are lost.
const HELD_MAX: usize = 8192;

macro_rules! faults {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $usual:literal);* $(;)?) => {
        /// What a broker can do wrong.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum BrokerFault { $($(#[$doc])* $variant),* }

        impl BrokerFault {
            /// Every kind.
            pub const ALL: &'static [BrokerFault] = &[$(BrokerFault::$variant),*];

            /// The name in files and on the command line.
            pub const fn name(self) -> &'static str {
                match self { $(BrokerFault::$variant => $name),* }
            }

            /// How often, per thousand: of publications, or of the spans of [`OUTAGE`].
            const fn usual(self) -> u32 {
                match self { $(BrokerFault::$variant => $usual),* }
            }
        }
    };
}

faults! {
    /// Loses a publication.
    Drop = "drop", 50;
    /// Delivers one again, up to three seconds later.
    Duplicate = "duplicate", 60;
    /// Lets others overtake one.
    Reorder = "reorder", 50;
    /// Changes a bit of one.
    Tamper = "tamper", 30;
    /// Keeps one for up to three seconds.
    Delay = "delay", 20;
    /// Forgets some replicas for a while.
    Partition = "partition", 150;
    /// Loses everything for a while.
    Loss = "loss", 60;
}

/// Which faults, and how often: per cent of each one's usual rate. As text: names separated by commas, `NAME:300` triples one,
/// `all` is all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BrokerFaults {
    rates: BTreeMap<BrokerFault, u32>,
}

impl BrokerFaults {
    /// Every fault at its usual rate.
    pub fn all() -> Self {
        Self { rates: BrokerFault::ALL.iter().map(|fault| (*fault, 100)).collect() }
    }

    fn per_mille(&self, fault: BrokerFault) -> u64 {
        let rate = self.rates.get(&fault).copied().unwrap_or(0);
        u64::from(fault.usual()) * u64::from(rate) / 100
    }
}

impl fmt::Display for BrokerFaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<String> = self.rates.iter().map(|(fault, rate)| format!("{}:{rate}", fault.name())).collect();
        f.write_str(&words.join(","))
    }
}

/// A list of faults that is not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{word:?} is no fault of a broker; choose from all, {list}; `name:300` triples one", list = BrokerFault::ALL.iter().map(|fault| fault.name()).collect::<Vec<_>>().join(", "))]
pub struct UnknownBrokerFault {
    /// What was written.
    pub word: String,
}

impl FromStr for BrokerFaults {
    type Err = UnknownBrokerFault;

    fn from_str(text: &str) -> Result<Self, UnknownBrokerFault> {
        let mut faults = Self::default();
        for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            let unknown = || UnknownBrokerFault { word: word.to_owned() };
            let (name, rate) = word.split_once(':').unwrap_or((word, "100"));
            let rate = rate.parse().map_err(|_| unknown())?;
            if name == "all" {
                faults.rates.extend(BrokerFault::ALL.iter().map(|fault| (*fault, rate)));
            } else {
                let fault = BrokerFault::ALL.iter().find(|fault| fault.name() == name).ok_or_else(unknown)?;
                faults.rates.insert(*fault, rate);
            }
        }
        Ok(faults)
    }
}

/// A broker that does to publications what it likes, and then leaves them to another one.
#[derive(Debug)]
pub struct Faulty {
    inner: Arc<dyn Broker>,
    faults: BrokerFaults,
    began: Instant,
    luck: Mutex<Luck>,
    held: Arc<AtomicUsize>,
}

/// The stream of numbers that belongs to a seed: splitmix64 (Steele, Lea and Flood).
#[derive(Debug)]
struct Luck {
    seed: u64,
    state: u64,
}

impl Luck {
    const fn mixed(z: u64) -> u64 {
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        Self::mixed(self.state)
    }

    fn strikes(&mut self, per_mille: u64) -> bool {
        self.bits() % 1000 < per_mille
    }

    fn millis(&mut self, most: u64) -> Duration {
        Duration::from_millis(self.bits() % most.max(1))
    }

    /// What a span of time is like, whoever asks when.
    const fn of_span(&self, fault: BrokerFault, span: u64) -> u64 {
        Self::mixed(self.seed ^ Self::mixed(span.wrapping_mul(16).wrapping_add(fault as u64)))
    }
}

impl Faulty {
    /// `inner`, with these faults, as this seed says.
    pub fn new(inner: Arc<dyn Broker>, faults: BrokerFaults, seed: u64) -> Self {
        let luck = Mutex::new(Luck { seed, state: seed });
        Self { inner, faults, began: Instant::now(), luck, held: Arc::default() }
    }

    /// Is this replica cut off, by either kind of outage?
    fn is_out(&self, luck: &Luck, to: ReplicaId) -> bool {
        let span = u64::try_from(self.began.elapsed().as_millis() / OUTAGE.as_millis()).unwrap_or(u64::MAX);
        let struck = |fault: BrokerFault| {
            let drawn = luck.of_span(fault, span);
            (drawn % 1000 < self.faults.per_mille(fault)).then_some(drawn >> 10)
        };
        let bit = 1_u64.checked_shl(u32::from(to.get())).unwrap_or(0);
        struck(BrokerFault::Loss).is_some() || struck(BrokerFault::Partition).is_some_and(|mask| mask & bit != 0)
    }

    fn later(&self, after: Duration, to: ReplicaId, body: Bytes) {
        if self.held.fetch_add(1, Ordering::Relaxed) >= HELD_MAX {
            self.held.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        let (inner, held) = (self.inner.clone(), self.held.clone());
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            held.fetch_sub(1, Ordering::Relaxed);
            inner.publish(to, body);
        });
    }
}

impl Broker for Faulty {
    /// Says that it has taken everything: brokers that lose things do.
    fn publish(&self, to: ReplicaId, body: Bytes) -> Left {
        let mut luck = held(&self.luck);
        let mut strikes = |fault| luck.strikes(self.faults.per_mille(fault));
        let [dropped, twice, overtaken, changed, late] =
            [BrokerFault::Drop, BrokerFault::Duplicate, BrokerFault::Reorder, BrokerFault::Tamper, BrokerFault::Delay]
                .map(&mut strikes);
        let (place, again, by) = (luck.bits(), luck.millis(3000), luck.millis(if late { 3000 } else { 100 }));
        let out = self.is_out(&luck, to);
        drop(luck);
        if dropped || out {
            return Left::Taken;
        }
        if twice {
            self.later(again, to, body.clone());
        }
        let body = if changed { bend(&body, place) } else { body };
        if late || overtaken {
            self.later(by, to, body);
        } else {
            self.inner.publish(to, body);
        }
        Left::Taken
    }

    fn subscribe(self: Arc<Self>, replica: ReplicaId, intake: Intake) -> JoinSet<()> {
        self.inner.clone().subscribe(replica, intake)
    }
}

/// The same bytes with one bit changed.
fn bend(body: &Bytes, place: u64) -> Bytes {
    let mut bent = body.to_vec();
    let index = usize::try_from(place >> 3).unwrap_or(0) % bent.len().max(1);
    if let Some(byte) = bent.get_mut(index) {
        *byte ^= 1 << (place & 7);
    }
    bent.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Remembers what it is given.
    #[derive(Debug, Default)]
    struct Seen(Mutex<Vec<Bytes>>);

    impl Broker for Seen {
        fn publish(&self, _: ReplicaId, body: Bytes) -> Left {
            held(&self.0).push(body);
            Left::Taken
        }

        fn subscribe(self: Arc<Self>, _: ReplicaId, _: Intake) -> JoinSet<()> {
            JoinSet::new()
        }
    }

    /// What comes out of 400 publications, once all that was held back has come.
    fn carried(faults: &str, seed: u64) -> Vec<Bytes> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let seen = Arc::new(Seen::default());
            let faulty = Faulty::new(seen.clone(), faults.parse().expect("a list"), seed);
            for number in 0..400_u32 {
                let said = faulty.publish(ReplicaId::new(0), Bytes::from(number.to_be_bytes().to_vec()));
                assert_eq!(said, Left::Taken);
            }
            while faulty.held.load(Ordering::Relaxed) > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            std::mem::take(&mut *held(&seen.0))
        })
    }

    #[test]
    fn each_fault_does_what_its_name_says() {
        let all: Vec<Bytes> = (0..400_u32).map(|number| Bytes::from(number.to_be_bytes().to_vec())).collect();
        assert_eq!(carried("", 1), all);
        assert!(carried("drop:300", 1).len() < 390);
        assert!(carried("duplicate:300", 1).len() > 410);
        let bent = carried("tamper:300", 1);
        let differ = |(one, other): (&Bytes, &Bytes)| -> u32 {
            one.iter().zip(other).map(|(one, other)| (one ^ other).count_ones()).sum()
        };
        let differ: Vec<u32> = bent.iter().zip(&all).map(differ).collect();
        assert!(differ.len() == 400 && differ.contains(&1) && differ.iter().all(|bits| *bits <= 1));
        let overtaken = carried("reorder:300", 1);
        assert!(overtaken != all && overtaken.len() == 400);
        assert!(carried("loss:10000", 1).is_empty());
        let cut = |seed| carried("partition:10000", seed).is_empty();
        assert!((1..20).any(cut) && !(1..20).all(cut), "some seeds forget the replica, and some another one");
    }

    #[test]
    fn a_seed_decides() {
        assert_eq!(carried("drop:300,tamper", 7), carried("drop:300,tamper", 7));
        assert_ne!(carried("drop:300,tamper", 7), carried("drop:300,tamper", 8));
    }

    #[test]
    fn a_list_reads_back_and_what_is_not_understood_is_named() {
        for text in ["all", "drop,tamper:300", ""] {
            let faults: BrokerFaults = text.parse().expect(text);
            assert_eq!(faults.to_string().parse(), Ok(faults));
        }
        assert_eq!("all".parse(), Ok(BrokerFaults::all()));
        assert!("dorp".parse::<BrokerFaults>().expect_err("no such fault").to_string().contains("drop"));
    }
}
