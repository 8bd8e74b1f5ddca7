//! Replicas that lie. A liar runs the honest code; what it sends goes through its lies, one file for each. Nobody expects
//! anything of a liar: checkers look away from it, and judge what it does to the others.
//!
//! What applies to more than one protocol is here; what a protocol's own messages can be turned into, the protocol's
//! [`Lies`] say. [`Twins`] are another kind of liar: two live copies of one replica with one name and two disks, of which
//! everybody meets one, the other or both. How many may lie is the model's ([`Simulated::liars`](crate::Simulated::liars));
//! beyond the model it is one more.
//!
//! | file | lie |
//! |---|---|
//! | `silent`, `withhold`, `drip` | says nothing; says it to some only; says it late |
//! | `replay`, `flood` | says again what it once said; says it many times |
//! | `corrupt` | says something that nobody understands |
//! | `equivocate`, `own` | says one thing to some and another to others; the protocol's own lies |
//! | `collude` | says what the other liars say, to the same victims |
//! | `false_reply` | tells clients what did not happen |
//! | `bad_chunks`, `stale_state` | serves wrong bytes of a state; serves none, or pretends to |
//! | `twins` | two of a name |
//!
//! `live` tells the same lies in a real process, for `quorate dev`.

mod bad_chunks;
mod collude;
mod corrupt;
mod drip;
mod equivocate;
mod false_reply;
mod flood;
mod live;
mod own;
mod replay;
mod silent;
mod stale_state;
mod twins;
mod withhold;

use crate::faults::{Fault, Faults};
use crate::misfortune::{Fortune, Moment};
use crate::process::CLUSTER;
use crate::random::Random;
use bytes::Bytes;
pub use live::{Live, OFFERED, Offered};
use quorate_core::crypto::Keyring;
use quorate_core::ids::{Epoch, Peer, ReplicaId};
use quorate_core::node::Payload;
use quorate_core::protocol::Protocol;
use quorate_core::wire::Envelope;
use std::collections::{BTreeMap, BTreeSet};
pub use twins::Twins;

/// What a protocol's messages can be turned into. Where the protocol signs, a hook signs with the liar's own key; it has no
/// other.
pub trait Lies<P: Protocol>: Send {
    /// Another message in the place of this one, as believable and with another meaning; `None` if there is nothing to lie
    /// about. The liar sends one to some and the other to the rest.
    fn other(&self, message: &P::Message, keyring: &Keyring, random: &mut Random) -> Option<P::Message>;

    /// This reply to a client, with another result; `None` if it is no reply.
    fn false_reply(&self, message: &P::Message, keyring: &Keyring, random: &mut Random) -> Option<P::Message>;

    /// A lie that only this protocol knows, in the place of this message.
    fn own(&self, to: Peer, message: &P::Message, keyring: &Keyring, random: &mut Random) -> Option<Vec<P::Message>>;
}

/// A frame that a liar is about to send.
#[derive(Clone, Debug)]
pub struct Frame {
    /// To whom.
    pub to: Peer,
    /// Envelope and payload.
    pub bytes: Bytes,
    /// The message's name.
    pub label: &'static str,
    /// It leaves so many nanoseconds later.
    pub delay: u64,
}

impl Frame {
    /// What a protocol's message says; `None` for what is beside the protocol.
    fn message<P: Protocol>(&self) -> Option<P::Message> {
        match Envelope::open::<Payload<P::Message>>(&self.bytes) {
            Ok((_, Payload::Protocol(message))) => Some(message),
            _ => None,
        }
    }

    /// The same frame with another message.
    fn with<P: Protocol>(&self, message: P::Message, keyring: &Keyring) -> Self {
        let label = P::label(&message);
        let payload = Payload::Protocol(message);
        let bytes = Envelope { cluster: keyring.cluster(), epoch: keyring.epoch() }.seal(&payload);
        Self { bytes, label, ..self.clone() }
    }
}

/// What a lie may use.
pub struct Scene<'a, P: Protocol> {
    /// The adversary's luck.
    pub random: &'a mut Random,
    /// Those against whom the lies are directed; the liar is honest to the others where it can be.
    pub victims: &'a BTreeSet<Peer>,
    /// Those against whom all liars of the run work together; none of themselves.
    pub shared_victims: &'a BTreeSet<Peer>,
    /// The protocol's lies.
    pub lies: Option<&'a dyn Lies<P>>,
    /// The liar's key, and everybody's public ones.
    pub keyring: &'a Keyring,
    /// How often a lie is told that need not be told always, per million.
    pub often: u64,
    /// Lies told.
    pub told: u64,
}

/// What a replica does wrong from one moment on, always.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Misdeed {
    /// It says nothing any more.
    Silence,
    /// It tells these another version of everything that has one.
    TwoWords(BTreeSet<Peer>),
    /// All that it says leaves so many nanoseconds late.
    Slowness(u64),
}

/// One way to lie.
trait Lie<P: Protocol>: Send {
    /// What becomes of a frame: nothing, itself, another, several.
    fn tell(&mut self, frame: Frame, scene: &mut Scene<'_, P>) -> Vec<Frame>;
}

/// One liar.
struct Liar<P: Protocol> {
    lies: Vec<(Fault, Box<dyn Lie<P>>)>,
    victims: BTreeSet<Peer>,
    keyring: Keyring,
}

/// All liars of a run.
pub struct Adversary<P: Protocol> {
    liars: BTreeMap<usize, Liar<P>>,
    twins: Option<Twins>,
    shared_victims: BTreeSet<Peer>,
    hook: Option<Box<dyn Lies<P>>>,
    rates: Faults,
}

/// How often a lie that need not be told always is told, per million frames, at the usual rate.
const OFTEN: u64 = 150_000;

impl<P: Protocol> Adversary<P> {
    /// Nobody lies.
    pub fn none() -> Self {
        let (shared_victims, rates) = (BTreeSet::new(), Faults::none());
        Self { liars: BTreeMap::new(), twins: None, shared_victims, hook: None, rates }
    }

    /// `count` of the replicas lie, in ways that the seed chooses from the faults.
    pub fn new(
        mut random: Random,
        faults: &Faults,
        count: usize,
        peers: &[Peer],
        hook: Option<Box<dyn Lies<P>>>,
    ) -> Self {
        let replicas = peers.iter().filter(|peer| matches!(peer, Peer::Replica(_))).count();
        let mut liars = BTreeMap::new();
        let mut twins = None;
        while liars.len() < count.min(replicas) {
            let replica = random.index(replicas);
            if liars.contains_key(&replica) {
                continue;
            }
            let lies =
                Fault::ALL.iter().filter(|fault| faults.has(**fault)).filter_map(|fault| Some((*fault, lie(*fault)?)));
            let lies: Vec<_> = lies.collect();
            let victims = peers.iter().copied().filter(|_| random.chance(500_000)).collect();
            if faults.has(Fault::Twins) && twins.is_none() {
                twins = Some(Twins { original: replica, copy: replicas, luck: random.bits() });
            }
            let id = ReplicaId::new(u8::try_from(replica).unwrap_or(u8::MAX));
            let keyring = Keyring::simulated_replica(CLUSTER, Epoch::ZERO, replicas, id);
            liars.insert(replica, Liar { lies, victims, keyring });
        }
        // One correct replica at least on either side, so that there are two to tell different things.
        let mut correct =
            peers.iter().filter(|peer| !matches!(peer, Peer::Replica(id) if liars.contains_key(&id.index())));
        let first = correct.next().copied();
        let mut shared_victims: BTreeSet<Peer> = correct.clone().copied().filter(|_| random.chance(500_000)).collect();
        if shared_victims.is_empty() {
            shared_victims.extend(first);
        }
        Self { liars, twins, shared_victims, hook, rates: faults.clone() }
    }

    /// From now on this replica does nothing but this, with the protocol's own lies.
    pub fn begin(&mut self, replica: ReplicaId, replicas: usize, misdeed: Misdeed, hook: Option<Box<dyn Lies<P>>>) {
        let (fault, lie, victims): (Fault, Box<dyn Lie<P>>, _) = match misdeed {
            Misdeed::Silence => (Fault::Silent, Box::new(silent::Silent::for_good()), BTreeSet::new()),
            Misdeed::TwoWords(victims) => (Fault::Collude, Box::new(collude::Collude), victims),
            Misdeed::Slowness(delay) => (Fault::Drip, Box::new(drip::Late(delay)), BTreeSet::new()),
        };
        let keyring = Keyring::simulated_replica(CLUSTER, Epoch::ZERO, replicas, replica);
        self.liars.insert(replica.index(), Liar { lies: vec![(fault, lie)], victims: victims.clone(), keyring });
        (self.shared_victims, self.hook) = (victims, hook);
    }

    /// Is this one of the liars?
    pub fn lies(&self, replica: usize) -> bool {
        self.liars.contains_key(&replica) || self.twins.is_some_and(|twins| twins.copy == replica)
    }

    /// How many lie.
    pub fn count(&self) -> usize {
        self.liars.len()
    }

    /// The replica of which there are two.
    pub fn twins(&self) -> Option<Twins> {
        self.twins
    }

    /// There is one of each after all.
    pub fn no_twins(&mut self) {
        self.twins = None;
    }

    /// What becomes of a frame of a liar, and which lies were told with it, how often. Each lie is a misfortune: it has a
    /// name, and is not told if it is not to happen.
    pub fn speak(
        &mut self,
        replica: usize,
        frame: Frame,
        fortune: &mut Fortune,
        now: u64,
    ) -> (Vec<Frame>, Vec<(Fault, u64)>) {
        let Some(liar) = self.liars.get_mut(&replica) else { return (vec![frame], Vec::new()) };
        let number = fortune.frame(replica);
        let (mut frames, mut told) = (vec![frame], Vec::new());
        for (fault, lie) in &mut liar.lies {
            let often = OFTEN.saturating_mul(u64::from(self.rates.rate(*fault))) / 100;
            let random = &mut fortune.lie(replica, *fault, number);
            let (victims, keyring, honest) = (&liar.victims, &liar.keyring, frames.clone());
            let (shared_victims, lies) = (&self.shared_victims, self.hook.as_deref());
            let mut scene = Scene { random, victims, shared_victims, lies, keyring, often, told: 0 };
            frames = frames.into_iter().flat_map(|frame| lie.tell(frame, &mut scene)).collect();
            let lied = scene.told;
            if lied > 0 && fortune.allows(Moment::Frame(replica, number), *fault, now) {
                told.push((*fault, lied));
            } else if lied > 0 {
                frames = honest;
            }
        }
        (frames, told)
    }
}

fn lie<P: Protocol>(fault: Fault) -> Option<Box<dyn Lie<P>>> {
    Some(match fault {
        Fault::OwnLies => Box::new(own::Own),
        Fault::Equivocate => Box::new(equivocate::Equivocate::default()),
        Fault::Collude => Box::new(collude::Collude),
        Fault::FalseReply => Box::new(false_reply::FalseReply),
        Fault::BadChunks => Box::new(bad_chunks::BadChunks),
        Fault::StaleState => Box::new(stale_state::StaleState),
        Fault::Silent => Box::new(silent::Silent::default()),
        Fault::Withhold => Box::new(withhold::Withhold),
        Fault::Drip => Box::new(drip::Drip),
        Fault::Replay => Box::new(replay::Replay::default()),
        Fault::Corrupt => Box::new(corrupt::Corrupt),
        Fault::Flood => Box::new(flood::Flood),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_protocols::naive::Naive;

    const PEERS: [Peer; 3] =
        [Peer::Replica(ReplicaId::new(0)), Peer::Replica(ReplicaId::new(1)), Peer::Replica(ReplicaId::new(2))];

    /// What a hundred different frames of one liar become.
    fn hundred(fault: Fault) -> (Vec<Frame>, u64) {
        let faults: Faults = format!("{fault}:400").parse().expect("a list");
        let mut adversary = Adversary::<Naive>::new(Random::new(7), &faults, 1, &PEERS, None);
        let liar = (0..3).find(|replica| adversary.lies(*replica)).expect("one lies");
        let (mut frames, mut told, mut fortune) = (Vec::new(), 0, Fortune::new(1, None));
        for number in 0..100_u8 {
            let to = PEERS[(liar + 1 + usize::from(number % 2)) % 3];
            let (now, lies) = {
                let frame = Frame { to, bytes: vec![number; 64].into(), label: "x", delay: 0 };
                adversary.speak(liar, frame, &mut fortune, 0)
            };
            frames.extend(now);
            told += lies.iter().map(|(_, count)| count).sum::<u64>();
        }
        (frames, told)
    }

    #[test]
    fn each_lie_is_told_and_counted() {
        let honest = |frames: &[Frame]| frames.len() == 100 && frames.iter().all(|frame| frame.delay == 0);
        for fault in [Fault::Silent, Fault::Withhold, Fault::Drip, Fault::Replay, Fault::Corrupt, Fault::Flood] {
            let (frames, told) = hundred(fault);
            let as_sent = honest(&frames) && frames.iter().enumerate().all(|(at, it)| it.bytes == vec![at as u8; 64]);
            assert!(told > 0 && !as_sent, "{fault}: {told} told");
        }
    }

    #[test]
    fn whoever_has_nothing_to_lie_about_is_honest() {
        for fault in [Fault::OwnLies, Fault::Equivocate, Fault::FalseReply, Fault::BadChunks, Fault::Loss] {
            assert_eq!((hundred(fault).0.len(), hundred(fault).1), (100, 0), "{fault}");
        }
    }

    #[test]
    fn everybody_meets_one_twin_or_both() {
        let twins = Twins { original: 0, copy: 3, luck: 9 };
        let met: BTreeSet<(bool, bool)> = (0..40_u64)
            .map(|now| (twins.meets(PEERS[1], 0, now * 1_000_000_000), twins.meets(PEERS[1], 3, now * 1_000_000_000)))
            .collect();
        assert_eq!(met, BTreeSet::from([(true, false), (false, true), (true, true)]));
    }
}
