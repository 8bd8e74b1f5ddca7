//! What a liar says: any statement, signed with its own key.

use crate::harness::{Cluster, ENVELOPE, Flying, keyring, replica};
use bytes::Bytes;
use quorate_core::crypto::{Certificate, Keyring};
use quorate_core::ids::{ClientId, OpNumber, ReplicaId, RequestNumber, SessionId};
use quorate_core::sessions::Body;
use quorate_core::time::WallTime;
use quorate_protocols::async_tob::{Ack, Approval, Batch, Decided, Head, Link, Message, Payload, Vector};
use quorate_protocols::pbft::{Group, Requests};

/// The liar of these tests: it is down, and the test speaks in its name, with its key and nobody else's.
pub const LIAR: usize = 3;

pub fn op(raw: u64) -> OpNumber {
    OpNumber::new(raw)
}

pub fn id(raw: usize) -> ReplicaId {
    ReplicaId::new(u8::try_from(raw).expect("small"))
}

/// A request that this client has signed.
pub fn group(client: u128, number: u64, operation: &str) -> Group {
    let id = ClientId::new(client);
    let requests = Requests {
        client: id,
        session: SessionId::new(1),
        acknowledged: RequestNumber::ZERO,
        full: None,
        requests: vec![(RequestNumber::new(number), Body::Apply(Bytes::from(operation.to_owned().into_bytes())))],
    };
    Keyring::simulated_client(ENVELOPE.cluster, ENVELOPE.epoch, 4, id).sign_as_client(requests)
}

/// A batch of the liar's lane.
pub fn batch(height: u64, parent: Head, operation: &str) -> Batch {
    let payload = Payload::new(vec![group(9, height, operation)]);
    let link = keyring(LIAR, 4).sign(Link { height, parent, payload: payload.digest() });
    Batch { link, payload }
}

pub fn batch_message(batch: &Batch) -> Message {
    Message::Batch { batch: batch.clone(), certificate: None }
}

/// The liar's proposal.
pub fn prop(epoch: u64, time: u64, heads: Vec<Certificate<Ack>>) -> Message {
    let vector = Vector { op: op(epoch), time: WallTime::from_nanos(time), heads };
    Message::Prop(Box::new(keyring(LIAR, 4).sign(vector)))
}

impl Cluster {
    /// Four replicas that have executed something, all quiet, and the last one a liar.
    pub fn with_a_liar() -> (Self, u64) {
        let mut it = Self::new(4);
        it.client(4).apply(4, "a"); // its lane is R0's
        it.run(2_000);
        let next = it.committed(0) + 1;
        it.crash(LIAR);
        it.deliver();
        it.talk();
        (it, next)
    }

    pub fn committed(&self, id: usize) -> u64 {
        self.status(id).committed.get()
    }

    /// All that a replica has sent of one kind.
    pub fn said(&self, from: usize, label: &str) -> Vec<Message> {
        let sent = self.sent.iter().filter(|it| it.from == replica(from) && it.label == label);
        sent.filter_map(Flying::message).collect()
    }

    /// Which of the liar's proposals a replica has approved.
    pub fn approved(&self, by: usize) -> Vec<Approval> {
        let approvals = self.said(by, "PAck").into_iter().filter_map(|message| match message {
            Message::PAck(approval) => Some(*approval.statement()),
            _ => None,
        });
        approvals.filter(|it| it.proposer == id(LIAR)).collect()
    }

    /// Which batches of the liar's lane a replica has acknowledged.
    pub fn acknowledged(&self, by: usize) -> Vec<Head> {
        let acks = self.said(by, "Ack").into_iter().filter_map(|message| match message {
            Message::Ack(ack) => Some(*ack.statement()),
            _ => None,
        });
        acks.filter(|it| it.lane == id(LIAR)).map(|it| it.head).collect()
    }

    /// The certificate of the liar's proposal, from these replicas' approvals and its own.
    pub fn certificate(&self, from: &[usize], epoch: u64) -> Message {
        let mut signatures = Vec::new();
        let mut statement = None;
        for by in from {
            for message in self.said(*by, "PAck") {
                let Message::PAck(approval) = message else { continue };
                if approval.statement().proposer == id(LIAR) && approval.statement().op == op(epoch) {
                    statement = Some(*approval.statement());
                    signatures.push((id(*by), *approval.signature()));
                }
            }
        }
        let statement = statement.expect("somebody has approved it");
        let own = keyring(LIAR, 4).sign(statement);
        signatures.push((id(LIAR), *own.signature()));
        signatures.sort_by_key(|(by, _)| *by);
        signatures.dedup_by_key(|(by, _)| *by);
        Message::PCert(Certificate::claimed(statement, signatures))
    }

    /// The certificate of a batch of the liar's lane, from these replicas' acknowledgements.
    pub fn lane_certificate(&self, from: &[usize], head: Head) -> Certificate<Ack> {
        let statement = Ack { lane: id(LIAR), head };
        let signature = |by: &usize| {
            let found = self.said(*by, "Ack").into_iter().find_map(|message| match message {
                Message::Ack(ack) if *ack.statement() == statement => Some(*ack.signature()),
                _ => None,
            });
            (id(*by), found.expect("it has acknowledged it"))
        };
        Certificate::claimed(statement, from.iter().map(signature).collect())
    }

    /// What a replica says was decided.
    pub fn history(&mut self, of: usize) -> Vec<Decided> {
        self.talk();
        self.say(replica(LIAR), of, Message::GetDecided { after: OpNumber::ZERO });
        match self.said(of, "Decided").pop() {
            Some(Message::Decided(all)) => all,
            _ => Vec::new(),
        }
    }

    /// Everybody but the liar goes on, and agrees.
    pub fn goes_on(&mut self) {
        self.apply(4, "z");
        self.run(3_000);
        let running: Vec<_> = (0..self.hosts.len()).filter(|id| self.hosts[*id].process.is_some()).collect();
        assert!(running.iter().all(|id| self.tape(*id) == self.tape(running[0])));
        assert_eq!(self.tape(running[0]).iter().filter(|it| *it == "z").count(), 1);
    }

    pub fn is_convicted(&self, by: usize) -> bool {
        let node = &self.hosts[by].process.as_ref().expect("it runs").node;
        node.ledger().proofs().contains_key(&id(LIAR))
    }
}
