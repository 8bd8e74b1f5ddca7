//! How long a bad primary stays. Clients ask without a pause; at one moment the primary begins to be bad, in one way and for
//! good; then the clock runs until the others have replaced it and answers come again.

use crate::adversary::Misdeed;
use crate::clock::MILLI;
use crate::protocols::Simulated;
use crate::script::Scenario;
use quorate_core::ids::View;
use quorate_machines::counter::Counter;
use std::fmt;

/// Clients that ask without a pause.
const CLIENTS: usize = 2;
/// Virtual milliseconds before the primary is bad: the others must know what a good one achieves.
const BEFORE_MS: u64 = 3_000;
/// Virtual milliseconds after which it is believed to stay for ever.
const PATIENCE_MS: u64 = 10_000;
/// How late a slow primary says everything: later than clients wait, sooner than backups do.
const SLOWNESS: u64 = 200 * MILLI;

/// In which way the primary is bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bad {
    /// It says nothing any more.
    Silent,
    /// It proposes one thing to some and another to the others.
    Equivocating,
    /// It says everything 200 ms late.
    Slow,
}

impl Bad {
    /// All ways.
    pub const ALL: [Bad; 3] = [Bad::Silent, Bad::Equivocating, Bad::Slow];
}

impl fmt::Display for Bad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Bad::Silent => "silent",
            Bad::Equivocating => "equivocating",
            Bad::Slow => "slow",
        })
    }
}

/// What became of it; times in virtual milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replaced {
    /// From the first bad deed until somebody else leads; `None` if nobody did within 10 s.
    pub after_ms: Option<u64>,
    /// The longest time without an answer to anybody, from the first bad deed until two seconds after the change.
    pub gap_ms: u64,
    /// Answers per second before, and after the change.
    pub before: u64,
    /// See `before`.
    pub after: u64,
}

/// A group of `replicas` with this configuration, whose primary becomes bad.
pub fn replace<P: Simulated>(seed: u64, replicas: usize, config: P::Config, bad: Bad) -> Replaced {
    let mut load = Load { it: Scenario::unrecorded(seed, replicas, CLIENTS, config, Counter::default), answered: 0 };
    load.run(BEFORE_MS / 2);
    let counted = load.answered;
    load.run(BEFORE_MS / 2);
    let before = (load.answered - counted) * 1000 / (BEFORE_MS / 2);
    let (view, primary) = load.leader();
    let half: Vec<_> = (0..replicas).filter(|id| *id != primary).skip(replicas / 4).collect();
    let victims = half.into_iter().map(|id| load.it.replica(id)).collect();
    let misdeed = match bad {
        Bad::Silent => Misdeed::Silence,
        Bad::Equivocating => Misdeed::TwoWords(victims),
        Bad::Slow => Misdeed::Slowness(SLOWNESS),
    };
    load.it.lies(primary, misdeed, P::lies());
    let (mut after_ms, mut gap_ms, mut quiet) = (None, 0, 0);
    for ms in 0..PATIENCE_MS {
        let answered = load.answered;
        load.run(1);
        quiet = if load.answered > answered { 0 } else { quiet + 1 };
        gap_ms = gap_ms.max(quiet);
        if load.leader().0 > view && load.leader().1 != primary && quiet == 0 {
            after_ms = Some(ms + 1);
            break;
        }
    }
    let answered = load.answered;
    for _ in 0..2_000 {
        let answered = load.answered;
        load.run(1);
        quiet = if load.answered > answered { 0 } else { quiet + 1 };
        gap_ms = gap_ms.max(quiet);
    }
    Replaced { after_ms, gap_ms, before, after: (load.answered - answered) / 2 }
}

struct Load<P: Simulated> {
    it: Scenario<P, Counter>,
    answered: u64,
}

impl<P: Simulated> Load<P> {
    /// Every client asks again as soon as it is answered, to the millisecond.
    fn run(&mut self, ms: u64) {
        for _ in 0..ms {
            for client in 0..CLIENTS {
                if self.it.cluster.clients.get(client).is_some_and(|it| it.waiting == 0) {
                    self.answered += 1;
                    self.it.apply(client, "add 1");
                }
            }
            self.it.run_ms(1);
        }
    }

    /// The highest view that somebody leads, and who.
    fn leader(&self) -> (View, usize) {
        let statuses = (0..self.it.cluster.members).filter_map(|id| Some((id, self.it.status(id)?)));
        let leaders = statuses.filter(|(_, status)| status.role.starts_with("primary"));
        leaders.map(|(id, status)| (status.view, id)).max().unwrap_or_default()
    }
}
