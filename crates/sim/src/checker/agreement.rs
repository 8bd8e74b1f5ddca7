//! **Agreement**: as the same entry, all replicas execute the same batch, in all their lives. Hence one's executions are a
//! prefix of another's.

use super::SameEverywhere;
use quorate_core::crypto::Digest;
use quorate_core::ids::{OpNumber, ReplicaId};

/// What was executed as each entry.
#[derive(Debug, Default)]
pub struct Agreement {
    batches: SameEverywhere,
}

impl Agreement {
    /// A replica has executed a batch.
    ///
    /// # Errors
    /// When another batch was executed as this entry before.
    pub fn executed(&mut self, replica: ReplicaId, op: OpNumber, batch: Digest) -> Result<(), String> {
        self.batches.see(replica, op, batch, "executed")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_batches_as_one_entry_are_caught() {
        let mut agreement = Agreement::default();
        let (a, b) = (ReplicaId::new(0), ReplicaId::new(1));
        let (halve, add) = (Digest::of(b"div 2"), Digest::of(b"add 1"));
        assert_eq!(agreement.executed(a, OpNumber::new(2), halve), Ok(()));
        assert_eq!(agreement.executed(b, OpNumber::new(2), halve), Ok(()));
        assert_eq!(agreement.executed(a, OpNumber::new(3), add), Ok(()));
        assert!(agreement.executed(b, OpNumber::new(3), halve).is_err());
    }

    #[test]
    fn a_replica_that_contradicts_itself_after_a_restart_is_caught() {
        let mut agreement = Agreement::default();
        assert_eq!(agreement.executed(ReplicaId::new(0), OpNumber::new(1), Digest::of(b"x")), Ok(()));
        assert!(agreement.executed(ReplicaId::new(0), OpNumber::new(1), Digest::of(b"y")).is_err());
    }
}
