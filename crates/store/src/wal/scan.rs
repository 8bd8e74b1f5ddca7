//! Reading a log that may be damaged anywhere: what is intact, what is missing, and whether a missing part looks like a
//! write that a power loss cut short.
//!
//! The scanner takes the segments in order and changes nothing. Its rules:
//! - a record is found if one head of its header is valid at its place and follows the record before (sequence number and
//!   link), and its body has the right checksum;
//! - after anything else it goes on at the next multiple of 8 where a valid header with a possible sequence number stands;
//!   what lies between is *lost* (bounded by that record), or the *tail* (nothing follows);
//! - damage is *torn* if a sector of it has no content since the segment was made: only a write that never finished leaves
//!   that, unless the disk lied about an earlier one;
//! - of what is lost, the header that follows (or a seal) tells the classes; one flipped bit behind the last record is no
//!   record.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use super::Class;
use super::frame::{ALIGN, Chain, HEADER, Header, Kind, Seed};
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
    /// Which copies must be written again as a whole: the other copy has what they lost.
    pub(crate) hurt: [bool; 2],
    /// Damage of a header or a copy of which nothing is lost.
    pub(crate) healed: bool,
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
    /// What the record before leaves to the next one.
    pub(crate) chain: Option<Chain>,
    /// What is said of the numbers up to `last`.
    pub(crate) said: Option<Chain>,
}

/// A header of which one head is damaged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HurtHeader {
    pub(crate) segment: u64,
    pub(crate) at: usize,
    pub(crate) header: Header,
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
    /// The place of one flipped bit behind the last record.
    pub(crate) flipped: Option<usize>,
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
    chain: Option<Chain>,
    /// The link of the newest record that was turned away for not following its predecessor.
    stale: Option<u32>,
    /// Everything below this was known to be safe.
    pub(crate) synced_below: u64,
    pub(crate) events: Vec<Event>,
    /// Damage that no valid record follows. `last` is the highest sequence number that may have been there.
    pub(crate) tail: Option<Lost>,
    /// Bytes that are neither records nor blank and cost no record.
    pub(crate) stray: Vec<Place>,
    /// Headers to write again.
    pub(crate) hurt: Vec<HurtHeader>,
}

impl Scanner {
    pub(crate) fn new(log_id: u128, chain: Option<Chain>) -> Self {
        Self {
            log_id,
            expected: None,
            chain,
            stale: None,
            synced_below: 1,
            events: Vec::new(),
            tail: None,
            stray: Vec::new(),
            hurt: Vec::new(),
        }
    }

    /// The sequence number after the last one met.
    pub(crate) fn next_seq(&self) -> u64 {
        self.expected.unwrap_or(1)
    }

    /// What the last record leaves to the next one, if it is known.
    pub(crate) fn chain(&self) -> Option<Chain> {
        self.chain
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
            flipped: None,
        };
        let mut at = RECORDS;
        while let Some((found, read)) = self.find(&view, at, floor, scan.seqs.is_none()) {
            if scan.seqs.is_none() {
                // Records go to a new segment only after all before it are safe.
                self.synced_below = self.synced_below.max(self.expected.unwrap_or(1));
            }
            let first = scan.seqs.map_or(read.header.seq, |(first, _)| first);
            at = self.take(&view, at, found, read, floor);
            scan.seqs = Some((first, read.header.seq));
        }
        self.end_of_segment(&view, at, size, floor, &mut scan);
        scan
    }

    /// The next valid record at or after `at`. What lies between is lost.
    fn find(&mut self, view: &View<'_>, at: usize, floor: u64, fresh: bool) -> Option<(usize, ReadHeader)> {
        let mut next = at;
        while next.checked_add(HEADER)? <= view.bytes.len() {
            if next.is_multiple_of(SECTOR) && view.zero(next, next.saturating_add(SECTOR)) {
                next = next.saturating_add(SECTOR);
                continue;
            }
            if let Some(read) = view.header(next) {
                let room = next.saturating_sub(at).checked_div(HEADER).unwrap_or(0) as u64;
                let limit = if fresh { u64::MAX } else { self.expected.unwrap_or(floor).saturating_add(room) };
                if self.follows(&read.header, limit) {
                    return Some((next, read));
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
        let broken = header.seq == expected && self.chain.is_some_and(|chain| chain.link != header.before.link);
        if (broken || self.stale == Some(header.before.link)) && header.kind != Kind::Gap {
            self.stale = Some(header.after().link);
            return false;
        }
        true
    }

    /// Takes the valid record at `found`, reached from `at`, and returns where the next one stands.
    fn take(&mut self, view: &View<'_>, at: usize, found: usize, read: ReadHeader, floor: u64) -> usize {
        let header = read.header;
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
            self.events.push(Event::Lost(Lost {
                first: expected,
                last,
                torn,
                place,
                chain: self.chain,
                said: Some(header.before),
            }));
        } else {
            self.stray.extend(tail.map(|tail| tail.place));
            self.stray.extend((start > at).then_some(place));
        }
        self.expected = Some(header.seq.saturating_add(1));
        self.chain = Some(header.after());
        self.stale = None;
        match header.kind {
            Kind::User(class) => self.read(view, start, found, read, class),
            Kind::Gap | Kind::Seal => {
                self.note_hurt(view, found, read);
                found.saturating_add(header.span())
            }
        }
    }

    fn note_hurt(&mut self, view: &View<'_>, at: usize, read: ReadHeader) {
        if read.hurt {
            self.hurt.push(HurtHeader { segment: view.number, at, header: read.header });
        }
    }

    /// Reads the bodies of a record, one or two. A copy whose own header is lost is read by the header of the other.
    fn read(&mut self, view: &View<'_>, start: usize, found: usize, read: ReadHeader, class: Class) -> usize {
        let header = read.header;
        let second = if header.copy == 1 { found } else { found.saturating_add(header.span()) };
        let places: &[usize] = if class == Class::Promise { &[start, second] } else { &[start] };
        let (mut body, mut hurt, mut healed, mut torn, mut end) = (None, [false; 2], false, false, start);
        for ((&at, copy), hurt) in places.iter().zip(0..).zip(&mut hurt) {
            let own = if at == found { Some(read) } else { view.header(at) };
            let own = own.filter(|own| own.header.copy == copy && own.header.same_record(&header));
            let found = view.copy(at, own, &header);
            *hurt = own.is_none() || found.body.is_none();
            healed |= found.hurt;
            torn |= found.torn;
            body = body.or(found.body);
            end = at.saturating_add(header.span());
            if let Some(own) = own {
                self.note_hurt(view, at, own);
            }
        }
        let body = body.map(<[u8]>::to_vec);
        healed &= body.is_some();
        let place = Place { segment: view.number, start, end };
        self.events.push(Event::Record(Record { header, class, body, hurt, healed, torn, place }));
        end
    }

    /// Judges what comes after the last valid record of a segment.
    fn end_of_segment(&mut self, view: &View<'_>, at: usize, size: u64, floor: u64, scan: &mut SegmentScan) {
        let expected = self.expected.unwrap_or(floor);
        let mut sealed: Option<(usize, Header)> = None;
        for (place, read) in view.seals(at) {
            self.note_hurt(view, place, read);
            let newest = sealed.is_none_or(|(_, seal)| seal.seq <= read.header.seq);
            if newest && read.header.seq.saturating_add(1) >= expected {
                sealed = Some((place, read.header));
            }
        }
        if let Some((_, seal)) = sealed {
            self.synced_below = self.synced_below.max(seal.seq.saturating_add(1));
        }
        scan.append_at = at;
        scan.content_end = view.content_end(at);
        scan.flipped = view.lone_bit(at, scan.content_end).filter(|_| !scan.short);
        if scan.flipped.is_some() {
            scan.content_end = at;
        }
        let damaged = scan.content_end.saturating_sub(at);
        let cut = scan.short && (damaged > 0 || at >= view.bytes.len());
        let missing = if cut { size.saturating_sub(at as u64) } else { damaged as u64 };
        let sealed_after = sealed.map_or(0, |(_, seal)| seal.seq.saturating_add(1).saturating_sub(expected));
        let may_have_been = missing.div_ceil(HEADER as u64).max(sealed_after);
        if may_have_been == 0 {
            return;
        }
        if damaged > 0 && scan.seqs.is_none() {
            self.synced_below = self.synced_below.max(self.expected.unwrap_or(1));
        }
        let earlier = self.tail.take();
        let before = earlier.map_or(0, |tail| tail.last.saturating_add(1).saturating_sub(tail.first));
        let torn = earlier.is_none() && !cut && sealed_after == 0 && view.header_torn(at);
        // Nothing was written after the seal: it stands behind all that was, and says what its last number is.
        let sealed_end = |(place, seal): &(usize, Header)| place.saturating_sub(seal.len as usize);
        let exact = sealed.filter(|seal| sealed_after > 0 && !cut && scan.content_end <= sealed_end(seal));
        let at_most = expected.saturating_add(before).saturating_add(may_have_been).saturating_sub(1);
        self.tail = Some(Lost {
            first: expected,
            last: exact.map_or(at_most, |(_, seal)| seal.seq),
            torn,
            place: Place { segment: view.number, start: at, end: scan.content_end },
            chain: self.chain,
            said: exact.map(|(_, seal)| seal.before),
        });
        self.expected.get_or_insert(expected);
    }
}

/// What the heads of a header agree on.
#[derive(Clone, Copy)]
struct ReadHeader {
    header: Header,
    /// One head is damaged.
    hurt: bool,
}

/// A copy of a record.
struct Copy<'a> {
    /// If it is intact.
    body: Option<&'a [u8]>,
    /// Something of the header or the body is damaged.
    hurt: bool,
    torn: bool,
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

    /// The header at `at`, if one of its heads is valid. Two valid heads that differ are of two writes: the body decides.
    fn header(&self, at: usize) -> Option<ReadHeader> {
        let heads = Header::decode(self.bytes, at, self.seed);
        let header = match heads {
            [Some(first), Some(second)] if first != second => {
                [first, second].into_iter().find(|header| self.body(at, header).is_some())?
            }
            [first, second] => first.or(second)?,
        };
        Some(ReadHeader { header, hurt: heads != [Some(header); 2] })
    }

    /// The body behind the header at `at`, if it is intact.
    fn body(&self, at: usize, header: &Header) -> Option<&'a [u8]> {
        let start = at.saturating_add(HEADER);
        let body = self.bytes.get(start..start.saturating_add(header.len as usize))?;
        (crc(&[body]) == header.body_crc).then_some(body)
    }

    /// The seal at `at`, if one stands there.
    fn seal(&self, at: usize) -> Option<ReadHeader> {
        if !at.is_multiple_of(SECTOR) {
            return None;
        }
        self.header(at).filter(|read| read.header.kind == Kind::Seal)
    }

    /// Whether the part of a sector from `start` on is as it was before records came to it: zeros, or a seal.
    fn unwritten(&self, start: usize) -> bool {
        let end = start.saturating_add(1).next_multiple_of(SECTOR);
        self.zero(start, end) || (self.zero(start.saturating_add(HEADER), end) && self.seal(start).is_some())
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

    /// Whether a damaged header at `at` was never written as a whole. Each sector that a header reaches into gets bytes from it
    /// that are not zero: the checksum in the first, the tag in the last.
    fn header_torn(&self, at: usize) -> bool {
        self.any_unwritten(at, at.saturating_add(HEADER))
    }

    /// The copy at `at` of the record `header`. `own` is the copy's own header, if it is readable.
    fn copy(&self, at: usize, own: Option<ReadHeader>, header: &Header) -> Copy<'a> {
        let body = self.body(at, header);
        let header_hurt = own.is_none_or(|own| own.hurt);
        let start = at.saturating_add(HEADER);
        let end = start.saturating_add(header.len as usize);
        let body_torn = body.is_none()
            && end <= self.bytes.len()
            && own.is_some_and(|own| self.body_torn(start.next_multiple_of(SECTOR), end, &own.header));
        Copy { body, hurt: header_hurt || body.is_none(), torn: body_torn || (header_hurt && self.header_torn(at)) }
    }

    /// Whether a sector of a body, from the first that starts after its header, was never written. A seal is no body's, so it
    /// is proof; zeros are, where the header does not say that the body has them there too.
    fn body_torn(&self, first: usize, end: usize, header: &Header) -> bool {
        let sealed = (first..end).step_by(SECTOR).any(|sector| self.seal(sector).is_some());
        let tail = end.checked_rem(SECTOR).unwrap_or(0);
        let telling = if header.tail_looks_unwritten { end.saturating_sub(tail) } else { end };
        sealed || (!header.may_look_unwritten && self.any_unwritten(first, telling))
    }

    /// The seals from `at` on.
    fn seals(&self, at: usize) -> impl Iterator<Item = (usize, ReadHeader)> {
        let sectors = (at.next_multiple_of(SECTOR)..self.bytes.len()).step_by(SECTOR);
        sectors.filter_map(|sector| Some((sector, self.seal(sector)?)))
    }

    /// The byte of `at..end` that is not zero, if it is one and has one bit, and all other bytes are zeros or seals.
    fn lone_bit(&self, at: usize, end: usize) -> Option<usize> {
        let mut flipped = None;
        let mut next = at;
        while next < end {
            let seal = if self.seal(next).is_some() { HEADER } else { 0 };
            let start = next.saturating_add(seal);
            next = next.saturating_add(1).next_multiple_of(SECTOR);
            for (byte, place) in self.bytes.get(start..next.min(self.bytes.len()))?.iter().zip(start..) {
                if *byte == 0 {
                    continue;
                }
                if flipped.is_some() || byte.count_ones() != 1 {
                    return None;
                }
                flipped = Some(place);
            }
        }
        flipped
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
