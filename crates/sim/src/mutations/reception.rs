//! What can be broken in reception.

use super::{List, Mutation};
use crate::run::run;
use quorate_protocols::reception::Reception;

const fn all(name: &'static str, wrong: &'static str) -> Mutation {
    under(name, wrong, "all")
}

const fn under(name: &'static str, wrong: &'static str, faults: &'static str) -> Mutation {
    Mutation { name, wrong, faults, replicas: 4, run: run::<Reception> }
}

/// The list.
pub const LIST: List = List {
    protocol: "reception",
    kept: include_str!("reception.txt"),
    mutations: &[
        under("reception/a-certificate-is-believed", "replicas insert what nobody has certified", "own-lies:300,crash"),
        under(
            "reception/publications-are-not-checked",
            "replicas receive what no client has signed",
            "own-lies:300,loss:100,broker-tamper:300",
        ),
        all("reception/certified-by-one-too-few", "a certificate has one reception less than the others ask for"),
        under(
            "reception/the-committee-or-nobody",
            "what a committee of silent liars has received waits for ever",
            "silent:300,withhold:300,crash",
        ),
        all("reception/forgets-what-is-pending", "the log drops publications that were acknowledged and not ordered"),
        all("reception/backups-hand-nothing-over", "only the primary asks PBFT for what is certified"),
        all("reception/sorts-by-its-own-clock", "each replica inserts an entry's publications as it received them"),
        all("reception/what-is-ordered-stays-pending", "a publication that was ordered is spoken of for ever"),
        all("reception/full-for-ever", "what was ordered still counts as waiting"),
        all("reception/answers-nobody", "clients are not told what became of their publications"),
        under(
            "reception/a-second-copy-is-received-again",
            "a publication that comes twice is received twice",
            "broker-duplicate:300",
        ),
        under(
            "reception/pending-sets-are-not-compared",
            "receptions that are lost are never said again",
            "loss:400,broker-drop:200",
        ),
        all(
            "reception/certified-at-the-lowest-level",
            "primaries certify at level 0 what names a higher one, and the others pass over it",
        ),
        under(
            "reception/never-submits",
            "clients leave everything to the broker, whatever becomes of it",
            "broker-loss:300",
        ),
    ],
};
