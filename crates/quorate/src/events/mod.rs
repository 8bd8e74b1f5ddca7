//! The event store for programs: [`EventStore`] calls a cluster that replicates [`quorate_machines::Events`], and
//! [`Subscription`] follows it. [`Aggregate`]s decide by their own history, and [`Given`] tests them without any cluster.
//! [`Projection`]s are what pure reducers make of events, kept together with where they are.

mod aggregate;
mod hints;
mod projection;
mod store;
mod subscription;

pub use aggregate::{Aggregate, CommandError, Event, Given, Loaded, Repository, When};
pub use projection::{Checkpoint, Progress, Projection, ProjectionError, Projector, replace_file};
pub use quorate_machines::events::*;
pub use store::{EventStore, News, StoreError, draw_id};
pub use subscription::{Item, Subscription};
