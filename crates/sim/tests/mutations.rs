//! Every mutation is caught: with the seed that is kept for it something is violated, and without it nothing is.

use quorate_core::mutation;
use quorate_protocols::vr::Vr;
use quorate_sim::exhaustive::{Scope, explore};
use quorate_sim::mutations::{LISTS, SEARCHED};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

const AGAIN: &str =
    "find its seed anew: cargo run --profile ci -p quorate-sim --features mutations --example mutations -- PROTOCOL";

#[test]
fn every_mutation_is_caught_by_its_seed_which_is_clean_without_it() {
    std::panic::set_hook(Box::new(|_| {})); // a panic is a violation like any other here
    let mut wrong = Vec::new();
    for (list, mutation) in LISTS.iter().flat_map(|list| list.mutations.iter().map(move |mutation| (list, mutation))) {
        let name = mutation.name;
        match list.seed(mutation) {
            None => wrong.push(format!("{name} has no seed; {AGAIN}")),
            Some(seed) if mutation.run(seed).0.holds() => {
                wrong.push(format!("{name} is not caught by {seed}; {AGAIN}"));
            }
            Some(seed) if !mutation.run_unbroken(seed).holds() => {
                wrong.push(format!("seed {seed} of {name} fails without it, too; {AGAIN}"));
            }
            Some(_) => {}
        }
    }
    let _default = std::panic::take_hook();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_place_that_can_be_broken_is_in_the_list_and_the_other_way_round() {
    let mut asked = BTreeSet::new();
    for area in ["core", "store", "protocols", "sim"] {
        collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(area).join("src"), &mut asked);
    }
    let listed = LISTS.iter().flat_map(|list| list.mutations).map(|mutation| mutation.name);
    let names: Vec<&str> = listed.chain(SEARCHED.iter().map(|mutation| mutation.name)).collect();
    let listed: BTreeSet<String> = names.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(asked, listed);
    assert_eq!(listed.len(), names.len(), "a name is listed twice");
    assert!(names.len() >= 25);
}

/// The names in all calls of the macro below a folder.
fn collect(folder: &Path, names: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).expect("a folder of sources").flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, names);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("a source file");
            let calls = text.split("mutated!(\"").skip(1).filter_map(|rest| rest.split('"').next());
            names.extend(calls.filter(|name| name.contains('/') && *name != "area/name").map(str::to_owned));
        }
    }
}

/// Small scopes need no luck: these rules of log selection and replication are broken in one, and nothing else was looked for.
#[test]
fn the_exhaustive_search_finds_rules_that_are_broken() {
    let scope = Scope { answers: 2, crashes: 1, timeouts: 2, deviations: Some(1), ..Scope::default() };
    let search = || explore::<Vr>(&scope, |_| {}).violation;
    for rule in [
        "quorum/replication-one-short",
        "vr/view-change-quorum-one-short",
        "vr/shortest-log",
        "vr/keeps-only-what-is-committed",
    ] {
        let (found, reached) = mutation::with(Some(rule), || std::panic::catch_unwind(search));
        let is_found = found.map_or(true, |violation| violation.is_some()); // an assertion of the replica's own counts, too
        assert!(reached && is_found, "{rule} is broken, and all states within the scope look well");
    }
}

/// What no seed catches: with the rule broken something is violated in the scope, and without that nothing is.
#[test]
fn what_no_seed_catches_is_found_in_a_small_scope_which_is_clean_without_it() {
    let mut clean = Vec::new();
    for it in SEARCHED {
        let (found, reached) = mutation::with(Some(it.name), || (it.explore)(&it.scope));
        assert!(reached && found.violation.is_some(), "{} is broken, and all states look well: {found}", it.name);
        if !clean.contains(&it.scope) {
            let whole = (it.explore)(&it.scope);
            assert!(whole.complete && whole.violation.is_none(), "{}: {whole}", it.name);
            assert!(whole.back > 0, "nobody came back: {whole}");
            clean.push(it.scope);
        }
    }
}
