//! Votes that nobody needs any more. Of a quorum's votes one comes last, and those after it say what is known already: to check
//! their signatures would be a third of all the work that votes make. Whoever has the quorum's certificate says so to its
//! keyring, and a vote for exactly the same is ignored where it arrives. A vote for something else is checked as ever: it
//! may convict whoever has signed both.

use super::digest::Digest;
use super::keyring::Keyring;
use super::remembered::Last;
use super::signed::Statement;
use crate::fault::{Fault, Why};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Statements that are remembered; the oldest is forgotten, and votes for it are checked again. More than a window of entries
/// with two phases.
const REMEMBERED_MAX: usize = 512;

/// What a keyring's owner has a quorum for.
#[derive(Default)]
pub(super) struct Enough(Mutex<Last>);

impl fmt::Debug for Enough {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("statements with a quorum")
    }
}

impl Enough {
    fn last(&self) -> MutexGuard<'_, Last> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add<T: Statement>(&self, statement: &T) {
        self.last().add(name(statement), REMEMBERED_MAX);
    }

    pub(super) fn has<T: Statement>(&self, statement: &T) -> bool {
        self.last().has(&name(statement))
    }
}

impl Keyring {
    /// The owner has a quorum that has signed this statement: others that sign it are not listened to any more.
    pub fn has_enough<T: Statement>(&self, statement: &T) {
        self.enough.add(statement);
    }

    /// Is there anything to gain from one more signature of this statement?
    ///
    /// # Errors
    /// [`Fault::NotNow`] with [`Why::Duplicate`]: the owner has a quorum ([`Keyring::has_enough`]).
    pub fn wants<T: Statement>(&self, statement: &T) -> Result<(), Fault> {
        if self.enough.has(statement) { Err(Fault::NotNow(Why::Duplicate)) } else { Ok(()) }
    }
}

fn name<T: Statement>(statement: &T) -> Digest {
    Digest::of_parts(&[T::DOMAIN.as_bytes(), &statement.encode()])
}

#[cfg(test)]
mod tests {
    use super::*;
    use borsh::{BorshDeserialize, BorshSerialize};

    #[derive(Clone, Debug, PartialEq, BorshSerialize, BorshDeserialize)]
    struct Vote(u64);

    impl Statement for Vote {
        const DOMAIN: &'static str = "test/1 vote";
    }

    #[derive(Clone, Debug, PartialEq, BorshSerialize, BorshDeserialize)]
    struct Other(u64);

    impl Statement for Other {
        const DOMAIN: &'static str = "test/1 other";
    }

    #[test]
    fn a_quorum_for_one_thing_says_nothing_of_another() {
        let enough = Enough::default();
        enough.add(&Vote(1));
        assert_eq!([enough.has(&Vote(1)), enough.has(&Vote(2)), enough.has(&Other(1))], [true, false, false]);
    }

    #[test]
    fn the_oldest_is_forgotten() {
        let enough = Enough::default();
        (0..=REMEMBERED_MAX as u64).for_each(|number| enough.add(&Vote(number)));
        assert_eq!([enough.has(&Vote(0)), enough.has(&Vote(1))], [false, true]);
    }
}
