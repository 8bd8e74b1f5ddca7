//! The bytes of a snapshot file.
//!
//! ```text
//! header 32 │ len₀ crc₀ │ chunk₀ │ len₁ crc₁ │ chunk₁ │ … │ manifest │ lengths: 4 bytes for each chunk │ trailer 64
//! ```

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use super::SnapshotError;
use crate::bytes::{array_at, crc, u32_at, u64_at};
use crate::disk::DiskFile;

pub(super) const HEADER: u64 = 32;
pub(super) const TRAILER: u64 = 64;
/// Bytes before each chunk: its length and checksum.
pub(super) const PREFIX: u64 = 8;

const MAGIC: [u8; 8] = *b"QUORSNP\x01";
const END_MAGIC: [u8; 8] = *b"QUOREND\x01";
const VERSION: u32 = 1;

/// Where everything in a snapshot file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) number: u64,
    pub(super) manifest: Vec<u8>,
    pub(super) lengths: Vec<u32>,
    /// The offset of each chunk's prefix.
    pub(super) offsets: Vec<u64>,
    /// The end of the last chunk: where the manifest starts.
    pub(super) chunks_end: u64,
}

impl Layout {
    /// The layout of a snapshot with these chunks; `None` if it is longer than a file can be.
    pub(super) fn new(number: u64, manifest: &[u8], lengths: &[u32]) -> Option<Self> {
        let mut offsets = Vec::with_capacity(lengths.len());
        let mut at = HEADER;
        for len in lengths {
            offsets.push(at);
            at = at.checked_add(PREFIX)?.checked_add(u64::from(*len))?;
        }
        let end = at.checked_add(manifest.len() as u64)?.checked_add(4_u64.checked_mul(lengths.len() as u64)?)?;
        end.checked_add(TRAILER).filter(|size| i64::try_from(*size).is_ok())?;
        Some(Self { number, manifest: manifest.to_vec(), lengths: lengths.to_vec(), offsets, chunks_end: at })
    }

    /// Everything after the chunks.
    pub(super) fn end_bytes(&self) -> Vec<u8> {
        let lengths: Vec<u8> = self.lengths.iter().flat_map(|len| len.to_le_bytes()).collect();
        let mut trailer = Vec::with_capacity(TRAILER as usize);
        trailer.extend_from_slice(&END_MAGIC);
        trailer.extend_from_slice(&self.number.to_le_bytes());
        trailer.extend_from_slice(&(self.lengths.len() as u64).to_le_bytes());
        trailer.extend_from_slice(&self.chunks_end.to_le_bytes());
        trailer.extend_from_slice(&(self.manifest.len() as u64).to_le_bytes());
        trailer.extend_from_slice(&crc(&[&self.manifest]).to_le_bytes());
        trailer.extend_from_slice(&crc(&[&lengths]).to_le_bytes());
        trailer.extend_from_slice(&[0; 12]);
        let check = crc(&[&trailer]);
        trailer.extend_from_slice(&check.to_le_bytes());
        [self.manifest.as_slice(), &lengths, &trailer].concat()
    }

    /// Reads and checks all but the chunks of a file.
    pub(super) fn read(file: &impl DiskFile, name: &str, number: u64) -> Result<Self, SnapshotError> {
        let damaged = |what| SnapshotError::Damaged { file: name.to_owned(), what };
        check_header(&file.read_at(0, HEADER as usize)?, number).map_err(|wrong| wrong.for_file(name))?;
        let size = file.len()?;
        let trailer_at = size.checked_sub(TRAILER).ok_or_else(|| damaged("trailer"))?;
        let trailer = file.read_at(trailer_at, TRAILER as usize)?;
        let ends = Ends::decode(&trailer, number, trailer_at).ok_or_else(|| damaged("trailer"))?;
        let manifest = file.read_at(ends.manifest_at, ends.manifest_len)?;
        if manifest.len() != ends.manifest_len || crc(&[&manifest]) != ends.manifest_crc {
            return Err(damaged("manifest"));
        }
        let bytes = file.read_at(ends.lengths_at, ends.lengths_len)?;
        if bytes.len() != ends.lengths_len || crc(&[&bytes]) != ends.lengths_crc {
            return Err(damaged("table of lengths"));
        }
        let lengths: Vec<u32> = bytes.as_chunks::<4>().0.iter().map(|len| u32::from_le_bytes(*len)).collect();
        match Self::new(number, &manifest, &lengths) {
            Some(layout) if layout.chunks_end == ends.manifest_at => Ok(layout),
            _ => Err(damaged("table of lengths")),
        }
    }
}

/// What the trailer says, checked against the size of the file.
struct Ends {
    manifest_at: u64,
    manifest_len: usize,
    manifest_crc: u32,
    lengths_at: u64,
    lengths_len: usize,
    lengths_crc: u32,
}

impl Ends {
    fn decode(trailer: &[u8], number: u64, trailer_at: u64) -> Option<Self> {
        let fields = trailer.get(..60)?;
        if array_at(trailer, 0)? != END_MAGIC || u32_at(trailer, 60)? != crc(&[fields]) || u64_at(trailer, 8)? != number
        {
            return None;
        }
        let (manifest_at, manifest_len) = (u64_at(trailer, 24)?, u64_at(trailer, 32)?);
        let lengths_at = manifest_at.checked_add(manifest_len)?;
        let lengths_len = u64_at(trailer, 16)?.checked_mul(4)?;
        (lengths_at.checked_add(lengths_len)? == trailer_at).then_some(())?;
        Some(Self {
            manifest_at,
            manifest_len: usize::try_from(manifest_len).ok()?,
            manifest_crc: u32_at(trailer, 40)?,
            lengths_at,
            lengths_len: usize::try_from(lengths_len).ok()?,
            lengths_crc: u32_at(trailer, 44)?,
        })
    }
}

/// The first bytes of the file.
pub(super) fn header(number: u64) -> Vec<u8> {
    let mut header = Vec::with_capacity(HEADER as usize);
    header.extend_from_slice(&MAGIC);
    header.extend_from_slice(&VERSION.to_le_bytes());
    header.extend_from_slice(&0_u32.to_le_bytes());
    header.extend_from_slice(&number.to_le_bytes());
    header.extend_from_slice(&0_u32.to_le_bytes());
    let check = crc(&[&header]);
    header.extend_from_slice(&check.to_le_bytes());
    header
}

enum Wrong {
    Header,
    Version(u32),
}

impl Wrong {
    fn for_file(self, file: &str) -> SnapshotError {
        match self {
            Self::Header => SnapshotError::Damaged { file: file.to_owned(), what: "header" },
            Self::Version(version) => SnapshotError::Version { file: file.to_owned(), version },
        }
    }
}

fn check_header(bytes: &[u8], number: u64) -> Result<(), Wrong> {
    let whole = || {
        let fields = bytes.get(..28)?;
        (array_at(bytes, 0)? == MAGIC && u32_at(bytes, 28)? == crc(&[fields])).then_some(())?;
        Some((u32_at(bytes, 8)?, u64_at(bytes, 16)?))
    };
    match whole() {
        Some((VERSION, found)) if found == number => Ok(()),
        Some((version, _)) if version != VERSION => Err(Wrong::Version(version)),
        _ => Err(Wrong::Header),
    }
}

/// The prefix of a chunk. Its checksum covers the snapshot's number and the chunk's index: a chunk is valid at its own place only.
pub(super) fn prefix(number: u64, index: u64, chunk: &[u8]) -> [u8; PREFIX as usize] {
    let len = (chunk.len() as u32).to_le_bytes();
    let check = crc(&[&number.to_le_bytes(), &index.to_le_bytes(), &len, chunk]).to_le_bytes();
    let mut prefix = [0; PREFIX as usize];
    let (first, second) = prefix.split_at_mut(4);
    first.copy_from_slice(&len);
    second.copy_from_slice(&check);
    prefix
}

/// The chunk `index`, if it is there and intact.
pub(super) fn read_chunk(
    file: &impl DiskFile,
    layout: &Layout,
    index: usize,
) -> Result<Option<Vec<u8>>, SnapshotError> {
    let (Some(offset), Some(len)) = (layout.offsets.get(index), layout.lengths.get(index)) else {
        return Ok(None);
    };
    let mut bytes = file.read_at(*offset, (*len as usize).saturating_add(PREFIX as usize))?;
    let Some((found, chunk)) = bytes.split_first_chunk::<{ PREFIX as usize }>() else {
        return Ok(None);
    };
    if chunk.len() != *len as usize || *found != prefix(layout.number, index as u64, chunk) {
        return Ok(None);
    }
    bytes.drain(..PREFIX as usize);
    Ok(Some(bytes))
}
