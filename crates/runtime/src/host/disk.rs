//! The disk's thread: appends what has gathered, syncs once for all of it, reports how far the log is durable. Nothing
//! else happens on it, so a record that somebody waits for waits for at most one sync of others before its own; one that nobody
//! waits for is synced with the next, or after a moment. The log's next segment, many megabytes of zeros, is made by a thread
//! of its own.

use super::thread::{Thread, Threads};
use super::{Event, HostError};
use quorate_core::ids::RecordSeq;
use quorate_core::outbox::Class;
use quorate_store::replica::kept;
use quorate_store::wal::Spare;
use quorate_store::{Disk, DiskError, Wal, WalError};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::UnboundedSender;

/// How long nothing must have been appended before the log's end is sealed: a seal for every record would double the writes.
const SEAL_AFTER: Duration = Duration::from_millis(20);

/// How long a record waits at most for others that are synced with it, if nobody waits for it.
const UNAWAITED_MAX: Duration = Duration::from_millis(20);
/// Bytes of such records at most.
const UNAWAITED_BYTES_MAX: usize = 1 << 20;

/// What the disk's thread is asked to do.
pub(super) enum Order {
    /// Append these records, in this order.
    Append(Vec<(RecordSeq, Class, Vec<u8>)>),
    /// Somebody waits for what was appended.
    Sync,
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
        let mut unsynced = None;
        loop {
            self.adopt()?;
            let (mut awaited, mut forget) = (false, None);
            while let Some(order) = next.take() {
                match order {
                    Order::Append(records) => {
                        self.append(records)?;
                        unsynced = unsynced.or_else(|| Some(Instant::now()));
                    }
                    Order::Sync => awaited = true,
                    Order::Forget(before) => forget = Some(before),
                }
                next = orders.try_recv().ok();
            }
            let is_full = self.wal.buffered_bytes() > UNAWAITED_BYTES_MAX;
            if unsynced.take_if(|since| awaited || is_full || since.elapsed() >= UNAWAITED_MAX).is_some() {
                self.sync(events)?;
            }
            if let Some(before) = forget {
                self.wal.forget_before(before.get()).map_err(failed)?;
            }
            self.prepare_segment()?;
            let pause = unsynced.map_or(SEAL_AFTER, |since| UNAWAITED_MAX.saturating_sub(since.elapsed()));
            match orders.recv_timeout(pause) {
                Ok(order) => next = Some(order),
                Err(RecvTimeoutError::Timeout) if unsynced.is_some() => {} // its time has come
                Err(RecvTimeoutError::Timeout) => return self.wal.seal().map_err(failed),
                Err(RecvTimeoutError::Disconnected) => {
                    self.sync(events)?;
                    return self.wal.seal().map_err(failed);
                }
            }
        }
    }

    fn sync(&mut self, events: &UnboundedSender<Event>) -> Result<(), HostError> {
        let durable = self.wal.sync().map_err(failed)?;
        let _gone = events.send(Event::Synced(RecordSeq::new(durable)));
        Ok(())
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
            let _gone = built.send(order.build_slowly());
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

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_store::RealDisk;
    use quorate_store::wal::WalConfig;
    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

    struct Stage {
        orders: Option<Sender<Order>>,
        events: UnboundedReceiver<Event>,
        folder: tempfile::TempDir,
    }

    fn stage() -> Stage {
        let folder = tempfile::tempdir().expect("a folder");
        let disk = RealDisk::open(folder.path()).expect("a disk");
        let wal = Wal::create(&disk, WalConfig::new(1)).expect("a log");
        let (sender, events) = unbounded_channel();
        let threads = Threads::new(sender.clone(), disk.lock().expect("nobody else"));
        let (orders, given) = channel();
        let own = threads.clone();
        threads.spawn(Thread::Disk, move || run(wal, own, &given, &sender)).expect("a thread");
        Stage { orders: Some(orders), events, folder }
    }

    impl Stage {
        fn append(&self, seq: u64) {
            let record = (RecordSeq::new(seq), Class::Entry, vec![7; 100]);
            self.orders.iter().for_each(|orders| orders.send(Order::Append(vec![record.clone()])).expect("it listens"));
        }

        /// Waits until the disk says that a record is durable.
        fn durable(&mut self, seq: u64) {
            while !matches!(self.events.blocking_recv(), Some(Event::Synced(durable)) if durable.get() >= seq) {}
        }
    }

    #[test]
    fn a_record_that_nobody_waits_for_is_synced_all_the_same() {
        let mut stage = stage();
        stage.append(1);
        stage.durable(1);
        stage.append(2);
        stage.durable(2);
    }

    #[test]
    fn a_disk_that_is_told_to_end_syncs_what_nobody_waits_for_first() {
        let mut stage = stage();
        stage.append(1);
        stage.append(2);
        stage.orders = None;
        while !matches!(stage.events.blocking_recv(), Some(Event::Ended(Thread::Disk)) | None) {}
        let disk = RealDisk::open(stage.folder.path()).expect("the disk");
        let (wal, _) = Wal::open(&disk, WalConfig::new(1)).expect("the log");
        assert_eq!(wal.durable_seq(), 2);
    }
}
