//! One test for each claim of seed 004's synchronous protocol, in its order, and of the broadcasts that it uses.

use crate::harness::{Cluster, config, replica};
use crate::words::{MS, block, echoed, proposal, small};
use quorate_core::crypto::Digest;
use quorate_core::ids::View;
use quorate_core::protocol::Consistency;
use quorate_core::quorum::SyncQuorums;
use quorate_core::time::WallTime;
use quorate_protocols::sync_tob::{
    Broadcast, Chain, Config, EpochNumber, Instance, Message, Proposal, Schedule, Taken,
};

#[test]
fn an_input_is_cast_to_all_then_ordered_by_a_leader_then_confirmed_by_all() {
    let mut it = Cluster::new(3);
    it.client(1).apply(1, "first");
    it.run(3_000);
    it.talk();
    let ticket = it.submit(1, "second");
    it.run(1_000);
    assert_eq!(it.answer(1, ticket).as_deref(), Some("2"));
    let n = 3;
    let counts = ["Cast", "Vote", "Commit", "Reply"].map(|label| it.count(label));
    assert_eq!(counts, [n - 1, n * (n - 1), n * (n - 1), n]);
    assert_eq!(it.count("Echo"), (n - 1) * (n - 1), "everybody but the sender says that it has it");
    assert_eq!(it.count("Propose"), (n - 1) + (n - 1), "the leader to all, and each of those to the other one");
}

#[test]
fn an_idle_group_says_nothing_and_waits_for_nothing() {
    for n in [1, 2, 3, 4] {
        let mut it = Cluster::new(n);
        it.client(1).apply(1, "a");
        it.run(20_000);
        it.talk();
        it.run(60_000);
        assert_eq!(it.talk(), Vec::<String>::new(), "{n}");
        let rests = |host: &crate::harness::Host| host.process.as_ref().is_some_and(|it| it.node.deadline().is_none());
        assert!(it.hosts.iter().all(rests), "{n}");
    }
}

#[test]
fn everybody_executes_everything_in_one_order_whoever_cast_it() {
    for broadcast in [Broadcast::Flood, Broadcast::DolevStrong] {
        let mut it = Cluster::with(3, Config { broadcast, ..config() });
        for client in 1..=6 {
            it.client(client);
        }
        for index in 0..60 {
            it.submit(1 + index % 6, &format!("x{index}"));
            it.run(7);
        }
        it.run(2_000);
        let tape = it.tape(0);
        assert_eq!(tape.len(), 60, "{broadcast:?}");
        assert!((1..3).all(|id| it.tape(id) == tape));
        let of_client =
            |client: u128| (0..60).filter(move |index| 1 + index % 6 == client).map(|index| format!("x{index}"));
        for client in 1..=6 {
            let places: Vec<_> = of_client(client).map(|x| tape.iter().position(|it| *it == x)).collect();
            assert!(places.is_sorted(), "what one client asks first comes first");
        }
    }
}

#[test]
fn the_leaders_turn_goes_round() {
    let mut it = Cluster::new(3);
    it.client(1);
    for index in 0..30 {
        it.submit(1, &format!("x{index}"));
        it.run(100);
    }
    let leaders: std::collections::BTreeSet<_> = it
        .sent
        .iter()
        .filter_map(|flying| match flying.message() {
            Some(Message::Propose { chain, .. }) => Some((chain.statement().epoch.get() % 3, chain.head.by().get())),
            _ => None,
        })
        .collect();
    assert!(leaders.iter().all(|(turn, leader)| *turn == u64::from(*leader)), "i = e mod n");
    assert_eq!(leaders.len(), 3);
}

#[test]
fn an_answer_comes_within_the_bound_that_follows_from_the_configuration() {
    // A cast is known at once here, the next epoch begins within T, its output follows (f + 1) R later.
    let mut it = Cluster::new(3);
    it.client(1).apply(1, "a");
    for _ in 0..10 {
        it.run(777);
        let (begun, ticket) = (it.now, it.submit(1, "y"));
        it.run_until("an answer", |it| it.answer(1, ticket).is_some());
        let bound = it.schedule().window() + it.config.epoch + it.config.cast_pause;
        let took = std::time::Duration::from_nanos(it.now - begun);
        assert!(took <= bound + std::time::Duration::from_millis(10), "{took:?} of {bound:?}"); // looked at every 10 ms
    }
}

#[test]
fn epochs_overlap_so_that_throughput_does_not_wait_for_outputs() {
    let mut it = Cluster::new(3);
    it.client(1).apply(1, "a");
    it.run(500);
    let before = it.committed(0);
    for index in 0..50 {
        it.submit(1, &format!("x{index}"));
        it.run(20);
    }
    let window = u64::try_from(it.schedule().window().as_millis()).expect("small");
    let blocks = it.committed(0) - before;
    assert!(blocks > 2 * 50 * 20 / window, "{blocks} blocks in a second, one window is {window} ms");
}

#[test]
fn the_tick_that_a_machine_asks_for_is_ordered_by_some_leader() {
    let mut it = Cluster::new(3);
    it.client(1).apply(1, "lease");
    it.run(2_000);
    assert!(it.agrees(&["lease", "tick"]), "{:?}", it.tape(0));
}

#[test]
fn a_stale_read_is_answered_by_f_plus_one_and_a_linearizable_one_is_ordered() {
    let mut it = Cluster::new(3);
    it.client(1).apply(1, "a").apply(1, "b");
    it.talk();
    let stale = it.read(1, Consistency::Stale { at_least: quorate_core::ids::OpNumber::ZERO });
    it.deliver();
    assert_eq!(it.answer(1, stale).as_deref(), Some("a b"));
    assert_eq!(it.count("Cast"), 0);
    let ordered = it.read(1, Consistency::Linearizable);
    it.run(500);
    assert_eq!(it.answer(1, ordered).as_deref(), Some("a b"));
    assert!(it.count("Cast") > 0);
}

#[test]
fn a_read_names_the_block_that_it_reflects_and_none_before_it() {
    Cluster::new(3).reads_behind_a_write(500);
}

#[test]
fn a_replica_that_votes_has_everything_on_its_disk_that_it_votes_for() {
    let mut it = Cluster::new(3);
    it.client(1).apply(1, "a");
    it.run(1_000);
    it.talk();
    it.hosts[2].fast_disk = false;
    it.submit(1, "b");
    it.run(400);
    let said = |it: &Cluster, label: &str| it.sent.iter().filter(|m| m.from == replica(2) && m.label == label).count();
    assert_eq!((said(&it, "Echo"), said(&it, "Vote"), said(&it, "Commit")), (0, 0, 0), "nothing that promises");
    it.sync(2);
    it.run(400);
    assert!(said(&it, "Echo") > 0 && said(&it, "Vote") > 0);
}

#[test]
fn states_that_a_quorum_has_let_the_log_go() {
    let mut it = Cluster::with(3, small());
    it.client(1);
    for index in 0..12 {
        it.apply(1, &format!("x{index}"));
    }
    it.run(1_000);
    for host in &it.hosts {
        assert!(host.journal.len() < 60, "{} records", host.journal.len());
    }
    assert!(it.status(0).checkpoint.get() >= 8);
}

// Dolev and Strong, SIAM J. Comput. 1983, with deadlines.

fn chain_of(signers: &[usize], n: usize, digest: u8) -> Chain<Proposal> {
    let words = Proposal { view: View::ZERO, epoch: EpochNumber::new(30), block: Digest::new([digest; 32]) };
    let head = crate::harness::keyring(signers[0], n).sign(words);
    echoed(Chain::new(head), &signers[1..], n)
}

#[test]
fn a_chain_of_k_counts_until_tau_plus_k_rounds_and_not_a_nanosecond_longer() {
    for n in [3, 4, 5, 7] {
        let quorums = SyncQuorums::new(n).expect("legal");
        let schedule = Schedule::new(&Config::default(), &quorums);
        let start = schedule.start(EpochNumber::new(30));
        for k in 1..=quorums.faults() + 1 {
            let signers: Vec<usize> = (0..k).collect();
            let deadline = schedule.deadline(start, k);
            let mut fresh = Instance::new(start);
            let taken = fresh.offer(&chain_of(&signers, n, 1), deadline, quorums.faults(), &schedule);
            assert_eq!(taken, Taken::New { pass_on: k <= quorums.faults() });
            let late = WallTime::from_nanos(deadline.as_nanos() + 1);
            let taken = Instance::new(start).offer(&chain_of(&signers, n, 1), late, quorums.faults(), &schedule);
            let evidence = k > quorums.faults();
            assert_eq!(taken, if evidence { Taken::Evidence } else { Taken::Late }, "n={n} k={k}");
        }
    }
}

#[test]
fn no_chain_counts_before_a_correct_clock_can_have_sent_it() {
    let quorums = SyncQuorums::new(3).expect("legal");
    let schedule = Schedule::new(&Config::default(), &quorums);
    let start = schedule.start(EpochNumber::new(30));
    let early = WallTime::from_nanos(start.as_nanos() - 10 * MS);
    assert!(matches!(Instance::new(start).offer(&chain_of(&[0], 3, 1), early, 1, &schedule), Taken::New { .. }));
    let earlier = WallTime::from_nanos(early.as_nanos() - 1);
    assert_eq!(Instance::new(start).offer(&chain_of(&[0], 3, 1), earlier, 1, &schedule), Taken::Early);
}

#[test]
fn one_value_is_the_output_and_two_are_none() {
    let quorums = SyncQuorums::new(3).expect("legal");
    let schedule = Schedule::new(&Config::default(), &quorums);
    let start = schedule.start(EpochNumber::new(30));
    let mut it = Instance::<Proposal>::new(start);
    assert!(it.conclude().is_none());
    let mut it = Instance::new(start);
    it.offer(&chain_of(&[0], 3, 1), start, 1, &schedule);
    assert_eq!(it.offer(&chain_of(&[0, 1], 3, 1), start, 1, &schedule), Taken::Known);
    assert_eq!(it.clone().conclude().map(|chain| chain.statement().block), Some(Digest::new([1; 32])));
    assert!(matches!(it.offer(&chain_of(&[0], 3, 2), start, 1, &schedule), Taken::New { .. }));
    assert_eq!(it.offer(&chain_of(&[0], 3, 3), start, 1, &schedule), Taken::Third);
    assert!(it.conclude().is_none());
}

#[test]
fn whoever_takes_a_value_passes_it_on_to_those_who_have_not_signed_it() {
    let mut it = Cluster::new(5);
    it.client(1).apply(1, "a");
    let epoch = it.epoch_of(4, 100);
    it.liar(4);
    let (entry, _) = it.cast_by(4, 0, 7, "x");
    let start = it.schedule().start(epoch);
    it.run_to(start, 0);
    let block = block(epoch, vec![entry]);
    it.talk();
    it.say(replica(4), 0, Message::Propose { chain: proposal(4, 5, &block), block });
    it.deliver();
    let heard = |it: &Cluster, from: usize, to: usize| {
        it.sent.iter().filter(|m| (m.from, m.to, m.label) == (replica(from), replica(to), "Propose")).count()
    };
    assert_eq!((1..4).map(|to| heard(&it, 0, to)).collect::<Vec<_>>(), [1, 1, 1]);
    assert_eq!((heard(&it, 1, 0), heard(&it, 0, 4)), (0, 0), "who has signed it has it");
    let before = it.committed(0);
    it.run(500);
    assert!((0..4).all(|id| it.committed(id) == before + 1), "one who had it was enough for all");
}
