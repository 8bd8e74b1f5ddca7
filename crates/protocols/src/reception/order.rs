//! PBFT inside: it orders certificates with what they certify, and what it has ordered is inserted by certified time (step 5).

use super::message::{Certified, Message, digest};
use super::publication::Stage;
use super::replica::Replica;
use super::{LIFT, Outbox};
use crate::pbft::{self, Group, Pbft, Requests};
use bytes::Bytes;
use quorate_core::crypto::Digest;
use quorate_core::ids::{OpNumber, Peer, RequestNumber, SessionId};
use quorate_core::nested::nested;
use quorate_core::outbox::Effect;
use quorate_core::protocol;
use quorate_core::sessions::{Batch, Body, Request};
use quorate_core::wire::Wire;
use std::collections::BTreeSet;

impl Replica {
    /// Runs a handler of PBFT within this turn, and does what it wants of us.
    pub(super) fn module(
        &mut self,
        out: &mut Outbox,
        handler: impl FnOnce(&mut pbft::Replica, &mut quorate_core::outbox::Outbox<Pbft>),
    ) {
        let led = self.leads();
        let module = &mut self.module;
        let wanted = nested(out, &LIFT, |inner| handler(module, inner));
        self.carry_out(wanted, out);
        if !led && self.leads() {
            self.hand_over_all(out); // a new primary begins with everything that is certified
        }
    }

    pub(super) fn carry_out(&mut self, wanted: Vec<Effect<Pbft>>, out: &mut Outbox) {
        for effect in wanted {
            match effect {
                Effect::Execute { op, batch } => self.insert(op, &batch, out),
                Effect::Query { ticket, query } => out.query(ticket, query),
                Effect::Checkpoint(op) => out.checkpoint(op),
                Effect::Fetch { checkpoint, from } => out.fetch(checkpoint, from),
                Effect::Forget(before) => {
                    self.module_needs = self.module_needs.max(before);
                    self.forget(out);
                }
                // `nested` has lifted all others.
                _ => {}
            }
        }
    }

    /// Lets the log's beginning go: what neither PBFT nor a publication that is not ordered needs.
    pub(super) fn forget(&mut self, out: &mut Outbox) {
        let first = self.pending.values().map(|pending| pending.seq).min();
        let before = first.map_or(self.module_needs, |first| first.min(self.module_needs));
        if before > self.forgotten {
            self.forgotten = before;
            out.forget(before);
        }
    }

    /// Does this replica lead PBFT?
    pub(super) fn leads(&self) -> bool {
        protocol::Replica::<Pbft>::status(&self.module).role == "primary"
    }

    /// Asks PBFT to order a certificate; the primary does so at once, a backup when the primary has not.
    pub(super) fn hand_over(&mut self, digest: Digest, out: &mut Outbox) {
        let keyring = self.keyring.clone();
        let Some(pending) = self.pending.get_mut(&digest) else { return };
        let Stage::Certified { certified, request } = &mut pending.stage else { return };
        let Some(client) = keyring.proxy().map(|proxy| keyring.address(&proxy)) else { return };
        let request: Group = request
            .get_or_insert_with(|| {
                let body = Body::Apply(Bytes::from(certified.encode()));
                keyring.sign_as_proxy(Requests {
                    client,
                    session: SessionId::new(1), // PBFT's own filter only: no such session is ever looked up
                    acknowledged: RequestNumber::ZERO,
                    full: None,
                    requests: vec![(number(digest), body)],
                })
            })
            .clone();
        let module = &mut self.module;
        let wanted = nested(out, &LIFT, |inner| {
            protocol::Replica::on_message(module, Peer::Client(client), pbft::Message::Request(request), inner);
        });
        self.carry_out(wanted, out);
    }

    /// Everything that is certified.
    pub(super) fn hand_over_all(&mut self, out: &mut Outbox) {
        let certified = self.pending.iter().filter(|(_, it)| matches!(it.stage, Stage::Certified { .. }));
        for digest in certified.map(|(digest, _)| *digest).collect::<Vec<_>>() {
            self.hand_over(digest, out);
        }
    }

    /// PBFT has ordered this entry: its certificates are inserted by certified time, and among equals by digest. Which of them
    /// hold is decided by their bytes alone, so all replicas decide alike; what was ordered twice, the sessions know.
    fn insert(&mut self, op: OpNumber, batch: &Bytes, out: &mut Outbox) {
        let ordered = Batch::decode(batch).unwrap_or_default();
        let mut found = Vec::new();
        let mut seen = BTreeSet::new();
        for request in ordered.requests {
            let Body::Apply(bytes) = request.body else { continue };
            let Ok(mut certified) = Certified::decode(&bytes) else { continue };
            let digest = digest(&certified.group);
            let holds = certified.prove(&self.keyring, &self.quorums, &self.committee).is_ok();
            if holds && seen.insert(digest) {
                found.push((certified.time(&self.quorums, &self.committee), digest, certified.group));
            }
        }
        found.sort_by_key(|(time, digest, _)| (*time, *digest));
        let digests = found.iter().map(|(_, digest, _)| *digest).collect();
        // The primary's clock counts only in an entry that brings nothing but the tick that the machine asked for.
        let time = found.last().map_or(ordered.time, |(time, ..)| *time);
        let requests = found.iter().flat_map(|(.., group)| requests(group)).collect();
        out.execute(op, Batch { time, tick: ordered.tick, requests }.encode().into());
        self.settle(digests, out);
    }
}

/// The number under which every replica asks PBFT for a publication: when it is ordered, what others asked is done, too.
pub(super) fn number(digest: Digest) -> RequestNumber {
    let first = digest.as_bytes().first_chunk().copied().unwrap_or_default();
    RequestNumber::new(u64::from_le_bytes(first) >> 2)
}

/// A publication's requests as the machine is given them.
fn requests(group: &Group) -> Vec<Request> {
    let it = group.statement();
    let request = |(number, body): &(RequestNumber, Body)| Request {
        client: it.client,
        session: it.session,
        number: *number,
        acknowledged: it.acknowledged,
        body: body.clone(),
    };
    it.requests.iter().map(request).collect()
}

impl Message {
    /// Is it one of PBFT's?
    pub fn module(&self) -> Option<&pbft::Message> {
        match self {
            Message::Module(message) => Some(message),
            _ => None,
        }
    }
}
