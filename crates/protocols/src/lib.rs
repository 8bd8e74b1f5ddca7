//! Quorate's protocols, one paper a folder. Only `hq` and `reception` run another one (`pbft`) inside; those whose
//! clients have no rules of their own have PBFT's ([`quorum_client`]).

pub mod async_tob;
pub mod audit;
pub mod hotstuff;
pub mod hq;
pub mod naive;
pub mod pbft;
pub mod quorum_client;
pub mod reception;
pub mod sync_tob;
pub mod vr;
