//! Links that lose, repeat, delay, overtake and go silent. Each direction of each pair of processes is a link of its own.

use crate::clock::{MICRO, MILLI};
use crate::faults::{Fault, Faults};
use crate::misfortune::{Fortune, message};
use crate::random::Random;
use quorate_core::crypto::Digest;
use quorate_core::ids::Peer;
use std::collections::{BTreeMap, BTreeSet};

/// What becomes of one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It arrives after each of these delays, nanoseconds: once, or twice.
    Arrives(Vec<u64>),
    /// It is lost by chance.
    Lost,
    /// Its link is cut.
    Cut,
    /// Its link is held by a script.
    Held,
}

/// How the time that messages take is spread between the shortest and the longest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// Evenly.
    Even,
    /// Most are near the shortest; each doubling of the excess is half as likely, to 64 times the spread.
    LongTail,
    /// Every pair of processes is near or, as often as this per million, twenty times as far.
    NearAndFar(u64),
}

/// The state of all links.
#[derive(Debug)]
pub struct Network {
    latency: (u64, u64),
    shape: Shape,
    delay: u64,
    loss: u64,
    duplication: u64,
    reorder: u64,
    cuts: BTreeMap<u64, BTreeSet<(Peer, Peer)>>,
    slow: BTreeMap<u64, (BTreeSet<(Peer, Peer)>, u64)>,
    /// Messages that were held up or overtaken, for the report.
    pub struck: BTreeMap<Fault, u64>,
    next_cut: u64,
    held: BTreeSet<(Peer, Peer)>,
    last: BTreeMap<(Peer, Peer), u64>,
    /// How far apart two processes are, millionths of the whole range; drawn once for each pair.
    places: BTreeMap<(Peer, Peer), u64>,
}

impl Network {
    /// All links up.
    pub fn new(mut random: Random, faults: &Faults) -> Self {
        let per_million = |fault, usual: u64| u64::from(faults.rate(fault)).saturating_mul(usual) / 100;
        let low = random.between(50 * MICRO, 500 * MICRO);
        let spread = random.between(10 * MICRO, 3 * MILLI);
        let shape = match (faults.has(Fault::Jitter), random.below(2)) {
            (false, _) => Shape::Even,
            (true, 0) => Shape::LongTail,
            (true, _) => Shape::NearAndFar(random.between(100_000, 500_000)),
        };
        let jitter = (shape != Shape::Even).then_some((Fault::Jitter, 1));
        Self {
            latency: (low, low.saturating_add(spread)),
            shape,
            delay: per_million(Fault::Delay, 10_000),
            loss: per_million(Fault::Loss, 15_000),
            duplication: per_million(Fault::Duplication, 20_000),
            reorder: per_million(Fault::Reorder, 50_000),
            cuts: BTreeMap::new(),
            slow: BTreeMap::new(),
            struck: jitter.into_iter().collect(),
            next_cut: 0,
            held: BTreeSet::new(),
            last: BTreeMap::new(),
            places: BTreeMap::new(),
        }
    }

    /// The time that messages take is spread evenly after all.
    pub fn even(&mut self) {
        self.shape = Shape::Even;
        self.struck.clear();
    }

    /// Decides about a message that leaves now.
    pub fn fate(&mut self, from: Peer, to: Peer, now: u64, fortune: &mut Fortune) -> Fate {
        if self.held.contains(&(from, to)) {
            return Fate::Held;
        }
        if self.is_cut(from, to) {
            return Fate::Cut;
        }
        let (mut luck, number) = fortune.message(from, to);
        let mut strikes = |fault, drawn: bool| drawn && fortune.allows(message(from, to, number), fault, now);
        if strikes(Fault::Loss, luck.chance(self.loss)) {
            return Fate::Lost;
        }
        let mut delay = self.usual(from, to, &mut luck);
        for (links, extra) in self.slow.values() {
            let by = luck.between(extra / 2, *extra);
            if links.contains(&(from, to)) {
                delay = delay.saturating_add(by);
            }
        }
        let (late, by) = (luck.chance(self.delay), luck.between(5 * MILLI, 400 * MILLI));
        if strikes(Fault::Delay, late) {
            self.count(Fault::Delay);
            delay = delay.saturating_add(by);
        }
        let (overtakes, by) = (luck.chance(self.reorder), luck.between(0, 20 * MILLI));
        let overtakes = strikes(Fault::Reorder, overtakes);
        let mut delays = match overtakes {
            true => vec![delay.saturating_add(by)],
            false => vec![self.in_order(from, to, now, delay)],
        };
        if overtakes {
            self.count(Fault::Reorder);
        }
        let (twice, again) = (luck.chance(self.duplication), luck.between(0, 200 * MILLI));
        if strikes(Fault::Duplication, twice) {
            delays.push(again.max(MICRO));
        }
        Fate::Arrives(delays)
    }

    /// A link is first in, first out, as a connection is. How long a message takes that overtakes nothing.
    fn in_order(&mut self, from: Peer, to: Peer, now: u64, delay: u64) -> u64 {
        let last = self.last.entry((from, to)).or_default();
        *last = (*last).saturating_add(1).max(now.saturating_add(delay));
        last.saturating_sub(now)
    }

    /// How long a message takes on a good day.
    fn usual(&mut self, from: Peer, to: Peer, luck: &mut Random) -> u64 {
        let (low, high) = self.latency;
        let even = luck.between(low, high);
        match self.shape {
            Shape::Even => even,
            Shape::LongTail => {
                let doublings = luck.bits().trailing_ones().min(6);
                low.saturating_add(even.saturating_sub(low).saturating_mul(1 << doublings))
            }
            Shape::NearAndFar(far) => {
                let (one, other) = if from < to { (from, to) } else { (to, from) };
                let place = self.places.entry((one, other)).or_insert_with(|| {
                    let mixed = Digest::of(format!("{one:?} {other:?}").as_bytes());
                    u64::from(mixed.as_bytes().first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes))) % 1_000_000
                });
                if *place < far { even.saturating_mul(20) } else { even }
            }
        }
    }

    fn count(&mut self, fault: Fault) {
        let count = self.struck.entry(fault).or_default();
        *count = count.saturating_add(1);
    }

    /// Is this direction silent?
    pub fn is_cut(&self, from: Peer, to: Peer) -> bool {
        self.cuts.values().any(|cut| cut.contains(&(from, to)))
    }

    /// Silences these directions until the cut with the returned number is healed.
    pub fn cut(&mut self, links: BTreeSet<(Peer, Peer)>) -> u64 {
        let number = self.next_cut;
        self.next_cut = number.saturating_add(1);
        self.cuts.insert(number, links);
        number
    }

    /// Slows these directions down by up to `extra` nanoseconds until the cut with the returned number is healed.
    pub fn slow_down(&mut self, links: BTreeSet<(Peer, Peer)>, extra: u64) -> u64 {
        let number = self.next_cut;
        self.next_cut = number.saturating_add(1);
        self.slow.insert(number, (links, extra));
        number
    }

    /// Ends one cut, or one slowness.
    pub fn heal(&mut self, cut: u64) {
        self.cuts.remove(&cut);
        self.slow.remove(&cut);
    }

    /// From now on the network does nobody any harm.
    pub fn heal_all(&mut self) {
        self.cuts.clear();
        self.slow.clear();
        self.shape = Shape::Even;
        (self.delay, self.loss, self.duplication, self.reorder) = (0, 0, 0, 0);
    }

    /// Keeps what is sent on this link until the script lets it go.
    pub fn hold(&mut self, from: Peer, to: Peer) {
        self.held.insert((from, to));
    }

    /// Stops keeping what is sent on this link.
    pub fn release(&mut self, from: Peer, to: Peer) {
        self.held.remove(&(from, to));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_core::ids::ReplicaId;

    const A: Peer = Peer::Replica(ReplicaId::new(0));
    const B: Peer = Peer::Replica(ReplicaId::new(1));

    fn delays((network, fortune): &mut (Network, Fortune), now: u64) -> Vec<u64> {
        match network.fate(A, B, now, fortune) {
            Fate::Arrives(delays) => delays,
            _ => Vec::new(),
        }
    }

    #[test]
    fn a_link_without_faults_delivers_everything_once_and_in_order() {
        let mut network = (Network::new(Random::new(3), &Faults::none()), Fortune::new(3, None));
        let mut last = 0;
        for now in (0..1000).map(|step| step * 10 * MICRO) {
            let [delay] = delays(&mut network, now)[..] else { panic!("lost or repeated at {now}") };
            assert!(now + delay > last, "overtaken at {now}");
            last = now + delay;
        }
    }

    #[test]
    fn loss_duplication_and_reordering_happen_when_asked_for() {
        let faults: Faults = "loss:500,duplication:500,reorder:500".parse().expect("a list");
        let mut network = (Network::new(Random::new(3), &faults), Fortune::new(3, None));
        let all: Vec<_> =
            (0..1000).map(|step| (step * 100 * MICRO, delays(&mut network, step * 100 * MICRO))).collect();
        assert!(all.iter().any(|(_, delays)| delays.is_empty()));
        assert!(all.iter().any(|(_, delays)| delays.len() == 2));
        let arrivals: Vec<u64> =
            all.iter().filter_map(|(now, delays)| delays.first().map(|delay| now + delay)).collect();
        assert!(arrivals.windows(2).any(|pair| pair[0] > pair[1]));
    }

    #[test]
    fn a_slow_link_is_slow_until_it_is_healed() {
        let mut network = (Network::new(Random::new(3), &Faults::none()), Fortune::new(3, None));
        let slow = network.0.slow_down(BTreeSet::from([(A, B)]), 100 * MILLI);
        assert!(delays(&mut network, 0).iter().all(|delay| *delay >= 50 * MILLI));
        network.0.heal(slow);
        assert!(delays(&mut network, 300 * MILLI).iter().all(|delay| *delay < 50 * MILLI));
    }

    #[test]
    fn delays_have_a_long_tail_or_two_distances_when_asked_for() {
        let faults: Faults = "jitter".parse().expect("a list");
        let mut shapes = BTreeSet::new();
        for seed in 0..20 {
            let mut network = Network::new(Random::new(seed), &faults);
            let mut luck = Random::new(seed);
            shapes.insert(format!("{:?}", network.shape).split('(').next().map(str::to_owned));
            let all: Vec<u64> = (0..200).map(|_| network.usual(A, B, &mut luck)).collect();
            let (low, high) = network.latency;
            assert!(all.iter().all(|delay| *delay >= low && *delay <= high.saturating_mul(64)));
        }
        assert_eq!(shapes.len(), 2);
    }

    #[test]
    fn a_one_way_cut_leaves_the_other_direction_alone() {
        let mut network = Network::new(Random::new(3), &Faults::none());
        let mut fortune = Fortune::new(3, None);
        let cut = network.cut(BTreeSet::from([(A, B)]));
        assert_eq!(network.fate(A, B, 0, &mut fortune), Fate::Cut);
        assert!(matches!(network.fate(B, A, 0, &mut fortune), Fate::Arrives(_)));
        network.heal(cut);
        assert!(matches!(network.fate(A, B, 0, &mut fortune), Fate::Arrives(_)));
    }
}
