//! What can be broken in HQ.

use super::{List, Mutation};
use crate::run::run;
use quorate_protocols::hq::Hq;

/// Disks are lost under load.
const LOST: &str = "lost-disk:1000,crash:300,delay,loss,duplication,partition,client-crash:300";

const fn all(name: &'static str, wrong: &'static str) -> Mutation {
    under(name, wrong, "all")
}

const fn under(name: &'static str, wrong: &'static str, faults: &'static str) -> Mutation {
    Mutation { name, wrong, faults, replicas: 4, run: run::<Hq> }
}

/// The list.
pub const LIST: List = List {
    protocol: "hq",
    kept: include_str!("hq.txt"),
    mutations: &[
        all("hq/grants-a-place-twice", "a replica grants one place to whoever asks"),
        all("hq/execution-is-not-durable", "a replica forgets with a crash what it has executed and answered"),
        all("hq/start-is-not-durable", "a replica forgets with a crash that it has frozen an object"),
        all("hq/certificate-of-too-few", "a client makes certificates of one grant less than a quorum"),
        all("hq/executes-a-request-twice", "the table of last results is not asked"),
        all("hq/executes-past-a-gap", "a replica executes a write whose predecessor it lacks"),
        all("hq/resolves-from-the-first-start", "the first certificate shown is taken for the greatest"),
        all("hq/resolution-quorum-one-short", "one grant less than a quorum proves a resolution"),
        all("hq/believes-one-replica", "an object is taken from one replica"),
        all("hq/orders-a-request-twice", "what PBFT orders again is executed again"),
        all(
            "hq/ordered-execution-is-not-durable",
            "a replica forgets with a crash what it has executed on several objects",
        ),
        all("hq/grants-in-ordered-mode", "a replica grants places that PBFT gives"),
        all(
            "hq/execution-in-order-is-not-durable",
            "a replica forgets with a crash what it has executed in ordered mode",
        ),
        all(
            "hq/cuts-before-its-objects-are-through",
            "a replica lets PBFT's log go though its own objects have not been through it",
        ),
        all("hq/answers-behind-a-cut", "a replica answers clients though it has slept through what PBFT ordered"),
        all(
            "hq/answers-in-another-order",
            "of a write of several operations each caller is told the result of another one",
        ),
        all(
            "hq/wants-a-certificate-of-ordered-mode",
            "the greatest certificate is where a resolution begins, though ordered mode came after it",
        ),
        under(
            "hq/grants-what-it-has-forgotten",
            "a replica that has lost its disk grants places that its former self may have granted",
            LOST,
        ),
    ],
};
