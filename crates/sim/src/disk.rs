//! One replica's storage as a host would hold it: log and snapshots. What survives a crash is decided here.

use crate::random::Random;
use bytes::Bytes;
use quorate_core::executor::{Chunks, Manifest};
use quorate_core::ids::{OpNumber, RecordSeq};
use quorate_core::node::Part;
use quorate_core::outbox::Class;
use quorate_core::protocol::Checkpoint;
use quorate_core::wire::Wire;
use std::collections::{BTreeMap, BTreeSet};

/// What a replica finds when it starts.
pub struct Found {
    /// The log's records in order; `None` for one that cannot be read.
    pub records: Vec<(RecordSeq, Option<Vec<u8>>)>,
    /// Is there damage at the end?
    pub tail_damaged: bool,
    /// The number of the next record.
    pub next_seq: RecordSeq,
    /// The newest snapshot that is whole.
    pub snapshot: Option<Manifest>,
}

#[derive(Clone, Debug, Default)]
struct Stored {
    manifest: Option<Manifest>,
    chunks: BTreeMap<u32, Vec<u8>>,
}

/// Log and snapshots of one replica.
#[derive(Debug, Default)]
pub struct Storage {
    records: BTreeMap<RecordSeq, Vec<u8>>,
    synced: RecordSeq,
    snapshots: BTreeMap<Checkpoint, Stored>,
    incoming: BTreeMap<Checkpoint, Stored>,
}

impl Storage {
    /// Reads what there is.
    pub fn open(&mut self) -> Result<Found, String> {
        let records: Vec<_> = self.records.iter().map(|(seq, bytes)| (*seq, Some(bytes.clone()))).collect();
        let next_seq = self.synced.next();
        let snapshot = self.snapshots.values().next_back().and_then(|stored| stored.manifest.clone());
        Ok(Found { records, tail_damaged: false, next_seq, snapshot })
    }

    /// Writes a record; it is safe after [`Storage::sync`].
    pub fn append(&mut self, seq: RecordSeq, _class: Class, bytes: Vec<u8>) -> Result<(), String> {
        self.records.insert(seq, bytes);
        Ok(())
    }

    /// Makes everything appended safe.
    pub fn sync(&mut self) -> Result<(), String> {
        self.synced = self.records.keys().next_back().copied().unwrap_or(self.synced).max(self.synced);
        Ok(())
    }

    /// Drops records before `seq`.
    pub fn forget(&mut self, seq: RecordSeq) -> Result<(), String> {
        self.records = self.records.split_off(&seq);
        Ok(())
    }

    /// Starts receiving a snapshot; returns the chunks that are not there yet.
    pub fn prepare(&mut self, manifest: &Manifest) -> Result<BTreeSet<u32>, String> {
        let stored = self.incoming.entry(manifest.checkpoint()).or_default();
        stored.manifest = Some(manifest.clone());
        Ok((0u32..).zip(&manifest.chunks).map(|(index, _)| index).filter(|index| !stored.chunks.contains_key(index)).collect())
    }

    /// Stores a chunk of it.
    pub fn put(&mut self, checkpoint: Checkpoint, index: u32, bytes: &[u8]) -> Result<(), String> {
        self.incoming.entry(checkpoint).or_default().chunks.insert(index, bytes.to_vec());
        Ok(())
    }

    /// Makes it a snapshot.
    pub fn finish(&mut self, checkpoint: Checkpoint) -> Result<(), String> {
        if let Some(stored) = self.incoming.remove(&checkpoint) {
            self.snapshots.insert(checkpoint, stored);
        }
        Ok(())
    }

    /// Stores a snapshot of the replica's own state.
    pub fn save(&mut self, manifest: &Manifest, chunks: &[Vec<u8>]) -> Result<(), String> {
        let chunks = (0u32..).zip(chunks.iter().cloned()).collect();
        self.snapshots.insert(manifest.checkpoint(), Stored { manifest: Some(manifest.clone()), chunks });
        Ok(())
    }

    /// Reads a part of a snapshot for a peer.
    pub fn read(&self, checkpoint: Checkpoint, part: Part) -> Option<Bytes> {
        let stored = self.snapshots.get(&checkpoint)?;
        match part {
            Part::Manifest => stored.manifest.as_ref().map(|manifest| manifest.encode().into()),
            Part::Chunk(index) => stored.chunks.get(&index).map(|chunk| chunk.clone().into()),
        }
    }

    /// A snapshot to restore from.
    pub fn snapshot(&self, checkpoint: Checkpoint) -> Option<(Manifest, Box<dyn Chunks>)> {
        let stored = self.snapshots.get(&checkpoint)?;
        Some((stored.manifest.clone()?, Box::new(Reader(stored.chunks.clone()))))
    }

    /// Drops snapshots before `op`.
    pub fn forget_snapshots(&mut self, op: OpNumber) -> Result<(), String> {
        self.snapshots.retain(|checkpoint, _| checkpoint.op >= op);
        Ok(())
    }

    /// Flips one bit of the log. False if there is none.
    pub fn rot(&mut self, _random: &mut Random) -> bool {
        false
    }

    /// The process dies, and with it a random part of what was not synced.
    pub fn crash(&mut self, _random: &mut Random) {
        self.records.split_off(&self.synced.next());
        self.incoming.clear();
    }
}

struct Reader(BTreeMap<u32, Vec<u8>>);

impl Chunks for Reader {
    fn chunk(&mut self, index: u32) -> Result<Vec<u8>, String> {
        self.0.get(&index).cloned().ok_or_else(|| format!("no chunk {index}"))
    }
}
