//! **Safety** of seed 004: "outputs er ens for alle, der kører fra State0 med samme række af input": as the same entry,
//! all replicas put out the same. (That the rows of input are the same is [`super::agreement`].)

use super::SameEverywhere;
use quorate_core::crypto::Digest;
use quorate_core::ids::{OpNumber, ReplicaId};

/// What was put out at each entry.
#[derive(Debug, Default)]
pub struct Safety {
    outputs: SameEverywhere,
}

impl Safety {
    /// A replica has put out these replies and events.
    ///
    /// # Errors
    /// When another replica, or this one before, put out something else there.
    pub fn put_out(&mut self, replica: ReplicaId, op: OpNumber, output: Digest) -> Result<(), String> {
        self.outputs.see(replica, op, output, "put out")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_outputs_for_one_input_are_caught() {
        let mut safety = Safety::default();
        assert_eq!(safety.put_out(ReplicaId::new(0), OpNumber::new(3), Digest::of(b"1.5")), Ok(()));
        assert!(safety.put_out(ReplicaId::new(1), OpNumber::new(3), Digest::of(b"1")).is_err());
    }
}
