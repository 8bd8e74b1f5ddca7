//! One record on the disk: a header of 40 bytes, the body, zeros up to a multiple of 8.
//!
//! The checksum of a header starts from the log's id, the segment's number and the record's place in it. So a record is
//! valid at its own place only: bytes of another log, of a misdirected write, or bytes inside a body that look like a record
//! never are.

use super::Class;
use crate::bytes::{array_at, crc, is_zero, u32_at, u64_at};
use crate::disk::SECTOR;

/// Bytes of a record's header.
pub(crate) const HEADER: usize = 40;
/// Every record starts at a multiple of this.
pub(crate) const ALIGN: usize = 8;
/// No sequence number reaches this: adding to one never overflows.
pub(crate) const SEQ_END: u64 = 1 << 62;

const TAG: [u8; 4] = *b"QREC";
const MAY_LOOK_UNWRITTEN: u8 = 1;

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

/// A record's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// Bytes of the body.
    pub(crate) len: u32,
    pub(crate) seq: u64,
    /// All records below this were known to be safe when this one was written. At least 1.
    pub(crate) synced_below: u64,
    /// The link of the record before.
    pub(crate) prev_link: u32,
    pub(crate) body_crc: u32,
    pub(crate) kind: Kind,
    /// 0, or 1 for the second copy of a promise.
    pub(crate) copy: u8,
    /// The body has zeros where a sector that was never written would have them too.
    pub(crate) may_look_unwritten: bool,
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

impl Header {
    /// The header of `body`, to stand at `offset`.
    pub(crate) fn of(kind: Kind, seq: u64, synced_below: u64, prev_link: u32, body: &[u8], offset: usize) -> Self {
        Self {
            len: u32::try_from(body.len()).unwrap_or(u32::MAX),
            seq,
            synced_below,
            prev_link,
            body_crc: crc(&[body]),
            kind,
            copy: 0,
            may_look_unwritten: may_look_unwritten(body, offset.saturating_add(HEADER)),
        }
    }

    pub(crate) fn encode(&self, seed: Seed, offset: usize) -> [u8; HEADER] {
        let mut fields = Vec::with_capacity(HEADER);
        fields.extend_from_slice(&self.len.to_le_bytes());
        fields.extend_from_slice(&self.seq.to_le_bytes());
        fields.extend_from_slice(&self.synced_below.to_le_bytes());
        fields.extend_from_slice(&self.prev_link.to_le_bytes());
        fields.extend_from_slice(&self.body_crc.to_le_bytes());
        fields.extend_from_slice(&TAG);
        let flags = if self.may_look_unwritten { MAY_LOOK_UNWRITTEN } else { 0 };
        fields.extend_from_slice(&[self.kind.code(), self.copy, flags, 0]);
        let mut header = [0; HEADER];
        let (check, rest) = header.split_at_mut(4);
        check.copy_from_slice(&seed.check(offset, &fields).to_le_bytes());
        rest.copy_from_slice(&fields);
        header
    }

    /// The header at `offset` of a segment, if the bytes there are one.
    pub(crate) fn decode(segment: &[u8], offset: usize, seed: Seed) -> Option<Self> {
        let bytes: [u8; HEADER] = array_at(segment, offset)?;
        let (check, fields) = bytes.split_at(4);
        let [kind, copy, flags, 0] = array_at::<4>(&bytes, 36)? else {
            return None;
        };
        if array_at(&bytes, 32)? != TAG || u32_at(check, 0)? != seed.check(offset, fields) {
            return None;
        }
        let header = Self {
            len: u32_at(&bytes, 4)?,
            seq: u64_at(&bytes, 8)?,
            synced_below: u64_at(&bytes, 16)?,
            prev_link: u32_at(&bytes, 24)?,
            body_crc: u32_at(&bytes, 28)?,
            kind: Kind::of_code(kind)?,
            copy,
            may_look_unwritten: flags & MAY_LOOK_UNWRITTEN != 0,
        };
        header.is_possible().then_some(header)
    }

    fn is_possible(&self) -> bool {
        let synced_max = if self.kind == Kind::Seal { self.seq.saturating_add(1) } else { self.seq };
        let copies = if self.kind == Kind::User(Class::Promise) { 2 } else { 1 };
        let seq_min = u64::from(self.kind != Kind::Seal);
        (seq_min..SEQ_END).contains(&self.seq) && (1..=synced_max).contains(&self.synced_below) && self.copy < copies
    }

    /// Bytes that one copy takes on the disk.
    pub(crate) fn span(&self) -> usize {
        span(self.len as usize)
    }

    /// What the next record must name as the record before it.
    pub(crate) fn link(&self) -> u32 {
        crc(&[
            &self.prev_link.to_le_bytes(),
            &self.seq.to_le_bytes(),
            &[self.kind.code()],
            &self.len.to_le_bytes(),
            &self.body_crc.to_le_bytes(),
        ])
    }

    /// Whether both are copies of one record.
    pub(crate) fn same_record(&self, other: &Self) -> bool {
        let place_free = |header: &Self| Self { copy: 0, may_look_unwritten: false, ..*header };
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

/// What starts the chain of links of a log.
pub(crate) fn first_link(log_id: u128) -> u32 {
    crc(&[b"quorate log", &log_id.to_le_bytes()])
}

/// Appends one copy of a record to `buffer`, which will be written so that the copy stands at `offset`.
pub(crate) fn put(buffer: &mut Vec<u8>, header: &Header, body: &[u8], seed: Seed, offset: usize) {
    let end = buffer.len().saturating_add(header.span());
    buffer.extend_from_slice(&header.encode(seed, offset));
    buffer.extend_from_slice(body);
    buffer.resize(end, 0);
}

/// Whether some sector after the header's would look the same with this body as if it had never been written.
fn may_look_unwritten(body: &[u8], start: usize) -> bool {
    let skip = start.next_multiple_of(SECTOR).saturating_sub(start);
    body.get(skip..).is_some_and(|rest| rest.chunks(SECTOR).any(is_zero))
}
