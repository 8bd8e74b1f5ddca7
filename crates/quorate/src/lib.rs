//! **Quorate** replicates a state machine: you write one that is deterministic, Quorate keeps identical copies of it on
//! several computers, and the copies go on as one while fewer than half of them are down.
//!
//! ```
//! use quorate::borsh::{BorshDeserialize, BorshSerialize};
//! use quorate::{At, Consistency, Local, Output, Small, Vr, vr};
//!
//! #[derive(Clone, Default, BorshSerialize, BorshDeserialize)]
//! struct Greetings(u64);
//!
//! impl Small for Greetings {
//!     fn apply(&mut self, _at: &At, name: &[u8], out: &mut Output) {
//!         self.0 += 1;
//!         out.reply(&[b"Hello, ", name, b"!"].concat());
//!     }
//!
//!     fn query(&self, _query: &[u8], reply: &mut Vec<u8>) {
//!         reply.extend_from_slice(self.0.to_string().as_bytes());
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // Three replicas with real connections and real disks, each in a thread of this process.
//! let mut cluster = Local::start::<Vr, _>(3, vr::Config::default(), Greetings::default)?;
//! let client = cluster.client::<Vr>()?;
//!
//! let answer = client.apply("world")?; // exactly once, and on the disks of a majority
//! assert_eq!(&answer.reply[..], b"Hello, world!");
//!
//! cluster.crash(quorate::ReplicaId::new(0)); // the one that led
//! let answer = client.read(Consistency::Linearizable, "")?;
//! assert_eq!(&answer.reply[..], b"1");
//! # Ok(()) }
//! ```
//!
//! # What you write
//! A machine: one value, with [`Small`]; or, for a large state, [`StateMachine`], [`Query`] and [`Snapshot`], as [`Kv`] does
//! over persistent maps. A machine looks at nothing but its arguments: no clock, no randomness, no order of a hash map. What
//! it may know of the world, a time and a few bytes that all replicas agree on, is in [`At`]. [`laws::check`] tries a
//! machine's promises on operations of yours; call it in a test.
//!
//! # What runs it
//! - [`Local`]: a whole cluster in one process, for tests and first steps.
//! - [`replica::start`]: one replica of a real cluster, from a [`config::ReplicaConfig`]; [`Host::run_until`] runs it until
//!   [`asked_to_stop`] says so.
//! - [`Client`] and [`BlockingClient`]: calls to a cluster. A call that got no answer says whether it may have happened.
//! - [`blocks`]: HotStuff's committed blocks, from a replica's disk; [`Cue`]: when its leader proposes.
//!
//! # Which protocol
//! [`Vr`], Viewstamped Replication Revisited (Liskov and Cowling, 2012): 2f + 1 replicas survive f crashes. [`Pbft`], Practical
//! Byzantine Fault Tolerance (Castro and Liskov, 1999): 3f + 1 replicas survive f that lie. [`HotStuff`], chained (Yin et al.,
//! 2019): the same, with one kind of vote and the blocks in a chain. [`Hq`], HQ replication (Cowling et al., 2006): the same, and
//! each object is ordered by its clients while nobody competes for it; for machines that say what their operations touch
//! ([`hq::Total`]: in one order of everything, which its PBFT makes).
//! [`Reception`], PBFT behind Byzantine reception: the same, for requests that come by any way and are certified with the time of
//! their reception; its clients may publish through a [`broker`]. [`SyncTob`], synchronous total-order broadcast: 2f + 1 replicas survive f that lie, as long as delays and
//! clocks keep their bounds. [`AsyncTob`], asynchronous total-order broadcast: 3f + 1 replicas survive f that lie, and nothing
//! waits for a time to pass. A protocol is a type; replica and client are given the same one.

pub mod blocks;
pub mod events;

pub use borsh;
pub use bytes::Bytes;

pub use quorate_core::crypto::Digest;
pub use quorate_core::ids::{ClusterId, Epoch, OpNumber, Position, ReplicaId, SessionId};
pub use quorate_core::laws;
pub use quorate_core::machine::{
    At, Corrupt, Machine, Output, Query, Sink, Snapshot, Source, StateMachine, View, Whole,
};
pub use quorate_core::node::Report;
pub use quorate_core::objects::{Objects, Touches};
pub use quorate_core::outbox::Note;
pub use quorate_core::protocol::{Answer, CallError, Consistency, Protocol, Status};
pub use quorate_core::sessions::Event;
pub use quorate_core::small::Small;
pub use quorate_core::time::WallTime;

pub use quorate_machines::{Counter, Events, Kv, counter, kv};

pub use quorate_protocols::async_tob::{self, AsyncTob};
pub use quorate_protocols::hotstuff::{self, HotStuff};
pub use quorate_protocols::hq::{self, Hq};
pub use quorate_protocols::pbft::{self, Pbft};
pub use quorate_protocols::reception::{self, Reception};
pub use quorate_protocols::sync_tob::{self, SyncTob};
pub use quorate_protocols::vr::{self, Vr};

pub use quorate_runtime::client::{Client, ClientError, ClientOptions, ConnectError};
pub use quorate_runtime::host::{Cue, Host, HostError, asked_to_stop};
pub use quorate_runtime::local::{BlockingClient, Local, LocalError};
pub use quorate_runtime::{broker, config, keys, link, replica};
