//! Comparing what is pending (C.7, the pending part). Replicas differ, and may, in what they have received and not ordered. What has
//! waited for a while is compared, one with the other: a digest of a range of it says whether both hold the same publications and
//! have heard of the same receptions of them. Ranges that differ are cut into smaller ones, and when one holds little, it is told in
//! full; then each sends the receptions that the other lacks, and whoever lacks a publication of which it hears pulls it.
//! Source: A. Meyer, *Range-Based Set Reconciliation*, SRDS 2023.
//!
//! Nothing said here is believed for more than what to send or to ask for: receptions are signed, publications prove themselves. So a
//! replica that says anything at all costs a bounded amount of work, and changes nothing.

use super::Outbox;
use super::message::{Held, Item, Message, Part};
use super::replica::Replica;
use crate::pbft::pace::Quotas;
use quorate_core::crypto::Digest;
use quorate_core::fault::Why;
use quorate_core::ids::{Peer, ReplicaId};
use quorate_core::mutated;
use quorate_core::outbox::Note;
use quorate_core::time::{Duration, Instant};
use quorate_core::wire::Wire;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

/// Publications that one message makes a replica look at: more are compared at another time, beginning where this one ended.
pub(super) const BOOK_MAX: usize = 4096;
/// Parts into which a range is cut, if it differs and holds more than [`EACH_MAX`] publications.
const CUTS: usize = 16;
/// Publications of a range that is told in full, unless it answers one that is.
const EACH_MAX: usize = 32;
/// Ranges of one message, and publications that it tells of.
pub(super) const PARTS_MAX: usize = 64;
pub(super) const ITEMS_MAX: usize = 1024;
/// Receptions that are sent because one message says that they are lacking.
const LACKING_MAX: usize = 256;
/// What a comparison costs who asks for it of its quota of 8 MiB in each period of `resend`: 16 are answered.
const QUESTION_BYTES: usize = 512 << 10;

/// What is compared, and with what success. Volatile.
#[derive(Debug, Default)]
pub(super) struct Comparisons {
    /// What has waited to be ordered for longer than `resend`.
    pub waiting: BTreeSet<Digest>,
    /// Where the next comparison begins; zero unless there is more than one can hold.
    from: Digest,
    /// The digest of all that waited when it was compared last.
    said: Digest,
    /// Who has said that it holds exactly what has this digest.
    same: BTreeMap<ReplicaId, Digest>,
    /// When it is compared again, and the pause after that.
    next: Instant,
    pause: Duration,
    /// When the owner was told last that something differed.
    noted: Option<Instant>,
    quotas: Quotas,
}

/// The owner is told once in so long that something differed: a liar fills no logs.
const NOTED_EACH: Duration = Duration::from_secs(60);

/// What this replica holds of a range: as much of it as it may look at.
struct Own {
    items: Vec<Item>,
    /// Where it ends.
    until: Option<Digest>,
    /// There is more in the range.
    is_cut: bool,
}

impl Own {
    fn of(
        waiting: &BTreeSet<Digest>,
        (from, until): (Digest, Option<Digest>),
        most: usize,
        item: impl Fn(Digest) -> Item,
    ) -> Self {
        let end = until.map_or(Bound::Unbounded, Bound::Excluded);
        let mut digests = waiting.range((Bound::Included(from), end)).copied();
        let items: Vec<Item> = digests.by_ref().take(most).map(item).collect();
        let next = digests.next();
        Self { items, until: next.or(until), is_cut: next.is_some() }
    }

    fn digest(&self) -> Digest {
        let mut bytes = Vec::new();
        self.items.iter().for_each(|item| item.encode_into(&mut bytes));
        Digest::of_parts(&[b"reception pending", &bytes])
    }
}

impl Part {
    /// Is it the range of all digests?
    fn is_all(&self) -> bool {
        self.from == Digest::ZERO && self.until.is_none()
    }

    fn holds(&self, digest: Digest) -> bool {
        self.from <= digest && self.until.is_none_or(|until| digest < until)
    }
}

/// Are these parts as a correct replica writes them? What is wrong, if not.
pub(super) fn check(parts: &[Part]) -> Option<&'static str> {
    if parts.is_empty() || parts.len() > PARTS_MAX {
        return Some("no ranges, or too many");
    }
    let ends_before = |one: &Part, next: &Part| one.until.is_some_and(|until| until <= next.from);
    if !parts.is_sorted_by(ends_before) || parts.iter().any(|part| part.until.is_some_and(|until| until <= part.from)) {
        return Some("ranges that are not in order");
    }
    let told = |part: &Part| match &part.held {
        Held::Digest(_) => 0,
        Held::Each(items) | Held::Answer(items) => items.len(),
    };
    if parts.iter().map(told).fold(0, usize::saturating_add) > ITEMS_MAX {
        return Some("too many publications");
    }
    let is_bad = |part: &Part| match &part.held {
        Held::Digest(_) => false,
        Held::Each(items) | Held::Answer(items) => {
            let in_order = items.is_sorted_by(|one, next| one.digest < next.digest);
            !in_order || items.iter().any(|item| !part.holds(item.digest))
        }
    };
    parts.iter().any(is_bad).then_some("publications that are not in order, or not in their range")
}

impl Comparisons {
    /// Has this replica said that it holds exactly what waited here when that was compared last, this among it? What was received
    /// since is compared before anything else is done about it.
    pub(super) fn holds_the_same(&self, replica: ReplicaId, digest: Digest) -> bool {
        self.waiting.contains(&digest) && self.same.get(&replica) == Some(&self.said)
    }
}

/// Asking.
impl Replica {
    /// This has waited for long enough to be compared.
    pub(super) fn has_waited(&mut self, digest: Digest) {
        if self.comparisons.waiting.insert(digest) {
            self.compare_soon(digest);
        }
    }

    /// What is new, or of which more receptions are known, is compared at the next turn of the timer, whatever the pause has become.
    pub(super) fn compare_soon(&mut self, digest: Digest) {
        if self.comparisons.waiting.contains(&digest) {
            (self.comparisons.next, self.comparisons.pause) = (Instant::default(), self.config.resend);
        }
    }

    /// Compares with everybody who is not known to hold the same.
    pub(super) fn compare(&mut self, out: &mut Outbox) {
        let now = out.now();
        if self.comparisons.waiting.is_empty() || self.comparisons.next > now {
            return;
        }
        let from = self.comparisons.from;
        let own = self.own(from, None, BOOK_MAX);
        let (digest, until) = (own.digest(), own.until);
        self.comparisons.from = until.unwrap_or_default();
        self.comparisons.said = digest;
        self.comparisons.next = now.plus(self.comparisons.pause);
        self.comparisons.pause = self.comparisons.pause.saturating_mul(2).min(self.config.resend_max);
        if mutated!("reception/pending-sets-are-not-compared") {
            return;
        }
        let part = Part { from, until, held: Held::Digest(digest) };
        for replica in self.quorums.members().filter(|replica| *replica != self.me) {
            if !part.is_all() || self.comparisons.same.get(&replica) != Some(&digest) {
                // A question; what it says of receptions has come back durable, or is of others.
                out.send_unsynced(Peer::Replica(replica), Message::Compare(vec![part.clone()]));
            }
        }
    }

    /// What waits here of a range: at most so much of it.
    fn own(&self, from: Digest, until: Option<Digest>, most: usize) -> Own {
        Own::of(&self.comparisons.waiting, (from, until), most, |digest| self.item(digest))
    }

    /// Whose receptions of a publication are here.
    fn item(&self, digest: Digest) -> Item {
        let votes = self.receptions.get(&digest).into_iter().flat_map(|votes| votes.keys());
        let bit = |replica: &ReplicaId| 1_u16.checked_shl(u32::from(replica.get())).unwrap_or_default();
        Item { digest, received_by: votes.map(bit).fold(0, |all, bit| all | bit) }
    }
}

/// Answering.
impl Replica {
    /// What another replica holds of some ranges.
    pub(super) fn on_compare(&mut self, from: ReplicaId, parts: Vec<Part>, out: &mut Outbox) {
        if !self.comparisons.quotas.admits(from, self.config.resend, out.now()) {
            return out.ignore(Peer::Replica(from), Why::Busy);
        }
        self.comparisons.quotas.spend(from, QUESTION_BYTES);

        let (mut answer, mut book, mut lacking) = (Vec::new(), BOOK_MAX, LACKING_MAX);
        for part in parts {
            if book == 0 {
                break; // the rest at another time
            }
            let own = self.own(part.from, part.until, book);
            book = book.saturating_sub(own.items.len().max(1));
            match &part.held {
                Held::Digest(digest) if !own.is_cut && own.digest() == *digest => {
                    if part.is_all() {
                        self.comparisons.same.insert(from, *digest);
                        // Follows from what both have said, and promises nothing.
                        out.send_unsynced(Peer::Replica(from), Message::Same { digest: *digest });
                    }
                }
                Held::Digest(_) => {
                    self.comparisons.same.remove(&from);
                    answer.extend(cut(part.from, own));
                }
                Held::Each(items) => {
                    self.give_what_lacks(from, &own, items, &mut lacking, out);
                    if items.iter().any(|item| self.lacks(item, out)) {
                        answer.push(self.answer(part.from, own, items));
                    }
                }
                Held::Answer(items) => self.give_what_lacks(from, &own, items, &mut lacking, out),
            }
        }
        if let Some(parts) = within_bounds(answer) {
            out.send_unsynced(Peer::Replica(from), Message::Compare(parts)); // a question, as above
        }
    }

    /// It holds what I held when I asked.
    pub(super) fn on_same(&mut self, from: ReplicaId, digest: Digest, out: &mut Outbox) {
        if digest != self.comparisons.said {
            return out.ignore(Peer::Replica(from), Why::Unasked);
        }
        self.comparisons.same.insert(from, digest);
    }

    /// Sends the receptions of what waits here that the other does not have. Of what it does not know at all, only this replica's: it
    /// pulls that, unless it has ordered it and is ahead, as is usual in a slow group.
    fn give_what_lacks(&mut self, to: ReplicaId, own: &Own, theirs: &[Item], most: &mut usize, out: &mut Outbox) {
        let theirs: BTreeMap<Digest, u16> = theirs.iter().map(|item| (item.digest, item.received_by)).collect();
        let mut differs = false;
        for item in own.items.iter().filter(|item| own.until.is_none_or(|until| item.digest < until)) {
            let known = theirs.get(&item.digest).copied();
            let lacking = item.received_by & !known.unwrap_or_default();
            for (replica, vote) in self.receptions.get(&item.digest).into_iter().flatten() {
                let bit = 1_u16.checked_shl(u32::from(replica.get())).unwrap_or_default();
                let is_wanted = lacking & bit != 0 && (known.is_some() || *replica == self.me);
                if !is_wanted || *most == 0 {
                    continue;
                }
                (*most, differs) = (most.saturating_sub(1), true);
                // Mine came back durable, and says that I still wait; the others have said theirs.
                let message = Message::Reception { vote: vote.signed().clone(), again: *replica == self.me };
                out.send_unsynced(Peer::Replica(to), message);
            }
        }
        let now = out.now();
        if differs && self.comparisons.noted.is_none_or(|noted| now.since(noted) >= NOTED_EACH) {
            self.comparisons.noted = Some(now);
            out.note(Note::Other(PENDING_DIFFERED));
        }
        if *most == 0 {
            self.comparisons.pause = self.config.resend; // there is more
        }
    }

    /// Is there a publication or a reception in it that is not here? What was ordered just now is not lacking: the other is late.
    fn lacks(&self, item: &Item, out: &Outbox) -> bool {
        match self.inserted.get(&item.digest) {
            Some(at) => out.now().since(*at) >= self.config.resend_max,
            None => {
                let is_here = self.pending.contains_key(&item.digest);
                !is_here || item.received_by & !self.item(item.digest).received_by != 0
            }
        }
    }

    /// What waits here of a range, with what the other has told of that does not wait here yet.
    fn answer(&self, from: Digest, own: Own, theirs: &[Item]) -> Part {
        let here = theirs.iter().map(|item| item.digest).filter(|digest| self.pending.contains_key(digest));
        let here: BTreeSet<Digest> = here.chain(own.items.iter().map(|item| item.digest)).collect();
        let mut here = here.into_iter().filter(|digest| own.until.is_none_or(|until| *digest < until));
        let items: Vec<Item> = here.by_ref().take(ITEMS_MAX).map(|digest| self.item(digest)).collect();
        Part { from, until: here.next().or(own.until), held: Held::Answer(items) }
    }
}

/// What the owner is told, and what a campaign must have seen.
pub const PENDING_DIFFERED: &str = "what is pending differed: another replica is given what it lacks";

/// Tells a range in full if it holds little, and cuts it into smaller ones if not.
fn cut(from: Digest, own: Own) -> Vec<Part> {
    let Own { items, until, .. } = own;
    if items.len() <= EACH_MAX {
        return vec![Part { from, until, held: Held::Each(items) }];
    }
    let chunks: Vec<Vec<Item>> = items.chunks(items.len().div_ceil(CUTS)).map(<[Item]>::to_vec).collect();
    let starts: Vec<Digest> = chunks.iter().filter_map(|chunk| chunk.first().map(|item| item.digest)).collect();
    let ends = starts.iter().skip(1).copied().map(Some).chain([until]);
    // The first begins where the range does: what lies before its first publication belongs to it.
    let starts = [from].into_iter().chain(starts.iter().skip(1).copied());
    let part = |((from, until), items)| {
        let own = Own { items, until, is_cut: false };
        Part { from, until, held: Held::Digest(own.digest()) }
    };
    starts.zip(ends).zip(chunks).map(part).collect()
}

/// As many of these parts as one message may have; `None` if there are none.
fn within_bounds(parts: Vec<Part>) -> Option<Vec<Part>> {
    let mut items = 0_usize;
    let fits = |part: &Part| {
        if let Held::Each(told) | Held::Answer(told) = &part.held {
            items = items.saturating_add(told.len());
        }
        items <= ITEMS_MAX
    };
    let parts: Vec<Part> = parts.into_iter().take(PARTS_MAX).take_while(fits).collect();
    (!parts.is_empty()).then_some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(count: u64) -> BTreeSet<Digest> {
        (0..count).map(|index| Digest::of(&index.to_le_bytes())).collect()
    }

    fn item(digest: Digest) -> Item {
        Item { digest, received_by: 1 }
    }

    #[test]
    fn more_than_one_comparison_can_hold_is_compared_part_after_part() {
        let waiting = waiting(10_000);
        let (mut from, mut seen, mut rounds) = (Digest::ZERO, BTreeSet::new(), 0);
        loop {
            let own = Own::of(&waiting, (from, None), BOOK_MAX, item);
            assert!(own.items.len() <= BOOK_MAX);
            rounds += 1;
            seen.extend(own.items.iter().map(|item| item.digest));
            let Some(until) = own.until else { break };
            assert!(own.is_cut && until > from);
            from = until;
        }
        assert_eq!((seen, rounds), (waiting, 3));
    }

    #[test]
    fn a_range_is_cut_into_ranges_that_hold_the_same_and_that_a_correct_replica_writes() {
        for count in [33, 100, 513, 4_096] {
            let waiting = waiting(count);
            let own = || Own::of(&waiting, (Digest::ZERO, None), BOOK_MAX, item);
            let parts = cut(Digest::ZERO, own());
            assert!(parts.len() > 1 && parts.len() <= CUTS);
            assert_eq!(check(&parts), None);
            let held = parts.iter().map(|part| Own::of(&waiting, (part.from, part.until), BOOK_MAX, item));
            assert_eq!(held.clone().map(|own| own.items.len()).sum::<usize>(), waiting.len());
            for (part, own) in parts.iter().zip(held) {
                assert_eq!(part.held, Held::Digest(own.digest()));
            }
            assert!(parts.first().is_some_and(|part| part.from == Digest::ZERO));
            assert!(parts.last().is_some_and(|part| part.until.is_none()));
        }
    }

    #[test]
    fn what_is_cut_again_and_again_is_told_in_full_after_three_answers() {
        let waiting = waiting(4_096);
        let (mut ranges, mut answers) = (vec![(Digest::ZERO, None)], 0);
        while let Some((from, until)) = ranges.pop() {
            answers += 1;
            let first = cut(from, Own::of(&waiting, (from, until), BOOK_MAX, item)).swap_remove(0);
            if matches!(first.held, Held::Digest(_)) {
                ranges.push((first.from, first.until));
            }
        }
        assert_eq!(answers, 3);
    }
}
