//! What was answered lately. A request that comes again is answered again and not ordered again (Castro and Liskov §4.1: "if
//! the request has already been processed, the replicas simply re-send the reply"). The table that decides is the sessions',
//! in the state; this one only saves work, and may be forgotten at any time.

use super::message::Group;
use quorate_core::ids::{ClientId, OpNumber, RequestNumber, SessionId};
use quorate_core::sessions::Ruling;
use std::collections::BTreeMap;

/// Bytes of rulings that are remembered, at most. Beyond it, all are forgotten: what comes again is ordered again.
const ANSWERED_BYTES_MAX: usize = 8 << 20;
/// What one costs beside its bytes.
const RULING_OVERHEAD_BYTES: usize = 96;

/// Rulings of one session, by request.
type Given = BTreeMap<RequestNumber, (OpNumber, Ruling)>;

/// Rulings that their clients may ask for again.
#[derive(Debug, Default)]
pub(crate) struct Answered {
    sessions: BTreeMap<(ClientId, SessionId), Given>,
    bytes: usize,
}

fn cost(ruling: &Ruling) -> usize {
    if let Ruling::Replied(bytes) = ruling { bytes.len().saturating_add(RULING_OVERHEAD_BYTES) } else { 0 }
}

impl Answered {
    /// A client that knows all answers up to `acknowledged` gets some more. Only replies are kept: to all else, the answer
    /// may be another one next time.
    pub(crate) fn give<'a>(
        &mut self,
        of: (ClientId, SessionId),
        acknowledged: RequestNumber,
        op: OpNumber,
        rulings: impl Iterator<Item = (RequestNumber, &'a Ruling)>,
    ) {
        let given = self.sessions.entry(of).or_default();
        while let Some(first) = given.first_entry().filter(|first| *first.key() <= acknowledged) {
            let (_, ruling) = first.remove();
            self.bytes = self.bytes.saturating_sub(cost(&ruling));
        }
        for (number, ruling) in rulings.filter(|(_, ruling)| matches!(ruling, Ruling::Replied(_))) {
            self.bytes = self.bytes.saturating_add(cost(ruling));
            if let Some((_, former)) = given.insert(number, (op, ruling.clone())) {
                self.bytes = self.bytes.saturating_sub(cost(&former));
            }
        }
        if given.is_empty() {
            self.sessions.remove(&of);
        }
        if self.bytes > ANSWERED_BYTES_MAX {
            *self = Self::default();
        }
    }

    /// The answers that are known to requests of this group, and the entry of each.
    pub(crate) fn to(&self, group: &Group) -> BTreeMap<OpNumber, Vec<(RequestNumber, Ruling)>> {
        let mut known: BTreeMap<OpNumber, Vec<_>> = BTreeMap::new();
        let it = group.statement();
        if let Some(given) = self.sessions.get(&(it.client, it.session)) {
            for (number, _) in &it.requests {
                if let Some((op, ruling)) = given.get(number) {
                    known.entry(*op).or_default().push((*number, ruling.clone()));
                }
            }
        }
        known
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn what_a_client_has_acknowledged_and_what_is_too_much_is_forgotten() {
        let mut answered = Answered::default();
        let of = (ClientId::new(1), SessionId::new(1));
        let number = RequestNumber::new;
        let large = Ruling::Replied(Bytes::from(vec![0; 1 << 20]));
        for request in 1..=5 {
            answered.give(of, number(request - 1), OpNumber::new(request), std::iter::once((number(request), &large)));
        }
        assert_eq!(answered.sessions.get(&of).map(BTreeMap::len), Some(1));
        for request in 6..=20 {
            answered.give(of, number(4), OpNumber::new(request), std::iter::once((number(request), &large)));
            assert!(answered.bytes <= ANSWERED_BYTES_MAX);
        }
        answered.give(of, number(20), OpNumber::new(21), std::iter::once((number(21), &Ruling::Evicted)));
        assert_eq!((answered.bytes, answered.sessions.len()), (0, 0));
    }
}
