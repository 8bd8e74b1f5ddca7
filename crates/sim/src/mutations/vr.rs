//! What can be broken in what every protocol uses, and in Viewstamped Replication.

use super::{List, Mutation};
use crate::run::run;
use quorate_protocols::vr::Vr;

const fn all(name: &'static str, wrong: &'static str) -> Mutation {
    under(name, wrong, "all")
}

const fn under(name: &'static str, wrong: &'static str, faults: &'static str) -> Mutation {
    Mutation { name, wrong, faults, replicas: 3, run: run::<Vr> }
}

/// The list.
pub const LIST: List = List {
    protocol: "vr",
    kept: include_str!("vr.txt"),
    mutations: &[
        all("node/send-before-the-sync", "messages leave before what they promise is on disk"),
        all("node/own-vote-before-the-sync", "a replica counts its own vote before it is on disk"),
        all("node/forget-before-the-sync", "the log is cut before what replaces it is on disk"),
        all("sessions/no-deduplication", "a request that is ordered twice is applied twice"),
        all("sessions/only-the-last-reply", "a session remembers one reply, though many requests are in flight"),
        all("executor/checkpoint-without-sessions", "the client table is not part of checkpoints"),
        all("quorum/replication-one-short", "an entry is committed by one replica less than a quorum"),
        all("votes/one-short", "votes count as a quorum one too early"),
        all("wal/no-sync", "the log is written and not synced"),
        all("wal/forgets-one-too-many", "the log drops the first record that is still needed"),
        all("segment/not-synced", "a new segment is used before its zeros and headers are on disk"),
        all("segment/name-not-synced", "a new segment is used before its name is on disk"),
        all("recover/damage-is-a-torn-write", "what is damaged is cut off, as if nobody had been told of it"),
        all("recover/torn-write-stays", "what a torn write left is not removed"),
        all("recover/what-is-found-is-not-synced", "what was read after a restart counts as safe"),
        under(
            "recover/what-may-be-unsafe-is-not-rewritten",
            "pages that a failed sync left behind count as written",
            "sync-error:2000,crash,slow-sync",
        ),
        all("snapshot/not-synced", "a snapshot gets its name before its bytes are on disk"),
        all("snapshot/name-not-synced", "a snapshot counts as stored before its name is on disk"),
        all("host/reports-before-the-sync", "the host reports a sync that it has not made"),
        all("host/goes-on-after-a-failed-sync", "the host tries again after a failed sync"),
        all("vr/no-window", "a primary prepares as much as it likes"),
        all("vr/acknowledges-in-an-old-view", "a backup acknowledges in a view that it has left"),
        all("vr/takes-a-prepare-of-an-old-view", "a backup appends what the primary of an earlier view sends"),
        all("vr/acknowledges-what-is-missing", "a backup acknowledges entries that it knows by name only"),
        all("vr/acknowledges-before-the-sync", "PrepareOk leaves before the entry is on disk"),
        all("vr/commits-what-is-only-prepared", "entries are executed before a quorum has them"),
        under(
            "vr/view-is-not-durable",
            "a replica forgets with a crash which view it had entered",
            "crash:400,partition:300,one-way:300,hunt:250,pause",
        ),
        under(
            "vr/view-change-before-the-sync",
            "DoViewChange leaves before the view is on disk",
            "crash:400,partition:300,one-way:300,hunt:250,persist-crash:500,slow-sync:300",
        ),
        under(
            "vr/last-entrys-view-chooses-the-log",
            "the log of the latest entry wins, not that of the latest view",
            "crash:300,partition:300,loss:300",
        ),
        all("vr/leads-without-its-state", "a replica leads whose machine is behind its log"),
        under(
            "vr/log-view-apart-from-its-log",
            "the view of a log and the log are two records",
            "crash:400,crash-all:400,persist-crash:500,hunt:250",
        ),
        all("vr/log-of-a-view-is-not-durable", "the log that a view starts with is not on disk"),
        all(
            "vr/reads-before-the-inherited-log",
            "a new primary answers reads before the log it inherited is committed",
        ),
        all("vr/an-old-start-truncates", "an old copy of a view's start shortens the log"),
        all("vr/view-change-quorum-one-short", "a view starts with one DoViewChange less than a quorum"),
        all("vr/shortest-log", "of the logs of the latest view, the shortest wins"),
        all("vr/one-nack-drops", "one replica that lacks a damaged entry is enough to drop it"),
        all("vr/keeps-only-what-is-committed", "a new view drops what is not known to be committed"),
        all("vr/damage-is-a-nack", "a replica that cannot read an entry votes for dropping it"),
        under(
            "vr/takes-its-head-as-known",
            "a replica whose log is damaged at the end vouches for it",
            "bit-rot:800,misdirected:800,crash:400,crash-all:300",
        ),
        all("vr/leads-its-view-again", "a primary that restarts goes on leading its view"),
        under(
            "vr/missing-entries-explain-a-lost-promise",
            "a lost promise passes for one of the entries that are missing",
            "bit-rot:800,misdirected:800,crash:400,crash-all:300,partition,one-way",
        ),
        under(
            "vr/keeps-what-another-view-prepared",
            "what an earlier primary prepared ahead of a log is in the next view's log",
            "persist-crash:900,loss:600,delay:300",
        ),
        all("vr/replay-ignores-what-a-view-dropped", "entries that a view change dropped come back with a restart"),
        all("vr/vouches-for-what-is-missing", "a replica says that it has entries of which it knows the names"),
        all("vr/reads-without-confirmation", "a primary answers reads without proof that it leads"),
        under("vr/lease-too-long", "a lease lasts longer than the promise", "partition:300,one-way:300,client-retry"),
        all("client/says-that-nothing-happened", "a client denies a request that may have been applied"),
    ],
};
