//! Projections: what a pure reducer makes of events, kept together with where in the source it is.
//!
//! The state and the first number that is not in it are one value, replaced as a whole, in memory as in the file: so each event
//! counts once, whatever fails between, and a projection that is thrown away is made again from any position whose state is known.

use super::store::{EventStore, StoreError};
use super::subscription::Item;
use borsh::{BorshDeserialize, BorshSerialize};
use quorate_core::crypto::Digest;
use quorate_machines::events::{Filter, Read, Recorded, Source};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use thiserror::Error;

/// A state that events make. The same events make the same state: it looks at nothing but itself and the event.
pub trait Projection: Clone + Default + Send + Sync + 'static {
    /// Its name, and the version of its rules: a checkpoint of another one is not gone on with.
    const NAME: &'static str;

    /// Takes an event in.
    ///
    /// # Errors
    /// What is wrong with the event, in words. Nothing of the page that holds it is taken in then.
    fn apply(&mut self, event: &Recorded) -> Result<(), String>;

    /// Its bytes.
    fn encode(&self) -> Vec<u8>;

    /// The state that bytes are.
    ///
    /// # Errors
    /// What is wrong with them, in words.
    fn decode(bytes: &[u8]) -> Result<Self, String>;
}

/// A state and its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint<P> {
    /// The state.
    pub state: P,
    /// The first number of the source that is not in it.
    pub next: u64,
}

impl<P: Default> Default for Checkpoint<P> {
    fn default() -> Self {
        Self { state: P::default(), next: 1 }
    }
}

/// Why a projection does not go on.
#[derive(Debug, Error)]
pub enum ProjectionError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An event that the projection cannot be made of.
    #[error("the event at position {position} (version {version} of stream `{stream}`) cannot be projected: {why}")]
    Unusable {
        /// Its position.
        position: u64,
        /// Its stream.
        stream: String,
        /// Its version.
        version: u64,
        /// What is wrong with it.
        why: String,
    },
    /// The file holds something else.
    #[error("{}: {why}", file.display())]
    Checkpoint {
        /// The file.
        file: PathBuf,
        /// What it holds.
        why: String,
    },
    /// The file cannot be read or written.
    #[error("{}: {source}", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// What a checkpoint's file holds, before the digest of these bytes.
#[derive(BorshSerialize, BorshDeserialize)]
struct Written {
    /// [`Projection::NAME`].
    name: String,
    /// The source and the filter, which must be the same when it is gone on with.
    source: Source,
    filter: Filter,
    next: u64,
    state: Vec<u8>,
}

/// Keeps a projection up to date.
#[derive(Debug)]
pub struct Projector<P> {
    store: EventStore,
    source: Source,
    filter: Filter,
    file: Option<PathBuf>,
    checkpoint: Checkpoint<P>,
}

/// What happened to a projection that is followed.
#[derive(Clone, Debug)]
pub enum Progress {
    /// So many events were taken in.
    Took(u64),
    /// The cluster is not heard, for this reason. It goes on by itself when it is.
    Silent(Arc<str>),
    /// The cluster is heard again.
    Heard,
}

impl<P: Projection> Projector<P> {
    /// A projection in memory, from a checkpoint: the beginning ([`Checkpoint::default`]), or any place whose state is known.
    pub fn from(store: EventStore, source: Source, filter: Filter, checkpoint: Checkpoint<P>) -> Self {
        Self { store, source, filter, file: None, checkpoint }
    }

    /// A projection that is kept in a file, and goes on from what is there.
    ///
    /// # Errors
    /// If the file cannot be read, is damaged, or is of another projection.
    pub fn open(store: EventStore, source: Source, filter: Filter, file: &Path) -> Result<Self, ProjectionError> {
        let wrong = |why: &str| ProjectionError::Checkpoint { file: file.to_owned(), why: why.to_owned() };
        let checkpoint = match fs::read(file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Checkpoint::default(),
            Err(source) => return Err(ProjectionError::File { file: file.to_owned(), source }),
            Ok(bytes) => {
                let (digest, body) = bytes.split_first_chunk::<32>().ok_or_else(|| wrong("it is no checkpoint"))?;
                if Digest::of(body).as_bytes() != digest {
                    return Err(wrong(
                        "it is damaged: remove it, and the projection is made again from the first event",
                    ));
                }
                let written: Written = borsh::from_slice(body).map_err(|_| wrong("it is no checkpoint"))?;
                if (written.name.as_str(), &written.source, &written.filter) != (P::NAME, &source, &filter) {
                    return Err(wrong("it is a checkpoint of another projection, or of other events"));
                }
                let state = P::decode(&written.state).map_err(|why| wrong(&why))?;
                Checkpoint { state, next: written.next }
            }
        };
        Ok(Self { store, source, filter, file: Some(file.to_owned()), checkpoint })
    }

    /// The state, and where it is.
    pub fn checkpoint(&self) -> &Checkpoint<P> {
        &self.checkpoint
    }

    /// Begins again from a checkpoint: the beginning, or any place whose state is known.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn rebuild_from(&mut self, checkpoint: Checkpoint<P>) -> Result<(), ProjectionError> {
        self.put(checkpoint)
    }

    /// Takes everything in that was acknowledged before. How many events that were.
    ///
    /// # Errors
    /// [`ProjectionError`]; what was taken in before is kept.
    pub async fn catch_up(&mut self) -> Result<u64, ProjectionError> {
        let mut took = 0_u64;
        loop {
            let read = Read {
                source: self.source.clone(),
                filter: self.filter.clone(),
                from: self.checkpoint.next,
                ..Read::default()
            };
            let page = self.store.read(read).await?;
            self.take(&page.events, page.next)?;
            took = took.saturating_add(page.events.len() as u64);
            if page.end {
                return Ok(took);
            }
        }
    }

    /// Follows the source, telling what happens, until `tell` says that it is enough by returning `false`.
    ///
    /// # Errors
    /// [`ProjectionError`]; not that the cluster is away: it goes on by itself when it is back.
    pub async fn follow(&mut self, mut tell: impl FnMut(&P, Progress) -> bool) -> Result<(), ProjectionError> {
        let mut subscription = self.store.subscribe(self.source.clone(), self.filter.clone(), self.checkpoint.next);
        loop {
            let progress = match subscription.next().await? {
                Item::Events(events, next) => {
                    self.take(&events, next)?;
                    Progress::Took(events.len() as u64)
                }
                Item::Silent(why) => Progress::Silent(why),
                Item::Heard => Progress::Heard,
                Item::Live | Item::Passed(_) => continue,
            };
            if !tell(&self.checkpoint.state, progress) {
                return Ok(());
            }
        }
    }

    /// Takes a page in: all of it, or nothing.
    fn take(&mut self, events: &[Recorded], next: u64) -> Result<(), ProjectionError> {
        if next == self.checkpoint.next {
            return Ok(());
        }
        let mut state = self.checkpoint.state.clone();
        for event in events {
            state.apply(event).map_err(|why| ProjectionError::Unusable {
                position: event.position,
                stream: event.stream.clone(),
                version: event.version,
                why,
            })?;
        }
        self.put(Checkpoint { state, next })
    }

    fn put(&mut self, checkpoint: Checkpoint<P>) -> Result<(), ProjectionError> {
        if let Some(file) = &self.file {
            let written = Written {
                name: P::NAME.to_owned(),
                source: self.source.clone(),
                filter: self.filter.clone(),
                next: checkpoint.next,
                state: checkpoint.state.encode(),
            };
            let failed = |source| ProjectionError::File { file: file.clone(), source };
            let body = borsh::to_vec(&written).map_err(failed)?;
            let digest = Digest::of(&body);
            replace_file(file, &[digest.as_bytes().as_slice(), &body].concat()).map_err(failed)?;
        }
        self.checkpoint = checkpoint;
        Ok(())
    }
}

/// Replaces a file's contents, all or nothing, also if the power fails.
///
/// # Errors
/// What the system says.
pub fn replace_file(file: &Path, contents: &[u8]) -> io::Result<()> {
    let mut aside = file.as_os_str().to_owned();
    aside.push(".new");
    let aside = PathBuf::from(aside);
    let mut new = File::create(&aside)?;
    new.write_all(contents)?;
    new.sync_all()?;
    fs::rename(&aside, file)?;
    let folder = file.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}
