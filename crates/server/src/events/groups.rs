//! Groups: persistent subscriptions, whose consumers ask for events and acknowledge them.

use super::asked::{Arrived, Few, Parameters, json};
use super::limits::{TAKE_ASK_EVERY, TAKE_WAIT_SECONDS_MAX};
use super::line::print;
use super::read::{answer, done};
use super::refusal::Refusal;
use crate::http::page;
use http::{Response, StatusCode};
use quorate::events::limits::{ACK_NUMBERS_MAX, FILTER_KINDS_MAX};
use quorate::events::{
    EventStore, EventsError, Filter, GroupInfo, NewGroup, Operation, Query, Response as Answer, Settings, Source,
    Taken, Verdict,
};
use serde::Deserialize;
use serde_json::{Value, json as value};
use std::time::Duration;
use tokio::time::Instant;
use tonic::body::Body;

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// A group to be made. What is left out is as the command line has it.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Given {
    stream: Option<String>,
    category: Option<String>,
    #[serde(default)]
    types: Few<String, FILTER_KINDS_MAX>,
    correlation: Option<String>,
    from: Option<u64>,
    retry_after_seconds: Option<u64>,
    attempts: Option<u32>,
    in_flight: Option<u32>,
}

/// `PUT /v1/groups/GROUP`
pub async fn create(
    store: &EventStore,
    group: String,
    parameters: Parameters,
    body: &Arrived,
) -> Result<Response<Body>, Refusal> {
    parameters.end()?;
    let given: Given = if body.bytes.is_empty() { Given::default() } else { json(body)? };
    let source = match (given.stream, given.category) {
        (None, None) => Source::All,
        (Some(stream), None) => Source::Stream(stream),
        (None, Some(category)) => Source::Category(category),
        (Some(_), Some(_)) => return Err(Refusal::bad("`stream` and `category` exclude each other")),
    };
    let correlation = given.correlation.map(|id| id.parse()).transpose();
    let correlation = correlation.map_err(|error| Refusal::bad(format!("`correlation`: {error}")))?;
    let usual = Settings::default();
    let retry_after_nanos =
        given.retry_after_seconds.map_or(usual.retry_after_nanos, |it| it.saturating_mul(NANOS_PER_SECOND));
    let settings = Settings {
        retry_after_nanos,
        attempts_max: given.attempts.unwrap_or(usual.attempts_max),
        in_flight_max: given.in_flight.unwrap_or(usual.in_flight_max),
    };
    let filter = Filter { kinds: given.types.0, correlation };
    let new = NewGroup { group, source, filter, from: given.from.unwrap_or(1), settings };
    done(store, &Operation::CreateGroup(new)).await
}

/// `GET /v1/groups`
pub async fn list(store: &EventStore, parameters: Parameters) -> Result<Response<Body>, Refusal> {
    parameters.end()?;
    match store.query(&Query::Groups).await?.result? {
        Answer::Groups(groups) => Ok(answer(&value!({ "groups": groups }))),
        _ => Err(EventsError::Undecodable.into()),
    }
}

/// `GET /v1/groups/GROUP`
pub async fn show(store: &EventStore, group: String, parameters: Parameters) -> Result<Response<Body>, Refusal> {
    parameters.end()?;
    Ok(answer(&shown(&store.group(group).await?)))
}

fn shown(info: &GroupInfo) -> Value {
    let NewGroup { group, source, filter, from, settings } = &info.group;
    let (stream, category) = match source {
        Source::All => (None, None),
        Source::Stream(stream) => (Some(stream), None),
        Source::Category(category) => (None, Some(category)),
    };
    let parked =
        info.parked.iter().map(|it| value!({ "number": it.number, "attempts": it.attempts, "reason": it.reason }));
    let parked: Vec<Value> = parked.collect();
    value!({
        "group": group,
        "stream": stream,
        "category": category,
        "types": filter.kinds,
        "correlation": filter.correlation.map(|id| id.to_string()),
        "from": from,
        "retry_after_seconds": settings.retry_after_nanos / NANOS_PER_SECOND,
        "attempts": settings.attempts_max,
        "in_flight_max": settings.in_flight_max,
        "next": info.next,
        "head": info.head,
        "in_flight": info.in_flight,
        "waiting": info.waiting,
        "finished": info.finished,
        "parked_count": info.parked_count,
        "parked": parked,
    })
}

/// `DELETE /v1/groups/GROUP`
pub async fn delete(store: &EventStore, group: String, parameters: Parameters) -> Result<Response<Body>, Refusal> {
    parameters.end()?;
    done(store, &Operation::DeleteGroup { group }).await
}

/// `POST /v1/groups/GROUP/take?consumer=NAME&limit=N&wait=SECONDS`: events for a consumer; waits for the first one as long as it
/// may.
pub async fn take(store: &EventStore, group: String, mut parameters: Parameters) -> Result<Response<Body>, Refusal> {
    let consumer = parameters.text("consumer")?.ok_or_else(|| Refusal::bad("`consumer` is missing: who takes"))?;
    let limit = parameters.number("limit")?.map_or(0, |it| u32::try_from(it).unwrap_or(u32::MAX));
    let wait = parameters.number("wait")?.unwrap_or(0);
    parameters.end()?;
    if wait > TAKE_WAIT_SECONDS_MAX {
        return Err(Refusal::bad(format!("`wait` is at most {TAKE_WAIT_SECONDS_MAX} seconds")));
    }
    let until = Instant::now() + Duration::from_secs(wait);
    let mut news = store.news();
    let operation = Operation::Take { group, consumer, limit };
    operation.encode()?;
    loop {
        let taken = store.apply(&operation).await?.taken()?;
        if !taken.events.is_empty() || Instant::now() >= until {
            return given_out(&taken);
        }
        let again = until.min(Instant::now() + TAKE_ASK_EVERY);
        let _whichever = tokio::time::timeout_at(again, news.wait()).await;
    }
}

fn given_out(taken: &Taken) -> Result<Response<Body>, Refusal> {
    let strange =
        |error: serde_json::Error| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "strange-event", error.to_string());
    let line = |it: &quorate::events::Delivery| -> Result<String, Refusal> {
        let event = print(&it.event).map_err(strange)?;
        Ok(format!("{{\"number\":{},\"attempt\":{},\"event\":{event}}}", it.number, it.attempt))
    };
    let lines = taken.events.iter().map(line).collect::<Result<Vec<_>, _>>()?.join(",\n");
    let text = format!("{{\"deliveries\":[\n{lines}\n],\"end\":{}}}\n", taken.end);
    Ok(page(StatusCode::OK, "application/json", text))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GivenAck {
    numbers: Few<u64, ACK_NUMBERS_MAX>,
}

/// `POST /v1/groups/GROUP/ack`
pub async fn ack(
    store: &EventStore,
    group: String,
    parameters: Parameters,
    body: &Arrived,
) -> Result<Response<Body>, Refusal> {
    parameters.end()?;
    let GivenAck { numbers } = json(body)?;
    done(store, &Operation::Ack { group, numbers: numbers.0 }).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GivenNack {
    consumer: String,
    numbers: Few<u64, ACK_NUMBERS_MAX>,
    verdict: GivenVerdict,
    #[serde(default)]
    reason: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum GivenVerdict {
    Retry,
    Park,
    Skip,
}

/// `POST /v1/groups/GROUP/nack`
pub async fn nack(
    store: &EventStore,
    group: String,
    parameters: Parameters,
    body: &Arrived,
) -> Result<Response<Body>, Refusal> {
    parameters.end()?;
    let GivenNack { consumer, numbers, verdict, reason } = json(body)?;
    let verdict = match verdict {
        GivenVerdict::Retry => Verdict::Retry,
        GivenVerdict::Park => Verdict::Park,
        GivenVerdict::Skip => Verdict::Skip,
    };
    done(store, &Operation::Nack { group, consumer, numbers: numbers.0, verdict, reason }).await
}

/// `POST /v1/groups/GROUP/unpark?discard=true`
pub async fn unpark(store: &EventStore, group: String, mut parameters: Parameters) -> Result<Response<Body>, Refusal> {
    let discard = parameters.flag("discard")?;
    parameters.end()?;
    done(store, &Operation::Unpark { group, replay: !discard }).await
}
