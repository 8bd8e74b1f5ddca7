//! The snapshots' thread: writes them out, reads them for peers, stores the chunks that arrive. Bulk work on files that no
//! vote waits for.

use super::Event;
use bytes::Bytes;
use quorate_core::executor::{Manifest, Save};
use quorate_core::ids::{OpNumber, ReplicaId};
use quorate_core::node::Part;
use quorate_core::protocol::Checkpoint;
use quorate_store::Disk;
use quorate_store::replica::Snapshots;
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
pub(super) fn run<D: Disk>(mut snapshots: Snapshots<D>, orders: &Receiver<Order>, events: &UnboundedSender<Event>) {
    while let Ok(order) = orders.recv() {
        match serve(&mut snapshots, order) {
            Ok(None) => {}
            Ok(Some(event)) => {
                if events.send(event).is_err() {
                    return;
                }
            }
            Err(error) => {
                let _gone = events.send(Event::DiskFailed(error));
                return;
            }
        }
    }
}

fn serve<D: Disk>(snapshots: &mut Snapshots<D>, order: Order) -> Result<Option<Event>, String> {
    Ok(match order {
        Order::Save(save) => Some(Event::Saved(snapshots.save(save)?)),
        Order::Read { to, checkpoint, part } => {
            let bytes = snapshots.read(checkpoint, part);
            Some(Event::Read { to, checkpoint, part, bytes })
        }
        Order::Prepare(manifest) => {
            let missing = snapshots.prepare(&manifest)?;
            Some(Event::Prepared(manifest, missing))
        }
        Order::Put(checkpoint, index, bytes) => {
            snapshots.put(checkpoint, index, &bytes)?;
            None
        }
        Order::Finish(checkpoint) => {
            snapshots.finish(checkpoint)?;
            Some(Event::Stored(checkpoint))
        }
        Order::Install(checkpoint) => {
            let (manifest, chunks) = snapshots.open(checkpoint)?;
            Some(Event::Install(manifest, chunks))
        }
        Order::Forget(before) => {
            snapshots.forget(before)?;
            None
        }
    })
}
