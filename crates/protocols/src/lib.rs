//! Quorate's protocols, one paper a folder. Only `hq` and `reception` will ever import another (`pbft`), and `hotstuff` has
//! PBFT's client.

pub mod async_tob;
pub mod audit;
pub mod hotstuff;
pub mod hq;
pub mod naive;
pub mod pbft;
pub mod reception;
pub mod sync_tob;
pub mod vr;
