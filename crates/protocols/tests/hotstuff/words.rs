//! What a liar says: any statement, signed with its own key.

use crate::harness::{Cluster, ENVELOPE, Flying, OnDisk, keyring};
use bytes::Bytes;
use quorate_core::crypto::{Certificate, Digest, Keyring, Signed};
use quorate_core::ids::{ClientId, OpNumber, RecordSeq, ReplicaId, RequestNumber, SessionId, View};
use quorate_core::sessions::Body;
use quorate_core::time::WallTime;
use quorate_core::wire::Wire;
use quorate_protocols::hotstuff::{
    Config, Header, Justify, Message, Payload, Proposal, Rules, Timeout, TimeoutCertificate, Vote, genesis, rejoin,
};
use quorate_protocols::pbft::{Group, Orders, Requests};

pub fn op(raw: u64) -> OpNumber {
    OpNumber::new(raw)
}

pub fn view(raw: u64) -> View {
    View::new(raw)
}

/// One leader for as long as nobody complains.
pub fn config() -> Config {
    Config { leader_views: 100, ..Config::default() }
}

pub fn under(rules: Rules) -> Config {
    Config { rules, ..config() }
}

/// A request that this client has signed.
pub fn group(client: u128, number: u64, operation: &'static str) -> Group {
    let id = ClientId::new(client);
    let requests = Requests {
        client: id,
        session: SessionId::new(1),
        acknowledged: RequestNumber::ZERO,
        full: None,
        requests: vec![(RequestNumber::new(number), Body::Apply(Bytes::from_static(operation.as_bytes())))],
    };
    Keyring::simulated_client(ENVELOPE.cluster, ENVELOPE.epoch, 4, id).sign_as_client(requests)
}

/// A payload of requests.
pub fn orders(time: u64, groups: Vec<Group>) -> Payload {
    Payload::new(Orders { time: WallTime::from_nanos(time), tick: false, groups })
}

/// A block on a parent of this view and height.
pub fn header(in_view: u64, height: u64, parent: Digest, parent_view: u64, payload: &Payload) -> Header {
    Header {
        view: view(in_view),
        height: op(height),
        parent,
        parent_view: view(parent_view),
        payload: payload.digest(),
    }
}

/// The certificate that these replicas can make together.
pub fn certificate(in_view: u64, block: Digest, signers: &[usize]) -> Justify {
    if block == genesis() {
        return Justify::Genesis;
    }
    let vote = Vote { view: view(in_view), block };
    let votes = signers.iter().map(|by| keyring(*by, 4).sign(vote));
    Justify::Quorum(Certificate::claimed(vote, votes.map(|vote| (vote.by(), *vote.signature())).collect()))
}

pub fn proposal(by: usize, header: Header, payload: &Payload, signers: &[usize]) -> Proposal {
    let justify = certificate(header.parent_view.get(), header.parent, signers);
    Proposal { header: keyring(by, 4).sign(header), justify, tc: None, payload: payload.clone() }
}

pub fn say(proposal: &Proposal) -> Message {
    Message::Proposal(Box::new(proposal.clone()))
}

pub fn vote(by: usize, in_view: u64, block: Digest) -> Signed<Vote> {
    keyring(by, 4).sign(Vote { view: view(in_view), block })
}

pub fn timeout(by: usize, end: u64, high: u64) -> Signed<Timeout> {
    keyring(by, 4).sign(Timeout { view: view(end), high: view(high) })
}

pub fn timeouts(end: u64, highs: &[(usize, u64)]) -> TimeoutCertificate {
    TimeoutCertificate::claimed(highs.iter().map(|(by, high)| timeout(*by, end, *high)).collect())
}

impl Cluster {
    /// A replica that is down, so that the test can speak in its name.
    pub fn liar(&mut self, id: usize) -> &mut Self {
        self.crash(id)
    }

    /// What this replica has voted for, as far as anybody was told.
    pub fn voted(&self, id: usize) -> Vec<Vote> {
        let said = self.sent.iter().filter_map(Flying::message);
        let votes = said.filter_map(|message| match message {
            Message::Vote(vote) if vote.by() == ReplicaId::new(u8::try_from(id).expect("small")) => {
                Some(*vote.statement())
            }
            _ => None,
        });
        votes.collect()
    }

    /// Its disk is lost; the one that it has when it starts next says so.
    pub fn lose_disk(&mut self, id: usize) -> &mut Self {
        self.crash(id);
        let host = &mut self.hosts[id];
        host.snapshots.clear();
        host.journal = vec![OnDisk { seq: RecordSeq::ZERO.next(), bytes: rejoin().encode(), damaged: None }];
        (host.durable, host.next_seq) = (RecordSeq::ZERO.next(), RecordSeq::ZERO.next().next());
        self
    }

    pub fn is_silent(&self, id: usize) -> bool {
        self.status(id).role.starts_with("silent")
    }

    /// Two different votes in one view are what must never be.
    pub fn voted_twice(&self, id: usize) -> bool {
        let votes = self.voted(id);
        votes.iter().any(|one| votes.iter().any(|other| one.view == other.view && one != other))
    }

    pub fn committed(&self, id: usize) -> u64 {
        self.status(id).committed.get()
    }

    /// The certificate that a replica has told of last, and the place of the block that it certifies.
    pub fn tip(&mut self, from: usize) -> (Header, Justify) {
        let sent: Vec<Message> = self.sent.iter().filter_map(Flying::message).collect();
        let headers: Vec<Header> = sent
            .iter()
            .filter_map(|message| match message {
                Message::Proposal(it) => Some(*it.header.statement()),
                _ => None,
            })
            .collect();
        let Message::NewView { justify, .. } = self.last(from, "NewView") else { panic!("a certificate") };
        let header = headers.iter().find(|it| it.id() == justify.block()).expect("it was proposed");
        (*header, justify)
    }
}
