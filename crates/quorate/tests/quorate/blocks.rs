//! HotStuff for programs: the committed blocks on the disk, and leaders that wait for a cue.

use quorate::borsh::{BorshDeserialize, BorshSerialize};
use quorate::hotstuff::{Config, History, NotHere, Pacing};
use quorate::{At, BlockingClient, Bytes, HotStuff, Local, OpNumber, Output, ReplicaId, Small, blocks};
use std::thread;
use std::time::{Duration, Instant};

#[derive(Clone, Default, BorshSerialize, BorshDeserialize)]
struct Count(u64);

impl Small for Count {
    fn apply(&mut self, _at: &At, _operation: &[u8], out: &mut Output) {
        self.0 += 1;
        out.reply(self.0.to_string().as_bytes());
    }

    fn query(&self, _query: &[u8], reply: &mut Vec<u8>) {
        reply.extend_from_slice(self.0.to_string().as_bytes());
    }
}

fn id(raw: u8) -> ReplicaId {
    ReplicaId::new(raw)
}

fn started(config: Config) -> (Local, BlockingClient) {
    let local = Local::start::<HotStuff, _>(4, config, Count::default).expect("starts");
    let client = local.client::<HotStuff>().expect("connects");
    (local, client)
}

fn history(local: &Local, replica: u8) -> History {
    let folder = local.data_dir(id(replica)).expect("a replica");
    blocks::committed(folder, Config::default().rules).expect("a log of HotStuff")
}

fn operations(history: &History) -> Vec<Bytes> {
    history.blocks().flat_map(|(_, block)| block.payload.operations().cloned().collect::<Vec<_>>()).collect()
}

/// Reads until it holds: what is committed reaches each disk when it does.
fn until(local: &Local, replica: u8, holds: impl Fn(&History) -> bool) -> History {
    let begun = Instant::now();
    loop {
        let history = history(local, replica);
        if holds(&history) {
            return history;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "never: {:?}", history.heights());
        thread::sleep(Duration::from_millis(20));
    }
}

/// Each block names its parent, and where two logs overlap they are the same chain.
fn are_one_chain(one: &History, other: &History) {
    for history in [one, other] {
        for (height, block) in history.blocks() {
            assert_eq!(block.header.height, height);
            assert_eq!(history.name(height), Ok(block.header.id()));
            assert_eq!(history.name(height.previous()), Ok(block.header.parent));
            assert_eq!(block.justify.block(), block.header.parent, "the certificate of the block before");
        }
    }
    for (height, block) in one.blocks().filter(|(height, _)| *height <= other.head().op) {
        assert_eq!(other.block(height), Ok(block));
    }
}

#[test]
fn committed_blocks_are_read_by_height_from_a_disk_in_use_and_from_one_that_a_crash_has_left() {
    let (mut local, client) = started(Config::default());
    let mut asked = Vec::new();
    let mut ask = |count: usize| {
        for _ in 0..count {
            let operation = Bytes::from(format!("operation {}", asked.len()).into_bytes());
            client.apply(operation.clone()).expect("an answer");
            asked.push(operation);
        }
        asked.clone()
    };
    let before = ask(20);
    let running = until(&local, 0, |it| operations(it) == before);
    local.crash(id(2));
    let left = history(&local, 2);
    are_one_chain(&running, &left);
    let after = ask(10);
    let running = until(&local, 0, |it| operations(it) == after);
    let last = left.head().op;
    assert!(running.head().op > last);
    let later = left.block(last.next()).expect_err("it was down by then");
    assert_eq!(later, NotHere::NotCommitted { asked: last.next(), last });
    local.restart(id(2)).expect("restarts");
    let back = until(&local, 2, |it| operations(it) == after);
    are_one_chain(&running, &back);
}

#[test]
fn a_height_whose_block_a_snapshot_has_replaced_is_said_to_be_forgotten() {
    // The log's first segment has 4 MiB, and goes when a snapshot has taken the place of everything in it.
    let config = Config { state_blocks: 16, ..Config::default() };
    let (local, client) = started(config);
    let large = vec![b'x'; 512 << 10];
    for _ in 0..40 {
        client.apply(large.clone()).expect("an answer");
    }
    let first = OpNumber::new(1);
    let history = until(&local, 1, |it| it.block(first).is_err());
    let (lowest, highest) = history.heights().expect("the last blocks");
    assert_eq!(history.block(first), Err(NotHere::Forgotten { asked: first, first: lowest }));
    assert!(history.block(first).expect_err("forgotten").to_string().contains("snapshot"));
    assert!(lowest > first && highest <= history.head().op);
}

#[test]
fn the_folder_of_another_protocol_is_refused() {
    let vr = Local::start::<quorate::Vr, _>(1, quorate::vr::Config::default(), Count::default).expect("starts");
    let folder = vr.data_dir(id(0)).expect("a replica");
    let refused = blocks::committed(folder, Config::default().rules).expect_err("no blocks there");
    assert!(refused.to_string().contains("vr"), "{refused}");
}

#[test]
fn a_leader_that_waits_for_a_cue_proposes_when_its_program_says_so() {
    // So patient that nobody gives the leader up while the test looks away.
    let config = Config { pacing: Pacing::OnCue, timeout: Duration::from_secs(10), ..Config::default() };
    let (local, client) = started(config);
    let answer = thread::spawn(move || client.apply("x").map(|answer| answer.reply));
    thread::sleep(Duration::from_millis(300));
    assert!(!answer.is_finished() && operations(&history(&local, 0)).is_empty());
    let begun = Instant::now();
    while !answer.is_finished() {
        assert!(begun.elapsed() < Duration::from_secs(20), "the cues are not heard");
        local.propose(id(0));
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(answer.join().expect("no panic").expect("an answer"), "1");
}
