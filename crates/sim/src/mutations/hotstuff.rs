//! What can be broken in HotStuff. The bad rules that others shipped (a commit without consecutive views, two chains without the
//! proof of the timeouts) are not here: random runs meet what they break too rarely, so `rules.rs` of the protocol's tests plays
//! it out.

use super::{List, Mutation};
use crate::run::run;
use quorate_protocols::hotstuff::HotStuff;

const fn under(name: &'static str, wrong: &'static str, faults: &'static str) -> Mutation {
    Mutation { name, wrong, faults, replicas: 3, run: run::<HotStuff> }
}

const SPLIT: &str = "partition:400,one-way:300,partial:300,loss:300,crash,twins";

/// The list.
pub const LIST: List = List {
    protocol: "hotstuff",
    kept: include_str!("hotstuff.txt"),
    mutations: &[
        under("hotstuff/never-locks", "nothing is ever locked", SPLIT),
        under("hotstuff/votes-twice-in-a-view", "a replica does not look at what it has voted", SPLIT),
        under("hotstuff/votes-after-a-timeout", "a replica votes in a view that it has given up", SPLIT),
        under("hotstuff/certificate-of-one-less", "a leader assembles certificates of one vote less", "all"),
        under(
            "hotstuff/vote-is-not-durable",
            "a vote leaves that no disk has",
            "crash:400,crash-all:400,persist-crash:500,hunt:250,partition,equivocate:400",
        ),
        under(
            "hotstuff/votes-before-the-sync",
            "a vote leaves before it is on disk",
            "crash:400,crash-all:400,persist-crash:500,hunt:250,slow-sync:300,equivocate:400",
        ),
        under("hotstuff/reads-without-the-lock", "a replica answers reads without regard to its lock", "all"),
        under("hotstuff/commits-what-is-certified-once", "a certificate commits the block that it certifies", SPLIT),
    ],
};
