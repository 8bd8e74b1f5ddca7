//! Lies in a real process: what `quorate dev` lets a replica say when its owner wants to see what the others make of it.
//!
//! The lies are those of simulated worlds, wrapped around what an honest replica sends. They stand here and not in the server:
//! a replica that `quorate serve` runs for somebody has no code of its own that lies (ADR 032).

use super::{Frame, Lie, Lies, Scene, lie};
use crate::faults::Fault;
use crate::random::Random;
use bytes::Bytes;
use quorate_core::crypto::Keyring;
use quorate_core::ids::{Peer, ReplicaId};
use quorate_core::protocol::Protocol;
use std::collections::BTreeSet;

/// How often a lie that need not be told always is told, per million frames: often enough to be seen soon.
const OFTEN: u64 = 400_000;

/// A lie that can be switched on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offered {
    /// Which.
    pub fault: Fault,
    /// What the replica does, after its name.
    pub words: &'static str,
}

/// The lies that can be switched on. None of them needs a clock: what leaves leaves at once.
pub const OFFERED: [Offered; 6] = [
    Offered {
        fault: Fault::Equivocate,
        words: "signs two different things where it may sign one, and shows some replicas both",
    },
    Offered { fault: Fault::OwnLies, words: "tells the protocol's own lies" },
    Offered { fault: Fault::FalseReply, words: "tells clients what did not happen" },
    Offered { fault: Fault::Corrupt, words: "sends garbage" },
    Offered { fault: Fault::Replay, words: "says again what it once said, to anybody" },
    Offered { fault: Fault::Silent, words: "runs, and says nothing" },
];

/// One lie of one replica.
pub struct Live<P: Protocol> {
    lie: Box<dyn Lie<P>>,
    /// Whoever is told another version is told the true one, too: two signatures are a proof, and that is what people want to see.
    tells_both: bool,
    hook: Option<Box<dyn Lies<P>>>,
    random: Random,
    victims: BTreeSet<Peer>,
    keyring: Keyring,
}

impl<P: Protocol> Live<P> {
    /// The lie of the replica that owns the keyring, in a group of so many: told to every other one of the others, from the one
    /// after it on. `None` if it is not offered, or nobody's keyring.
    pub fn new(
        offered: Offered,
        replicas: usize,
        keyring: Keyring,
        hook: Option<Box<dyn Lies<P>>>,
        seed: u64,
    ) -> Option<Self> {
        let me = keyring.replica()?;
        let lie: Box<dyn Lie<P>> = match offered.fault {
            Fault::Silent => Box::new(super::silent::Silent::for_good()),
            fault => lie(fault)?,
        };
        let places = (1..replicas).step_by(2).map(|step| me.index().wrapping_add(step) % replicas);
        let ids = places.filter_map(|place| u8::try_from(place).ok());
        let victims = ids.map(|id| Peer::Replica(ReplicaId::new(id))).collect();
        let tells_both = offered.fault == Fault::Equivocate;
        Some(Self { lie, tells_both, hook, random: Random::new(seed), victims, keyring })
    }

    /// What becomes of a frame that is about to leave for a peer.
    pub fn speak(&mut self, to: Peer, bytes: Bytes) -> Vec<(Peer, Bytes)> {
        let mut scene = Scene {
            random: &mut self.random,
            victims: &self.victims,
            shared_victims: &self.victims,
            lies: self.hook.as_deref(),
            keyring: &self.keyring,
            often: OFTEN,
            told: 0,
        };
        let honest = Frame { to, bytes, label: "", delay: 0 };
        let mut frames = self.lie.tell(honest.clone(), &mut scene);
        if self.tells_both && frames.iter().all(|frame| frame.bytes != honest.bytes) {
            frames.push(honest);
        }
        frames.into_iter().map(|frame| (frame.to, frame.bytes)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::CLUSTER;
    use crate::protocols::Simulated;
    use quorate_core::crypto::Digest;
    use quorate_core::ids::{ClusterId, Epoch, OpNumber, ReplicaId, View};
    use quorate_core::node::Payload;
    use quorate_core::wire::Envelope;
    use quorate_protocols::pbft::{self, Pbft};
    use std::collections::BTreeMap;

    #[test]
    fn every_lie_that_is_offered_is_told_and_none_takes_time() {
        for offered in OFFERED {
            let keyring = Keyring::simulated_replica(CLUSTER, Epoch::ZERO, 4, ReplicaId::new(1));
            let mut live = Live::<Pbft>::new(offered, 4, keyring, Pbft::lies(), 7).expect("it is offered");
            let to = |number: u8| Peer::Replica(ReplicaId::new([0, 2, 3][usize::from(number % 3)]));
            let said: Vec<_> = (0..90_u8).flat_map(|number| live.speak(to(number), vec![number; 40].into())).collect();
            let honest: Vec<_> = (0..90_u8).map(|number| (to(number), Bytes::from(vec![number; 40]))).collect();
            let needs_a_message = matches!(offered.fault, Fault::Equivocate | Fault::OwnLies | Fault::FalseReply);
            assert_eq!(said == honest, needs_a_message, "{offered:?}: these frames are no messages of PBFT's");
        }
    }

    #[test]
    fn a_live_liar_tells_every_other_one_two_versions_for_its_own_cluster() {
        let (cluster, me) = (ClusterId::new(9), ReplicaId::new(0));
        let keyring = || Keyring::simulated_replica(cluster, Epoch::ZERO, 4, me);
        let mut live = Live::<Pbft>::new(OFFERED[0], 4, keyring(), Pbft::lies(), 7).expect("it is offered");
        let prepare = |op| pbft::Prepare { view: View::ZERO, op: OpNumber::new(op), digest: Digest::of(b"a request") };
        let (mut told, mut lied) = (BTreeMap::new(), 0);
        for op in 1..40 {
            let said = Payload::Protocol(pbft::Message::Prepare(keyring().sign(prepare(op))));
            let bytes: Bytes = Envelope { cluster, epoch: Epoch::ZERO }.seal(&said);
            for id in 1..4 {
                let to = Peer::Replica(ReplicaId::new(id));
                let heard = live.speak(to, bytes.clone());
                for (_, heard) in &heard {
                    let (envelope, _) = Envelope::open::<Payload<pbft::Message>>(heard).expect("it is a message");
                    assert_eq!(envelope.cluster, cluster);
                }
                assert!(heard.iter().any(|(_, heard)| *heard == bytes), "the truth is among it");
                told.insert(id, heard);
            }
            let heard = |id: u8| {
                told.get(&id)
                    .map(|it: &Vec<(Peer, Bytes)>| it.iter().map(|(_, heard)| heard.clone()).collect::<Vec<_>>())
            };
            assert_eq!(heard(2).map(|it| it.len()), Some(1), "whoever is no victim hears the truth alone");
            assert_eq!(heard(1), heard(3), "all victims hear the same");
            lied += usize::from(heard(1).is_some_and(|it| it.len() == 2));
        }
        assert!((5..35).contains(&lied), "{lied} of 39");
    }
}
