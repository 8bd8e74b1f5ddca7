//! What can be broken in PBFT.

use super::{List, Mutation};
use crate::run::run;
use quorate_protocols::pbft::Pbft;

const fn all(name: &'static str, wrong: &'static str) -> Mutation {
    under(name, wrong, "all")
}

const fn under(name: &'static str, wrong: &'static str, faults: &'static str) -> Mutation {
    Mutation { name, wrong, faults, replicas: 4, run: run::<Pbft> }
}

/// Power failures of everybody, and of who is furthest ahead of its disk.
const POWER: &str = "crash:400,crash-all:400,persist-crash:500,slow-sync:300,hunt:250,partition:200";
/// A primary that proposes two things, both of which reach everybody in the end, and replicas that forget.
const TWO_WORDS: &str = "collude,replay:400,persist-crash:1000";

/// A primary whose proposals change when they come again, and replicas that forget.
const OTHER_WORDS: &str = "own-lies:400,replay:400,persist-crash:1000,slow-sync:500";

/// The list.
pub const LIST: List = List {
    protocol: "pbft",
    kept: include_str!("pbft.txt"),
    mutations: &[
        all("quorum/byzantine-one-short", "two quorums may have a liar in common, and nobody else"),
        under("pbft/prepare-before-the-sync", "PREPARE leaves before the vote is on disk", OTHER_WORDS),
        under("pbft/vote-is-not-durable", "a replica forgets with a crash what it has voted for", TWO_WORDS),
        under(
            "pbft/commit-before-the-sync",
            "COMMIT leaves before its certificate is on disk",
            "crash-all:3000,slow-sync:1000,loss:100",
        ),
        under("pbft/certificate-is-not-durable", "a replica forgets with a crash what it has prepared", POWER),
        under("pbft/leads-its-view-again", "a primary that restarts goes on leading its view", POWER),
        all("pbft/accepts-a-second-proposal", "a backup votes for whatever the primary proposes last"),
        all("pbft/one-commit-is-enough", "an entry is executed when one replica has it prepared"),
        all("pbft/no-watermarks", "replicas vote below and above the watermarks"),
        all("pbft/view-change-forgets-what-is-prepared", "a VIEW-CHANGE says that nothing was prepared"),
        all(
            "pbft/any-certificate-wins",
            "of several certificates for an entry the first wins, not that of the highest view",
        ),
        all("pbft/a-gap-ends-the-view", "a new view drops what is beyond an entry that nobody prepared"),
        under(
            "pbft/new-view-is-not-computed-again",
            "backups take what the new primary says that follows",
            "own-lies:300,crash:400,partition:200,hunt:200",
        ),
        all("pbft/nobody-suspects-the-primary", "backups wait for a primary for ever"),
        all("pbft/the-log-goes-without-a-state", "the log is cut though no quorum has a state to fetch"),
        under("pbft/requests-are-not-checked", "backups order what no client has signed", "own-lies:300,crash"),
        all("pbft/a-client-believes-one", "a client believes what a single replica says"),
        all("pbft/a-read-believes-f-plus-one", "a read believes two replicas that may both be behind"),
        under(
            "pbft/a-tentative-reply-before-the-sync",
            "a client is told of what is prepared before that is on disk",
            "crash-all:3000,slow-sync:1000,loss:100",
        ),
        under(
            "pbft/never-learns-its-chain",
            "a replica whose snapshot is newer than its log never vouches for a checkpoint again",
            "crash:400,crash-all:400,hunt:400,slow-sync:1000,lost-disk:600",
        ),
        all("pbft/a-read-does-not-wait", "a replica answers a read before it has executed what it has prepared"),
    ],
};
