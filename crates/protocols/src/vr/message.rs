//! What replicas and clients say to each other. Each variant says what the sender claims by sending it.

use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;
use quorate_core::crypto::Digest;
use quorate_core::ids::{ClientId, OpNumber, RequestNumber, SessionId, View};
use quorate_core::protocol::{Checkpoint, Consistency};
use quorate_core::sessions::{Batch, Body, OPERATION_BYTES_MAX, Ruling};
use quorate_core::wire::Wire;

/// Requests in one message at most.
pub const REQUESTS_MAX: usize = 1024;
/// Bytes of the batch of one entry at most: several operations of usual size, or one of the largest.
pub const BATCH_BYTES_MAX: usize = 2 * OPERATION_BYTES_MAX;
/// Headers in one message at most: two checkpoint intervals and a window.
pub const HEADERS_MAX: usize = 65_536;
/// Entries that one `GetEntries` asks for at most.
pub const ENTRIES_MAX: usize = 64;

/// Views and entries beyond this are nobody's: it leaves room to count on, whatever a peer says.
const NUMBER_MAX: u64 = 1 << 62;

/// A log entry without its batch. Its identity is (op, checksum), never the op alone (vr.md §2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Header {
    /// Its place in the log.
    pub op: OpNumber,
    /// The view in which it was first prepared. Does *not* say which log is newer (D3).
    pub view: View,
    /// The checksum of the entry before it.
    pub parent: Digest,
    /// The digest of its batch.
    pub batch: Digest,
    /// The length of its batch, bytes.
    pub bytes: u32,
}

impl Header {
    /// The entry's checksum: covers the batch by its digest and, by `parent`, everything before it.
    pub fn checksum(&self) -> Digest {
        let (op, view, bytes) = (self.op.get().to_le_bytes(), self.view.get().to_le_bytes(), self.bytes.to_le_bytes());
        Digest::of_parts(&[b"vr entry", &op, &view, self.parent.as_bytes(), self.batch.as_bytes(), &bytes])
    }
}

/// A log entry: one batch of requests.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Entry {
    /// Its header.
    pub header: Header,
    /// An encoded [`quorate_core::sessions::Batch`].
    pub batch: Bytes,
}

impl Entry {
    /// Is the batch the one that the header names?
    pub fn is_whole(&self) -> bool {
        self.batch.len() == self.header.bytes as usize && Digest::of(&self.batch) == self.header.batch
    }
}

/// What a replica knows of one entry of its log, in a DoViewChange (vr.md §2.4 step 2). A damaged entry is neither
/// `present` nor `nack`: it may be the acknowledged one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Vouch {
    /// The entry's header, if known.
    pub header: Option<Header>,
    /// The batch is here and readable.
    pub present: bool,
    /// This replica certainly never prepared it.
    pub nack: bool,
}

/// ⟨DoViewChange v, l, v', n, k, i⟩ (VRR §4.2): what the sender's log holds, and a promise to accept nothing in lower views.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct DoViewChange {
    /// The view to change to.
    pub view: View,
    /// The last view in which the sender's status was normal (v').
    pub log_view: View,
    /// The sender's own commit number (k, D13). The vouches start after it.
    pub committed: OpNumber,
    /// The checksum of entry `committed`: who has the same has the same log up to there.
    pub committed_checksum: Digest,
    /// The last checkpoint that is durable at the sender.
    pub checkpoint: Checkpoint,
    /// The sender's log after `committed`, entry by entry (l); its last entry is the op-number (n).
    pub vouches: Vec<Vouch>,
}

impl DoViewChange {
    /// The last entry of the sender's log (n).
    pub fn op(&self) -> OpNumber {
        self.committed.plus(self.vouches.len() as u64)
    }

    /// What the sender says of an entry; `None` outside its vouches.
    pub fn vouch(&self, op: OpNumber) -> Option<&Vouch> {
        let index = op.get().checked_sub(self.committed.get())?.checked_sub(1)?;
        self.vouches.get(usize::try_from(index).ok()?)
    }
}

/// ⟨StartView v, l, n, k⟩ (VRR §4.2): the view has started with this log.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct StartView {
    /// The view.
    pub view: View,
    /// The commit number (k).
    pub committed: OpNumber,
    /// The last checkpoint that is durable at the primary. Entries up to it may be gone from its log.
    pub checkpoint: Checkpoint,
    /// The entry before the first of `headers`, and its checksum.
    pub after: OpNumber,
    /// See `after`.
    pub after_checksum: Digest,
    /// The log after `after`, to its end.
    pub headers: Vec<Header>,
    /// Echo of a [`Message::GetView`]; zero if nobody asked.
    pub nonce: u64,
}

impl StartView {
    /// The last entry of the log (n).
    pub fn op(&self) -> OpNumber {
        self.after.plus(self.headers.len() as u64)
    }
}

/// A client's requests, or several of them in one message.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Request {
    /// Who asks (c). The link knows better; it counts only in what another replica passes on.
    pub client: ClientId,
    /// The client's session; zero to open one.
    pub session: SessionId,
    /// The client knows the answers up to and including this one.
    pub acknowledged: RequestNumber,
    /// Number (s) and operation of each.
    pub requests: Vec<(RequestNumber, Body)>,
}

/// Answers to requests of one entry.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Reply {
    /// The primary's view (v): the client learns whom to ask.
    pub view: View,
    /// The entry that ordered them.
    pub op: OpNumber,
    /// The session that they belong to.
    pub session: SessionId,
    /// Number (s) and ruling (x) of each.
    pub rulings: Vec<(RequestNumber, Ruling)>,
}

/// The words of Viewstamped Replication.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Message {
    /// Client → primary: order these. A backup passes them on.
    Request(Request),
    /// Primary → client: they were ordered, executed, and will never be undone.
    Reply(Reply),
    /// Primary → client: not now, a queue is full; nothing of that message was taken.
    Busy {
        /// The primary's view.
        view: View,
    },
    /// Client → replica: answer this query.
    Read {
        /// Names the read; never used twice by a client process.
        id: u64,
        /// How fresh.
        consistency: Consistency,
        /// The machine's query.
        query: Bytes,
    },
    /// Replica → client: the answer.
    ReadReply {
        /// The sender's view.
        view: View,
        /// The read's.
        id: u64,
        /// An entry that the answer reflects.
        op: OpNumber,
        /// The machine's answer.
        answer: Bytes,
    },
    /// Replica → client: only the primary answers that, and it is another one.
    NotPrimary {
        /// The sender's view.
        view: View,
    },

    /// Primary → backups ⟨Prepare v, m, n, k⟩: this is entry n.
    Prepare {
        /// The view (v).
        view: View,
        /// The entry (n, m).
        entry: Entry,
        /// The commit number (k).
        committed: OpNumber,
    },
    /// Backup → primary ⟨PrepareOk v, n, i⟩: entry `op` and every entry before it are on my disk, in this view.
    PrepareOk {
        /// The view (v).
        view: View,
        /// The entry (n).
        op: OpNumber,
        /// Its checksum.
        checksum: Digest,
        /// The last checkpoint that is durable at the sender.
        checkpoint: Checkpoint,
    },
    /// Primary → backups ⟨Commit v, k⟩, the heartbeat: I lead this view, and entries up to `committed` are committed.
    Commit {
        /// The view (v).
        view: View,
        /// The commit number (k).
        committed: OpNumber,
        /// The last entry: a backup that lacks it asks.
        op: OpNumber,
        /// The last checkpoint that is durable at the primary.
        checkpoint: Checkpoint,
        /// The last checkpoint's entry that is durable at a replication quorum: the log up to it may go.
        stable: OpNumber,
        /// Read rounds: an echo of this number proves that the primary still led when it asked.
        round: u64,
        /// The primary's clock when it sent this, for its own use when echoed (leases).
        sent: u64,
    },
    /// Backup → primary: I am in this view; and, with leases, I will not leave it for the agreed time.
    CommitOk {
        /// The view (v).
        view: View,
        /// Echo of the round.
        round: u64,
        /// Echo of the primary's clock.
        sent: u64,
        /// The last checkpoint that is durable at the sender.
        checkpoint: Checkpoint,
    },

    /// Anyone → all (VRR's StartViewChange, sent while still in the old view): I have not heard from this view's primary.
    ExitView {
        /// The view to leave.
        view: View,
    },
    /// Anyone → all; the new primary counts it.
    DoViewChange(DoViewChange),
    /// New primary → backups.
    StartView(StartView),
    /// Anyone → all: I have missed the start of this view, or of a later one; tell me.
    GetView {
        /// The sender's view.
        view: View,
        /// The sender's commit number: headers are wanted from there on.
        committed: OpNumber,
        /// Comes back.
        nonce: u64,
    },

    /// New primary → a replica whose log counts: what is between my commit number and what you vouched for?
    GetHeaders {
        /// The view that is about to start.
        view: View,
        /// The sender's commit number.
        after: OpNumber,
    },
    /// The sender's log after `after`. Empty if it begins later: the new primary is too far behind to lead.
    Headers {
        /// The view that is about to start.
        view: View,
        /// The entry before the first header.
        after: OpNumber,
        /// The log after it.
        headers: Vec<Header>,
    },

    /// To oneself: the entry at which a checkpoint is due is on this disk, and everything before it.
    CheckpointDue {
        /// The entry.
        op: OpNumber,
    },

    /// Anyone → anyone: send me these entries.
    GetEntries {
        /// Op and checksum of each.
        wanted: Vec<(OpNumber, Digest)>,
    },
    /// An entry, as asked for. Silence means nothing: never a nack.
    Entry(Entry),
}

impl Message {
    /// Why no correct peer sends this; `None` if one might.
    pub fn check(&self) -> Option<String> {
        let (view, op) = self.numbers();
        if view.get() > NUMBER_MAX || op.get() > NUMBER_MAX {
            return Some(format!("view {view} and entry {op} are not of this world"));
        }
        let too =
            |what: &str, count: usize, max: usize| (count > max).then(|| format!("{count} {what}, at most {max}"));
        match self {
            Message::Request(request) => too("requests", request.requests.len(), REQUESTS_MAX).or_else(|| {
                let longest = request.requests.iter().map(|(_, body)| body.len()).max().unwrap_or(0);
                too("bytes in an operation", longest, OPERATION_BYTES_MAX)
            }),
            Message::Read { query, .. } => too("bytes in a query", query.len(), OPERATION_BYTES_MAX),
            Message::Prepare { entry, committed, .. } => check_entry(entry).or_else(|| {
                (*committed >= entry.header.op).then(|| "a prepared entry is not committed yet".to_owned())
            }),
            Message::Entry(entry) => check_entry(entry),
            Message::DoViewChange(change) => too("vouches", change.vouches.len(), HEADERS_MAX)
                .or_else(|| {
                    (change.log_view >= change.view).then(|| "a log from a view not before this one".to_owned())
                })
                .or_else(|| {
                    let headers = change.vouches.iter().map(|vouch| vouch.header.as_ref());
                    check_ops(change.committed, headers)
                }),
            Message::StartView(start) => too("headers", start.headers.len(), HEADERS_MAX)
                .or_else(|| check_ops(start.after, start.headers.iter().map(Some)))
                .or_else(|| {
                    (start.committed > start.op()).then(|| "a log that ends before what is committed".to_owned())
                })
                .or_else(|| {
                    let first = start.headers.first();
                    let breaks = first.is_some_and(|first| first.parent != start.after_checksum);
                    breaks.then(|| format!("entry {} does not continue the log before it", start.after.next()))
                })
                .or_else(|| check_chain(&start.headers)),
            Message::Headers { after, headers, .. } => too("headers", headers.len(), HEADERS_MAX)
                .or_else(|| check_ops(*after, headers.iter().map(Some)))
                .or_else(|| check_chain(headers)),
            Message::GetEntries { wanted } => too("entries wanted", wanted.len(), ENTRIES_MAX),
            Message::Commit { committed, op, .. } => {
                (committed > op).then(|| format!("entry {committed} is committed in a log that ends at {op}"))
            }
            _ => None,
        }
    }

    /// The view, and the greatest entry that is not counted by what follows it.
    fn numbers(&self) -> (View, OpNumber) {
        let none = (View::ZERO, OpNumber::ZERO);
        match self {
            Message::Request(_) | Message::Reply(_) | Message::Read { .. } => none,
            Message::Busy { view }
            | Message::NotPrimary { view }
            | Message::ReadReply { view, .. }
            | Message::ExitView { view } => (*view, OpNumber::ZERO),
            Message::Prepare { view, entry, .. } => (*view, entry.header.op),
            Message::PrepareOk { view, op, checkpoint, .. } => (*view, (*op).max(checkpoint.op)),
            Message::Commit { view, op, checkpoint, stable, .. } => (*view, (*op).max(checkpoint.op).max(*stable)),
            Message::CommitOk { view, checkpoint, .. } => (*view, checkpoint.op),
            Message::DoViewChange(change) => (change.view, change.committed.max(change.checkpoint.op)),
            Message::StartView(start) => (start.view, start.after.max(start.committed).max(start.checkpoint.op)),
            Message::GetView { view, committed, .. } => (*view, *committed),
            Message::GetHeaders { view, after } | Message::Headers { view, after, .. } => (*view, *after),
            Message::CheckpointDue { op } => (View::ZERO, *op),
            Message::GetEntries { wanted } => (View::ZERO, wanted.iter().map(|(op, _)| *op).max().unwrap_or_default()),
            Message::Entry(entry) => (View::ZERO, entry.header.op),
        }
    }
}

impl Message {
    /// What it says, for people: see [`quorate_core::protocol::Protocol::content`].
    pub fn content(&self, words: &dyn Fn(&[u8]) -> String) -> String {
        let headers = |after: OpNumber, count: usize| match count {
            0 => format!("no entries after {after}"),
            1 => format!("entry {}", after.next()),
            _ => format!("entries {} to {}", after.next(), after.plus(count as u64)),
        };
        match self {
            Message::Request(it) => {
                let bodies: Vec<String> = it.requests.iter().map(|(_, body)| body.text(words)).collect();
                let numbers: Vec<String> = it.requests.iter().map(|(number, _)| number.to_string()).collect();
                format!("{}\nsession {}, request {}", bodies.join(", "), it.session, numbers.join(", "))
            }
            Message::Reply(it) => {
                let rulings: Vec<String> = it.rulings.iter().map(|(_, ruling)| ruling.text(words)).collect();
                format!("{}\nentry {} of view {}, session {}", rulings.join(", "), it.op, it.view, it.session)
            }
            Message::Busy { view } | Message::NotPrimary { view } => format!("\nview {view}"),
            Message::Read { id, consistency, query } => format!("{}\nread {id}, {consistency:?}", words(query)),
            Message::ReadReply { view, id, op, answer } => {
                format!("{}\nread {id}, as of entry {op}, in view {view}", words(answer))
            }
            Message::Prepare { view, entry, committed } => {
                format!("{}\nin view {view}; committed: {committed}", entry.content(words))
            }
            Message::PrepareOk { view, op, checkpoint, .. } => {
                format!(
                    "{op}\nentry {op} and all before it are on my disk, in view {view}; checkpoint {}",
                    checkpoint.op
                )
            }
            Message::Commit { view, committed, op, checkpoint, stable, round, .. } => {
                let (checkpoint, limit) = (checkpoint.op, stable);
                format!(
                    "{committed}\nI lead view {view}; committed: {committed} of {op} entries; round {round}; checkpoint \
                     {checkpoint}, logs may go up to {limit}"
                )
            }
            Message::CommitOk { view, round, checkpoint, .. } => {
                format!("\nI am in view {view}; round {round}; checkpoint {}", checkpoint.op)
            }
            Message::ExitView { view } => format!("{view}\nI have not heard from the primary of view {view}"),
            Message::DoViewChange(it) => {
                let (view, log_view, log) = (it.view, it.log_view, headers(it.committed, it.vouches.len()));
                let present = it.vouches.iter().filter(|vouch| vouch.present).count();
                format!(
                    "{view}\nto view {view}: my log is from view {log_view}; committed: {}, then {log}, {present} of them \
                     whole",
                    it.committed
                )
            }
            Message::StartView(it) => {
                let (view, log) = (it.view, headers(it.after, it.headers.len()));
                format!("{view}\nview {view} has started; committed: {}; the log: {log}", it.committed)
            }
            Message::GetView { view, committed, .. } => format!("{view}\nI know view {view}, committed: {committed}"),
            Message::GetHeaders { view, after } => format!("after {after}\nfor view {view}"),
            Message::Headers { view, after, headers: them } => {
                format!("{}\nfor view {view}", headers(*after, them.len()))
            }
            Message::CheckpointDue { op } => format!("{op}\n"),
            Message::GetEntries { wanted } => {
                let ops: Vec<String> = wanted.iter().map(|(op, _)| op.to_string()).collect();
                format!("{}\n", ops.join(", "))
            }
            Message::Entry(entry) => format!("{}\nfirst prepared in view {}", entry.content(words), entry.header.view),
        }
    }
}

impl Entry {
    fn content(&self, words: &dyn Fn(&[u8]) -> String) -> String {
        let batch = Batch::decode(&self.batch).map_or_else(|_| "?".to_owned(), |batch| batch.text(words));
        format!("{}: {batch}", self.header.op)
    }
}

fn check_entry(entry: &Entry) -> Option<String> {
    if entry.header.op == OpNumber::ZERO {
        return Some("the first entry has number 1".to_owned());
    }
    if entry.batch.len() > BATCH_BYTES_MAX {
        return Some(format!("{} bytes in a batch, at most {BATCH_BYTES_MAX}", entry.batch.len()));
    }
    (!entry.is_whole()).then(|| "a batch that is not the one that its header names".to_owned())
}

fn check_ops<'a>(after: OpNumber, headers: impl Iterator<Item = Option<&'a Header>>) -> Option<String> {
    let mut op = after;
    for header in headers {
        op = op.next();
        if header.is_some_and(|header| header.op != op) {
            return Some(format!("a header that is not the one of entry {op}"));
        }
    }
    None
}

fn check_chain(headers: &[Header]) -> Option<String> {
    let mut pairs = headers.iter().zip(headers.iter().skip(1));
    let broken = pairs.find(|(one, next)| next.parent != one.checksum());
    broken.map(|(_, next)| format!("entry {} does not continue the log before it", next.op))
}
