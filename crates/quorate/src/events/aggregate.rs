//! Aggregates: things that decide by their own history.
//!
//! An [`Aggregate`] is two pure functions: `handle` decides, from the state and a command, which events happen or why none does;
//! `apply` is what an event does to the state, and cannot fail: it has happened. [`Repository`] loads an aggregate from its
//! stream, handles a command, and appends at the version that it was loaded at; if somebody else was faster, it loads again.

use super::store::{EventStore, StoreError, draw_id};
use quorate_machines::events::{
    Append, Appended, EventId, EventsError, Expected, NewEvent, Read, Recorded, Source, Write,
};
use std::fmt::{Debug, Display};
use std::marker::PhantomData;
use thiserror::Error;

/// How often a command is handled anew because somebody else was faster.
const ATTEMPTS_MAX: usize = 16;

/// Something that decides by its own history.
pub trait Aggregate: Default + Clone + Send + Sync + 'static {
    /// The category of its streams: the stream of the one with the name `7` is `CATEGORY-7`.
    const CATEGORY: &'static str;
    /// What it can be asked to do.
    type Command;
    /// What can happen to it.
    type Event: Event;
    /// Why it does not do what it is asked to.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Decides: the events that happen, in order. Looks at nothing but the state and the command.
    ///
    /// # Errors
    /// Why nothing happens.
    fn handle(&self, command: Self::Command) -> Result<Vec<Self::Event>, Self::Error>;

    /// What an event does.
    fn apply(&mut self, event: &Self::Event);
}

/// What can happen: how it is written down and read again.
pub trait Event: Clone + Debug + PartialEq + Send + Sync + 'static {
    /// Its type.
    fn kind(&self) -> &'static str;

    /// Its data.
    fn encode(&self) -> Vec<u8>;

    /// The event that a type and data are, in any version that was ever written: here old forms are made new ones ("upcasting").
    ///
    /// # Errors
    /// What is wrong with it, in words. The aggregate cannot be loaded then: leaving events out would be a lie.
    fn decode(kind: &str, data: &[u8]) -> Result<Self, String>;
}

/// An aggregate as it was loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded<A> {
    /// Its state.
    pub state: A,
    /// How many events have happened to it.
    pub version: u64,
}

/// Why a command was not carried out.
#[derive(Debug, Error)]
pub enum CommandError<E: std::error::Error + 'static> {
    /// The aggregate does not do it. Nothing happened.
    #[error("{0}")]
    Rejected(E),
    /// An event in its stream cannot be read.
    #[error("version {version} of stream `{stream}` cannot be read: {why}")]
    Unreadable {
        /// The stream.
        stream: String,
        /// The version.
        version: u64,
        /// What is wrong with it.
        why: String,
    },
    /// Events that make the state were hidden (truncated, or the stream was deleted): the rest would make another one.
    #[error("events of stream `{stream}` after version {version} are hidden: go on from a snapshot of a later version")]
    Hidden {
        /// The stream.
        stream: String,
        /// The version of the state that they are missing for.
        version: u64,
    },
    /// Others were faster, again and again. Nothing happened.
    #[error("others changed the same aggregate {ATTEMPTS_MAX} times meanwhile; nothing was done")]
    Contended,
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Aggregates of one kind, in a store.
#[derive(Clone, Debug)]
pub struct Repository<A> {
    store: EventStore,
    of: PhantomData<fn() -> A>,
}

impl<A: Aggregate> Repository<A> {
    /// The aggregates of this kind in a store.
    pub fn new(store: EventStore) -> Self {
        Self { store, of: PhantomData }
    }

    /// The stream of the aggregate with this name.
    pub fn stream(name: impl Display) -> String {
        format!("{}-{name}", A::CATEGORY)
    }

    /// Loads an aggregate: its state after everything that was acknowledged before. One without events is as by default.
    ///
    /// # Errors
    /// [`CommandError`]
    pub async fn load(&self, name: impl Display) -> Result<Loaded<A>, CommandError<A::Error>> {
        let mut loaded = Loaded { state: A::default(), version: 0 };
        self.catch_up(&Self::stream(name), &mut loaded).await?;
        Ok(loaded)
    }

    /// Brings an aggregate that was loaded before up to date. What [`Repository::load`] gave is a *snapshot*: kept anywhere, and as
    /// old as may be, it saves reading what is in it, and events that are in it may be truncated.
    ///
    /// # Errors
    /// [`CommandError`]
    pub async fn load_from(
        &self,
        name: impl Display,
        snapshot: Loaded<A>,
    ) -> Result<Loaded<A>, CommandError<A::Error>> {
        let mut loaded = snapshot;
        self.catch_up(&Self::stream(name), &mut loaded).await?;
        Ok(loaded)
    }

    async fn catch_up(&self, stream: &str, loaded: &mut Loaded<A>) -> Result<(), CommandError<A::Error>> {
        let source = Source::Stream(stream.to_owned());
        loop {
            let from = loaded.version.saturating_add(1);
            let page = self.store.read(Read { source: source.clone(), from, ..Read::default() }).await?;
            // Versions have no gaps: where there is one, events are hidden.
            let hidden = |version| CommandError::Hidden { stream: stream.to_owned(), version };
            for event in &page.events {
                if event.version != loaded.version.saturating_add(1) {
                    return Err(hidden(loaded.version));
                }
                loaded.state.apply(&decode::<A>(event)?);
                loaded.version = event.version;
            }
            if page.next > loaded.version.saturating_add(1) {
                return Err(hidden(loaded.version));
            }
            if page.end {
                return Ok(());
            }
        }
    }

    /// Carries a command out, and says where its events are; `None` if nothing had to happen.
    ///
    /// # Errors
    /// [`CommandError`]
    pub async fn execute(
        &self,
        name: impl Display,
        command: A::Command,
    ) -> Result<Option<Appended>, CommandError<A::Error>>
    where
        A::Command: Clone,
    {
        self.execute_all([(name, command)]).await
    }

    /// Carries commands to several aggregates out, all or none. All events have one correlation.
    ///
    /// # Errors
    /// [`CommandError`]
    pub async fn execute_all<N: Display>(
        &self,
        commands: impl IntoIterator<Item = (N, A::Command)>,
    ) -> Result<Option<Appended>, CommandError<A::Error>>
    where
        A::Command: Clone,
    {
        let commands: Vec<_> = commands.into_iter().map(|(name, command)| (Self::stream(name), command)).collect();
        let mut known = vec![Loaded { state: A::default(), version: 0 }; commands.len()];
        for _ in 0..ATTEMPTS_MAX {
            let correlation = draw_id();
            let mut writes = Vec::new();
            for ((stream, command), loaded) in commands.iter().zip(&mut known) {
                self.catch_up(stream, loaded).await?;
                let events = loaded.state.handle(command.clone()).map_err(CommandError::Rejected)?;
                let events = events.iter().map(|event| new_event(event, correlation)).collect();
                writes.push(Write { stream: stream.clone(), expected: Expected::Exact(loaded.version), events });
            }
            if writes.iter().all(|write| write.events.is_empty()) {
                return Ok(None);
            }
            match self.persist(Append { writes }).await {
                Ok(appended) => return Ok(Some(appended)),
                Err(StoreError::Refused(EventsError::WrongVersion { .. })) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(CommandError::Contended)
    }

    /// Appends; what got no answer is sent once more with the same ids, and so done once.
    async fn persist(&self, append: Append) -> Result<Appended, StoreError> {
        match self.store.append_all(append.clone()).await {
            Err(error) if error.is_worth_a_retry() => self.store.append_all(append).await,
            other => other,
        }
    }
}

fn new_event<E: Event>(event: &E, correlation: EventId) -> NewEvent {
    NewEvent {
        id: draw_id(),
        kind: event.kind().to_owned(),
        data: event.encode().into(),
        correlation: Some(correlation),
        ..NewEvent::default()
    }
}

fn decode<A: Aggregate>(event: &Recorded) -> Result<A::Event, CommandError<A::Error>> {
    A::Event::decode(&event.kind, &event.data).map_err(|why| CommandError::Unreadable {
        stream: event.stream.clone(),
        version: event.version,
        why,
    })
}

/// A test of an aggregate: given what has happened, when it is asked to do something, then this happens.
///
/// ```
/// use quorate::events::{Aggregate, Event, Given};
///
/// #[derive(Clone, Debug, PartialEq)]
/// struct Lit(bool);
///
/// impl Event for Lit {
///     fn kind(&self) -> &'static str {
///         "lit"
///     }
///     fn encode(&self) -> Vec<u8> {
///         vec![u8::from(self.0)]
///     }
///     fn decode(_: &str, data: &[u8]) -> Result<Self, String> {
///         Ok(Lit(data == [1]))
///     }
/// }
///
/// #[derive(Clone, Default)]
/// struct Lamp(bool);
///
/// impl Aggregate for Lamp {
///     const CATEGORY: &'static str = "lamp";
///     type Command = bool;
///     type Event = Lit;
///     type Error = std::fmt::Error;
///
///     fn handle(&self, on: bool) -> Result<Vec<Lit>, Self::Error> {
///         Ok(if self.0 == on { vec![] } else { vec![Lit(on)] })
///     }
///     fn apply(&mut self, event: &Lit) {
///         self.0 = event.0;
///     }
/// }
///
/// Given::<Lamp>::nothing().when(true).then([Lit(true)]);
/// Given::<Lamp>::events([Lit(true)]).when(true).then([]);
/// ```
#[derive(Clone, Debug)]
pub struct Given<A> {
    state: A,
}

/// What an aggregate did.
#[derive(Clone, Debug)]
pub struct When<A: Aggregate> {
    result: Result<Vec<A::Event>, String>,
}

impl<A: Aggregate> Given<A> {
    /// Nothing has happened.
    pub fn nothing() -> Self {
        Self { state: A::default() }
    }

    /// This has happened. Each event is written down and read again on the way, as a store would do.
    ///
    /// # Panics
    /// If an event is not read as it was written.
    pub fn events(events: impl IntoIterator<Item = A::Event>) -> Self {
        let mut given = Self::nothing();
        for event in events {
            let again = A::Event::decode(event.kind(), &event.encode());
            assert_eq!(again.as_ref(), Ok(&event), "an event is read as it was written");
            given.state.apply(&event);
        }
        given
    }

    /// It is asked to do this.
    pub fn when(self, command: A::Command) -> When<A> {
        When { result: self.state.handle(command).map_err(|error| error.to_string()) }
    }
}

impl<A: Aggregate> When<A> {
    /// Exactly this happens.
    ///
    /// # Panics
    /// If something else does.
    pub fn then(self, events: impl IntoIterator<Item = A::Event>) {
        let expected: Vec<_> = events.into_iter().collect();
        assert_eq!(self.result, Ok(expected));
    }

    /// It does not do it, and this is part of what it says.
    ///
    /// # Panics
    /// If it does, or says something else.
    pub fn then_fails(self, words: &str) {
        match self.result {
            Err(said) => assert!(said.contains(words), "it says: {said}"),
            Ok(events) => panic!("it did {events:?}"),
        }
    }
}
