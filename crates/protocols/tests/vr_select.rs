//! Log selection (VRR §4.2 step 3; vr.md §2.12): by hand, over generated histories of a small Viewstamped Replication with
//! damaged disks, and over every history of three replicas up to a bound. Bugs that others have shipped, put into a second
//! implementation, are caught by the same checks: so the checks can fail.

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use quorate_core::crypto::Digest;
use quorate_core::ids::{OpNumber, ReplicaId, View};
use quorate_core::protocol::Checkpoint;
use quorate_core::quorum::CrashQuorums;
use quorate_protocols::vr::select::{Selected, Selection, select};
use quorate_protocols::vr::{DoViewChange, Header, Vouch};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// The window W: small, so that short logs reach beyond it.
const WINDOW: u64 = 3;

type Change<'a> = (ReplicaId, &'a DoViewChange);
type Select = dyn Fn(&[Change], &CrashQuorums) -> Selection;
/// What a replica sends as its `log_view`: that, if it knows better than to send the view of its last entry (D3).
type Sends = fn(log_view: u64, last_entry: u64) -> u64;
const LOG_VIEW: Sends = |log_view, _| log_view;
const ENTRY_VIEW: Sends = |_, last_entry| last_entry;

fn op(raw: u64) -> OpNumber {
    OpNumber::new(raw)
}

fn quorums(n: usize) -> CrashQuorums {
    CrashQuorums::new(n).expect("a legal size")
}

fn real(changes: &[Change], quorums: &CrashQuorums) -> Selection {
    select(changes, quorums, WINDOW)
}

/// The entry after `before`, prepared in `view`; `batch` tells it from others.
fn child(before: Option<&Header>, view: u64, batch: u64) -> Header {
    Header {
        op: before.map_or(op(1), |before| before.op.next()),
        view: View::new(view),
        parent: before.map_or(Digest::ZERO, Header::checksum),
        batch: Digest::of(&batch.to_le_bytes()),
        bytes: 8,
    }
}

/// A log, by the view in which each entry was prepared. Logs with the same views are the same.
fn log(views: &[u64]) -> Vec<Header> {
    let mut log: Vec<Header> = Vec::new();
    for view in views {
        log.push(child(log.last(), *view, *view));
    }
    log
}

const INTACT: fn(&Header) -> Vouch = |header| Vouch { header: Some(*header), present: true, nack: false };

/// The DoViewChange of a replica whose log is undamaged.
fn change(log_view: u64, committed: u64, log: &[Header]) -> DoViewChange {
    DoViewChange {
        view: View::new(99),
        log_view: View::new(log_view),
        committed: op(committed),
        committed_checksum: Digest::ZERO,
        checkpoint: Checkpoint { op: op(0), id: Digest::ZERO },
        vouches: log.iter().skip(committed as usize).map(INTACT).collect(),
    }
}

fn with(mut change: DoViewChange, at: u64, edit: impl Fn(&mut Vouch)) -> DoViewChange {
    let index = usize::try_from(at - change.committed.get() - 1).expect("small");
    edit(&mut change.vouches[index]);
    change
}

/// Nothing of the entry can be read.
fn damaged(change: DoViewChange, at: u64) -> DoViewChange {
    with(change, at, |vouch| *vouch = Vouch { header: None, present: false, nack: false })
}

/// Its header can be read, its batch cannot.
fn damaged_batch(change: DoViewChange, at: u64) -> DoViewChange {
    with(change, at, |vouch| vouch.present = false)
}

/// Its header came with a StartView, its batch never did.
fn never_had(change: DoViewChange, at: u64) -> DoViewChange {
    with(change, at, |vouch| (vouch.present, vouch.nack) = (false, true))
}

fn ask(n: usize, changes: &[(u8, &DoViewChange)]) -> Selection {
    let changes: Vec<Change> = changes.iter().map(|(id, change)| (ReplicaId::new(*id), *change)).collect();
    real(&changes, &quorums(n))
}

fn start(committed: u64, after: u64, log: &[Header]) -> Selection {
    let headers = log[after as usize..].to_vec();
    Selection::Start(Selected { committed: op(committed), after: op(after), headers })
}

// Which log (§2.4 step 3).

#[test]
fn a_view_waits_for_a_view_change_quorum_and_starts_with_it() {
    for (n, needed) in [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (6, 4)] {
        let log = log(&[0, 0]);
        let change = change(0, 0, &log);
        let all: Vec<_> = (0..n as u8).map(|id| (id, &change)).collect();
        for (index, _) in all.iter().enumerate() {
            let expected = if index + 1 < needed { Selection::Wait } else { start(0, 0, &log) };
            assert_eq!(ask(n, &all[..=index]), expected, "n={n}");
        }
    }
}

#[test]
fn an_empty_log_is_a_log() {
    let empty = change(0, 0, &[]);
    assert_eq!(ask(3, &[(0, &empty), (1, &empty)]), start(0, 0, &[]));
    let later = change(4, 0, &[]);
    assert_eq!(ask(3, &[(0, &change(3, 0, &log(&[3]))), (1, &later)]), start(0, 0, &[]), "and may be the newest");
    let idle = change(4, 7, &log(&[1; 7]));
    assert_eq!(ask(3, &[(0, &idle), (1, &idle)]), start(7, 7, &log(&[1; 7])), "all is committed: nothing to list");
}

#[test]
fn the_view_of_the_last_entry_does_not_say_which_log_is_newer() {
    // D3, as written: v1 R1 appends a, unsent. v2 R2 appends b, unsent. v3 (R0, R1) picks a and commits it. v4 (R1, R2):
    // entry views say b, prepared in 2; but R1's log is of view 3.
    let (a, b) = (log(&[1]), log(&[2]));
    let (r1, r2) = (change(3, 0, &a), change(2, 0, &b));
    assert_eq!(ask(3, &[(1, &r1), (2, &r2)]), start(0, 0, &a));
    let sent = (change(1, 0, &a), change(2, 0, &b)); // by UW's replica.cc
    assert_eq!(ask(3, &[(1, &sent.0), (2, &sent.1)]), start(0, 0, &b), "a is lost");
}

#[test]
fn among_logs_of_one_view_the_longest_wins_whoever_else_has_a_longer_one() {
    let (short, long) = (change(2, 0, &log(&[1, 2])), change(2, 1, &log(&[1, 2, 2])));
    let old = change(1, 0, &log(&[1, 1, 1, 1]));
    assert_eq!(ask(3, &[(0, &short), (1, &long), (2, &old)]), start(1, 0, &log(&[1, 2, 2])));
}

#[test]
fn an_entry_that_can_be_kept_is_kept_even_if_it_cannot_have_been_acknowledged() {
    let (without, holder) = (change(1, 0, &log(&[1])), change(1, 0, &log(&[1, 1])));
    assert_eq!(ask(3, &[(0, &without), (1, &without), (2, &holder)]), start(0, 0, &log(&[1, 1]))); // as VRR
    assert_eq!(ask(2, &[(0, &without), (1, &holder)]), start(0, 0, &log(&[1, 1])));
}

// What is committed (D13, D15), and where the headers begin.

#[test]
fn the_commit_number_is_the_largest_of_all_not_the_winners() {
    let (winner, loser) = (change(5, 0, &log(&[1, 1, 2])), change(4, 2, &log(&[1, 1]))); // D15
    assert_eq!(ask(3, &[(0, &winner), (1, &loser)]), start(2, 0, &log(&[1, 1, 2])));
}

#[test]
fn an_entry_beyond_the_window_proves_that_one_was_committed() {
    let far = change(1, 0, &log(&[1; 5]));
    assert_eq!(ask(3, &[(0, &far), (1, &change(1, 0, &[]))]), start(5 - WINDOW, 0, &log(&[1; 5])));
    let (superseded, winner) = (change(1, 1, &log(&[1; 5])), change(2, 0, &log(&[1, 1, 1, 2])));
    assert_eq!(ask(3, &[(0, &superseded), (1, &winner)]), start(2, 0, &log(&[1, 1, 1, 2])), "in a losing log too");
}

#[test]
fn a_gap_of_committed_entries_between_two_logs_is_no_part_of_the_selected_headers() {
    let all = log(&[1; 7]); // D13: each lists from its own commit number on
    let (behind, ahead) = (change(1, 0, &all[..2]), change(1, 5, &all));
    assert_eq!(ask(3, &[(0, &behind), (1, &ahead)]), start(5, 5, &all));
    let between = change(1, 1, &all[..5]);
    assert_eq!(ask(3, &[(0, &behind), (1, &ahead), (2, &between)]), start(5, 0, &all), "no gap any more");
}

#[test]
fn a_log_is_never_cut_below_what_somebody_knows_to_be_committed() {
    let (winner, loser) = (change(2, 0, &log(&[1])), change(1, 2, &log(&[1, 1])));
    assert_eq!(ask(3, &[(0, &winner), (1, &loser)]), Selection::Wait, "correct replicas cannot bring this about");
    assert_eq!(ask(3, &[(0, &winner), (1, &loser), (2, &loser)]), Selection::Stuck(op(2)));
}

#[test]
fn committed_entries_whose_headers_are_damaged_are_left_to_whoever_has_executed_them() {
    let all = log(&[1, 1, 1, 1]);
    let winner = damaged(damaged(change(2, 0, &all), 1), 2);
    assert_eq!(ask(3, &[(0, &winner), (1, &change(1, 3, &all[..3]))]), start(3, 3, &all));
    assert_eq!(ask(3, &[(0, &winner), (1, &change(1, 2, &all[..2]))]), start(2, 2, &all));
}

#[test]
fn a_committed_entry_that_nobody_can_name_is_waited_for_and_never_dropped() {
    let all = log(&[1; 5]); // entries 1 and 2 are committed: the window says so, and no commit number does
    let winner = damaged(change(2, 0, &all), 2);
    let empty = change(1, 0, &[]);
    assert_eq!(ask(3, &[(0, &winner), (1, &empty)]), Selection::Wait);
    assert_eq!(ask(3, &[(0, &winner), (1, &empty), (2, &empty)]), Selection::Stuck(op(2)));
    let older = change(1, 0, &all[..2]);
    assert_eq!(ask(3, &[(0, &winner), (1, &empty), (2, &older)]), start(2, 0, &all), "entry 3 names it");
}

// Damage (D14; PAR, FAST '18).

#[test]
fn a_damaged_entry_that_may_have_been_acknowledged_is_not_dropped() {
    let (both, without) = (log(&[1, 1]), change(1, 0, &log(&[1])));
    for holder in [damaged(change(1, 0, &both), 2), damaged_batch(change(1, 0, &both), 2)] {
        assert_eq!(ask(3, &[(0, &holder), (1, &without)]), Selection::Wait, "one nack of two");
        assert_eq!(ask(3, &[(0, &holder), (1, &without), (2, &holder)]), Selection::Stuck(op(2)));
    }
}

#[test]
fn a_damaged_entry_is_dropped_with_all_after_it_when_a_nack_quorum_never_had_it() {
    let (both, without) = (log(&[1, 1, 1]), change(1, 0, &log(&[1])));
    for holder in [damaged(change(1, 0, &both), 2), damaged_batch(change(1, 0, &both), 2)] {
        for other in [&without, &never_had(change(1, 0, &both[..2]), 2), &change(0, 0, &log(&[1, 0]))] {
            assert_eq!(ask(3, &[(0, &holder), (1, &without), (2, other)]), start(0, 0, &both[..1]));
        }
    }
}

#[test]
fn nacks_count_one_by_one_up_to_the_nack_quorum() {
    for (n, nack) in [(1, 1), (2, 1), (3, 2), (4, 3), (5, 3), (6, 4)] {
        let (holder, without) = (damaged(change(1, 0, &log(&[1])), 1), change(1, 0, &[]));
        for nacks in 0..n {
            let changes: Vec<_> = (0..n).map(|id| (id as u8, if id < nacks { &without } else { &holder })).collect();
            let expected = if nacks >= nack { start(0, 0, &[]) } else { Selection::Stuck(op(1)) };
            assert_eq!(ask(n, &changes), expected, "n={n}, {nacks} nacks");
        }
    }
}

#[test]
fn an_entry_that_only_a_losing_log_can_still_read_is_kept() {
    let both = log(&[1, 1]);
    let (winner, loser) = (damaged_batch(change(3, 0, &both), 2), change(2, 0, &both));
    assert_eq!(ask(3, &[(0, &winner), (1, &loser)]), start(0, 0, &both));
}

#[test]
fn an_older_entry_is_no_nack_while_the_newer_one_is_unknown() {
    // R1 and R2 acknowledge a in view 1. R2 starts view 2 with it and then cannot read it; R1 restarts and has forgotten its
    // commit number. §2.12's last clause would make R1's intact copy the second nack.
    let a = log(&[1]);
    let (r0, r1, r2) = (change(0, 0, &[]), change(1, 0, &a), damaged(change(2, 0, &a), 1));
    assert_eq!(ask(3, &[(0, &r0), (1, &r1), (2, &r2)]), Selection::Stuck(op(1)), "rather than guess");
    let ids = [(0, &r0), (1, &r1), (2, &r2)].map(|(id, change)| (ReplicaId::new(id), change));
    assert_eq!(Flawed(Bug::OlderIsNack).select(&ids, &quorums(3)), start(0, 0, &[]), "a is lost");
}

#[test]
fn a_damaged_header_is_found_in_any_log_by_what_the_next_entry_says() {
    let all = log(&[1, 1, 1, 2]);
    let winner = damaged(damaged(change(2, 0, &all), 2), 3);
    assert_eq!(ask(3, &[(0, &winner), (1, &change(1, 0, &all[..3]))]), start(1, 0, &all));
    let other = change(1, 0, &log(&[1, 0, 0]));
    assert_eq!(ask(3, &[(0, &winner), (1, &other)]), Selection::Wait, "another entry is another");
}

// What correct replicas never send.

#[test]
fn two_logs_in_one_view_stop_the_view_change_and_not_the_replica() {
    let (one, other) = (change(2, 0, &log(&[1, 2, 2])), change(2, 0, &log(&[1, 1, 1])));
    assert_eq!(ask(5, &[(0, &one), (1, &other), (2, &one)]), Selection::Stuck(op(2)));
    assert_eq!(ask(5, &[(1, &other), (0, &one), (2, &one)]), Selection::Stuck(op(2)));
    let no_child = change(2, 1, &log(&[0, 2, 2])); // its entry 2 has another parent
    let shorter = change(2, 0, &log(&[1]));
    assert_eq!(ask(5, &[(0, &shorter), (1, &no_child), (2, &shorter)]), Selection::Stuck(op(2)));
    let later = change(3, 0, &log(&[1]));
    assert_eq!(ask(5, &[(0, &one), (1, &other), (2, &later)]), start(0, 0, &log(&[1])), "losers do not matter");
}

#[test]
fn numbers_at_the_end_of_their_range_do_no_harm() {
    let far = DoViewChange { committed: op(u64::MAX - 1), ..change(1, 0, &log(&[1, 1, 1])) };
    let end = DoViewChange { committed: op(u64::MAX), ..change(1, 0, &log(&[1])) };
    for other in [&far, &end, &change(1, 0, &log(&[1]))] {
        ask(3, &[(0, &far), (1, other)]);
        ask(3, &[(0, &far), (1, other), (2, &end)]);
    }
}

// A second implementation, for bugs: the scan of §2.12 without thought for cost or for damaged headers of the winner.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bug {
    None,
    /// One nack too few is enough.
    NackShort,
    /// The commit number is the winners' (D15).
    WinnersCommit,
    /// An older entry is a nack for an unknown one (§2.12's last clause).
    OlderIsNack,
    /// What cannot be read is dropped (D14).
    DropOnDoubt,
}

struct Flawed(Bug);

impl Flawed {
    fn select(&self, changes: &[Change], quorums: &CrashQuorums) -> Selection {
        let all: Vec<&DoViewChange> = changes.iter().map(|(_, change)| *change).collect();
        if all.len() < quorums.view_change() {
            return Selection::Wait;
        }
        let doubt = |at| if all.len() < quorums.replicas() { Selection::Wait } else { Selection::Stuck(op(at)) };
        let newest = all.iter().map(|change| change.log_view).max();
        let canonical: Vec<_> = all.iter().copied().filter(|change| Some(change.log_view) == newest).collect();
        let winner = canonical.iter().copied().max_by_key(|change| change.op()).expect("a quorum is not empty");
        let counted = if self.0 == Bug::WinnersCommit { &canonical } else { &all };
        let commits = counted.iter().map(|change| change.committed.get().max(change.op().get().saturating_sub(WINDOW)));
        let committed = commits.max().unwrap_or(0);
        let header = |at| canonical.iter().find_map(|change| change.vouch(op(at))?.header);
        if winner.op().get() < committed {
            return doubt(winner.op().get() + 1);
        }
        let mut head = committed;
        for at in committed + 1..=winner.op().get() {
            let is_copy = |vouch: &Vouch| vouch.present && header(at).is_some() && vouch.header == header(at);
            if all.iter().any(|change| change.vouch(op(at)).is_some_and(is_copy)) {
                head = at;
                continue;
            }
            let is_nack = |vouch: &Vouch| {
                let other = header(at).is_some() && vouch.header.is_some() && vouch.header != header(at);
                let older = header(at).is_none() && vouch.header.is_some();
                vouch.nack || other || (older && self.0 == Bug::OlderIsNack)
            };
            let nacks = all.iter().filter(|change| change.vouch(op(at)).is_none_or(is_nack)).count();
            let needed = quorums.nack() - usize::from(self.0 == Bug::NackShort);
            if nacks >= needed || self.0 == Bug::DropOnDoubt {
                break;
            }
            return doubt(at);
        }
        let floor = canonical.iter().map(|change| change.committed.get()).min().unwrap_or(0);
        let gap = (floor + 1..=head).rev().find(|at| header(*at).is_none()).unwrap_or(floor);
        let Some(after) = all.iter().map(|change| change.committed.get()).filter(|at| *at >= gap).min() else {
            return doubt(gap);
        };
        let headers = (after + 1..=head).filter_map(header).collect();
        Selection::Start(Selected { committed: op(committed), after: op(after), headers })
    }
}

// Generated histories: Viewstamped Replication with the messages left out. What is delayed or lost is what happens later or
// never; a crashed replica is one to which nothing happens for a while.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Batch {
    Here,
    Damaged,
    Never,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    header: Header,
    header_readable: bool,
    batch: Batch,
}

impl Slot {
    fn whole(header: Header) -> Self {
        Self { header, header_readable: true, batch: Batch::Here }
    }

    fn is_whole(&self) -> bool {
        self.header_readable && self.batch == Batch::Here
    }

    fn vouch(&self) -> Vouch {
        if self.header_readable {
            let header = Some(self.header);
            Vouch { header, present: self.batch == Batch::Here, nack: self.batch == Batch::Never }
        } else {
            Vouch { header: None, present: false, nack: false }
        }
    }
}

#[derive(Clone, Debug, Default)]
struct Replica {
    view: u64,
    log_view: u64,
    /// Started its view as the primary, and has not restarted since.
    leads: bool,
    committed: usize,
    /// Entries acknowledged in `log_view`.
    acknowledged: usize,
    log: Vec<Slot>,
}

impl Replica {
    fn is_normal(&self) -> bool {
        self.view == self.log_view
    }

    /// How far the log can be read.
    fn whole(&self) -> usize {
        self.log.iter().take_while(|slot| slot.is_whole()).count()
    }

    /// R1: an acknowledgement is for the entry and all before it, in the view that the replica is in.
    fn acknowledge(&mut self) {
        if self.is_normal() {
            self.acknowledged = self.acknowledged.max(self.whole());
        }
    }

    fn change(&self, sends: Sends) -> DoViewChange {
        let last_entry = self.log.last().map_or(0, |slot| slot.header.view.get());
        let mut change = change(sends(self.log_view, last_entry), 0, &[]);
        change.view = View::new(self.view);
        change.committed = op(self.committed as u64);
        change.vouches = self.log.iter().skip(self.committed).map(Slot::vouch).collect();
        change
    }

    /// The view that the replica is in has this log (R4). Its own batches stay where they fit; a slot that it cannot read
    /// may be the one.
    fn install(&mut self, log: &[Header], committed: usize) {
        let slot = |(index, header): (usize, &Header)| match self.log.get(index) {
            Some(slot) if slot.header_readable && slot.header == *header => *slot,
            Some(slot) if !slot.header_readable => {
                Slot { header: *header, header_readable: true, batch: Batch::Damaged }
            }
            _ => Slot { header: *header, header_readable: true, batch: Batch::Never },
        };
        self.log = log.iter().enumerate().map(slot).collect();
        self.log_view = self.view;
        self.acknowledged = self.whole();
        self.committed = self.committed.max(committed.min(self.acknowledged));
    }
}

/// What happens next. Numbers are taken modulo what there is to choose from; what cannot happen does not.
#[derive(Clone, Debug)]
enum Step {
    /// The primary of this replica's view prepares an entry.
    Append(usize),
    /// The replica gets its primary's next entry and acknowledges it.
    Prepare(usize),
    /// Acknowledgements reach the primary of this replica's view: it commits.
    Commit(usize),
    /// The replica learns from its primary what is committed.
    Learn(usize),
    /// The members among these replicas change to a view this far on, and it starts if it can.
    ChangeView { members: u8, on: u64 },
    /// The replica hears of the start of the newest view.
    Join(usize),
    /// The replica gets the first batch that it lacks from whoever has it.
    Repair(usize),
    /// The replica restarts; with luck, an entry and perhaps its header is damaged.
    Restart { replica: usize, entry: usize, header: bool },
}

fn step() -> impl Strategy<Value = Step> {
    let replica = || 0..6_usize;
    prop_oneof![
        4 => replica().prop_map(Step::Append),
        5 => replica().prop_map(Step::Prepare),
        4 => replica().prop_map(Step::Commit),
        1 => replica().prop_map(Step::Learn),
        4 => (any::<u8>(), 0..3_u64).prop_map(|(members, on)| Step::ChangeView { members, on }),
        4 => replica().prop_map(Step::Join),
        2 => replica().prop_map(Step::Repair),
        2 => (replica(), 0..4_usize, any::<bool>())
            .prop_map(|(replica, entry, header)| Step::Restart { replica, entry, header }),
    ]
}

#[derive(Clone, Debug)]
struct History {
    n: usize,
    /// Disks damage nothing, and batches travel with headers, as in VRR.
    intact: bool,
    steps: Vec<Step>,
}

fn history() -> impl Strategy<Value = History> {
    let steps = proptest::collection::vec(step(), 10..80);
    (1..=6_usize, prop::bool::weighted(0.3), steps).prop_map(|(n, intact, steps)| History { n, intact, steps })
}

struct Cluster<'a> {
    select: &'a Select,
    sends: Sends,
    quorums: CrashQuorums,
    intact: bool,
    replicas: Vec<Replica>,
    /// Every entry that was ever acknowledged to a client.
    acknowledged: Vec<Header>,
    batches: u64,
    starts: usize,
}

type Checked = Result<(), String>;

fn check(holds: bool, what: &str) -> Checked {
    if holds { Ok(()) } else { Err(what.to_owned()) }
}

/// Runs a history and checks everything that log selection promises on the way. How many views were started.
fn run(history: &History, select: &Select, sends: Sends) -> Result<usize, String> {
    let mut replicas = vec![Replica::default(); history.n];
    replicas[0].leads = true;
    let quorums = quorums(history.n);
    let (intact, acknowledged) = (history.intact, Vec::new());
    let mut cluster = Cluster { select, sends, quorums, intact, replicas, acknowledged, batches: 0, starts: 0 };
    for step in &history.steps {
        cluster.take(step)?;
    }
    Ok(cluster.starts)
}

impl Cluster<'_> {
    fn take(&mut self, step: &Step) -> Checked {
        let n = self.replicas.len();
        match *step {
            Step::Append(of) => self.append(of % n),
            Step::Prepare(to) => self.prepare(to % n),
            Step::Commit(of) => self.commit(of % n)?,
            Step::Learn(who) => self.learn(who % n),
            Step::ChangeView { members, on } => self.change_view(members, on)?,
            Step::Join(who) => self.join(who % n),
            Step::Repair(who) => _ = self.repair(who % n),
            Step::Restart { replica, entry, header } => self.restart(replica % n, entry, header),
        }
        Ok(())
    }

    /// The primary of the view that the replica takes part in.
    fn primary(&self, of: usize) -> Option<usize> {
        let view = self.replicas[of].view;
        let primary = self.quorums.primary(View::new(view)).index();
        let leads = self.replicas[primary].leads && self.replicas[primary].view == view;
        (self.replicas[of].is_normal() && leads).then_some(primary)
    }

    fn append(&mut self, of: usize) {
        let Some(primary) = self.primary(of) else { return };
        let primary = &mut self.replicas[primary];
        if primary.log.len() < primary.committed + WINDOW as usize {
            self.batches += 1;
            let header = child(primary.log.last().map(|slot| &slot.header), primary.view, self.batches);
            primary.log.push(Slot::whole(header));
            primary.acknowledge();
        }
    }

    fn prepare(&mut self, to: usize) {
        let Some(primary) = self.primary(to) else { return };
        let next = self.replicas[to].log.len();
        if let Some(slot) = self.replicas[primary].log.get(next).copied().filter(Slot::is_whole) {
            self.replicas[to].log.push(slot);
            self.replicas[to].acknowledge();
        }
    }

    fn commit(&mut self, of: usize) -> Checked {
        let Some(primary) = self.primary(of) else { return Ok(()) };
        let view = self.replicas[primary].view;
        let in_view = self.replicas.iter().filter(|replica| replica.log_view == view);
        let replicated = self.quorums.replicated(in_view.map(|replica| op(replica.acknowledged as u64))).get() as usize;
        let primary = &mut self.replicas[primary];
        primary.committed = primary.committed.max(replicated.min(primary.acknowledged));
        for (index, slot) in primary.log.iter().take(primary.committed).enumerate() {
            match self.acknowledged.get(index) {
                None => self.acknowledged.push(slot.header),
                Some(known) => check(*known == slot.header, "an acknowledged entry was replaced by another")?,
            }
        }
        Ok(())
    }

    fn learn(&mut self, who: usize) {
        let Some(primary) = self.primary(who) else { return };
        let committed = self.replicas[primary].committed.min(self.replicas[who].acknowledged);
        self.replicas[who].committed = self.replicas[who].committed.max(committed);
    }

    fn join(&mut self, who: usize) {
        let newest =
            (0..self.replicas.len()).filter(|id| self.replicas[*id].leads).max_by_key(|id| self.replicas[*id].view);
        let Some(primary) = newest.map(|id| self.replicas[id].clone()) else { return };
        if primary.view >= self.replicas[who].view && primary.view > self.replicas[who].log_view {
            let log: Vec<Header> = primary.log.iter().map(|slot| slot.header).collect();
            self.replicas[who].view = primary.view;
            self.replicas[who].install(&log, primary.committed);
            self.fetch_all(who);
        }
    }

    fn fetch_all(&mut self, who: usize) {
        while self.intact && self.repair(who) {}
    }

    fn repair(&mut self, who: usize) -> bool {
        let at = self.replicas[who].whole();
        let Some(header) = self.replicas[who].log.get(at).map(|slot| slot.header) else { return false };
        let has = |slot: &Slot| slot.is_whole() && slot.header == header;
        let found = self.replicas.iter().any(|replica| replica.log.get(at).is_some_and(has));
        if found {
            self.replicas[who].log[at] = Slot::whole(header);
            self.replicas[who].acknowledge();
        }
        found
    }

    fn restart(&mut self, who: usize, entry: usize, header: bool) {
        let replica = &mut self.replicas[who];
        (replica.leads, replica.committed) = (false, 0); // §2.5, case A; commit numbers are not on the disk
        let from_end = replica.log.len().checked_sub(entry + 1);
        let Some(slot) = from_end.and_then(|index| replica.log.get_mut(index)).filter(|_| !self.intact) else { return };
        slot.header_readable &= !header;
        if slot.batch == Batch::Here {
            slot.batch = Batch::Damaged;
        }
    }

    fn change_view(&mut self, members: u8, on: u64) -> Checked {
        let asked = |id: &usize| members >> id & 1 == 1;
        let n = self.replicas.len();
        let view = on + (0..n).filter(asked).map(|id| self.replicas[id].view).max().unwrap_or(0);
        let primary = self.quorums.primary(View::new(view)).index();
        let can = |id: &usize| self.replicas[*id].view <= view && self.replicas[*id].log_view < view;
        let mut ids: Vec<usize> = (0..n).filter(|id| can(id) && (asked(id) || *id == primary)).collect();
        let others: Vec<usize> = (0..n).filter(|id| can(id) && !ids.contains(id)).collect();
        let missing = self.quorums.view_change().saturating_sub(ids.len());
        ids.extend(others.iter().take(missing));
        if ids.len() < self.quorums.view_change() || !ids.contains(&primary) {
            return Ok(()); // among others, if the view has started before
        }
        for id in &ids {
            (self.replicas[*id].view, self.replicas[*id].leads) = (view, false);
        }
        let changes: Vec<_> =
            ids.iter().map(|id| (ReplicaId::new(*id as u8), self.replicas[*id].change(self.sends))).collect();
        let changes: Vec<Change> = changes.iter().map(|(id, change)| (*id, change)).collect();
        let selection = self.examine(&changes)?;
        let Selection::Start(selected) = selection else { return Ok(()) };
        self.start_view(&ids, primary, &selected)
    }

    /// The new primary takes the log over, and what is before its first header from whoever has come so far.
    fn start_view(&mut self, ids: &[usize], primary: usize, selected: &Selected) -> Checked {
        let after = selected.after.get() as usize;
        let source = ids.iter().find(|id| self.replicas[**id].committed >= after);
        let source = source.ok_or("nobody has what is before the first header")?;
        let mut log: Vec<Header> = self.replicas[*source].log[..after].iter().map(|slot| slot.header).collect();
        let parent = log.last().map_or(Digest::ZERO, Header::checksum);
        let continues = |first: &Header| first.op == selected.after.next() && first.parent == parent;
        check(selected.headers.first().is_none_or(continues), "the headers do not continue the log before them")?;
        log.extend(&selected.headers);
        self.replicas[primary].install(&log, selected.committed.get() as usize);
        self.replicas[primary].leads = true;
        self.starts += 1;
        self.fetch_all(primary);
        Ok(())
    }

    /// Everything that §2.12 promises of one selection.
    fn examine(&self, changes: &[Change]) -> Result<Selection, String> {
        let selection = (self.select)(changes, &self.quorums);
        for shift in 1..changes.len() {
            let mut turned = changes.to_vec();
            turned.rotate_left(shift);
            check((self.select)(&turned, &self.quorums) == selection, "the order of arrival matters")?;
            turned.reverse();
            check((self.select)(&turned, &self.quorums) == selection, "the order of arrival matters")?;
        }
        if let Selection::Start(selected) = &selection {
            self.keeps_what_was_acknowledged(changes, selected)?;
        }
        let intact = changes.iter().flat_map(|(_, change)| &change.vouches).all(|vouch| vouch.present);
        if intact {
            let Selection::Start(selected) = &selection else { return Err("doubt, and nothing is damaged".to_owned()) };
            check(*selected == paper(changes, selected), "not the log that VRR would take")?;
        }
        for left_out in 0..changes.len() {
            let mut fewer = changes.to_vec();
            fewer.remove(left_out);
            match ((self.select)(&fewer, &self.quorums), &selection) {
                (Selection::Start(before), Selection::Start(after)) => {
                    check(grows(&before, after), "more made it less")?
                }
                (Selection::Start(_), _) => {} // doubt; above, nothing of that if nothing is damaged
                (Selection::Stuck(_), _) => return Err("stuck though more can come".to_owned()),
                (Selection::Wait, _) => {}
            }
        }
        Ok(selection)
    }

    fn keeps_what_was_acknowledged(&self, changes: &[Change], selected: &Selected) -> Checked {
        let after = selected.after.get() as usize;
        let head = after + selected.headers.len();
        check(head >= self.acknowledged.len(), "the log ends before an acknowledged entry")?;
        check(selected.after <= selected.committed, "headers begin beyond the commit number")?;
        check(selected.committed <= op(self.acknowledged.len() as u64), "committed, and never acknowledged")?;
        let mut acknowledged = self.acknowledged.iter().skip(after).zip(&selected.headers);
        check(
            acknowledged.all(|(entry, header)| entry == header),
            "another entry in the place of an acknowledged one",
        )?;
        let mut pairs = selected.headers.iter().zip(selected.headers.iter().skip(1));
        check(pairs.all(|(one, next)| next.parent == one.checksum()), "the chain is broken")?;
        let mut commits = changes.iter().map(|(_, change)| change.committed);
        check(commits.all(|committed| committed <= selected.committed), "the commit number fell back")
    }
}

/// VRR §4.2 step 3, to the letter: the log of the largest v', of those the longest; the largest commit number. The paper
/// sends whole logs; ours are compared where the winner tells its log, after its own commit number.
fn paper(changes: &[Change], selected: &Selected) -> Selected {
    let all = || changes.iter().map(|(_, change)| *change);
    let winner = all().max_by_key(|change| (change.log_view, change.op())).expect("a quorum");
    let commits = all().map(|change| change.committed.max(op(change.op().get().saturating_sub(WINDOW))));
    let committed = commits.max().unwrap_or_default();
    let untold = selected.headers.iter().take_while(|header| header.op <= winner.committed).copied();
    let told = winner.vouches.iter().filter_map(|vouch| vouch.header).filter(|header| header.op > selected.after);
    Selected { committed, after: selected.after, headers: untold.chain(told).collect() }
}

/// Nothing that `before` knew to be committed is missing or different in `after`.
fn grows(before: &Selected, after: &Selected) -> bool {
    let head = after.after.plus(after.headers.len() as u64);
    let known = before.headers.iter().filter(|header| header.op <= before.committed);
    let mut in_both = known.filter(|header| header.op > after.after);
    after.committed >= before.committed
        && head >= after.committed
        && in_both.all(|header| after.headers.contains(header))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 5000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_history_loses_what_was_acknowledged(history in history()) {
        run(&history, &real, LOG_VIEW).map_err(TestCaseError::fail)?;
    }

    #[test]
    fn both_implementations_agree_but_that_the_real_one_finds_more_headers(history in history()) {
        let both = |changes: &[Change], quorums: &CrashQuorums| {
            let (one, other) = (real(changes, quorums), Flawed(Bug::None).select(changes, quorums));
            assert!(has_all_of(&one, &other) || !matches!(other, Selection::Start(_)), "{one:?} {other:?}");
            one
        };
        run(&history, &both, LOG_VIEW).map_err(TestCaseError::fail)?;
    }

    #[test]
    fn whatever_peers_send_gets_an_answer(n in 1..=6_usize, changes in proptest::collection::vec(nonsense(), 6)) {
        let changes = changes.iter().enumerate().map(|(id, change)| (ReplicaId::new(id as u8), change));
        let changes: Vec<Change> = changes.collect();
        let turned: Vec<Change> = changes[..n].iter().rev().copied().collect();
        prop_assert_eq!(real(&changes[..n], &quorums(n)), real(&turned, &quorums(n)));
    }
}

/// All of the other log, and perhaps more before and after: headers that the hash chain names.
fn has_all_of(one: &Selection, other: &Selection) -> bool {
    let (Selection::Start(one), Selection::Start(other)) = (one, other) else { return false };
    let skipped = one.headers.iter().skip_while(|header| header.op <= other.after).copied();
    let same: Vec<Header> = skipped.take(other.headers.len()).collect();
    one.committed == other.committed && one.after <= other.after && same == other.headers
}

/// A DoViewChange of anything.
fn nonsense() -> impl Strategy<Value = DoViewChange> {
    let vouch = (prop::option::of((0..3_u64, 0..2_u64)), any::<bool>(), any::<bool>());
    let committed = prop_oneof![0..4_u64, Just(u64::MAX - 1)];
    (0..3_u64, committed, proptest::collection::vec(vouch, 0..5)).prop_map(|(log_view, committed, vouches)| {
        let mut change = DoViewChange { committed: op(committed), ..change(log_view, 0, &[]) };
        let mut before: Option<Header> = None;
        for (header, present, nack) in vouches {
            let place = op(committed).plus(change.vouches.len() as u64 + 1);
            let header = header.map(|(view, batch)| Header { op: place, ..child(before.as_ref(), view, batch) });
            before = header;
            change.vouches.push(Vouch { header, present, nack });
        }
        change
    })
}

/// What the checks say of each of some histories, always the same.
fn said_of(histories: usize, select: &Select, sends: Sends) -> impl Iterator<Item = Result<usize, String>> {
    let mut runner = TestRunner::deterministic();
    let draw = move || history().new_tree(&mut runner).expect("a history").current();
    std::iter::repeat_with(draw).take(histories).map(move |history| run(&history, select, sends))
}

#[test]
fn histories_start_views() {
    let starts: usize = said_of(300, &real, LOG_VIEW).map(|said| said.expect("nothing is lost")).sum();
    assert!(starts > 900, "{starts} views in 300 histories show little");
}

#[test]
fn the_checks_catch_every_bug() {
    for (bug, sends, effect) in [
        (Bug::None, ENTRY_VIEW, "another entry in the place of an acknowledged one"),
        (Bug::NackShort, LOG_VIEW, "the log ends before an acknowledged entry"),
        (Bug::WinnersCommit, LOG_VIEW, "the commit number fell back"),
        (Bug::OlderIsNack, LOG_VIEW, "the log ends before an acknowledged entry"),
        (Bug::DropOnDoubt, LOG_VIEW, "the log ends before an acknowledged entry"),
    ] {
        let select = move |changes: &[Change], quorums: &CrashQuorums| Flawed(bug).select(changes, quorums);
        let first = said_of(20_000, &select, sends).position(|said| said.is_err_and(|what| what == effect));
        assert!(first.is_some(), "{bug:?}: {effect}, in some history");
    }
}

// Every history of three replicas up to a bound: breadth first, with the real function.

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Node {
    view: u64,
    log_view: u64,
    /// Started its view as the primary, and has not crashed since.
    leads: bool,
    committed: usize,
    /// The view in which each entry was prepared: one primary a view makes it a name.
    log: Vec<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct World {
    nodes: [Node; 3],
    /// What was acknowledged to clients.
    acknowledged: Vec<u64>,
}

const ENTRIES: usize = 2;

impl World {
    fn first() -> Self {
        let node = |id| Node { view: 0, log_view: 0, leads: id == 0, committed: 0, log: Vec::new() };
        Self { nodes: [node(0), node(1), node(2)], acknowledged: Vec::new() }
    }

    fn with(&self, id: usize, edit: impl FnOnce(&mut Node)) -> Self {
        let mut world = self.clone();
        edit(&mut world.nodes[id]);
        world
    }

    /// What can happen to one node in its view; the view, if an acknowledged entry is lost. Being silent for a while or for
    /// ever is no step.
    fn steps(&self, id: usize) -> Result<Vec<World>, u64> {
        let node = &self.nodes[id];
        let mut worlds = Vec::new();
        if node.leads || node.committed > 0 {
            worlds.push(self.with(id, |node| (node.leads, node.committed) = (false, 0))); // a crash
        }
        if node.leads && node.log.len() < ENTRIES {
            worlds.push(self.with(id, |node| node.log.push(node.view)));
        }
        let holds = |other: &&Node| other.log_view == node.view && other.log.len() > node.committed;
        let holders = self.nodes.iter().filter(holds).count();
        if node.leads && node.log.len() > node.committed && holders >= quorums(3).replication() {
            let mut world = self.with(id, |node| node.committed += 1);
            let (place, entry) = (node.committed, node.log[node.committed]);
            let mut later = self.nodes.iter().filter(|other| other.log_view > node.view);
            if world.acknowledged.len() == place {
                world.acknowledged.push(entry);
            }
            if world.acknowledged[place] != entry || later.any(|other| other.log.get(place) != Some(&entry)) {
                return Err(node.view);
            }
            worlds.push(world);
        }
        for primary in self.nodes.iter().filter(|primary| primary.leads && primary.view >= node.view) {
            let committed = node.committed.max(primary.committed);
            let started = Node { leads: false, committed, ..primary.clone() };
            if node.log_view < primary.view {
                worlds.push(self.with(id, |node| *node = started)); // StartView
            } else if let Some(entry) = primary.log.get(node.log.len()) {
                worlds.push(self.with(id, |node| node.log.push(*entry))); // Prepare
            } else if committed > node.committed {
                worlds.push(self.with(id, |node| node.committed = committed)); // Commit
            }
        }
        Ok(worlds)
    }
}

/// What a node says in a view change: `log_view`, commit number, log.
type Said = (u64, usize, Vec<u64>);
/// What a view starts with: commit number, `after`, and the log after it.
type Answer = (usize, usize, Vec<u64>);

struct Explorer<'a> {
    select: &'a Select,
    sends: Sends,
    /// What was asked before.
    selected: BTreeMap<Vec<(usize, Said)>, Option<Answer>>,
}

impl Explorer<'_> {
    /// What the view starts with; the view, if an acknowledged entry is lost.
    fn change_view(&mut self, world: &World, view: u64, members: &[usize]) -> Result<Option<World>, u64> {
        let primary = (view % 3) as usize;
        if !members.contains(&primary) || members.iter().any(|id| world.nodes[*id].view >= view) {
            return Ok(None);
        }
        let said = members.iter().map(|id| (*id, &world.nodes[*id])).map(|(id, node)| {
            let log_view = (self.sends)(node.log_view, node.log.last().copied().unwrap_or(0));
            (id, (log_view, node.committed, node.log.clone()))
        });
        let Some((committed, after, suffix)) = self.select(said.collect()) else { return Ok(None) };
        let mut nodes = members.iter().map(|id| &world.nodes[*id]);
        let before = nodes.find(|node| node.committed >= after).ok_or(view)?;
        let log = [&before.log[..after], &suffix].concat();
        if !log.starts_with(&world.acknowledged) {
            return Err(view);
        }
        let mut world = world.clone();
        for id in members {
            (world.nodes[*id].view, world.nodes[*id].leads) = (view, false);
        }
        world.nodes[primary] = Node { view, log_view: view, leads: true, committed, log };
        Ok(Some(world))
    }

    fn select(&mut self, said: Vec<(usize, Said)>) -> Option<Answer> {
        if let Some(known) = self.selected.get(&said) {
            return known.clone();
        }
        let dvc = |(_, (log_view, committed, views)): &(usize, Said)| change(*log_view, *committed as u64, &log(views));
        let changes: Vec<_> = said.iter().map(dvc).collect();
        let changes: Vec<Change> =
            said.iter().zip(&changes).map(|((id, _), change)| (ReplicaId::new(*id as u8), change)).collect();
        let selected = match (self.select)(&changes, &quorums(3)) {
            Selection::Start(Selected { committed, after, headers }) => {
                let suffix = headers.iter().map(|header| header.view.get()).collect();
                Some((committed.get() as usize, after.get() as usize, suffix))
            }
            _ => None,
        };
        self.selected.insert(said, selected.clone());
        selected
    }
}

/// How many worlds there are with views up to this one; the view in which an acknowledged entry is lost otherwise.
fn explore(views: u64, select: &Select, sends: Sends) -> Result<usize, u64> {
    let mut explorer = Explorer { select, sends, selected: BTreeMap::new() };
    let mut seen = BTreeSet::from([World::first()]);
    let mut todo = VecDeque::from([World::first()]);
    while let Some(world) = todo.pop_front() {
        let mut next = Vec::new();
        for id in 0..3 {
            next.extend(world.steps(id)?);
        }
        for view in 1..=views {
            for members in [&[0, 1][..], &[0, 2], &[1, 2], &[0, 1, 2]] {
                next.extend(explorer.change_view(&world, view, members)?);
            }
        }
        todo.extend(next.into_iter().filter(|world| seen.insert(world.clone())));
    }
    Ok(seen.len())
}

#[test]
fn three_replicas_lose_nothing_whatever_happens() {
    let decided = |changes: &[Change], quorums: &CrashQuorums| {
        let selection = real(changes, quorums);
        assert!(matches!(selection, Selection::Start(_)), "nothing is damaged: {selection:?}");
        selection
    };
    let worlds = explore(5, &decided, LOG_VIEW).expect("nothing is lost");
    assert!(worlds > 100_000, "{worlds} worlds are not all");
}

#[test]
fn choosing_by_entry_views_loses_an_acknowledged_entry_in_the_fourth_view() {
    assert!(explore(2, &real, ENTRY_VIEW).is_ok());
    assert_eq!(explore(3, &real, ENTRY_VIEW), Err(3)); // D3, whose views begin at 1 where these begin at 0
}
