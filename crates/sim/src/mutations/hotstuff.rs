//! What can be broken in HotStuff. Random runs meet too rarely what the bad rules break that others shipped (a commit without
//! consecutive views, two chains without the proof of the timeouts), and what a lost disk forgets: their seeds are numbers of
//! scenarios (`rounds`).

use super::{List, Mutation};
use crate::checker::{Property, Violation};
use crate::report::{Counts, Report};
use crate::rounds::Space;
use crate::run::{Options, run};
use crate::trace::Recording;
use quorate_core::crypto::Digest;
use quorate_protocols::hotstuff::{HotStuff, Rules};

/// One seed is a scenario of a space; neighbouring seeds are far from each other in it.
fn rounds(space: Space, rules: Rules, seed: u64) -> Report {
    const STEP: u64 = 7_919;
    let number = seed.wrapping_mul(STEP) % space.count();
    let scenario = space.scenario(rules, number);
    let violation = scenario.play().wrong.map(|detail| Violation { property: Property::AGREEMENT, detail, at: 0 });
    Report {
        seed,
        violation,
        beyond: None,
        replay: format!("rounds: scenario {number} of {space:?}: {scenario}"),
        counts: Counts::default(),
        virtual_nanos: 0,
        audit: Digest::default(),
        trace: Recording::default(),
        struck: Vec::new(),
    }
}

fn duels(options: &Options) -> Report {
    rounds(Space::Duels, Rules::ThreeChain, options.seed)
}

fn sides(options: &Options) -> Report {
    rounds(Space::Sides, Rules::TwoChain, options.seed)
}

fn rejoins(options: &Options) -> Report {
    rounds(Space::Rejoins, Rules::TwoChain, options.seed)
}

const fn in_rounds(name: &'static str, wrong: &'static str, run: fn(&Options) -> Report) -> Mutation {
    Mutation { name, wrong, faults: "none", replicas: 4, run }
}

/// Four replicas, one of which may lie.
const fn of_four(name: &'static str, wrong: &'static str, faults: &'static str) -> Mutation {
    Mutation { name, wrong, faults, replicas: 4, run: run::<HotStuff> }
}

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
        in_rounds(
            "hotstuff/commits-whatever-views-are-skipped",
            "three blocks commit the first, whatever lies between their views",
            duels,
        ),
        in_rounds(
            "hotstuff/two-chains-without-timeouts",
            "with two chains, a leader that was led to by timeouts need not build on what their signers knew",
            sides,
        ),
        in_rounds(
            "hotstuff/a-lost-disk-votes-at-once",
            "who has forgotten its promises votes as if it had made none",
            rejoins,
        ),
        of_four(
            "hotstuff/timeouts-of-one-less",
            "a replica believes that a quorum has given up when one is missing",
            "all",
        ),
        of_four(
            "hotstuff/leads-its-term-again",
            "a leader that restarts goes on leading, and may propose another block",
            "crash:400,crash-all:400,persist-crash:500,slow-sync:500,hunt:250",
        ),
        of_four(
            "hotstuff/takes-a-state-that-has-lost",
            "a block's state is that of another one on the same parent, which has lost",
            "equivocate:1000,twins:1000,partition:400,one-way:300,partial:300,loss:300,crash",
        ),
        of_four(
            "hotstuff/says-another-vote-again",
            "a replica that restarts says its last vote again for another block",
            "crash:400,crash-all:400,persist-crash:500,hunt:250,loss:300",
        ),
        of_four(
            "hotstuff/proposes-again-before-the-sync",
            "a leader says its first proposal again before it is on disk that its term was begun",
            "crash:400,crash-all:400,hunt:250,slow-sync:1000,partition:300",
        ),
        of_four(
            "hotstuff/what-has-lost-is-forgotten",
            "requests in a block that has lost are not proposed again",
            "all",
        ),
    ],
};
