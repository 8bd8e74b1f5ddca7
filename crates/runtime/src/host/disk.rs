//! The disk's thread: appends what has gathered, syncs once for all of it, reports how far the log is durable. Nothing
//! else happens on it, so a record waits for at most one sync of others before its own. The log's next segment, many
//! megabytes of zeros, is made by a thread of its own.

use super::thread::{Thread, Threads};
use super::{Event, HostError};
use quorate_core::ids::RecordSeq;
use quorate_core::outbox::Class;
use quorate_store::replica::kept;
use quorate_store::wal::Spare;
use quorate_store::{Disk, DiskError, Wal, WalError};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;
use tokio::sync::mpsc::UnboundedSender;

/// How long nothing must have been appended before the log's end is sealed: a seal for every record would double the writes.
const SEAL_AFTER: Duration = Duration::from_millis(20);

/// What the disk's thread is asked to do.
pub(super) enum Order {
    /// Append these records, in this order.
    Append(Vec<(RecordSeq, Class, Vec<u8>)>),
    /// Records before this one are not needed any more.
    Forget(RecordSeq),
}

type Built<D> = Result<Spare<D>, DiskError>;

struct Log<D: Disk> {
    wal: Wal<D>,
    threads: Threads,
    built: (Sender<Built<D>>, Receiver<Built<D>>),
    /// There was no room for a segment ahead of need: do not fill the last of the disk with further attempts.
    cramped: bool,
}

/// Runs until the host is gone. An error of the disk ends it: the host stops the process then, because after a failed sync
/// nobody knows what the disk holds.
pub(super) fn run<D: Disk>(
    wal: Wal<D>,
    threads: Threads,
    orders: &Receiver<Order>,
    events: &UnboundedSender<Event>,
) -> Result<(), HostError> {
    let mut log = Log { wal, threads, built: channel(), cramped: false };
    while let Ok(first) = orders.recv() {
        log.serve(first, orders, events)?;
    }
    Ok(())
}

impl<D: Disk> Log<D> {
    /// Serves orders until there are none.
    fn serve(
        &mut self,
        first: Order,
        orders: &Receiver<Order>,
        events: &UnboundedSender<Event>,
    ) -> Result<(), HostError> {
        let mut next = Some(first);
        loop {
            self.adopt()?;
            let mut forget = None;
            while let Some(order) = next.take() {
                match order {
                    Order::Append(records) => self.append(records)?,
                    Order::Forget(before) => forget = Some(before),
                }
                next = orders.try_recv().ok();
            }
            let durable = self.wal.sync().map_err(failed)?;
            let _gone = events.send(Event::Synced(RecordSeq::new(durable)));
            if let Some(before) = forget {
                self.wal.forget_before(before.get()).map_err(failed)?;
            }
            self.prepare_segment()?;
            match orders.recv_timeout(SEAL_AFTER) {
                Ok(order) => next = Some(order),
                Err(RecvTimeoutError::Disconnected) => return self.wal.seal().map_err(failed),
                Err(RecvTimeoutError::Timeout) => return self.wal.seal().map_err(failed),
            }
        }
    }

    fn append(&mut self, records: Vec<(RecordSeq, Class, Vec<u8>)>) -> Result<(), HostError> {
        for (seq, class, bytes) in records {
            let appended = self.wal.append(kept(class), &bytes).map_err(failed)?;
            assert_eq!(appended, seq.get(), "the log and the node number records alike");
        }
        Ok(())
    }

    fn prepare_segment(&mut self) -> Result<(), HostError> {
        if self.cramped {
            return Ok(());
        }
        let Some(order) = self.wal.order_segment() else { return Ok(()) };
        let built = self.built.0.clone();
        let build = move || {
            let _gone = built.send(order.build());
            Ok(())
        };
        self.threads.spawn(Thread::Segment, build).map_err(HostError::Thread)
    }

    fn adopt(&mut self) -> Result<(), HostError> {
        while let Ok(built) = self.built.1.try_recv() {
            match self.wal.adopt(built) {
                Ok(()) => self.cramped = false,
                Err(WalError::Full(_)) => self.cramped = true, // what is left of this segment can still be used
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(())
    }
}

fn failed(error: WalError) -> HostError {
    match error {
        WalError::Full(cause) => HostError::DiskFull(cause),
        other => HostError::Disk(other.to_string()),
    }
}
