//! The snapshots' thread: writes them out, reads them for peers, stores the chunks that arrive. Bulk work on files that no
//! vote waits for.

use super::{Event, HostError};
use bytes::Bytes;
use quorate_core::executor::{Done, Manifest, Save};
use quorate_core::ids::{OpNumber, ReplicaId};
use quorate_core::machine::Corrupt;
use quorate_core::node::Part;
use quorate_core::protocol::Checkpoint;
use quorate_store::Disk;
use quorate_store::replica::{Snapshots, SnapshotsError};
use std::sync::mpsc::Receiver;
use tokio::sync::mpsc::UnboundedSender;

/// What the snapshots' thread is asked to do.
pub(super) enum Order {
    Save(Box<dyn Save>),
    Read { to: ReplicaId, checkpoint: Checkpoint, part: Part },
    Prepare(Manifest),
    Put(Checkpoint, u32, Bytes),
    Finish(Checkpoint),
    Install(Checkpoint),
    Forget(OpNumber),
}

/// Runs until the host is gone. An error while writing ends it, as for the log.
pub(super) fn run<D: Disk>(
    mut snapshots: Snapshots<D>,
    orders: &Receiver<Order>,
    events: &UnboundedSender<Event>,
) -> Result<(), HostError> {
    while let Ok(order) = orders.recv() {
        let event = serve(&mut snapshots, order).map_err(|error| match error {
            SnapshotsError::Disk(error) if error.is_full() => HostError::DiskFull(error),
            other => HostError::Disk(other.to_string()),
        })?;
        if event.is_some_and(|event| events.send(event).is_err()) {
            break;
        }
    }
    Ok(())
}

fn serve<D: Disk>(snapshots: &mut Snapshots<D>, order: Order) -> Result<Option<Event>, SnapshotsError> {
    match order {
        Order::Save(save) => snapshots.save(save).map(|checkpoint| Some(Event::Saved(checkpoint))),
        Order::Read { to, checkpoint, part } => {
            let bytes = snapshots.read(checkpoint, part);
            Ok(Some(Event::Read { to, checkpoint, part, bytes }))
        }
        Order::Prepare(manifest) => {
            let checkpoint = manifest.checkpoint();
            let prepared = snapshots.prepare(&manifest).map(|missing| Event::Prepared(manifest, missing));
            or_failed(checkpoint, prepared)
        }
        Order::Put(checkpoint, index, bytes) => match snapshots.put(checkpoint, index, &bytes) {
            Ok(()) | Err(SnapshotsError::Unusable { .. }) => Ok(None), // the chunk is then missing at the end
            Err(error) => Err(error),
        },
        Order::Finish(checkpoint) => {
            or_failed(checkpoint, snapshots.finish(checkpoint).map(|()| Event::Stored(checkpoint)))
        }
        Order::Install(checkpoint) => {
            let loaded = snapshots.load(checkpoint);
            or_failed(checkpoint, loaded.map(|(manifest, chunks)| Event::Install(manifest, chunks)))
        }
        Order::Forget(before) => snapshots.forget(before).map(|()| None),
    }
}

/// A snapshot that arrived and cannot be used has failed to be installed: the protocol fetches another one. Only a disk
/// that refuses stops the replica.
fn or_failed(checkpoint: Checkpoint, result: Result<Event, SnapshotsError>) -> Result<Option<Event>, SnapshotsError> {
    match result {
        Ok(event) => Ok(Some(event)),
        Err(SnapshotsError::Unusable { why, .. }) => {
            Ok(Some(Event::Unusable(Done::Installed { checkpoint, error: Some(Corrupt(why)), wake: None })))
        }
        Err(error) => Err(error),
    }
}
