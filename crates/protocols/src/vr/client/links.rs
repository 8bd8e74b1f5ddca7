//! The replicas as a client sees them, and how far the sending of one thing has got.

use quorate_core::ids::{ReplicaId, View};
use quorate_core::quorum::CrashQuorums;
use quorate_core::time::{Duration, Instant};

/// The longest silence between two attempts at one request.
const RETRY_MAX: Duration = Duration::from_secs(2);
/// The shortest: a retry delay of zero must not spin.
pub(super) const RETRY_MIN: Duration = Duration::from_millis(1);

/// What the client believes about the replicas, and how patient it is.
#[derive(Debug)]
pub(super) struct Links {
    pub(super) quorums: CrashQuorums,
    /// The greatest view that anyone has told; its primary is the believed one.
    pub(super) view: View,
    pub(super) connected: Replicas,
    pub(super) retry: Duration,
    /// No attempt is due earlier than this.
    pub(super) soonest: Option<Instant>,
}

/// A set of replicas; bit i stands for replica i (a group has at most 15).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Replicas(u16);

/// How far the sending of one thing has got.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) whom: Whom,
    /// The replicas that it was handed to, on a link that is still up, and that count: learning a view makes the new
    /// primary one that was not told yet.
    pub(super) handed: Replicas,
    /// When to send it again. Means nothing while `handed` is empty.
    due: Instant,
    /// Silence before the next retry.
    delay: Duration,
    /// The primary has said since that it is busy: it lives, so the next retry does not bother the others, which would only
    /// pass on what it already refused.
    pub(super) busy: bool,
    /// The last retry spared the others. The next one does not: what says that it is busy may be cut off from them.
    spared: bool,
}

/// Who can answer.
#[derive(Debug)]
pub(super) enum Whom {
    /// The primary.
    Primary,
    /// Any one replica; the next to ask is this one, or the next one after it that is connected.
    Any(usize),
}

impl Attempt {
    pub(super) fn new(whom: Whom) -> Self {
        Self {
            whom,
            handed: Replicas::default(),
            due: Instant::default(),
            delay: Duration::ZERO,
            busy: false,
            spared: false,
        }
    }

    /// Whom to send it to now, if anyone. What this returns has to be sent: it counts as handed.
    pub(super) fn step(&mut self, links: &mut Links, now: Instant) -> Replicas {
        let again = !self.handed.is_empty() && self.due <= now;
        let to = match &mut self.whom {
            Whom::Primary if again && self.busy && !self.spared => links.wanted(),
            Whom::Primary if again => links.connected,
            Whom::Primary => links.wanted().without(self.handed),
            Whom::Any(next) if again || self.handed.is_empty() => links.rotate(next),
            Whom::Any(_) => Replicas::default(),
        };
        if !to.is_empty() {
            // Silence makes it slower. A link or a primary that is new says nothing about the next answer.
            self.delay = if again { self.delay.saturating_mul(2).min(RETRY_MAX.max(links.retry)) } else { links.retry };
            self.handed = self.handed.union(to);
            self.due = now.plus(self.delay);
            self.spared = again && self.busy && !self.spared;
            self.busy = false;
        }
        if !self.handed.is_empty() {
            links.soonest = Some(links.soonest.map_or(self.due, |soonest| soonest.min(self.due)));
        }
        to
    }
}

impl Links {
    /// Who should be handed what the primary decides: the primary; while it is not connected, everyone who is.
    pub(super) fn wanted(&self) -> Replicas {
        let mut primary = Replicas::default();
        primary.insert(self.quorums.primary(self.view));
        let reachable = primary.both(self.connected);
        if reachable.is_empty() { self.connected } else { reachable }
    }

    /// The first connected replica from `next` on, round the group; moves `next` beyond it.
    fn rotate(&self, next: &mut usize) -> Replicas {
        let connected = || self.connected.iter();
        let found = connected().find(|replica| replica.index() >= *next).or_else(|| connected().next());
        let mut one = Replicas::default();
        if let Some(replica) = found {
            one.insert(replica);
            *next = replica.index().saturating_add(1);
        }
        one
    }
}

impl Replicas {
    fn bit(replica: ReplicaId) -> u16 {
        1_u16.checked_shl(u32::from(replica.get())).unwrap_or(0)
    }

    pub(super) fn insert(&mut self, replica: ReplicaId) {
        self.0 |= Self::bit(replica);
    }

    pub(super) fn remove(&mut self, replica: ReplicaId) {
        self.0 &= !Self::bit(replica);
    }

    fn contains(self, replica: ReplicaId) -> bool {
        self.0 & Self::bit(replica) != 0
    }

    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    fn both(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub(super) fn iter(self) -> impl Iterator<Item = ReplicaId> {
        (0..16).map(ReplicaId::new).filter(move |replica| self.contains(*replica))
    }
}
