//! **Watches**: what a replica tells a watching client is the agreed row of events: in order, each once, without a gap, from
//! the state at which it said `Watching` on. Only another `Watching` may skip events (a state transfer): then the client
//! reads the state and goes on from there, which makes a watch resumable.
//!
//! Judged where a replica sends: links lose and repeat on the way, and that is the network's doing.

use quorate_core::ids::{ClientId, OpNumber};
use quorate_core::sessions::Event;
use std::collections::BTreeMap;

/// What was published, and what was told to whom.
#[derive(Debug, Default)]
pub struct Watches {
    /// The events of each entry that has any.
    agreed: BTreeMap<OpNumber, Vec<Event>>,
    /// The last entry whose events a replica, by its index, has told a client.
    streams: BTreeMap<(usize, ClientId), OpNumber>,
}

impl Watches {
    /// A replica has applied an entry that led to these events.
    pub fn published(&mut self, op: OpNumber, events: &[Event]) {
        if !events.is_empty() {
            self.agreed.entry(op).or_insert_with(|| events.to_vec());
        }
    }

    /// A replica that has applied everything up to `op` says that a client watches from here on.
    ///
    /// # Errors
    /// When it had told of later entries before.
    pub fn begins(&mut self, replica: usize, client: ClientId, op: OpNumber) -> Result<(), String> {
        match self.streams.insert((replica, client), op) {
            Some(told) if told > op => {
                Err(format!("R{replica} takes {client} back from entry {told} to {op} in its watch"))
            }
            _ => Ok(()),
        }
    }

    /// A replica tells a client these events.
    ///
    /// # Errors
    /// When they are not the next ones.
    pub fn told(&mut self, replica: usize, client: ClientId, events: &[Event]) -> Result<(), String> {
        let Some(last) = self.streams.get_mut(&(replica, client)) else {
            return Err(format!("R{replica} tells {client} events, and it does not watch"));
        };
        let Some((op, next)) = self.agreed.range(last.next()..).next() else {
            return Err(format!("R{replica} tells {client} events after entry {last}, and there are none"));
        };
        if next != events {
            let positions: Vec<_> = events.iter().map(|event| event.position.get()).collect();
            return Err(format!(
                "R{replica} tells {client} events at {positions:?} after entry {last}, where those of entry {op} are due"
            ));
        }
        *last = *op;
        Ok(())
    }

    /// A replica has died, or one of its clients has left.
    pub fn ends(&mut self, replica: usize, client: Option<ClientId>) {
        self.streams.retain(|(at, whose), _| *at != replica || client.is_some_and(|client| client != *whose));
    }

    /// A replica has applied everything up to `op` and told what it had to tell.
    ///
    /// # Errors
    /// Names the client that was not told.
    pub fn rests(&self, replica: usize, op: OpNumber) -> Result<(), String> {
        for ((_, client), last) in self.streams.iter().filter(|((at, _), _)| *at == replica) {
            if *last < op
                && let Some((missing, _)) = self.agreed.range(last.next()..=op).next()
            {
                return Err(format!("R{replica} has not told {client} the events of entry {missing}"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_core::ids::Position;

    const CLIENT: ClientId = ClientId::new(7);

    fn event(position: u64) -> Vec<Event> {
        vec![Event { position: Position::new(position), topic: 0, bytes: vec![9].into() }]
    }

    fn watching() -> Watches {
        let mut watches = Watches::default();
        for op in [2, 3, 5] {
            watches.published(OpNumber::new(op), &event(op));
        }
        assert_eq!(watches.begins(0, CLIENT, OpNumber::new(1)), Ok(()));
        assert_eq!(watches.told(0, CLIENT, &event(2)), Ok(()));
        watches
    }

    #[test]
    fn the_agreed_row_of_events_holds() {
        let mut watches = watching();
        assert_eq!(watches.told(0, CLIENT, &event(3)), Ok(()));
        assert_eq!(watches.told(0, CLIENT, &event(5)), Ok(()));
        assert_eq!(watches.rests(0, OpNumber::new(9)), Ok(()));
    }

    #[test]
    fn a_gap_is_caught() {
        assert!(watching().told(0, CLIENT, &event(5)).is_err());
    }

    #[test]
    fn an_event_that_is_told_twice_is_caught() {
        assert!(watching().told(0, CLIENT, &event(2)).is_err());
    }

    #[test]
    fn an_event_that_never_happened_is_caught() {
        assert!(watching().told(0, CLIENT, &event(4)).is_err());
    }

    #[test]
    fn a_watcher_that_is_not_told_the_last_event_is_caught() {
        assert!(watching().rests(0, OpNumber::new(3)).is_err());
        assert_eq!(watching().rests(1, OpNumber::new(3)), Ok(()));
    }

    #[test]
    fn only_another_watching_may_skip_events_and_never_backwards() {
        let mut watches = watching();
        assert_eq!(watches.begins(0, CLIENT, OpNumber::new(3)), Ok(()));
        assert_eq!(watches.told(0, CLIENT, &event(5)), Ok(()));
        assert!(watches.begins(0, CLIENT, OpNumber::new(3)).is_err());
    }

    #[test]
    fn whoever_does_not_watch_is_told_nothing() {
        let mut watches = watching();
        watches.ends(0, Some(CLIENT));
        assert!(watches.told(0, CLIENT, &event(3)).is_err());
    }
}
