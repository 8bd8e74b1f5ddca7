//! What happened, event by event: text and pictures are both made of it.
//!
//! A trace that nobody wants costs nothing: what would be kept is made by closures that are not called.

use crate::client::whose;
use crate::clock::MICRO;
use crate::faults::Fault;
use crate::registers;
use quorate_core::crypto::Digest;
use quorate_core::ids::{OpNumber, Peer, RecordSeq};
use quorate_core::outbox::Note;
use quorate_core::protocol::Status;
use std::collections::{BTreeMap, VecDeque};

/// Events that are kept; older ones are dropped, and counted.
pub const EVENTS_KEPT_MAX: usize = 100_000;
/// Longest text of a message or a reply that is kept, in characters; what is longer is cut.
pub const TEXT_CHARACTERS_MAX: usize = 200;

/// One frame on its way: a message that is sent to two replicas is two of them, one that arrives twice is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Travel {
    /// Names the frame; zero in a run that keeps no trace.
    pub id: u64,
    /// Who sent it.
    pub from: Peer,
    /// For whom it is.
    pub to: Peer,
    /// The message's name in the paper.
    pub label: &'static str,
}

/// A request as it was applied, and what it came to; in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// What was asked.
    pub request: String,
    /// What it came to; `None` if the client knows already.
    pub reply: Option<String>,
}

/// What can happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A message left. `content` is as [`quorate_core::protocol::Protocol::content`] gives it.
    Sent {
        /// Which.
        travel: Travel,
        /// What it says.
        content: String,
    },
    /// A message arrived and was handled.
    Arrived(Travel),
    /// A message came to a process that is not there any more.
    Missed(Travel),
    /// A message is lost by chance.
    Lost(Travel),
    /// A message found its link cut.
    Cut(Travel),
    /// A scenario keeps a message back.
    Held(Travel),
    /// A scenario lets go a message that it kept back.
    Released(Travel),
    /// A replica started.
    Started {
        /// Which.
        replica: usize,
        /// How often it has died before.
        life: u32,
    },
    /// A replica died. `fault` says of what, in a random run.
    Crashed {
        /// Which.
        replica: usize,
        /// Of what.
        fault: Option<Fault>,
    },
    /// A replica does not start from what its disk holds.
    Refused {
        /// Which.
        replica: usize,
        /// In its words.
        why: String,
    },
    /// A replica could not do something, and goes on.
    Failed {
        /// Which.
        replica: usize,
        /// What, in words.
        what: String,
    },
    /// A replica stands still.
    Paused(usize),
    /// A replica goes on as if it had not stood still.
    Resumed(usize),
    /// A replica stopped itself.
    Halted {
        /// Which.
        replica: usize,
        /// In its words.
        why: String,
    },
    /// A record was appended to a replica's log; it is not safe yet.
    Appended {
        /// Which replica.
        replica: usize,
        /// The record's place in the log.
        seq: RecordSeq,
        /// A promise or an entry.
        promise: bool,
    },
    /// Everything appended through this record is safe.
    Synced {
        /// Which replica.
        replica: usize,
        /// The record's place in the log.
        seq: RecordSeq,
    },
    /// A replica's machine has applied a batch.
    Executed {
        /// Which replica.
        replica: usize,
        /// As which entry.
        op: OpNumber,
        /// The digest of the batch.
        batch: Digest,
        /// The digest of the state after it.
        state: Digest,
        /// The batch, request by request.
        applied: Vec<Applied>,
    },
    /// A replica's machine was replaced by a checkpoint's.
    Installed {
        /// Which replica.
        replica: usize,
        /// The last entry that it contains.
        op: OpNumber,
        /// The digest of the state.
        state: Digest,
    },
    /// A replica noted something.
    Noted {
        /// Which replica.
        replica: usize,
        /// What.
        note: Note,
    },
    /// A replica's status is another one than before.
    Stated {
        /// Which replica.
        replica: usize,
        /// Its status from now on.
        status: Status,
    },
    /// A replica lies, or breaks its protocol in another way: an adversary's doing.
    Lied {
        /// Which replica.
        replica: usize,
        /// The lie, in words.
        lie: String,
    },
    /// A client calls.
    Called {
        /// Which client.
        client: usize,
        /// The call's index in the history.
        call: usize,
        /// What it asks for.
        asked: String,
        /// Does it ask for a read?
        reads: bool,
    },
    /// A client's call is over.
    Told {
        /// Which client.
        client: usize,
        /// The call's index in the history.
        call: usize,
        /// What it is told.
        told: String,
        /// Is that an answer, and not an excuse?
        answered: bool,
    },
    /// A client died, and another one has taken its place.
    ClientDied(usize),
    /// A fault that is no event of one process; in words.
    Fault {
        /// Which.
        fault: Fault,
        /// The replica that it strikes, if it is one.
        replica: Option<usize>,
        /// What it does.
        text: String,
    },
    /// The world gets better; in words.
    Healed(String),
    /// What a scenario has to say at this point.
    Said(String),
    /// A checker has found something.
    Violated {
        /// The property's name.
        property: &'static str,
        /// What was seen.
        detail: String,
    },
}

impl What {
    /// The replica to which it happens, or that does it; `None` for messages, clients and the world.
    pub fn replica(&self) -> Option<usize> {
        match self {
            What::Started { replica, .. }
            | What::Crashed { replica, .. }
            | What::Refused { replica, .. }
            | What::Failed { replica, .. }
            | What::Paused(replica)
            | What::Resumed(replica)
            | What::Halted { replica, .. }
            | What::Appended { replica, .. }
            | What::Synced { replica, .. }
            | What::Executed { replica, .. }
            | What::Installed { replica, .. }
            | What::Noted { replica, .. }
            | What::Stated { replica, .. }
            | What::Lied { replica, .. }
            | What::Fault { replica: Some(replica), .. } => Some(*replica),
            _ => None,
        }
    }
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Happened {
    /// When, virtual nanoseconds since the run began.
    pub at: u64,
    /// What.
    pub what: What,
}

/// All that is kept of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recording {
    /// The events, oldest first; at most [`EVENTS_KEPT_MAX`].
    pub events: Vec<Happened>,
    /// How many older ones were dropped.
    pub dropped: u64,
    /// How many replicas there are.
    pub replicas: usize,
    /// How many clients there are.
    pub clients: usize,
}

impl Recording {
    /// The events as text, a line each; what nobody reads is left out.
    pub fn lines(&self) -> impl Iterator<Item = String> + '_ {
        let mut contents = BTreeMap::new();
        self.events.iter().filter_map(move |Happened { at, what }| {
            if let What::Sent { travel, content } = what {
                contents.insert(travel.id, content.replace('\n', " · "));
            }
            let text = text(what, &contents)?;
            let micros = at / MICRO;
            Some(format!("{:>7}.{:03} ms  {text}", micros / 1000, micros % 1000))
        })
    }
}

/// The last [`EVENTS_KEPT_MAX`] events, if anybody wants them.
#[derive(Debug)]
pub struct Trace {
    events: Option<VecDeque<Happened>>,
    dropped: u64,
    travels: u64,
    statuses: BTreeMap<usize, Status>,
}

impl Trace {
    /// A trace that keeps events, or one that ignores them.
    pub fn new(wanted: bool) -> Self {
        Self { events: wanted.then(VecDeque::new), dropped: 0, travels: 0, statuses: BTreeMap::new() }
    }

    /// Something happened.
    pub fn add(&mut self, now: u64, what: impl FnOnce() -> What) {
        if let Some(events) = &mut self.events {
            if events.len() == EVENTS_KEPT_MAX {
                events.pop_front();
                self.dropped = self.dropped.saturating_add(1);
            }
            events.push_back(Happened { at: now, what: what() });
        }
    }

    /// A message leaves: gives it the name under which it will be lost or arrive.
    pub fn sent(
        &mut self,
        now: u64,
        (from, to): (Peer, Peer),
        label: &'static str,
        content: impl FnOnce() -> String,
    ) -> Travel {
        if self.events.is_none() {
            return Travel { id: 0, from, to, label };
        }
        self.travels = self.travels.saturating_add(1);
        let travel = Travel { id: self.travels, from, to, label };
        self.add(now, || What::Sent { travel, content: short(content()) });
        travel
    }

    /// A replica has had a turn: keeps its status if it changed.
    pub fn stated(&mut self, now: u64, replica: usize, status: impl FnOnce() -> Status) {
        if self.events.is_none() {
            return;
        }
        let status = status();
        if self.statuses.get(&replica) != Some(&status) {
            self.statuses.insert(replica, status.clone());
            self.add(now, || What::Stated { replica, status });
        }
    }

    /// What was kept.
    pub fn into_recording(self, replicas: usize, clients: usize) -> Recording {
        let events = self.events.map(Vec::from).unwrap_or_default();
        Recording { events, dropped: self.dropped, replicas, clients }
    }
}

/// At most [`TEXT_CHARACTERS_MAX`] characters of a text.
pub fn short(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(TEXT_CHARACTERS_MAX) {
        text.truncate(end);
        text.push('…');
    }
    text
}

/// The bytes of an operation, a query or an answer, in words: of the simulator's own machine, or text, or just how many.
pub fn words(bytes: &[u8]) -> String {
    let is_text = |text: &&str| text.chars().all(|c| !c.is_control()) && !text.is_empty();
    match registers::words(bytes) {
        Some(words) => words,
        None => match std::str::from_utf8(bytes).ok().filter(is_text) {
            Some(text) => short(text.to_owned()),
            None => format!("{} bytes", bytes.len()),
        },
    }
}

/// A process's name.
pub fn name(peer: Peer) -> String {
    match peer {
        Peer::Replica(id) => id.to_string(),
        Peer::Client(id) => match whose(id) {
            Some((client, 0)) => format!("C{client}"),
            Some((client, life)) => format!("C{client}.{life}"),
            None => id.to_string(),
        },
    }
}

/// A note in words.
pub fn note(note: &Note) -> String {
    match note {
        Note::Suspects(view) => format!("suspects the primary of view {view}"),
        Note::ViewChange(view) => format!("changes to view {view}"),
        Note::ViewStarted { view, primary, op } => format!("starts view {view}, led by {primary}, log up to {op}"),
        Note::Committed(op) => format!("knows {op} committed"),
        Note::Checkpointed(op) => format!("has the checkpoint at {op}"),
        Note::Repaired(op) => format!("has repaired {op}"),
        Note::Fetched(op) => format!("has fetched {op}"),
        Note::StateTransfer(op) => format!("fetches the checkpoint at {op}"),
        Note::RecoveringHead => "does not know the end of its log".to_owned(),
        Note::Other(text) => (*text).to_owned(),
    }
}

/// An event in words; `None` for one that another event tells better.
pub fn text(what: &What, contents: &BTreeMap<u64, String>) -> Option<String> {
    let travels = |it: &Travel, how: &str| {
        let content = contents.get(&it.id).map_or("", String::as_str);
        format!("{} → {}  {}{how}  {content}", name(it.from), name(it.to), it.label).trim_end().to_owned()
    };
    Some(match what {
        What::Sent { .. } | What::Appended { .. } => return None,
        What::Arrived(it) => travels(it, ""),
        What::Missed(it) => travels(it, " comes too late"),
        What::Lost(it) => travels(it, " is lost"),
        What::Cut(it) => travels(it, " finds its link cut"),
        What::Held(it) => travels(it, " is held"),
        What::Released(it) => travels(it, " is let go"),
        What::Started { replica, life } => format!("R{replica} starts (life {life})"),
        What::Crashed { replica, fault: None } => format!("R{replica} crashes"),
        What::Crashed { replica, fault: Some(fault) } => format!("R{replica} crashes ({fault})"),
        What::Refused { replica, why } => format!("R{replica} does not start: {why}"),
        What::Failed { replica, what } => format!("R{replica} {what}"),
        What::Paused(replica) => format!("R{replica} stands still"),
        What::Resumed(replica) => format!("R{replica} goes on"),
        What::Halted { replica, why } => format!("R{replica} halts: {why}"),
        What::Synced { replica, seq } => format!("R{replica} has records up to {seq} on disk"),
        What::Executed { replica, op, applied, .. } => {
            let applied: Vec<String> = applied.iter().map(Applied::text).collect();
            format!("R{replica} executes {op}: {}", applied.join(", "))
        }
        What::Installed { replica, op, .. } => format!("R{replica} installs the checkpoint at {op}"),
        What::Noted { replica, note: it } => format!("R{replica} {}", note(it)),
        What::Stated { replica, status } => format!("R{replica} is {}", self::status(status)),
        What::Lied { replica, lie } => format!("R{replica} lies: {lie}"),
        What::Called { client, asked, .. } => format!("C{client} asks: {asked}"),
        What::Told { client, told, .. } => format!("C{client} is told: {told}"),
        What::ClientDied(client) => format!("C{client} dies"),
        What::Fault { text, .. } | What::Healed(text) => text.clone(),
        What::Said(text) => format!("# {text}"),
        What::Violated { property, detail } => format!("VIOLATION of {property}: {detail}"),
    })
}

/// A status in one line.
pub fn status(status: &Status) -> String {
    let Status { role, view, op, committed, executed, checkpoint, missing } = status;
    let missing = if *missing == 0 { String::new() } else { format!(", missing {missing}") };
    format!(
        "{role}: view {view}, op {op}, committed {committed}, executed {executed}, checkpoint {checkpoint}{missing}"
    )
}

impl Applied {
    /// The request and what it came to.
    pub fn text(&self) -> String {
        match &self.reply {
            Some(reply) => format!("{} ⇒ {reply}", self.request),
            None => self.request.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_that_nobody_wants_asks_for_nothing() {
        let mut trace = Trace::new(false);
        trace.add(0, || panic!("nobody wants it"));
        let (from, to) = (Peer::Client(Default::default()), Peer::Replica(Default::default()));
        assert_eq!(trace.sent(0, (from, to), "Request", || panic!("nor this")).id, 0);
        trace.stated(0, 0, || panic!("nor that"));
        assert_eq!(trace.into_recording(3, 1).events, []);
    }

    #[test]
    fn a_trace_keeps_the_last_events_and_counts_the_others() {
        let mut trace = Trace::new(true);
        for at in 0..EVENTS_KEPT_MAX as u64 + 3 {
            trace.add(at, || What::Paused(0));
        }
        let recording = trace.into_recording(3, 1);
        assert_eq!((recording.events.len(), recording.dropped), (EVENTS_KEPT_MAX, 3));
        assert_eq!(recording.events.first().map(|event| event.at), Some(3));
    }

    #[test]
    fn bytes_are_put_into_words_whatever_they_are() {
        assert_eq!(words(b"add 1"), "add 1");
        assert_eq!(words(&[0xff, 0, 1]), "3 bytes");
        assert_eq!(words(b""), "0 bytes");
        assert_eq!(words("ø".repeat(300).as_bytes()).chars().count(), TEXT_CHARACTERS_MAX + 1);
    }
}
