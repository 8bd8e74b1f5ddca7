//! Appending: one stream, or several, all or none.

use super::asked::{Arrived, Few, Parameters, json};
use super::limits::IDEMPOTENCY_KEY_BYTES_MAX;
use super::line::{Defaults, parse};
use super::refusal::Refusal;
use crate::http::page;
use http::{HeaderMap, Response, StatusCode};
use quorate::Digest;
use quorate::events::limits::{APPEND_EVENTS_MAX, WRITES_MAX};
use quorate::events::{Append, EventId, EventStore, Expected, NewEvent, Operation, Write, draw_id};
use serde::Deserialize;
use serde_json::value::RawValue;
use tonic::body::Body;

/// The header that gives events their ids, when they have none of their own.
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// One event, or several.
#[derive(Deserialize)]
#[serde(transparent)]
struct Events<'a>(#[serde(borrow)] Few<&'a RawValue, APPEND_EVENTS_MAX>);

/// What is appended to several streams.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Writes<'a> {
    #[serde(borrow)]
    writes: Few<GivenWrite<'a>, WRITES_MAX>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GivenWrite<'a> {
    stream: String,
    #[serde(default)]
    expected: GivenExpected,
    #[serde(borrow, default)]
    events: Few<&'a RawValue, APPEND_EVENTS_MAX>,
}

/// `"any"`, `"none"`, or a version.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(untagged)]
enum GivenExpected {
    #[default]
    Any,
    Version(u64),
    Word(String),
}

impl GivenExpected {
    fn expected(&self) -> Result<Expected, Refusal> {
        match self {
            GivenExpected::Any => Ok(Expected::Any),
            GivenExpected::Version(version) => Ok(Expected::Exact(*version)),
            GivenExpected::Word(word) => expected(word),
        }
    }
}

fn expected(word: &str) -> Result<Expected, Refusal> {
    match word {
        "any" => Ok(Expected::Any),
        "none" => Ok(Expected::NoStream),
        _ => {
            let version = word.parse().map(Expected::Exact);
            version.map_err(|_| Refusal::bad(format!("`expected` is any, none or a version, and not `{word}`")))
        }
    }
}

/// `POST /v1/streams/STREAM`: the body is an event, or a list of them.
pub async fn to_stream(
    store: &EventStore,
    stream: String,
    mut parameters: Parameters,
    headers: &HeaderMap,
    body: &Arrived,
) -> Result<Response<Body>, Refusal> {
    let expected = parameters.text("expected")?.map_or(Ok(Expected::Any), |word| expected(&word))?;
    let store = store.at_criticality(parameters.level()?);
    parameters.end()?;
    let names = Names::of(headers)?;
    let is_list = body.bytes.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[');
    let given = if is_list { json::<Events<'_>>(body)?.0.0 } else { vec![json::<&RawValue>(body)?] };
    let events = named(&stream, &given, &names, 0)?;
    append(&store, Append::to(stream, expected, events)).await
}

/// `POST /v1/append`: several streams, all or none.
pub async fn to_several(
    store: &EventStore,
    mut parameters: Parameters,
    headers: &HeaderMap,
    body: &Arrived,
) -> Result<Response<Body>, Refusal> {
    let store = store.at_criticality(parameters.level()?);
    parameters.end()?;
    let names = Names::of(headers)?;
    let given: Writes<'_> = json(body)?;
    let (mut writes, mut before) = (Vec::new(), 0_usize);
    for GivenWrite { stream, expected, events } in given.writes.0 {
        let expected = expected.expected()?;
        let named = named(&stream, &events.0, &names, before)?;
        before = before.saturating_add(named.len());
        writes.push(Write { stream, expected, events: named });
    }
    append(&store, Append { writes }).await
}

/// The events of a stream; those without an id get one.
fn named(stream: &str, given: &[&RawValue], names: &Names, before: usize) -> Result<Vec<NewEvent>, Refusal> {
    let defaults = Defaults { stream: Some(stream.to_owned()), kind: None, raw: false };
    let event = |(index, line): (usize, &&RawValue)| {
        let (named, event) = parse(line.get(), &defaults, names.id(before.saturating_add(index)))
            .map_err(|why| Refusal::bad(format!("event {} of stream `{stream}`: {why}", index.saturating_add(1))))?;
        if named == stream {
            return Ok(event);
        }
        Err(Refusal::bad(format!("an event names stream `{named}`, and is sent to `{stream}`")))
    };
    given.iter().enumerate().map(event).collect()
}

/// Where the ids of events come from that have none of their own.
enum Names {
    /// From the request: sent again, it has the same.
    Key(Digest),
    /// From nowhere: sent again, it is another one.
    Drawn,
}

impl Names {
    fn of(headers: &HeaderMap) -> Result<Self, Refusal> {
        match headers.get(IDEMPOTENCY_KEY) {
            None => Ok(Self::Drawn),
            Some(key) if (1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&key.len()) => {
                Ok(Self::Key(Digest::of_parts(&[b"idempotency key", key.as_bytes()])))
            }
            Some(_) => Err(Refusal::bad(format!("an Idempotency-Key has 1 to {IDEMPOTENCY_KEY_BYTES_MAX} bytes"))),
        }
    }

    fn id(&self, index: usize) -> EventId {
        match self {
            Names::Drawn => draw_id(),
            Names::Key(key) => {
                let digest = Digest::of_parts(&[key.as_bytes(), &(index as u64).to_le_bytes()]);
                EventId(digest.as_bytes().first_chunk().copied().unwrap_or_default())
            }
        }
    }
}

/// Appends; what got no answer is sent once more with the same ids, and so done once.
async fn append(store: &EventStore, append: Append) -> Result<Response<Body>, Refusal> {
    let operation = Operation::Append(append);
    operation.encode()?; // what would be refused on sight is not sent
    let reply = match store.apply(&operation).await {
        Err(error) if error.is_worth_a_retry() => store.apply(&operation).await,
        other => other,
    };
    let appended = reply?.appended()?;
    let writes: Vec<_> = appended.writes.iter().map(written).collect();
    let status = if appended.repeated { StatusCode::OK } else { StatusCode::CREATED };
    let text = serde_json::json!({ "writes": writes, "repeated": appended.repeated });
    Ok(page(status, "application/json", format!("{text}\n")))
}

fn written(written: &quorate::events::Written) -> serde_json::Value {
    let mut value = serde_json::json!({ "stream": written.stream, "version": written.version });
    if let Some(object) = value.as_object_mut().filter(|_| written.position > 0) {
        object.insert("position".to_owned(), written.position.into());
    }
    value
}
