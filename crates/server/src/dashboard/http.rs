//! The dashboard's listener: which request gets which answer, and how many there may be at a time.

use super::form::Form;
use super::guard::{self, POLICY, Refusal};
use super::html::{Tab, page};
use super::overview::{Show, body, parts};
use super::sampler::Sampler;
use super::{Order, Source, browse, live};
use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use quorate_core::ids::ReplicaId;
use quorate_runtime::client::Client;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Connections at a time; further ones are closed at once.
const CONNECTIONS_MAX: usize = 64;
/// Streams at a time; further ones are told to come later. Fewer than connections, so that pages have some left.
const STREAMS_MAX: usize = 32;
/// Bytes of a request's head.
const HEAD_BYTES_MAX: usize = 32 << 10;
/// Bytes of a form that is sent.
const FORM_BYTES_MAX: usize = 4 << 10;
/// How long a request's head, or its form, may take to arrive.
const PATIENCE: Duration = Duration::from_secs(10);
/// After an accept that failed for want of something.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("app.js");
const ICON: &str = include_str!("icon.svg");

type Body = BoxBody<Bytes, Infallible>;

/// Answers requests.
#[derive(Debug)]
pub struct Server<S> {
    source: Arc<S>,
    client: Client,
    sampler: Arc<Sampler<S>>,
    own: SocketAddr,
    token: String,
    streams: Arc<Semaphore>,
}

impl<S: Source> Server<S> {
    /// A server that listens at `own`; `token` is what its buttons need.
    pub fn new(source: Arc<S>, client: Client, sampler: Arc<Sampler<S>>, own: SocketAddr, token: [u8; 16]) -> Self {
        let token = format!("{:032x}", u128::from_be_bytes(token));
        Self { source, client, sampler, own, token, streams: Arc::new(Semaphore::new(STREAMS_MAX)) }
    }

    /// Whether only who sits at this machine can reach it. Others see how the replicas are, and no more.
    fn is_local(&self) -> bool {
        self.own.ip().is_loopback()
    }

    /// The token, if there are buttons.
    fn buttons(&self) -> Option<&str> {
        (self.is_local() && self.source.has_controls()).then_some(&*self.token)
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let mut response = match guard::host(request.headers(), self.own) {
            Ok(()) => self.route(request).await,
            Err(refusal) => refused(refusal),
        };
        let headers = response.headers_mut();
        for (name, value) in [
            (header::CONTENT_SECURITY_POLICY, POLICY),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::X_FRAME_OPTIONS, "DENY"),
            // Not `no-referrer`: with it, browsers send no origin with a form, and we want to see it.
            (header::REFERRER_POLICY, "same-origin"),
            (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
            (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
            (header::CACHE_CONTROL, "no-store"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        response
    }

    async fn route(&self, request: Request<Incoming>) -> Response<Body> {
        let query = Form::parse(request.uri().query().unwrap_or_default());
        let path = request.uri().path().to_owned();
        match (request.method(), path.as_str()) {
            (&Method::GET | &Method::HEAD, path) => self.get(path, &query).await,
            (&Method::POST, "/act") => self.act(request).await,
            _ => plain(StatusCode::METHOD_NOT_ALLOWED, "use GET\n"),
        }
    }

    async fn get(&self, path: &str, query: &Form) -> Response<Body> {
        match path {
            "/" => self.overview().await,
            "/style.css" => file("text/css; charset=utf-8", STYLE),
            "/app.js" => file("text/javascript; charset=utf-8", SCRIPT),
            "/icon.svg" => file("image/svg+xml", ICON),
            "/live" => self.stream(|place| {
                let token = self.buttons().map(str::to_owned);
                live::overview(self.sampler.clone(), token, self.is_local(), place)
            }),
            "/keys" if self.is_local() => html("Keys", Tab::Keys, &browse::keys(&self.client, query).await),
            "/key" if self.is_local() => html("A key", Tab::Keys, &browse::key(&self.client, query).await),
            "/events" if self.is_local() => html("Events", Tab::Events, &browse::events(&self.client, query).await),
            "/live/events" if self.is_local() => {
                let from = query.text("from").and_then(|it| it.parse().ok()).unwrap_or(1);
                let prefix = query.bytes("prefix").unwrap_or_default().to_vec();
                self.stream(|place| live::events(self.client.clone(), prefix, from, place))
            }
            _ => plain(StatusCode::NOT_FOUND, "there is no such page\n"),
        }
    }

    async fn overview(&self) -> Response<Body> {
        self.sampler.glance().await;
        let show = Show { token: self.buttons(), store: self.is_local() };
        let body = body(&parts(&self.sampler.state(), show));
        let page = page("Cluster", Tab::Overview, !self.is_local(), true, &body);
        response(StatusCode::OK, "text/html; charset=utf-8", page)
    }

    fn stream(&self, frames: impl FnOnce(tokio::sync::OwnedSemaphorePermit) -> live::Frames) -> Response<Body> {
        let Ok(place) = self.streams.clone().try_acquire_owned() else {
            return plain(StatusCode::SERVICE_UNAVAILABLE, "too many pages are open\n");
        };
        let mut response = Response::new(BodyExt::boxed(StreamBody::new(frames(place))));
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        response
    }

    /// A button was pressed.
    async fn act(&self, request: Request<Incoming>) -> Response<Body> {
        let Some(token) = self.buttons() else {
            return plain(StatusCode::NOT_FOUND, "there are no buttons here\n");
        };
        let (head, body) = request.into_parts();
        if !is_form(&head.headers) {
            return plain(StatusCode::UNSUPPORTED_MEDIA_TYPE, "a form is wanted\n");
        }
        let collected = tokio::time::timeout(PATIENCE, Limited::new(body, FORM_BYTES_MAX).collect()).await;
        let Ok(Ok(collected)) = collected else {
            return plain(StatusCode::BAD_REQUEST, "the form is too long, or did not arrive\n");
        };
        let form = Form::parse(&String::from_utf8_lossy(&collected.to_bytes()));
        let brought = form.bytes("token").unwrap_or_default();
        if let Err(refusal) = guard::press(&head.headers, brought, token) {
            return refused(refusal);
        }
        let replicas: Vec<ReplicaId> = self.sampler.state().look.replicas.iter().map(|it| it.replica).collect();
        let Some((replica, order)) = order(&form, &replicas) else {
            return plain(StatusCode::BAD_REQUEST, "there is no such button\n");
        };
        let (status, said) = match self.source.act(replica, order).await {
            Ok(said) => (StatusCode::OK, said),
            Err(why) => (StatusCode::CONFLICT, why),
        };
        self.sampler.happened(said.clone());
        self.sampler.look_again().await;
        if head.headers.get(header::ACCEPT).is_some_and(|it| it.as_bytes() == b"text/plain") {
            return response(status, "text/plain; charset=utf-8", said); // the script asked
        }
        let mut response = plain(StatusCode::SEE_OTHER, "");
        response.headers_mut().insert(header::LOCATION, HeaderValue::from_static("/#h-controls"));
        response
    }
}

/// What a form asks for; only replicas that there are.
fn order(form: &Form, replicas: &[ReplicaId]) -> Option<(ReplicaId, Order)> {
    let replica = form.numbers("replica").map(ReplicaId::new).find(|it| replicas.contains(it))?;
    let others = || replicas.iter().copied().filter(|it| *it != replica);
    let order = match form.text("act")? {
        "start" => Order::Start,
        "stop" => Order::Stop,
        "kill" => Order::Kill,
        "pause" => Order::Pause,
        "resume" => Order::Resume,
        "isolate" => Order::Cut(others().collect()),
        "heal" => Order::Cut(Vec::new()),
        "cut" => Order::Cut(others().filter(|it| form.numbers("peer").any(|peer| peer == it.get())).collect()),
        "lie" => Order::Lie(form.text("lie").filter(|it| !it.is_empty())?.to_owned()),
        "honest" => Order::Honest,
        _ => return None,
    };
    Some((replica, order))
}

fn is_form(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    kind.starts_with(b"application/x-www-form-urlencoded")
}

fn html(title: &str, tab: Tab, body: &str) -> Response<Body> {
    response(StatusCode::OK, "text/html; charset=utf-8", page(title, tab, false, false, body))
}

fn file(kind: &'static str, text: &'static str) -> Response<Body> {
    response(StatusCode::OK, kind, text)
}

fn plain(status: StatusCode, text: &'static str) -> Response<Body> {
    response(status, "text/plain; charset=utf-8", text)
}

fn refused(Refusal(status, why): Refusal) -> Response<Body> {
    plain(status, why)
}

fn response(status: StatusCode, kind: &'static str, text: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Full::new(text.into()).boxed());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// Accepts connections. Never ends; its end ends them all.
pub async fn serve<S: Source>(listener: TcpListener, server: Server<S>) {
    let server = Arc::new(server);
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(_) => {
                    tokio::time::sleep(ACCEPT_RETRY).await;
                    continue;
                }
            },
            Some(_) = connections.join_next() => continue,
        };
        let Ok(place) = places.clone().try_acquire_owned() else { continue };
        let _slower_without = stream.set_nodelay(true);
        let server = server.clone();
        connections.spawn(async move {
            let _place = place;
            let service = service_fn(move |request| {
                let server = server.clone();
                async move { Ok::<_, Infallible>(server.answer(request).await) }
            });
            let mut builder = http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(PATIENCE).max_buf_size(HEAD_BYTES_MAX);
            let _broken = builder.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ordered(text: &str) -> Option<(u8, Order)> {
        let replicas = [0, 1, 2].map(ReplicaId::new);
        order(&Form::parse(text), &replicas).map(|(replica, order)| (replica.get(), order))
    }

    #[test]
    fn a_form_orders_only_what_there_is() {
        let ids = |ids: &[u8]| ids.iter().copied().map(ReplicaId::new).collect::<Vec<_>>();
        assert_eq!(ordered("replica=1&act=stop"), Some((1, Order::Stop)));
        assert_eq!(ordered("replica=1&act=isolate"), Some((1, Order::Cut(ids(&[0, 2])))));
        assert_eq!(ordered("replica=1&act=heal&peer=0"), Some((1, Order::Cut(vec![]))));
        let cut = "replica=1&act=cut&peer=2&peer=1&peer=9";
        assert_eq!(ordered(cut), Some((1, Order::Cut(ids(&[2])))), "neither from itself nor from nobody");
        assert_eq!(ordered("replica=1&act=lie&lie=equivocate"), Some((1, Order::Lie("equivocate".to_owned()))));
        assert_eq!(ordered("replica=1&act=honest&lie=equivocate"), Some((1, Order::Honest)));
        for nothing in [
            "",
            "replica=1&act=lie",
            "replica=1&act=lie&lie=",
            "replica=3&act=stop",
            "replica=1",
            "act=stop",
            "replica=1&act=format",
            "replica=-1&act=stop",
        ] {
            assert_eq!(ordered(nothing), None, "{nothing}");
        }
    }

    #[test]
    fn nothing_in_the_pages_needs_an_exception_from_the_policy() {
        assert!(!SCRIPT.contains("eval(") && !SCRIPT.contains(".style"));
        assert!(!STYLE.contains("url(") && !STYLE.contains("@import"));
        assert!(!POLICY.contains("unsafe"));
    }
}
