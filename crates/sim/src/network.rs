//! Links that lose, repeat, delay, overtake and go silent. Each direction of each pair of processes is a link of its own.

use crate::clock::{MICRO, MILLI};
use crate::faults::{Fault, Faults};
use crate::misfortune::{Fortune, message};
use crate::random::Random;
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

/// The state of all links.
#[derive(Debug)]
pub struct Network {
    latency: (u64, u64),
    delay: u64,
    loss: u64,
    duplication: u64,
    reorder: u64,
    cuts: BTreeMap<u64, BTreeSet<(Peer, Peer)>>,
    next_cut: u64,
    held: BTreeSet<(Peer, Peer)>,
    last: BTreeMap<(Peer, Peer), u64>,
}

impl Network {
    /// All links up.
    pub fn new(mut random: Random, faults: &Faults) -> Self {
        let per_million = |fault, usual: u64| u64::from(faults.rate(fault)).saturating_mul(usual) / 100;
        let low = random.between(50 * MICRO, 500 * MICRO);
        let spread = random.between(10 * MICRO, 3 * MILLI);
        Self {
            latency: (low, low.saturating_add(spread)),
            delay: per_million(Fault::Delay, 10_000),
            loss: per_million(Fault::Loss, 15_000),
            duplication: per_million(Fault::Duplication, 20_000),
            reorder: per_million(Fault::Reorder, 50_000),
            cuts: BTreeMap::new(),
            next_cut: 0,
            held: BTreeSet::new(),
            last: BTreeMap::new(),
        }
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
        let mut delay = luck.between(self.latency.0, self.latency.1);
        let (late, by) = (luck.chance(self.delay), luck.between(5 * MILLI, 400 * MILLI));
        if strikes(Fault::Delay, late) {
            delay = delay.saturating_add(by);
        }
        let (overtakes, by) = (luck.chance(self.reorder), luck.between(0, 20 * MILLI));
        let mut delays = match strikes(Fault::Reorder, overtakes) {
            true => vec![delay.saturating_add(by)],
            false => vec![self.in_order(from, to, now, delay)],
        };
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

    /// Ends one cut.
    pub fn heal(&mut self, cut: u64) {
        self.cuts.remove(&cut);
    }

    /// From now on the network does nobody any harm.
    pub fn heal_all(&mut self) {
        self.cuts.clear();
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
