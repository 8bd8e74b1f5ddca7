//! PBFT inside: it orders certificates with what they certify, and what it has ordered is inserted by certified time (step 5).

use super::criticality::Levels;
use super::message::{Certified, Message, Reception as Received, digest};
use super::publication::Stage;
use super::replica::Replica;
use super::replies::{Asked, name};
use super::{LIFT, Outbox};
use crate::pbft::{self, Group, Pbft, Requests};
use crate::quorum_client::replica::requests;
use bytes::Bytes;
use quorate_core::crypto::{Digest, Signed};
use quorate_core::ids::{OpNumber, Peer, RequestNumber, SessionId};
use quorate_core::mutated;
use quorate_core::nested::nested;
use quorate_core::outbox::Effect;
use quorate_core::protocol;
use quorate_core::sessions::{Batch, Body};
use quorate_core::wire::Wire;
use std::cmp::Reverse;
use std::collections::BTreeSet;

/// The session of replicas' requests to PBFT: its own filter only, no such session is ever looked up.
pub(super) const SESSION: SessionId = SessionId::new(1);

impl Replica {
    /// Runs a handler of PBFT within this turn, and does what it wants of us.
    pub(super) fn module(
        &mut self,
        out: &mut Outbox,
        handler: impl FnOnce(&mut pbft::Replica, &mut quorate_core::outbox::Outbox<Pbft>),
    ) {
        let led = self.module.leads();
        let module = &mut self.module;
        let wanted = nested(out, &LIFT, |inner| handler(module, inner));
        self.carry_out(wanted, out);
        if !led && self.module.leads() {
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
        let first = self.needed.first().filter(|_| !mutated!("reception/forgets-what-is-pending"));
        let before = first.map_or(self.module_needs, |first| self.module_needs.min(*first));
        if before > self.forgotten {
            self.forgotten = before;
            out.forget(before);
        }
    }

    /// Asks PBFT to order a certificate; the primary does so at once, a backup when the primary has not. A primary that says
    /// that it has the publication is given the receptions that make the certificate, and not all the bytes once more: a group
    /// that is behind would be further behind for them. What a backup asks of PBFT it waits for, either way.
    pub(super) fn hand_over(&mut self, digest: Digest, out: &mut Outbox) {
        let keyring = self.keyring.clone();
        let primary = self.module.primary();
        let has_it = self.receptions.get(&digest).is_some_and(|votes| votes.contains_key(&primary));
        let knows_it = has_it && primary != self.me;
        let Some(pending) = self.pending.get_mut(&digest) else { return };
        let Stage::Certified { certified, request } = &mut pending.stage else { return };
        let Some(client) = keyring.proxy().map(|proxy| keyring.address(&proxy)) else { return };
        let request: Group = request
            .get_or_insert_with(|| {
                let body = Body::Apply(Bytes::from(certified.encode()));
                keyring.sign_as_proxy(Requests {
                    client,
                    session: SESSION,
                    acknowledged: RequestNumber::ZERO,
                    full: None,
                    requests: vec![(name(digest), body)],
                })
            })
            .clone();
        if knows_it && !self.comparisons.holds_the_same(primary, digest) {
            for vote in &certified.receptions {
                // Others' words, and one's own, which came back durable.
                let message = Message::Reception { vote: vote.clone(), again: false };
                out.send_unsynced(Peer::Replica(primary), message);
            }
        }
        let from = if knows_it { Peer::Replica(self.me) } else { Peer::Client(client) }; // PBFT passes on what clients ask
        let module = &mut self.module;
        let wanted = nested(out, &LIFT, |inner| {
            protocol::Replica::on_message(module, from, pbft::Message::Request(request), inner);
        });
        self.carry_out(wanted, out);
    }

    /// Everything that is certified.
    pub(super) fn hand_over_all(&mut self, out: &mut Outbox) {
        for digest in self.in_turn(|pending| matches!(pending.stage, Stage::Certified { .. })) {
            self.hand_over(digest, out);
        }
    }

    /// PBFT has ordered this entry: its certificates are inserted by certified time. What was ordered twice, the sessions know.
    fn insert(&mut self, op: OpNumber, batch: &Bytes, out: &mut Outbox) {
        let rules = Rules { levels: self.levels };
        let mut found = insertion(batch, &rules, |certified| self.is_signed(certified));
        if mutated!("reception/sorts-by-its-own-clock") {
            found.groups.sort_by_key(|(digest, _)| self.pending.get(digest).map(|pending| pending.time));
            found.batch.requests = requests(found.groups.iter().map(|(_, group)| group.statement()));
        }
        let in_full = |digest| self.pending.get(digest).is_some_and(|pending| pending.in_full);
        let asked = Asked::of(found.groups.iter().map(|(digest, group)| (group, in_full(digest))));
        self.asked.insert(op, asked);
        out.execute(op, found.batch.encode().into());
        self.settle(found.groups.into_iter().map(|(digest, _)| digest).collect(), out);
    }

    /// Do the signatures in it hold? What this replica has checked before it does not check again: the answer is the same.
    fn is_signed(&self, certified: &mut Certified) -> bool {
        let digest = digest(&certified.group);
        let group_is_known = self.pending.get(&digest).is_some_and(|pending| pending.group == certified.group);
        let votes = self.receptions.get(&digest);
        let is_known = |vote: &Signed<Received>| {
            votes.and_then(|votes| votes.get(&vote.by())).is_some_and(|known| known.signed() == vote)
        };
        (group_is_known || certified.prove_group(&self.keyring).is_ok())
            && certified.receptions.iter_mut().all(|vote| is_known(vote) || vote.prove(&self.keyring).is_ok())
    }
}

/// What decides which certificates of an entry hold, and when they were received. The same at every replica.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    pub levels: Levels,
}

/// What the machine is given in the place of an entry.
#[derive(Debug)]
pub(super) struct Insertion {
    pub batch: Batch,
    /// The publications in it, in order.
    pub groups: Vec<(Digest, Group)>,
    /// How many liars the time of each bears.
    pub levels: Vec<usize>,
    /// Certificates that do not hold.
    pub void: u64,
}

/// Step 5: what an entry inserts, by certified time, and among equals by digest. Which certificates hold is decided by their
/// bytes alone, so all replicas decide alike.
///
/// A lower level is its writer's risk and nobody else's (C.3): e + 1 liars may have chosen its time. So what bears more liars is inserted
/// first, whatever times the others claim; and a time that bears fewer than f moves the agreed time, which never goes back, no
/// further than the primary's clock, which a quorum has looked at.
pub(super) fn insertion(entry: &Bytes, rules: &Rules, mut is_signed: impl FnMut(&mut Certified) -> bool) -> Insertion {
    let ordered = Batch::decode(entry).unwrap_or_default();
    let (levels, highest) = (&rules.levels, rules.levels.group().faults());
    let (mut found, mut seen, mut void) = (Vec::new(), BTreeSet::new(), 0_u64);
    for request in ordered.requests {
        let certified = match request.body {
            Body::Apply(bytes) => Certified::decode(&bytes).ok(),
            _ => None,
        };
        let mut holds = |it: &mut Certified| {
            let checked = it.check(digest(&it.group), levels).is_ok() && is_signed(it);
            checked || mutated!("reception/a-certificate-is-believed")
        };
        let Some(certified) = certified.and_then(|mut it| holds(&mut it).then_some(it)) else {
            void = void.saturating_add(1);
            continue;
        };
        let digest = digest(&certified.group);
        if seen.insert(digest) {
            let (level, time) = (certified.level(levels), certified.time(levels));
            let time = if level < highest { time.min(ordered.time) } else { time };
            found.push((Reverse(level), time, digest, certified.group));
        }
    }
    found.sort_by_key(|(level, time, digest, _)| (*level, *time, *digest));
    // The primary's clock counts by itself only in an entry that brings nothing but the tick that the machine asked for.
    let time = found.iter().map(|(_, time, ..)| *time).max().unwrap_or(ordered.time);
    let requests = requests(found.iter().map(|(.., group)| group.statement()));
    let levels = found.iter().map(|(Reverse(level), ..)| *level).collect();
    let groups = found.into_iter().map(|(.., digest, group)| (digest, group)).collect();
    Insertion { batch: Batch { time, tick: ordered.tick, requests }, groups, levels, void }
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
