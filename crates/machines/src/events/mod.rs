//! An event store: streams of events that are appended to and read, never changed.
//!
//! # What it promises
//! - Versions in a stream and positions in the store count from 1 without gaps: whoever has seen everything up to a number has
//!   missed nothing.
//! - An append touches one stream or several, all or none, if each is at the version that the writer expects; and it is done
//!   once, however often it is repeated, whatever it expects ([`Expected`], `append.rs`).
//! - What was recorded is the same for all readers, for ever, until it is hidden by an ordered command.
//! - Consumers that share work do so in [groups](NewGroup) whose state is as durable as the events.
//!
//! # Where we deviate from other event stores
//! - Versions begin with 1, so that a version counts events and [`Expected::Exact`]`(0)` means that there are none yet.
//! - Repetitions are recognised exactly, with every expectation; elsewhere "any version" is best effort.
//! - Hiding (truncation, deletion) is at once and everywhere, in the store's order as in the streams'; freeing the memory is a
//!   command of its own ([`Operation::Scavenge`]), ordered like the others, so that replicas stay equal.
//! - A group is asked for events; it does not push. Whoever waits watches [`EVENTS_TOPIC`].
//!
//! # What it leaves out
//! Limits of age or number for a stream, access lists, projections inside the store: reducers are pure functions, and run where
//! their results are needed.
//!
//! # How to read it
//! `operation` and `reply` are the interface, `store` the data, `append`, `read` and `group` the rules, `digest` and `snapshot`
//! the two forms in which replicas compare and copy states.

mod append;
mod digest;
mod error;
mod group;
pub mod limits;
mod operation;
mod read;
mod reply;
mod snapshot;
mod store;

pub use error::{EventsError, Limit, List};
pub use operation::{
    Append, BadEventId, EventId, Expected, Filter, NewEvent, NewGroup, Operation, Query, Read, Settings, Source,
    Verdict, Write, category,
};
pub use reply::{
    Appended, Delivery, GroupInfo, Page, ParkedInfo, Published, Recorded, Reply, Response, Status, StreamInfo, Taken,
    Written,
};
pub use snapshot::{EventsSink, EventsSource};

use borsh::BorshSerialize;
use quorate_core::crypto::Digest;
use quorate_core::machine::{self, At, Output, Snapshot, StateMachine, View};
use store::Store;

/// The topic of the hints that the store publishes: one [`Published`] for each append.
pub const EVENTS_TOPIC: u32 = 2;

/// Longest append that is applied by the thread that votes, in bytes: tens of microseconds.
const QUICK_BYTES_MAX: usize = 4096;

/// The store as a machine.
#[derive(Clone, Debug, Default)]
pub struct Events {
    store: Store,
}

/// The store as it was when the view was taken.
#[derive(Clone, Debug)]
pub struct EventsView {
    store: Store,
}

impl Events {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Carries an operation out. Whether it changed anything.
    fn run(&mut self, at: &At, operation: Operation) -> Result<(Response, bool), EventsError> {
        let store = &mut self.store;
        match operation {
            Operation::Append(append) => append::append(store, at, append),
            Operation::Truncate { stream, before } => append::truncate(store, &stream, before),
            Operation::Delete { stream, expected, forever } => append::delete(store, &stream, expected, forever),
            Operation::Scavenge { limit } => Ok(append::scavenge(store, limit)),
            Operation::CreateGroup(new) => group::create(store, new),
            Operation::DeleteGroup { group } => group::forget(store, &group),
            Operation::Take { group, consumer, limit } => group::take(store, at, &group, &consumer, limit),
            Operation::Ack { group, numbers } => group::ack(store, &group, &numbers),
            Operation::Nack { group, consumer, numbers, verdict, reason } => {
                group::nack(store, &group, &consumer, &numbers, verdict, &reason)
            }
            Operation::Unpark { group, replay } => group::unpark(store, &group, replay),
        }
    }
}

impl StateMachine for Events {
    fn apply(&mut self, at: &At, operation: &[u8], out: &mut Output) {
        let before = self.store.position;
        let result = Operation::decode(operation).and_then(|decoded| self.run(at, decoded));
        let appended = self.store.position > before;
        if !appended && matches!(result, Ok((_, true))) {
            self.store.digest = digest::after_operation(&self.store.digest, at.time, operation);
        }
        if appended {
            out.event(EVENTS_TOPIC, encode(&Published { position: self.store.position }));
        }
        out.reply(&encode(&Reply { position: self.store.position, result: result.map(|(response, _)| response) }));
    }

    /// A short append changes a few paths of trees.
    fn is_quick(&self, operation: &[u8]) -> bool {
        matches!(operation, [Operation::APPEND, ..]) && operation.len() <= QUICK_BYTES_MAX
    }

    fn digest(&self) -> Digest {
        self.store.digest
    }
}

impl machine::Query for Events {
    type View = EventsView;

    fn view(&self) -> EventsView {
        EventsView { store: self.store.clone() }
    }
}

impl View for EventsView {
    fn query(&self, query: &[u8], reply: &mut Vec<u8>) {
        let result = Query::decode(query).and_then(|query| answer(&self.store, &query));
        reply.extend_from_slice(&encode(&Reply { position: self.store.position, result }));
    }
}

impl Snapshot for Events {
    type Source = EventsSource;
    type Sink = EventsSink;

    fn snapshot(&self) -> EventsSource {
        EventsSource::new(self.store.clone())
    }

    fn rebuild() -> EventsSink {
        EventsSink::new()
    }
}

fn answer(store: &Store, query: &Query) -> Result<Response, EventsError> {
    match query {
        Query::Read(request) => Ok(Response::Page(read::read(store, request))),
        Query::Stream { stream } => {
            let found = store.find(stream).map(|(_, found)| Response::Stream(found.info()));
            found.ok_or_else(|| EventsError::NoStream { stream: stream.clone() })
        }
        Query::Streams { after, category, limit } => {
            Ok(Response::Streams(read::streams(store, after, category, *limit)))
        }
        Query::Group { group } => group::info(store, group).map(|info| Response::Group(Box::new(info))),
        Query::Groups => Ok(Response::Groups(store.groups.keys().map(ToString::to_string).collect())),
        Query::Status => Ok(Response::Status(store.status())),
    }
}

fn encode(value: &impl BorshSerialize) -> Vec<u8> {
    let bytes = borsh::to_vec(value);
    assert!(bytes.is_ok(), "memory takes all bytes, and no list in a reply has 2³² entries");
    bytes.unwrap_or_default()
}
