//! Reading a log that may be damaged anywhere: what is intact, what is missing, and whether a missing part looks like a
//! write that a power loss cut short.
//!
//! The scanner takes the segments in order and changes nothing. Its rules:
//! - a record is found if its header is valid at its place, follows the record before (sequence number and link) and its
//!   body has the right checksum;
//! - after anything else it goes on at the next multiple of 8 where a valid header with a possible sequence number stands;
//!   what lies between is *lost* (bounded by that record), or the *tail* (nothing follows);
//! - damage is *torn* if a sector of it has no content since the segment was made: only a write that never finished leaves
//!   that, unless the disk lied about an earlier one.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use super::Class;
use super::frame::{ALIGN, HEADER, Header, Kind, Seed};
use super::segment::RECORDS;
use crate::bytes::{crc, is_zero};
use crate::disk::SECTOR;

/// A stretch of a segment, in bytes from its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) segment: u64,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// A record whose header is intact.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) header: Header,
    pub(crate) class: Class,
    /// `None` if no copy of the body is intact.
    pub(crate) body: Option<Vec<u8>>,
    /// The damaged copy of a promise whose other copy is intact.
    pub(crate) hurt: Option<u8>,
    pub(crate) torn: bool,
    pub(crate) place: Place,
}

/// Sequence numbers of which nothing is left.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lost {
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) torn: bool,
    pub(crate) place: Place,
    /// The link of the record before.
    pub(crate) link: Option<u32>,
}

#[derive(Clone, Debug)]
pub(crate) enum Event {
    Record(Record),
    Lost(Lost),
}

/// What was learned about one segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SegmentScan {
    pub(crate) number: u64,
    /// Bytes of the file.
    pub(crate) len: u64,
    /// The lowest and highest sequence number met.
    pub(crate) seqs: Option<(u64, u64)>,
    /// Where the next record would stand.
    pub(crate) append_at: usize,
    /// The end of the last byte that is not as the segment was made; at least `append_at`.
    pub(crate) content_end: usize,
    /// The file is shorter than it was made.
    pub(crate) short: bool,
}

impl SegmentScan {
    /// Whether nothing was ever written here, as far as one can see.
    pub(crate) fn is_blank(&self) -> bool {
        self.content_end == RECORDS && !self.short
    }
}

/// The state of a scan between two segments.
#[derive(Debug)]
pub(crate) struct Scanner {
    log_id: u128,
    /// The sequence number that comes next; `None` before the first record of the log.
    expected: Option<u64>,
    link: Option<u32>,
    /// The link of the newest record that was turned away for not following its predecessor.
    stale: Option<u32>,
    /// Everything below this was known to be safe.
    pub(crate) synced_below: u64,
    pub(crate) events: Vec<Event>,
    /// Damage that no valid record follows. `last` is the highest sequence number that may have been there.
    pub(crate) tail: Option<Lost>,
    /// Bytes that are neither records nor blank and cost no record.
    pub(crate) stray: Vec<Place>,
}

impl Scanner {
    pub(crate) fn new(log_id: u128, first_link: Option<u32>) -> Self {
        Self {
            log_id,
            expected: None,
            link: first_link,
            stale: None,
            synced_below: 1,
            events: Vec::new(),
            tail: None,
            stray: Vec::new(),
        }
    }

    /// The sequence number after the last one met.
    pub(crate) fn next_seq(&self) -> u64 {
        self.expected.unwrap_or(1)
    }

    /// The link of the last record, if it is known.
    pub(crate) fn link(&self) -> Option<u32> {
        self.link
    }

    /// Reads the next segment: its content, the size that it was made with and the lowest sequence number it can hold.
    pub(crate) fn segment(&mut self, number: u64, bytes: &[u8], size: u64, floor: u64) -> SegmentScan {
        let view = View { bytes, seed: Seed::new(self.log_id, number), number };
        let mut scan = SegmentScan {
            number,
            len: bytes.len() as u64,
            seqs: None,
            append_at: RECORDS,
            content_end: RECORDS,
            short: (bytes.len() as u64) < size,
        };
        let mut at = RECORDS;
        while let Some((found, header)) = self.find(&view, at, floor, scan.seqs.is_none()) {
            if scan.seqs.is_none() {
                // Records go to a new segment only after all before it are safe.
                self.synced_below = self.synced_below.max(self.expected.unwrap_or(1));
            }
            let first = scan.seqs.map_or(header.seq, |(first, _)| first);
            at = self.take(&view, at, found, header, floor);
            scan.seqs = Some((first, header.seq));
        }
        self.end_of_segment(&view, at, size, floor, &mut scan);
        scan
    }

    /// The next valid record at or after `at`. What lies between is lost.
    fn find(&mut self, view: &View<'_>, at: usize, floor: u64, fresh: bool) -> Option<(usize, Header)> {
        let mut next = at;
        while next.checked_add(HEADER)? <= view.bytes.len() {
            if next.is_multiple_of(SECTOR) && view.zero(next, next.saturating_add(SECTOR)) {
                next = next.saturating_add(SECTOR);
                continue;
            }
            if let Some(header) = Header::decode(view.bytes, next, view.seed) {
                let room = next.saturating_sub(at).checked_div(HEADER).unwrap_or(0) as u64;
                let limit = if fresh { u64::MAX } else { self.expected.unwrap_or(floor).saturating_add(room) };
                if self.follows(&header, limit) {
                    return Some((next, header));
                }
            }
            next = next.saturating_add(ALIGN);
        }
        None
    }

    /// Whether the record can be the next intact one of this log.
    fn follows(&mut self, header: &Header, limit: u64) -> bool {
        let expected = self.expected.unwrap_or(1);
        if header.kind == Kind::Seal || header.seq < expected || header.seq > limit {
            return false;
        }
        let broken = header.seq == expected && self.link.is_some_and(|link| link != header.prev_link);
        if (broken || self.stale == Some(header.prev_link)) && header.kind != Kind::Gap {
            self.stale = Some(header.link());
            return false;
        }
        true
    }

    /// Takes the valid record at `found`, reached from `at`, and returns where the next one stands.
    fn take(&mut self, view: &View<'_>, at: usize, found: usize, header: Header, floor: u64) -> usize {
        self.synced_below = self.synced_below.max(header.synced_below);
        let tail = self.tail.take();
        let hidden_copy = if header.copy == 1 { header.span() } else { 0 };
        let start = found.saturating_sub(hidden_copy).max(at);
        let expected = match self.expected {
            None if found == RECORDS && header.kind != Kind::Gap => header.seq, // The records before were forgotten.
            None => floor.min(header.seq),
            Some(expected) => expected,
        };
        let torn = tail.is_none() && start > at && view.header_torn(at);
        let place = Place { segment: view.number, start: at, end: start };
        let last = if header.kind == Kind::Gap { header.seq } else { header.seq.saturating_sub(1) };
        if last >= expected {
            if tail.is_some() || start == at {
                // What is missing stood in an earlier segment, and that was safe before this one was used.
                self.synced_below = self.synced_below.max(last.saturating_add(1));
            }
            self.events.push(Event::Lost(Lost { first: expected, last, torn, place, link: self.link }));
        } else {
            self.stray.extend(tail.map(|tail| tail.place));
            self.stray.extend((start > at).then_some(place));
        }
        self.expected = Some(header.seq.saturating_add(1));
        self.link = Some(header.link());
        self.stale = None;
        match header.kind {
            Kind::User(class) => self.read(view, start, found, header, class),
            Kind::Gap | Kind::Seal => found.saturating_add(header.span()),
        }
    }

    /// Reads the bodies of a record, one or two.
    fn read(&mut self, view: &View<'_>, start: usize, found: usize, header: Header, class: Class) -> usize {
        let after = found.saturating_add(header.span());
        let mut copies = vec![view.copy(found, Some(&header))];
        let mut end = after;
        if class == Class::Promise {
            if header.copy == 1 {
                copies.insert(0, view.copy(start, None));
            } else {
                let second = Header::decode(view.bytes, after, view.seed);
                copies.push(
                    view.copy(after, second.filter(|second| second.copy == 1 && second.same_record(&header)).as_ref()),
                );
                end = after.saturating_add(header.span());
            }
        }
        let torn = copies.iter().any(|copy| matches!(copy, Copy::Damaged { torn: true }));
        let damaged = copies.iter().position(|copy| matches!(copy, Copy::Damaged { .. }));
        let body =
            copies.into_iter().find_map(|copy| if let Copy::Intact(body) = copy { Some(body.to_vec()) } else { None });
        let hurt = damaged.filter(|_| body.is_some()).map(|copy| u8::from(copy == 1));
        let place = Place { segment: view.number, start, end };
        self.events.push(Event::Record(Record { header, class, body, hurt, torn, place }));
        end
    }

    /// Judges what comes after the last valid record of a segment.
    fn end_of_segment(&mut self, view: &View<'_>, at: usize, size: u64, floor: u64, scan: &mut SegmentScan) {
        let expected = self.expected.unwrap_or(floor);
        let sealed = view.seal(at, expected);
        if let Some(seal) = sealed {
            self.synced_below = self.synced_below.max(seal.saturating_add(1));
        }
        scan.append_at = at;
        scan.content_end = view.content_end(at);
        let damaged = scan.content_end.saturating_sub(at);
        // A header has no 8 zero bytes in a row: where some stand, no record ever stood.
        let cut = scan.short && (damaged > 0 || at >= view.bytes.len());
        let missing = if cut { size.saturating_sub(at as u64) } else { damaged as u64 };
        let may_have_been = missing
            .div_ceil(HEADER as u64)
            .max(sealed.map_or(0, |seal| seal.saturating_add(1).saturating_sub(expected)));
        if may_have_been == 0 {
            return;
        }
        if damaged > 0 && scan.seqs.is_none() {
            self.synced_below = self.synced_below.max(self.expected.unwrap_or(1));
        }
        let earlier = self.tail.take();
        let before = earlier.map_or(0, |tail| tail.last.saturating_add(1).saturating_sub(tail.first));
        let torn = earlier.is_none() && !cut && view.header_torn(at) && sealed.is_none_or(|seal| seal < expected);
        self.tail = Some(Lost {
            first: expected,
            last: expected.saturating_add(before).saturating_add(may_have_been).saturating_sub(1),
            torn,
            place: Place { segment: view.number, start: at, end: scan.content_end },
            link: self.link,
        });
        self.expected.get_or_insert(expected);
    }
}

enum Copy<'a> {
    Intact(&'a [u8]),
    Damaged { torn: bool },
}

/// One segment's bytes.
struct View<'a> {
    bytes: &'a [u8],
    seed: Seed,
    number: u64,
}

impl<'a> View<'a> {
    /// Whether there are bytes from `start`, and all of them to `end` (or the end of the file) are zero.
    fn zero(&self, start: usize, end: usize) -> bool {
        self.bytes.get(start..end.min(self.bytes.len())).is_some_and(|bytes| !bytes.is_empty() && is_zero(bytes))
    }

    /// Whether the part of a sector from `start` on is as it was before records came to it: zeros, or a seal.
    fn unwritten(&self, start: usize) -> bool {
        let end = start.saturating_add(1).next_multiple_of(SECTOR);
        let sealed = || {
            let is_seal = |header: Header| header.kind == Kind::Seal && header.len == 0;
            start.is_multiple_of(SECTOR)
                && Header::decode(self.bytes, start, self.seed).is_some_and(is_seal)
                && self.zero(start.saturating_add(HEADER), end)
        };
        self.zero(start, end) || sealed()
    }

    /// Whether some sector of `start..end` is unwritten; of the first sector, the part from `start` counts.
    fn any_unwritten(&self, start: usize, end: usize) -> bool {
        let mut at = start;
        while at < end {
            if self.unwritten(at) {
                return true;
            }
            at = at.saturating_add(1).next_multiple_of(SECTOR);
        }
        false
    }

    /// Whether a header that is not valid at `at` was never written as a whole.
    fn header_torn(&self, at: usize) -> bool {
        self.any_unwritten(at, at.saturating_add(HEADER))
    }

    /// The copy of a record at `at`, if its header is `header`; otherwise the header is damaged.
    fn copy(&self, at: usize, header: Option<&Header>) -> Copy<'a> {
        let Some(header) = header else {
            return Copy::Damaged { torn: self.header_torn(at) };
        };
        let start = at.saturating_add(HEADER);
        let end = start.saturating_add(header.len as usize);
        match self.bytes.get(start..end) {
            Some(body) if crc(&[body]) == header.body_crc => Copy::Intact(body),
            Some(_) if header.may_look_unwritten => Copy::Damaged { torn: false },
            Some(_) => Copy::Damaged { torn: self.any_unwritten(start.next_multiple_of(SECTOR), end) },
            None => Copy::Damaged { torn: false },
        }
    }

    /// The highest sequence number that a seal from `at` on vouches for, unless it is older than the last record.
    fn seal(&self, at: usize, expected: u64) -> Option<u64> {
        let mut sealed = None;
        let mut next = at.next_multiple_of(SECTOR);
        while next < self.bytes.len() {
            if !self.zero(next, next.saturating_add(SECTOR))
                && let Some(header) = Header::decode(self.bytes, next, self.seed)
                && header.kind == Kind::Seal
                && header.seq.saturating_add(1) >= expected
            {
                sealed = sealed.max(Some(header.seq));
            }
            next = next.saturating_add(SECTOR);
        }
        sealed
    }

    /// The end of the last byte from `at` on that is not as it was before records came to it.
    fn content_end(&self, at: usize) -> usize {
        let mut end = at;
        let mut next = at;
        while next < self.bytes.len() {
            let after = next.saturating_add(1).next_multiple_of(SECTOR);
            if !self.unwritten(next)
                && let Some(bytes) = self.bytes.get(next..after.min(self.bytes.len()))
                && let Some(last) = bytes.iter().rposition(|byte| *byte != 0)
            {
                end = next.saturating_add(last).saturating_add(1);
            }
            next = after;
        }
        end
    }
}
