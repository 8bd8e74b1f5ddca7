//! What can be broken in asynchronous total-order broadcast.

use super::{List, Mutation};
use crate::run::run;
use quorate_protocols::async_tob::AsyncTob;

const CRASHES: &str = "crash:400,crash-all:400,persist-crash:500,loss,delay,slow-sync";
const LIES: &str = "own-lies:400,equivocate:400,reorder:300,delay:300,loss,crash";

const fn all(name: &'static str, wrong: &'static str) -> Mutation {
    under(name, wrong, "all")
}

const fn under(name: &'static str, wrong: &'static str, faults: &'static str) -> Mutation {
    Mutation { name, wrong, faults, replicas: 4, run: run::<AsyncTob> }
}

/// In a group of one.
const fn alone(name: &'static str, wrong: &'static str, faults: &'static str) -> Mutation {
    Mutation { replicas: 1, ..under(name, wrong, faults) }
}

/// The list.
pub const LIST: List = List {
    protocol: "async-tob",
    kept: include_str!("async_tob.txt"),
    mutations: &[
        under("async-tob/agreement-one-short", "agreement waits for one replica less than n - t", LIES),
        under("async-tob/echoes-what-one-replica-says", "one ECHO1 is enough to say it, too", LIES),
        under("async-tob/second-echo-for-both", "a replica says ECHO2 for both values", LIES),
        under("async-tob/decides-against-the-coin", "a round's output is decided whatever the coin says", LIES),
        under("async-tob/wants-what-few-have-seen", "a proposal is wished for without its certificate", LIES),
        under("async-tob/believes-heads", "the certificates in a proposal are not looked at", LIES),
        under("async-tob/catches-up-from-one", "what one replica says was decided is believed", LIES),
        all("async-tob/reads-what-is-executed", "a read does not wait for the epochs that are under way"),
        all("async-tob/own-lane-first", "every replica begins with its own lane when it merges them"),
        under("async-tob/words-are-not-durable", "words of agreements are not on disk", CRASHES),
        under("async-tob/says-before-the-sync", "words of agreements leave before they are on disk", CRASHES),
        under("async-tob/acknowledges-without-keeping", "a batch is acknowledged and not kept", CRASHES),
        under("async-tob/certificates-are-not-durable", "why a proposal was wished for is forgotten", CRASHES),
        under("async-tob/forgets-where-it-was", "after a restart, one's own words are out of the window", CRASHES),
        under("async-tob/tells-only-who-lacks-it", "words are not said again to those who have committed", LIES),
        alone("async-tob/waits-for-others", "after a restart, nobody wishes for what was shown", CRASHES),
        under(
            "async-tob/waits-for-what-is-committed",
            "a lane waits for acknowledgements of what is committed",
            CRASHES,
        ),
        under(
            "async-tob/keeps-an-old-state",
            "a replica whose snapshot cannot be read asks for none",
            "snapshot-rot:800,crash:400,crash-all:200",
        ),
    ],
};
