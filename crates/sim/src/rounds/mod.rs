//! Rounds: who leads, how long he is heard, who hears nobody, whose disk is lost. All scenarios of some length are numbered, so a test
//! goes through all of them, or spreads over them. For HotStuff.
//!
//! Random runs hardly ever meet what a rule of voting, committing or rejoining protects from: that takes six leaders in a certain
//! order, each of whom is heard just long enough. Here that is a number among a few thousand.
//!
//! **A round** is a term of HotStuff's. While it *leads*, two sides do not hear each other, and only the first blocks of the term
//! get through, the last of them perhaps to one replica only. Then disks are lost, and who has lost one may ask the others at once
//! how far it has voted. Then it *ends*: the leader hears nobody, if it is cut off, and the others' patience is over until
//! they have reached the next round's term; terms of leaders whom the scenario does not want pass in silence. So every order of
//! leaders is possible, though HotStuff's follow from the view's number.
//!
//! **What must hold**: no two replicas without a twin execute different batches as one entry, no invariant breaks, nobody halts.
//!
//! **Twins** ([`Space::Duels`], [`Space::Sides`]): the generator of Bano et al., *Twins: BFT Systems Made Robust* (OPODIS 2021). Four
//! replicas, one of which has a live copy with the same key; leaders and partitions for each round.
//!
//! **Lost disks** ([`Space::Rejoins`]): a replica that has lost its disk counts as faulty until it votes again; only then may
//! another one lose its disk. Scenarios say whose disks are lost in which order and when; a loss while somebody is still silent
//! is outside of the model, and does not happen. What the former self had said may arrive *late*: the votes for the last block, or
//! timeouts, of everybody, arrive before or after the question how far it has voted, while it is silent, or when it votes again.
//!
//! What is left out: other crashes, other messages that arrive late or in another order (`exhaustive/` and the seeds have them), liveness.

mod world;

use quorate_protocols::hotstuff::Rules;
use std::fmt;
use world::World;

/// Processes of a scenario: four replicas, and the twin of the first.
pub const PROCESSES: usize = 5;
/// The process that is another R0.
pub const TWIN: usize = 4;
/// Views of a term: enough for each rule to commit something within it.
const TERM_VIEWS: u64 = 4;

/// One round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Round {
    /// Which replica leads; if it is R0 and has a twin, both of them do.
    pub leader: usize,
    /// So many blocks of the term get through.
    pub heard: u64,
    /// The last of them gets to this one only, or to all.
    pub last: Option<usize>,
    /// The processes on the other side while it leads.
    pub aside: [bool; PROCESSES],
    /// What arrives late.
    pub late: Late,
    /// Then these lose their disks, one after the other, and begin anew.
    pub lose: [Option<usize>; 2],
    /// Do they ask at once how far they have voted, or when everybody's patience ends?
    pub asks: bool,
    /// Is the leader cut off in the end?
    pub cut: bool,
}

/// What everybody says in a round and nobody hears until later: votes and timeouts of those, too, who lose their disks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Late {
    /// Nothing.
    Nothing,
    /// The votes for the last block that gets through.
    Votes(When),
    /// Before the disks are lost, patience ends: the timeouts.
    Timeouts(When),
}

/// When it arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// In the same round, after the disks were lost.
    Soon,
    /// In the next round, after its blocks.
    Next,
    /// In the last round, before its blocks.
    Last,
}

/// Rounds in order, under a set of rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scenario {
    /// HotStuff's or Jolteon's.
    pub rules: Rules,
    /// Has R0 a twin?
    pub twin: bool,
    /// The rounds.
    pub rounds: Vec<Round>,
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.rules)?;
        let processes = if self.twin { PROCESSES } else { TWIN };
        for Round { leader, heard, last, aside, late, lose, asks, cut } in &self.rounds {
            let names = |side: bool| {
                let of_side = (0..processes).filter(|process| aside.get(*process) == Some(&side));
                of_side.map(world::name).collect::<Vec<_>>().join(" ")
            };
            write!(f, "; R{leader} leads {heard} ({} | {})", names(false), names(true))?;
            if let Some(last) = last {
                write!(f, ", the last for R{last} only")?;
            }
            if *late != Late::Nothing {
                write!(f, ", late: {late:?}")?;
            }
            for process in lose.iter().flatten() {
                write!(f, ", R{process} loses its disk")?;
            }
            if *asks && lose.iter().any(Option::is_some) {
                write!(f, " and asks")?;
            }
            if *cut {
                write!(f, ", R{leader} is cut off")?;
            }
        }
        Ok(())
    }
}

impl Scenario {
    /// Plays it.
    pub fn play(&self) -> Played {
        let mut world = World::new(self.rules, self.twin);
        world.play(&self.rounds);
        world.judge()
    }
}

/// What a scenario came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Played {
    /// What is wrong, if anything is.
    pub wrong: Option<String>,
    /// Entries that somebody without a twin has executed.
    pub executed: u64,
    /// Disks that were lost.
    pub lost: u64,
    /// Replicas that have lost theirs and vote again.
    pub back: u64,
}

/// A set of scenarios, each of which has a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// Two replicas without twins lead six rounds in any order; each time one block or two get through, and nobody but the twin is aside.
    /// Blocks of views that do not follow each other take that long to commit on two branches.
    Duels,
    /// Three rounds; anybody leads, one block or two get through, and the twin has anybody else beside it, or nobody, or both of R0
    /// are together.
    Sides,
    /// Six rounds without twins: one loses its disk in the first, or two do if the rules let the first vote at once; in the next three all
    /// are together; in the fifth perhaps another one loses its disk. In the first and the fifth anybody may be aside, the last block may
    /// get to one only, and votes or timeouts may be late.
    Rejoins,
}

const NOBODY: [bool; PROCESSES] = [false; PROCESSES];
const ONLY_TWIN: [bool; PROCESSES] = [false, false, false, false, true];
const KEEPS: [Option<usize>; 2] = [None, None];

/// This process alone.
fn only(process: usize) -> [bool; PROCESSES] {
    let mut aside = NOBODY;
    aside.iter_mut().skip(process).take(1).for_each(|it| *it = true);
    aside
}

impl Space {
    /// What each round can be.
    fn choices(self) -> Vec<Vec<Round>> {
        match self {
            Space::Duels => vec![rounds(&[1, 2], &[1, 2], &[ONLY_TWIN], &[KEEPS], &[true]); 6],
            Space::Sides => {
                // Nobody beside the twin, the twin in R0's place, each of the others beside it; or it is with everybody.
                let mut sides = vec![ONLY_TWIN, only(0), NOBODY];
                sides.extend((1..TWIN).map(|other| {
                    let mut aside = only(other);
                    aside.iter_mut().skip(TWIN).for_each(|it| *it = true);
                    aside
                }));
                vec![rounds(&[0, 1, 2, 3], &[1, 2], &sides, &[KEEPS], &[true]); 3]
            }
            Space::Rejoins => {
                let anybody: Vec<_> = (0..TWIN).map(only).chain([NOBODY]).collect();
                let one = (0..TWIN).map(|process| [Some(process), None]);
                let pairs = (0..TWIN).flat_map(|first| (0..TWIN).map(move |second| [Some(first), Some(second)]));
                let some: Vec<_> = one.clone().chain(pairs.filter(|[first, second]| first != second)).collect();
                let perhaps: Vec<_> = one.chain([KEEPS]).collect();
                let whole = |leaders: &[usize]| rounds(leaders, &[4], &[NOBODY], &[KEEPS], &[false]);
                vec![
                    with_late(&rounds(&[1], &[1, 2, 3], &anybody, &some, &[true])),
                    whole(&[2]), // time to come back: until something is committed beyond what may have been voted for
                    whole(&[3]),
                    whole(&[0]),
                    with_late(&rounds(&[0, 1, 2, 3], &[2, 4], &anybody, &perhaps, &[true, false])),
                    whole(&[0, 1, 2, 3]),
                ]
            }
        }
    }

    /// How many scenarios there are.
    pub fn count(self) -> u64 {
        self.choices().iter().map(|choices| choices.len() as u64).fold(1, u64::saturating_mul)
    }

    /// The scenario with this number, from 0; numbers beyond the last begin anew.
    pub fn scenario(self, rules: Rules, number: u64) -> Scenario {
        let mut left = number;
        let mut rounds = Vec::new();
        for choices in self.choices() {
            let count = choices.len().max(1) as u64;
            rounds.extend(usize::try_from(left % count).ok().and_then(|index| choices.get(index).copied()));
            left /= count;
        }
        Scenario { rules, twin: self != Space::Rejoins, rounds }
    }

    /// Plays so many of them, spread evenly over all; ends with the first that shows something wrong.
    pub fn search(self, rules: Rules, scenarios: u64) -> Searched {
        let count = self.count();
        let scenarios = scenarios.min(count);
        // A step that has no divisor in common with the count meets each number once.
        let least = count.checked_div(scenarios).unwrap_or(1).max(1);
        let step = (least..).find(|step| gcd(*step, count) == 1).unwrap_or(1);
        let (mut searched, mut number) = (Searched::default(), 0_u64);
        for _ in 0..scenarios {
            let played = self.scenario(rules, number).play();
            searched.scenarios = searched.scenarios.saturating_add(1);
            searched.executed = searched.executed.saturating_add(played.executed);
            searched.lost = searched.lost.saturating_add(played.lost);
            searched.back = searched.back.saturating_add(played.back);
            if let Some(wrong) = played.wrong {
                searched.wrong = Some((number, wrong));
                return searched;
            }
            number = number.saturating_add(step) % count;
        }
        searched
    }
}

/// What many scenarios came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Searched {
    /// How many were played.
    pub scenarios: u64,
    /// Entries executed in all of them.
    pub executed: u64,
    /// Disks lost.
    pub lost: u64,
    /// Replicas that vote again.
    pub back: u64,
    /// The number of the one that shows something wrong, and what.
    pub wrong: Option<(u64, String)>,
}

/// All rounds of these leaders, lengths, sides and losses.
fn rounds(
    leaders: &[usize],
    heard: &[u64],
    sides: &[[bool; PROCESSES]],
    losses: &[[Option<usize>; 2]],
    cuts: &[bool],
) -> Vec<Round> {
    let mut rounds = Vec::new();
    for &leader in leaders {
        for &heard in heard {
            for &aside in sides {
                for &lose in losses {
                    let round =
                        |&cut| Round { leader, heard, last: None, aside, late: Late::Nothing, lose, asks: false, cut };
                    rounds.extend(cuts.iter().map(round));
                }
            }
        }
    }
    rounds
}

/// The same rounds, with everything that can be late in them.
fn with_late(rounds: &[Round]) -> Vec<Round> {
    let when = [When::Soon, When::Next, When::Last];
    let late = when.iter().flat_map(|when| [Late::Votes(*when), Late::Timeouts(*when)]).chain([Late::Nothing]);
    let late: Vec<Late> = late.collect();
    let lasts: Vec<Option<usize>> = (0..TWIN).map(Some).chain([None]).collect();
    let mut all = Vec::new();
    for &round in rounds {
        for &last in &lasts {
            for &late in &late {
                for asks in [true, false] {
                    let mut varied = round;
                    (varied.last, varied.late, varied.asks) = (last, late, asks);
                    all.push(varied);
                }
            }
        }
    }
    all
}

const fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn led(leader: usize, heard: u64) -> Round {
        let (last, late, asks) = (None, Late::Nothing, false);
        Round { leader, heard, last, aside: ONLY_TWIN, late, lose: KEEPS, asks, cut: true }
    }

    #[test]
    fn every_scenario_of_a_space_has_a_number_of_its_own() {
        let name = |number| Space::Duels.scenario(Rules::ThreeChain, number).to_string();
        let names: BTreeSet<String> = (0..Space::Duels.count()).map(name).collect();
        assert_eq!((names.len() as u64, Space::Duels.count()), (4096, 4096));
        assert_eq!(Space::Sides.count(), 48 * 48 * 48);
        assert_eq!(Space::Rejoins.count(), (240 * 70) * (400 * 70) * 4);
    }

    #[test]
    fn rounds_commit_blocks_and_leaders_follow_each_other_as_the_scenario_says() {
        for rules in [Rules::ThreeChain, Rules::TwoChain] {
            let mut world = World::new(rules, true);
            world.play(&[led(2, 4), led(1, 4), led(0, 4), led(3, 4)]);
            assert_eq!(world.leaders(), [2, 1, 0, 3]);
            let played = world.judge();
            assert!(played.wrong.is_none() && played.executed >= 4, "{played:?}");
        }
    }

    #[test]
    fn who_is_aside_hears_nothing_and_a_leader_without_a_quorum_commits_nothing() {
        let alone = Round { aside: [true, false, true, false, true], ..led(1, 4) };
        let played = Scenario { rules: Rules::TwoChain, twin: true, rounds: vec![alone] }.play();
        assert_eq!((played.wrong, played.executed), (None, 0));
    }

    #[test]
    fn a_disk_is_lost_only_while_nobody_is_silent_and_who_has_lost_it_votes_again() {
        let lose = Round { lose: [Some(2), Some(3)], cut: false, ..led(1, 4) };
        let whole = Round { cut: false, ..led(0, 4) };
        let played = Scenario { rules: Rules::ThreeChain, twin: false, rounds: vec![lose, whole, whole] }.play();
        assert_eq!((played.wrong.as_deref(), played.lost, played.back), (None, 1, 1));
    }
}
