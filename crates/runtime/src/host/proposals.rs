//! The proposals' thread: where a leader's machine builds what its next blocks begin with. It works on a fork, so that
//! neither votes nor executions wait for it, however long it takes.

use super::{Event, HostError};
use quorate_core::executor::Make;
use std::sync::mpsc::Receiver;
use tokio::sync::mpsc::UnboundedSender;

/// Runs until the host is gone. The protocol asks for one proposal after the other, so the channel holds one.
pub(super) fn run(orders: &Receiver<Box<dyn Make>>, events: &UnboundedSender<Event>) -> Result<(), HostError> {
    while let Ok(make) = orders.recv() {
        let (ticket, made) = make.make();
        if events.send(Event::Made(ticket, made)).is_err() {
            break;
        }
    }
    Ok(())
}
