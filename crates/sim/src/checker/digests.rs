//! **Equal digests**: after the same entry, all replicas are in the same state, sessions included, whether they executed
//! their way there, restored a snapshot, or were sent one.

use super::SameEverywhere;
use quorate_core::crypto::Digest;
use quorate_core::ids::{OpNumber, ReplicaId};

/// The state after each entry.
#[derive(Debug, Default)]
pub struct Digests {
    states: SameEverywhere,
}

impl Digests {
    /// A replica is in this state after this entry.
    ///
    /// # Errors
    /// When somebody was in another state there.
    pub fn reached(&mut self, replica: ReplicaId, op: OpNumber, state: Digest) -> Result<(), String> {
        self.states.see(replica, op, state, "is in")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_that_others_do_not_share_is_caught() {
        let mut digests = Digests::default();
        assert_eq!(digests.reached(ReplicaId::new(0), OpNumber::new(3), Digest::of(b"s")), Ok(()));
        assert_eq!(digests.reached(ReplicaId::new(1), OpNumber::new(3), Digest::of(b"s")), Ok(()));
        assert!(digests.reached(ReplicaId::new(2), OpNumber::new(3), Digest::of(b"t")).is_err());
    }
}
