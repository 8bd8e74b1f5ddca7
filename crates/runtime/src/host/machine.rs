//! The machine's thread: a slow state machine never delays a vote or a timer. Two hops between threads cost more than most
//! operations, so a few quick ones are applied by the loop itself, while the thread has nothing to do.

use super::{Event, HostError};
use quorate_core::executor::{Done, Executor, Job};
use quorate_core::machine::Machine;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc::UnboundedSender;

/// An executor that the loop and the machine's thread take in turns: the loop only while no job is with the thread, so that
/// neither ever waits for the other.
pub(super) type Shared<M> = Arc<Mutex<Executor<M>>>;

/// Does quick jobs on the loop's thread.
pub(super) trait Quick: Send {
    /// What came of the job; the job itself if it is none for this thread; or the machine has panicked.
    fn run(&self, job: Job) -> Result<Done, Refused>;
}

/// Why a job was not done by the loop.
pub(super) enum Refused {
    /// It may take long: it belongs on the machine's thread.
    Slow(Job),
    /// The machine panicked: a bug of the machine, or ours.
    Panicked,
}

impl<M: Machine> Quick for Shared<M> {
    fn run(&self, job: Job) -> Result<Done, Refused> {
        let Ok(mut executor) = self.try_lock() else { return Err(Refused::Slow(job)) };
        match catch_unwind(AssertUnwindSafe(|| executor.run_quick(job))) {
            Ok(done) => done.map_err(Refused::Slow),
            Err(_) => Err(Refused::Panicked), // the executor is not used again: the replica stops
        }
    }
}

/// Runs until the host is gone.
pub(super) fn run<M: Machine>(
    executor: &Shared<M>,
    jobs: &Receiver<Vec<Job>>,
    events: &UnboundedSender<Event>,
) -> Result<(), HostError> {
    while let Ok(batch) = jobs.recv() {
        let mut executor = executor.lock().unwrap_or_else(PoisonError::into_inner);
        let done = batch.into_iter().map(|job| executor.run(job)).collect();
        drop(executor); // before the loop hears that this thread is idle
        if events.send(Event::Done(done)).is_err() {
            break;
        }
    }
    Ok(())
}
