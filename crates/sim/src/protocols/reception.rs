//! Reception: PBFT's liars, and those who lie about what they have received and when. The network between clients and replicas is
//! the broker: it loses, repeats, delays and reorders publications, and cuts replicas off from them.

use super::Simulated;
use super::pbft::PbftLies;
use crate::adversary::Lies;
use crate::faults::{Fault, Faults};
use crate::random::Random;
use quorate_core::crypto::{Digest, Keyring};
use quorate_core::ids::Peer;
use quorate_core::time::WallTime;
use quorate_protocols::pbft::Pbft;
use quorate_protocols::reception::{Config, Message, Received, Reception};

impl Simulated for Reception {
    const EXCLUDED: &'static [Fault] = Pbft::EXCLUDED;
    const REPLICAS: u8 = Pbft::REPLICAS;
    const EXPECTED: &'static [&'static str] = Pbft::EXPECTED;

    fn spared(replicas: usize) -> usize {
        Pbft::spared(replicas)
    }

    fn liars(replicas: usize) -> usize {
        Pbft::liars(replicas)
    }

    fn lies() -> Option<Box<dyn Lies<Self>>> {
        Some(Box::new(ReceptionLies::default()))
    }

    fn allowed(faults: &Faults, replicas: usize) -> Faults {
        Pbft::allowed(faults, replicas)
    }

    /// Every level of criticality that a group of up to seven has.
    fn config(random: &mut Random) -> Config {
        let criticality = u8::try_from(random.below(4)).ok().filter(|level| *level < 3);
        Config { module: Pbft::config(random), criticality, ..Config::default() }
    }
}

/// The lies of a replica: PBFT's, and false receptions.
#[derive(Debug, Default)]
pub struct ReceptionLies {
    module: PbftLies,
}

impl Lies<Reception> for ReceptionLies {
    /// The same publication, received at another time.
    fn other(&self, message: &Message, keyring: &Keyring, random: &mut Random) -> Option<Message> {
        keyring.replica()?; // without a key there is nothing to sign
        match message {
            Message::Module(message) => self.module.other(message, keyring, random).map(Message::Module),
            Message::Reception { vote, again } => {
                let digest = vote.statement().digest;
                let time = WallTime::from_nanos(random.below(u64::MAX >> 1));
                Some(Message::Reception { vote: keyring.sign(Received { digest, time }), again: *again })
            }
            _ => None,
        }
    }

    fn false_reply(&self, message: &Message, keyring: &Keyring, random: &mut Random) -> Option<Message> {
        self.module.false_reply(message.module()?, keyring, random).map(Message::Module)
    }

    /// It has received what nobody has published.
    fn own(&self, to: Peer, message: &Message, keyring: &Keyring, random: &mut Random) -> Option<Vec<Message>> {
        keyring.replica()?;
        match message {
            Message::Module(message) => {
                let lies = self.module.own(to, message, keyring, random)?;
                Some(lies.into_iter().map(Message::Module).collect())
            }
            Message::Reception { vote, .. } => {
                let Received { digest, time } = *vote.statement();
                let invented = Digest::of_parts(&[b"invented", digest.as_bytes()]);
                let vote = keyring.sign(Received { digest: invented, time });
                Some(vec![Message::Reception { vote, again: false }])
            }
            _ => None,
        }
    }
}
