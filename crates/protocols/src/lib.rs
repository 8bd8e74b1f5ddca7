//! Quorate's protocols, one paper a folder. Only `hq` and `reception` will ever import another (`pbft`).

pub mod hq;
pub mod naive;
pub mod pbft;
pub mod vr;
