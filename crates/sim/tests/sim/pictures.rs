//! Named scenarios say what they show, and the gallery shows them as they are now.

use quorate_core::ids::{Peer, ReplicaId};
use quorate_protocols::naive::Naive;
use quorate_protocols::vr::Vr;
use quorate_sim::diagram::{Picture, page};
use quorate_sim::scenarios::{ALL, Played, find, gallery};
use quorate_sim::trace::What;
use quorate_sim::{Options, Property, run};
use std::path::Path;

fn play(name: &str) -> Played {
    (find(name).expect(name).play)()
}

/// The last answer that anybody got.
fn last_answer(played: &Played) -> Option<&str> {
    played.answers.last().and_then(Option::as_deref)
}

fn has(played: &Played, what: impl Fn(&What) -> bool) -> bool {
    played.recording.events.iter().any(|event| event.at >= played.from && what(&event.what))
}

#[test]
fn every_scenario_of_a_right_protocol_holds_and_answers_every_call() {
    for named in ALL.iter().filter(|named| !named.name.starts_with("naive")) {
        let played = (named.play)();
        assert_eq!(played.violation, None, "{}", named.name);
        assert!(played.answers.iter().all(Option::is_some), "{}: {:?}", named.name, played.answers);
    }
}

#[test]
fn the_scenarios_show_what_their_titles_say() {
    let leader_crash = play("vr-leader-crash");
    let leads_view_1 = |what: &What| matches!(what, What::Stated { replica: 1, status } if status.view.get() == 1 && status.role == "primary");
    assert!(has(&leader_crash, leads_view_1));
    assert_eq!(last_answer(&leader_crash), Some("4"));

    let partition = play("vr-partition");
    assert!(has(&partition, leads_view_1) && has(&partition, |what| matches!(what, What::Cut(_))));
    assert!(partition.answers.contains(&Some("11".to_owned())), "{:?}", partition.answers);
    assert!(partition.answers.contains(&Some("12".to_owned())), "{:?}", partition.answers);

    let installs = |what: &What| matches!(what, What::Installed { replica: 2, .. });
    assert!(has(&play("vr-state-transfer"), installs));
    assert!(!has(&play("vr-recovery"), installs));

    let anew = |what: &What| matches!(what, What::Stated { replica: 1, status } if status.view.get() >= 2);
    assert!(has(&play("vr-lost-disk"), anew));

    let leads = |what: &What| matches!(what, What::Stated { replica: 1, status } if status.view.get() == 1 && status.role == "primary");
    let equivocation = play("pbft-equivocating-primary");
    assert!(has(&equivocation, leads) && has(&equivocation, |what| matches!(what, What::Lied { replica: 0, .. })));
    assert_eq!(last_answer(&equivocation), Some("2"));
    assert_eq!(last_answer(&play("pbft-normal-case")), Some("2"));

    let says =
        |label: &'static str| move |what: &What| matches!(what, What::Sent { travel, .. } if travel.label == label);
    let epoch = play("sync-tob-normal-epoch");
    assert!(["Cast", "Echo", "Propose", "Vote", "Commit"].iter().all(|label| has(&epoch, says(label))));
    let two_blocks = play("sync-tob-equivocating-leader");
    let two = |what: &What| matches!(what, What::Lied { replica: 2, lie } if lie.contains("Propose"));
    assert!(has(&two_blocks, two));
    for played in [epoch, two_blocks, play("sync-tob-late-replica")] {
        assert_eq!(last_answer(&played), Some("2"));
    }

    let round = |what: &What| matches!(what, What::Sent { travel, .. } if travel.label == "ReadReply");
    assert!(has(&play("vr-lease-read"), round));
}

#[test]
fn the_scenarios_of_the_asynchronous_broadcast_show_what_their_titles_say() {
    for name in ["async-tob-normal-case", "async-tob-one-down", "async-tob-fork"] {
        assert_eq!(last_answer(&play(name)), Some("2"), "{name}");
    }
    let asks = |what: &What| matches!(what, What::Sent { travel, .. } if travel.label == "GetDecided");
    assert!(has(&play("async-tob-one-down"), asks) && !has(&play("async-tob-normal-case"), asks));
    assert!(has(&play("async-tob-fork"), |what| matches!(what, What::Lied { replica: 0, .. })));
}

#[test]
fn the_scenarios_of_hq_show_what_their_titles_say() {
    let says =
        |label: &'static str| move |what: &What| matches!(what, What::Sent { travel, .. } if travel.label == label);
    let (normal, contention) = (play("hq-normal-case"), play("hq-contention"));
    assert!(has(&normal, says("Write2")) && !has(&normal, says("Refused")));
    assert!(has(&contention, says("WriteBack")) && !has(&contention, says("Resolve")));
    assert_eq!(
        contention.answers,
        ["found 0, write 1", "found 1, write 2", "found 2, write 3"].map(|it| Some(it.to_owned()))
    );
    let resolution = play("hq-resolution");
    assert!(["Resolve", "Start", "Grants"].iter().all(|label| has(&resolution, says(label))));
    let crash = play("hq-client-crash");
    assert!(has(&crash, |what| matches!(what, What::ClientDied(1))) && has(&crash, says("WriteBack")));
    assert_eq!(last_answer(&crash), Some("found 2, write 3"), "what the dead client asked for has happened, too");
}

#[test]
fn the_scenarios_of_reception_show_what_their_titles_say() {
    let says =
        |label: &'static str| move |what: &What| matches!(what, What::Sent { travel, .. } if travel.label == label);
    let (normal, lost) = (play("reception-normal-case"), play("reception-lost-publication"));
    assert!(has(&normal, says("Reception")) && !has(&normal, says("GetPublication")));
    let pulls = |what: &What| matches!(what, What::Sent { travel, .. } if travel.label == "GetPublication" && travel.from == Peer::Replica(ReplicaId::new(3)));
    assert!(has(&lost, pulls) && has(&lost, says("Publication")));
    let reconciled = play("reception-reconciliation");
    assert!(has(&reconciled, |what| matches!(what, What::Cut(_))) && has(&reconciled, says("Publication")));
    for played in [&normal, &lost, &reconciled] {
        assert_eq!(last_answer(played), Some("2"));
    }
    let two = play("reception-equivocating-publisher");
    assert!(matches!(last_answer(&two), Some("2" | "101")), "{:?}", two.answers);
    let executed = |replica: usize| {
        let of_it = |what: &What| match what {
            What::Executed { replica: at, applied, .. } if *at == replica => applied.len(),
            _ => 0,
        };
        two.recording.events.iter().filter(|it| it.at >= two.from).map(|it| of_it(&it.what)).sum::<usize>()
    };
    assert!((0..4).all(|replica| executed(replica) == 2), "both are ordered, everywhere");
}

#[test]
fn the_naive_scenario_ends_in_one_and_a_half_and_in_one() {
    let played = play("naive-divergence");
    assert_eq!(played.violation.as_ref().map(|it| it.property), Some(Property::AGREEMENT));
    let html = page(&played.recording, &find("naive-divergence").expect("named").picture(&played));
    for needed in ["Agreement is violated", "The replicas part at entry 6", "add 1 ⇒ 1.5", "div 2 ⇒ 1<", "offends"]
    {
        assert!(html.contains(needed), "{needed}");
    }
}

#[test]
fn a_page_needs_no_network_and_says_what_it_leaves_out() {
    let report = run::<Vr>(&Options { seed: 7, trace: true, ..Options::default() });
    let html = page(&report.trace, &Picture { title: "a <b> run".to_owned(), ..Picture::default() });
    let fetched = ["http://", "https://", "src=", "@import", "url("];
    let names = html.replace("http://www.w3.org/2000/svg", "");
    assert!(fetched.iter().all(|word| !names.contains(word)), "a page must be whole");
    assert!(html.contains("Not drawn:") && html.contains("a &lt;b&gt; run"));
}

#[test]
fn a_picture_of_a_violation_shows_the_violation() {
    for seed in 1..6 {
        let report = run::<Naive>(&Options { seed, trace: true, ..Options::default() });
        let violation = report.violation.clone().expect("naive diverges");
        let html = page(&report.trace, &Picture { violation: Some(violation), ..Picture::default() });
        assert!(html.contains("class=\"violated\"") && html.contains("offends"), "seed {seed}");
    }
}

#[test]
fn a_part_of_a_run_can_be_drawn_alone_and_nothing_can_be_drawn_too() {
    let report = run::<Vr>(&Options { seed: 7, trace: true, ..Options::default() });
    for (from, to) in [(0, 1), (40_000_000, 60_000_000), (u64::MAX, u64::MAX), (90_000_000, 10)] {
        let html = page(&report.trace, &Picture { from: Some(from), to: Some(to), ..Picture::default() });
        assert!(html.ends_with("</html>\n"));
    }
    let nothing = page(&Default::default(), &Picture::default());
    assert!(nothing.contains("Everything that was checked holds"));
}

#[test]
fn a_trace_does_not_change_the_run_that_it_tells_of() {
    for seed in [1, 7] {
        let without = run::<Vr>(&Options { seed, ..Options::default() });
        let with = run::<Vr>(&Options { seed, trace: true, ..Options::default() });
        assert_eq!((without.audit, &without.counts), (with.audit, &with.counts));
        let without = run::<Naive>(&Options { seed, ..Options::default() });
        let with = run::<Naive>(&Options { seed, trace: true, ..Options::default() });
        assert_eq!(
            (without.audit, &without.counts, without.virtual_nanos),
            (with.audit, &with.counts, with.virtual_nanos)
        );
    }
}

#[test]
fn the_gallery_is_current() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/gallery");
    for (name, drawn) in gallery() {
        let kept = std::fs::read_to_string(folder.join(&name)).unwrap_or_default();
        assert!(kept == drawn, "docs/gallery/{name} is not what is drawn now: `quorate sim --gallery docs/gallery`");
    }
}
