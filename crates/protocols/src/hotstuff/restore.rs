//! Starting from what the disk holds.

use super::ahead::Ahead;
use super::durable::{Base, Record, Root, Safety, Silence};
use super::message::{Block, Message, Qc, StateCheckpoint, Tc};
use super::replica::{Bounds, Machine, Replica};
use super::safety::Rules;
use super::tree::Tree;
use super::{HotStuff, Outbox};
use crate::pbft::pace::{Grants, Quotas};
use crate::pbft::pool::Pool;
use crate::quorum_client::replica::Reads;
use quorate_core::crypto::Keyring;
use quorate_core::ids::{OpNumber, RecordSeq, View};
use quorate_core::mutated;
use quorate_core::outbox::{Class, Note};
use quorate_core::protocol::{Restore, RestoreError, Restored};
use quorate_core::quorum::ByzantineQuorums;
use quorate_core::time::WallTime;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What the records say, in their order.
#[derive(Default)]
pub(super) struct Replayed {
    pub(super) base: Base,
    pub(super) blocks: Vec<(RecordSeq, Block)>,
    /// The blocks of snapshots: nothing but what is committed is in one.
    pub(super) roots: BTreeMap<OpNumber, Root>,
    lost: Option<String>,
}

impl Replayed {
    pub(super) fn take(&mut self, record: Restored<Record>) {
        let (seq, record) = match record {
            Restored::Found { seq, record } => (seq, record),
            Restored::Damaged { class: Some(Class::Entry), .. } => return, // peers have it
            Restored::Damaged { seq, .. } => {
                self.lost = Some(format!("record {seq}"));
                return;
            }
        };
        match record {
            Record::Block(block) => self.blocks.push((seq, *block)),
            Record::Safety(safety) => self.base.safety = *safety,
            Record::Root(root) => drop(self.roots.insert(root.op, root)),
            Record::Base(base) => {
                self.roots.extend(base.roots.iter().map(|root| (root.op, *root)));
                self.base = *base;
            }
        }
    }
}

/// The promises' certificates, checked again: a disk is not believed.
fn certificates(safety: &Safety, keyring: &Keyring, quorum: usize) -> Option<(Qc, Option<Tc>)> {
    let mut high = safety.high.clone();
    high.prove(keyring).ok()?;
    let mut tc = safety.tc.clone();
    tc.iter_mut().try_for_each(|tc| tc.prove(keyring)).ok()?;
    let tc = tc.map(|tc| tc.certified(quorum)).transpose().ok()?;
    Some((high.certified(quorum).ok()?, tc))
}

/// The tree that the blocks make, and what of it is certainly committed.
fn grow(root: Root, mut blocks: Vec<(RecordSeq, Block)>, high: &Qc, rules: Rules) -> Tree {
    let mut tree = Tree::new(root);
    blocks.sort_by_key(|(seq, block)| (block.header.height, *seq));
    let mut certified = Vec::new();
    for (seq, block) in blocks {
        let (id, header) = (block.header.id(), block.header);
        let parent = tree.root(header.parent);
        if header.height > root.op && !tree.contains(id) && parent.is_some_and(|it| it.op.next() == header.height) {
            certified.push(header.parent);
            tree.insert(id, block, seq);
        }
    }
    for certified in certified.into_iter().chain([high.block()]) {
        let Some(committed) = rules.commits(|id| tree.header(id), certified) else { continue };
        tree.branch(committed).unwrap_or_default().into_iter().for_each(|id| tree.commit(id));
    }
    tree
}

/// Starts from what the disk holds.
pub(super) fn restore(
    restore: Restore<HotStuff>,
    keyring: Arc<Keyring>,
    out: &mut Outbox,
) -> Result<Replica, RestoreError> {
    let quorums = ByzantineQuorums::new(restore.replicas).ok_or(RestoreError::GroupSize(restore.replicas))?;
    if keyring.replica() != Some(restore.replica) || keyring.replicas() != restore.replicas {
        return Err(RestoreError::NoKey);
    }
    let is_new = restore.records.is_empty() && !restore.tail_damaged;
    let mut replayed = Replayed::default();
    restore.records.into_iter().for_each(|record| replayed.take(record));
    let Replayed { mut base, blocks, roots, lost } = replayed;
    let mut lost = lost.or_else(|| restore.tail_damaged.then(|| "the end of the log".to_owned()));
    let (high, tc) = certificates(&base.safety, &keyring, quorums.quorum()).unwrap_or_else(|| {
        lost = Some("a certificate".to_owned());
        base.safety = Safety::default();
        (Qc::Genesis, None)
    });
    if let Some(what) = &lost {
        if quorums.faults() == 0 {
            return Err(RestoreError::PromisesLost(what.clone()));
        }
        base.silent = Some(Silence { until: None });
    }
    base.safety.view = base.safety.view.max(View::ZERO.next());
    let at = restore.checkpoint.map_or(OpNumber::ZERO, |checkpoint| checkpoint.op);
    let root = match at {
        OpNumber::ZERO => Root::default(),
        at if at == base.root.op => base.root,
        at => {
            *roots.get(&at).ok_or_else(|| RestoreError::PromisesLost(format!("the block of the snapshot at {at}")))?
        }
    };
    // If the last snapshot is gone, the log after it does not help: others are asked from the one before on.
    let begin = if at < base.root.op { root } else { base.root };
    let mut tree = grow(begin, blocks, &high, restore.config.rules);
    if at > tree.head().op {
        // The snapshot was made of what is committed, and became durable before the certificate that says so; or it was fetched.
        match tree.branch(root.block) {
            Some(branch) => branch.into_iter().for_each(|id| tree.commit(id)),
            None => drop(tree.begin_at(root)),
        }
    }
    tree.drop_losers();
    let own = restore.checkpoint.map(|checkpoint| StateCheckpoint { checkpoint, root });
    let machine = Machine { dispatched: at, executed: at, boundary: at, wake: restore.wake, ..Machine::default() };
    let (safety, committed) = (base.safety, tree.head().op);
    let mut replica = Replica {
        me: restore.replica,
        quorums,
        config: restore.config,
        keyring,
        not_before: if mutated!("hotstuff/leads-its-term-again") { View::ZERO } else { safety.begun },
        safety,
        state: base.state,
        silent: base.silent.filter(|_| !mutated!("hotstuff/a-lost-disk-votes-at-once")),
        dirty: false,
        tree,
        high,
        decisive: None,
        tc,
        seen: None,
        proposed: None,
        cued: false,
        early: None,
        votes: BTreeMap::new(),
        timeouts: BTreeMap::new(),
        own_vote: None,
        own_timeout: None,
        pool: Pool::default(),
        concern: None,
        attempts: 0,
        state_votes: BTreeMap::new(),
        boundaries: roots,
        snapshots: own.map(|own| (at, own)).into_iter().collect(),
        machine,
        ahead: Ahead::default(),
        reads: Reads::default(),
        batch_time: WallTime::default(),
        tick_due: false,
        ticked: OpNumber::ZERO,
        peers: BTreeMap::new(),
        asked: None,
        ask_turn: 0,
        again: false,
        pause: restore.config.resend,
        told: super::Place { view: View::ZERO, high: View::ZERO, committed },
        quotas: Quotas::default(),
        bounds: Bounds { nonce: out.nonce(), told: BTreeMap::new() },
        grants: Grants::default(),
    };
    replica.resume(is_new, lost.is_some(), out);
    Ok(replica)
}

impl Replica {
    /// Takes up what the former life was doing.
    fn resume(&mut self, is_new: bool, lost: bool, out: &mut Outbox) {
        if is_new || lost {
            self.write_base(out);
        }
        if lost {
            out.note(Note::Other("promises are damaged: it votes for nothing until a block beyond them is committed"));
        }
        // The same statements: they are on disk.
        self.own_vote = self.safety.vote.map(|mut vote| {
            if mutated!("hotstuff/says-another-vote-again") {
                vote.block = self.safety.locked.block;
            }
            self.keyring.sign(vote)
        });
        let timeout = self.safety.timeout.filter(|timeout| timeout.view >= self.view() && self.may_vote());
        self.own_timeout = timeout.map(|timeout| self.keyring.sign(timeout));
        if let Some(timeout) = self.own_timeout.clone() {
            out.send(self.me(), Message::Timeout { timeout, justify: self.high.justify() }); // so that it is counted
        }
        if let Some(vote) = self.own_vote.clone().filter(|vote| vote.statement().view > self.high.view()) {
            out.send(self.me(), Message::Vote(vote)); // so that it is counted, if this is who collects them
        }
        if self.leads() && self.not_before >= self.view() {
            // It may have proposed what its disk never took: it does not lead this term again.
            self.time_out(self.config.term_end(self.view()), out);
        }
        self.end_silence(out);
        self.dispatch(out);
        self.arm_tick(out);
        self.watch(out);
        self.propose_more(out);
        self.expect_progress(out);
    }
}
