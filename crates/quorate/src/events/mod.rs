//! The event store for programs: [`EventStore`] calls a cluster that replicates [`quorate_machines::Events`], and
//! [`Subscription`] follows it.

mod hints;
mod store;
mod subscription;

pub use quorate_machines::events::*;
pub use store::{EventStore, News, StoreError, draw_id};
pub use subscription::{Item, Subscription};
