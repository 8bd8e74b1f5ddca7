//! Binary agreement by itself, in the hands of an adversary that decides which message arrives next, and speaks for the
//! liars: to each replica something else, whenever it likes.

use crate::dice::Dice;
use proptest::prelude::*;
use quorate_core::crypto::CoinShare;
use quorate_core::ids::ReplicaId;
use quorate_core::quorum::ByzantineQuorums;
use quorate_protocols::async_tob::agreement::{Agreement, ROUNDS_MAX, Refused, Step, Word, fixed_coin};
use std::collections::{BTreeMap, BTreeSet};

/// Something on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flying {
    pub from: usize,
    pub to: usize,
    pub word: Word,
}

/// Correct replicas 0.., and liars after them.
pub struct World {
    pub quorums: ByzantineQuorums,
    pub members: Vec<Agreement>,
    pub said: Vec<Vec<Word>>,
    pub flying: Vec<Flying>,
    /// Who has released a share, by round: liars always have.
    released: BTreeMap<u32, BTreeSet<usize>>,
    /// Who waits for which coin.
    waiting: Vec<Option<u32>>,
    pub decided: Vec<Option<bool>>,
    /// The coin of the first round.
    first: bool,
    seed: u64,
}

pub fn id(index: usize) -> ReplicaId {
    ReplicaId::new(u8::try_from(index).expect("small"))
}

impl World {
    pub fn new(n: usize, seed: u64) -> Self {
        let quorums = ByzantineQuorums::new(n).expect("a legal size");
        let (correct, first) = (n - quorums.faults(), seed & 1 == 1);
        let mut members: Vec<_> = (0..correct).map(|_| Agreement::new(quorums)).collect();
        members.iter_mut().for_each(|it| assert!(it.on_first_coin(first).is_empty()));
        Self {
            quorums,
            members,
            said: vec![Vec::new(); correct],
            flying: Vec::new(),
            released: BTreeMap::new(),
            waiting: vec![None; correct],
            decided: vec![None; correct],
            first,
            seed,
        }
    }

    pub fn correct(&self) -> usize {
        self.members.len()
    }

    /// How the coin of a round falls, tossed or fixed.
    pub fn coin(&self, round: u32) -> bool {
        fixed_coin(round, self.first).unwrap_or_else(|| Dice::new(self.seed ^ (u64::from(round) << 32)).one_in(2))
    }

    /// The liars see the coin as soon as one correct replica has released its share.
    pub fn coin_is_known(&self, round: u32) -> bool {
        let lies = self.quorums.faults();
        self.released.get(&round).is_some_and(|who| who.len() + lies >= self.quorums.vouch())
    }

    pub fn input(&mut self, index: usize, value: bool) {
        let steps = self.members[index].input(value);
        self.take(index, steps);
    }

    pub fn take(&mut self, index: usize, steps: Vec<Step>) {
        for step in steps {
            match step {
                Step::Say(word) => {
                    self.said[index].push(word);
                    self.flying.extend((0..self.correct()).map(|to| Flying { from: index, to, word }));
                }
                Step::Toss(round) => {
                    self.released.entry(round).or_default().insert(index);
                    self.waiting[index] = Some(round);
                }
                Step::Decided(value) => {
                    assert_eq!(self.decided[index].replace(value), None, "decided once");
                    let others = self.decided.iter().flatten();
                    assert!(others.into_iter().all(|other| *other == value), "agreement: {:?}", self.decided);
                }
                Step::GaveUp => panic!("{ROUNDS_MAX} rounds decided nothing"),
            }
        }
        self.hand_out_coins();
    }

    fn hand_out_coins(&mut self) {
        for index in 0..self.correct() {
            if let Some(round) = self.waiting[index].filter(|round| self.coin_is_known(*round)) {
                self.waiting[index] = None;
                let coin = self.coin(round);
                let steps = self.members[index].on_coin(round, coin);
                self.take(index, steps);
            }
        }
    }

    pub fn hand_over(&mut self, it: Flying) {
        if let Ok(steps) = self.members[it.to].on_word(id(it.from), it.word) {
            self.take(it.to, steps);
        }
    }

    /// A liar says this to one replica.
    pub fn lie(&mut self, to: usize, word: Word) {
        let from = self.correct();
        self.hand_over(Flying { from, to, word });
    }

    /// The furthest round that anybody has spoken in.
    pub fn round(&self) -> u32 {
        let rounds = self.said.iter().flatten().map(|word| match word {
            Word::Echo1(round, _) | Word::Echo2(round, _) | Word::Echo3(round, _) | Word::Share(round, _) => *round,
            Word::Decide(_) => 0,
        });
        rounds.max().unwrap_or(0)
    }

    pub fn all_decided(&self) -> bool {
        self.decided.iter().all(Option::is_some)
    }

    /// Everything arrives: then everybody must be done.
    fn settle(&mut self, dice: &mut Dice) {
        for _ in 0..1_000_000 {
            if self.flying.is_empty() {
                break;
            }
            let it = self.flying.swap_remove(dice.below(self.flying.len()));
            self.hand_over(it);
        }
        assert!(self.all_decided(), "termination: {:?} after {} rounds", self.decided, self.round());
        assert!(self.members.iter().all(Agreement::is_over), "everybody may stop");
    }
}

fn any_word(dice: &mut Dice, round: u32) -> Word {
    let bit = dice.one_in(2);
    match dice.below(6) {
        0 | 1 => Word::Echo1(round, bit),
        2 => Word::Echo2(round, bit),
        3 => Word::Echo3(round, Some(bit)),
        4 => Word::Echo3(round, None),
        _ => Word::Decide(bit),
    }
}

/// A random schedule, with liars that say random things; a favourite is served last.
fn play(n: usize, seed: u64, inputs: u32, starve: bool) -> World {
    let mut dice = Dice::new(seed);
    let mut world = World::new(n, seed);
    for index in 0..world.correct() {
        world.input(index, inputs >> index & 1 == 1);
    }
    let starved = dice.below(world.correct());
    for step in 0..4000 {
        if world.flying.is_empty() {
            break;
        }
        let mut index = dice.below(world.flying.len());
        let it = world.flying[index];
        if starve && step < 3000 && (it.to == starved || it.from == starved) && !dice.one_in(50) {
            index = dice.below(world.flying.len());
        }
        let it = world.flying.swap_remove(index);
        if dice.one_in(20) {
            world.flying.push(it); // repeated later
        }
        world.hand_over(it);
        if world.quorums.faults() > 0 && dice.one_in(3) {
            let (to, round) = (dice.below(world.correct()), world.round() + u32::from(dice.one_in(9)));
            let word = any_word(&mut dice, round);
            world.lie(to, word);
        }
    }
    world.settle(&mut dice);
    world
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_schedule_ends_in_one_decision_whatever_the_liars_say(
        n in prop::sample::select(vec![1_usize, 2, 3, 4, 4, 4, 5, 6, 7]), seed: u64, inputs: u32, starve: bool,
    ) {
        let world = play(n, seed, inputs, starve);
        let wishes: BTreeSet<bool> = (0..world.correct()).map(|index| inputs >> index & 1 == 1).collect();
        if let [only] = wishes.iter().copied().collect::<Vec<_>>()[..] {
            prop_assert_eq!(world.decided[0], Some(only), "what all correct replicas want is decided");
        }
    }

    #[test]
    fn a_replica_that_lost_its_memory_says_nothing_else_than_before(seed: u64, inputs: u32) {
        // The words are on disk: whatever it hears afterwards, and in whatever order, each second and third echo is one.
        let mut dice = Dice::new(seed);
        let mut world = World::new(4, seed);
        for index in 0..world.correct() {
            world.input(index, inputs >> index & 1 == 1);
        }
        for _ in 0..3000 {
            if world.flying.is_empty() {
                break;
            }
            let it = world.flying.swap_remove(dice.below(world.flying.len()));
            world.flying.push(it); // kept, as whoever is asked says everything again
            world.hand_over(it);
            if dice.one_in(40) {
                let index = dice.below(world.correct());
                let words = world.said[index].clone();
                let was_decided = world.decided[index];
                world.members[index] = Agreement::restore(world.quorums, words.iter().copied());
                let steps = world.members[index].on_first_coin(world.first);
                world.waiting[index] = None;
                world.take(index, steps);
                prop_assert_eq!(world.members[index].decided(), was_decided);
            }
        }
        for words in &world.said {
            let mut second = BTreeMap::new();
            let mut third = BTreeMap::new();
            for word in words {
                match word {
                    Word::Echo2(round, value) => prop_assert_eq!(*second.entry(*round).or_insert(*value), *value),
                    Word::Echo3(round, value) => prop_assert_eq!(*third.entry(*round).or_insert(*value), *value),
                    _ => {}
                }
            }
        }
    }
}

#[test]
fn what_everybody_wants_is_decided_in_three_steps_without_a_coin_if_it_is_tried_first_and_else_in_six() {
    for (wanted, first, steps) in [(true, true, 3), (false, false, 3), (true, false, 6), (false, true, 6)] {
        let mut world = World::new(4, u64::from(first));
        (0..3).for_each(|index| world.input(index, wanted));
        let mut depth = 0;
        while !world.all_decided() {
            depth += 1;
            for it in std::mem::take(&mut world.flying) {
                world.hand_over(it);
            }
        }
        assert_eq!(depth, steps, "ECHO1, ECHO2, ECHO3 of each round");
        world.settle(&mut Dice::new(1));
        assert!(world.released.is_empty(), "nobody has tossed a coin");
        assert_eq!(world.round(), steps / 3 - 1, "nobody has entered a further round");
        assert_eq!(world.decided[0], Some(wanted));
    }
}

#[test]
fn a_replica_that_learns_last_what_is_tried_first_decides_with_what_it_was_told_before() {
    // Its epoch before is not decided here yet: it echoes all the same, and no round ends.
    let mut world = World::new(4, 1);
    world.members[0] = Agreement::new(world.quorums);
    (0..3).for_each(|index| world.input(index, true));
    while let Some(at) = world.flying.iter().position(|it| !matches!(it.word, Word::Decide(_))) {
        let it = world.flying.remove(at);
        world.hand_over(it);
    }
    assert!(world.said[0].contains(&Word::Echo3(0, Some(true))), "{:?}", world.said[0]);
    assert_eq!((world.decided[0], world.members[0].awaits_coin()), (None, None));
    let steps = world.members[0].on_first_coin(true);
    assert_eq!(steps.first(), Some(&Step::Decided(true)));
    assert_eq!(world.members[0].on_first_coin(false), [], "the first one counts");
}

#[test]
fn agreement_can_neither_read_a_clock_nor_arm_a_timer() {
    // Everything that it can ask for. A step that waits for a time would have to be one of these.
    let waits_for_a_time = |step: &Step| match step {
        Step::Say(_) | Step::Toss(_) | Step::Decided(_) | Step::GaveUp => false,
    };
    let mut world = World::new(4, 7);
    let steps = world.members[0].input(true);
    assert!(!steps.is_empty() && !steps.iter().any(waits_for_a_time));
    let source = include_str!("../../src/async_tob/agreement.rs");
    for word in ["Outbox", "Instant", "Duration", "WallTime", "Timer", "arm("] {
        assert!(!source.contains(word), "agreement.rs knows of `{word}`");
    }
}

#[test]
fn one_liar_makes_nobody_echo_and_t_and_one_do() {
    let mut world = World::new(4, 1);
    (0..3).for_each(|index| world.input(index, true));
    world.flying.clear();
    world.lie(0, Word::Echo1(0, false));
    assert!(!world.said[0].contains(&Word::Echo1(0, false)), "one replica may be a liar");
    world.hand_over(Flying { from: 1, to: 0, word: Word::Echo1(0, false) });
    assert!(world.said[0].contains(&Word::Echo1(0, false)), "one of two is correct");
}

#[test]
fn a_word_in_a_round_out_of_reach_is_not_kept_and_a_share_is_not_for_it() {
    let mut world = World::new(4, 1);
    world.input(0, true);
    let far = world.members[0].on_word(id(3), Word::Echo1(ROUNDS_MAX + 1, true));
    assert!(matches!(far, Err(Refused::Late(_))));
    let share = world.members[0].on_word(id(3), Word::Share(0, CoinShare::new([0; 48])));
    assert!(matches!(share, Err(Refused::Late(_))));
}

#[test]
fn a_second_word_in_one_place_is_a_contradiction_and_does_not_count() {
    let mut world = World::new(4, 1);
    world.input(0, true);
    assert!(world.members[0].on_word(id(3), Word::Echo2(0, true)).is_ok());
    assert_eq!(world.members[0].on_word(id(3), Word::Echo2(0, false)), Err(Refused::Contradicts));
    assert!(world.members[0].on_word(id(3), Word::Echo3(0, None)).is_ok());
    assert_eq!(world.members[0].on_word(id(3), Word::Echo3(0, Some(true))), Err(Refused::Contradicts));
    assert!(world.members[0].on_word(id(3), Word::Decide(true)).is_ok());
    assert_eq!(world.members[0].on_word(id(3), Word::Decide(false)), Err(Refused::Contradicts));
}

#[test]
fn t_and_one_decides_are_enough_also_without_an_input_and_t_are_not() {
    let mut world = World::new(4, 1);
    world.lie(0, Word::Decide(true));
    assert_eq!(world.decided[0], None);
    world.hand_over(Flying { from: 1, to: 0, word: Word::Decide(true) });
    assert_eq!(world.decided[0], Some(true));
    assert!(!world.members[0].is_over(), "others may need more than that");
}

#[test]
fn who_has_decided_and_is_dragged_through_all_rounds_does_not_give_up() {
    // C is away. The liar says no DECIDE, and is ahead in every round: A and B follow, as it may be somebody who is not done.
    let mut world = World::new(4, 1);
    (0..2).for_each(|index| world.input(index, true));
    for round in 0..=ROUNDS_MAX {
        for to in 0..2 {
            let words = [Word::Echo1(round, true), Word::Echo2(round, true), Word::Echo3(round, Some(true))];
            words.into_iter().for_each(|word| world.lie(to, word));
        }
        while let Some(at) = world.flying.iter().position(|it| it.to < 2) {
            let it = world.flying.remove(at);
            world.hand_over(it);
        }
    }
    assert_eq!(world.round(), ROUNDS_MAX - 1);
    assert_eq!(world.decided, [Some(true), Some(true), None]);
    world.settle(&mut Dice::new(1));
}
