//! Calls to an event store.

use super::hints::{Hint, Hints};
use super::subscription::Subscription;
use bytes::Bytes;
use quorate_core::crypto::Digest;
use quorate_core::protocol::{CallError, Consistency, Protocol};
use quorate_machines::events::{
    Append, Appended, EventId, EventsError, Expected, Filter, GroupInfo, NewEvent, Operation, Page, Query, Read, Reply,
    Source, Status, StreamInfo, Taken,
};
use quorate_runtime::client::{Client, ClientError, ClientOptions, ConnectError};
use quorate_runtime::config::ClusterConfig;
use quorate_runtime::keys::KeyPair;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use thiserror::Error;
use tokio::sync::watch;

/// Why a call to an event store has no good answer.
#[derive(Clone, Debug, Error)]
pub enum StoreError {
    /// The store refuses: nothing was changed.
    #[error(transparent)]
    Refused(#[from] EventsError),
    /// There is no answer; it says whether the call may have been carried out.
    #[error(transparent)]
    Client(#[from] ClientError),
}

impl StoreError {
    /// Is it worth to ask again? An append that is repeated with the same ids is done once.
    pub fn is_worth_a_retry(&self) -> bool {
        matches!(
            self,
            Self::Client(ClientError::Call { error: CallError::Timeout { .. } | CallError::Evicted { .. }, .. })
        )
    }
}

/// A client of an event store. Cheap to clone; all clones share its sessions.
#[derive(Clone, Debug)]
pub struct EventStore {
    client: Client,
    hints: Arc<Hints>,
    criticality: Option<u8>,
}

impl EventStore {
    /// A client of the cluster that `config` describes. Dials in the background; the first call waits for it.
    ///
    /// # Errors
    /// [`ConnectError`], before anything is sent.
    pub fn connect<P: Protocol>(
        config: &ClusterConfig,
        key: &KeyPair,
        options: ClientOptions,
    ) -> Result<Self, ConnectError> {
        let client = Client::connect::<P>(config, key, options)?;
        Ok(Self::over(client, Client::connect::<P>(config, key, options)?))
    }

    /// Over two clients of the same cluster: one for calls, one for the hints that there is something new.
    pub fn over(client: Client, hints: Client) -> Self {
        let hints = Arc::new(Hints::new(client.clone(), hints));
        Self { client, hints, criticality: None }
    }

    /// The same store, whose operations are certified at this level of criticality from now on: by `2e + 1` of a committee of
    /// `3e + 1` replicas, so that e of them cannot choose the certified time; at most the f that the cluster bears, which refuses
    /// higher ones. `None` for the cluster's usual level. A lower level is this caller's risk and nobody else's. It needs a cluster that
    /// certifies receptions (`reception`).
    #[must_use]
    pub fn at_criticality(&self, level: Option<u8>) -> Self {
        Self { criticality: level, ..self.clone() }
    }

    /// Appends events to a stream, all or none.
    ///
    /// # Errors
    /// [`EventsError::WrongVersion`] if the stream is not where it is expected, and what else [`StoreError`] has.
    pub async fn append(
        &self,
        stream: impl Into<String>,
        expected: Expected,
        events: Vec<NewEvent>,
    ) -> Result<Appended, StoreError> {
        self.append_all(Append::to(stream, expected, events)).await
    }

    /// Appends to several streams, all or none.
    ///
    /// # Errors
    /// As [`EventStore::append`].
    pub async fn append_all(&self, append: Append) -> Result<Appended, StoreError> {
        Ok(self.apply(&Operation::Append(append)).await?.appended()?)
    }

    /// Reads a page of events, with everything in it that was acknowledged before.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn read(&self, read: Read) -> Result<Page, StoreError> {
        Ok(self.query(&Query::Read(read)).await?.page()?)
    }

    /// How a stream is.
    ///
    /// # Errors
    /// [`EventsError::NoStream`], and what else [`StoreError`] has.
    pub async fn stream(&self, stream: impl Into<String>) -> Result<StreamInfo, StoreError> {
        Ok(self.query(&Query::Stream { stream: stream.into() }).await?.stream()?)
    }

    /// How the store is.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn status(&self) -> Result<Status, StoreError> {
        Ok(self.query(&Query::Status).await?.status()?)
    }

    /// How a group is.
    ///
    /// # Errors
    /// [`EventsError::NoGroup`], and what else [`StoreError`] has.
    pub async fn group(&self, group: impl Into<String>) -> Result<GroupInfo, StoreError> {
        Ok(self.query(&Query::Group { group: group.into() }).await?.group()?)
    }

    /// Takes events of a group for a consumer, at most `limit`; 0 for as many as the group has in flight.
    ///
    /// # Errors
    /// [`EventsError::NoGroup`], [`EventsError::GroupFull`], and what else [`StoreError`] has.
    pub async fn take(
        &self,
        group: impl Into<String>,
        consumer: impl Into<String>,
        limit: u32,
    ) -> Result<Taken, StoreError> {
        let operation = Operation::Take { group: group.into(), consumer: consumer.into(), limit };
        Ok(self.apply(&operation).await?.taken()?)
    }

    /// The work on events of a group is done.
    ///
    /// # Errors
    /// As [`EventStore::take`].
    pub async fn ack(&self, group: impl Into<String>, numbers: Vec<u64>) -> Result<(), StoreError> {
        self.apply(&Operation::Ack { group: group.into(), numbers }).await?.result?;
        Ok(())
    }

    /// Follows a source from a number on: first what is there, then what comes.
    pub fn subscribe(&self, source: Source, filter: Filter, from: u64) -> Subscription {
        Subscription::new(self.clone(), source, filter, from, self.hints.listen())
    }

    /// Listens for news: what [`News::wait`] waits for from now on.
    pub fn news(&self) -> News {
        News { hints: self.hints.listen() }
    }

    /// Applies an operation, once.
    ///
    /// # Errors
    /// Only that there is no answer: a refusal is in the reply.
    pub async fn apply(&self, operation: &Operation) -> Result<Reply, StoreError> {
        let operation = Bytes::from(operation.encode()?);
        let answer = match self.criticality {
            Some(level) => self.client.apply_critical(level, operation).await?,
            None => self.client.apply(operation).await?,
        };
        Ok(Reply::decode(&answer.reply)?)
    }

    /// Asks a query; the answer has everything in it that was acknowledged before.
    ///
    /// # Errors
    /// As [`EventStore::apply`].
    pub async fn query(&self, query: &Query) -> Result<Reply, StoreError> {
        let answer = self.client.read(Consistency::Linearizable, Bytes::from(query.encode()?)).await?;
        Ok(Reply::decode(&answer.reply)?)
    }
}

/// Hints that something was appended.
#[derive(Debug)]
pub struct News {
    hints: watch::Receiver<Hint>,
}

impl News {
    /// Ends when something may have been appended since this was made, or since it last ended. A hint and no promise: whoever
    /// waits reads, and perhaps waits again.
    pub async fn wait(&mut self) {
        let _closed = self.hints.changed().await;
    }
}

/// Draws an event id that nobody else draws: from the random seeds that the standard library has for its hash maps.
pub fn draw_id() -> EventId {
    let draw = || RandomState::new().build_hasher().finish().to_le_bytes();
    let digest = Digest::of_parts(&[b"event id", &draw(), &draw(), &draw(), &std::process::id().to_le_bytes()]);
    EventId(digest.as_bytes().first_chunk().copied().unwrap_or_default())
}
