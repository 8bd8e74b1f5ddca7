//! What can be broken in asynchronous total-order broadcast.

use super::{List, Mutation};
use crate::run::run;
use quorate_protocols::async_tob::AsyncTob;

const CRASHES: &str = "crash:400,crash-all:400,persist-crash:500,loss,delay,slow-sync";
const LOSSES: &str = "loss:2000,partition:500,crash:200,delay";
const DISKS: &str = "lost-disk:1000,bit-rot:1000,crash:400,partition:300,loss:200";
const LIES: &str = "own-lies:400,equivocate:400,reorder:300,delay:300,loss,crash";

const fn all(name: &'static str, wrong: &'static str) -> Mutation {
    under(name, wrong, "all")
}

const fn under(name: &'static str, wrong: &'static str, faults: &'static str) -> Mutation {
    Mutation { name, wrong, faults, replicas: 4, run: run::<AsyncTob> }
}

/// A group of one, which nobody leads back to what it has forgotten.
const fn alone(name: &'static str, wrong: &'static str) -> Mutation {
    Mutation { replicas: 1, ..under(name, wrong, CRASHES) }
}

/// The list.
pub const LIST: List = List {
    protocol: "async-tob",
    kept: include_str!("async_tob.txt"),
    mutations: &[
        under("async-tob/echoes-what-one-replica-says", "one ECHO1 is enough to say it, too", LIES),
        under("async-tob/wants-what-few-have-seen", "a proposal is wished for without its certificate", LIES),
        under("async-tob/catches-up-from-one", "what one replica says was decided is believed", LIES),
        all("async-tob/own-lane-first", "every replica begins with its own lane when it merges them"),
        under("async-tob/acknowledges-without-keeping", "a batch is acknowledged and not kept", CRASHES),
        under("async-tob/certificates-are-not-durable", "why a proposal was wished for is forgotten", CRASHES),
        under("async-tob/forgets-where-it-was", "after a restart, one's own words are out of the window", CRASHES),
        under(
            "async-tob/keeps-an-old-state",
            "a replica whose snapshot cannot be read asks for none",
            "snapshot-rot:800,crash:400,crash-all:200",
        ),
        all(
            "async-tob/union-of-what-is-here",
            "the proposals that are here count, and not those that were agreed upon",
        ),
        under("async-tob/says-nothing-again", "what was lost on its way is not said again", LOSSES),
        under("async-tob/asks-once", "what is missing is asked for once", LOSSES),
        under("async-tob/uses-heights-again", "a lane that has lost its disk begins at its first height", DISKS),
        alone("async-tob/forgets-what-was-proven", "a restart does not take up what its records prove"),
        alone("async-tob/waits-for-what-is-committed", "a lane waits for acknowledgements of what is committed"),
    ],
};
