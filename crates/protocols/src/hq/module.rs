//! PBFT inside HQ (`docs/adr/001-seam.md`, *Nesting*). It orders quorums of STARTs, operations on several objects, and requests
//! for objects in ordered mode, and who has lost its disk; its clients are the replicas, and while there is none of these it sends nothing and arms no timer.

use super::durable::Record;
use super::message::{Message, Ordered, Start, Write};
use super::ordered::Rank;
use super::rejoin::Lived;
use super::replica::Replica;
use super::{Hq, Outbox, Timer};
use crate::pbft::{self, Pbft};
use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;
use quorate_core::crypto::{ClientKey, Digest, Signed};
use quorate_core::ids::{ClientId, OpNumber, Peer, ReplicaId, RequestNumber, SessionId};
use quorate_core::nested::{Lift, nested};
use quorate_core::outbox::Effect;
use quorate_core::protocol;
use quorate_core::sessions::{Batch, Body, Outcome};
use quorate_core::wire::Wire;
use std::collections::BTreeSet;

/// PBFT's words in ours.
pub(super) const LIFT: Lift<Pbft, Hq> = Lift { message: Message::Module, record: Record::Module, timer: Timer::Module };

/// What PBFT orders.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Entry {
    /// A quorum of STARTs of one object, in the order of their signers: a resolution.
    Starts(Vec<Signed<Start>>),
    /// An operation on several objects.
    Ordered(Box<Ordered>),
    /// A request for an object in ordered mode.
    Write(Box<Write>),
    /// The replica that asks has lost its disk, and begins a new life.
    Rejoin {
        /// So many disks has it lost.
        number: u64,
        /// Names the life.
        nonce: u64,
    },
    /// The replica that asks may not grant the next place of this object, and is needed.
    Renew(Digest),
}

impl Replica {
    /// Who leads PBFT, as far as this replica knows.
    pub(super) fn primary(&self) -> ReplicaId {
        self.quorums.primary(self.module.view())
    }

    /// The last resolution of an object, or the last entry of ordered mode, in PBFT's order.
    pub(super) fn resolved(&self, id: Digest) -> OpNumber {
        self.course(id).seen
    }

    /// Runs a handler of PBFT within this turn, and does what it wants of us.
    pub(super) fn module(
        &mut self,
        out: &mut Outbox,
        handler: impl FnOnce(&mut pbft::Replica, &mut quorate_core::outbox::Outbox<Pbft>),
    ) {
        let before = out.effects().len();
        let module = &mut self.module;
        let wanted: std::collections::VecDeque<_> = nested(out, &LIFT, |inner| handler(module, inner)).into();
        self.note_records(before, out);
        self.carry_out_module(wanted, out);
    }

    /// What PBFT wants of us: that we execute what it has ordered.
    pub(super) fn carry_out_module(&mut self, mut wanted: std::collections::VecDeque<Effect<Pbft>>, out: &mut Outbox) {
        while let Some(effect) = wanted.pop_front() {
            match effect {
                Effect::Execute { op, batch } => {
                    self.decided(op, &batch, out);
                    self.across.through = op;
                    self.forget_results();
                    self.consider_cut(op, batch.len());
                    let before = out.effects().len();
                    let module = &mut self.module;
                    wanted.extend(nested(out, &LIFT, |inner| {
                        protocol::Replica::on_executed(module, op, Outcome::default(), inner);
                    }));
                    self.note_records(before, out);
                }
                Effect::Forget(before) => {
                    self.carried = self.carried.split_off(&before);
                    self.places = self.carried.iter().map(|(known, (place, _))| (*place, *known)).collect();
                }
                Effect::Fetch { checkpoint, from } => self.fetch_cut(checkpoint, from, out),
                // Its state is what its order has led to (`cut.rs`): there is nothing to ask of a machine, and by its
                // configuration it does not want to; when to save it is ours to say.
                _ => {}
            }
        }
    }

    /// PBFT's records are carried along when the log's beginning goes.
    pub(super) fn note_records(&mut self, before: usize, out: &Outbox) {
        for effect in out.effects().iter().skip(before) {
            if let Effect::Persist { seq, record: Record::Module(record), .. } = effect {
                self.carried.insert(*seq, (*seq, record.clone()));
                self.places.insert(*seq, *seq);
            }
        }
    }

    /// PBFT has ordered this: the upcall of R4.
    fn decided(&mut self, op: OpNumber, batch: &Bytes, out: &mut Outbox) {
        let Ok(batch) = Batch::decode(batch) else { return };
        let (time, mut written) = (batch.time, BTreeSet::new());
        for (index, request) in (0..).zip(batch.requests) {
            self.submitted(request.client, request.number);
            if let Body::Apply(bytes) = request.body {
                match Entry::decode(&bytes) {
                    Ok(Entry::Starts(starts)) => self.on_resolution(op, starts, out),
                    Ok(Entry::Ordered(ordered)) => self.on_decided_ordered(Rank { entry: op, index }, *ordered, out),
                    Ok(Entry::Write(write)) => {
                        written.extend(self.on_decided_write(Rank { entry: op, index }, *write, out));
                    }
                    Ok(Entry::Rejoin { number, nonce }) => {
                        let lived = Lived { entry: op, number, nonce, time };
                        self.asker(request.client).into_iter().for_each(|by| self.on_rejoin(by, lived, out));
                    }
                    Ok(Entry::Renew(id)) => {
                        self.asker(request.client).into_iter().for_each(|by| self.on_renew(by, id, op, out));
                    }
                    Err(_) => {} // a liar's
                }
            }
        }
        written.iter().for_each(|id| self.seal(*id, op));
        written.into_iter().for_each(|id| self.proceed(id, out));
    }

    /// Which replica asks PBFT under this name? Its key has signed the request.
    pub(super) fn asker(&self, client: ClientId) -> Option<ReplicaId> {
        let is_it = |key: &ClientKey| self.keyring.address(key) == client;
        self.quorums.members().find(|replica| self.keyring.proxy_of(*replica).as_ref().is_some_and(is_it))
    }

    /// Asks PBFT to order this, in this replica's name.
    pub(super) fn submit_entry(&mut self, entry: &Entry, out: &mut Outbox) {
        self.submit_entries(std::slice::from_ref(entry), out);
    }

    /// Asks PBFT to order these together, in this order. The number of the last one, and the request.
    pub(super) fn submit_entries(
        &mut self,
        entries: &[Entry],
        out: &mut Outbox,
    ) -> (RequestNumber, Option<pbft::Message>) {
        let first = RequestNumber::new(self.requests).next();
        self.requests = self.requests.saturating_add(entries.len() as u64);
        let last = RequestNumber::new(self.requests);
        let Some(key) = self.keyring.proxy() else { return (last, None) };
        let client = self.keyring.address(&key);
        let numbers = (0..).map(|index| first.plus(index));
        let bodies = entries.iter().map(|entry| Body::Apply(entry.encode().into()));
        let group = self.keyring.sign_as_proxy(pbft::Requests {
            client,
            session: SessionId::new(1),
            acknowledged: RequestNumber::ZERO,
            full: None,
            requests: numbers.zip(bodies).collect(),
        });
        let message = pbft::Message::Request(group);
        let request = message.clone();
        self.module(out, |module, out| protocol::Replica::on_message(module, Peer::Client(client), message, out));
        (last, Some(request))
    }
}
