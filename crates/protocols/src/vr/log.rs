//! The log as a replica knows it: entries after the base, whole or missing, each linked to the one before by its checksum.
//! And how it comes back from the journal.

use super::durable::{Base, Promise, Record, Suffix};
use super::message::{Entry, Header, Vouch};
use bytes::Bytes;
use quorate_core::crypto::Digest;
use quorate_core::ids::{OpNumber, RecordSeq};
use quorate_core::mutated;
use quorate_core::outbox::Class;
use quorate_core::protocol::{RestoreError, Restored};
use std::collections::{BTreeMap, VecDeque};

/// An entry that is here.
#[derive(Clone, Debug)]
pub(super) struct Whole {
    pub(super) header: Header,
    pub(super) checksum: Digest,
    pub(super) batch: Bytes,
    pub(super) seq: RecordSeq,
}

/// An entry that is known to exist and is not here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Missing {
    pub(super) header: Option<Header>,
    pub(super) checksum: Option<Digest>,
    /// It was on this disk once, or may have been: it may have been acknowledged (vr.md §2.4, present and nack).
    pub(super) damaged: bool,
}

/// One place of the log.
#[derive(Clone, Debug)]
pub(super) enum Slot {
    Whole(Whole),
    Missing(Missing),
}

impl Slot {
    fn checksum(&self) -> Option<Digest> {
        match self {
            Slot::Whole(whole) => Some(whole.checksum),
            Slot::Missing(missing) => missing.checksum,
        }
    }

    fn header(&self) -> Option<&Header> {
        match self {
            Slot::Whole(whole) => Some(&whole.header),
            Slot::Missing(missing) => missing.header.as_ref(),
        }
    }
}

/// The log after its base. Invariant: `whole_to` is the last entry up to which every slot is whole.
#[derive(Clone, Debug)]
pub(super) struct Log {
    base: Base,
    slots: VecDeque<Slot>,
    whole_to: OpNumber,
}

impl Log {
    pub(super) fn new(base: Base) -> Self {
        Self { base, slots: VecDeque::new(), whole_to: base.op }
    }

    pub(super) fn base(&self) -> Base {
        self.base
    }

    /// The last entry, whole or missing: the op-number (n).
    pub(super) fn head(&self) -> OpNumber {
        self.base.op.plus(self.slots.len() as u64)
    }

    /// The last entry up to which nothing is missing.
    pub(super) fn whole_to(&self) -> OpNumber {
        self.whole_to
    }

    pub(super) fn is_whole(&self) -> bool {
        self.whole_to == self.head()
    }

    fn index(&self, op: OpNumber) -> Option<usize> {
        let index = op.get().checked_sub(self.base.op.get())?.checked_sub(1)?;
        usize::try_from(index).ok()
    }

    fn slot(&self, op: OpNumber) -> Option<&Slot> {
        self.slots.get(self.index(op)?)
    }

    /// The checksum of an entry, the base included; `None` if it is not known or not in the log.
    pub(super) fn checksum(&self, op: OpNumber) -> Option<Digest> {
        if op == self.base.op { Some(self.base.checksum) } else { self.slot(op)?.checksum() }
    }

    /// An entry that is here.
    pub(super) fn whole(&self, op: OpNumber) -> Option<&Whole> {
        match self.slot(op)? {
            Slot::Whole(whole) => Some(whole),
            Slot::Missing(_) => None,
        }
    }

    /// An entry that is here, to send.
    pub(super) fn entry(&self, op: OpNumber) -> Option<Entry> {
        self.whole(op).map(|whole| Entry { header: whole.header, batch: whole.batch.clone() })
    }

    /// Does this entry follow the last one?
    pub(super) fn is_next(&self, header: &Header) -> bool {
        header.op == self.head().next() && self.checksum(self.head()) == Some(header.parent)
    }

    pub(super) fn append(&mut self, entry: Entry, seq: RecordSeq) {
        assert!(self.is_next(&entry.header), "an entry follows the one that it names as its parent");
        let op = entry.header.op;
        let checksum = entry.header.checksum();
        self.slots.push_back(Slot::Whole(Whole { header: entry.header, checksum, batch: entry.batch, seq }));
        if self.whole_to == op.previous() {
            self.whole_to = op;
        }
    }

    /// Puts a missing entry in its place; false if it is not the one that is missing there.
    pub(super) fn fill(&mut self, entry: &Entry, seq: RecordSeq) -> bool {
        let checksum = entry.header.checksum();
        let Some(index) = self.index(entry.header.op) else { return false };
        match self.slots.get_mut(index) {
            Some(slot @ Slot::Missing(_)) if slot.checksum() == Some(checksum) => {
                *slot = Slot::Whole(Whole { header: entry.header, checksum, batch: entry.batch.clone(), seq });
            }
            _ => return false,
        }
        let before = index.checked_sub(1).and_then(|index| self.slots.get_mut(index));
        if let Some(Slot::Missing(missing @ Missing { checksum: None, .. })) = before {
            missing.checksum = Some(entry.header.parent); // the hash chain names the one before
        }
        self.advance();
        true
    }

    /// Is this the entry that is missing here?
    pub(super) fn wants(&self, entry: &Entry) -> bool {
        matches!(self.slot(entry.header.op), Some(slot @ Slot::Missing(_)) if slot.checksum() == Some(entry.header.checksum()))
    }

    /// Is an entry missing here that was on this disk once, or may have been?
    pub(super) fn is_damaged(&self, op: OpNumber) -> bool {
        matches!(self.slot(op), Some(Slot::Missing(missing)) if missing.damaged)
    }

    /// The log after `after` becomes these headers. What is here already stays; the rest is missing.
    pub(super) fn install(&mut self, suffix: &Suffix, bodies: &BTreeMap<Digest, (Entry, RecordSeq)>) {
        let keep = self.index(suffix.after.next()).unwrap_or(0);
        assert!(keep <= self.slots.len(), "a suffix continues the log or replaces its end");
        let old = self.slots.split_off(keep);
        let mut found: BTreeMap<Digest, Whole> = BTreeMap::new();
        let mut in_doubt: BTreeMap<OpNumber, Missing> = BTreeMap::new();
        for (op, slot) in (keep as u64..).map(|index| self.base.op.plus(index).next()).zip(old) {
            match slot {
                Slot::Whole(whole) => drop(found.insert(whole.checksum, whole)),
                Slot::Missing(missing) if missing.damaged => drop(in_doubt.insert(op, missing)),
                Slot::Missing(_) => {}
            }
        }
        for header in suffix.headers.iter().filter(|header| header.op > self.base.op) {
            let checksum = header.checksum();
            let journal = || {
                let (entry, seq) = bodies.get(&checksum)?;
                Some(Whole { header: *header, checksum, batch: entry.batch.clone(), seq: *seq })
            };
            let slot = match found.remove(&checksum).or_else(journal) {
                Some(whole) => Slot::Whole(whole),
                None => {
                    let doubt = in_doubt.get(&header.op);
                    let damaged = doubt.is_some_and(|it| it.checksum.is_none_or(|known| known == checksum));
                    Slot::Missing(Missing { header: Some(*header), checksum: Some(checksum), damaged })
                }
            };
            self.slots.push_back(slot);
        }
        self.whole_to = self.whole_to.min(suffix.after).max(self.base.op);
        self.advance();
    }

    /// Forgets the entries up to `op`.
    pub(super) fn rebase(&mut self, base: Base) {
        assert!(base.op >= self.base.op && base.op <= self.head(), "a log is cut within");
        let count = self.index(base.op.next()).unwrap_or(0);
        self.slots.drain(..count.min(self.slots.len()));
        self.base = base;
        self.whole_to = self.whole_to.max(base.op);
        self.advance();
    }

    fn advance(&mut self) {
        while let Some(Slot::Whole(_)) = self.slot(self.whole_to.next()) {
            self.whole_to = self.whole_to.next();
        }
    }

    /// The headers after `after`, up to the first that is not known.
    pub(super) fn headers_after(&self, after: OpNumber, max: usize) -> Vec<Header> {
        let skip = self.index(after.next()).unwrap_or(0);
        let headers = self.slots.iter().skip(skip).take(max).map_while(Slot::header);
        headers.copied().collect()
    }

    /// What a DoViewChange says of the entries after `after`.
    pub(super) fn vouches_after(&self, after: OpNumber) -> Vec<Vouch> {
        let skip = self.index(after.next()).unwrap_or(0);
        let vouch = |slot: &Slot| match slot {
            Slot::Whole(whole) => Vouch { header: Some(whole.header), present: true, nack: false },
            Slot::Missing(missing) => {
                let present = missing.header.is_some() && mutated!("vr/vouches-for-what-is-missing");
                Vouch { header: missing.header, present, nack: !missing.damaged && !present }
            }
        };
        self.slots.iter().skip(skip).map(vouch).collect()
    }

    /// Entries to ask for, in order: at most `entries`, and about `bytes`.
    pub(super) fn wanted(&self, entries: usize, bytes: u64) -> Vec<(OpNumber, Digest)> {
        let mut wanted = Vec::new();
        let mut budget = bytes;
        let mut op = self.whole_to.next();
        while op <= self.head() && wanted.len() < entries {
            if let Some(Slot::Missing(Missing { header, checksum: Some(checksum), .. })) = self.slot(op) {
                wanted.push((op, *checksum));
                budget = budget.saturating_sub(header.map_or(0, |header| u64::from(header.bytes)));
                if budget == 0 {
                    break;
                }
            }
            op = op.next();
        }
        wanted
    }

    /// How many entries are missing, and whether each of them is at least known by its checksum.
    pub(super) fn missing(&self) -> (u64, bool) {
        let missing = self.slots.iter().filter_map(|slot| match slot {
            Slot::Missing(missing) => Some(missing.checksum.is_some()),
            Slot::Whole(_) => None,
        });
        missing.fold((0, true), |(count, named), known| (count + 1, named && known))
    }

    /// The first record of the journal that the log still needs.
    pub(super) fn first_seq(&self) -> Option<RecordSeq> {
        let seqs = self.slots.iter().filter_map(|slot| match slot {
            Slot::Whole(whole) => Some(whole.seq),
            Slot::Missing(_) => None,
        });
        seqs.min()
    }

    /// The whole log after its base, as a promise can say it: each header is known, and nothing that may have been
    /// acknowledged is damaged. That an entry was damaged is known from the journal's old records only.
    pub(super) fn as_suffix(&self) -> Option<Suffix> {
        let header = |slot: &Slot| match slot {
            Slot::Whole(whole) => Some(whole.header),
            Slot::Missing(missing) => missing.header.filter(|_| !missing.damaged),
        };
        let headers = self.slots.iter().map(header).collect::<Option<_>>()?;
        Some(Suffix { after: self.base.op, headers })
    }

    /// Every missing entry may have been here.
    fn doubt_missing(&mut self) {
        for slot in &mut self.slots {
            if let Slot::Missing(missing) = slot {
                missing.damaged = true;
            }
        }
    }

    /// Does each entry name the one before it?
    pub(super) fn is_chained(&self) -> bool {
        let mut parent = Some(self.base.checksum);
        self.slots.iter().all(|slot| {
            let linked = match (slot.header(), parent) {
                (Some(header), Some(parent)) => header.parent == parent,
                _ => true,
            };
            parent = slot.checksum();
            linked
        })
    }
}

/// What the journal held.
#[derive(Debug)]
pub(super) struct Replayed {
    pub(super) promise: Promise,
    pub(super) log: Log,
    /// Nothing damaged can have been an entry behind the last one.
    pub(super) head_known: bool,
}

/// Rebuilds the log from the journal, in its order: an entry continues the log, fills a hole, or is not in it any more; a
/// promise with a suffix says what the log became (R6). `None` for an empty journal.
///
/// Starts at the last promise that says what the *whole* log is: what came before it may be forgotten, in part or all, and
/// matters only for the batches that it holds.
///
/// Damage is placed by the chain: a record that is missing between two entries that do not follow each other was an entry.
/// A damaged record that is not known to have been an entry may have been a promise, and then nobody knows what was
/// promised.
pub(super) fn replay(records: Vec<Restored<Record>>) -> Result<Option<Replayed>, RestoreError> {
    if records.is_empty() {
        return Ok(None);
    }
    let promises = records.iter().filter_map(|item| match item {
        Restored::Found { record: Record::Promise(promise), .. } => Some(promise),
        _ => None,
    });
    let Some(promise) = promises.last().cloned() else {
        return Err(RestoreError::PromisesLost("the journal holds none that can be read".to_owned()));
    };
    let says_all = |item: &Restored<Record>| match item {
        Restored::Found { record: Record::Promise(Promise { suffix: Some(suffix), .. }), .. } => {
            suffix.after <= promise.base.op
        }
        _ => false,
    };
    let start = records.iter().rposition(says_all).unwrap_or(0);
    let log = Log::new(promise.base);
    let mut replay = Replay { log, bodies: BTreeMap::new(), damage: 0, doubt: 0, damaged: false };
    for (index, item) in records.into_iter().enumerate() {
        match item {
            Restored::Found { seq, record: Record::Entry(entry) } if index < start => {
                replay.bodies.insert(entry.header.checksum(), (entry, seq));
            }
            Restored::Found { seq, record: Record::Entry(entry) } => replay.entry(entry, seq),
            Restored::Found { record: Record::Promise(promise), .. } if index >= start => replay.promise(&promise)?,
            Restored::Found { .. } => {}
            Restored::Damaged { at_most, class, .. } => {
                replay.damaged |= class != Some(Class::Promise);
                if index >= start && class != Some(Class::Promise) {
                    replay.damage = replay.damage.saturating_add(at_most);
                }
                if index >= start && class != Some(Class::Entry) {
                    replay.doubt = replay.doubt.saturating_add(at_most);
                }
            }
        }
    }
    if replay.doubt > 0 {
        let what = format!("{} damaged records may have been promises", replay.doubt);
        return Err(RestoreError::PromisesLost(what));
    }
    if replay.damaged {
        replay.log.doubt_missing();
    }
    Ok(Some(Replayed { promise, log: replay.log, head_known: replay.damage == 0 }))
}

struct Replay {
    log: Log,
    bodies: BTreeMap<Digest, (Entry, RecordSeq)>,
    /// Damaged records since a promise last said where the log ends, but for those that missing entries explain. What
    /// follows one of them does not explain it: an entry that was fetched again looks as if it had been appended.
    damage: u64,
    /// Damaged records that may have been promises. No later promise makes up for one of them, unless it says what the
    /// whole log is: the lost one may have said what the log became. Nor do missing entries: a promise that cut the log
    /// leaves as many of them missing as were appended again, and what it cut is still in the journal.
    doubt: u64,
    /// Something that may have been an entry is damaged: whatever is missing may have been here.
    damaged: bool,
}

impl Replay {
    fn entry(&mut self, entry: Entry, seq: RecordSeq) {
        let op = entry.header.op;
        let gap = op.since(self.log.head().next());
        if op == self.log.head().next() {
            self.name_head(entry.header.parent);
        }
        if self.log.is_next(&entry.header) {
            self.log.append(entry.clone(), seq);
        } else if op > self.log.head() && gap > 0 && gap <= self.damage {
            self.lose(gap, Some(entry.header.parent));
            self.log.append(entry.clone(), seq);
        } else {
            self.log.fill(&entry, seq);
        }
        self.bodies.insert(entry.header.checksum(), (entry, seq));
    }

    fn promise(&mut self, promise: &Promise) -> Result<(), RestoreError> {
        let Some(suffix) = &promise.suffix else { return Ok(()) };
        let base = self.log.base().op;
        if suffix.after > self.log.head() {
            let gap = suffix.after.since(self.log.head());
            if gap > self.damage {
                let what =
                    format!("a view started after entry {}, and the log ends at {}", suffix.after, self.log.head());
                return Err(match self.doubt {
                    0 => RestoreError::Contradiction(what),
                    _ => RestoreError::PromisesLost(what),
                });
            }
            self.lose(gap, suffix.headers.first().map(|header| header.parent));
        }
        if mutated!("vr/replay-ignores-what-a-view-dropped") {
            return Ok(());
        }
        let after = suffix.after.max(base);
        let headers = suffix.headers.iter().filter(|header| header.op > after).copied().collect();
        self.log.install(&Suffix { after, headers }, &self.bodies);
        self.damage = 0;
        Ok(())
    }

    /// What was appended after a damaged entry names it.
    fn name_head(&mut self, parent: Digest) {
        if let Some(Slot::Missing(missing @ Missing { checksum: None, .. })) = self.log.slots.back_mut() {
            missing.checksum = Some(parent);
        }
    }

    /// Marks entries at the end of the log as damaged; the last one's checksum may be known from its successor.
    fn lose(&mut self, count: u64, last: Option<Digest>) {
        for left in (0..count).rev() {
            let checksum = if left == 0 { last } else { None };
            self.log.slots.push_back(Slot::Missing(Missing { header: None, checksum, damaged: true }));
        }
        self.damage = self.damage.saturating_sub(count);
        if mutated!("vr/missing-entries-explain-a-lost-promise") {
            self.doubt = self.doubt.saturating_sub(count);
        }
    }
}
