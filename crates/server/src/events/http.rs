//! The listener's end: whose requests are answered, by whom, and how many at a time.

use super::asked::{Arrived, Bodies, Parameters, words};
use super::limits::{REQUESTS_MAX, SUBSCRIPTIONS_MAX};
use super::projections::Projections;
use super::refusal::Refusal;
use super::{append, groups, read, subscribe};
use crate::dashboard::is_own_host;
use crate::http::Placed;
use crate::listen::Answers;
use http::header::{ACCEPT, HOST, HeaderMap, ORIGIN};
use http::{Method, Request, Response, StatusCode};
use quorate::events::{EventStore, Source};
use serde_json::json;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::Semaphore;
use tonic::body::Body;

/// Answers requests. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Front(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    store: EventStore,
    /// Without TLS: where it listens, which is what `Host` must say.
    plain: Option<SocketAddr>,
    requests: Arc<Semaphore>,
    subscriptions: Arc<Semaphore>,
    bodies: Bodies,
    projections: Projections,
}

/// A request whose body is still to come.
struct Asked {
    method: Method,
    words: Vec<String>,
    parameters: Parameters,
    headers: HeaderMap,
    body: Body,
}

impl Front {
    /// In front of a store.
    pub fn new(store: EventStore, plain: Option<SocketAddr>) -> Self {
        Self(Arc::new(Shared {
            store,
            plain,
            requests: Arc::new(Semaphore::new(REQUESTS_MAX)),
            subscriptions: Arc::new(Semaphore::new(SUBSCRIPTIONS_MAX)),
            bodies: Bodies::new(),
            projections: Projections::default(),
        }))
    }

    async fn respond(&self, request: Request<Body>) -> Result<Response<Body>, Refusal> {
        self.guard(&request)?;
        let (head, body) = request.into_parts();
        let words = words(head.uri.path()).ok_or_else(|| Refusal::bad("the path is not percent-encoded UTF-8"))?;
        let parameters = Parameters::parse(head.uri.query().unwrap_or_default())?;
        let asked = Asked { method: head.method, words, parameters, headers: head.headers, body };
        if asked.follows() {
            let place = self.0.subscriptions.clone().try_acquire_owned().map_err(|_| Refusal::crowded())?;
            let source = asked.source().ok_or_else(nothing_here)?;
            return subscribe::follow(&self.0.store, source, asked.parameters, &asked.headers, place).await;
        }
        let place = match asked.waits() {
            true => self.0.subscriptions.clone().try_acquire_owned().map_err(|_| Refusal::crowded()),
            false => self.0.requests.clone().try_acquire_owned().map_err(|_| Refusal::busy()),
        }?;
        let response = self.route(asked).await?;
        Ok(response.map(|body| Body::new(Placed::new(body, place))))
    }

    /// Refuses what a web page of somebody else may have sent.
    fn guard(&self, request: &Request<Body>) -> Result<(), Refusal> {
        if request.headers().contains_key(ORIGIN) {
            let why = "this interface is not for web pages of others, so that none can read or write here unasked";
            return Err(Refusal::new(StatusCode::FORBIDDEN, "foreign-page", why));
        }
        let Some(own) = self.0.plain else { return Ok(()) };
        // HTTP/2 says it in the address.
        let authority = request.uri().authority().map(http::uri::Authority::as_str);
        let hosts = request.headers().get_all(HOST).iter().map(|host| host.to_str().unwrap_or_default());
        let names: Vec<&str> = authority.into_iter().chain(hosts).collect();
        match names.is_empty() {
            false if names.iter().all(|name| is_own_host(name, own)) => Ok(()),
            _ => {
                let why = format!("this is {own}, and answers at its address only, not at a name");
                Err(Refusal::new(StatusCode::MISDIRECTED_REQUEST, "other-host", why))
            }
        }
    }

    async fn route(&self, asked: Asked) -> Result<Response<Body>, Refusal> {
        let Asked { method, words, parameters, headers, body } = asked;
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let store = &self.0.store;
        match (&method, words.as_slice()) {
            (&Method::GET, ["health"]) => Ok(self.health().await),
            (&Method::GET, ["v1", "status"]) => read::status(store, parameters).await,
            (&Method::GET, ["v1", "all"]) => read::events(store, Source::All, parameters).await,
            (&Method::GET, ["v1", "categories", category]) => {
                read::events(store, Source::Category((*category).to_owned()), parameters).await
            }
            (&Method::GET, ["v1", "streams"]) => read::streams(store, parameters).await,
            (&Method::GET, ["v1", "streams", stream]) => {
                read::events(store, Source::Stream((*stream).to_owned()), parameters).await
            }
            (&Method::GET, ["v1", "streams", stream, "status"]) => {
                read::stream(store, (*stream).to_owned(), parameters).await
            }
            (&Method::POST, ["v1", "append"]) => {
                append::to_several(store, parameters, &headers, &self.body(body).await?).await
            }
            (&Method::POST, ["v1", "streams", stream]) => {
                let stream = (*stream).to_owned();
                append::to_stream(store, stream, parameters, &headers, &self.body(body).await?).await
            }
            (&Method::DELETE, ["v1", "streams", stream]) => read::delete(store, (*stream).to_owned(), parameters).await,
            (&Method::POST, ["v1", "streams", stream, "truncate"]) => {
                read::truncate(store, (*stream).to_owned(), parameters).await
            }
            (&Method::POST, ["v1", "scavenge"]) => read::scavenge(store, parameters).await,
            (&Method::GET, ["v1", "projection"]) => self.0.projections.answer(store, parameters).await,
            (_, ["v1", "groups", rest @ ..]) => self.groups(&method, rest, parameters, body).await,
            (_, path) if is_known(path) => Err(wrong_method(&method)),
            _ => Err(nothing_here()),
        }
    }

    async fn groups(
        &self,
        method: &Method,
        rest: &[&str],
        parameters: Parameters,
        body: Body,
    ) -> Result<Response<Body>, Refusal> {
        let store = &self.0.store;
        let group = rest.first().map(|group| (*group).to_owned()).unwrap_or_default();
        match (method, rest) {
            (&Method::GET, []) => groups::list(store, parameters).await,
            (&Method::GET, [_]) => groups::show(store, group, parameters).await,
            (&Method::PUT, [_]) => groups::create(store, group, parameters, &self.body(body).await?).await,
            (&Method::DELETE, [_]) => groups::delete(store, group, parameters).await,
            (&Method::POST, [_, "take"]) => groups::take(store, group, parameters).await,
            (&Method::POST, [_, "ack"]) => groups::ack(store, group, parameters, &self.body(body).await?).await,
            (&Method::POST, [_, "nack"]) => groups::nack(store, group, parameters, &self.body(body).await?).await,
            (&Method::POST, [_, "unpark"]) => groups::unpark(store, group, parameters).await,
            (_, [] | [_] | [_, "take" | "ack" | "nack" | "unpark"]) => Err(wrong_method(method)),
            _ => Err(nothing_here()),
        }
    }

    async fn body(&self, body: Body) -> Result<Arrived, Refusal> {
        self.0.bodies.read(body).await
    }

    /// Healthy is who answers.
    async fn health(&self) -> Response<Body> {
        match self.0.store.status().await {
            Ok(_) => read::answer(&json!({ "health": true })),
            Err(error) => Refusal::from(error).response(),
        }
    }
}

impl Asked {
    /// The source that the path names.
    fn source(&self) -> Option<Source> {
        let words: Vec<&str> = self.words.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["v1", "all"] => Some(Source::All),
            ["v1", "categories", category] => Some(Source::Category((*category).to_owned())),
            ["v1", "streams", stream] => Some(Source::Stream((*stream).to_owned())),
            _ => None,
        }
    }

    /// May its answer wait for what others do?
    fn waits(&self) -> bool {
        self.words.len() == 4 && self.words.last().is_some_and(|last| last == "take")
    }

    /// Is it somebody who wants to hear of events as they come?
    fn follows(&self) -> bool {
        let accepted = self.headers.get_all(ACCEPT).iter().filter_map(|it| it.to_str().ok());
        let mut kinds = accepted.flat_map(|it| it.split(',')).filter_map(|it| it.split(';').next());
        self.method == Method::GET && kinds.any(|it| it.trim().eq_ignore_ascii_case("text/event-stream"))
    }
}

/// Is there something here, for another method?
fn is_known(words: &[&str]) -> bool {
    matches!(
        words,
        ["health"]
            | ["v1", "status" | "all" | "streams" | "append" | "scavenge" | "projection"]
            | ["v1", "categories" | "streams", _]
            | ["v1", "streams", _, "status" | "truncate"]
    )
}

fn wrong_method(method: &Method) -> Refusal {
    let message = format!("there is something at this path, and not for {method}");
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "wrong-method", message)
}

fn nothing_here() -> Refusal {
    Refusal::not_found("there is nothing at this path: docs/events-http.md names all there are")
}

impl Answers for Front {
    async fn answer(self, request: Request<Body>) -> Response<Body> {
        self.respond(request).await.unwrap_or_else(|refusal| refusal.response())
    }

    fn opened(&self) -> Box<dyn Send> {
        Box::new(())
    }

    fn turned_away(&self) {}
}
