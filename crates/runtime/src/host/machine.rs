//! The machine's thread: a slow state machine never delays a vote or a timer.

use super::{Event, HostError};
use quorate_core::executor::{Executor, Job};
use quorate_core::machine::Machine;
use std::sync::mpsc::Receiver;
use tokio::sync::mpsc::UnboundedSender;

/// Runs until the host is gone.
pub(super) fn run<M: Machine>(
    mut executor: Executor<M>,
    jobs: &Receiver<Vec<Job>>,
    events: &UnboundedSender<Event>,
) -> Result<(), HostError> {
    while let Ok(batch) = jobs.recv() {
        let done = batch.into_iter().map(|job| executor.run(job)).collect();
        if events.send(Event::Done(done)).is_err() {
            break;
        }
    }
    Ok(())
}
