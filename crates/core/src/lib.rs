//! Quorate's vocabulary and seam.
//!
//! Nothing here opens a file or a socket, reads a clock or draws a random number: hosts pass in what happened and carry
//! out what is asked. The simulator and the real host run the same code.

pub mod crypto;
pub mod ids;
pub mod laws;
pub mod machine;
pub mod time;
