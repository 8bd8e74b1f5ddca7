//! What a liar says: any statement, signed with its own key; and clocks that a test sets.

use crate::harness::{Cluster, ENVELOPE, keyring, replica};
use bytes::Bytes;
use quorate_core::crypto::Keyring;
use quorate_core::ids::{ClientId, RequestNumber, SessionId, View};
use quorate_core::quorum::SyncQuorums;
use quorate_core::sessions::Body;
use quorate_core::time::WallTime;
use quorate_protocols::pbft::{Group, Requests};
use quorate_protocols::sync_tob::{
    Block, Bundle, Cast, CastId, Chain, Config, Echo, EpochNumber, Message, Moves, Proposal, Schedule,
};

pub const MS: u64 = 1_000_000;

/// A request that this client has signed.
pub fn group(replicas: usize, client: u128, number: u64, operation: &'static str) -> Group {
    let id = ClientId::new(client);
    let requests = Requests {
        client: id,
        session: SessionId::new(1),
        acknowledged: RequestNumber::ZERO,
        full: None,
        requests: vec![(RequestNumber::new(number), Body::Apply(Bytes::from_static(operation.as_bytes())))],
    };
    Keyring::simulated_client(ENVELOPE.cluster, ENVELOPE.epoch, replicas, id).sign_as_client(requests)
}

/// What a liar says who confirms to a replica whatever that one says; `None` if that is nothing to confirm.
pub fn confirmation(mine: &Keyring, now: u64, said: Message) -> Option<Message> {
    Some(match said {
        Message::Probe { sent } => Message::Time { sent, clock: WallTime::from_nanos(now) },
        Message::Cast { chain, .. } => {
            let echo = mine.sign(Echo(*chain.statement()));
            Message::Echo { head: chain.head, echo }
        }
        Message::Vote(vote) => Message::Vote(mine.sign(*vote.statement())),
        Message::Commit(vote) => Message::Commit(mine.sign(*vote.statement())),
        _ => return None,
    })
}

/// A cast of this replica, without echoes.
pub fn cast(by: usize, replicas: usize, (life, seq): (u64, u64), start: u64, bundle: &Bundle) -> Chain<Cast> {
    let sender = quorate_core::ids::ReplicaId::new(u8::try_from(by).expect("small"));
    let id = CastId { sender, life, seq };
    let start = WallTime::from_nanos(start);
    let cast = Cast { id, start, bundle: bundle.digest(), bytes: bundle.len() as u64 };
    Chain::new(keyring(by, replicas).sign(cast))
}

/// The chain with the signatures of these too.
pub fn echoed<T: quorate_protocols::sync_tob::Head>(mut chain: Chain<T>, by: &[usize], replicas: usize) -> Chain<T> {
    for one in by {
        chain = chain.clone().with(keyring(*one, replicas).sign(Echo(*chain.statement())));
    }
    chain
}

/// A block of this epoch.
pub fn block(epoch: EpochNumber, entries: Vec<Chain<Cast>>) -> Block {
    Block::new(Moves { epoch, tick: false, entries, demote: Vec::new() })
}

/// The leader's proposal of it in view zero.
pub fn proposal(by: usize, replicas: usize, block: &Block) -> Chain<Proposal> {
    let words = Proposal { view: View::ZERO, epoch: block.content().epoch, block: block.digest() };
    Chain::new(keyring(by, replicas).sign(words))
}

impl Cluster {
    /// A replica that is down, so that the test can speak in its name.
    pub fn liar(&mut self, id: usize) -> &mut Self {
        self.crash(id)
    }

    pub fn schedule(&self) -> Schedule {
        Schedule::new(&self.config, &SyncQuorums::new(self.hosts.len()).expect("a legal size"))
    }

    /// The next epoch that this replica leads, and begins in so many milliseconds at the earliest.
    pub fn epoch_of(&self, leader: usize, after_ms: u64) -> EpochNumber {
        let first = self.schedule().epoch_at(WallTime::from_nanos(self.now + after_ms * MS)).next();
        let n = self.hosts.len() as u64;
        (0..n).map(|more| first.plus(more)).find(|epoch| epoch.get() % n == leader as u64).expect("one in n")
    }

    /// Lets time pass until this replica's clock, if it is right, shows so.
    pub fn run_to(&mut self, time: WallTime, plus: i64) -> &mut Self {
        let end = time.as_nanos().saturating_add_signed(plus);
        assert!(end >= self.now, "that has passed");
        while self.now < end {
            let rest = end - self.now;
            if rest < MS {
                self.now = end;
                break;
            }
            self.run(rest / MS);
        }
        self.deliver()
    }

    /// The liar's cast, signed by everybody in `by` too, and its bundle: given to all who run.
    pub fn cast_by(&mut self, liar: usize, seq: u64, number: u64, operation: &'static str) -> (Chain<Cast>, Bundle) {
        let n = self.hosts.len();
        let bundle = Bundle::new(vec![group(n, 9, number, operation)]);
        let chain = cast(liar, n, (1, seq), self.now, &bundle);
        for to in (0..n).filter(|to| *to != liar) {
            self.say(replica(liar), to, Message::Cast { chain: chain.clone(), bundle: bundle.clone() });
        }
        let echoes: Vec<usize> =
            (0..n).filter(|by| *by != liar).take(SyncQuorums::new(n).expect("legal").faults()).collect();
        (echoed(chain, &echoes, n), bundle)
    }

    /// What this replica asked last is answered by all others with a clock that is so far from the right one.
    pub fn answer_probe(&mut self, id: usize, by_ms: i64) -> &mut Self {
        let Message::Probe { sent } = self.last(id, "Probe") else { panic!("no probe") };
        let clock = WallTime::from_nanos(self.now.saturating_add_signed(by_ms * MS as i64));
        for other in (0..self.hosts.len()).filter(|other| *other != id) {
            self.say(replica(other), id, Message::Time { sent, clock });
        }
        self
    }

    /// How often something was noted there, by the beginning of its words.
    pub fn noted(&self, id: usize, words: &str) -> usize {
        let notes = self.hosts[id].notes.iter().map(|note| match note {
            quorate_core::outbox::Note::Other(text) => (*text).to_owned(),
            other => format!("{other:?}"),
        });
        notes.filter(|note| note.starts_with(words)).count()
    }

    pub fn committed(&self, id: usize) -> u64 {
        self.status(id).committed.get()
    }
}

pub fn small() -> Config {
    Config { state_blocks: 4, ..crate::harness::config() }
}
