//! What can be broken in synchronous total-order broadcast. With three replicas one lies and messages are in time, or nobody
//! lies and everything else goes wrong.

use super::{List, Mutation};
use crate::run::run;
use quorate_protocols::sync_tob::SyncTob;

/// One replica lies; the network is on time.
const LIES: &str = "equivocate:600,drip:200,client-retry";
/// Nobody lies; nothing is on time.
const STORM: &str = "crash:300,crash-all:300,persist-crash:400,hunt:250,partition:300,one-way:300,loss:300,delay:300,slow-sync";

const fn under(name: &'static str, wrong: &'static str, faults: &'static str) -> Mutation {
    Mutation { name, wrong, faults, run: run::<SyncTob> }
}

/// The list.
pub const LIST: List = List {
    protocol: "sync-tob",
    kept: include_str!("sync_tob.txt"),
    mutations: &[
        under("sync-tob/no-deadlines", "a chain of signatures counts however late it comes", LIES),
        under("sync-tob/does-not-pass-on", "who takes a value keeps it to itself", LIES),
        under("sync-tob/first-of-two-counts", "of two values in one broadcast the first is the output", LIES),
        under("sync-tob/client-believes-one", "a client believes a single replica", "false-reply:300"),
        under("sync-tob/votes-before-the-sync", "votes leave before they are on disk", STORM),
        under("sync-tob/votes-are-not-durable", "a replica forgets with a crash what it has voted for", STORM),
        under("sync-tob/certificates-are-not-durable", "a replica forgets with a crash what it has confirmed", STORM),
        under("sync-tob/confirmed-by-one-less", "one vote less than a quorum certifies an output", STORM),
        under("sync-tob/committed-by-one", "a block is executed when one replica holds a certificate", STORM),
        under("sync-tob/view-starts-from-the-lowest", "a view starts from the lowest certificate", STORM),
        under(
            "sync-tob/forgets-the-order-with-the-log",
            "whoever fetches a state begins the senders' numbers anew",
            "crash:300,partition:400,one-way:300,lost-disk:300",
        ),
        under(
            "sync-tob/confirms-what-it-may-have-forgotten",
            "a replica whose votes cannot be read goes on voting",
            "bit-rot:800,misdirected:800,lost-disk:300,crash:400,crash-all:300,partition:300,loss:200",
        ),
    ],
};
