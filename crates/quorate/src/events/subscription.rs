//! A subscription: a source from a number on, for ever, without gaps and without repetition.
//!
//! It reads pages from the cluster, each believed by the protocol's rule, and goes on where the last one ended; hints only tell
//! it when to read. So a broken link, a slow reader, a new primary or a replica that lies can delay it and do nothing else; and
//! it never ends by itself. When the cluster is not heard it says so, once, and says when it is heard again.

use super::hints::Hint;
use super::store::{EventStore, StoreError};
use quorate_machines::events::{Filter, Read, Recorded, Source};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Between two attempts to read from a cluster that does not answer.
const RETRY: Duration = Duration::from_millis(300);

/// What a subscription tells.
#[derive(Clone, Debug)]
pub enum Item {
    /// Events, in order. The number is where to go on: kept together with what was made of the events, it makes each of them
    /// count once.
    Events(Vec<Recorded>, u64),
    /// Nothing before this number is of interest that was not told: where to go on, for whoever keeps that.
    Passed(u64),
    /// Everything that was there has been told; what follows is new. Once.
    Live,
    /// The cluster is not heard, for this reason. The subscription goes on by itself when it is.
    Silent(Arc<str>),
    /// The cluster is heard again.
    Heard,
}

/// A source that is followed.
#[derive(Debug)]
pub struct Subscription {
    store: EventStore,
    read: Read,
    hints: watch::Receiver<Hint>,
    live: bool,
    silent: bool,
    /// There is something to read, as far as is known.
    more: bool,
}

impl Subscription {
    pub(super) fn new(
        store: EventStore,
        source: Source,
        filter: Filter,
        from: u64,
        hints: watch::Receiver<Hint>,
    ) -> Self {
        let read = Read { source, filter, from: from.max(1), ..Read::default() };
        Self { store, read, hints, live: false, silent: false, more: true }
    }

    /// The same, with at most so many events in one [`Item::Events`].
    #[must_use]
    pub fn with_pages_of(mut self, events_max: u32) -> Self {
        self.read.limit = events_max;
        self
    }

    /// Where it goes on: the number after the last event that it told, or looked at.
    pub fn next_number(&self) -> u64 {
        self.read.from
    }

    /// What comes next; waits for it.
    ///
    /// # Errors
    /// What no waiting helps against: a refusal, or a client that is closed.
    pub async fn next(&mut self) -> Result<Item, StoreError> {
        loop {
            if !self.more {
                if let Some(item) = self.wait().await {
                    return Ok(item);
                }
                continue;
            }
            self.hints.mark_unchanged(); // what is hinted from here on may be later than what is read
            match self.store.read(self.read.clone()).await {
                Ok(_) if std::mem::take(&mut self.silent) => return Ok(Item::Heard), // and then reads again
                Ok(page) => {
                    let passed = page.next > self.read.from;
                    self.read.from = page.next;
                    self.more = !page.end;
                    if !page.events.is_empty() {
                        return Ok(Item::Events(page.events, page.next));
                    }
                    if passed {
                        return Ok(Item::Passed(page.next));
                    }
                }
                Err(error) if error.is_worth_a_retry() => {
                    let told = std::mem::replace(&mut self.silent, true);
                    if !told {
                        return Ok(Item::Silent(error.to_string().into()));
                    }
                    tokio::time::sleep(RETRY).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Waits until there may be something to read, or something to say.
    async fn wait(&mut self) -> Option<Item> {
        if !std::mem::replace(&mut self.live, true) {
            return Some(Item::Live);
        }
        let _never_closed = self.hints.changed().await; // `store` holds the sender
        self.more = true;
        let why = self.hints.borrow().silent.clone();
        let news = why.is_some() && !self.silent;
        self.silent |= news;
        why.filter(|_| news).map(Item::Silent)
    }
}
