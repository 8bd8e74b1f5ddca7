//! One watch for all subscriptions of a program: it says when there may be something new, and is believed nothing else.
//!
//! A replica sends a hint for each append. One that lies, or is cut off, may keep silent; so the store is asked itself after
//! [`SILENCE_MAX`] without a hint, once for all subscriptions, and only while there are any.

use quorate_core::protocol::Consistency;
use quorate_machines::events::{EVENTS_TOPIC, Query, Reply};
use quorate_runtime::client::Client;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// Silence after which the store is asked itself.
const SILENCE_MAX: Duration = Duration::from_secs(2);
/// Between two attempts to watch a cluster that does not answer.
const RETRY: Duration = Duration::from_millis(300);

/// What is known without reading. Whoever listens reads when it changes, and believes none of it: a position that a liar sends
/// is not kept.
#[derive(Clone, Debug, Default)]
pub struct Hint {
    /// How many events the store had when it was last asked.
    position: u64,
    /// Why the cluster is not heard at the moment, if it is not.
    pub silent: Option<Arc<str>>,
}

/// Where hints come from. The watch begins with the first listener.
#[derive(Debug)]
pub struct Hints {
    client: Client,
    watched: Client,
    hint: watch::Sender<Hint>,
    task: OnceLock<AbortHandle>,
}

impl Hints {
    pub fn new(client: Client, watched: Client) -> Self {
        Self { client, watched, hint: watch::Sender::new(Hint::default()), task: OnceLock::new() }
    }

    /// Hears hints from now on. Called inside a runtime.
    pub fn listen(&self) -> watch::Receiver<Hint> {
        self.task.get_or_init(|| {
            let follow = follow(self.client.clone(), self.watched.clone(), self.hint.clone());
            tokio::spawn(follow).abort_handle()
        });
        self.hint.subscribe()
    }
}

impl Drop for Hints {
    fn drop(&mut self) {
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }
}

async fn follow(client: Client, watched: Client, hint: watch::Sender<Hint>) {
    loop {
        match watched.watch(EVENTS_TOPIC).await {
            Ok(events) => {
                ask(&client, &hint).await;
                listen(&client, events, &hint).await;
                tell(&hint, "the link to the replica that was listened to has ended");
            }
            Err(error) => tell(&hint, &error.to_string()),
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Passes hints on until the stream ends.
async fn listen(
    client: &Client,
    mut events: tokio::sync::mpsc::Receiver<Vec<quorate_core::sessions::Event>>,
    hint: &watch::Sender<Hint>,
) {
    loop {
        match tokio::time::timeout(SILENCE_MAX, events.recv()).await {
            Ok(None) => return,
            Ok(Some(_)) => hint.send_modify(|hint| hint.silent = None),
            Err(_) if hint.receiver_count() > 0 => ask(client, hint).await,
            Err(_) => {}
        }
    }
}

async fn ask(client: &Client, hint: &watch::Sender<Hint>) {
    let Ok(query) = Query::Status.encode() else { return };
    match client.read(Consistency::Linearizable, query).await {
        Ok(answer) => {
            let position = Reply::decode(&answer.reply).map_or(0, |reply| reply.position);
            hint.send_if_modified(|hint| {
                let news = position != hint.position || hint.silent.is_some();
                *hint = Hint { position, silent: None };
                news
            });
        }
        Err(error) => tell(hint, &error.to_string()),
    }
}

fn tell(hint: &watch::Sender<Hint>, why: &str) {
    hint.send_modify(|hint| hint.silent = Some(why.into()));
}
