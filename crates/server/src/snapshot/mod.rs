//! `Maintenance.Snapshot`: the store as a database of etcd's, for `etcdctl snapshot save`, `status` and `restore`.
//!
//! The file is what etcd itself would have written: a bbolt database with the whole history since the last compaction, leases,
//! users (with their passwords: both keep bcrypt hashes) and roles. etcd starts from it: whoever wants to leave can.
//! Quorate does not start from it; its own snapshots are the replicas' (`docs/formats.md`).
//!
//! It is read through the cluster, at one revision, by the protocol's client rule: under a Byzantine protocol no replica
//! could have forged it. It is written to a file without a name first, since its beginning tells where its end is.

mod bolt;
mod contents;

use crate::errors::EtcdError;
use crate::gateway::{Api, Responses};
use crate::limits::{RESPONSES_WAITING_MAX, SNAPSHOT_BLOB_BYTES};
use crate::proto::etcdserverpb::{ResponseHeader, SnapshotResponse};
use bolt::Database;
use ring::digest::{Context, SHA256};
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use tokio::sync::mpsc;
use tonic::Status;

/// Parts of a snapshot that wait to be written.
const PARTS_WAITING_MAX: usize = 4;

/// What is written, in this order: for each bucket its name, its entries, its end; then that it is all.
#[derive(Debug)]
enum Part {
    Bucket(&'static str),
    /// Keys, ascending, and their values.
    Entries(Vec<(Vec<u8>, Vec<u8>)>),
    End,
    Whole,
}

impl Api {
    /// The responses of a snapshot.
    ///
    /// # Errors
    /// Another one is under way; the cluster does not answer; there is no room for the file.
    pub(crate) async fn take_snapshot(&self) -> Result<Responses<SnapshotResponse>, EtcdError> {
        let busy = |_| EtcdError::TooManyRequests("one snapshot at a time".to_owned());
        let place = self.snapshots.clone().try_acquire_owned().map_err(busy)?;
        let (parts, waiting) = mpsc::channel(PARTS_WAITING_MAX);
        let writer = tokio::task::spawn_blocking(move || write(waiting));
        let gathered = contents::gather(&self.store, &parts).await;
        drop(parts);
        let file = writer.await.map_err(|_| EtcdError::Stopped)?; // waited for in any case: it has a file
        let header = gathered?;
        let file = file.map_err(|error| EtcdError::NoRoom(error.to_string()))?;
        let (responses, stream) = mpsc::channel(RESPONSES_WAITING_MAX);
        tokio::task::spawn_blocking(move || {
            let _place = place;
            send(file, &header, &responses)
        });
        Ok(stream.into())
    }
}

/// Writes the parts to a file without a name, and behind them their hash, as etcd's servers do.
fn write(mut parts: mpsc::Receiver<Part>) -> io::Result<File> {
    let mut database = Database::create(BufWriter::new(tempfile::tempfile()?))?;
    loop {
        match parts.blocking_recv() {
            Some(Part::Bucket(name)) => {
                let mut bucket = database.bucket(name);
                while let Some(Part::Entries(entries)) = parts.blocking_recv() {
                    entries.iter().try_for_each(|(key, value)| bucket.put(key, value))?;
                }
                bucket.finish()?;
            }
            Some(Part::Whole) => break,
            Some(Part::Entries(_) | Part::End) | None => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
    let mut file = database.finish()?.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.seek(SeekFrom::Start(0))?;
    let mut hash = Context::new(&SHA256);
    let mut reader = BufReader::with_capacity(SNAPSHOT_BLOB_BYTES, &file);
    let mut bytes = vec![0; SNAPSHOT_BLOB_BYTES];
    loop {
        let count = reader.read(&mut bytes)?;
        if count == 0 {
            break;
        }
        hash.update(bytes.get(..count).unwrap_or_default());
    }
    file.seek(SeekFrom::End(0))?;
    file.write_all(hash.finish().as_ref())?;
    file.seek(SeekFrom::Start(0))?;
    Ok(file)
}

/// Sends the file; a client that goes away ends it.
fn send(mut file: File, header: &ResponseHeader, responses: &mpsc::Sender<Result<SnapshotResponse, Status>>) {
    let mut remaining_bytes = file.metadata().map(|it| it.len()).unwrap_or_default();
    while remaining_bytes > 0 {
        let mut blob = vec![0; SNAPSHOT_BLOB_BYTES.min(usize::try_from(remaining_bytes).unwrap_or(usize::MAX))];
        if let Err(error) = file.read_exact(&mut blob) {
            drop(responses.blocking_send(Err(EtcdError::NoRoom(error.to_string()).into())));
            return;
        }
        remaining_bytes = remaining_bytes.saturating_sub(blob.len() as u64);
        let response = SnapshotResponse { header: Some(*header), remaining_bytes, blob: blob.into() };
        if responses.blocking_send(Ok(response)).is_err() {
            return;
        }
    }
}
