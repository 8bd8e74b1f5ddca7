//! What is said instead of an answer: a status, a word for programs, a sentence for people.

use super::limits::{BODY_BYTES_MAX, REQUESTS_MAX, SUBSCRIPTIONS_MAX};
use crate::http::page;
use http::{Response, StatusCode};
use quorate::events::{EventsError, StoreError};
use quorate_core::protocol::CallError;
use quorate_runtime::client::ClientError;
use serde_json::{Map, Value, json};
use tonic::body::Body;

/// A refusal.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    status: StatusCode,
    /// For programs.
    error: &'static str,
    /// For people.
    message: String,
    /// What a program may want to know besides.
    details: Map<String, Value>,
}

impl Refusal {
    /// A refusal with nothing to know besides.
    pub fn new(status: StatusCode, error: &'static str, message: impl Into<String>) -> Self {
        Self { status, error, message: message.into(), details: Map::new() }
    }

    /// The request is not what it should be.
    pub fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-request", message)
    }

    /// There is no such thing.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", message)
    }

    /// More requests at a time than there may be.
    pub fn busy() -> Self {
        let message = format!("at most {REQUESTS_MAX} requests at a time: come again");
        Self::new(StatusCode::TOO_MANY_REQUESTS, "too-many-requests", message)
    }

    /// More subscriptions than there may be.
    pub fn crowded() -> Self {
        let message = format!(
            "at most {SUBSCRIPTIONS_MAX} subscriptions and waiting consumers at a time: come again, or ask another gateway"
        );
        Self::new(StatusCode::TOO_MANY_REQUESTS, "too-many-subscriptions", message)
    }

    /// A body that is longer than it may be.
    pub fn too_long() -> Self {
        let message = format!("the body of a request has at most {BODY_BYTES_MAX} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", message)
    }

    /// With something for programs to know.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.details.insert(name.to_owned(), value.into());
        self
    }

    /// As a value.
    pub fn value(&self) -> Value {
        let mut value = json!({ "error": self.error, "message": self.message });
        if let Some(object) = value.as_object_mut() {
            object.extend(self.details.clone());
        }
        value
    }

    /// As a response.
    pub fn response(&self) -> Response<Body> {
        page(self.status, "application/json", format!("{}\n", self.value()))
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        let message = error.to_string();
        match error {
            StoreError::Refused(error) => refused(&error, message),
            StoreError::Client(ClientError::Call { error, .. }) => match error {
                CallError::Timeout { maybe_applied } | CallError::Evicted { maybe_applied } => {
                    let status =
                        if maybe_applied { StatusCode::GATEWAY_TIMEOUT } else { StatusCode::SERVICE_UNAVAILABLE };
                    Self::new(status, "no-answer", message).with("maybe_applied", maybe_applied)
                }
                CallError::Refused(_) => Self::bad(message),
            },
            StoreError::Client(ClientError::TooLong { .. }) => {
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", message)
            }
            StoreError::Client(ClientError::Closed) => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "no-answer", message).with("maybe_applied", false)
            }
        }
    }
}

impl From<EventsError> for Refusal {
    fn from(error: EventsError) -> Self {
        refused(&error, error.to_string())
    }
}

fn refused(error: &EventsError, message: String) -> Refusal {
    let (status, word) = match error {
        EventsError::WrongVersion { .. } => (StatusCode::CONFLICT, "wrong-version"),
        EventsError::IdReused { .. } => (StatusCode::CONFLICT, "id-reused"),
        EventsError::GroupExists { .. } => (StatusCode::CONFLICT, "group-exists"),
        EventsError::GroupFull { .. } => (StatusCode::CONFLICT, "group-full"),
        EventsError::StreamGone { .. } => (StatusCode::GONE, "stream-gone"),
        EventsError::NoStream { .. } => (StatusCode::NOT_FOUND, "no-stream"),
        EventsError::NoGroup { .. } => (StatusCode::NOT_FOUND, "no-group"),
        EventsError::TooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, "too-large"),
        EventsError::BadName | EventsError::BadList(_) => (StatusCode::BAD_REQUEST, "bad-request"),
        EventsError::Undecodable => (StatusCode::BAD_GATEWAY, "strange-answer"),
    };
    let refusal = Refusal::new(status, word, message);
    match error {
        EventsError::WrongVersion { stream, found, .. } => {
            refusal.with("stream", stream.clone()).with("version", *found)
        }
        EventsError::IdReused { stream, id, version } => {
            refusal.with("stream", stream.clone()).with("id", id.to_string()).with("version", *version)
        }
        _ => refusal,
    }
}
