//! What a liar says: any statement, signed with its own key.

use crate::harness::{Cluster, ENVELOPE, keyring};
use bytes::Bytes;
use quorate_core::crypto::{Digest, Keyring, Signed};
use quorate_core::ids::{ClientId, OpNumber, RequestNumber, SessionId, View};
use quorate_core::sessions::Body;
use quorate_core::time::WallTime;
use quorate_protocols::pbft::{Commit, Content, Group, Message, Orders, Prepare, Proposal, Requests};

pub fn op(raw: u64) -> OpNumber {
    OpNumber::new(raw)
}

pub fn view(raw: u64) -> View {
    View::new(raw)
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

/// A proposal of requests.
pub fn orders(time: u64, groups: Vec<Group>) -> Proposal {
    Proposal::new(Content::Orders(Orders { time: WallTime::from_nanos(time), tick: false, groups }))
}

pub fn prepare(by: usize, in_view: u64, at: u64, digest: Digest) -> Signed<Prepare> {
    keyring(by, 4).sign(Prepare { view: view(in_view), op: op(at), digest })
}

pub fn commit(by: usize, in_view: u64, at: u64, digest: Digest) -> Signed<Commit> {
    keyring(by, 4).sign(Commit { view: view(in_view), op: op(at), digest })
}

pub fn pre_prepare(by: usize, in_view: u64, at: u64, proposal: &Proposal) -> Message {
    Message::PrePrepare { vote: prepare(by, in_view, at, proposal.digest()), proposal: proposal.clone() }
}

impl Cluster {
    /// A replica that is down, so that the test can speak in its name.
    pub fn liar(&mut self, id: usize) -> &mut Self {
        self.crash(id)
    }

    /// Has this replica taken part in preparing something there?
    pub fn prepared(&mut self, id: usize) -> Vec<Prepare> {
        let from = crate::harness::replica(id);
        let said = self.sent.iter().filter(|it| it.from == from).filter_map(crate::harness::Flying::message);
        let votes = said.filter_map(|message| match message {
            Message::Prepare(vote) => Some(*vote.statement()),
            _ => None,
        });
        votes.collect()
    }

    pub fn committed(&self, id: usize) -> u64 {
        self.status(id).committed.get()
    }
}
