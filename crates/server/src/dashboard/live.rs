//! Server-sent events: what is new, while somebody looks. A browser that reads slowly gets fewer and newer pictures, never a
//! queue of old ones.

use super::Source;
use super::browse::{Trouble, event_rows};
use super::overview::{Parts, Show, parts};
use super::sampler::Sampler;
use bytes::Bytes;
use http_body::Frame;
use quorate_runtime::client::Client;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_stream::wrappers::ReceiverStream;

/// Silence after which a comment says that the stream is still there.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// Between two questions for new events.
const EVENTS_EVERY: Duration = Duration::from_millis(500);
/// Between two pictures at least.
const PICTURE_EVERY: Duration = Duration::from_millis(200);

/// The frames of a stream's body.
pub type Frames = ReceiverStream<Result<Frame<Bytes>, Infallible>>;

type Sender = mpsc::Sender<Result<Frame<Bytes>, Infallible>>;

/// The browser has gone.
struct Gone;

async fn send(out: &Sender, text: String) -> Result<(), Gone> {
    out.send(Ok(Frame::data(text.into()))).await.map_err(|_| Gone)
}

/// JSON has no line breaks but escaped ones, so it is one line of data.
fn event(name: &str, data: &impl serde::Serialize) -> String {
    let data = serde_json::to_string(data).unwrap_or_default();
    format!("event: {name}\ndata: {data}\n\n")
}

/// The first page's parts, whenever they change. `token` is that of the buttons, if there are any.
pub fn overview<S: Source>(
    sampler: Arc<Sampler<S>>,
    token: Option<String>,
    store: bool,
    place: OwnedSemaphorePermit,
) -> Frames {
    let (out, frames) = mpsc::channel(1);
    tokio::spawn(async move {
        let _place = place;
        let (_viewer, mut changes) = sampler.join();
        let mut sent = Parts::new();
        loop {
            changes.mark_unchanged();
            let fresh = {
                let state = sampler.state();
                if state.fresh { parts(&state, Show { token: token.as_deref(), store }) } else { Parts::new() }
            };
            let news: Parts = fresh.into_iter().filter(|(name, html)| sent.get(name) != Some(html)).collect();
            let text = if news.is_empty() { ":\n\n".to_owned() } else { event("parts", &news) };
            sent.extend(news);
            if send(&out, text).await.is_err() {
                return;
            }
            tokio::time::sleep(PICTURE_EVERY).await;
            let changed = tokio::select! {
                changed = tokio::time::timeout(HEARTBEAT, changes.changed()) => changed,
                () = out.closed() => return,
            };
            if matches!(changed, Ok(Err(_))) {
                return;
            }
        }
    });
    ReceiverStream::new(frames)
}

/// Events of keys with this prefix from a revision on, as rows, whenever there are new ones. Each is read linearizably, so
/// no replica is believed alone; a cluster that does not answer is asked again.
pub fn events(client: Client, prefix: Vec<u8>, from: i64, place: OwnedSemaphorePermit) -> Frames {
    let (out, frames) = mpsc::channel(1);
    tokio::spawn(async move {
        let _place = place;
        let mut next = from;
        let mut silent = tokio::time::Instant::now();
        loop {
            let text = match event_rows(&client, &prefix, next).await {
                Ok((rows, after, _)) => {
                    next = after.max(next);
                    (!rows.is_empty()).then(|| event("rows", &rows))
                }
                Err(Trouble::Compacted(revision)) => {
                    next = revision.saturating_add(1).max(next);
                    None
                }
                Err(Trouble::Other(_)) => None,
            };
            let text = text.or_else(|| (silent.elapsed() >= HEARTBEAT).then(|| ":\n\n".to_owned()));
            if let Some(text) = text {
                if send(&out, text).await.is_err() {
                    return;
                }
                silent = tokio::time::Instant::now();
            }
            tokio::select! {
                () = tokio::time::sleep(EVENTS_EVERY) => {}
                () = out.closed() => return,
            }
        }
    });
    ReceiverStream::new(frames)
}
