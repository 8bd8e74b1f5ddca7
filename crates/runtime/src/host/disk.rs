//! The disk's thread: appends what has gathered, syncs once for all of it, reports how far the log is durable. Nothing
//! else happens on it, so a record waits for at most one sync of others before its own.

use super::Event;
use quorate_core::ids::RecordSeq;
use quorate_core::outbox::Class;
use quorate_store::{Disk, RecordClass, Wal};
use std::sync::mpsc::{Receiver, TryRecvError};
use tokio::sync::mpsc::UnboundedSender;

/// What the disk's thread is asked to do.
pub(super) enum Order {
    /// Append these records, in this order.
    Append(Vec<(RecordSeq, Class, Vec<u8>)>),
    /// Records before this one are not needed any more.
    Forget(RecordSeq),
}

/// Runs until the host is gone. An error of the disk ends it: the host stops the process then, because after a failed sync
/// nobody knows what the disk holds.
pub(super) fn run<D: Disk>(mut wal: Wal<D>, orders: &Receiver<Order>, events: &UnboundedSender<Event>) {
    loop {
        let Ok(first) = orders.recv() else { return };
        if let Err(error) = serve(&mut wal, first, orders, events) {
            let _gone = events.send(Event::DiskFailed(error.to_string()));
            return;
        }
    }
}

/// Serves orders until there are none.
fn serve<D: Disk>(
    wal: &mut Wal<D>,
    first: Order,
    orders: &Receiver<Order>,
    events: &UnboundedSender<Event>,
) -> Result<(), quorate_store::WalError> {
    let mut next = Some(first);
    loop {
        let mut forget = None;
        while let Some(order) = next.take() {
            match order {
                Order::Append(records) => {
                    for (seq, class, bytes) in records {
                        let class = match class {
                            Class::Entry => RecordClass::Entry,
                            Class::Promise => RecordClass::Promise,
                        };
                        let appended = wal.append(class, &bytes)?;
                        assert_eq!(appended, seq.get(), "the log and the node number records alike");
                    }
                }
                Order::Forget(before) => forget = Some(before),
            }
            next = orders.try_recv().ok();
        }
        let durable = wal.sync()?;
        let _gone = events.send(Event::Synced(RecordSeq::new(durable)));
        if let Some(before) = forget {
            wal.forget_before(before.get())?;
        }
        match orders.try_recv() {
            Ok(order) => next = Some(order),
            Err(TryRecvError::Disconnected) => return Ok(()),
            Err(TryRecvError::Empty) => {
                wal.seal()?;
                if wal.wants_segment() {
                    wal.prepare_next()?;
                }
                return Ok(());
            }
        }
    }
}
