//! Reading: pages of events, forwards and backwards; streams; what hides and frees events.

use super::asked::Parameters;
use super::limits::READ_EVENTS_DEFAULT;
use super::line::print;
use super::refusal::Refusal;
use crate::http::page;
use http::{Response, StatusCode};
use quorate::events::{
    EventStore, Expected, Operation, Page, Query, Read, Response as Answer, Source, StoreError, StreamInfo,
};
use serde_json::{Value, json};
use tonic::body::Body;

/// An answer of status 200.
pub fn answer(value: &Value) -> Response<Body> {
    page(StatusCode::OK, "application/json", format!("{value}\n"))
}

/// `GET` of a source.
pub async fn events(store: &EventStore, source: Source, mut parameters: Parameters) -> Result<Response<Body>, Refusal> {
    let filter = parameters.filter()?;
    let backwards = parameters.flag("backwards")?;
    let from = parameters.number("from")?.unwrap_or(if backwards { u64::MAX } else { 1 });
    let limit = parameters.number("limit")?.map_or(READ_EVENTS_DEFAULT, |it| u32::try_from(it).unwrap_or(u32::MAX));
    parameters.end()?;
    let found = store.read(Read { source: source.clone(), filter, from, backwards, limit }).await?;
    if found.events.is_empty()
        && let Source::Stream(stream) = source
    {
        exists(store.stream(stream).await?)?;
    }
    Ok(page(StatusCode::OK, "application/json", text(&found)?))
}

/// A page as JSON: each event as it stands in a line.
fn text(found: &Page) -> Result<String, Refusal> {
    let strange =
        |error: serde_json::Error| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "strange-event", error.to_string());
    let lines: Vec<String> = found.events.iter().map(print).collect::<Result<_, _>>().map_err(strange)?;
    Ok(format!("{{\"events\":[\n{}\n],\"next\":{},\"end\":{}}}\n", lines.join(",\n"), found.next, found.end))
}

/// Refuses a stream that is deleted.
fn exists(info: StreamInfo) -> Result<StreamInfo, Refusal> {
    let words = |how: &str| format!("stream `{}` {how}", info.stream);
    match (info.gone, info.deleted) {
        (true, _) => Err(Refusal::new(StatusCode::GONE, "stream-gone", words("was deleted for ever"))),
        (false, true) => {
            Err(Refusal::new(StatusCode::NOT_FOUND, "stream-deleted", words("is deleted"))
                .with("version", info.version))
        }
        (false, false) => Ok(info),
    }
}

/// `GET /v1/streams`: those that there have been, by name.
pub async fn streams(store: &EventStore, mut parameters: Parameters) -> Result<Response<Body>, Refusal> {
    let after = parameters.text("after")?.unwrap_or_default();
    let category = parameters.text("category")?.unwrap_or_default();
    let limit = parameters.number("limit")?.map_or(0, |it| u32::try_from(it).unwrap_or(u32::MAX));
    parameters.end()?;
    let found = store.query(&Query::Streams { after, category, limit }).await?.streams()?;
    Ok(answer(&json!({ "streams": found.iter().map(info).collect::<Vec<_>>() })))
}

/// `GET /v1/streams/STREAM/status`
pub async fn stream(store: &EventStore, stream: String, parameters: Parameters) -> Result<Response<Body>, Refusal> {
    parameters.end()?;
    Ok(answer(&info(&store.stream(stream).await?)))
}

fn info(info: &StreamInfo) -> Value {
    let StreamInfo { stream, version, first, deleted, gone } = info;
    json!({ "stream": stream, "version": version, "first": first, "deleted": deleted, "gone": gone })
}

/// `GET /v1/status`
pub async fn status(store: &EventStore, parameters: Parameters) -> Result<Response<Body>, Refusal> {
    parameters.end()?;
    let status = store.status().await?;
    Ok(answer(&json!({
        "position": status.position,
        "streams": status.streams,
        "events": status.events,
        "bytes": status.bytes,
        "groups": status.groups,
        "digest": status.digest.to_string(),
    })))
}

/// `DELETE /v1/streams/STREAM`: hides all its events.
pub async fn delete(store: &EventStore, stream: String, mut parameters: Parameters) -> Result<Response<Body>, Refusal> {
    let expected = match parameters.text("expected")?.as_deref() {
        None | Some("any") => Expected::Any,
        Some(text) => {
            let version = text.parse().map_err(|_| Refusal::bad("`expected` is any or a version"))?;
            Expected::Exact(version)
        }
    };
    let forever = parameters.flag("forever")?;
    parameters.end()?;
    done(store, &Operation::Delete { stream, expected, forever }).await
}

/// `POST /v1/streams/STREAM/truncate?before=VERSION`: hides the events before it.
pub async fn truncate(
    store: &EventStore,
    stream: String,
    mut parameters: Parameters,
) -> Result<Response<Body>, Refusal> {
    let before = parameters
        .number("before")?
        .ok_or_else(|| Refusal::bad("`before` is missing: the first version that stays"))?;
    parameters.end()?;
    done(store, &Operation::Truncate { stream, before }).await
}

/// `POST /v1/scavenge`: frees some of what is hidden, and says how much is left.
pub async fn scavenge(store: &EventStore, parameters: Parameters) -> Result<Response<Body>, Refusal> {
    parameters.end()?;
    let reply = store.apply(&Operation::Scavenge { limit: 0 }).await?;
    match reply.result? {
        Answer::Scavenged { freed, left } => Ok(answer(&json!({ "freed": freed, "left": left }))),
        _ => Err(quorate::events::EventsError::Undecodable.into()),
    }
}

/// Applies an operation that is done or refused.
pub async fn done(store: &EventStore, operation: &Operation) -> Result<Response<Body>, Refusal> {
    operation.encode()?;
    store.apply(operation).await?.result.map_err(StoreError::from)?;
    Ok(answer(&json!({ "done": true })))
}
