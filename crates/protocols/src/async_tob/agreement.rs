//! Binary agreement: correct replicas decide one bit, the same everywhere, and one that a correct replica has proposed,
//! whatever the schedule of the messages.
//!
//! Source: I. Abraham, N. Ben-David, S. Yandamuri, *Efficient and Adaptively Secure Asynchronous Binary Agreement via Binding
//! Crusader Agreement*, PODC 2022. `n ≥ 3t + 1`. A round is a crusader agreement (three echoes), then a coin. *Binding* is what
//! the algorithm of Mostéfaoui, Moumen and Raynal (PODC 2014) lacks: before the first correct replica asks for the coin, one
//! of the two bits can no longer come out of the round anywhere. Whoever sees the coin first cannot steer the others away
//! from it (`tests/async_tob/stall.rs` shows both).
//!
//! **There is no time here.** The input is a word or a coin, the output is [`Step`]s; there is no clock to read and no timer
//! to arm. A word is sent to everybody *and to oneself*; one's own comes back when it is on disk, and only then counts.
//!
//! Deviations: the first two of every three rounds have a fixed coin, so what everybody wants is decided without
//! cryptography. Which of the two bits comes first the caller says, the same at all replicas, perhaps long after the words: what
//! is more likely to be decided. Who has decided enters a further round only when somebody else is in it. The README argues
//! these. Left out: ECHO2(⊥), which nobody counts.

use borsh::{BorshDeserialize, BorshSerialize};
use quorate_core::crypto::CoinShare;
use quorate_core::fault::Why;
use quorate_core::ids::ReplicaId;
use quorate_core::mutated;
use quorate_core::quorum::ByzantineQuorums;
use quorate_core::votes::{Added, Votes};
use std::collections::BTreeMap;

/// Rounds of one agreement. One in three tosses a coin, and each toss ends it with probability one half at least: whoever
/// gets this far (once in 2^100 agreements) is attacked by somebody who knows the coins.
pub const ROUNDS_MAX: u32 = 300;
/// Rounds beyond one's own of which words are kept. Those who are further ahead say their words again.
pub const ROUNDS_AHEAD_MAX: u32 = 8;

/// What replicas say to each other about one bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, BorshSerialize, BorshDeserialize)]
pub enum Word {
    /// ECHO1: somebody correct has this value.
    Echo1(u32, bool),
    /// ECHO2: this is the first value that I have heard of from `n - t`. Once in a round.
    Echo2(u32, bool),
    /// ECHO3: `n - t` say so in ECHO2; `None`: both values are there. Once in a round.
    Echo3(u32, Option<bool>),
    /// My part of the coin of a round. Not released before my own crusader agreement of that round is over.
    Share(u32, CoinShare),
    /// DECIDE: it is decided.
    Decide(bool),
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Say this to everybody, and to oneself, when it is on disk.
    Say(Word),
    /// The round's crusader agreement is over: release one's share, and say how the coin fell ([`Agreement::on_coin`]).
    Toss(u32),
    /// It is decided. Once.
    Decided(bool),
    /// [`ROUNDS_MAX`] rounds decided nothing here: the coin is not secret.
    GaveUp,
}

/// One round.
#[derive(Debug)]
struct Round {
    echo1: [Votes<bool>; 2],
    echo2: Votes<bool>,
    echo3: Votes<Option<bool>>,
    said1: [bool; 2],
    said2: Option<bool>,
    said3: Option<Option<bool>>,
    /// What the crusader agreement came to here: a value, or ⊥.
    output: Option<Option<bool>>,
    coin: Option<bool>,
}

impl Round {
    fn new(answering: usize) -> Self {
        let votes = || Votes::new(answering);
        Self {
            echo1: [votes(), votes()],
            echo2: Votes::new(answering),
            echo3: Votes::new(answering),
            said1: [false; 2],
            said2: None,
            said3: None,
            output: None,
            coin: None,
        }
    }

    fn approves(&self, value: bool) -> bool {
        self.echo1[usize::from(value)].reached()
    }

    fn approves_both(&self) -> bool {
        self.approves(false) && self.approves(true)
    }
}

fn count<T: Clone + PartialEq>(votes: &Votes<T>, value: &T) -> usize {
    votes.iter().filter(|(_, it)| *it == value).count()
}

/// One replica's part in one agreement.
#[derive(Debug)]
pub struct Agreement {
    quorums: ByzantineQuorums,
    rounds: BTreeMap<u32, Round>,
    /// The round that this replica is in; `None` before it has an input.
    round: Option<u32>,
    /// The coin of the first round; `None` until it is known.
    first: Option<bool>,
    decides: Votes<bool>,
    decided: Option<bool>,
    said_decide: bool,
}

impl Agreement {
    /// Without an input, and nothing heard. No round ends before [`Agreement::on_first_coin`].
    pub fn new(quorums: ByzantineQuorums) -> Self {
        let (rounds, decides) = (BTreeMap::new(), Votes::new(quorums.answering()));
        Self { quorums, rounds, round: None, first: None, decides, decided: None, said_decide: false }
    }

    /// As a former life left it: `words` are all that it has said. What it had heard the others say again.
    pub fn restore(quorums: ByzantineQuorums, words: impl IntoIterator<Item = Word>) -> Self {
        let mut it = Self::new(quorums);
        for word in words {
            match word {
                Word::Echo1(round, value) => {
                    it.round = it.round.max(Some(round));
                    it.round_mut(round).said1[usize::from(value)] = true;
                }
                Word::Echo2(round, value) => it.round_mut(round).said2 = Some(value),
                Word::Echo3(round, value) => it.round_mut(round).said3 = Some(value),
                Word::Share(..) => {} // the same whenever it is asked for
                Word::Decide(value) => (it.decided, it.said_decide) = (Some(value), true),
            }
        }
        it
    }

    /// This replica's own wish. The first one counts.
    pub fn input(&mut self, value: bool) -> Vec<Step> {
        let mut steps = Vec::new();
        if self.round.is_none() && !self.is_over() {
            self.enter(0, value, &mut steps);
            self.settle(&mut steps);
        }
        steps
    }

    /// A word of a replica, or one's own, which is on disk. The caller keeps shares apart.
    ///
    /// # Errors
    /// Why it does not count.
    pub fn on_word(&mut self, from: ReplicaId, word: Word) -> Result<Vec<Step>, Refused> {
        if self.is_over() {
            return Err(Refused::Late(Why::Duplicate));
        }
        let added = match word {
            Word::Echo1(round, _) | Word::Echo2(round, _) | Word::Echo3(round, _) if !self.is_near(round) => {
                return Err(Refused::Late(Why::OutsideWindow));
            }
            Word::Echo1(round, value) => {
                said(self.round_mut(round).echo1[usize::from(value)].add(from, value)) // both may be said
            }
            Word::Echo2(round, value) => said(self.round_mut(round).echo2.add(from, value)),
            Word::Echo3(round, value) => said(self.round_mut(round).echo3.add(from, value)),
            Word::Decide(value) => said(self.decides.add(from, value)),
            Word::Share(..) => return Err(Refused::Late(Why::NotNow)),
        };
        added?;
        let mut steps = Vec::new();
        self.settle(&mut steps);
        Ok(steps)
    }

    /// The coin of the first round, the same at all replicas. The first one counts.
    pub fn on_first_coin(&mut self, value: bool) -> Vec<Step> {
        let mut steps = Vec::new();
        if self.first.is_none() {
            self.first = Some(value);
            self.settle(&mut steps);
        }
        steps
    }

    /// How the coin of a round fell.
    pub fn on_coin(&mut self, round: u32, value: bool) -> Vec<Step> {
        let mut steps = Vec::new();
        if self.round == Some(round) {
            self.round_mut(round).coin = Some(value);
            self.settle(&mut steps);
        }
        steps
    }

    /// Has this replica an input, or has it joined?
    pub fn has_input(&self) -> bool {
        self.round.is_some() || self.decided.is_some()
    }

    /// What is decided.
    pub fn decided(&self) -> Option<bool> {
        self.decided
    }

    /// Nobody needs anything more from here but DECIDE.
    pub fn is_over(&self) -> bool {
        self.decided.is_some_and(|value| count(&self.decides, &value) >= self.quorums.answering())
    }

    /// The round whose coin this replica waits to be tossed.
    pub fn awaits_coin(&self) -> Option<u32> {
        let number = self.round.filter(|number| is_tossed(*number))?;
        let round = self.rounds.get(&number)?;
        (round.output.is_some() && round.coin.is_none()).then_some(number)
    }

    /// Is this a round of which words are kept?
    pub fn is_near(&self, round: u32) -> bool {
        round <= self.round.unwrap_or(0).saturating_add(ROUNDS_AHEAD_MAX).min(ROUNDS_MAX)
    }

    fn round_mut(&mut self, round: u32) -> &mut Round {
        let answering = self.quorums.answering();
        self.rounds.entry(round).or_insert_with(|| Round::new(answering))
    }

    fn enter(&mut self, round: u32, estimate: bool, steps: &mut Vec<Step>) {
        if round >= ROUNDS_MAX {
            if self.decided.is_none() {
                steps.push(Step::GaveUp);
            }
            return; // who has decided may be here with liars only: for whoever is not done, its DECIDE is enough
        }
        self.round = Some(round);
        let it = self.round_mut(round);
        if !it.said1[usize::from(estimate)] {
            it.said1[usize::from(estimate)] = true;
            steps.push(Step::Say(Word::Echo1(round, estimate)));
        }
    }

    /// Does everything that what was heard allows.
    fn settle(&mut self, steps: &mut Vec<Step>) {
        self.weigh_decides(steps);
        loop {
            let Some(current) = self.round.filter(|_| !self.is_over()) else { return };
            for (number, round) in self.rounds.range_mut(..=current) {
                Self::echo(&self.quorums, *number, round, steps);
            }
            if !self.end_round(current, steps) {
                return;
            }
        }
    }

    /// The crusader agreement's sending rules, also in rounds that are over here: others may still need them.
    fn echo(quorums: &ByzantineQuorums, number: u32, round: &mut Round, steps: &mut Vec<Step>) {
        let vouch = if mutated!("async-tob/echoes-what-one-replica-says") { 1 } else { quorums.vouch() };
        for value in [false, true] {
            let index = usize::from(value);
            if round.echo1[index].count() >= vouch && !round.said1[index] {
                round.said1[index] = true;
                steps.push(Step::Say(Word::Echo1(number, value)));
            }
            if round.approves(value) && round.said2.is_none() {
                round.said2 = Some(value);
                steps.push(Step::Say(Word::Echo2(number, value)));
            }
        }
        if round.said3.is_some() {
            return;
        }
        let agreed = |value: &bool| round.approves(*value) && count(&round.echo2, value) >= quorums.answering();
        let third = match [false, true].into_iter().find(agreed) {
            Some(value) => Some(Some(value)),
            None => round.approves_both().then_some(None),
        };
        if let Some(third) = third {
            round.said3 = Some(third);
            steps.push(Step::Say(Word::Echo3(number, third)));
        }
    }

    /// Output, coin, next round. Did anything change?
    fn end_round(&mut self, current: u32, steps: &mut Vec<Step>) -> bool {
        let answering = self.quorums.answering();
        let next_is_alive = self.rounds.range(current + 1..).next().is_some();
        let (is_decided, fixed) = (self.decided.is_some(), self.first.and_then(|first| fixed_coin(current, first)));
        let round = self.round_mut(current);
        if round.output.is_none() {
            let alike = |value: &bool| count(&round.echo3, &Some(*value)) >= answering;
            let output = match [false, true].into_iter().find(alike) {
                Some(value) => Some(Some(value)),
                None => (round.echo3.count() >= answering && round.approves_both()).then_some(None),
            };
            let Some(output) = output else { return false };
            round.output = Some(output);
            if is_tossed(current) {
                steps.push(Step::Toss(current));
            }
        }
        round.coin = round.coin.or(fixed);
        let (Some(output), Some(coin)) = (round.output, round.coin) else { return false };
        if let Some(value) = output.filter(|value| *value == coin) {
            self.decide(value, steps);
        }
        if (is_decided || self.decided.is_some()) && !next_is_alive {
            return false; // whoever is not done says so by entering the next round
        }
        self.enter(current + 1, output.unwrap_or(coin), steps);
        self.round == Some(current + 1)
    }

    fn decide(&mut self, value: bool, steps: &mut Vec<Step>) {
        if self.decided.is_none() {
            self.decided = Some(value);
            steps.push(Step::Decided(value));
        }
        if !self.said_decide {
            self.said_decide = true;
            steps.push(Step::Say(Word::Decide(value)));
        }
    }

    /// `t + 1` DECIDEs: a correct replica has decided.
    fn weigh_decides(&mut self, steps: &mut Vec<Step>) {
        let vouched = |value: &bool| count(&self.decides, value) >= self.quorums.vouch();
        if let Some(value) = [false, true].into_iter().find(vouched)
            && self.decided.is_none_or(|decided| decided == value)
        {
            self.decide(value, steps);
        }
    }
}

/// Why a word does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Nobody is to blame.
    Late(Why),
    /// The replica has said something else before.
    Contradicts,
}

fn said<T>(added: Added<T>) -> Result<(), Refused> {
    match added {
        Added::Counted | Added::Reached => Ok(()),
        Added::Repeated => Err(Refused::Late(Why::Duplicate)),
        Added::Conflict { .. } => Err(Refused::Contradicts),
    }
}

/// The coin that everybody knows, of a round: `first`, then the other one; `None` where it is tossed. A fixed coin costs agreement
/// nothing, since agreement holds for any coin; termination comes from the third round of every three.
pub const fn fixed_coin(round: u32, first: bool) -> Option<bool> {
    match round % 3 {
        0 => Some(first),
        1 => Some(!first),
        _ => None,
    }
}

/// Is the coin of this round tossed?
const fn is_tossed(round: u32) -> bool {
    fixed_coin(round, true).is_none()
}
