//! What opening a log, or looking at one, found.

use super::Class;
use std::fmt;

/// One thing found in the log, in order of sequence numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// An intact record.
    Found {
        /// Its sequence number.
        seq: u64,
        /// What it was appended as.
        class: Class,
        /// Its bytes, exactly as appended.
        body: Vec<u8>,
    },
    /// Records that were written, or may have been, and cannot be read. Every opening reports them until they are forgotten.
    /// A stretch of lost records is split by what is known of their classes.
    Damaged {
        /// The lowest sequence number.
        first: u64,
        /// The highest, included.
        last: u64,
        /// What all of them were appended as, if their own headers or the one that follows tell.
        class: Option<Class>,
    },
}

impl Item {
    /// The lowest sequence number that the item is about.
    pub fn first(&self) -> u64 {
        match self {
            Self::Found { seq: first, .. } | Self::Damaged { first, .. } => *first,
        }
    }

    /// The highest sequence number that the item is about.
    pub fn last(&self) -> u64 {
        match self {
            Self::Found { seq: last, .. } | Self::Damaged { last, .. } => *last,
        }
    }
}

/// A write that a power loss cut short: it was never reported as done, so dropping it loses nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Torn {
    /// The first sequence number dropped; the next append gets it again.
    pub seq: u64,
    /// Bytes dropped.
    pub bytes: u64,
}

/// Damage at the end of the log that does not look like a torn write: records that were reported safe may be missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DamagedTail {
    /// The first sequence number that may be missing.
    pub from_seq: u64,
    /// How many records can have been there at most. None of their numbers is used again.
    pub at_most: u64,
}

/// The outcome of reading a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// Everything found, in order.
    pub items: Vec<Item>,
    /// The same in short.
    pub report: Report,
}

/// The state of a log in short; displayed as the lines that `quorate verify` prints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Files of the log.
    pub segments: usize,
    /// Bytes of the files.
    pub bytes: u64,
    /// Intact records.
    pub records: u64,
    /// The sequence number of the first item; `None` for a log without any.
    pub first_seq: Option<u64>,
    /// The sequence number that the next append gets.
    pub next_seq: u64,
    /// The ranges of the damaged items, the damaged tail included.
    pub damaged: Vec<(u64, u64)>,
    /// Records that lost one head of a header or one copy, which was written again. Nothing of them is lost.
    pub healed: Vec<u64>,
    /// A write cut short by a power loss; it was removed.
    pub torn: Option<Torn>,
    /// Damage at the end found by this opening. Later openings report it as damaged items only.
    pub tail: Option<DamagedTail>,
    /// Other findings that cost no record, as sentences.
    pub notes: Vec<String>,
}

impl Report {
    /// Whether no record is damaged or missing, as far as one can see.
    pub fn is_intact(&self) -> bool {
        self.damaged.is_empty() && self.tail.is_none()
    }

    pub(crate) fn count(&mut self, items: &[Item]) {
        self.first_seq = items.first().map(Item::first);
        self.records = items.iter().filter(|item| matches!(item, Item::Found { .. })).count() as u64;
        let damaged = items.iter().filter(|item| matches!(item, Item::Damaged { .. }));
        self.damaged = damaged.map(|item| (item.first(), item.last())).collect();
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "log: {} records in {} segments ({} bytes)", self.records, self.segments, self.bytes)?;
        if let Some(first) = self.first_seq {
            write!(f, ", sequence {first} to {}", self.next_seq.saturating_sub(1))?;
        }
        for (first, last) in &self.damaged {
            write!(f, "\n  DAMAGED: sequence {first} to {last} cannot be read")?;
        }
        if let Some(tail) = self.tail {
            write!(
                f,
                "\n  DAMAGED END: up to {} records from sequence {} may be missing",
                tail.at_most, tail.from_seq
            )?;
        }
        for seq in &self.healed {
            write!(f, "\n  one of two copies of record {seq}, or of its header, was damaged; the other is intact")?;
        }
        if let Some(torn) = self.torn {
            write!(
                f,
                "\n  a write of {} bytes at sequence {} was cut short; nobody was told that it was safe",
                torn.bytes, torn.seq
            )?;
        }
        self.notes.iter().try_for_each(|note| write!(f, "\n  {note}"))
    }
}
