//! The seam: what a node, its executor and its vocabulary promise whoever builds on them.

mod crypto;
mod executor;
mod laws;
mod nesting;
mod node;
mod services;
mod speculation;
mod support;
mod transfer;
