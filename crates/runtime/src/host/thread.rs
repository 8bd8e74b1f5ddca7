//! The threads beside the loop. None of them can end without the loop hearing of it, and the folder stays locked until the
//! last of them has ended.

use super::{Event, HostError};
use quorate_store::FolderLock;
use std::fmt;
use std::sync::Arc;
use tokio::sync::mpsc::UnboundedSender;

/// A thread of a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Thread {
    /// Writes the log.
    Disk,
    /// Makes the log's next segment, then ends.
    Segment,
    /// Runs the machine.
    Machine,
    /// Lets a leader's machine build proposals.
    Proposals,
    /// Writes and reads snapshots.
    Snapshots,
    /// Decodes frames and checks their signatures.
    Opener,
}

impl fmt::Display for Thread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Thread::Disk => "disk",
            Thread::Segment => "segment",
            Thread::Machine => "machine",
            Thread::Proposals => "proposals",
            Thread::Snapshots => "snapshots",
            Thread::Opener => "opener",
        })
    }
}

/// Starts threads.
#[derive(Clone)]
pub(super) struct Threads {
    events: UnboundedSender<Event>,
    _lock: Arc<FolderLock>,
}

impl Threads {
    /// Starts threads that report to `events` and hold `lock`.
    pub(super) fn new(events: UnboundedSender<Event>, lock: FolderLock) -> Self {
        Self { events, _lock: Arc::new(lock) }
    }

    /// Starts a thread. What it returns, and that it has ended, even by a panic, comes back as events.
    pub(super) fn spawn(
        &self,
        thread: Thread,
        body: impl FnOnce() -> Result<(), HostError> + Send + 'static,
    ) -> std::io::Result<()> {
        let running = Running { thread, threads: Some(self.clone()), events: self.events.clone() };
        let body = move || {
            let running = running; // outlives all that `body` holds
            if let Err(error) = body() {
                let _gone = running.events.send(Event::Failed(error));
            }
        };
        std::thread::Builder::new().name(format!("quorate-{thread}")).spawn(body).map(drop)
    }
}

struct Running {
    thread: Thread,
    threads: Option<Threads>,
    events: UnboundedSender<Event>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.threads = None; // whoever hears of the end may lock the folder
        let _gone = self.events.send(Event::Ended(self.thread));
    }
}
