//! The broker of a run, if it has one: what clients publish passes through it, in the place of their links. It loses, repeats,
//! changes, delays and reorders what it likes, forgets some replicas for a while, and dies, perhaps for good. What a message is
//! that a broker may carry, the protocol says (`Protocol::goes_by_broker`).

use crate::clock::{MICRO, MILLI, SECOND};
use crate::cluster::Cluster;
use crate::faults::{Fault, Faults};
use crate::misfortune::{Fortune, message};
use crate::random::Random;
use crate::trace::What;
use bytes::Bytes;
use quorate_core::ids::{ClientId, Peer};
use quorate_core::machine::Machine;
use quorate_core::protocol::Protocol;
use std::collections::BTreeMap;

/// A broker that is away, or that forgets some replicas, does so for this long, nanoseconds.
const OUTAGE: u64 = 400 * MILLI;
/// Of all runs with more than a few faults, so many per million have a broker.
const BROKERED: u64 = 750_000;
/// It stays away for good so often, per million, if it may be away at all.
const AWAY_FOR_GOOD: u64 = 500_000;

/// One copy that arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Copy {
    /// After so many nanoseconds.
    delay: u64,
    /// With this bit changed, counted modulo the length.
    bent: Option<u64>,
}

/// What the broker does wrong, and has done.
#[derive(Debug)]
pub(crate) struct Broker {
    seed: u64,
    /// `None`: clients have nothing but their links.
    faults: Option<Faults>,
    away_for_good: bool,
    /// The last outage of either kind that was drawn: its number, and what it is like.
    outages: BTreeMap<Fault, (u64, Option<Random>)>,
    last: BTreeMap<(Peer, Peer), u64>,
}

impl Broker {
    /// The broker that belongs to a seed, if these faults let it have one.
    pub(crate) fn new(seed: u64, faults: &Faults) -> Self {
        let mut luck = Random::keyed(seed, &[6]);
        let few = faults.count() <= 3;
        let drawn = Some(faults.drawn(&mut luck)).filter(|drawn| drawn.count() > 0);
        let faults = drawn.filter(|_| few || luck.chance(BROKERED));
        Self { seed, faults, away_for_good: false, outages: BTreeMap::new(), last: BTreeMap::new() }
    }

    /// Do clients publish through it?
    pub(crate) const fn exists(&self) -> bool {
        self.faults.is_some()
    }

    /// Nothing goes wrong any more, but that it may be away for good.
    pub(crate) fn heal(&mut self, now: u64, fortune: &mut Fortune) -> bool {
        let Some(faults) = &mut self.faults else { return false };
        let may_leave = faults.has(Fault::BrokerLoss);
        *faults = Faults::none();
        let leaves = may_leave && Random::keyed(self.seed, &[8]).chance(AWAY_FOR_GOOD);
        self.away_for_good = leaves && fortune.look(Fault::BrokerLoss, now).is_some();
        self.away_for_good
    }

    fn per_million(&self, fault: Fault, usual: u64) -> u64 {
        let rate = self.faults.as_ref().map_or(0, |faults| faults.rate(fault));
        usual.saturating_mul(u64::from(rate)) / 100
    }

    /// Is there such an outage now? The stream that says what it is like.
    fn outage(&mut self, fault: Fault, usual: u64, now: u64, fortune: &mut Fortune) -> Option<Random> {
        let (number, chance) = (now / OUTAGE, self.per_million(fault, usual));
        if let Some((_, outage)) = self.outages.get(&fault).filter(|(known, _)| *known == number) {
            return outage.clone();
        }
        let drawn = Random::keyed(self.seed, &[7, fault as u64, number]).chance(chance);
        let outage = drawn.then(|| fortune.look(fault, number.saturating_mul(OUTAGE))).flatten();
        self.outages.insert(fault, (number, outage.clone()));
        outage
    }

    /// Decides what becomes of a message, and which faults that is.
    fn carry(&mut self, from: Peer, to: Peer, now: u64, fortune: &mut Fortune) -> (Vec<Copy>, Vec<Fault>) {
        if self.away_for_good || self.outage(Fault::BrokerLoss, 60_000, now, fortune).is_some() {
            return (Vec::new(), vec![Fault::BrokerLoss]);
        }
        let forgotten = self.outage(Fault::BrokerPartition, 150_000, now, fortune).map(|mut luck| luck.bits());
        let bit = if let Peer::Replica(id) = to { 1_u64.checked_shl(u32::from(id.get())).unwrap_or(0) } else { 0 };
        if forgotten.is_some_and(|mask| mask & bit != 0) {
            return (Vec::new(), vec![Fault::BrokerPartition]);
        }
        let (mut luck, number) = fortune.message(from, to);
        let mut struck = Vec::new();
        let mut strikes = |fault, drawn: bool| {
            let strikes = drawn && fortune.allows(message(from, to, number), fault, now);
            struck.extend(strikes.then_some(fault));
            strikes
        };
        if strikes(Fault::BrokerDrop, luck.chance(self.per_million(Fault::BrokerDrop, 50_000))) {
            return (Vec::new(), struck);
        }
        let mut delay = luck.between(200 * MICRO, 3 * MILLI);
        let (late, by) =
            (luck.chance(self.per_million(Fault::BrokerDelay, 20_000)), luck.between(50 * MILLI, 3 * SECOND));
        if strikes(Fault::BrokerDelay, late) {
            delay = delay.saturating_add(by);
        }
        let (overtaken, by) = (luck.chance(self.per_million(Fault::BrokerReorder, 50_000)), luck.below(100 * MILLI));
        if strikes(Fault::BrokerReorder, overtaken) {
            delay = delay.saturating_add(by);
        } else {
            let last = self.last.entry((from, to)).or_default();
            *last = last.saturating_add(1).max(now.saturating_add(delay));
            delay = last.saturating_sub(now);
        }
        let (changed, bit) = (luck.chance(self.per_million(Fault::BrokerTamper, 30_000)), luck.bits());
        let bent = strikes(Fault::BrokerTamper, changed).then_some(bit);
        let mut copies = vec![Copy { delay, bent }];
        let (again, by) = (luck.chance(self.per_million(Fault::BrokerDuplicate, 60_000)), luck.below(3 * SECOND));
        if strikes(Fault::BrokerDuplicate, again) {
            copies.push(Copy { delay: by.max(MICRO), bent: None });
        }
        (copies, struck)
    }
}

impl<P: Protocol, M: Machine> Cluster<P, M> {
    /// A client leaves a message to the broker.
    pub(crate) fn publish(&mut self, from: Peer, to: Peer, bytes: &Bytes, label: &'static str) {
        let now = self.now();
        let travel = self.trace.sent(now, (from, to), label, || "\nthrough the broker".to_owned());
        let (copies, struck) = self.broker.carry(from, to, now, &mut self.fortune);
        struck.iter().for_each(|fault| self.counts.fault(*fault));
        if copies.is_empty() {
            return self.trace.add(now, || What::Lost(travel));
        }
        for Copy { delay, bent } in copies {
            self.counts.messages = self.counts.messages.saturating_add(1);
            let bytes = bent.map_or_else(|| bytes.clone(), |bit| bend(bytes, bit));
            self.arrive(Peer::Client(ClientId::BROKER), delay, bytes, travel);
        }
    }

    /// The broker becomes as good as it ever gets.
    pub(crate) fn heal_broker(&mut self) {
        let now = self.now();
        if self.broker.heal(now, &mut self.fortune) {
            let text = || "the broker is away for good".to_owned();
            self.trace.add(now, || What::Fault { fault: Fault::BrokerLoss, replica: None, text: text() });
        }
    }
}

/// The same bytes with one bit changed.
fn bend(bytes: &Bytes, bit: u64) -> Bytes {
    let mut bent = bytes.to_vec();
    let bits = (bent.len() as u64).saturating_mul(8).max(1);
    let (place, mask) = ((bit % bits) / 8, 1_u8 << (bit % 8));
    if let Some(byte) = usize::try_from(place).ok().and_then(|place| bent.get_mut(place)) {
        *byte ^= mask;
    }
    bent.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_core::ids::ReplicaId;

    const CLIENT: Peer = Peer::Client(ClientId::new(5));

    fn replica(id: u8) -> Peer {
        Peer::Replica(ReplicaId::new(id))
    }

    fn carried(faults: &str) -> Vec<(u64, Vec<Copy>)> {
        let faults: Faults = faults.parse().expect("a list");
        let (mut broker, mut fortune) = (Broker::new(3, &faults), Fortune::new(3, None));
        let at = |step: u64| step * 10 * MILLI;
        (0..2000).map(|step| (at(step), broker.carry(CLIENT, replica(1), at(step), &mut fortune).0)).collect()
    }

    #[test]
    fn each_fault_happens_when_it_is_asked_for() {
        let lost = |faults: &str| carried(faults).iter().filter(|(_, copies)| copies.is_empty()).count();
        assert!(lost("broker-drop") > 20 && lost("broker-loss") > 20 && lost("broker-partition") > 20);
        assert_eq!(lost("broker-duplicate,broker-delay,broker-tamper"), 0);
        assert!(carried("broker-duplicate").iter().any(|(_, copies)| copies.len() == 2));
        assert!(carried("broker-tamper").iter().any(|(_, copies)| copies[0].bent.is_some()));
        assert!(carried("broker-delay").iter().any(|(_, copies)| copies[0].delay > 50 * MILLI));
        let arrivals: Vec<u64> = carried("broker-reorder").iter().map(|(at, copies)| at + copies[0].delay).collect();
        assert!(arrivals.windows(2).any(|pair| pair[0] > pair[1]));
    }

    #[test]
    fn a_partition_forgets_some_replicas_and_not_all_of_them_for_ever() {
        let faults: Faults = "broker-partition:600".parse().expect("a list");
        let (mut broker, mut fortune) = (Broker::new(3, &faults), Fortune::new(3, None));
        let mut reached = |step: u64, id| !broker.carry(CLIENT, replica(id), step * OUTAGE, &mut fortune).0.is_empty();
        let rounds: Vec<Vec<bool>> = (0..50).map(|step| (0..4).map(|id| reached(step, id)).collect()).collect();
        assert!(rounds.iter().any(|round| round.contains(&true) && round.contains(&false)));
        assert!((0..4).all(|id| rounds.iter().any(|round| round[id])));
    }

    #[test]
    fn a_run_without_its_faults_has_no_broker() {
        assert!(!Broker::new(3, &Faults::none()).exists());
    }

    #[test]
    fn one_bit_is_changed_and_no_byte_is_lost() {
        let bytes = Bytes::from_static(b"some bytes");
        for bit in 0..200 {
            let bent = bend(&bytes, bit);
            let differ: u32 = bytes.iter().zip(&bent).map(|(one, other)| (one ^ other).count_ones()).sum();
            assert_eq!((bent.len(), differ), (bytes.len(), 1));
        }
    }
}
