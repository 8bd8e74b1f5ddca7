//! Tests of the simulator, and of the protocols in it: one program, since each would have to hold the whole simulator.

mod adversary;
mod async_tob;
mod browser;
mod determinism;
mod hotstuff;
mod hq;
mod model;
mod naive;
mod pbft;
mod pictures;
mod reception;
mod rounds;
mod scripts;
mod simulator;
mod steady;
mod sync_tob;
