//! Asks the cluster how it is, as long as somebody looks; and keeps what the pages show.

use super::history::{History, Point};
use super::tape::{Scene, Tape};
use super::{Look, Source};
use quorate_core::ids::ReplicaId;
use quorate_core::node::Recorded;
use quorate_core::protocol::Consistency;
use quorate_machines::kv::{Query, Reply, Response, Status};
use quorate_runtime::client::Client;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Between two questions about messages.
const MESSAGES_EVERY: Duration = Duration::from_millis(500);
/// How long a replica may take to tell of its messages.
const MESSAGES_PATIENCE: Duration = Duration::from_millis(400);
/// How long a linearizable read may take before it counts as none.
const READ_PATIENCE: Duration = Duration::from_millis(900);
/// How long after a page without a stream was sent the cluster is still asked: such a page comes again after 5 s.
const LINGER: Duration = Duration::from_secs(15);
/// How long a page waits for the first look.
const FIRST_LOOK_MAX: Duration = Duration::from_secs(3);
/// Lines of what happened that are kept.
const HAPPENED_MAX: usize = 40;

/// What is known now.
#[derive(Debug, Default)]
pub struct State {
    /// The last look.
    pub look: Look,
    /// Whether there was one since somebody began to look.
    pub fresh: bool,
    /// Rates.
    pub history: History,
    /// What the store says of itself, if the cluster answers.
    pub store: Option<Status>,
    /// The last messages.
    pub scene: Scene,
    /// What happened, newest first.
    pub happened: VecDeque<Line>,
    tape: Tape,
}

/// Something that happened, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Nanoseconds since 1970.
    pub at: u64,
    /// Whose it is, if a replica's.
    pub replica: Option<ReplicaId>,
    /// In words.
    pub words: String,
}

/// See the module.
#[derive(Debug)]
pub struct Sampler<S> {
    source: Arc<S>,
    client: Client,
    state: Mutex<State>,
    /// Counts what is new in the state.
    changes: watch::Sender<u64>,
    viewers: Mutex<Viewers>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Viewers {
    streams: usize,
    last_page: Option<Instant>,
}

/// Somebody who looks as long as the value lives.
#[derive(Debug)]
pub struct Viewer<S: Source>(Arc<Sampler<S>>);

impl<S: Source> Drop for Viewer<S> {
    fn drop(&mut self) {
        let mut viewers = self.0.viewers();
        viewers.streams = viewers.streams.saturating_sub(1);
    }
}

impl<S: Source> Sampler<S> {
    /// A sampler; [`Sampler::run`] is to be spawned.
    pub fn new(source: Arc<S>, client: Client) -> Self {
        Self {
            source,
            client,
            state: Mutex::default(),
            changes: watch::Sender::default(),
            viewers: Mutex::default(),
            wake: Notify::new(),
        }
    }

    /// Somebody looks, until the value is dropped; the receiver tells of changes.
    pub fn join(self: &Arc<Self>) -> (Viewer<S>, watch::Receiver<u64>) {
        self.viewers().streams += 1;
        self.wake.notify_waiters();
        (Viewer(self.clone()), self.changes.subscribe())
    }

    /// Somebody looks once: waits until there is something to see.
    pub async fn glance(&self) {
        self.viewers().last_page = Some(Instant::now());
        let mut changes = self.changes.subscribe();
        self.wake.notify_waiters();
        let fresh = async { while !self.state().fresh && changes.changed().await.is_ok() {} };
        let _shown_as_it_is = tokio::time::timeout(FIRST_LOOK_MAX, fresh).await;
    }

    /// What is known now.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something happened that is worth a line.
    pub fn happened(&self, words: String) {
        self.state().remember(Line { at: now(), replica: None, words });
        self.changed();
    }

    /// Looks at once, because something has been done. Rates are of looks a second apart, so this one is not among them.
    pub async fn look_again(&self) {
        let look = self.source.look().await;
        self.state().look = look;
        self.changed();
    }

    /// Asks, while somebody looks. Never ends.
    pub async fn run(self: Arc<Self>) {
        tokio::join!(self.looks(), self.messages());
    }

    async fn looks(&self) {
        loop {
            self.somebody().await;
            let began = tokio::time::Instant::now();
            self.look().await;
            tokio::time::sleep_until(began + LOOK_EVERY).await;
        }
    }

    async fn look(&self) {
        let read = async {
            let began = Instant::now();
            let status = tokio::time::timeout(READ_PATIENCE, self.read()).await.ok().flatten()?;
            Some((began.elapsed(), status))
        };
        let (look, read) = tokio::join!(self.source.look(), read);
        self.state().on_look(look, read);
        self.changed();
    }

    /// What the store says of itself, linearizably.
    async fn read(&self) -> Option<Status> {
        let query = Query::Status.encode().ok()?;
        let answer = self.client.read(Consistency::Linearizable, query).await.ok()?;
        match Reply::decode(&answer.reply).ok()?.result.ok()? {
            Response::Status(status) => Some(status),
            _ => None,
        }
    }

    async fn messages(&self) {
        loop {
            self.somebody().await;
            let began = tokio::time::Instant::now();
            self.ask_for_messages().await;
            tokio::time::sleep_until(began + MESSAGES_EVERY).await;
        }
    }

    async fn ask_for_messages(&self) {
        let replicas: Vec<(ReplicaId, u64)> = {
            let state = self.state();
            state.look.replicas.iter().map(|it| (it.replica, state.tape.next(it.replica))).collect()
        };
        let asked_at = now(); // what happened before this has been recorded by whoever answers
        let mut questions = JoinSet::new();
        for (replica, from) in replicas {
            let client = self.client.clone();
            questions.spawn(async move { (replica, client.recorded(replica, from, MESSAGES_PATIENCE).await) });
        }
        let answers: BTreeMap<_, _> = questions.join_all().await.into_iter().collect();
        self.state().on_messages(answers, asked_at);
        self.changed();
    }

    /// Waits until somebody looks. What was known when nobody did is forgotten, so that it is not shown as new.
    async fn somebody(&self) {
        loop {
            let woken = self.wake.notified();
            tokio::pin!(woken);
            woken.as_mut().enable(); // from here on no call is missed
            if self.viewers().is_anybody() {
                return;
            }
            self.state().forget();
            woken.await;
        }
    }

    fn changed(&self) {
        self.changes.send_modify(|number| *number = number.wrapping_add(1));
    }

    fn viewers(&self) -> MutexGuard<'_, Viewers> {
        self.viewers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Viewers {
    fn is_anybody(&self) -> bool {
        self.streams > 0 || self.last_page.is_some_and(|at| at.elapsed() < LINGER)
    }
}

impl State {
    /// What was known is not new any more.
    fn forget(&mut self) {
        self.fresh = false;
        self.history.interrupt();
        self.tape = Tape::default();
    }

    fn on_look(&mut self, look: Look, read: Option<(Duration, Status)>) {
        self.history.push(&look, read.as_ref().map(|(took, _)| *took), Instant::now());
        self.store = read.map(|(_, status)| status);
        self.look = look;
        self.fresh = true;
    }

    fn on_messages(&mut self, answers: BTreeMap<ReplicaId, Option<(Vec<Recorded>, u64)>>, asked_at: u64) {
        for (replica, answer) in answers {
            let (recorded, next) = answer.unwrap_or_else(|| (Vec::new(), self.tape.next(replica)));
            self.tape.add(replica, recorded, next, asked_at);
        }
        for mark in self.tape.marks() {
            self.remember(Line { at: mark.at, replica: Some(mark.replica), words: mark.words });
        }
        self.scene = self.tape.scene(asked_at);
    }

    /// Keeps a line, once, in its place in time.
    fn remember(&mut self, line: Line) {
        if self.happened.contains(&line) {
            return;
        }
        let place = self.happened.iter().position(|it| it.at <= line.at).unwrap_or(self.happened.len());
        self.happened.insert(place, line);
        self.happened.truncate(HAPPENED_MAX);
    }

    /// The newest point of the history.
    pub fn point(&self) -> Point {
        self.history.last()
    }
}

/// Nanoseconds since 1970.
pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(at: u64) -> Line {
        Line { at, replica: None, words: format!("{at}") }
    }

    #[test]
    fn what_happened_is_kept_once_newest_first_and_bounded() {
        let mut state = State::default();
        for at in [5, 9, 7, 9] {
            state.remember(line(at));
        }
        assert_eq!(state.happened.iter().map(|it| it.at).collect::<Vec<_>>(), [9, 7, 5]);
        (10..100).for_each(|at| state.remember(line(at)));
        assert_eq!(state.happened.len(), HAPPENED_MAX);
        assert_eq!(state.happened.front().map(|it| it.at), Some(99));
    }
}
