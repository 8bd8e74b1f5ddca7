//! The disk's thread: appends what has gathered, syncs once for all of it, reports how far the log is durable. A record
//! waits for at most one sync of others before its own. Segments are made ahead of need by a thread of their own.

use super::Event;
use quorate_core::ids::RecordSeq;
use quorate_core::outbox;
use quorate_store::{Class, Disk, DiskError, Spare, Wal, WalError};
use std::sync::mpsc::{Receiver, Sender, TryRecvError};
use tokio::sync::mpsc::UnboundedSender;

/// What the disk's thread is asked to do.
pub(super) enum Order<D: Disk> {
    /// Append these records, in this order.
    Append(Vec<Record>),
    /// Records before this one are not needed any more.
    Forget(RecordSeq),
    /// The next segment is ready, or could not be made.
    Adopt(Result<Spare<D>, DiskError>),
}

/// A record to append: its place, its class, its bytes.
pub(super) type Record = (RecordSeq, outbox::Class, Vec<u8>);

/// The thread's state.
pub(super) struct Log<D: Disk> {
    pub(super) wal: Wal<D>,
    pub(super) orders: Receiver<Order<D>>,
    /// For the thread that makes segments.
    pub(super) own: Sender<Order<D>>,
    pub(super) events: UnboundedSender<Event>,
}

impl<D: Disk> Log<D>
where
    D::File: 'static,
{
    /// Runs until the host is gone. An error of the disk ends it: the host stops the process then, because after a failed
    /// sync nobody knows what the disk holds.
    pub(super) fn run(mut self) {
        while let Ok(first) = self.orders.recv() {
            if let Err(error) = self.serve(first) {
                let _gone = self.events.send(Event::DiskFailed(error.to_string()));
                return;
            }
            if self.events.is_closed() {
                return; // the sender for segments keeps `orders` open
            }
        }
    }

    /// Serves orders until there are none.
    fn serve(&mut self, first: Order<D>) -> Result<(), WalError> {
        let mut next = Some(first);
        while let Some(order) = next.take() {
            let forget = self.take_all(order)?;
            let durable = self.wal.sync()?;
            let _gone = self.events.send(Event::Synced(RecordSeq::new(durable)));
            if let Some(before) = forget {
                self.wal.forget_before(before.get())?;
            }
            self.order_segment()?;
            match self.orders.try_recv() {
                Ok(order) => next = Some(order),
                Err(TryRecvError::Disconnected) => return Ok(()),
                Err(TryRecvError::Empty) => self.wal.seal()?,
            }
        }
        Ok(())
    }

    /// Takes every order that is there; the records among them make one group.
    fn take_all(&mut self, first: Order<D>) -> Result<Option<RecordSeq>, WalError> {
        let mut forget = None;
        let mut next = Some(first);
        while let Some(order) = next {
            match order {
                Order::Append(records) => self.append(records)?,
                Order::Forget(before) => forget = Some(before),
                Order::Adopt(spare) => match self.wal.adopt(spare) {
                    Err(WalError::Full(_)) | Ok(()) => {} // the log tries again when it needs the room
                    Err(error) => return Err(error),
                },
            }
            next = self.orders.try_recv().ok();
        }
        Ok(forget)
    }

    fn append(&mut self, records: Vec<Record>) -> Result<(), WalError> {
        for (seq, class, bytes) in records {
            let class = match class {
                outbox::Class::Entry => Class::Entry,
                outbox::Class::Promise => Class::Promise,
            };
            let appended = self.wal.append(class, &bytes)?;
            assert_eq!(appended, seq.get(), "the log and the node number records alike");
        }
        Ok(())
    }

    fn order_segment(&mut self) -> Result<(), WalError> {
        let Some(order) = self.wal.order_segment() else { return Ok(()) };
        let own = self.own.clone();
        let build = move || drop(own.send(Order::Adopt(order.build())));
        match std::thread::Builder::new().name("quorate-segment".to_owned()).spawn(build) {
            Ok(_) => Ok(()),
            Err(_) => self.wal.prepare_next(), // no thread to be had: slower, not wrong
        }
    }
}
