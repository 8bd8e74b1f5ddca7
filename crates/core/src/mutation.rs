//! Mutations: named ways to break this project, so that the simulator can prove that it would notice.
//!
//! A place in the code that can be broken asks `mutated!("area/name")`. Without the cargo feature `mutations`, which no
//! program has on, the macro is the constant `false` and nothing of this module exists. With it, the one mutation that
//! [`with`] has switched on for the calling thread answers true. The simulator's crate has the list of all names, each with
//! a sentence and the seed that catches it.

use std::cell::Cell;

thread_local! {
    static ACTIVE: Cell<Option<&'static str>> = const { Cell::new(None) };
    static REACHED: Cell<bool> = const { Cell::new(false) };
}

struct Restore(Option<&'static str>);

impl Drop for Restore {
    fn drop(&mut self) {
        ACTIVE.set(self.0);
    }
}

/// Runs `work` with one mutation switched on (or none), on this thread only. Says whether the broken place was reached.
pub fn with<T>(name: Option<&'static str>, work: impl FnOnce() -> T) -> (T, bool) {
    let _restore = Restore(ACTIVE.replace(name));
    REACHED.set(false);
    (work(), REACHED.get())
}

/// Is this the mutation that is switched on? For [`mutated!`](crate::mutated).
pub fn is(name: &str) -> bool {
    let active = ACTIVE.get().is_some_and(|active| active == name);
    if active {
        REACHED.set(true);
    }
    active
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mutation_is_on_for_one_thread_and_only_while_the_work_lasts() {
        let elsewhere = || std::thread::spawn(|| is("a")).join().expect("ends");
        let ((here, other, there), reached) = with(Some("a"), || (is("a"), is("b"), elsewhere()));
        assert_eq!((here, other, there, reached), (true, false, false, true));
        assert!(!is("a"));
        assert_eq!(with(Some("a"), || is("b")), (false, false));
    }
}
