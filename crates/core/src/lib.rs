//! Quorate's vocabulary and seam.
//!
//! Nothing here opens a file or a socket, reads a clock or draws a random number: hosts pass in what happened and carry
//! out what is asked. The simulator and the real host run the same code.

pub mod crypto;
pub mod executor;
pub mod fault;
pub mod ids;
pub mod laws;
pub mod machine;
#[cfg(feature = "mutations")]
pub mod mutation;
pub mod nested;
pub mod node;
pub mod objects;
pub mod outbox;
pub mod protocol;
pub mod quorum;
pub mod sessions;
pub mod small;
mod speculation;
pub mod time;
pub mod transfer;
pub mod votes;
pub mod wire;

/// Can this build be broken on request? Programs that keep data refuse to run if so.
pub const MUTATIONS: bool = cfg!(feature = "mutations");

/// Is this mutation switched on? Always `false` without the feature `mutations`; see the module `mutation`.
#[cfg(not(feature = "mutations"))]
#[macro_export]
macro_rules! mutated {
    ($name:literal) => {
        $crate::MUTATIONS
    };
}

/// Is this mutation switched on? See [`mutation`].
#[cfg(feature = "mutations")]
#[macro_export]
macro_rules! mutated {
    ($name:literal) => {
        $crate::mutation::is($name)
    };
}
