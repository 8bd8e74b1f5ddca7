//! A store with its place in the log: what a test talks to.

use quorate_core::crypto::Digest;
use quorate_core::ids::{Position, SessionId};
use quorate_core::machine::{At, Entropy, Output, Query as _, Sink, Snapshot, Source as _, StateMachine, View};
use quorate_core::time::WallTime;
use quorate_machines::Events;
use quorate_machines::events::*;

pub struct Bench {
    pub events: Events,
    position: u64,
    pub seconds: u64,
    pub published: Vec<u64>,
}

impl Bench {
    pub fn new() -> Self {
        Self { events: Events::new(), position: 0, seconds: 1_000, published: Vec::new() }
    }

    pub fn raw(&mut self, bytes: &[u8]) -> Reply {
        self.position += 1;
        let at = At {
            position: Position::new(self.position),
            time: WallTime::from_nanos(self.seconds * 1_000_000_000),
            session: SessionId::new(1),
            entropy: Entropy::Bytes(*Digest::of(&self.position.to_le_bytes()).as_bytes()),
        };
        let mut out = Output::default();
        self.events.apply(&at, bytes, &mut out);
        let (reply, published) = out.take();
        for (topic, bytes) in published {
            assert_eq!(topic, EVENTS_TOPIC);
            self.published.push(borsh::from_slice::<Published>(&bytes).unwrap().position);
        }
        Reply::decode(&reply).unwrap()
    }

    /// Encodes past the client's own check, so that the machine's is what is tested.
    pub fn reply(&mut self, operation: &Operation) -> Reply {
        self.raw(&borsh::to_vec(operation).unwrap())
    }

    pub fn ok(&mut self, operation: Operation) -> Response {
        self.reply(&operation).result.unwrap()
    }

    /// A refusal, which must leave everything as it was.
    pub fn refused(&mut self, operation: Operation) -> EventsError {
        let (digest, contents, published) = (self.events.digest(), stream(&self.events), self.published.len());
        let error = self.reply(&operation).result.unwrap_err();
        assert_eq!(self.events.digest(), digest, "a refused operation changed the digest");
        assert!(stream(&self.events) == contents, "a refused operation changed the state");
        assert_eq!(self.published.len(), published, "a refused operation published something");
        error
    }

    pub fn append(&mut self, stream: &str, expected: Expected, events: Vec<NewEvent>) -> Appended {
        self.reply(&append(stream, expected, events)).appended().unwrap()
    }

    pub fn query(&self, query: &Query) -> Reply {
        let mut reply = Vec::new();
        self.events.view().query(&borsh::to_vec(query).unwrap(), &mut reply);
        Reply::decode(&reply).unwrap()
    }

    pub fn page(&self, read: Read) -> Page {
        self.query(&Query::Read(read)).page().unwrap()
    }

    /// All numbers of a source, and what stands there.
    pub fn all(&self, source: &Source) -> Vec<(u64, String)> {
        let page = self.page(Read { source: source.clone(), ..Read::default() });
        assert!(page.end);
        page.events.iter().map(|event| (event.number(source), data(event))).collect()
    }

    pub fn status(&self) -> Status {
        self.query(&Query::Status).status().unwrap()
    }

    pub fn info(&self, stream: &str) -> StreamInfo {
        self.query(&Query::Stream { stream: stream.to_owned() }).stream().unwrap()
    }

    pub fn group(&self, group: &str) -> GroupInfo {
        self.query(&Query::Group { group: group.to_owned() }).group().unwrap()
    }
}

pub fn data(event: &Recorded) -> String {
    String::from_utf8(event.data.to_vec()).unwrap()
}

pub fn id(number: u64) -> EventId {
    EventId(u128::from(number).to_be_bytes())
}

pub fn event(number: u64, data: &str) -> NewEvent {
    NewEvent { id: id(number), kind: "happened".to_owned(), data: data.to_owned().into(), ..NewEvent::default() }
}

pub fn append(stream: &str, expected: Expected, events: Vec<NewEvent>) -> Operation {
    Operation::Append(Append::to(stream, expected, events))
}

pub fn of_stream(name: &str) -> Source {
    Source::Stream(name.to_owned())
}

pub fn of_category(name: &str) -> Source {
    Source::Category(name.to_owned())
}

pub fn stream(events: &Events) -> Vec<u8> {
    let mut source = events.snapshot();
    let mut bytes = Vec::new();
    while source.next(1000, &mut bytes) {}
    bytes
}

pub fn restored(bytes: &[u8]) -> Result<Events, quorate_core::machine::Corrupt> {
    let mut sink = Events::rebuild();
    sink.push(bytes)?;
    sink.finish()
}
