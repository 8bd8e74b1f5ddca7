//! What can be broken in synchronous total-order broadcast.

use super::{List, Mutation};
use crate::run::run;
use quorate_protocols::sync_tob::SyncTob;

const fn all(name: &'static str, wrong: &'static str) -> Mutation {
    under(name, wrong, "all")
}

const fn under(name: &'static str, wrong: &'static str, faults: &'static str) -> Mutation {
    Mutation { name, wrong, faults, replicas: 4, run: run::<SyncTob> }
}

/// Power failures of everybody, and of who is furthest ahead of its disk.
const POWER: &str = "crash:400,crash-all:400,persist-crash:500,slow-sync:300,hunt:250,partition:200";
/// Disks that lose something, or everything, and partitions in which casts are left over.
const DISKS: &str = "bit-rot:1000,lost-disk:1000,crash:400,partition:300,loss:200";

/// So much that is late or lost that views follow each other.
const NETWORK: &str = "loss:2000,partition:1000,one-way:800,delay:1000";

/// The list.
pub const LIST: List = List {
    protocol: "sync-tob",
    kept: include_str!("sync_tob.txt"),
    mutations: &[
        all("quorum/sync-one-short", "two quorums may have a liar in common, and nobody else"),
        under("sync-tob/cast-before-the-sync", "a cast leaves before the life that names it is on disk", POWER),
        under("sync-tob/lives-are-not-durable", "a replica that restarts counts its lives from one again", POWER),
        under(
            "sync-tob/silence-forgets-lives",
            "a replica that has lost its disk counts its lives from one again",
            DISKS,
        ),
        all("sync-tob/orders-what-few-have", "a leader orders what nobody but its sender says to have"),
        all("sync-tob/nobody-gets-stuck", "replicas wait for a confirmation for ever"),
        under(
            "sync-tob/view-change-forgets-what-is-certified",
            "a view change says that nothing was confirmed",
            NETWORK,
        ),
        under(
            "sync-tob/any-certificate-wins",
            "a view starts with the lowest certificate, not with the highest",
            NETWORK,
        ),
        all("sync-tob/casts-are-not-said-again", "what was lost on its way to the others is not cast again"),
        all("sync-tob/commits-do-not-rank", "a certificate of a lower view wins against a block that is committed"),
        under("sync-tob/one-vote-is-enough", "what one replica had as its output is certified", NETWORK),
        under("sync-tob/one-certificate-is-enough", "what one replica holds a certificate of is committed", NETWORK),
        under("sync-tob/asks-once", "a block or a bundle that did not come is not asked for again", NETWORK),
    ],
};
