//! What a client or a liar says.

use crate::harness::{Cluster, ENVELOPE, Flying, keyring, replica};
use bytes::Bytes;
use quorate_core::crypto::{Digest, Keyring, Signed};
use quorate_core::ids::{ClientId, OpNumber, RequestNumber, SessionId, View};
use quorate_core::sessions::Body;
use quorate_core::time::WallTime;
use quorate_core::wire::Wire;
use quorate_protocols::pbft::{self, Content, Group, Orders, Prepare, Proposal, Requests};
use quorate_protocols::reception::{Certified, Message, Received, digest};

/// A publication of this client, in its session.
pub fn group(client: u128, session: u64, number: u64, operation: &str) -> Group {
    signed(client, session, 0, vec![(number, Body::Apply(Bytes::from(operation.to_owned())))])
}

/// A publication of several requests, whose client knows the answers of all up to `acknowledged`.
pub fn signed(client: u128, session: u64, acknowledged: u64, requests: Vec<(u64, Body)>) -> Group {
    let id = ClientId::new(client);
    let requests = Requests {
        client: id,
        session: SessionId::new(session),
        acknowledged: RequestNumber::new(acknowledged),
        full: None,
        requests: requests.into_iter().map(|(number, body)| (RequestNumber::new(number), body)).collect(),
    };
    Keyring::simulated_client(ENVELOPE.cluster, ENVELOPE.epoch, 4, id).sign_as_client(requests)
}

pub fn received(by: usize, digest: Digest, time: u64) -> Signed<Received> {
    keyring(by, 4).sign(Received { digest, time: WallTime::from_nanos(time) })
}

pub fn reception(by: usize, digest: Digest, time: u64) -> Message {
    Message::Reception { vote: received(by, digest, time), again: false }
}

/// R0, which leads view 0, proposes these as an entry.
pub fn proposal(at: u64, time: u64, certified: &[Certified]) -> Message {
    let (keyring, session) = (keyring(0, 4), SessionId::new(7));
    let client = keyring.address(&keyring.proxy().expect("a replica"));
    let bodies = certified.iter().map(|it| Body::Apply(Bytes::from(it.encode())));
    let requests = (at * 100..).map(RequestNumber::new).zip(bodies).collect();
    let request = Requests { client, session, acknowledged: RequestNumber::ZERO, full: None, requests };
    let groups = vec![keyring.sign_as_proxy(request)];
    let proposal = Proposal::new(Content::Orders(Orders { time: WallTime::from_nanos(time), tick: false, groups }));
    let vote = keyring.sign(Prepare { view: View::ZERO, op: OpNumber::new(at), digest: proposal.digest() });
    Message::Module(pbft::Message::PrePrepare { vote, proposal })
}

/// Is it a client's publication, by the broker or by its own link?
pub fn is_publication(it: &Flying) -> bool {
    matches!(it.label, "Publish" | "Submit")
}

impl Cluster {
    /// The session of a client that has applied something.
    pub fn session(&self, client: u128) -> u64 {
        let said = self.sent.iter().filter_map(Flying::message);
        let groups = said.filter_map(|message| match message {
            Message::Publish(group) if group.statement().client == ClientId::new(client) => Some(group),
            _ => None,
        });
        groups.map(|group| group.statement().session.get()).max().expect("it has published something")
    }

    /// The last publication of a client.
    pub fn published(&self, client: u128) -> Group {
        let said = self.sent.iter().rev().filter_map(Flying::message);
        let mut groups = said.filter_map(|message| match message {
            Message::Publish(group) if group.statement().client == ClientId::new(client) => Some(group),
            _ => None,
        });
        groups.next().expect("it has published something")
    }

    /// When this replica says that it has received something, nanoseconds.
    pub fn received_at(&self, by: usize, what: &Group) -> Vec<u64> {
        let said = self.sent.iter().filter(|it| it.from == replica(by)).filter_map(Flying::message);
        let mut times: Vec<u64> = said
            .filter_map(|message| match message {
                Message::Reception { vote, .. } if vote.statement().digest == digest(what) => {
                    Some(vote.statement().time.as_nanos())
                }
                _ => None,
            })
            .collect();
        times.dedup();
        times
    }

    /// How often an operation was applied, at every replica that runs; and they agree.
    pub fn applied_times(&self, operation: &str) -> usize {
        let running: Vec<_> = (0..self.hosts.len()).filter(|id| self.hosts[*id].process.is_some()).collect();
        let tape = self.tape(running[0]);
        assert!(running.iter().all(|id| self.tape(*id) == tape), "replicas differ");
        tape.iter().filter(|it| *it == operation).count()
    }

    /// When the machine wants its tick: a second after the time at which `lease` was applied, nanoseconds.
    pub fn leased_at(&self, id: usize) -> u64 {
        let machine = self.hosts[id].process.as_ref().expect("it runs").executor.machine().wake;
        machine.expect("a lease").as_nanos() - 1_000_000_000
    }
}
