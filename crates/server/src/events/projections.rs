//! Projections: what a tally makes of all events of a source that were acknowledged before somebody asked.
//!
//! A projection is a question, not a thing: its definition stands in the request, and its answer is the same at every gateway. The
//! last ones that were asked for are kept, so that the next answer needs only what came since.

use super::asked::Parameters;
use super::limits::{PROJECTION_BYTES_MAX, PROJECTION_KEYS_MAX, PROJECTION_PATIENCE, PROJECTIONS_MAX};
use super::read::answer;
use super::refusal::Refusal;
use super::tally::{Definition, Reducer, Tally};
use http::header::{HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use quorate::events::{EventStore, Filter, Read, Source};
use serde_json::json;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::time::Instant;
use tonic::body::Body;

/// One that was asked for, and its tally; `None` before the first page and after an event that does not fit.
type Kept = (Definition, Arc<tokio::sync::Mutex<Option<Tally>>>);

/// Those that are kept, the one that was asked for last in front.
#[derive(Debug, Default)]
pub struct Projections(Mutex<VecDeque<Kept>>);

impl Projections {
    /// `GET /v1/projection?category=account&by=stream&sum=cents`
    pub async fn answer(&self, store: &EventStore, mut parameters: Parameters) -> Result<Response<Body>, Refusal> {
        let (source, filter) = (parameters.source()?, parameters.filter()?);
        let from = parameters.number("from")?.unwrap_or(1);
        let by = parameters.text("by")?.ok_or_else(|| {
            Refusal::bad("`by` is missing: stream, type, or a field of the data, has a value of its own")
        })?;
        let reducer = match (parameters.text("sum")?, parameters.flag("latest")?) {
            (Some(field), false) => Reducer::Sum(field),
            (None, true) => Reducer::Latest,
            (None, false) => Reducer::Count,
            (Some(_), true) => return Err(Refusal::bad("`sum` and `latest` exclude each other")),
        };
        parameters.end()?;
        let definition = Definition::new(&source, &filter, from, by, reducer);
        let kept = self.kept(&definition);
        let until = Instant::now() + PROJECTION_PATIENCE;
        let Ok(mut kept) = tokio::time::timeout_at(until, kept.lock()).await else { return Ok(later(0)) };
        // It stays in its place while it is worked on: whoever does not wait for the end leaves it further than it was.
        let tally = kept.get_or_insert_with(|| Tally::new(definition));
        match catch_up(store, tally, &source, &filter, until).await {
            Ok(true) => Ok(answer(&json!({ "next": tally.next, "state": tally.state }))),
            Ok(false) => Ok(later(tally.next)),
            // What the store did not answer does not change what was taken in before.
            Err(Stop::Away(refusal)) => Err(refusal),
            Err(Stop::Spoilt(refusal)) => {
                *kept = None;
                Err(refusal)
            }
        }
    }

    /// The place of a definition, which is in front from now on.
    fn kept(&self, definition: &Definition) -> Arc<tokio::sync::Mutex<Option<Tally>>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let place = all.iter().position(|(known, _)| known == definition);
        let kept = place.and_then(|place| all.remove(place));
        let (definition, kept) = kept.unwrap_or_else(|| (definition.clone(), Arc::default()));
        all.push_front((definition, kept.clone()));
        all.truncate(PROJECTIONS_MAX);
        kept
    }
}

/// Why a tally did not come to the end.
enum Stop {
    /// The store did not answer.
    Away(Refusal),
    /// The tally is of no use any more.
    Spoilt(Refusal),
}

/// Takes in what there is. Whether that is everything.
async fn catch_up(
    store: &EventStore,
    tally: &mut Tally,
    source: &Source,
    filter: &Filter,
    until: Instant,
) -> Result<bool, Stop> {
    loop {
        let read = Read { source: source.clone(), filter: filter.clone(), from: tally.next, ..Read::default() };
        let page = store.read(read).await.map_err(|error| Stop::Away(error.into()))?;
        tally.take(&page.events, page.next).map_err(|error| {
            let refusal = Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, "unusable-event", error.to_string());
            Stop::Spoilt(refusal.with("position", error.position))
        })?;
        if tally.state.len() > PROJECTION_KEYS_MAX || tally.bytes() > PROJECTION_BYTES_MAX {
            let message =
                format!("a projection has at most {PROJECTION_KEYS_MAX} keys and {PROJECTION_BYTES_MAX} bytes");
            return Err(Stop::Spoilt(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", message)));
        }
        if page.end {
            return Ok(true);
        }
        if Instant::now() >= until {
            return Ok(false);
        }
    }
}

/// How far it has come; whoever asks again goes on from there.
fn later(next: u64) -> Response<Body> {
    let message = "there is more to read than one request may take: ask again, and it goes on";
    let refusal = Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "not-yet", message).with("next", next);
    let mut response = refusal.response();
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}
