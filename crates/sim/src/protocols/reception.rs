//! Reception: PBFT's liars, those who lie about what they have received and when, and brokers that do what they like.

use super::pbft::PbftLies;
use super::{Rejoin, Simulated};
use crate::adversary::Lies;
use crate::faults::{Fault, Faults};
use crate::random::Random;
use quorate_core::crypto::{Digest, Keyring};
use quorate_core::ids::{OpNumber, Peer};
use quorate_core::outbox::Class;
use quorate_core::protocol::Status;
use quorate_core::quorum::ByzantineQuorums;
use quorate_core::sessions::Body;
use quorate_core::time::WallTime;
use quorate_core::wire::Wire;
use quorate_protocols::pbft::{self, Pbft};
use quorate_protocols::reception::{self, Certified, Config, Held, Item, Message, Part, Received, Reception};

impl Simulated for Reception {
    const EXCLUDED: &'static [Fault] = Pbft::EXCLUDED;
    const REPLICAS: u8 = Pbft::REPLICAS;
    const BROKERED: bool = true;
    /// PBFT's; and that what replicas hold pending differed, and that requests of several levels met.
    const EXPECTED: &'static [&'static str] = &[
        "checkpoints",
        "commits",
        "entries fetched",
        "state transfers",
        "suspicions",
        "view changes",
        "view starts",
        reception::PENDING_DIFFERED,
        crate::calls::NAMED,
    ];

    fn spared(replicas: usize) -> usize {
        Pbft::spared(replicas)
    }

    fn liars(replicas: usize) -> usize {
        Pbft::liars(replicas)
    }

    fn lies() -> Option<Box<dyn Lies<Self>>> {
        Some(Box::new(ReceptionLies::default()))
    }

    /// As PBFT's: what the former self had received and not ordered, enough others have, too.
    fn rejoin() -> Option<Rejoin<Self>> {
        let record = |replicas: usize, first: OpNumber, others: &[Status]| {
            let quorums = ByzantineQuorums::new(replicas).filter(|quorums| quorums.faults() > 0)?;
            (others.len() >= quorums.quorum()).then(|| (Class::Promise, reception::rejoin(first)))
        };
        Some(Rejoin { entries: pbft::WINDOW_ENTRIES_MAX + pbft::CHECKPOINT_ENTRIES_MAX, record })
    }

    fn allowed(faults: &Faults, replicas: usize) -> Faults {
        let (of_broker, others) = faults.split();
        Pbft::allowed(&others, replicas).and(&of_broker)
    }

    /// Every level of criticality that a group of up to seven has.
    fn config(random: &mut Random) -> Config {
        let criticality = u8::try_from(random.below(4)).ok().filter(|level| *level < 3);
        Config { module: Pbft::config(random), criticality, ..Config::default() }
    }

    fn levels(replicas: usize) -> u8 {
        let faults = ByzantineQuorums::new(replicas).map_or(0, |quorums| quorums.faults());
        u8::try_from(faults).map_or(0, |faults| faults.saturating_add(1))
    }

    fn config_at(random: &mut Random, criticality: Option<u8>) -> Config {
        let drawn = Self::config(random);
        Config { criticality: criticality.or(drawn.criticality), ..drawn }
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
            Message::Compare(parts) => Some(Message::Compare(parts.iter().map(|part| bent(part, random)).collect())),
            Message::Same { digest } => Some(Message::Same { digest: Digest::of(digest.as_bytes()) }),
            _ => None,
        }
    }

    fn false_reply(&self, message: &Message, keyring: &Keyring, random: &mut Random) -> Option<Message> {
        self.module.false_reply(message.module()?, keyring, random).map(Message::Module)
    }

    /// It has received what nobody has published; it publishes, and certifies, what no client has signed.
    fn own(&self, to: Peer, message: &Message, keyring: &Keyring, random: &mut Random) -> Option<Vec<Message>> {
        keyring.replica()?;
        match message {
            Message::Module(pbft::Message::PrePrepare { vote, proposal }) if random.chance(300_000) => {
                let words = *vote.statement();
                let proposal = forged_entry(proposal, keyring)?;
                let vote = keyring.sign(pbft::Prepare { digest: proposal.digest(), ..words });
                Some(vec![Message::Module(pbft::Message::PrePrepare { vote, proposal })])
            }
            Message::Publication(group) => Some(vec![message.clone(), Message::Publish(PbftLies::forged(group)?)]),
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
            // The whole of it in full, and it is nothing; and nothing differs.
            Message::Compare(parts) => {
                let nothing = Part { from: Digest::ZERO, until: None, held: Held::Each(Vec::new()) };
                let same = parts.iter().find_map(|part| match part.held {
                    Held::Digest(digest) => Some(Message::Same { digest }),
                    _ => None,
                });
                Some([Message::Compare(vec![nothing])].into_iter().chain(same).collect())
            }
            _ => None,
        }
    }
}

/// The same range, of which something else is told: another digest, publications that nobody has made, receptions that nobody has said.
fn bent(part: &Part, random: &mut Random) -> Part {
    let items = |items: &[Item], random: &mut Random| -> Vec<Item> {
        let all = u16::try_from(random.below(1 << 16)).unwrap_or_default();
        let invented = Item { digest: part.from, received_by: all };
        let told = items.iter().filter(|item| item.digest != part.from);
        [invented].into_iter().chain(told.map(|item| Item { received_by: all, ..*item })).collect()
    };
    let held = match &part.held {
        Held::Digest(digest) if random.chance(500_000) => Held::Digest(Digest::of(digest.as_bytes())),
        Held::Digest(_) => Held::Each(items(&[], random)),
        Held::Each(told) => Held::Each(items(told, random)),
        Held::Answer(told) => Held::Answer(items(told, random)),
    };
    Part { held, ..part.clone() }
}

/// The same entry, with another operation in the first certificate of it that has one. The request to PBFT is the liar's own.
fn forged_entry(proposal: &pbft::Proposal, keyring: &Keyring) -> Option<pbft::Proposal> {
    let content = proposal.content();
    let pbft::Content::Orders(orders) = &*content else { return None };
    let mut orders = orders.clone();
    let group = orders.groups.first_mut()?;
    let mut words = group.statement().clone();
    let client = keyring.proxy().map(|proxy| keyring.address(&proxy))?;
    let (_, body) = words.requests.first_mut()?;
    let Body::Apply(bytes) = body else { return None };
    let mut certified = Certified::decode(bytes).ok()?;
    certified.group = PbftLies::forged(&certified.group)?;
    *body = Body::Apply(certified.encode().into());
    *group = keyring.sign_as_proxy(pbft::Requests { client, ..words });
    Some(pbft::Proposal::new(pbft::Content::Orders(orders)))
}
