//! What nobody waits for any more. A broker may bring anything that a client has ever signed, for ever. What was ordered lately is known
//! by its digest; what was ordered long ago is known by this: its client has said, in something that was ordered, that it has the
//! answers, or its session is gone. The sessions would refuse it (`core::sessions`), so to order it again is work for nothing.
//!
//! Volatile, and it only saves work. A replica that has just started knows nothing of a session until something of it is ordered: a
//! broker that repeats a whole history to it has at most each publication ordered once more. From then on it has one for each session
//! ordered again, the last, which no later one acknowledges; and that only after 16,384 others were ordered in between.

use crate::pbft::Group;
use quorate_core::ids::{ClientId, RequestNumber, SessionId};
use std::collections::BTreeMap;

/// Sessions of which this is remembered: four times as many as may be open. Of the others, that of which nothing was ordered for the
/// longest time is forgotten.
const REMEMBERED_SESSIONS_MAX: usize = 4 * quorate_core::sessions::SESSIONS_MAX;

type Of = (ClientId, SessionId);

/// Up to which number the answers of each session are known to its client.
#[derive(Debug, Default)]
pub(super) struct Spent {
    /// The number, and when it was told.
    sessions: BTreeMap<Of, (RequestNumber, u64)>,
    /// By when it was told.
    told: BTreeMap<u64, Of>,
    turn: u64,
}

impl Spent {
    /// All up to this number are answered, and the client knows it.
    pub(super) fn learn(&mut self, of: Of, number: RequestNumber) {
        self.turn = self.turn.saturating_add(1);
        let entry = self.sessions.entry(of).or_default();
        let (former, told) = *entry;
        *entry = (former.max(number), self.turn);
        self.told.remove(&told);
        self.told.insert(self.turn, of);
        while self.sessions.len() > REMEMBERED_SESSIONS_MAX {
            let Some((_, oldest)) = self.told.pop_first() else { return };
            self.sessions.remove(&oldest);
        }
    }

    /// The session is gone: no number of it will ever be applied.
    pub(super) fn end(&mut self, of: Of) {
        self.learn(of, RequestNumber::new(u64::MAX));
    }

    /// Is it of use to nobody to order this?
    pub(super) fn covers(&self, group: &Group) -> bool {
        let it = group.statement();
        let known = self.sessions.get(&(it.client, it.session));
        known.is_some_and(|(upto, _)| it.requests.iter().all(|(number, _)| number <= upto))
    }

    /// How many sessions are remembered, within the bound, in both tables alike.
    pub(super) fn holds(&self) -> bool {
        self.sessions.len() <= REMEMBERED_SESSIONS_MAX && self.sessions.len() == self.told.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_session_of_which_nothing_was_heard_for_the_longest_time_is_forgotten_first() {
        let mut spent = Spent::default();
        let of = |client: u128| (ClientId::new(client), SessionId::new(1));
        for client in 0..REMEMBERED_SESSIONS_MAX as u128 {
            spent.learn(of(client), RequestNumber::new(3));
        }
        spent.learn(of(0), RequestNumber::new(2)); // an old publication takes nothing back
        spent.end(of(u128::MAX));
        assert!(spent.holds() && !spent.sessions.contains_key(&of(1)));
        assert_eq!(spent.sessions.get(&of(0)).map(|(number, _)| number.get()), Some(3));
        assert_eq!(spent.sessions.get(&of(u128::MAX)).map(|(number, _)| number.get()), Some(u64::MAX));
    }
}
