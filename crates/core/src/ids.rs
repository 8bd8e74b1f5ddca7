//! Typed numbers. None of them converts from an integer silently, so a view cannot be passed where an operation number
//! is meant. `next()` saturates: at `u64::MAX` a cluster that counts one a nanosecond has run for five centuries.

use borsh::{BorshDeserialize, BorshSerialize};
use std::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident, $inner:ty) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
        pub struct $name($inner);

        impl $name {
            /// The smallest value.
            pub const ZERO: Self = Self(0);

            /// Wraps a raw number.
            pub const fn new(raw: $inner) -> Self {
                Self(raw)
            }

            /// The raw number.
            pub const fn get(self) -> $inner {
                self.0
            }

            /// The number after this one; saturates.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0.saturating_add(1))
            }

            /// The number before this one; zero stays zero.
            #[must_use]
            pub const fn previous(self) -> Self {
                Self(self.0.saturating_sub(1))
            }

            /// This number plus `count`; saturates.
            #[must_use]
            pub const fn plus(self, count: $inner) -> Self {
                Self(self.0.saturating_add(count))
            }

            /// How far this number is beyond `other`; zero if it is not.
            pub const fn since(self, other: Self) -> $inner {
                self.0.saturating_sub(other.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number!(
    /// Which membership and protocol a message belongs to (VRR §7: *epoch-number*). Zero until the first reconfiguration.
    Epoch, u32);
number!(
    /// Which replica leads (VRR §4: *view-number*).
    View, u64);
number!(
    /// The place of an entry in a protocol's log (VRR §4: *op-number*). Zero is "before the first"; the first entry is 1.
    OpNumber, u64);
number!(
    /// How many operations were ordered before and including this one. Dense, starts at 1; one log entry holds many.
    Position, u64);
number!(
    /// A client session: the position of the operation that opened it, hence unique and increasing (vr.md CT1).
    SessionId, u64);
number!(
    /// The number of a request within its session, from 1.
    RequestNumber, u64);
number!(
    /// The place of a record in a replica's write-ahead log. Dense, starts at 1; zero is "before the first".
    RecordSeq, u64);

/// One replica's place in the membership of an epoch, from 0. Never reused for another disk within an epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
pub struct ReplicaId(u8);

impl ReplicaId {
    /// Wraps a raw number.
    pub const fn new(raw: u8) -> Self {
        Self(raw)
    }

    /// The raw number.
    pub const fn get(self) -> u8 {
        self.0
    }

    /// The replica's index in a membership list.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "R{}", self.0)
    }
}

macro_rules! wide {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
        pub struct $name(u128);

        impl $name {
            /// Wraps a raw number.
            pub const fn new(raw: u128) -> Self {
                Self(raw)
            }

            /// The raw number.
            pub const fn get(self) -> u128 {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{:08x}"), self.0 >> 96)
            }
        }
    };
}

wide!(
    /// Which cluster: drawn once at `quorate init`, carried by every message and every file.
    ClusterId, "cluster-");
wide!(
    /// Which client process: drawn when it starts. An address for replies, not an identity that anything trusts.
    ClientId, "C");

impl ClientId {
    /// What has come through a broker: nobody knows who sent it, and only what proves itself is taken. No client has this
    /// address, which is a digest of its key.
    pub const BROKER: Self = Self::new(0);
}

/// Who sent a message, or whom one is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
pub enum Peer {
    /// A member of this epoch.
    Replica(ReplicaId),
    /// A client process.
    Client(ClientId),
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Replica(id) => id.fmt(f),
            Peer::Client(id) => id.fmt(f),
        }
    }
}
