//! The model that computes throughput and latency: its counts are the protocols' own, its times follow from the costs.

use quorate_core::time::Duration;
use quorate_protocols::pbft::{self, Pbft};
use quorate_protocols::vr::{self, Vr};
use quorate_sim::model::{Costs, Found, Question, find};

/// What a test sets a price on is all that takes time; turns and syncs come one after the other all the same.
const FREE: Costs = Costs { turn_ns: 1, sync_ns: 1, ..Costs::FREE };

fn vr(replicas: usize, in_flight: usize, answers: u64, costs: Costs) -> Found {
    let config = vr::Config::default();
    find::<Vr>(&Question { replicas, clients: 1, in_flight, payload: 256, answers, config, costs }).expect("answers")
}

fn pbft(replicas: usize, in_flight: usize, answers: u64, costs: Costs) -> Found {
    let config = pbft::Config::default();
    find::<Pbft>(&Question { replicas, clients: 1, in_flight, payload: 256, answers, config, costs }).expect("answers")
}

/// A latency in microseconds, rounded down.
fn micros(nanos: u64) -> u128 {
    Duration::from_nanos(nanos).as_micros()
}

#[test]
fn two_runs_of_a_question_agree_in_everything() {
    assert_eq!(pbft(4, 16, 300, Costs::MEASURED), pbft(4, 16, 300, Costs::MEASURED));
}

#[test]
fn one_request_of_viewstamped_replication_takes_four_delays_and_one_sync() {
    // Request, Prepare, PrepareOk, Reply; the backup's sync stands between the second and the third (VRR §4.1).
    let delay = vr(3, 1, 100, Costs { latency_ns: 1_000_000, ..FREE });
    assert_eq!(micros(delay.latency(500)), 4_000);
    let sync = vr(3, 1, 100, Costs { sync_ns: 1_000_000, ..FREE });
    assert_eq!(micros(sync.latency(500)), 1_000);
}

#[test]
fn one_request_of_pbft_takes_five_delays_and_two_syncs() {
    // Request, PrePrepare, Prepare, Commit, Reply (PBFT §4.2); a PREPARE and a COMMIT are durable before they leave.
    let delay = pbft(4, 1, 100, Costs { latency_ns: 1_000_000, ..FREE });
    assert_eq!(micros(delay.latency(500)), 5_000);
    let sync = pbft(4, 1, 100, Costs { sync_ns: 1_000_000, ..FREE });
    assert_eq!(micros(sync.latency(500)), 2_000);
}

#[test]
fn a_record_that_nobody_waits_for_is_synced_with_the_next_that_somebody_does() {
    // An entry of PBFT is three records: what it is and one's PREPARE, the quorum of these and one's COMMIT, the quorum of those.
    let found = pbft(4, 1, 500, Costs { sync_ns: 100_000, latency_ns: 100_000, ..FREE });
    for replica in &found.replicas {
        let syncs = replica.syncs as f64 / found.answers as f64;
        assert!((1.9..=2.1).contains(&syncs), "{syncs} syncs for each entry");
    }
}

#[test]
fn what_a_price_is_not_set_on_does_not_change_what_is_said() {
    let (cheap, dear) = (vr(3, 1, 200, FREE), vr(3, 1, 200, Costs { sync_ns: 50_000, ..FREE }));
    let words = |found: &Found| found.replicas.iter().map(|it| (it.frames_out, it.bytes_out)).collect::<Vec<_>>();
    assert_eq!(words(&cheap), words(&dear));
}

#[test]
fn the_busiest_core_bounds_the_throughput() {
    let ask = |frame_ns| {
        let costs = Costs { frame_ns, latency_ns: 20_000, sync_ns: 20_000, ..FREE };
        let config = vr::Config::default();
        let question =
            Question { replicas: 5, clients: 32, in_flight: 32, payload: 256, answers: 4_000, config, costs };
        find::<Vr>(&question).expect("answers")
    };
    let (found, dearer) = (ask(10_000), ask(40_000));
    let busy = found.busiest().busy as f64 / found.nanos as f64;
    assert!(busy > 0.8 && busy <= 1.01, "{busy}");
    assert!(dearer.throughput() < found.throughput() / 2.0);
}

#[test]
fn more_replicas_say_more() {
    let (four, thirteen) = (pbft(4, 1, 100, FREE), pbft(13, 1, 100, FREE));
    let frames = |found: &Found| found.replicas.iter().map(|it| it.frames_out).sum::<u64>() / found.answers;
    assert!(frames(&thirteen) > frames(&four) * 6, "{} and {}", frames(&thirteen), frames(&four));
}
