//! Quorate's protocols, one paper a folder. Only `hq` runs another one (`pbft`) inside; those whose clients have no rules of
//! their own have PBFT's ([`quorum_client`]).

pub mod async_tob;
pub mod hotstuff;
pub mod hq;
pub mod naive;
pub mod pbft;
pub mod quorum_client;
pub mod sync_tob;
pub mod vr;
