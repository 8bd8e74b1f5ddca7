//! Following a source: server-sent events (WHATWG HTML, "Server-sent events").
//!
//! Each event is a message whose id is its number. `Last-Event-ID`, which browsers and clients send when they come back, says where
//! to go on; what was sent to nobody meanwhile is read from the store. A reader that is slow is waited for: one page is held for
//! it, and nothing is left out.

use super::asked::Parameters;
use super::limits::{HEARTBEAT, PASSED_EVERY, SUBSCRIPTION_PAGE_EVENTS};
use super::line::print;
use super::refusal::Refusal;
use bytes::Bytes;
use http::Response;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue};
use http_body::Frame;
use http_body_util::StreamBody;
use quorate::events::{EventStore, EventsError, Item, Recorded, Source, StoreError, Subscription};
use serde_json::json;
use std::convert::Infallible;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;

/// The header in which a client says what it has seen.
const LAST_EVENT_ID: &str = "last-event-id";
/// Milliseconds after which a browser whose connection is broken comes back.
const RETRY_MILLIS: u64 = 1000;

type Out = mpsc::Sender<Result<Frame<Bytes>, Infallible>>;

/// The reader has gone.
struct Gone;

/// `GET` of a source by somebody who accepts `text/event-stream`.
pub async fn follow(
    store: &EventStore,
    source: Source,
    mut parameters: Parameters,
    headers: &HeaderMap,
    place: OwnedSemaphorePermit,
) -> Result<Response<Body>, Refusal> {
    let filter = parameters.filter()?;
    let from = parameters.number("from")?;
    parameters.end()?;
    let seen = headers.get(LAST_EVENT_ID).map(seen).transpose()?;
    let from = match (seen, from) {
        (Some(seen), _) => seen.saturating_add(1),
        (None, Some(from)) => from.max(1),
        (None, None) => end(store, &source).await?.saturating_add(1),
    };
    let subscription = store.subscribe(source.clone(), filter, from).with_pages_of(SUBSCRIPTION_PAGE_EVENTS);
    let (out, body) = mpsc::channel(1);
    tokio::spawn(async move {
        let _place = place;
        let _gone = tell(subscription, &source, from, &out).await;
    });
    let mut response = Response::new(Body::new(StreamBody::new(ReceiverStream::new(body))));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// The number that a client has seen. An empty one is that of a client that has seen nothing, with no id: as if it were not there,
/// it would begin at the end and miss what came meanwhile; our first message has an id, so no client of ours sends it.
fn seen(value: &HeaderValue) -> Result<u64, Refusal> {
    let number = value.to_str().ok().and_then(|text| text.trim().parse().ok());
    number.ok_or_else(|| Refusal::bad("`Last-Event-ID` is the number of an event"))
}

/// The last number of a source.
async fn end(store: &EventStore, source: &Source) -> Result<u64, Refusal> {
    let Source::Stream(stream) = source else { return Ok(store.status().await?.position) };
    match store.stream(stream.clone()).await {
        Ok(info) => Ok(info.version),
        Err(StoreError::Refused(EventsError::NoStream { .. })) => Ok(0),
        Err(error) => Err(error.into()),
    }
}

async fn tell(mut subscription: Subscription, source: &Source, from: u64, out: &Out) -> Result<(), Gone> {
    // Whoever breaks off before the first event comes back with this.
    send(out, format!("retry: {RETRY_MILLIS}\nid: {}\n\n", from.saturating_sub(1))).await?;
    let mut passed_at = Instant::now();
    loop {
        let item = {
            let mut next = std::pin::pin!(subscription.next());
            loop {
                tokio::select! {
                    item = &mut next => break item,
                    () = tokio::time::sleep(HEARTBEAT) => send(out, ":\n\n".to_owned()).await?,
                    () = out.closed() => return Err(Gone),
                }
            }
        };
        match item {
            Ok(Item::Events(events, next)) => {
                for event in &events {
                    send(out, message(event, source)).await?;
                }
                if events.last().is_some_and(|last| last.number(source) < next.saturating_sub(1)) {
                    send(out, id(next)).await?;
                }
            }
            Ok(Item::Passed(next)) => {
                if passed_at.elapsed() >= PASSED_EVERY {
                    passed_at = Instant::now();
                    send(out, id(next)).await?;
                }
            }
            Ok(Item::Live) => send(out, named("live", &json!({ "next": subscription.next_number() }))).await?,
            Ok(Item::Silent(why)) => send(out, named("silent", &json!({ "why": &*why }))).await?,
            Ok(Item::Heard) => send(out, named("heard", &json!({}))).await?,
            // No waiting helps: the reader is told, and the stream ends.
            Err(error) => return send(out, named("failed", &Refusal::from(error).value())).await,
        }
    }
}

async fn send(out: &Out, text: String) -> Result<(), Gone> {
    out.send(Ok(Frame::data(text.into()))).await.map_err(|_| Gone)
}

/// An event. Its line has no line break, so it is one line of data.
fn message(event: &Recorded, source: &Source) -> String {
    format!("id: {}\ndata: {}\n\n", event.number(source), print(event).unwrap_or_default())
}

/// A message without data is not shown to programs, and its id is kept.
fn id(next: u64) -> String {
    format!("id: {}\n\n", next.saturating_sub(1))
}

/// Something about the subscription.
fn named(name: &str, data: &serde_json::Value) -> String {
    format!("event: {name}\ndata: {data}\n\n")
}
