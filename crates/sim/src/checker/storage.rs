//! **Equal snapshots**: what replicas store of the state after one entry is the same, byte for byte, whether a replica saved
//! it or was sent it. (What the log holds is compared as it is executed: [`super::agreement`].)

use quorate_core::crypto::Digest;
use std::collections::BTreeMap;

/// Files that must be equal wherever they are.
#[derive(Debug, Default)]
pub struct Files {
    first: BTreeMap<String, (usize, Digest)>,
}

impl Files {
    /// A replica, by its index, has this file.
    ///
    /// # Errors
    /// When another one has other bytes under the name.
    pub fn found(&mut self, replica: usize, name: &str, bytes: &[u8]) -> Result<(), String> {
        let seen = Digest::of(bytes);
        let (first, expected) = *self.first.entry(name.to_owned()).or_insert((replica, seen));
        if expected == seen { Ok(()) } else { Err(format!("{name} differs between R{first} and R{replica}")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_that_differs_in_one_byte_is_caught() {
        let mut files = Files::default();
        assert_eq!(files.found(0, "10.snap", b"state"), Ok(()));
        assert_eq!(files.found(1, "10.snap", b"state"), Ok(()));
        assert_eq!(files.found(1, "20.snap", b"stata"), Ok(()));
        assert!(files.found(2, "10.snap", b"stata").is_err());
    }
}
