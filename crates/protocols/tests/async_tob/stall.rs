//! The published attack on the binary agreement of Mostéfaoui, Moumen and Raynal (PODC 2014): the adversary sees the coin
//! when the first correct replica asks for it, and steers one that is late to the other value. That algorithm, kept here as
//! the known bad one, never ends under it; ours does, whatever the same adversary tries, since its rounds are binding.

use crate::agreement::{Flying, World};
use crate::dice::Dice;
use quorate_protocols::async_tob::agreement::Word;
use std::collections::BTreeSet;

/// Correct replicas of the bad algorithm; the fourth is the liar.
const CORRECT: usize = 3;
const LIAR: usize = 3;
/// `t + 1`, `2t + 1` and `n - t` of four.
const VOUCH: usize = 2;
const QUORUM: usize = 3;

/// One replica of the algorithm of 2014, in one round.
#[derive(Clone, Debug, Default)]
struct Mmr {
    estimate: bool,
    decided: Option<bool>,
    /// EST(value), by value: who has sent it here.
    heard: [BTreeSet<usize>; 2],
    sent: [bool; 2],
    /// Values in the order in which they came to be (`bin_values`).
    values: Vec<bool>,
    /// AUX(value): who, what.
    aux: Vec<(usize, bool)>,
    left: bool,
}

impl Mmr {
    fn start(&mut self) {
        let (estimate, decided) = (self.estimate, self.decided);
        *self = Self { estimate, decided, ..Self::default() };
        self.sent[usize::from(estimate)] = true;
    }

    /// BV-broadcast: relays what `t + 1` say, takes what `2t + 1` say.
    fn on_est(&mut self, from: usize, value: bool) {
        let index = usize::from(value);
        self.heard[index].insert(from);
        if self.heard[index].len() >= VOUCH {
            self.sent[index] = true;
        }
        if self.heard[index].len() >= QUORUM && !self.values.contains(&value) {
            self.values.push(value);
        }
    }

    /// What it sends as AUX: the first value that it took.
    fn own_aux(&self) -> Option<bool> {
        self.values.first().copied()
    }

    fn on_aux(&mut self, from: usize, value: bool) {
        self.aux.push((from, value));
    }

    /// The values of `n - t` AUX, all of which it has taken: then it asks for the coin.
    fn asks(&self) -> Option<BTreeSet<bool>> {
        let good: Vec<_> = self.aux.iter().filter(|(_, value)| self.values.contains(value)).collect();
        (good.len() >= QUORUM).then(|| good.into_iter().map(|(_, value)| *value).collect())
    }

    fn on_coin(&mut self, coin: bool) {
        let Some(values) = self.asks().filter(|_| !self.left) else { return };
        self.left = true;
        let only: Vec<bool> = values.into_iter().collect();
        if let [only] = only[..] {
            self.estimate = only;
            if only == coin {
                self.decided.get_or_insert(only);
            }
        } else {
            self.estimate = coin;
        }
    }
}

/// One round of the attack. A and B wish the same, C the other.
fn attack(replicas: &mut [Mmr; CORRECT], coin: bool) {
    replicas.iter_mut().for_each(Mmr::start);
    let [a, b, c] = replicas;
    let wish = a.estimate;
    assert!(b.estimate == wish && c.estimate != wish, "the attack repeats itself");
    // A hears of its own value first, then of the other, from C and the liar: it relays that.
    for from in [0, 1, LIAR] {
        a.on_est(from, wish);
    }
    for from in [2, LIAR] {
        a.on_est(from, !wish);
    }
    assert!(a.sent[usize::from(!wish)]);
    // B hears of the other value first.
    for from in [2, LIAR, 0] {
        b.on_est(from, !wish);
    }
    for from in [0, 1, LIAR] {
        b.on_est(from, wish);
    }
    a.on_est(1, !wish);
    assert_eq!((a.own_aux(), b.own_aux()), (Some(wish), Some(!wish)));
    // Both see both: they leave with the coin, and with that the adversary knows it.
    for it in [&mut *a, &mut *b] {
        it.on_aux(0, wish);
        it.on_aux(1, !wish);
        it.on_aux(LIAR, wish);
        assert_eq!(it.asks().map(|values| values.len()), Some(2));
        it.on_coin(coin);
    }
    // C has heard nothing so far. Now it hears of the value that the coin is not, and of nothing else in time.
    for from in [0, 1, LIAR] {
        c.on_est(from, !coin); // A and B have both sent both
    }
    let witness = if wish == coin { 1 } else { 0 }; // whose AUX said so
    for from in [2, witness, LIAR] {
        c.on_aux(from, !coin);
    }
    assert_eq!(c.own_aux(), Some(!coin));
    c.on_coin(coin);
}

#[test]
fn the_algorithm_of_2014_never_ends_under_the_published_attack() {
    for seed in 0..20 {
        let mut dice = Dice::new(seed);
        let mut replicas: [Mmr; CORRECT] = Default::default();
        replicas[2].estimate = true;
        for _ in 0..1000 {
            attack(&mut replicas, dice.one_in(2));
            assert!(replicas.iter().all(|it| it.decided.is_none()));
        }
    }
}

#[test]
fn the_algorithm_of_2014_ends_where_nobody_attacks() {
    // The known bad one is bad for the attack's sake and not because it was written down wrongly.
    for seed in 0..20 {
        let mut dice = Dice::new(seed);
        let mut replicas: [Mmr; CORRECT] = Default::default();
        replicas[2].estimate = true;
        for _ in 0..100 {
            replicas.iter_mut().for_each(Mmr::start);
            loop {
                let before = format!("{replicas:?}");
                for from in 0..CORRECT {
                    for value in [false, true] {
                        if replicas[from].sent[usize::from(value)] {
                            replicas.iter_mut().for_each(|it| it.on_est(from, value));
                        }
                    }
                }
                if before == format!("{replicas:?}") {
                    break;
                }
            }
            let aux: Vec<bool> = replicas.iter().filter_map(Mmr::own_aux).collect();
            for (from, value) in aux.into_iter().enumerate() {
                replicas.iter_mut().for_each(|it| it.on_aux(from, value));
            }
            let coin = dice.one_in(2);
            replicas.iter_mut().for_each(|it| it.on_coin(coin));
        }
        let decided: BTreeSet<_> = replicas.iter().map(|it| it.decided).collect();
        assert!(decided.len() == 1 && !decided.contains(&None));
    }
}

/// Does a word speak for this value?
fn speaks_for(word: Word, wanted: bool) -> bool {
    match word {
        Word::Echo1(_, value) | Word::Echo2(_, value) | Word::Echo3(_, Some(value)) => value == wanted,
        Word::Echo3(_, None) | Word::Share(..) | Word::Decide(_) => false,
    }
}

/// Delivers what is allowed, in the order of preference, until nothing allowed is left.
fn deliver(world: &mut World, dice: &mut Dice, allowed: impl Fn(&Flying) -> bool, first: impl Fn(&Flying) -> bool) {
    loop {
        let some: Vec<usize> = (0..world.flying.len()).filter(|at| allowed(&world.flying[*at])).collect();
        let best: Vec<usize> = some.iter().copied().filter(|at| first(&world.flying[*at])).collect();
        let choice = if best.is_empty() { some } else { best };
        if choice.is_empty() {
            return;
        }
        let it = world.flying.swap_remove(choice[dice.below(choice.len())]);
        world.hand_over(it);
    }
}

/// What the liar says to one replica in a round: both first echoes, and its best for a value.
fn push(world: &mut World, to: usize, round: u32, value: bool, third: Option<bool>) {
    for word in [Word::Echo1(round, value), Word::Echo1(round, !value), Word::Echo2(round, value)] {
        world.lie(to, word);
    }
    world.lie(to, Word::Echo3(round, third));
}

/// The same adversary against ours: it keeps one replica in the dark until the coin of the round is known, with the liar's
/// help lets the others be of two minds, and then does all it can to steer the late one away from the coin. Says after how
/// many rounds everybody has decided.
fn steer(seed: u64) -> u32 {
    let mut dice = Dice::new(seed);
    let mut world = World::new(4, seed);
    let wish = dice.one_in(2);
    for (index, value) in [wish, wish, !wish].into_iter().enumerate() {
        world.input(index, value);
    }
    for _ in 0..200 {
        if world.all_decided() {
            return world.round();
        }
        let (round, dark) = (world.round(), dice.below(3));
        for to in (0..3).filter(|to| *to != dark) {
            let (value, third) = (dice.one_in(2), [None, Some(true), Some(false)][dice.below(3)]);
            push(&mut world, to, round, value, third);
        }
        let among = |it: &Flying| it.to != dark && it.from != dark;
        deliver(&mut world, &mut dice, among, |it| speaks_for(it.word, it.to % 2 == 0));
        // If the two cannot go on alone, they hear the third, and it hears as little as possible.
        deliver(&mut world, &mut dice, |it| it.to != dark, |it| speaks_for(it.word, it.to % 2 == 0));
        let coin = world.coin(round);
        if world.coin_is_known(round) || round % 3 != 2 {
            push(&mut world, dark, round, !coin, Some(!coin));
            deliver(&mut world, &mut dice, |it| it.to == dark && speaks_for(it.word, !coin), |_| true);
        }
        deliver(&mut world, &mut dice, |_| true, |it| speaks_for(it.word, !coin));
    }
    panic!("seed {seed}: the adversary has kept it from ending for {} rounds", world.round());
}

#[test]
fn ours_ends_whatever_the_same_adversary_does() {
    let rounds: Vec<u32> = (0..1000).map(steer).collect();
    let longest = rounds.iter().max().copied().unwrap_or(0);
    assert!(longest <= 60, "a thousand agreements, the longest took {longest} rounds");
}
