//! What clients asked, when, and what they were told.

use bytes::Bytes;
use quorate_core::ids::OpNumber;
use quorate_core::protocol::{Answer, Call, CallError, Consistency};

/// A moment: moments of one run are totally ordered and no two are equal.
pub type Moment = u64;

/// One call of one client.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Which client, by its index; a client that died and came back is the same one here.
    pub client: usize,
    /// What it asked for.
    pub call: Call,
    /// When.
    pub invoked: Moment,
    /// The virtual time of that, nanoseconds.
    pub invoked_at: u64,
    /// What it was told, and when; `None` if nobody lived to hear it, or the run ended before.
    pub returned: Option<(Moment, Result<Answer, CallError>)>,
    /// Did the client die before it heard?
    pub abandoned: bool,
}

impl Entry {
    /// The bytes of the operation or query.
    pub fn bytes(&self) -> &Bytes {
        match &self.call {
            Call::Apply(bytes) | Call::Read(_, bytes) => bytes,
        }
    }

    /// The answer, if there is one.
    pub fn answer(&self) -> Option<&Answer> {
        self.returned.as_ref().and_then(|(_, result)| result.as_ref().ok())
    }

    /// Was the client told, truthfully one hopes, that the call had no effect?
    pub fn had_no_effect(&self) -> bool {
        match &self.returned {
            Some((_, Err(CallError::Timeout { maybe_applied } | CallError::Evicted { maybe_applied }))) => {
                !maybe_applied
            }
            Some((_, Err(CallError::Refused(_)))) => true,
            Some((_, Ok(_))) | None => false,
        }
    }

    /// The entry that a stale read was told to reflect at least.
    pub fn stale(&self) -> Option<OpNumber> {
        match self.call {
            Call::Read(Consistency::Stale { at_least }, _) => Some(at_least),
            _ => None,
        }
    }

    /// Does it change the state, and so take an entry of its own?
    pub fn is_write(&self) -> bool {
        matches!(self.call, Call::Apply(_))
    }

    /// Is somebody still waiting for the answer?
    pub fn is_pending(&self) -> bool {
        self.returned.is_none() && !self.abandoned
    }
}

/// All calls of a run, in the order in which they were made.
#[derive(Clone, Debug, Default)]
pub struct History {
    entries: Vec<Entry>,
    moment: Moment,
}

impl History {
    /// A call is made; returns its index.
    pub fn invoke(&mut self, client: usize, call: Call, now: u64) -> usize {
        let invoked = self.tick();
        self.entries.push(Entry { client, call, invoked, invoked_at: now, returned: None, abandoned: false });
        self.entries.len() - 1
    }

    /// A call is over.
    pub fn complete(&mut self, index: usize, result: Result<Answer, CallError>) {
        let moment = self.tick();
        if let Some(entry) = self.entries.get_mut(index) {
            entry.returned = Some((moment, result));
        }
    }

    /// The client that made this call is dead.
    pub fn abandon(&mut self, index: usize) {
        if let Some(entry) = self.entries.get_mut(index) {
            entry.abandoned = true;
        }
    }

    /// All calls.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// What `which` makes of each call, as if these were all.
    #[must_use]
    pub fn each(&self, which: impl Fn(&Entry) -> Option<Entry>) -> Self {
        Self { entries: self.entries.iter().filter_map(which).collect(), moment: self.moment }
    }

    /// The last moment that has passed.
    pub fn moment(&self) -> Moment {
        self.moment
    }

    fn tick(&mut self) -> Moment {
        self.moment = self.moment.saturating_add(1);
        self.moment
    }
}
