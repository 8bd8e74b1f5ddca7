//! What was lost: messages, and the life before.

use super::compare::Comparisons;
use super::criticality::Levels;
use super::durable::Record;
use super::message::{Message, Reception as Received, digest};
use super::publication::{Pending, Stage};
use super::replica::Replica;
use super::spent::Spent;
use super::{LIFT, Outbox, Reception, Timer};
use crate::pbft::pace::Quotas;
use crate::pbft::{self, Pbft};
use quorate_core::crypto::{Digest, Keyring};
use quorate_core::ids::RecordSeq;
use quorate_core::mutated;
use quorate_core::nested::nested;
use quorate_core::protocol::{self, Restore, RestoreError, Restored};
use quorate_core::quorum::ByzantineQuorums;
use quorate_core::time::WallTime;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// Publications that one turn of the timer hands over again.
const AGAIN_MAX: usize = 256;

impl Replica {
    /// What waits is compared with what waits elsewhere, and told where it is lacking. What is certified and not ordered goes to PBFT
    /// from here, too: a primary that leaves a certificate out is suspected like one that leaves out a client's request.
    pub(super) fn on_again(&mut self, out: &mut Outbox) {
        self.again = false;
        let (now, longest) = (out.now(), self.config.resend_max);
        let due = self.in_turn(|pending| pending.next <= now);
        due.iter().for_each(|digest| self.has_waited(*digest));
        self.compare(out);
        for digest in due.into_iter().take(AGAIN_MAX) {
            let Some(pending) = self.pending.get_mut(&digest) else { continue };
            pending.next = now.plus(pending.pause);
            pending.pause = pending.pause.saturating_mul(2).min(longest);
            let is_certified = matches!(pending.stage, Stage::Certified { .. });
            if is_certified && !mutated!("reception/backups-hand-nothing-over") {
                self.hand_over(digest, out);
            }
        }
        self.expect_again(out); // unless PBFT has ordered the rest in this very turn
    }

    /// What is pending and meant, one publication of each key's clients in turn, and of one key the longest overdue first. Digests
    /// decide nothing, since clients choose them; and nobody's flood is in front of what others wait for.
    pub(super) fn in_turn(&self, is_meant: impl Fn(&Pending) -> bool) -> Vec<Digest> {
        let meant = self.pending.iter().filter(|(_, pending)| is_meant(pending));
        let mut found: Vec<_> =
            meant.map(|(digest, pending)| (pending.next, *digest, pending.group.by().key)).collect();
        found.sort_unstable();
        let mut before: BTreeMap<_, usize> = BTreeMap::new();
        let place = |(_, digest, key)| {
            let before = before.entry(key).or_default();
            *before = before.saturating_add(1);
            (*before, digest)
        };
        let mut found: Vec<(usize, Digest)> = found.into_iter().map(place).collect();
        found.sort_by_key(|(place, _)| *place); // stable: among equals the longest overdue is first
        found.into_iter().map(|(_, digest)| digest).collect()
    }
}

/// What the records say, in their order.
#[derive(Default)]
struct Replayed {
    module: Vec<Restored<pbft::Record>>,
    publications: BTreeMap<Digest, (RecordSeq, pbft::Group)>,
    received: BTreeMap<Digest, WallTime>,
    clock: WallTime,
}

impl Replayed {
    fn take(&mut self, record: Restored<Record>, keyring: &Keyring) {
        let (seq, record) = match record {
            Restored::Found { seq, record } => (seq, record),
            // Nobody knows whose it was.
            Restored::Damaged { seq, at_most, class } => {
                return self.module.push(Restored::Damaged { seq, at_most, class });
            }
        };
        match record {
            Record::Module(record) => self.module.push(Restored::Found { seq, record }),
            Record::Publication(group) => {
                let mut message = Message::Publication(group);
                if message.prove(keyring).is_ok()
                    && let Message::Publication(group) = message
                {
                    self.publications.insert(digest(&group), (seq, group));
                }
            }
            Record::Received { digest, time } => {
                self.clock = self.clock.max(time);
                self.received.insert(digest, time);
            }
            Record::Inserted(digests) => {
                for digest in digests {
                    self.publications.remove(&digest);
                    self.received.remove(&digest);
                }
            }
        }
    }
}

/// Starts from what the disk holds.
pub(super) fn restore(
    restore: Restore<Reception>,
    keyring: Arc<Keyring>,
    out: &mut Outbox,
) -> Result<Replica, RestoreError> {
    let quorums = ByzantineQuorums::new(restore.replicas).ok_or(RestoreError::GroupSize(restore.replicas))?;
    let mut replayed = Replayed::default();
    for record in restore.records {
        replayed.take(record, &keyring);
    }
    let inner = Restore::<Pbft> {
        replica: restore.replica,
        replicas: restore.replicas,
        // What PBFT orders here are certificates, and the machine is given something else: nothing to try in advance.
        config: pbft::Config { tentative_requests: 0, ..restore.config.module },
        records: replayed.module,
        tail_damaged: restore.tail_damaged,
        checkpoint: restore.checkpoint,
        wake: restore.wake,
    };
    let mut started = None;
    let keys = keyring.clone();
    let wanted = nested(out, &LIFT, |inner_out| {
        started = Some(<pbft::Replica as protocol::Replica<Pbft>>::start(inner, keys, inner_out));
    });
    let Some(module) = started else { return Err(RestoreError::NoKey) };
    let mut replica = Replica {
        me: restore.replica,
        config: restore.config,
        keyring,
        quorums,
        levels: Levels::new(&restore.config, quorums),
        module: module?,
        clock: replayed.clock,
        promised: BTreeMap::new(),
        pending: BTreeMap::new(),
        receptions: BTreeMap::new(),
        unknown: BTreeMap::new(),
        parked: BTreeMap::new(),
        quotas: Quotas::default(),
        inserted: BTreeMap::new(),
        inserted_order: VecDeque::new(),
        bytes: BTreeMap::new(),
        client_bytes: BTreeMap::new(),
        module_needs: RecordSeq::ZERO,
        forgotten: RecordSeq::ZERO,
        asked: BTreeMap::new(),
        answered: pbft::Answered::default(),
        spent: Spent::default(),
        comparisons: Comparisons::default(),
        needed: BTreeSet::new(),
        again: false,
        pulling: false,
    };
    replica.resume(replayed.publications, replayed.received, out);
    replica.carry_out(wanted, out);
    replica.hand_over_all(out);
    Ok(replica)
}

impl Replica {
    /// Takes up what was received and not ordered: the same times as before.
    fn resume(
        &mut self,
        mut publications: BTreeMap<Digest, (RecordSeq, pbft::Group)>,
        received: BTreeMap<Digest, WallTime>,
        out: &mut Outbox,
    ) {
        for (digest, time) in received {
            let Some((seq, group)) = publications.remove(&digest) else {
                self.promised.insert(digest, time); // its bytes are damaged: others have them
                continue;
            };
            let (next, pause) = (out.now().plus(self.config.resend), self.config.resend);
            let stage = Stage::Received;
            let pending = Pending { group, seq, time, giver: None, in_full: false, stage, next, pause };
            self.enter(digest, pending);
            self.has_waited(digest);
            let vote = self.keyring.sign(Received { digest, time }); // the same as before: it is on disk
            out.send(self.me(), Message::Reception { vote, again: true });
        }
        if !self.pending.is_empty() {
            self.again = true;
            out.arm(Timer::Again, self.config.pull); // the others are told what they lack of it
        }
    }
}
