//! The tree of states that may be committed: whatever is speculated on and aborted, the committed state is that of a machine
//! that never speculated.

use borsh::{BorshDeserialize, BorshSerialize};
use quorate_core::crypto::Digest;
use quorate_core::executor::{Done, Executor, Job};
use quorate_core::ids::{ClientId, OpNumber, RequestNumber, SessionId};
use quorate_core::machine::{At, Output};
use quorate_core::protocol::StateId;
use quorate_core::sessions::{Batch, Body, Outcome, Request};
use quorate_core::small::Small;
use quorate_core::time::WallTime;
use quorate_core::wire::Wire;
use std::collections::BTreeMap;

/// The order of everything that was applied.
#[derive(Clone, Debug, Default, BorshSerialize, BorshDeserialize)]
struct Order(Vec<Vec<u8>>);

impl Small for Order {
    fn apply(&mut self, _: &At, operation: &[u8], out: &mut Output) {
        self.0.push(operation.to_vec());
        out.reply(&(self.0.len() as u64).to_le_bytes());
        out.event(1, operation.to_vec());
    }

    fn query(&self, _: &[u8], reply: &mut Vec<u8>) {
        reply.extend_from_slice(&self.0.concat());
    }
}

fn id(number: u64) -> StateId {
    StateId(Digest::of(&number.to_le_bytes()))
}

/// A batch of a client that opens its session first; the same numbers come again, as from a client that repeats itself.
fn batch(number: u64) -> Vec<u8> {
    let client = ClientId::new(u128::from(number % 3) + 1);
    let (session, acknowledged) = (SessionId::new(number % 3 + 1), RequestNumber::ZERO);
    let body = if number < 3 { Body::Register } else { Body::Apply(number.to_le_bytes().to_vec().into()) };
    let request = Request { client, session, number: RequestNumber::new(number / 3 % 40), acknowledged, body };
    Batch { time: WallTime::from_nanos(number), tick: false, requests: vec![request] }.encode()
}

fn outcome(done: Done) -> Outcome {
    match done {
        Done::Executed { outcome, .. } => outcome,
        _ => panic!("an execution"),
    }
}

/// Random numbers that a seed determines.
struct Dice(u64);

impl Dice {
    fn below(&mut self, count: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 11).expect("64 bits") % count.max(1)
    }
}

/// A tree of states, grown, cut and committed at random beside an executor that only executes.
fn history<M: quorate_core::machine::Machine>(seed: u64, new: fn() -> M) {
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let (mut one, mut plain) = (Executor::new(new()), Executor::new(new()));
    for executor in [&mut one, &mut plain] {
        executor.run(Job::Listen { on: true, wish: 1 });
    }
    let mut tree: BTreeMap<StateId, (StateId, Vec<u8>)> = BTreeMap::new();
    let (mut root, mut op, mut next) = (StateId::default(), OpNumber::ZERO, 0_u64);
    for _ in 0..200 {
        match dice.below(10) {
            0..=4 => {
                let parents: Vec<StateId> = tree.keys().copied().chain([root]).collect();
                let parent = parents[dice.below(parents.len())];
                let bytes = batch(next);
                one.run(Job::Speculate { parent, state: id(next + 1), batch: bytes.clone().into() });
                tree.insert(id(next + 1), (parent, bytes));
                next += 1;
            }
            5..=6 => {
                let children: Vec<StateId> =
                    tree.iter().filter(|(_, (parent, _))| *parent == root).map(|(id, _)| *id).collect();
                let Some(state) = children.get(dice.below(children.len())).copied() else { continue };
                op = op.next();
                let (_, bytes) = tree.remove(&state).expect("it is there");
                let told = outcome(one.run(Job::Commit { op, state }));
                let right = outcome(plain.run(Job::Execute { op, batch: bytes.into() }));
                assert_eq!(told, right, "seed {seed}: what is told after a commit");
                root = state;
                // What does not follow from it has lost: children first.
                loop {
                    let lost = tree.iter().find(|(state, (parent, _))| {
                        let is_leaf = tree.values().all(|(parent, _)| parent != *state);
                        is_leaf && *parent != root && !tree.contains_key(parent)
                            || is_leaf && !descends(&tree, **state, root)
                    });
                    let Some(lost) = lost.map(|(state, _)| *state) else { break };
                    one.run(Job::Abort(lost));
                    tree.remove(&lost);
                }
            }
            7..=8 => {
                let leaves: Vec<StateId> =
                    tree.keys().filter(|state| tree.values().all(|(parent, _)| parent != *state)).copied().collect();
                let Some(state) = leaves.get(dice.below(leaves.len())).copied() else { continue };
                one.run(Job::Abort(state));
                tree.remove(&state);
            }
            _ => {
                op = op.next();
                let nothing = Batch::default().encode();
                one.run(Job::Execute { op, batch: nothing.clone().into() });
                plain.run(Job::Execute { op, batch: nothing.into() });
            }
        }
        assert_eq!(one.digest(), plain.digest(), "seed {seed}: what was not committed has left a trace");
        assert_eq!((one.op(), one.branches()), (plain.op(), tree.len()), "seed {seed}");
    }
}

fn descends(tree: &BTreeMap<StateId, (StateId, Vec<u8>)>, mut state: StateId, root: StateId) -> bool {
    while state != root {
        let Some((parent, _)) = tree.get(&state) else { return false };
        state = *parent;
    }
    true
}

#[test]
fn after_any_mix_of_commits_and_aborts_state_and_replies_are_those_of_a_machine_that_never_speculated() {
    (1..200).for_each(|seed| history(seed, Order::default));
}

/// The same machine, without a fork.
#[derive(Clone, Debug, Default, BorshSerialize, BorshDeserialize)]
struct Whole(Order);

mod whole {
    //! A machine that cannot be forked.

    use super::{Order, Whole};
    use quorate_core::crypto::Digest;
    use quorate_core::machine::{At, Corrupt, Output, Query, Sink, Snapshot, StateMachine};
    use quorate_core::small::Copied;

    impl StateMachine for Whole {
        fn apply(&mut self, at: &At, operation: &[u8], out: &mut Output) {
            StateMachine::apply(&mut self.0, at, operation, out);
        }
        fn digest(&self) -> Digest {
            self.0.digest()
        }
    }

    impl Query for Whole {
        type View = Copied<Order>;
        fn view(&self) -> Copied<Order> {
            self.0.view()
        }
    }

    pub struct Rest(<Order as Snapshot>::Sink);

    impl Sink<Whole> for Rest {
        fn push(&mut self, bytes: &[u8]) -> Result<(), Corrupt> {
            Sink::<Order>::push(&mut self.0, bytes)
        }
        fn finish(self) -> Result<Whole, Corrupt> {
            self.0.finish().map(Whole)
        }
    }

    impl Snapshot for Whole {
        type Source = <Order as Snapshot>::Source;
        type Sink = Rest;
        fn snapshot(&self) -> Self::Source {
            self.0.snapshot()
        }
        fn rebuild() -> Rest {
            Rest(Order::rebuild())
        }
    }
}

#[test]
fn a_machine_that_cannot_be_forked_comes_to_the_same() {
    (1..100).for_each(|seed| history(seed, Whole::default));
}

#[test]
fn more_states_than_are_kept_are_applied_when_they_are_committed() {
    let (mut one, mut plain) = (Executor::new(Order::default()), Executor::new(Order::default()));
    let count = 200;
    for number in 0..count {
        let parent = if number == 0 { StateId::default() } else { id(number) };
        one.run(Job::Speculate { parent, state: id(number + 1), batch: batch(number).into() });
    }
    for number in 0..count {
        let op = OpNumber::new(number + 1);
        one.run(Job::Commit { op, state: id(number + 1) });
        plain.run(Job::Execute { op, batch: batch(number).into() });
        assert_eq!(one.digest(), plain.digest());
    }
    assert_eq!(one.branches(), 0);
}

#[test]
#[should_panic(expected = "children are aborted before their parents")]
fn an_abort_that_leaves_a_child_behind_is_a_bug() {
    let mut one = Executor::new(Order::default());
    one.run(Job::Speculate { parent: StateId::default(), state: id(1), batch: batch(0).into() });
    one.run(Job::Speculate { parent: id(1), state: id(2), batch: batch(1).into() });
    one.run(Job::Abort(id(1)));
}

#[test]
fn a_commit_of_what_was_applied_before_takes_no_work() {
    let mut one = Executor::new(Order::default());
    one.run(Job::Speculate { parent: StateId::default(), state: id(1), batch: batch(0).into() });
    let Ok(Done::Executed { outcome, .. }) = one.run_quick(Job::Commit { op: OpNumber::new(1), state: id(1) }) else {
        panic!("it is quick")
    };
    assert_eq!(outcome.replies.len(), 1);
}

#[test]
fn events_are_made_while_somebody_listens_and_of_what_may_be_committed_later_always() {
    let (mut heard, mut unheard) = (Executor::new(Order::default()), Executor::new(Order::default()));
    heard.run(Job::Listen { on: true, wish: 1 });
    let events = |executor: &mut Executor<Order>, number: u64| {
        let done = executor.run(Job::Execute { op: OpNumber::new(number + 1), batch: batch(number).into() });
        outcome(done).events.len()
    };
    for number in 0..6 {
        let made = usize::from(number >= 3);
        assert_eq!([events(&mut heard, number), events(&mut unheard, number)], [made, 0]);
    }
    assert_eq!(heard.digest(), unheard.digest(), "events are not part of the state");

    let parent = StateId::default();
    let done = unheard.run(Job::Speculate { parent, state: id(9), batch: batch(6).into() });
    assert!(matches!(done, Done::Speculated { outcome: None, .. }), "nobody knows this parent any more");
    unheard.run(Job::Listen { on: true, wish: 1 });
    assert_eq!(outcome(unheard.run(Job::Commit { op: OpNumber::new(7), state: id(9) })).events.len(), 1);

    heard.run(Job::Listen { on: false, wish: 2 });
    assert_eq!(events(&mut heard, 6), 0);
    heard.run(Job::Speculate { parent, state: id(10), batch: batch(7).into() });
    heard.run(Job::Listen { on: true, wish: 3 });
    assert_eq!(outcome(heard.run(Job::Commit { op: OpNumber::new(8), state: id(10) })).events.len(), 1);
}

#[test]
fn who_listens_hears_what_follows_a_state_transfer_too() {
    struct Stored(Vec<Vec<u8>>);
    impl quorate_core::executor::Chunks for Stored {
        fn chunk(&mut self, index: u32) -> Result<Vec<u8>, String> {
            self.0.get(index as usize).cloned().ok_or_else(|| "missing".to_owned())
        }
    }
    let (mut ahead, mut behind) = (Executor::new(Order::default()), Executor::new(Order::default()));
    for number in 0..3 {
        ahead.run(Job::Execute { op: OpNumber::new(number + 1), batch: batch(number).into() });
    }
    let Done::Saving(mut save) = ahead.run(Job::Checkpoint(ahead.op())) else { panic!("it is saved") };
    let chunks = std::iter::from_fn(|| save.next_chunk()).collect();
    behind.run(Job::Listen { on: true, wish: 1 });
    behind.run(Job::Install { manifest: save.finish(), chunks: Box::new(Stored(chunks)) });
    let next = outcome(behind.run(Job::Execute { op: OpNumber::new(4), batch: batch(3).into() }));
    assert_eq!(next.events.len(), 1);
}
