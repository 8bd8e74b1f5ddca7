//! One record on the disk: a header of 88 bytes, the body, zeros up to a multiple of 8.
//!
//! A header is two equal *heads* of 44 bytes, one after the other, so that a flipped bit in one costs nothing. The checksum of
//! a head starts from the log's id, the segment's number and the head's place in it. So a record is valid at its own place
//! only: bytes of another log, of a misdirected write, or bytes inside a body that look like a record never are.
//!
//! Each header also tells the classes of the records before it: see [`Chain`].

use super::Class;
use crate::bytes::{array_at, crc, is_zero, u32_at, u64_at};
use crate::disk::SECTOR;

/// Bytes of one head.
const HEAD: usize = 44;
/// Bytes of a record's header: two heads.
pub(crate) const HEADER: usize = 2 * HEAD;
/// Every record starts at a multiple of this.
pub(crate) const ALIGN: usize = 8;
/// No sequence number reaches this: adding to one never overflows.
pub(crate) const SEQ_END: u64 = 1 << 62;

const TAG: [u8; 4] = *b"QREC";
const MAY_LOOK_UNWRITTEN: u8 = 1;
const AFTER_PROMISE: u8 = 2;
const TAIL_LOOKS_UNWRITTEN: u8 = 4;

/// What a record is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A record of the caller.
    User(Class),
    /// Says that everything up to its sequence number is safe. Not part of the sequence.
    Seal,
    /// Says that all sequence numbers up to its own that no record before it has were given up after damage.
    Gap,
}

/// What a record says of those before it. Of a seal and a gap, "before" includes the number that they name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Chain {
    /// The link of the record before.
    pub(crate) link: u32,
    /// How many of the numbers directly before are entries, as far as it is known.
    pub(crate) entries: u32,
    /// Whether a promise stands before those entries. Otherwise nobody knows.
    pub(crate) promise: bool,
}

/// A record's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// Bytes of the body; of a seal, from the end of the log to the seal.
    pub(crate) len: u32,
    pub(crate) seq: u64,
    /// All records below this were known to be safe when this one was written. At least 1.
    pub(crate) synced_below: u64,
    pub(crate) before: Chain,
    pub(crate) body_crc: u32,
    pub(crate) kind: Kind,
    /// 0, or 1 for the second copy of a promise.
    pub(crate) copy: u8,
    /// A whole sector of the body is zeros, as if it had never been written.
    pub(crate) may_look_unwritten: bool,
    /// The last sector that the body reaches into, and does not fill, gets nothing but zeros from it.
    pub(crate) tail_looks_unwritten: bool,
}

/// The part of a header's checksum that says whose record it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seed(u32);

impl Seed {
    pub(crate) fn new(log_id: u128, segment: u64) -> Self {
        Self(crc(&[&log_id.to_le_bytes(), &segment.to_le_bytes()]))
    }

    fn check(self, offset: usize, fields: &[u8]) -> u32 {
        crc32c::crc32c_append(crc32c::crc32c_append(self.0, &(offset as u64).to_le_bytes()), fields)
    }
}

impl Chain {
    /// What the first record of a log says.
    pub(crate) fn start(log_id: u128) -> Self {
        Self { link: crc(&[b"quorate log", &log_id.to_le_bytes()]), entries: 0, promise: false }
    }

    /// The same place in the log, and nothing known of the numbers before.
    pub(crate) fn without_classes(self) -> Self {
        Self { entries: 0, promise: false, ..self }
    }

    /// What is known of the numbers `first..=last`, if this was said right after `last`: ranges, from the lowest.
    pub(crate) fn classes(&self, first: u64, last: u64) -> Vec<(u64, u64, Option<Class>)> {
        let end = last.saturating_add(1);
        let entries = end.saturating_sub(u64::from(self.entries)).max(first);
        let promise = if self.promise { entries.saturating_sub(1).max(first) } else { entries };
        let ranges =
            [(first, promise, None), (promise, entries, Some(Class::Promise)), (entries, end, Some(Class::Entry))];
        let full = ranges.into_iter().filter(|(start, end, _)| start < end);
        full.map(|(start, end, class)| (start, end.saturating_sub(1), class)).collect()
    }
}

impl Header {
    /// The header of `body`, to stand at `offset`.
    pub(crate) fn of(kind: Kind, seq: u64, synced_below: u64, before: Chain, body: &[u8], offset: usize) -> Self {
        Self {
            len: u32::try_from(body.len()).unwrap_or(u32::MAX),
            seq,
            synced_below,
            before,
            body_crc: crc(&[body]),
            kind,
            copy: 0,
            may_look_unwritten: sectors(body, offset.saturating_add(HEADER))
                .any(|it| it.len() == SECTOR && is_zero(it)),
            tail_looks_unwritten: sectors(body, offset.saturating_add(HEADER))
                .any(|it| it.len() < SECTOR && is_zero(it)),
        }
    }

    /// Both heads, to stand at `offset`.
    pub(crate) fn encode(&self, seed: Seed, offset: usize) -> [u8; HEADER] {
        let mut header = [0; HEADER];
        let mut at = offset;
        for (which, head) in header.chunks_mut(HEAD).enumerate() {
            let mut fields = Vec::with_capacity(HEAD);
            fields.extend_from_slice(&self.len.to_le_bytes());
            fields.extend_from_slice(&self.seq.to_le_bytes());
            fields.extend_from_slice(&self.synced_below.to_le_bytes());
            fields.extend_from_slice(&self.before.link.to_le_bytes());
            fields.extend_from_slice(&self.body_crc.to_le_bytes());
            fields.extend_from_slice(&self.before.entries.to_le_bytes());
            fields.extend_from_slice(&TAG);
            let unwritten = if self.may_look_unwritten { MAY_LOOK_UNWRITTEN } else { 0 };
            let promise = if self.before.promise { AFTER_PROMISE } else { 0 };
            let tail = if self.tail_looks_unwritten { TAIL_LOOKS_UNWRITTEN } else { 0 };
            fields.extend_from_slice(&[self.kind.code(), self.copy, unwritten | promise | tail, which as u8]);
            let (check, rest) = head.split_at_mut(4);
            check.copy_from_slice(&seed.check(at, &fields).to_le_bytes());
            rest.copy_from_slice(&fields);
            at = at.saturating_add(HEAD);
        }
        header
    }

    /// What each of the two heads of a header at `offset` of a segment says, if the bytes there are one.
    pub(crate) fn decode(segment: &[u8], offset: usize, seed: Seed) -> [Option<Self>; 2] {
        [0, 1].map(|which| Self::decode_head(segment, offset, seed, which))
    }

    fn decode_head(segment: &[u8], offset: usize, seed: Seed, which: u8) -> Option<Self> {
        let at = offset.checked_add(if which == 0 { 0 } else { HEAD })?;
        let bytes: [u8; HEAD] = array_at(segment, at)?;
        let (check, fields) = bytes.split_at(4);
        let [kind, copy, flags, head] = array_at::<4>(&bytes, 40)?;
        if array_at(&bytes, 36)? != TAG || head != which || u32_at(check, 0)? != seed.check(at, fields) {
            return None;
        }
        let header = Self {
            len: u32_at(&bytes, 4)?,
            seq: u64_at(&bytes, 8)?,
            synced_below: u64_at(&bytes, 16)?,
            before: Chain {
                link: u32_at(&bytes, 24)?,
                entries: u32_at(&bytes, 32)?,
                promise: flags & AFTER_PROMISE != 0,
            },
            body_crc: u32_at(&bytes, 28)?,
            kind: Kind::of_code(kind)?,
            copy,
            may_look_unwritten: flags & MAY_LOOK_UNWRITTEN != 0,
            tail_looks_unwritten: flags & TAIL_LOOKS_UNWRITTEN != 0,
        };
        header.is_possible().then_some(header)
    }

    fn is_possible(&self) -> bool {
        let synced_max = if self.kind == Kind::Seal { self.seq.saturating_add(1) } else { self.seq };
        let copies = if self.kind == Kind::User(Class::Promise) { 2 } else { 1 };
        let seq_min = u64::from(self.kind != Kind::Seal);
        let near = self.kind != Kind::Seal || (1..=SECTOR).contains(&(self.len as usize));
        (seq_min..SEQ_END).contains(&self.seq)
            && (1..=synced_max).contains(&self.synced_below)
            && self.copy < copies
            && near
    }

    /// Bytes that one copy takes on the disk.
    pub(crate) fn span(&self) -> usize {
        span(self.len as usize)
    }

    /// What the next record says of this one and those before.
    pub(crate) fn after(&self) -> Chain {
        let link = crc(&[
            &self.before.link.to_le_bytes(),
            &self.seq.to_le_bytes(),
            &[self.kind.code()],
            &self.len.to_le_bytes(),
            &self.body_crc.to_le_bytes(),
        ]);
        let Chain { entries, promise, .. } = self.before;
        let (entries, promise) = match self.kind {
            Kind::User(Class::Entry) => (entries.saturating_add(1), promise && entries < u32::MAX),
            Kind::User(Class::Promise) => (0, true),
            Kind::Gap | Kind::Seal => (entries, promise),
        };
        Chain { link, entries, promise }
    }

    /// Whether both are copies of one record.
    pub(crate) fn same_record(&self, other: &Self) -> bool {
        let place_free =
            |header: &Self| Self { copy: 0, may_look_unwritten: false, tail_looks_unwritten: false, ..*header };
        place_free(self) == place_free(other)
    }
}

impl Kind {
    fn code(self) -> u8 {
        match self {
            Self::User(Class::Entry) => 1,
            Self::User(Class::Promise) => 2,
            Self::Seal => 3,
            Self::Gap => 4,
        }
    }

    fn of_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::User(Class::Entry)),
            2 => Some(Self::User(Class::Promise)),
            3 => Some(Self::Seal),
            4 => Some(Self::Gap),
            _ => None,
        }
    }
}

/// Bytes that a body of `len` bytes takes with its header and padding.
pub(crate) fn span(len: usize) -> usize {
    len.saturating_add(HEADER).checked_next_multiple_of(ALIGN).unwrap_or(usize::MAX)
}

/// Appends one copy of a record to `buffer`, which will be written so that the copy stands at `offset`.
pub(crate) fn put(buffer: &mut Vec<u8>, header: &Header, body: &[u8], seed: Seed, offset: usize) {
    let end = buffer.len().saturating_add(header.span());
    buffer.extend_from_slice(&header.encode(seed, offset));
    buffer.extend_from_slice(body);
    buffer.resize(end, 0);
}

/// What each sector after the header's gets from a body that starts at `start`; the last one may get less than it holds.
fn sectors(body: &[u8], start: usize) -> impl Iterator<Item = &[u8]> {
    let skip = start.next_multiple_of(SECTOR).saturating_sub(start);
    body.get(skip..).unwrap_or_default().chunks(SECTOR)
}
