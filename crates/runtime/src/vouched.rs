//! Events that enough replicas tell alike: what a client believes where a replica may lie.
//!
//! Every correct replica publishes the same events in the same order, each at its position in the log. An event is believed as
//! soon as as many replicas have told it, equal in every byte, as cannot all be lying. It is told once, and nothing that comes
//! before it is told after it: whoever needs all of them, and sees by their content that some are missing, reads the
//! machine's history instead. So what liars can do is make their client read history; they can make it believe nothing.
//!
//! Of what a replica has told ahead of the others only digests are kept, [`PENDING_EVENTS_MAX`] for each; beyond it, its oldest is
//! forgotten.

use quorate_core::crypto::Digest;
use quorate_core::ids::{Position, ReplicaId};
use quorate_core::sessions::Event;
use std::collections::{BTreeMap, VecDeque};

/// Events of one replica that wait for others to tell them, too.
const PENDING_EVENTS_MAX: usize = 8192;

/// An event's place: its position, and its number among the events of that position.
type Place = (Position, u32);

/// The greatest number that no liar alone claims, of what each replica claims: `needed` of them claim it or a greater one. Zero if
/// fewer claim anything.
pub fn greatest(claims: impl IntoIterator<Item = u64>, needed: usize) -> u64 {
    let mut claims: Vec<u64> = claims.into_iter().collect();
    claims.sort_unstable_by_key(|claim| std::cmp::Reverse(*claim));
    claims.get(needed.saturating_sub(1)).copied().unwrap_or_default()
}

/// What the replicas have told, as far as it is not believed yet.
#[derive(Debug)]
pub struct Vouched {
    /// How many must tell the same.
    needed: usize,
    /// The last event that was believed.
    told: Option<Place>,
    replicas: BTreeMap<ReplicaId, Told>,
}

/// What one replica has told.
#[derive(Debug, Default)]
struct Told {
    /// Its last event.
    last: Option<Place>,
    /// Ascending; all beyond what is believed. Digests only: the event itself comes with the voice that is the last needed.
    pending: VecDeque<(Place, Digest)>,
}

impl Vouched {
    /// Believes what `needed` replicas tell.
    pub fn new(needed: usize) -> Self {
        Self { needed, told: None, replicas: BTreeMap::new() }
    }

    /// A replica tells events. Those that are believed now, in their order.
    pub fn hear(&mut self, from: ReplicaId, events: Vec<Event>) -> Vec<Event> {
        let mut believed = Vec::new();
        for event in events {
            let told = self.replicas.entry(from).or_default();
            let Some(place) = told.place(event.position) else { continue }; // out of order: no correct replica
            told.last = Some(place);
            if self.told.is_some_and(|told| place <= told) {
                continue; // late: the others were enough
            }
            let digest = digest(&event);
            if self.voices(place, digest).saturating_add(1) >= self.needed {
                self.forget_until(place);
                believed.push(event);
            } else if let Some(told) = self.replicas.get_mut(&from) {
                told.keep(place, digest);
            }
        }
        believed
    }

    /// A replica's link has ended: what it tells after another begins is anew, and may leave some out.
    pub fn forget(&mut self, replica: ReplicaId) {
        self.replicas.remove(&replica);
    }

    fn voices(&self, place: Place, digest: Digest) -> usize {
        self.replicas.values().filter(|told| told.says(place) == Some(digest)).count()
    }

    fn forget_until(&mut self, place: Place) {
        self.told = Some(place);
        self.replicas.values_mut().for_each(|told| told.forget_until(place));
    }
}

impl Told {
    /// Where an event at `position` comes, after those before it.
    fn place(&self, position: Position) -> Option<Place> {
        match self.last {
            Some((last, number)) if last == position => Some((position, number.checked_add(1)?)),
            Some((last, _)) if last > position => None,
            _ => Some((position, 0)),
        }
    }

    fn says(&self, place: Place) -> Option<Digest> {
        let index = self.pending.binary_search_by(|(other, _)| other.cmp(&place)).ok()?;
        self.pending.get(index).map(|(_, digest)| *digest)
    }

    fn keep(&mut self, place: Place, digest: Digest) {
        if self.pending.len() >= PENDING_EVENTS_MAX {
            self.pending.pop_front();
        }
        self.pending.push_back((place, digest));
    }

    fn forget_until(&mut self, place: Place) {
        while self.pending.front().is_some_and(|(oldest, _)| *oldest <= place) {
            self.pending.pop_front();
        }
    }
}

/// What is compared: topic and bytes; the position is the place.
fn digest(event: &Event) -> Digest {
    Digest::of_parts(&[&event.topic.to_le_bytes(), &event.bytes])
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOPIC: u32 = 1;

    fn event(position: u64, text: &str) -> Event {
        Event { position: Position::new(position), topic: TOPIC, bytes: text.to_owned().into() }
    }

    fn texts(events: &[Event]) -> Vec<String> {
        events.iter().map(|event| String::from_utf8_lossy(&event.bytes).into_owned()).collect()
    }

    /// Of four replicas, one of which may lie.
    struct Four(Vouched);

    impl Four {
        fn new() -> Self {
            Self(Vouched::new(2))
        }

        fn says(&mut self, replica: u8, events: &[(u64, &str)]) -> Vec<String> {
            let events = events.iter().map(|(position, text)| event(*position, text)).collect();
            texts(&self.0.hear(ReplicaId::new(replica), events))
        }
    }

    #[test]
    fn an_event_is_believed_when_a_second_replica_tells_it_and_only_once() {
        let mut four = Four::new();
        assert!(four.says(0, &[(1, "a"), (2, "b")]).is_empty());
        assert_eq!(four.says(1, &[(1, "a")]), ["a"]);
        assert!(four.says(2, &[(1, "a")]).is_empty());
        assert_eq!(four.says(2, &[(2, "b")]), ["b"]);
        assert!(four.says(1, &[(2, "b")]).is_empty());
        assert!(four.says(3, &[(1, "a"), (2, "b")]).is_empty(), "two who are late are not two who vouch");
    }

    #[test]
    fn what_one_replica_alone_tells_is_never_believed_however_often() {
        let mut four = Four::new();
        for _ in 0..3 {
            assert!(four.says(3, &[(1, "lie"), (1, "lie"), (2, "lie")]).is_empty());
        }
        assert!(four.says(0, &[(1, "a")]).is_empty());
        assert_eq!(four.says(1, &[(1, "a")]), ["a"], "nor does it keep the truth from being believed");
    }

    #[test]
    fn events_of_one_position_are_told_apart_by_their_order() {
        let mut four = Four::new();
        assert!(four.says(0, &[(7, "x"), (7, "y"), (7, "x")]).is_empty());
        assert_eq!(four.says(1, &[(7, "x"), (7, "y"), (7, "x")]), ["x", "y", "x"]);
    }

    #[test]
    fn nothing_older_is_told_after_something_newer_so_that_a_gap_shows() {
        let mut four = Four::new();
        assert!(four.says(0, &[(5, "five"), (6, "six")]).is_empty());
        assert_eq!(four.says(3, &[(6, "six")]), ["six"], "whoever tells it, one of two is correct");
        assert!(four.says(1, &[(5, "five"), (6, "six")]).is_empty());
    }

    #[test]
    fn a_replica_that_goes_backwards_is_not_heard() {
        let mut four = Four::new();
        assert!(four.says(3, &[(9, "z"), (1, "a")]).is_empty());
        assert!(four.says(0, &[(1, "a")]).is_empty(), "its second word does not count");
        assert_eq!(four.says(1, &[(1, "a")]), ["a"]);
    }

    #[test]
    fn whoever_comes_back_begins_anew() {
        let mut four = Four::new();
        assert!(four.says(0, &[(1, "a"), (2, "b")]).is_empty());
        four.0.forget(ReplicaId::new(0));
        assert!(four.says(1, &[(1, "a")]).is_empty(), "what it said before does not count any more");
        assert_eq!(four.says(0, &[(1, "a")]), ["a"], "and it may say it again");
    }

    #[test]
    fn a_replica_that_floods_costs_a_bounded_memory_and_keeps_nobody_from_being_heard() {
        let mut four = Four::new();
        for position in 1..=u64::try_from(PENDING_EVENTS_MAX).expect("small") * 3 {
            assert!(four.says(3, &[(position, "lie")]).is_empty());
        }
        let pending = |four: &Four| four.0.replicas.values().map(|told| told.pending.len()).sum::<usize>();
        assert_eq!(pending(&four), PENDING_EVENTS_MAX);
        assert!(four.says(0, &[(1, "a")]).is_empty());
        assert_eq!(four.says(1, &[(1, "a")]), ["a"]);
    }

    #[test]
    fn a_number_that_one_liar_claims_is_nobodys() {
        assert_eq!(greatest([7, u64::MAX, 9, 8], 2), 9);
        assert_eq!(greatest([7, 9, 8], 2), 8, "the liar is silent");
        assert_eq!(greatest([7, 9, 8], 1), 9, "nobody lies");
        assert_eq!(greatest([u64::MAX], 2), 0, "nobody else answers");
    }

    #[test]
    fn the_same_bytes_of_another_topic_are_another_event() {
        let mut vouched = Vouched::new(2);
        assert!(vouched.hear(ReplicaId::new(0), vec![event(1, "a")]).is_empty());
        let other = Event { topic: TOPIC + 1, ..event(1, "a") };
        assert!(vouched.hear(ReplicaId::new(1), vec![other]).is_empty());
    }
}
