//! Exactly once. Sessions are opened by an ordered operation, requests are numbered, and the table of replies is part of
//! the replicated state and of every checkpoint (vr.md §2.7, CT1-CT7; VRR §4.1).
//!
//! Sessions are *windowed*: a client keeps up to [`WINDOW`] requests in flight and says with each batch which of them it
//! has seen answered, which lets the table drop those replies. Deduplication happens here, where operations are applied,
//! and nowhere else: it sees committed requests only, so a truncated entry leaves no trace (CT2).

use crate::crypto::Digest;
use crate::ids::{ClientId, Position, RequestNumber, SessionId};
use crate::mutated;
use crate::time::WallTime;
use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;
use imbl::OrdMap;
use std::collections::BTreeMap;
use std::io;

/// Requests that one session may have in flight.
pub const WINDOW: u64 = 1024;
/// Operation or query that a client may send, bytes.
pub const OPERATION_BYTES_MAX: usize = 1536 * 1024;
/// Sessions that the table holds; one more evicts the one whose last request is oldest.
pub const SESSIONS_MAX: usize = 4096;
/// Reply bytes that the table holds; more evict the session that holds most.
pub const REPLY_BYTES_MAX: usize = 64 * 1024 * 1024;
/// What a stored reply counts besides its bytes: empty ones need memory too.
pub const REPLY_OVERHEAD_BYTES: usize = 64;

/// What a client asks to be ordered.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Body {
    /// Open a session (CT1).
    Register,
    /// Apply an operation of the machine.
    Apply(Bytes),
    /// Answer a query at this place in the order.
    Query(Bytes),
    /// Close the session: its client is leaving.
    Close,
    /// Apply an operation of the machine, at this level of criticality. For protocols that have levels; whoever has none applies it
    /// like any other.
    Critical(u8, Bytes),
}

impl Body {
    /// Bytes that it brings, for budgets.
    pub fn len(&self) -> usize {
        match self {
            Body::Register | Body::Close => 0,
            Body::Apply(bytes) | Body::Query(bytes) | Body::Critical(_, bytes) => bytes.len(),
        }
    }

    /// Does it bring no bytes?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// For people; `words` puts the machine's bytes into words.
    pub fn text(&self, words: &dyn Fn(&[u8]) -> String) -> String {
        match self {
            Body::Register => "open a session".to_owned(),
            Body::Apply(bytes) | Body::Query(bytes) | Body::Critical(_, bytes) => words(bytes),
            Body::Close => "close the session".to_owned(),
        }
    }
}

/// A client's request, as ordered.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Request {
    /// Where the reply goes.
    pub client: ClientId,
    /// The session; zero for [`Body::Register`].
    pub session: SessionId,
    /// The request's number in its session.
    pub number: RequestNumber,
    /// The client has seen the answers to all requests up to and including this one.
    pub acknowledged: RequestNumber,
    /// What is asked.
    pub body: Body,
}

impl Request {
    /// What a leader's machine has added to a batch, in the place of a request: nobody's, in no session. No client can send it
    /// under a protocol that checks that clients sign for their own addresses, for nobody has the key of this one.
    pub fn of_machine(made: Bytes) -> Self {
        let (client, session, none) = (ClientId::new(0), SessionId::ZERO, RequestNumber::ZERO);
        Self { client, session, number: none, acknowledged: none, body: Body::Apply(made) }
    }

    /// What the machine has added, if this is that.
    pub fn made(&self) -> Option<&Bytes> {
        match &self.body {
            Body::Apply(made) if self.client == ClientId::new(0) && self.session == SessionId::ZERO => Some(made),
            _ => None,
        }
    }
}

/// What one log entry orders: requests of any clients, at one agreed time.
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Batch {
    /// The leader's clock. The agreed time is the greatest seen so far: it never goes back.
    pub time: WallTime,
    /// Does the machine get the tick that it asked for?
    pub tick: bool,
    /// The requests, in order.
    pub requests: Vec<Request>,
}

impl Batch {
    /// Does it neither hold a request nor give the machine a tick nor move the time?
    pub fn is_nothing(&self) -> bool {
        self.requests.is_empty() && !self.tick && self.time == WallTime::default()
    }

    /// The requests for people, separated by commas; `words` puts the machine's bytes into words.
    pub fn text(&self, words: &dyn Fn(&[u8]) -> String) -> String {
        let tick = self.tick.then(|| "tick".to_owned());
        let requests = self.requests.iter().map(|request| request.body.text(words));
        let all: Vec<String> = tick.into_iter().chain(requests).collect();
        if all.is_empty() { "nothing".to_owned() } else { all.join(", ") }
    }
}

/// What a request came to.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Ruling {
    /// The session is open.
    Opened(SessionId),
    /// The machine's reply. The same bytes whenever the same request is ordered again.
    Replied(Bytes),
    /// There is no such session (any more).
    Evicted,
    /// The number is more than [`WINDOW`] beyond what the client has acknowledged. Not kept: a copy of the request that is
    /// ordered later may be applied, so the client asks again rather than report that nothing happened.
    OutsideWindow,
    /// The number was used for another request (CT4).
    Reused,
    /// The session is closed.
    Closed,
}

impl Ruling {
    /// For people; `words` puts the machine's bytes into words.
    pub fn text(&self, words: &dyn Fn(&[u8]) -> String) -> String {
        match self {
            Ruling::Opened(session) => format!("session {session} is open"),
            Ruling::Replied(reply) => words(reply),
            Ruling::Evicted => "no such session".to_owned(),
            Ruling::OutsideWindow => "outside the window".to_owned(),
            Ruling::Reused => "the number was used before".to_owned(),
            Ruling::Closed => "the session is closed".to_owned(),
        }
    }
}

/// A ruling and whom it is for.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Reply {
    /// Whom it is for.
    pub client: ClientId,
    /// The session of the request.
    pub session: SessionId,
    /// The number of the request.
    pub number: RequestNumber,
    /// What it came to.
    pub ruling: Ruling,
}

/// An event that the machine published.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Event {
    /// Where it was published.
    pub position: Position,
    /// The machine's topic.
    pub topic: u32,
    /// The machine's bytes.
    pub bytes: Bytes,
}

/// What the batch of one entry came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Replies, in order. Requests whose answer the client has acknowledged have none.
    pub replies: Vec<Reply>,
    /// Events, in order.
    pub events: Vec<Event>,
    /// When the machine next wants a tick to be ordered.
    pub wake: Option<WallTime>,
}

#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
struct Stored {
    check: [u8; 8],
    reply: Bytes,
}

impl Stored {
    fn weight(&self) -> u64 {
        self.reply.len().saturating_add(REPLY_OVERHEAD_BYTES) as u64
    }
}

/// A map whose clone costs nothing and shares what does not change. Its bytes are those of a sorted map.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Map<K: Ord + Clone, V: Clone>(OrdMap<K, V>);

impl<K: Ord + Clone, V: Clone> Default for Map<K, V> {
    fn default() -> Self {
        Self(OrdMap::new())
    }
}

impl<K: Ord + Clone + BorshSerialize, V: Clone + BorshSerialize> BorshSerialize for Map<K, V> {
    fn serialize<W: io::Write>(&self, writer: &mut W) -> io::Result<()> {
        let length = u32::try_from(self.0.len()).map_err(|_| io::ErrorKind::InvalidData)?;
        length.serialize(writer)?;
        self.0.iter().try_for_each(|(key, value)| {
            key.serialize(writer)?;
            value.serialize(writer)
        })
    }
}

impl<K: Ord + Clone + BorshDeserialize, V: Clone + BorshDeserialize> BorshDeserialize for Map<K, V> {
    fn deserialize_reader<R: io::Read>(reader: &mut R) -> io::Result<Self> {
        BTreeMap::<K, V>::deserialize_reader(reader).map(|map| Self(map.into_iter().collect()))
    }
}

#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
struct Session {
    client: ClientId,
    active: Position,
    acknowledged: RequestNumber,
    reply_bytes: u64,
    replies: Map<RequestNumber, Stored>,
}

/// What the table says of a request that is being applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Not seen before: apply it, then [`Sessions::store`] the reply.
    Fresh,
    /// Seen before: this is the answer.
    Answered(Ruling),
    /// Seen before, and the client has said that it knows the answer.
    Acknowledged,
}

/// The table: sessions and their last replies.
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Sessions {
    sessions: Map<SessionId, Session>,
    by_client: Map<ClientId, SessionId>,
    reply_bytes: u64,
}

impl Sessions {
    /// Opens a session named after `position`. A client process has one: asking again gives the same.
    pub fn open(&mut self, client: ClientId, position: Position) -> SessionId {
        if let Some(&session) = self.by_client.0.get(&client) {
            return session;
        }
        while self.sessions.0.len() >= SESSIONS_MAX {
            self.evict_oldest();
        }
        let session = SessionId::new(position.get());
        let empty = Session {
            client,
            active: position,
            acknowledged: RequestNumber::ZERO,
            reply_bytes: 0,
            replies: Map::default(),
        };
        self.sessions.0.insert(session, empty);
        self.by_client.0.insert(client, session);
        session
    }

    /// Closes a session.
    pub fn close(&mut self, session: SessionId) {
        if let Some(gone) = self.sessions.0.remove(&session) {
            self.by_client.0.remove(&gone.client);
            self.reply_bytes = self.reply_bytes.saturating_sub(gone.reply_bytes);
        }
    }

    /// Looks a request up, and forgets the replies that its client has acknowledged.
    pub fn admit(&mut self, request: &Request, position: Position) -> Admission {
        let Some(session) = self.sessions.0.get_mut(&request.session).filter(|it| it.client == request.client) else {
            return Admission::Answered(Ruling::Evicted);
        };
        if request.acknowledged > session.acknowledged {
            session.acknowledged = request.acknowledged;
            let mut dropped = 0_u64;
            while let Some((number, stored)) =
                session.replies.0.iter().next().filter(|it| *it.0 <= request.acknowledged)
            {
                dropped = dropped.saturating_add(stored.weight());
                let number = *number;
                session.replies.0.remove(&number);
            }
            session.reply_bytes = session.reply_bytes.saturating_sub(dropped);
            self.reply_bytes = self.reply_bytes.saturating_sub(dropped);
        }
        session.active = position;
        if mutated!("sessions/no-deduplication") {
            return Admission::Fresh;
        }
        if request.number <= session.acknowledged {
            return Admission::Acknowledged;
        }
        match session.replies.0.get(&request.number) {
            Some(stored) if stored.check != check(&request.body) => Admission::Answered(Ruling::Reused),
            Some(stored) => Admission::Answered(Ruling::Replied(stored.reply.clone())),
            None if request.number.since(session.acknowledged) > WINDOW => Admission::Answered(Ruling::OutsideWindow),
            None => Admission::Fresh,
        }
    }

    /// Keeps the reply to a fresh request until the client acknowledges it.
    pub fn store(&mut self, request: &Request, reply: Bytes) {
        let Some(session) = self.sessions.0.get_mut(&request.session) else { return };
        let stored = Stored { check: check(&request.body), reply };
        session.reply_bytes = session.reply_bytes.saturating_add(stored.weight());
        self.reply_bytes = self.reply_bytes.saturating_add(stored.weight());
        if mutated!("sessions/only-the-last-reply") {
            session.replies.0.clear();
        }
        session.replies.0.insert(request.number, stored);
        while self.reply_bytes > REPLY_BYTES_MAX as u64 && self.sessions.0.len() > 1 {
            self.evict_greediest();
        }
    }

    /// How many sessions are open.
    pub fn len(&self) -> usize {
        self.sessions.0.len()
    }

    /// Is no session open?
    pub fn is_empty(&self) -> bool {
        self.sessions.0.is_empty()
    }

    /// Not the oldest: one client that acknowledges nothing would push all others out before itself.
    fn evict_greediest(&mut self) {
        let greediest =
            self.sessions.0.iter().max_by_key(|(id, session)| (session.reply_bytes, **id)).map(|(id, _)| *id);
        if let Some(greediest) = greediest {
            self.close(greediest);
        }
    }

    fn evict_oldest(&mut self) {
        let oldest = self.sessions.0.iter().min_by_key(|(id, session)| (session.active, **id)).map(|(id, _)| *id);
        if let Some(oldest) = oldest {
            self.close(oldest);
        }
    }
}

fn check(body: &Body) -> [u8; 8] {
    let (tag, bytes): (&[u8], &[u8]) = match body {
        Body::Register => (&[0], &[]),
        Body::Apply(bytes) => (&[1], bytes),
        Body::Query(bytes) => (&[2], bytes),
        Body::Close => (&[3], &[]),
        Body::Critical(level, bytes) => (&[4, *level], bytes),
    };
    let digest = Digest::of_parts(&[tag, bytes]);
    digest.as_bytes().first_chunk().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(session: SessionId, number: u64, acknowledged: u64, body: &'static [u8]) -> Request {
        Request {
            client: ClientId::new(9),
            session,
            number: RequestNumber::new(number),
            acknowledged: RequestNumber::new(acknowledged),
            body: Body::Apply(Bytes::from_static(body)),
        }
    }

    fn replied(bytes: &'static [u8]) -> Admission {
        Admission::Answered(Ruling::Replied(Bytes::from_static(bytes)))
    }

    #[test]
    fn a_request_ordered_twice_is_applied_once_and_answered_twice() {
        let mut table = Sessions::default();
        let session = table.open(ClientId::new(9), Position::new(5));
        let first = request(session, 1, 0, b"x");
        assert_eq!(table.admit(&first, Position::new(6)), Admission::Fresh);
        table.store(&first, Bytes::from_static(b"done"));
        assert_eq!(table.admit(&first, Position::new(7)), replied(b"done"));
    }

    #[test]
    fn one_number_for_two_different_requests_is_refused() {
        let mut table = Sessions::default();
        let session = table.open(ClientId::new(9), Position::new(5));
        let first = request(session, 1, 0, b"x");
        table.store(&first, Bytes::new());
        assert_eq!(table.admit(&request(session, 1, 0, b"y"), Position::new(6)), Admission::Answered(Ruling::Reused));
    }

    #[test]
    fn an_acknowledged_reply_is_forgotten_and_its_request_never_applied_again() {
        let mut table = Sessions::default();
        let session = table.open(ClientId::new(9), Position::new(5));
        let first = request(session, 1, 0, b"x");
        table.store(&first, Bytes::from_static(b"done"));
        assert_eq!(table.admit(&request(session, 2, 1, b"y"), Position::new(6)), Admission::Fresh);
        assert_eq!(table.reply_bytes, 0);
        assert_eq!(table.admit(&first, Position::new(7)), Admission::Acknowledged);
    }

    #[test]
    fn a_client_cannot_run_further_ahead_than_the_window() {
        let mut table = Sessions::default();
        let session = table.open(ClientId::new(9), Position::new(5));
        assert_eq!(table.admit(&request(session, WINDOW, 0, b""), Position::new(6)), Admission::Fresh);
        let beyond = request(session, WINDOW + 1, 0, b"");
        assert_eq!(table.admit(&beyond, Position::new(6)), Admission::Answered(Ruling::OutsideWindow));
    }

    #[test]
    fn the_session_that_was_idle_longest_makes_room_and_its_client_is_told() {
        let mut table = Sessions::default();
        let sessions: Vec<_> = (0..SESSIONS_MAX as u64)
            .map(|index| table.open(ClientId::new(u128::from(index)), Position::new(index + 1)))
            .collect();
        let mut first = request(sessions[0], 1, 0, b"");
        first.client = ClientId::new(0);
        assert_eq!(table.admit(&first, Position::new(90_000)), Admission::Fresh);
        table.open(ClientId::new(u128::MAX), Position::new(90_001));
        assert_eq!(table.len(), SESSIONS_MAX);
        assert_eq!(table.admit(&first, Position::new(90_002)), Admission::Fresh);
        let mut second = request(sessions[1], 1, 0, b"");
        second.client = ClientId::new(1);
        assert_eq!(table.admit(&second, Position::new(90_003)), Admission::Answered(Ruling::Evicted));
    }

    #[test]
    fn a_client_that_acknowledges_nothing_is_evicted_before_those_who_do() {
        let mut table = Sessions::default();
        let honest = table.open(ClientId::new(1), Position::new(1));
        let greedy = table.open(ClientId::new(9), Position::new(2));
        let reply = Bytes::from(vec![0; REPLY_BYTES_MAX / 8]);
        for number in 1..=8 {
            table.store(&request(greedy, number, 0, b"x"), reply.clone());
        }
        assert_eq!(table.len(), 1);
        assert!(table.sessions.0.contains_key(&honest));
        assert_eq!(table.reply_bytes, 0);
    }

    #[test]
    fn empty_replies_are_not_free() {
        let mut table = Sessions::default();
        let session = table.open(ClientId::new(9), Position::new(5));
        (1..=WINDOW).for_each(|number| table.store(&request(session, number, 0, b"x"), Bytes::new()));
        assert_eq!(table.reply_bytes, WINDOW * REPLY_OVERHEAD_BYTES as u64);
        table.admit(&request(session, WINDOW + 1, WINDOW, b"y"), Position::new(6));
        assert_eq!(table.reply_bytes, 0);
    }

    #[test]
    fn a_client_that_asks_twice_for_a_session_gets_one() {
        let mut table = Sessions::default();
        let session = table.open(ClientId::new(9), Position::new(5));
        assert_eq!(table.open(ClientId::new(9), Position::new(6)), session);
        assert_eq!(table.len(), 1);
    }
}
