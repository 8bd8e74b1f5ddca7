//! The JSON gateway: every call as `POST /v3/…`, with keys and values in base64, in the shape of etcd's own gateway.
//!
//! A JSON request becomes the gRPC request that it stands for and goes the same way, through the same bounds; the answer
//! comes back translated. Names are those of the definitions, 64-bit numbers are strings, zero fields are left out; both
//! spellings of names and both forms of numbers are understood, and unknown fields ignored, as etcd does it.

use crate::http::{CALLS, Front, page};
use crate::limits::{BODY_PATIENCE, JSON_REQUESTS_MAX, MESSAGE_BYTES_MAX, RESPONSES_WAITING_MAX};
use crate::offered;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, TE};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use prost::Message;
use prost_reflect::{DeserializeOptions, DynamicMessage, MessageDescriptor, MethodDescriptor, SerializeOptions};
use serde_json::{Value, json};
use std::convert::Infallible;
use tokio::sync::mpsc;
use tonic::body::Body;
use tonic::{Code, Status};

/// Commas and opening brackets in a body; each may become a value, which is larger in memory than on the wire.
const JSON_PARTS_MAX: usize = 65_536;

/// The calls with their paths after `/v3`. Some have two, for history's sake.
const PATHS: [(&str, &str); 51] = [
    ("/kv/range", "/etcdserverpb.KV/Range"),
    ("/kv/put", "/etcdserverpb.KV/Put"),
    ("/kv/deleterange", "/etcdserverpb.KV/DeleteRange"),
    ("/kv/txn", "/etcdserverpb.KV/Txn"),
    ("/kv/compaction", "/etcdserverpb.KV/Compact"),
    ("/watch", "/etcdserverpb.Watch/Watch"),
    ("/lease/grant", "/etcdserverpb.Lease/LeaseGrant"),
    ("/lease/revoke", "/etcdserverpb.Lease/LeaseRevoke"),
    ("/kv/lease/revoke", "/etcdserverpb.Lease/LeaseRevoke"),
    ("/lease/keepalive", "/etcdserverpb.Lease/LeaseKeepAlive"),
    ("/lease/timetolive", "/etcdserverpb.Lease/LeaseTimeToLive"),
    ("/kv/lease/timetolive", "/etcdserverpb.Lease/LeaseTimeToLive"),
    ("/lease/leases", "/etcdserverpb.Lease/LeaseLeases"),
    ("/kv/lease/leases", "/etcdserverpb.Lease/LeaseLeases"),
    ("/cluster/member/add", "/etcdserverpb.Cluster/MemberAdd"),
    ("/cluster/member/remove", "/etcdserverpb.Cluster/MemberRemove"),
    ("/cluster/member/update", "/etcdserverpb.Cluster/MemberUpdate"),
    ("/cluster/member/list", "/etcdserverpb.Cluster/MemberList"),
    ("/cluster/member/promote", "/etcdserverpb.Cluster/MemberPromote"),
    ("/maintenance/alarm", "/etcdserverpb.Maintenance/Alarm"),
    ("/maintenance/status", "/etcdserverpb.Maintenance/Status"),
    ("/maintenance/defragment", "/etcdserverpb.Maintenance/Defragment"),
    ("/maintenance/hash", "/etcdserverpb.Maintenance/HashKV"),
    ("/maintenance/hashkv", "/etcdserverpb.Maintenance/HashKV"),
    ("/maintenance/snapshot", "/etcdserverpb.Maintenance/Snapshot"),
    ("/maintenance/transfer-leadership", "/etcdserverpb.Maintenance/MoveLeader"),
    ("/maintenance/downgrade", "/etcdserverpb.Maintenance/Downgrade"),
    ("/auth/enable", "/etcdserverpb.Auth/AuthEnable"),
    ("/auth/disable", "/etcdserverpb.Auth/AuthDisable"),
    ("/auth/status", "/etcdserverpb.Auth/AuthStatus"),
    ("/auth/authenticate", "/etcdserverpb.Auth/Authenticate"),
    ("/auth/user/add", "/etcdserverpb.Auth/UserAdd"),
    ("/auth/user/get", "/etcdserverpb.Auth/UserGet"),
    ("/auth/user/list", "/etcdserverpb.Auth/UserList"),
    ("/auth/user/delete", "/etcdserverpb.Auth/UserDelete"),
    ("/auth/user/changepw", "/etcdserverpb.Auth/UserChangePassword"),
    ("/auth/user/grant", "/etcdserverpb.Auth/UserGrantRole"),
    ("/auth/user/revoke", "/etcdserverpb.Auth/UserRevokeRole"),
    ("/auth/role/add", "/etcdserverpb.Auth/RoleAdd"),
    ("/auth/role/get", "/etcdserverpb.Auth/RoleGet"),
    ("/auth/role/list", "/etcdserverpb.Auth/RoleList"),
    ("/auth/role/delete", "/etcdserverpb.Auth/RoleDelete"),
    ("/auth/role/grant", "/etcdserverpb.Auth/RoleGrantPermission"),
    ("/auth/role/revoke", "/etcdserverpb.Auth/RoleRevokePermission"),
    ("/lock/lock", "/v3lockpb.Lock/Lock"),
    ("/lock/unlock", "/v3lockpb.Lock/Unlock"),
    ("/election/campaign", "/v3electionpb.Election/Campaign"),
    ("/election/proclaim", "/v3electionpb.Election/Proclaim"),
    ("/election/leader", "/v3electionpb.Election/Leader"),
    ("/election/observe", "/v3electionpb.Election/Observe"),
    ("/election/resign", "/v3electionpb.Election/Resign"),
];

/// The call that a path stands for, by its gRPC path. `/v3beta` is what older clients say.
pub fn call(path: &str) -> Option<&'static str> {
    let rest = path.strip_prefix("/v3beta").or_else(|| path.strip_prefix("/v3"))?;
    PATHS.iter().find(|(known, _)| *known == rest).map(|(_, call)| *call)
}

/// Answers a JSON request to a call.
pub async fn answer(front: Front, path: &'static str, request: Request<Body>) -> Response<Body> {
    let Some(call) = CALLS.get(path) else {
        let refusal = offered::refusal(path).map_or_else(|| Status::unimplemented("not offered"), Status::from);
        return error(&refusal);
    };
    let (head, body) = request.into_parts();
    let messages = match messages(call, body).await {
        Ok(messages) => messages,
        Err(refusal) => return error(&refusal),
    };
    let mut request = grpc_request(path, messages);
    if let Some(token) = head.headers.get(AUTHORIZATION) {
        request.headers_mut().insert(AUTHORIZATION, token.clone()); // as etcd's gateway passes tokens on
    }
    let response = front.grpc(request).await;
    let (head, body) = response.into_parts();
    if let Some(refusal) = Status::from_header_map(&head.headers).filter(|status| status.code() != Code::Ok) {
        return error(&refusal);
    }
    let answers = Answers { body, unread: BytesMut::new(), kind: call.output() };
    if call.is_server_streaming() { stream(answers) } else { single(answers).await }
}

/// The body's JSON values as messages; one unless the client may send several. Nothing at all is an empty message.
async fn messages(call: &MethodDescriptor, body: Body) -> Result<Vec<DynamicMessage>, Status> {
    let too_long = || Status::invalid_argument(format!("quorate: a request has at most {MESSAGE_BYTES_MAX} bytes"));
    let body = tokio::time::timeout(BODY_PATIENCE, Limited::new(body, MESSAGE_BYTES_MAX).collect()).await;
    let body = body.map_err(|_| Status::deadline_exceeded("quorate: the request did not arrive in time"))?;
    let body = body.map_err(|_| too_long())?.to_bytes();
    if body.iter().filter(|byte| matches!(byte, b'{' | b'[' | b',')).count() > JSON_PARTS_MAX {
        return Err(Status::invalid_argument(format!("quorate: a request has at most {JSON_PARTS_MAX} parts")));
    }
    let options = DeserializeOptions::new().deny_unknown_fields(false);
    let mut messages = Vec::new();
    for value in serde_json::Deserializer::from_slice(&body).into_iter::<Value>() {
        let value = value.map_err(|error| Status::invalid_argument(error.to_string()))?;
        let message = DynamicMessage::deserialize_with_options(call.input(), value, &options);
        messages.push(message.map_err(|error| Status::invalid_argument(error.to_string()))?);
        if messages.len() > if call.is_client_streaming() { JSON_REQUESTS_MAX } else { 1 } {
            return Err(Status::invalid_argument("quorate: there are more JSON values than the call takes"));
        }
    }
    if messages.is_empty() && !call.is_client_streaming() {
        messages.push(DynamicMessage::new(call.input()));
    }
    Ok(messages)
}

fn grpc_request(path: &'static str, messages: Vec<DynamicMessage>) -> Request<Body> {
    let mut bytes = BytesMut::new();
    for message in messages {
        bytes.put_u8(0); // not compressed
        bytes.put_u32(u32::try_from(message.encoded_len()).unwrap_or(u32::MAX));
        bytes.extend_from_slice(&message.encode_to_vec());
    }
    let mut request = Request::new(Body::new(Full::new(bytes.freeze())));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = http::Uri::from_static(path);
    request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    request.headers_mut().insert(TE, HeaderValue::from_static("trailers"));
    request
}

/// The messages of a gRPC response.
struct Answers {
    body: Body,
    unread: BytesMut,
    kind: MessageDescriptor,
}

impl Answers {
    /// The next one as JSON; `None` after the last.
    async fn next(&mut self) -> Result<Option<Value>, Status> {
        loop {
            if let Some(message) = self.read() {
                return self.translated(message).map(Some);
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Err(refusal)) => return Err(refusal),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.unread.extend_from_slice(&data),
                    Err(frame) => return ended(frame.trailers_ref()),
                },
            }
        }
    }

    /// A message that has arrived whole.
    fn read(&mut self) -> Option<Bytes> {
        let mut head = self.unread.get(..5)?;
        let _not_compressed = head.get_u8();
        let length = usize::try_from(head.get_u32()).unwrap_or(usize::MAX);
        if self.unread.len() < length.saturating_add(5) {
            return None;
        }
        self.unread.advance(5);
        Some(self.unread.split_to(length).freeze())
    }

    fn translated(&self, message: Bytes) -> Result<Value, Status> {
        let options = SerializeOptions::new().use_proto_field_name(true).skip_default_fields(true);
        let message = DynamicMessage::decode(self.kind.clone(), message);
        let message = message.map_err(|error| Status::internal(error.to_string()))?;
        let value = message.serialize_with_options(serde_json::value::Serializer, &options);
        value.map_err(|error| Status::internal(error.to_string()))
    }
}

/// How a call ended, when its trailers say it.
fn ended(trailers: Option<&HeaderMap>) -> Result<Option<Value>, Status> {
    match trailers.and_then(Status::from_header_map).filter(|status| status.code() != Code::Ok) {
        Some(refusal) => Err(refusal),
        None => Ok(None),
    }
}

async fn single(mut answers: Answers) -> Response<Body> {
    match answers.next().await {
        Ok(Some(value)) => page(StatusCode::OK, "application/json", value.to_string()),
        Ok(None) => error(&Status::internal("quorate: there is no answer")),
        Err(refusal) => error(&refusal),
    }
}

/// A line for each message, as it comes; the last may be an error.
fn stream(mut answers: Answers) -> Response<Body> {
    let (lines, body) = mpsc::channel::<Result<Frame<Bytes>, Infallible>>(RESPONSES_WAITING_MAX);
    tokio::spawn(async move {
        loop {
            let next = tokio::select! {
                () = lines.closed() => return,
                next = answers.next() => next,
            };
            let (value, last) = match next {
                Ok(Some(value)) => (json!({ "result": value }), false),
                Ok(None) => return,
                Err(refusal) => (json!({ "error": stream_error(&refusal) }), true),
            };
            if lines.send(Ok(Frame::data(Bytes::from(format!("{value}\n"))))).await.is_err() || last {
                return;
            }
        }
    });
    let body = StreamBody::new(tokio_stream::wrappers::ReceiverStream::new(body));
    let mut response = Response::new(Body::new(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn error(refusal: &Status) -> Response<Body> {
    let code = refusal.code() as i32;
    let text = json!({ "error": refusal.message(), "code": code, "message": refusal.message() });
    page(http_status(refusal.code()), "application/json", text.to_string())
}

fn stream_error(refusal: &Status) -> Value {
    let status = http_status(refusal.code());
    json!({
        "grpc_code": refusal.code() as i32,
        "http_code": status.as_u16(),
        "message": refusal.message(),
        "http_status": status.canonical_reason().unwrap_or_default(),
    })
}

/// The status that etcd's gateway gives each code.
fn http_status(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        Code::Cancelled => StatusCode::REQUEST_TIMEOUT,
        Code::InvalidArgument | Code::OutOfRange => StatusCode::BAD_REQUEST,
        Code::FailedPrecondition => StatusCode::PRECONDITION_FAILED,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_is_a_call_that_is_offered_or_one_whose_refusal_has_a_reason() {
        for (path, call) in PATHS {
            assert!(CALLS.contains_key(call) || offered::refusal(call).is_some(), "{path}: {call}");
        }
    }

    #[test]
    fn every_call_that_is_offered_has_a_path() {
        let hash = "/etcdserverpb.Maintenance/Hash"; // etcd's `/maintenance/hash` is HashKV
        let missing = |call: &&String| *call != hash && PATHS.iter().all(|(_, known)| known != call);
        assert_eq!(CALLS.keys().filter(missing).collect::<Vec<_>>(), Vec::<&String>::new());
    }
}
