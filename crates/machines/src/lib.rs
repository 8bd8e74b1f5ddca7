//! The state machines that Quorate brings along: [`kv`], a key-value store with etcd's data model, [`events`], an event store,
//! and [`counter`], the smallest example of a machine.
//!
//! All are pure: the same operations at the same places give the same bytes out, on every replica and in every run.
//! They read no clock and draw no random number; what they know of the world is in [`quorate_core::machine::At`].

pub mod counter;
pub mod events;
pub mod kv;

pub use counter::Counter;
pub use events::Events;
pub use kv::Kv;
