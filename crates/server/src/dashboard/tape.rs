//! Messages of all replicas as arrows: what one replica says that it sent is held against what another says that it received.
//!
//! A frame has the same mark where it leaves and where it arrives. Equal frames, heartbeats for example, are told apart by time:
//! an arrival belongs to the latest equal departure before it that no other arrival belongs to.

use quorate_core::ids::{Peer, ReplicaId};
use quorate_core::node::{Happened, Recorded};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Things that are kept of each replica; the oldest go first.
const KEPT_MAX: usize = 2048;
/// Things older than this are not drawn.
pub const KEPT: Duration = Duration::from_secs(4);
/// A message that has not arrived after this long is drawn as lost.
const LOST_AFTER: u64 = 250_000_000;
/// Arrows in a picture at most; the picture shows a shorter time if there are more.
pub const ARROWS_MAX: usize = 72;
/// The times that a picture may show, in nanoseconds.
const SPANS: [u64; 11] = [
    2_000_000_000,
    1_000_000_000,
    500_000_000,
    200_000_000,
    100_000_000,
    50_000_000,
    20_000_000,
    10_000_000,
    5_000_000,
    2_000_000,
    1_000_000,
];
/// Names whose colours are remembered.
const LABELS_MAX: usize = 64;
/// Characters of a name that a replica says.
const LABEL_CHARS_MAX: usize = 40;

/// What replicas told of themselves.
#[derive(Debug, Default)]
pub struct Tape {
    lines: BTreeMap<ReplicaId, Line>,
    /// Names in the order in which they came: each keeps its colour.
    labels: Vec<String>,
}

#[derive(Debug, Default)]
struct Line {
    next: u64,
    kept: VecDeque<Recorded>,
}

/// Where one end of an arrow is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Somewhere among the clients.
    Clients,
    /// At a replica.
    Replica(ReplicaId),
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrow {
    /// Who sent it.
    pub from: Lane,
    /// For whom.
    pub to: Lane,
    /// Its name.
    pub label: String,
    /// The place of its name among those that have been seen.
    pub kind: usize,
    /// When it left, in nanoseconds since 1970; unknown if a client sent it.
    pub sent: Option<u64>,
    /// When it arrived; unknown if for a client.
    pub received: Option<u64>,
}

impl Arrow {
    /// A message between replicas that has not arrived, and should have.
    pub fn is_lost(&self, now: u64) -> bool {
        let old = self.sent.is_some_and(|sent| sent.saturating_add(LOST_AFTER) < now);
        self.received.is_none() && self.to != Lane::Clients && old
    }

    /// When it was first seen.
    pub fn begins(&self) -> u64 {
        self.sent.or(self.received).unwrap_or_default()
    }
}

/// A remark of a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Whose.
    pub replica: ReplicaId,
    /// When.
    pub at: u64,
    /// In words.
    pub words: String,
}

/// The last messages, ready to be drawn.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scene {
    /// The left edge, in nanoseconds since 1970.
    pub from: u64,
    /// The right edge.
    pub to: u64,
    /// In the order in which they were first seen.
    pub arrows: Vec<Arrow>,
    /// In the order of time.
    pub marks: Vec<Mark>,
}

impl Tape {
    /// What to ask a replica for.
    pub fn next(&self, replica: ReplicaId) -> u64 {
        self.lines.get(&replica).map_or(0, |line| line.next)
    }

    /// Keeps what a replica told. `now` is our own clock, which its clock must not be far from: what is not of our time
    /// would never go.
    pub fn add(&mut self, replica: ReplicaId, recorded: Vec<Recorded>, next: u64, now: u64) {
        let line = self.lines.entry(replica).or_default();
        line.next = next;
        let span = u64::try_from(KEPT.as_nanos()).unwrap_or(u64::MAX);
        let recorded = recorded.into_iter().filter(|it| it.at.as_nanos().abs_diff(now) <= span);
        for one in recorded {
            if let Happened::Sent { label, .. } | Happened::Received { label, .. } = &one.what {
                let label = brief(label);
                if self.labels.len() < LABELS_MAX && !self.labels.contains(&label) {
                    self.labels.push(label);
                }
            }
            line.kept.push_back(one);
        }
        let old = |it: &Recorded| it.at.as_nanos().saturating_add(span) < now;
        while line.kept.len() > KEPT_MAX || line.kept.front().is_some_and(old) {
            line.kept.pop_front();
        }
    }

    /// Remarks that came in with the last `add` are a caller's to remember; this is all that is kept.
    pub fn marks(&self) -> Vec<Mark> {
        let mut marks: Vec<Mark> = Vec::new();
        for (replica, line) in &self.lines {
            for one in &line.kept {
                if let Happened::Noted(words) = &one.what {
                    marks.push(Mark { replica: *replica, at: one.at.as_nanos(), words: words.clone().into_owned() });
                }
            }
        }
        marks.sort_by_key(|mark| (mark.at, mark.replica));
        marks
    }

    /// The messages before `until`, as long before it as there is room for.
    pub fn scene(&self, until: u64) -> Scene {
        let arrows = self.arrows(until);
        let count = |span: u64| arrows.iter().filter(|it| it.begins() >= until.saturating_sub(span)).count();
        let span = SPANS.into_iter().find(|span| count(*span) <= ARROWS_MAX).unwrap_or(1_000_000);
        let from = until.saturating_sub(span);
        let mut arrows: Vec<Arrow> = arrows.into_iter().filter(|it| it.begins() >= from).collect();
        let excess = arrows.len().saturating_sub(ARROWS_MAX);
        arrows.drain(..excess);
        let marks = self.marks().into_iter().filter(|it| (from..=until).contains(&it.at)).collect();
        Scene { from, to: until, arrows, marks }
    }

    fn arrows(&self, until: u64) -> Vec<Arrow> {
        let mut arrows: Vec<Arrow> = Vec::new();
        // Departures between replicas that have not been matched: indices into `arrows`, in the order of time.
        let mut open: BTreeMap<(ReplicaId, ReplicaId, u32), Vec<usize>> = BTreeMap::new();
        for (replica, line) in &self.lines {
            for one in line.kept.iter().filter(|it| it.at.as_nanos() <= until) {
                let Happened::Sent { to, label, mark } = &one.what else { continue };
                if let Peer::Replica(to) = to {
                    open.entry((*replica, *to, *mark)).or_default().push(arrows.len());
                }
                let (from, sent) = (Lane::Replica(*replica), Some(one.at.as_nanos()));
                let (label, kind) = self.label(label);
                arrows.push(Arrow { from, to: lane(*to), label, kind, sent, received: None });
            }
        }
        for (replica, line) in &self.lines {
            for one in line.kept.iter().filter(|it| it.at.as_nanos() <= until) {
                let Happened::Received { from, label, mark } = &one.what else { continue };
                let at = one.at.as_nanos();
                let departure = match from {
                    Peer::Replica(from) => open.get_mut(&(*from, *replica, *mark)).and_then(|it| take(it, &arrows, at)),
                    Peer::Client(_) => None,
                };
                match departure.and_then(|index| arrows.get_mut(index)) {
                    Some(arrow) => arrow.received = Some(at),
                    // What a replica sent before it began to record, or before what is kept of it.
                    None if matches!(from, Peer::Replica(_)) => {}
                    None => {
                        let (label, kind) = self.label(label);
                        let (from, to) = (Lane::Clients, Lane::Replica(*replica));
                        arrows.push(Arrow { from, to, label, kind, sent: None, received: Some(at) });
                    }
                }
            }
        }
        arrows.sort_by(|a, b| (a.begins(), a.from, a.to, &a.label).cmp(&(b.begins(), b.from, b.to, &b.label)));
        arrows
    }
}

impl Tape {
    fn label(&self, label: &str) -> (String, usize) {
        let label = brief(label);
        let kind = self.labels.iter().position(|it| *it == label).unwrap_or(LABELS_MAX);
        (label, kind)
    }
}

/// The latest departure before an arrival; if clocks differ so much that there is none, the first after it.
fn take(open: &mut Vec<usize>, arrows: &[Arrow], arrival: u64) -> Option<usize> {
    let sent = |index: &usize| arrows.get(*index).map_or(u64::MAX, Arrow::begins);
    let place = open.iter().rposition(|index| sent(index) <= arrival).or((!open.is_empty()).then_some(0))?;
    Some(open.remove(place))
}

const fn lane(peer: Peer) -> Lane {
    match peer {
        Peer::Replica(replica) => Lane::Replica(replica),
        Peer::Client(_) => Lane::Clients,
    }
}

fn brief(label: &str) -> String {
    label.chars().take(LABEL_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_core::ids::ClientId;
    use quorate_core::time::WallTime;

    const BASE: u64 = 1_000_000_000_000;
    const MS: u64 = 1_000_000;

    fn id(index: u8) -> ReplicaId {
        ReplicaId::new(index)
    }

    fn sent(ms: u64, to: u8, mark: u32) -> Recorded {
        let what = Happened::Sent { to: Peer::Replica(id(to)), label: "Beat".into(), mark };
        Recorded { at: WallTime::from_nanos(BASE + ms * MS), what }
    }

    fn received(ms: u64, from: u8, mark: u32) -> Recorded {
        let what = Happened::Received { from: Peer::Replica(id(from)), label: "Beat".into(), mark };
        Recorded { at: WallTime::from_nanos(BASE + ms * MS), what }
    }

    fn flights(tape: &Tape, until_ms: u64) -> Vec<(u64, Option<u64>)> {
        let ms = |at: u64| (at - BASE) / MS;
        let scene = tape.scene(BASE + until_ms * MS);
        scene.arrows.iter().map(|it| (ms(it.begins()), it.received.map(ms))).collect()
    }

    #[test]
    fn equal_messages_are_told_apart_by_time_and_a_lost_one_does_not_shift_the_others() {
        let mut tape = Tape::default();
        let now = BASE + 600 * MS;
        tape.add(id(0), vec![sent(0, 1, 7), sent(50, 1, 7), sent(100, 1, 7), sent(101, 1, 9)], 4, now);
        tape.add(id(1), vec![received(1, 0, 7), received(102, 0, 7), received(103, 0, 9)], 3, now);
        let expected = [(0, Some(1)), (50, None), (100, Some(102)), (101, Some(103))];
        assert_eq!(flights(&tape, 600), expected);
        let scene = tape.scene(now);
        let lost: Vec<bool> = scene.arrows.iter().map(|it| it.is_lost(now)).collect();
        assert_eq!(lost, [false, true, false, false]);
        assert!(
            !tape.scene(BASE + 120 * MS).arrows.iter().any(|it| it.is_lost(BASE + 120 * MS)),
            "it may be under way"
        );
    }

    #[test]
    fn clocks_that_differ_still_give_arrows() {
        let mut tape = Tape::default();
        tape.add(id(0), vec![sent(10, 1, 7)], 1, BASE);
        tape.add(id(1), vec![received(5, 0, 7)], 1, BASE);
        assert_eq!(flights(&tape, 20), [(10, Some(5))]);
    }

    #[test]
    fn a_busy_cluster_shows_a_shorter_time() {
        let mut tape = Tape::default();
        let busy = (0..1000).map(|ms| sent(ms, 1, 7)).collect();
        tape.add(id(0), busy, 1000, BASE + 1000 * MS);
        let scene = tape.scene(BASE + 1000 * MS);
        assert_eq!(scene.to - scene.from, 50 * MS);
        assert!((40..=ARROWS_MAX).contains(&scene.arrows.len()), "{}", scene.arrows.len());
    }

    #[test]
    fn what_is_kept_is_bounded_and_of_our_time() {
        let mut tape = Tape::default();
        let flood = (0..10_000).map(|_| sent(5, 1, 7)).collect();
        tape.add(id(0), flood, 9, BASE);
        assert_eq!(tape.lines[&id(0)].kept.len(), KEPT_MAX);
        tape.add(id(0), vec![sent(60_000, 1, 7)], 10, BASE);
        assert!(tape.scene(BASE + 90_000 * MS).arrows.is_empty(), "a clock that is a minute off");
        tape.add(id(0), vec![], 10, BASE + 5000 * MS);
        assert!(tape.lines[&id(0)].kept.is_empty(), "old things go");
        assert_eq!(tape.next(id(0)), 10);
    }

    #[test]
    fn clients_have_one_end_of_an_arrow() {
        let mut tape = Tape::default();
        let client = Peer::Client(ClientId::new(5));
        let request = Happened::Received { from: client, label: "Request".into(), mark: 1 };
        let reply = Happened::Sent { to: client, label: "Reply".into(), mark: 2 };
        let at = |ms| WallTime::from_nanos(BASE + ms * MS);
        tape.add(id(0), vec![Recorded { at: at(1), what: request }, Recorded { at: at(2), what: reply }], 2, BASE);
        let scene = tape.scene(BASE + 400 * MS);
        let ends: Vec<_> = scene.arrows.iter().map(|it| (it.from, it.to, it.is_lost(BASE + 900 * MS))).collect();
        let replica = Lane::Replica(id(0));
        assert_eq!(ends, [(Lane::Clients, replica, false), (replica, Lane::Clients, false)]);
    }
}
