//! The controller's rules, without any process: what is seen goes in, what is done comes out.

use super::*;

/// A cluster of four that bears one liar.
const FOUR: Model = Model { needed: 3, faults: 1, one_order: true, rebuilds: true };
/// A cluster of seven that bears two.
const SEVEN: Model = Model { needed: 5, faults: 2, one_order: true, rebuilds: true };
const SECOND: Millis = 1000;

/// A controller and what it sees.
struct Bench {
    policy: Policy,
    seen: BTreeMap<u8, Seen>,
    now: Millis,
}

fn well(op: u64) -> Seen {
    let said = Said { digest_op: op, digest: format!("state {op}"), ..Said::default() };
    Seen { process: Process::Running, lost: false, said: Some(said) }
}

fn gone() -> Seen {
    Seen { process: Process::Gone, ..Seen::default() }
}

fn silent() -> Seen {
    Seen { process: Process::Running, ..Seen::default() }
}

impl Bench {
    /// All replicas run well, and have been seen.
    fn of(model: Model) -> Self {
        let replicas = u8::try_from(model.needed + model.faults).expect("few");
        let policy = Policy::new(model, 0..replicas, &Kept::default(), 0);
        let seen = (0..replicas).map(|id| (id, well(1))).collect();
        let mut bench = Self { policy, seen, now: 0 };
        bench.look();
        bench.look();
        bench
    }

    fn see(&mut self, id: u8, seen: Seen) {
        self.seen.insert(id, seen);
    }

    /// Everybody answers after this entry, with the same state.
    fn all_at(&mut self, op: u64) {
        let answering: Vec<u8> = self.seen.iter().filter(|(_, it)| it.said.is_some()).map(|(id, _)| *id).collect();
        for id in answering {
            self.see(id, well(op));
        }
    }

    fn says(&mut self, id: u8, op: u64, digest: &str) {
        let mut lie = well(op);
        if let Some(said) = &mut lie.said {
            said.digest = digest.to_owned();
        }
        self.see(id, lie);
    }

    /// A look half a second later: what is done.
    fn look(&mut self) -> Vec<(u8, Order)> {
        self.now += SECOND / 2;
        let decisions = self.policy.look(&self.seen, self.now);
        decisions.iter().filter_map(|it| Some((it.replica, it.order?))).collect()
    }

    /// Looks until something is done, for so long.
    fn wait(&mut self, patience: Millis) -> Vec<(u8, Order)> {
        let until = self.now + patience;
        while self.now < until {
            let orders = self.look();
            if !orders.is_empty() {
                return orders;
            }
        }
        Vec::new()
    }
}

#[test]
fn who_has_ended_is_started_again_and_after_each_failure_later() {
    let mut bench = Bench::of(FOUR);
    let mut pauses = Vec::new();
    for _ in 0..5 {
        bench.see(2, gone());
        let ended = bench.now;
        assert_eq!(bench.wait(100 * SECOND), [(2, Order::Start)]);
        pauses.push(bench.now - ended);
        bench.see(2, well(1));
        bench.look();
    }
    assert!(pauses.windows(2).all(|pair| pair[0] < pair[1]), "{pauses:?}");
    for _ in 0..130 {
        bench.look(); // it runs well for a while
    }
    bench.see(2, gone());
    let ended = bench.now;
    assert_eq!(bench.wait(100 * SECOND), [(2, Order::Start)]);
    assert_eq!(bench.now - ended, pauses[0], "its failures are forgotten");
}

#[test]
fn who_ends_again_and_again_is_quarantined_until_a_person_has_looked() {
    let mut bench = Bench::of(FOUR);
    let mut starts = 0;
    bench.see(1, gone());
    while bench.now < 3_600 * SECOND {
        starts += bench.look().len();
    }
    assert!(starts < 10, "{starts} starts");
    assert!(matches!(bench.policy.state(1), State::Quarantined { .. }));
    let again = Policy::new(FOUR, 0..4, &bench.policy.kept(), bench.now);
    assert!(matches!(again.state(1), State::Quarantined { .. }), "also after a new controller");
    bench.policy.release(1, bench.now);
    assert_eq!(bench.wait(10 * SECOND), [(1, Order::Start)]);
}

#[test]
fn who_runs_and_does_not_answer_is_stopped_and_started() {
    let mut bench = Bench::of(FOUR);
    bench.see(3, silent());
    let since = bench.now;
    assert_eq!(bench.wait(100 * SECOND), [(3, Order::Stop)]);
    assert!((SUSPECT_AFTER + STOP_AFTER..SUSPECT_AFTER + STOP_AFTER + 2 * SECOND).contains(&(bench.now - since)));
    bench.see(3, gone());
    assert_eq!(bench.wait(100 * SECOND), [(3, Order::Start)]);
    bench.see(3, silent());
    assert_eq!(bench.wait(60 * SECOND), [], "one that was just started may read its disk");
}

#[test]
fn nobody_is_stopped_when_too_few_others_are_well() {
    for others in [gone(), silent()] {
        let mut bench = Bench::of(FOUR);
        bench.see(0, others);
        bench.see(3, silent());
        let stopped = (0..600).flat_map(|_| bench.look()).any(|(_, order)| order != Order::Start);
        assert!(!stopped, "all are silent to a controller that is cut off itself");
    }
    let mut bench = Bench::of(FOUR);
    bench.seen.values_mut().for_each(|it| *it = silent());
    assert_eq!(bench.wait(600 * SECOND), []);
}

#[test]
fn a_diverged_replica_is_fenced_then_rebuilt_then_started() {
    let mut bench = Bench::of(FOUR);
    bench.all_at(7);
    bench.says(2, 7, "another");
    assert_eq!(bench.look(), [(2, Order::Stop)]);
    assert!(matches!(bench.policy.state(2), State::Fenced { rebuild: true, .. }));
    bench.see(2, gone());
    assert_eq!(bench.look(), [(2, Order::Rebuild { diverged: true })]);
    assert_eq!(bench.wait(100 * SECOND), [], "that takes its time");
    bench.policy.rebuilt(2, Ok(()), bench.now);
    assert_eq!(bench.look(), [(2, Order::Start)]);
    bench.see(2, well(7));
    assert_eq!(bench.wait(10 * SECOND), []);
    assert_eq!(*bench.policy.state(2), State::Active);
}

#[test]
fn who_diverges_under_a_steady_load_is_found_though_no_two_replicas_are_asked_after_the_same_entry() {
    let mut bench = Bench::of(FOUR);
    for id in 0..4_u8 {
        let mut seen = well(1_000 + u64::from(id));
        if let Some(said) = &mut seen.said {
            let state = |op: u64| if id == 2 && op > 900 { "another" } else { "the same" }.to_owned();
            said.milestones = [832, 896, 960].map(|op| (op, state(op))).into();
        }
        bench.see(id, seen);
    }
    assert_eq!(bench.look(), [(2, Order::Stop)]);
}

#[test]
fn the_digest_of_a_milestone_and_that_of_a_last_entry_are_not_compared() {
    let mut bench = Bench::of(FOUR);
    for id in 0..4_u8 {
        let mut seen = well(if id == 2 { 960 } else { 1_000 });
        if let (Some(said), true) = (&mut seen.said, id != 2) {
            said.milestones = [(960, "sessions are not in it".to_owned())].into();
        }
        bench.see(id, seen);
    }
    assert_eq!(bench.look(), []);
}

#[test]
fn states_after_different_entries_are_no_contradiction_and_are_compared_when_the_others_get_there() {
    let mut bench = Bench::of(FOUR);
    bench.all_at(7);
    bench.says(2, 9, "another");
    assert_eq!(bench.look(), []);
    for id in [0, 1, 3] {
        bench.see(id, well(9));
    }
    bench.says(2, 11, "another still");
    assert_eq!(bench.look(), [(2, Order::Stop)], "what it said before counts");
}

#[test]
fn f_liars_fence_nobody_and_more_that_contradict_each_other_are_left_to_people() {
    let mut bench = Bench::of(FOUR);
    bench.all_at(7);
    bench.says(2, 7, "a lie");
    bench.says(3, 7, "a lie");
    assert_eq!(bench.look(), [], "two against two: each has as many with it");
    let mut bench = Bench::of(FOUR);
    bench.see(0, gone());
    bench.all_at(7);
    bench.says(3, 7, "a lie");
    let fenced = (0..100).flat_map(|_| bench.look()).any(|(_, order)| order != Order::Start);
    assert!(!fenced, "one is down: nobody else is taken away");
}

#[test]
fn a_lost_disk_is_rebuilt_and_not_believed_to_be_readable() {
    let mut bench = Bench::of(FOUR);
    bench.see(1, Seen { lost: true, ..gone() });
    assert_eq!(bench.wait(10 * SECOND), [(1, Order::Rebuild { diverged: false })]);
    bench.policy.rebuilt(1, Err("the others do not commit".to_owned()), bench.now);
    let failed = bench.now;
    assert_eq!(bench.wait(100 * SECOND), [(1, Order::Rebuild { diverged: false })], "later, once more");
    assert!(bench.now - failed >= REBUILD_RETRY);
}

#[test]
fn nothing_is_rebuilt_when_the_controller_is_told_not_to() {
    let mut bench = Bench::of(Model { rebuilds: false, ..FOUR });
    bench.see(1, Seen { lost: true, ..gone() });
    assert_eq!(bench.wait(600 * SECOND), []);
    assert!(matches!(bench.policy.state(1), State::Fenced { .. }));
}

#[test]
fn who_diverges_again_and_again_stays_fenced() {
    let mut bench = Bench::of(FOUR);
    let mut rebuilds = 0;
    for op in 10..20 {
        bench.all_at(op);
        bench.says(2, op, "another");
        if bench.look() != [(2, Order::Stop)] {
            break;
        }
        bench.see(2, gone());
        if bench.look() != [(2, Order::Rebuild { diverged: true })] {
            break;
        }
        rebuilds += 1;
        bench.policy.rebuilt(2, Ok(()), bench.now);
        bench.look();
    }
    assert_eq!(rebuilds, REBUILDS_MAX);
    assert!(matches!(bench.policy.state(2), State::Fenced { rebuild: false, .. }));
    let again = Policy::new(FOUR, 0..4, &bench.policy.kept(), bench.now);
    assert!(matches!(again.state(2), State::Fenced { rebuild: false, .. }), "also after a new controller");
}

#[test]
fn who_is_fenced_and_started_by_a_person_is_watched_again() {
    let mut bench = Bench::of(Model { rebuilds: false, ..FOUR });
    bench.all_at(7);
    bench.says(2, 7, "another");
    assert_eq!(bench.look(), [(2, Order::Stop)]);
    assert_eq!(bench.look(), [(2, Order::Stop)], "it still runs");
    bench.see(2, gone());
    assert_eq!(bench.wait(100 * SECOND), []);
    bench.see(2, well(7));
    assert_eq!(bench.wait(10 * SECOND), []);
    assert_eq!(*bench.policy.state(2), State::Active);
    bench.says(2, 7, "another");
    assert_eq!(bench.look(), [(2, Order::Stop)], "and fenced again");
}

#[test]
fn evidence_is_told_once_and_acted_on_by_nobody() {
    let mut bench = Bench::of(FOUR);
    let mut accuser = well(1);
    if let Some(said) = &mut accuser.said {
        said.evidence = vec!["replica 3 has signed two proposals".to_owned()];
    }
    bench.see(0, accuser);
    bench.now += 1;
    let told = bench.policy.look(&bench.seen, bench.now);
    assert!(
        told.iter().any(|it| it.replica == 0 && it.words.contains("two proposals") && it.order.is_none()),
        "{told:?}"
    );
    assert_eq!(bench.policy.look(&bench.seen, bench.now), []);
}

#[test]
fn a_controller_never_touches_what_is_on_other_machines() {
    let mut bench = Bench::of(FOUR);
    for (op, id) in [(7, 1), (8, 2)] {
        bench.all_at(op);
        bench.says(id, op, "another");
        bench.seen.values_mut().for_each(|it| it.process = Process::Elsewhere);
        assert_eq!(bench.look(), []);
    }
    bench.see(1, Seen::default());
    assert_eq!(bench.wait(600 * SECOND), []);
}

/// A generator of numbers that are the same on each run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// At most `f` replicas say whatever they like, crash and hang; the others' processes are as the controller makes them. Whatever
/// happens, an honest replica is never fenced or rebuilt, and the controller never leaves fewer than the cluster needs.
#[test]
fn f_replicas_that_lie_about_everything_never_make_it_take_an_honest_one_away() {
    for seed in 0..60 {
        let model = if seed % 2 == 0 { FOUR } else { SEVEN };
        let replicas = u8::try_from(model.needed + model.faults).expect("few");
        let liars = u8::try_from(model.faults).expect("few");
        let mut numbers = Numbers(seed);
        let mut bench = Bench::of(model);
        let mut op = 1;
        for step in 0..200 {
            op += numbers.below(2);
            for id in 0..replicas {
                let running = bench.seen[&id].process == Process::Running;
                if id < liars {
                    let lie = format!("lie {}", numbers.below(3));
                    match numbers.below(12) {
                        0 => bench.see(id, gone()),
                        1 => bench.see(id, Seen { lost: true, ..gone() }),
                        2 | 3 => bench.see(id, silent()),
                        _ => {
                            let at = op - numbers.below(2);
                            bench.says(id, at, &lie);
                        }
                    }
                } else if running {
                    bench.see(id, well(op));
                }
            }
            for (id, order) in bench.look() {
                assert!(id < liars, "seed {seed}, step {step}: {order:?} for the honest replica {id}");
                match order {
                    Order::Start => bench.see(id, well(op)),
                    Order::Stop => bench.see(id, gone()),
                    Order::Rebuild { .. } => drop(bench.policy.rebuilt(id, Ok(()), bench.now)),
                }
            }
        }
    }
}

/// Replicas crash, hang and diverge as they like, more of them than the cluster bears. The controller itself never takes one away that
/// runs unless enough others are well, and never more than `f`.
#[test]
fn whatever_happens_it_takes_nobody_away_whom_the_cluster_needs() {
    for seed in 0..60 {
        let model = if seed % 2 == 0 { FOUR } else { SEVEN };
        let replicas = u8::try_from(model.needed + model.faults).expect("few");
        let mut numbers = Numbers(seed ^ 0xdead_beef);
        let mut bench = Bench::of(model);
        let mut rebuilding: BTreeSet<u8> = BTreeSet::new();
        for op in 2..200 {
            for id in 0..replicas {
                let running = bench.seen[&id].process == Process::Running;
                match numbers.below(60) {
                    0 if running => bench.see(id, gone()),
                    1 if running => bench.see(id, Seen { lost: true, ..gone() }),
                    2..=8 if running => bench.see(id, silent()),
                    9 if running => bench.says(id, op, "another"),
                    _ if running && numbers.below(3) > 0 => bench.see(id, well(op)),
                    _ => {}
                }
            }
            bench.now += numbers.below(20) * SECOND;
            let before = bench.seen.clone();
            for (id, order) in bench.look() {
                let others = before.iter().filter(|(other, it)| **other != id && it.said.is_some()).count();
                match order {
                    Order::Start => bench.see(id, well(op)),
                    Order::Stop => {
                        assert!(
                            others >= model.needed,
                            "seed {seed}, entry {op}: {id} is stopped with {others} others"
                        );
                        bench.see(id, gone());
                    }
                    Order::Rebuild { .. } => {
                        assert!(
                            others >= model.needed,
                            "seed {seed}, entry {op}: {id} is rebuilt with {others} others"
                        );
                        rebuilding.insert(id);
                        assert!(rebuilding.len() <= model.faults, "seed {seed}: {rebuilding:?} are rebuilt at a time");
                    }
                }
            }
            if numbers.below(4) == 0
                && let Some(id) = rebuilding.pop_first()
            {
                let result = if numbers.below(3) == 0 { Err("no".to_owned()) } else { Ok(()) };
                bench.policy.rebuilt(id, result, bench.now);
            }
        }
    }
}
