//! Starting from what the disk holds.

use super::Outbox;
use super::durable::{Record, Silence};
use super::epoch::{Epoch, Proposal};
use super::lanes::{Lane, Uncertified};
use super::message::{Decided, Message, StateMark, Vote};
use super::pool::Pool;
use super::replica::{Bounds, CatchUp, Machine, Replica};
use crate::pbft::pace::{Grants, Quotas};
use crate::quorum_client::replica::Reads;
use quorate_core::crypto::Keyring;
use quorate_core::ids::{OpNumber, RecordSeq, ReplicaId};
use quorate_core::mutated;
use quorate_core::outbox::Note;
use quorate_core::protocol::{Restore, RestoreError, Restored};
use quorate_core::quorum::ByzantineQuorums;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What the records say, in their order.
struct Replayed {
    quorums: ByzantineQuorums,
    base: Decided,
    floor: u64,
    silent: Option<Silence>,
    lanes: Vec<Lane>,
    epochs: BTreeMap<OpNumber, Epoch>,
    said: BTreeMap<OpNumber, Vec<Vote>>,
    decided: BTreeMap<OpNumber, (Decided, RecordSeq)>,
    states: BTreeMap<OpNumber, StateMark>,
    lost: Option<String>,
}

impl Replayed {
    fn take(&mut self, record: Restored<Record>, keyring: &Keyring) {
        let (seq, record) = match record {
            Restored::Found { seq, record } => (seq, record),
            Restored::Damaged { seq, .. } => {
                // Whatever it was, it may have been a promise: that a batch was acknowledged is one, too.
                self.lost = Some(format!("record {seq}"));
                return;
            }
        };
        match record {
            Record::Batch(batch, acknowledged) => {
                let head = batch.head();
                let Some(lane) = self.lanes.get_mut(batch.lane().index()) else { return };
                let mut batch = batch;
                if batch.link.prove(keyring).is_err() {
                    self.lost = Some(format!("the batch in record {seq}"));
                    return;
                }
                lane.hold(batch);
                lane.recorded(head, seq);
                if acknowledged {
                    lane.ack(head);
                }
            }
            Record::Approved(mut vector) => {
                let (op, by) = (vector.statement().op, vector.by());
                let vector = vector.prove(keyring).and_then(|()| vector.verified());
                let Ok(vector) = vector else {
                    self.lost = Some(format!("the proposal in record {seq}"));
                    return;
                };
                let epoch = self.epochs.entry(op).or_insert_with(|| Epoch::new(self.quorums));
                epoch.recorded(seq);
                epoch.approved.insert(by, Proposal { digest: vector.statement().digest(), vector });
            }
            Record::Certified(certificate) => {
                let it = *certificate.statement();
                let epoch = self.epochs.entry(it.op).or_insert_with(|| Epoch::new(self.quorums));
                epoch.recorded(seq);
                epoch.certificates.insert(it.proposer, certificate);
            }
            Record::Said(votes) => {
                for vote in votes {
                    self.epochs.entry(vote.op).or_insert_with(|| Epoch::new(self.quorums)).recorded(seq);
                    self.said.entry(vote.op).or_default().push(vote);
                }
            }
            Record::Decided(decided) => drop(self.decided.insert(decided.op, (decided, seq))),
            Record::State(mark) => drop(self.states.insert(mark.checkpoint.op, mark)),
            Record::Base(base) => {
                let nothing = Decided::nothing(self.quorums.replicas());
                self.base = base.decided.unwrap_or(nothing);
                (self.floor, self.silent) = (base.height, base.silent);
            }
        }
    }

    /// The epochs that follow on the base without a gap. Others are asked for again.
    fn contiguous(&mut self) {
        self.decided = self.decided.split_off(&self.base.op.next());
        let mut last = self.base.clone();
        let mut good = BTreeMap::new();
        for (op, (decided, seq)) in std::mem::take(&mut self.decided) {
            let here = self.lanes.iter().zip(decided.heads.iter().zip(&last.heads));
            let complete = decided.is_of(self.lanes.len())
                && here.into_iter().all(|(lane, (head, before))| lane.chain(*head, before.height).is_ok());
            if last.next(decided.time, decided.heads.clone(), decided.counted.clone()) != decided || !complete {
                break; // a record between them is damaged
            }
            last = decided.clone();
            good.insert(op, (decided, seq));
        }
        for (lane, head) in self.lanes.iter_mut().zip(&last.heads) {
            lane.commit(*head);
        }
        for (lane, head) in self.lanes.iter_mut().zip(&self.base.heads) {
            lane.trim(head.height);
        }
        self.decided = good;
    }
}

/// Starts from what the disk holds.
pub(super) fn restore(
    restore: Restore<super::AsyncTob>,
    keyring: Arc<Keyring>,
    out: &mut Outbox,
) -> Result<Replica, RestoreError> {
    let quorums = ByzantineQuorums::new(restore.replicas).ok_or(RestoreError::GroupSize(restore.replicas))?;
    if keyring.replica() != Some(restore.replica) || keyring.replicas() != restore.replicas || !keyring.tosses() {
        return Err(RestoreError::NoKey);
    }
    let is_new = restore.records.is_empty() && !restore.tail_damaged;
    let mut replayed = Replayed {
        quorums,
        base: Decided::nothing(restore.replicas),
        floor: 0,
        silent: None,
        lanes: (0..restore.replicas).map(|_| Lane::default()).collect(),
        epochs: BTreeMap::new(),
        said: BTreeMap::new(),
        decided: BTreeMap::new(),
        states: BTreeMap::new(),
        lost: None,
    };
    for record in restore.records {
        replayed.take(record, &keyring);
    }
    if restore.tail_damaged {
        replayed.lost.get_or_insert_with(|| "the end of the log".to_owned());
    }
    if let Some(what) = &replayed.lost {
        if quorums.faults() == 0 {
            return Err(RestoreError::PromisesLost(what.clone()));
        }
        replayed.silent = Some(Silence { until: None });
    }
    replayed.contiguous();
    let lost = replayed.lost.is_some();
    let words = std::mem::take(&mut replayed.said);
    let at = restore.checkpoint.map_or(OpNumber::ZERO, |checkpoint| checkpoint.op);
    let mut replica = assemble(replayed, restore.replica, restore.config, keyring, out);
    replica.machine = Machine { dispatched: at, executed: at, boundary: at, wake: restore.wake, ..Machine::default() };
    if let Some(checkpoint) = restore.checkpoint {
        // The snapshot may have become durable before the record that tells of it.
        let known = replica.snapshots.remove(&at).filter(|mark| mark.checkpoint == checkpoint);
        let decided = replica.decided_at(at).cloned();
        let mark = known.or_else(|| Some(StateMark { checkpoint, decided: decided? }));
        replica.snapshots = mark.into_iter().map(|mark| (at, mark)).collect();
        if let Some(mark) = replica.snapshots.get(&at).filter(|_| at > replica.committed()) {
            replica.stand_on(mark.decided.clone());
        }
    } else {
        replica.snapshots.clear();
    }
    if replica.lacks_state() && quorums.replicas() == 1 {
        let begins = replica.base.op;
        return Err(RestoreError::Contradiction(format!(
            "it begins after epoch {begins}, and no state of it can be read"
        )));
    }
    replica.resume(is_new, lost, words, out);
    Ok(replica)
}

fn assemble(it: Replayed, me: ReplicaId, config: super::Config, keyring: Arc<Keyring>, out: &Outbox) -> Replica {
    Replica {
        me,
        quorums: it.quorums,
        config,
        keyring,
        base: it.base,
        decided: it.decided,
        floor: it.floor,
        silent: it.silent,
        lanes: it.lanes,
        uncertified: Uncertified::default(),
        closed_before: OpNumber::ZERO,
        epochs: it.epochs,
        words: Vec::new(),
        speaking: false,
        pool: Pool::default(),
        machine: Machine::default(),
        reads: Reads::default(),
        quotas: Quotas::default(),
        grants: Grants::default(),
        tick_due: false,
        snapshots: it.states,
        peers: BTreeMap::new(),
        catch_up: CatchUp::default(),
        bounds: Bounds { nonce: out.nonce(), told: BTreeMap::new() },
        again: false,
        pause: config.resend,
        told: 0,
        was_at: OpNumber::ZERO,
        stands: None,
        progress: 0,
    }
}

impl Replica {
    /// The log ends before the state that the machine is in: it begins there.
    fn stand_on(&mut self, decided: Decided) {
        for (lane, head) in self.lanes.iter_mut().zip(&decided.heads) {
            lane.commit(*head);
        }
        self.decided.clear();
        self.base = decided;
    }

    /// Takes up what the former life was doing: says the same again.
    fn resume(&mut self, is_new: bool, lost: bool, words: BTreeMap<OpNumber, Vec<Vote>>, out: &mut Outbox) {
        if is_new || lost {
            self.persist(Record::Base(self.base_record()), out);
        }
        if lost {
            out.note(Note::Other("promises are damaged: it says nothing until the group is beyond them"));
        }
        let spoken = self.epochs.last_key_value().map_or(0, |(op, _)| op.get());
        if !mutated!("async-tob/forgets-where-it-was") {
            self.closed_before = OpNumber::new(spoken.saturating_sub(super::WINDOW_EPOCHS));
        }
        self.close();
        let mut again = Vec::new();
        let closed = self.closed_before;
        for (op, words) in words.into_iter().filter(|(op, _)| *op > closed) {
            let quorums = self.quorums;
            self.epoch(op).restore(quorums, &words);
            again.extend(words);
        }
        if !lost {
            for some in again.chunks(super::WORDS_MAX) {
                out.send(self.me(), Message::Agree(some.to_vec())); // they are on disk, and count
            }
            self.acknowledge_again(out);
            self.approve_again(out);
            // A proposal that was shown to be approved, and wished for by nobody yet.
            let open: Vec<OpNumber> = self.epochs.keys().copied().collect();
            for op in open {
                if !mutated!("async-tob/forgets-what-was-proven") {
                    self.consider(op, out);
                }
            }
        }
        if !is_new {
            out.broadcast(self.status_message(true));
            self.ask_bound(out);
        }
        self.dispatch(out);
        self.arm_tick(out);
        self.begin(out);
        self.speak(out);
        self.expect_progress(out);
    }

    /// My own batches that are not committed: whether they are certified is found out again.
    fn acknowledge_again(&mut self, out: &mut Outbox) {
        let Some(lane) = self.lanes.get(self.me.index()) else { return };
        for head in lane.acked() {
            self.uncertified.add(head.height);
            let ack = self.keyring.sign(super::Ack { lane: self.me, head });
            out.send(self.me(), Message::Ack(ack));
        }
    }

    /// My own proposals: who has approved them is found out again.
    fn approve_again(&mut self, out: &mut Outbox) {
        let own = self.epochs.iter().filter_map(|(op, epoch)| Some((*op, epoch.approved.get(&self.me)?.digest)));
        for (op, digest) in own.collect::<Vec<_>>() {
            let approval = self.keyring.sign(super::Approval { op, proposer: self.me, digest });
            out.send(self.me(), Message::PAck(approval));
        }
    }
}
