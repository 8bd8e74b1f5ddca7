//! The machines that a cluster can replicate. One for each cluster: its files name it, and its replicas, snapshots and clients
//! know no other (`docs/adr/020-event-store.md`).

use quorate_machines::{events, kv};

/// What a cluster replicates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Machine {
    /// The key-value store.
    #[default]
    Kv,
    /// The event store.
    Events,
}

impl Machine {
    const ALL: [Self; 2] = [Self::Kv, Self::Events];

    /// The name in files, and of the command that uses it.
    pub fn name(self) -> &'static str {
        match self {
            Machine::Kv => "kv",
            Machine::Events => "events",
        }
    }

    /// For sentences.
    pub fn words(self) -> &'static str {
        match self {
            Machine::Kv => "a key-value store",
            Machine::Events => "an event store",
        }
    }

    /// The one that a file names, if this release has it.
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|machine| machine.name() == name)
    }

    /// All names, for advice.
    pub fn list() -> String {
        Self::ALL.map(|machine| format!("`{}`", machine.name())).join(", ")
    }

    /// An operation that takes the whole way through the log and changes nothing of what was written: deleting a key that
    /// nobody has, freeing an event that nobody can read.
    ///
    /// # Errors
    /// None: these operations keep all bounds.
    pub fn nothing(self) -> anyhow::Result<Vec<u8>> {
        Ok(match self {
            Machine::Kv => kv::Operation::delete("quorate/dev/first-write").encode()?,
            Machine::Events => events::Operation::Scavenge { limit: 1 }.encode()?,
        })
    }
}
