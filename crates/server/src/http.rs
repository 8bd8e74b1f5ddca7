//! One port for gRPC, JSON and three plain pages: told apart here, counted and bounded here.

use crate::errors::EtcdError;
use crate::gateway::Api;
use crate::json;
use crate::limits::{MESSAGE_BYTES_MAX, REQUESTS_MAX, STREAMS_MAX};
use crate::listen::Answers;
use crate::metrics::{Counted, Metrics};
use crate::offered::{self, API_VERSION};
use crate::proto::DESCRIPTORS;
use crate::proto::etcdserverpb::auth_server::AuthServer;
use crate::proto::etcdserverpb::cluster_server::ClusterServer;
use crate::proto::etcdserverpb::kv_server::KvServer;
use crate::proto::etcdserverpb::lease_server::LeaseServer;
use crate::proto::etcdserverpb::maintenance_server::MaintenanceServer;
use crate::proto::etcdserverpb::watch_server::WatchServer;
use crate::proto::v3electionpb::election_server::ElectionServer;
use crate::proto::v3lockpb::lock_server::LockServer;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue, ORIGIN};
use http::{Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::Full;
use prost_reflect::{DescriptorPool, MethodDescriptor};
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};
use std::time::Instant;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;
use tonic::body::Body;
use tonic::service::Routes;
use tower_service::Service as _;

/// The calls that are offered, by their paths.
pub static CALLS: LazyLock<BTreeMap<String, MethodDescriptor>> = LazyLock::new(|| {
    let pool = DescriptorPool::decode(DESCRIPTORS);
    let pool = pool.expect("the build script has compiled the descriptors");
    let methods = pool.services().flat_map(|service| service.methods().collect::<Vec<_>>());
    methods.map(|method| (format!("/{}/{}", method.parent_service().full_name(), method.name()), method)).collect()
});

/// What is known of a call before it comes.
#[derive(Debug)]
struct Route {
    /// Whether it is a stream, or may take as long as one.
    long: bool,
    service: &'static str,
    method: &'static str,
    counted: Counted,
}

/// All calls that are offered, by their paths.
fn routes(metrics: &Metrics) -> BTreeMap<&'static str, Route> {
    let route = |(path, call): (&'static String, &'static MethodDescriptor)| {
        let long = call.is_server_streaming() || WAITING_CALLS.contains(&path.as_str());
        let (service, method) = path.trim_start_matches('/').split_once('/').unwrap_or_default();
        (path.as_str(), Route { long, service, method, counted: metrics.of(service, method) })
    };
    CALLS.iter().map(route).collect()
}

/// Calls that may take as long as a stream: their answer waits for what others do.
const WAITING_CALLS: [&str; 2] = ["/v3lockpb.Lock/Lock", "/v3electionpb.Election/Campaign"];

/// Answers requests. Cheap to clone.
#[derive(Clone)]
pub struct Front {
    api: Api,
    routes: Routes,
    metrics: Metrics,
    known: Arc<BTreeMap<&'static str, Route>>,
    requests: Arc<Semaphore>,
    streams: Arc<Semaphore>,
}

impl Front {
    pub fn new(api: Api, metrics: Metrics) -> Self {
        let max = MESSAGE_BYTES_MAX;
        let routes = Routes::new(KvServer::new(api.clone()).max_decoding_message_size(max))
            .add_service(WatchServer::new(api.clone()).max_decoding_message_size(max))
            .add_service(LeaseServer::new(api.clone()).max_decoding_message_size(max))
            .add_service(ClusterServer::new(api.clone()).max_decoding_message_size(max))
            .add_service(MaintenanceServer::new(api.clone()).max_decoding_message_size(max))
            .add_service(AuthServer::new(api.clone()).max_decoding_message_size(max))
            .add_service(LockServer::new(api.clone()).max_decoding_message_size(max))
            .add_service(ElectionServer::new(api.clone()).max_decoding_message_size(max))
            .prepare();
        let (requests, streams) = (Arc::new(Semaphore::new(REQUESTS_MAX)), Arc::new(Semaphore::new(STREAMS_MAX)));
        let known = Arc::new(self::routes(&metrics));
        Self { api, routes, metrics, known, requests, streams }
    }

    async fn respond(self, request: Request<Body>) -> Response<Body> {
        let kind = request.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
        if kind.starts_with(b"application/grpc") {
            return self.grpc(request).await;
        }
        if request.headers().contains_key(ORIGIN) {
            let why = "quorate: this interface is not for web pages, so that no page can write here unasked\n";
            return page(StatusCode::FORBIDDEN, "text/plain; charset=utf-8", why);
        }
        match (request.method(), request.uri().path()) {
            (&Method::GET, "/version") => version(),
            (&Method::GET, "/health") => self.health().await,
            (&Method::GET, "/metrics") => self.metrics_page().await,
            (&Method::POST, path) => match json::call(path) {
                Some(call) => json::answer(self, call, request).await,
                None => page(StatusCode::NOT_FOUND, "text/plain; charset=utf-8", "404 page not found\n"),
            },
            (_, path) if json::call(path).is_some() => {
                page(StatusCode::METHOD_NOT_ALLOWED, "text/plain; charset=utf-8", "Method Not Allowed: use POST\n")
            }
            _ => page(StatusCode::NOT_FOUND, "text/plain; charset=utf-8", "404 page not found\n"),
        }
    }

    /// A call, within the bounds on how many there may be at a time.
    pub async fn grpc(mut self, request: Request<Body>) -> Response<Body> {
        let path = request.uri().path();
        let known = self.known.clone();
        let Some(route) = known.get(path) else {
            let refusal = offered::refusal(path).unwrap_or(EtcdError::NotOffered(
                "quorate: this is not a call of etcd's API, or one that is not known here",
            ));
            return Status::from(refusal).into_http();
        };
        let (places, max) = if route.long { (&self.streams, STREAMS_MAX) } else { (&self.requests, REQUESTS_MAX) };
        let Ok(place) = places.clone().try_acquire_owned() else {
            let kind = if route.long { "streams" } else { "requests" };
            return Status::from(EtcdError::TooManyRequests(format!("at most {max} {kind} at a time"))).into_http();
        };
        route.counted.started();
        let began = Instant::now();
        let response = match self.routes.call(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        };
        let code = response.headers().get("grpc-status").and_then(|it| it.to_str().ok()?.parse().ok()).unwrap_or(0);
        match code {
            0 => route.counted.answered(began.elapsed()),
            refused => self.metrics.refused(route.service, route.method, refused, began.elapsed()),
        }
        response.map(|body| Body::new(Placed::new(body, place)))
    }

    /// Healthy is who answers.
    async fn health(&self) -> Response<Body> {
        match self.api.store.status().await {
            Ok(_) => page(StatusCode::OK, "application/json", "{\"health\":\"true\"}"),
            Err(error) => {
                let text = serde_json::json!({ "health": "false", "reason": error.etcd().1 }).to_string();
                page(StatusCode::SERVICE_UNAVAILABLE, "application/json", text)
            }
        }
    }

    async fn metrics_page(&self) -> Response<Body> {
        let (streams, watches) = (self.api.hub.streams(), self.api.hub.watches().load(Ordering::Relaxed));
        let text = self.metrics.page(&self.api.store, streams, watches).await;
        page(StatusCode::OK, "application/openmetrics-text; version=1.0.0; charset=utf-8", text)
    }
}

/// etcd's answer to the question which API this is.
fn version() -> Response<Body> {
    let (major_minor, _) = API_VERSION.rsplit_once('.').unwrap_or((API_VERSION, ""));
    let text = serde_json::json!({ "etcdserver": API_VERSION, "etcdcluster": format!("{major_minor}.0") }).to_string();
    page(StatusCode::OK, "application/json", text)
}

pub fn page(status: StatusCode, kind: &'static str, text: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::new(Full::new(text.into())));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

impl Answers for Front {
    async fn answer(self, request: Request<Body>) -> Response<Body> {
        self.respond(request).await
    }

    fn opened(&self) -> Box<dyn Send> {
        Box::new(self.metrics.connection())
    }

    fn turned_away(&self) {
        self.metrics.connection_refused();
    }
}

/// A body that keeps its request's place until it is at its end.
pub struct Placed {
    body: Body,
    _place: OwnedSemaphorePermit,
}

impl Placed {
    /// A body that keeps a place.
    pub fn new(body: Body, place: OwnedSemaphorePermit) -> Self {
        Self { body, _place: place }
    }
}

impl http_body::Body for Placed {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}
