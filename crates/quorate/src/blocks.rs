//! The committed blocks of HotStuff, for programs: which block is at which height, and what is in it, from the disk of a replica
//! that runs, has stopped or was killed.
//!
//! A machine does not need this to recover: it is restored from its snapshot, and is given what was committed after it again.
//! It is for who wants more than the state: to serve the chain to others, to audit it, to feed what comes after.
//!
//! A log holds the blocks since the last state that a quorum has saved, so what [`committed`] reads, and the memory that it takes, are
//! bounded by `state_blocks` and `state_bytes`, twice that while a snapshot is being written, and the room left in the first
//! segment. Older heights are [`NotHere::Forgotten`]. Who wants every block reads more often than states are saved, and keeps
//! the blocks itself.
//!
//! ```
//! use quorate::{HotStuff, Local, ReplicaId, blocks, counter, hotstuff};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let config = hotstuff::Config::default();
//! let cluster = Local::start::<HotStuff, _>(4, config, counter::Counter::default)?;
//! cluster.client::<HotStuff>()?.apply("add 1")?;
//! let folder = cluster.data_dir(ReplicaId::new(0)).ok_or("there is no such replica")?;
//! let history = blocks::committed(folder, config.rules)?;
//! for (height, block) in history.blocks() {
//!     let name = history.name(height)?;
//!     println!("{height} {name}: {} operations", block.payload.operations().count());
//! }
//! # Ok(()) }
//! ```

use quorate_protocols::hotstuff::HotStuff;
pub use quorate_protocols::hotstuff::{Block, History, NotHere, Rules};
use quorate_runtime::replica::{self, ServeError};
use std::path::Path;

/// The committed blocks that the log in a replica's folder holds; `rules` are those of the replica's configuration. Reads the
/// whole log and changes nothing. The replica may be running: then it is the chain of a moment ago, and the next call knows more.
///
/// What it tells is what this one replica believes, and its disk, up to checksums. The certificate of a block, a quorum's votes, is
/// in its child.
///
/// # Errors
/// [`ServeError`], whose text says what to do, if it is not the folder of a replica of HotStuff, or cannot be read.
pub fn committed(data_dir: &Path, rules: Rules) -> Result<History, ServeError> {
    let (records, _) = replica::read_log::<HotStuff>(data_dir)?;
    Ok(History::of(records, rules))
}
