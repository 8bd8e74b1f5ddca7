//! What can be broken in HotStuff. The bad rules that others shipped are here by name: a commit without consecutive views, and
//! two chains without the proof of the timeouts.

use super::{List, Mutation};
use crate::run::run;
use quorate_protocols::hotstuff::HotStuff;

const fn under(name: &'static str, wrong: &'static str, faults: &'static str) -> Mutation {
    Mutation { name, wrong, faults, run: run::<HotStuff> }
}

const SPLIT: &str = "partition:400,one-way:300,partial:300,loss:300,crash,twins";
/// A leader that builds on old certificates, among replicas that lose sight of each other.
const FORKS: &str = "partition:500,one-way:400,partial:400,loss:400,own-lies:600";

/// The list.
pub const LIST: List = List {
    protocol: "hotstuff",
    kept: include_str!("hotstuff.txt"),
    mutations: &[
        under("hotstuff/commits-without-consecutive-views", "parents alone commit, though views were skipped", FORKS),
        under(
            "hotstuff/two-chain-without-timeouts",
            "two chains vote after a skipped view without looking at the timeouts",
            FORKS,
        ),
        under("hotstuff/votes-against-its-lock", "a replica votes for what its lock excludes", FORKS),
        under("hotstuff/never-locks", "nothing is ever locked", FORKS),
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
