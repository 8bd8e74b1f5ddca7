//! The Watch service: many watches on one stream, each ordered, unique, whole revisions, resumable.
//!
//! A stream is one task. It goes round its watches and sends each what has happened for it since it was last there; then it
//! waits for a request, for the next revision, or for the time of progress notifications. Each watch knows the next revision
//! that it has not been told; nothing else decides what it is sent. A slow client stops its own stream's task, nobody else's.
//!
//! Source: etcd's API reference, *Watch API*; where it is silent, etcd 3.4's observed behaviour (the differential test).

use crate::access::Access;
use crate::convert;
use crate::errors::EtcdError;
use crate::gateway::{Api, Responses};
use crate::hub::{Counted, Found, Hub, Interest, Seen};
use crate::limits::{FRAGMENT_BYTES_MAX, RESPONSES_WAITING_MAX, WATCH_RESPONSE_BYTES_SOFT_MAX, WATCHES_PER_STREAM_MAX};
use crate::proto::etcdserverpb::watch_create_request::FilterType;
use crate::proto::etcdserverpb::watch_request::RequestUnion;
use crate::proto::etcdserverpb::watch_server::Watch;
use crate::proto::etcdserverpb::{ResponseHeader, WatchCreateRequest, WatchRequest, WatchResponse};
use crate::proto::mvccpb;
use crate::store::{Read, Store};
use bytes::Bytes;
use prost::Message as _;
use quorate_machines::kv::limits::KEY_BYTES_MAX;
use quorate_machines::kv::{Events, KvError, Query};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tonic::{Request, Response, Status, Streaming, async_trait};

/// The id of a response that is about no watch: a refused one, or the progress of all.
const NO_WATCH: i64 = -1;

#[async_trait]
impl Watch for Api {
    type WatchStream = Responses<WatchResponse>;

    async fn watch(&self, request: Request<Streaming<WatchRequest>>) -> Result<Response<Self::WatchStream>, Status> {
        let needs_leader = request.metadata().get("hasleader").is_some_and(|value| value == "true");
        let (responses, stream) = mpsc::channel(RESPONSES_WAITING_MAX);
        let (interest, seen) = self.hub.join();
        let task = Stream {
            access: self.access(request.metadata()),
            store: self.store.clone(),
            hub: self.hub.clone(),
            seen,
            responses,
            watches: BTreeMap::new(),
            next_id: 0,
            progress_wanted: 0,
            needs_leader,
            present: 0,
            _interest: interest,
        };
        tokio::spawn(task.run(request.into_inner(), self.progress_interval));
        Ok(Response::new(stream.into()))
    }
}

/// One watch of a stream.
#[derive(Debug)]
struct Watched {
    interest: Events,
    /// The first revision that it has not been told of.
    next: i64,
    progress_notify: bool,
    /// Whether it has heard anything since the last time of progress notifications.
    heard: bool,
    fragment: bool,
    _counted: Counted,
}

struct Stream {
    access: Access,
    store: Arc<Store>,
    hub: Arc<Hub>,
    seen: watch::Receiver<Seen>,
    responses: mpsc::Sender<Result<WatchResponse, Status>>,
    watches: BTreeMap<i64, Watched>,
    next_id: i64,
    /// Requests for the progress of all, that wait until all have been told everything.
    progress_wanted: usize,
    needs_leader: bool,
    /// The revision when the last watch was created.
    present: i64,
    _interest: Interest,
}

/// The client is gone, or was told why its stream ends.
struct Over;

impl Stream {
    /// Runs until the client goes, or has ended its half and has no watch left.
    async fn run(mut self, mut requests: Streaming<WatchRequest>, progress_interval: Duration) {
        let mut progress = tokio::time::interval_at(Instant::now() + progress_interval, progress_interval);
        progress.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut more_requests = true;
        loop {
            let Ok(told_all) = self.tell().await else { return };
            if !more_requests && self.watches.is_empty() && self.progress_wanted == 0 {
                return;
            }
            let wants_progress = self.watches.values().any(|watch| watch.progress_notify);
            let result = tokio::select! {
                biased;
                () = self.responses.closed() => return,
                request = requests.message(), if more_requests => match request {
                    Ok(Some(request)) => self.on_request(request).await,
                    Ok(None) => { more_requests = false; Ok(()) }
                    Err(_) => return,
                },
                _ = progress.tick(), if wants_progress => self.on_progress_time().await,
                () = std::future::ready(()), if !told_all => Ok(()),
                changed = self.seen.changed() => match changed {
                    Ok(()) => self.on_seen().await,
                    Err(_) => return,
                },
            };
            if result.is_err() {
                return;
            }
        }
    }

    async fn on_request(&mut self, request: WatchRequest) -> Result<(), Over> {
        match request.request_union {
            Some(RequestUnion::CreateRequest(create)) => self.on_create(create).await,
            Some(RequestUnion::CancelRequest(cancel)) => {
                if self.watches.remove(&cancel.watch_id).is_none() {
                    return Ok(()); // like etcd: whoever cancels what is not there hears nothing
                }
                let header = Some(self.store.header(self.present.max(self.seen.borrow().revision)));
                let response = WatchResponse { header, ..WatchResponse::default() };
                let response = WatchResponse { watch_id: cancel.watch_id, canceled: true, ..response };
                self.send(response).await
            }
            Some(RequestUnion::ProgressRequest(_)) => {
                self.progress_wanted = self.progress_wanted.saturating_add(1);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// `created` is a watch's first response. Its revision is not older than anything that was acknowledged before, so that
    /// a watch from now on hears nothing that its client has seen already. Whether the client may watch is decided then: like
    /// etcd's, a watch outlives the right to it.
    async fn on_create(&mut self, create: WatchCreateRequest) -> Result<(), Over> {
        let (allowed, present) = match self.ask_leave(interest(&create)).await {
            Ok(answer) => answer,
            Err(error) => return self.end(error).await,
        };
        self.present = present;
        let header = Some(self.store.header(present));
        let (id, watched) = match allowed.and_then(|()| self.admit(create, present)) {
            Ok(admitted) => admitted,
            Err(why) => {
                let response = WatchResponse { header, watch_id: NO_WATCH, ..WatchResponse::default() };
                return self
                    .send(WatchResponse { created: true, canceled: true, cancel_reason: why, ..response })
                    .await;
            }
        };
        self.watches.insert(id, watched);
        self.send(WatchResponse { header, watch_id: id, created: true, ..WatchResponse::default() }).await
    }

    /// Whether the client may watch this, or why not; and the present revision.
    async fn ask_leave(&self, interest: Events) -> Result<(Result<(), String>, i64), EtcdError> {
        let refused = |error: &EtcdError| {
            let (code, text) = error.etcd();
            Err(format!("rpc error: code = {code:?} desc = {text}")) // as Go writes an error of gRPC
        };
        if let Some(too_long) = too_long(&interest) {
            return Ok((Err(too_long), self.store.status().await?.revision));
        }
        match self.access.query(Read::Linearizable, Query::Events(interest)).await {
            Ok((header, _)) => Ok((Ok(()), header.revision)),
            Err(error @ EtcdError::Kv(KvError::Auth(_))) => Ok((refused(&error), self.store.status().await?.revision)),
            Err(error) => Err(error),
        }
    }

    /// The id and the watch, or why there is none.
    fn admit(&mut self, create: WatchCreateRequest, present: i64) -> Result<(i64, Watched), String> {
        let interest = interest(&create);
        if create.start_revision < 0 {
            return Err(KvError::Compacted { compact_revision: 0 }.etcd().1.to_owned());
        }
        if !matches!(*interest.range_end, [] | [0]) && interest.key >= interest.range_end {
            return Err("mvcc: watcher range is empty".to_owned());
        }
        if self.watches.len() >= WATCHES_PER_STREAM_MAX {
            return Err(format!(
                "etcdserver: too many requests (a stream has at most {WATCHES_PER_STREAM_MAX} watches)"
            ));
        }
        let id = self.choose_id(create.watch_id)?;
        let watched = Watched {
            interest,
            next: if create.start_revision > 0 { create.start_revision } else { present.saturating_add(1) },
            progress_notify: create.progress_notify,
            heard: true,
            fragment: create.fragment,
            _counted: Counted::new(&self.hub),
        };
        Ok((id, watched))
    }

    /// The wanted id, or the next that is free for 0.
    fn choose_id(&mut self, wanted: i64) -> Result<i64, String> {
        if wanted != 0 {
            return match self.watches.contains_key(&wanted) {
                true => Err("mvcc: duplicate watch ID provided on the WatchStream".to_owned()),
                false => Ok(wanted),
            };
        }
        while self.watches.contains_key(&self.next_id) {
            self.next_id = self.next_id.wrapping_add(1).max(0);
        }
        let id = self.next_id;
        self.next_id = self.next_id.wrapping_add(1).max(0);
        Ok(id)
    }

    /// Tells each watch a part of what it has not been told. Whether that was all of it.
    async fn tell(&mut self) -> Result<bool, Over> {
        let seen = self.seen.borrow_and_update().revision;
        let behind = self.watches.iter().filter(|(_, watch)| watch.next <= seen);
        let behind: Vec<i64> = behind.map(|(id, _)| *id).collect();
        let mut told_all = true;
        for id in behind {
            told_all &= self.tell_one(id, seen).await?;
        }
        if told_all && seen > 0 {
            for _ in 0..std::mem::take(&mut self.progress_wanted) {
                self.send(WatchResponse { watch_id: NO_WATCH, ..self.response() }).await?;
            }
        }
        Ok(told_all)
    }

    async fn tell_one(&mut self, id: i64, seen: i64) -> Result<bool, Over> {
        let Some(watch) = self.watches.get(&id) else { return Ok(true) };
        match self.hub.read(&watch.interest, watch.next).await {
            Ok(found) => self.on_found(id, found, seen).await,
            Err(EtcdError::Kv(KvError::Compacted { compact_revision })) => {
                self.watches.remove(&id);
                let response = WatchResponse { watch_id: id, canceled: true, compact_revision, ..self.response() };
                self.send(response).await?;
                Ok(true)
            }
            Err(error) => self.end(error).await.map(|()| true),
        }
    }

    /// Sends whole revisions, as many in a response as are small enough together.
    async fn on_found(&mut self, id: i64, found: Found, seen: i64) -> Result<bool, Over> {
        let Some(watch) = self.watches.get_mut(&id) else { return Ok(true) };
        watch.next = watch.next.max(found.next);
        watch.heard |= !found.batches.is_empty();
        let (told_all, fragment) = (watch.next > seen, watch.fragment);
        let mut waiting: Vec<mvccpb::Event> = Vec::new();
        let (mut bytes, mut revision) = (0_usize, 0);
        for batch in found.batches {
            let size = crate::hub::size(&batch.events);
            if bytes > 0 && bytes.saturating_add(size) > WATCH_RESPONSE_BYTES_SOFT_MAX {
                self.send_events(id, revision, std::mem::take(&mut waiting), fragment).await?;
                bytes = 0;
            }
            bytes = bytes.saturating_add(size);
            revision = batch.revision;
            waiting.extend(batch.events.into_iter().map(convert::event));
        }
        if !waiting.is_empty() {
            self.send_events(id, revision, waiting, fragment).await?;
        }
        Ok(told_all)
    }

    async fn send_events(
        &self,
        id: i64,
        revision: i64,
        events: Vec<mvccpb::Event>,
        fragment: bool,
    ) -> Result<(), Over> {
        let header = Some(self.store.header(revision));
        let whole = WatchResponse { header, watch_id: id, events, ..WatchResponse::default() };
        if !fragment {
            return self.send(whole).await;
        }
        for part in fragments(whole, FRAGMENT_BYTES_MAX) {
            self.send(part).await?;
        }
        Ok(())
    }

    /// Those that have heard nothing for a while hear how far the store is, if they have been told everything.
    async fn on_progress_time(&mut self) -> Result<(), Over> {
        let seen = self.seen.borrow().revision;
        let mut silent = Vec::new();
        for (id, watch) in &mut self.watches {
            if watch.progress_notify && !std::mem::take(&mut watch.heard) && watch.next > seen && seen > 0 {
                silent.push(*id);
            }
        }
        for id in silent {
            self.send(WatchResponse { watch_id: id, ..self.response() }).await?;
        }
        Ok(())
    }

    async fn on_seen(&self) -> Result<(), Over> {
        if self.needs_leader && self.seen.borrow().lost {
            return self.end(EtcdError::NoLeader).await;
        }
        Ok(())
    }

    /// A response about how far the store is.
    fn response(&self) -> WatchResponse {
        let header: Option<ResponseHeader> = Some(self.store.header(self.seen.borrow().revision));
        WatchResponse { header, ..WatchResponse::default() }
    }

    async fn send(&self, response: WatchResponse) -> Result<(), Over> {
        self.responses.send(Ok(response)).await.map_err(|_| Over)
    }

    /// Ends the stream; the client comes again and goes on where it was.
    async fn end(&self, error: EtcdError) -> Result<(), Over> {
        let _gone = self.responses.send(Err(error.into())).await;
        Err(Over)
    }
}

/// What is wrong with the keys of a watch that are longer than keys can be.
fn too_long(interest: &Events) -> Option<String> {
    let long = interest.key.len().max(interest.range_end.len()) > KEY_BYTES_MAX;
    long.then(|| format!("etcdserver: request is too large (a key has at most {KEY_BYTES_MAX} bytes)"))
}

fn interest(create: &WatchCreateRequest) -> Events {
    let filters = |filter: FilterType| create.filters.contains(&i32::from(filter));
    Events {
        key: if create.key.is_empty() { Bytes::from_static(&[0]) } else { create.key.clone() },
        range_end: create.range_end.clone(),
        prev_kv: create.prev_kv,
        no_put: filters(FilterType::Noput),
        no_delete: filters(FilterType::Nodelete),
        ..Events::default()
    }
}

/// The response in parts of at most `bytes_max`, or of one event; all but the last say that more follows.
fn fragments(whole: WatchResponse, bytes_max: usize) -> Vec<WatchResponse> {
    if whole.events.len() < 2 || whole.encoded_len() < bytes_max {
        return vec![whole];
    }
    let empty = WatchResponse { events: Vec::new(), fragment: true, ..whole.clone() };
    let mut parts = Vec::new();
    let mut part = empty.clone();
    let mut bytes = empty.encoded_len();
    for event in whole.events {
        let size = event.encoded_len().saturating_add(8); // its tag and length
        if !part.events.is_empty() && bytes.saturating_add(size) >= bytes_max {
            parts.push(std::mem::replace(&mut part, empty.clone()));
            bytes = empty.encoded_len();
        }
        bytes = bytes.saturating_add(size);
        part.events.push(event);
    }
    parts.push(WatchResponse { fragment: false, ..part });
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(sizes: &[usize]) -> WatchResponse {
        let event = |size: &usize| mvccpb::Event {
            kv: Some(mvccpb::KeyValue { value: vec![7; *size].into(), ..mvccpb::KeyValue::default() }),
            ..mvccpb::Event::default()
        };
        WatchResponse { watch_id: 3, events: sizes.iter().map(event).collect(), ..WatchResponse::default() }
    }

    #[test]
    fn fragments_are_small_keep_the_order_and_only_the_last_says_that_it_is_the_last() {
        let sizes = [10, 300, 20, 900, 5, 5, 400];
        let parts = fragments(response(&sizes), 500);
        assert!(parts.len() > 2);
        let last = parts.len() - 1;
        for (index, part) in parts.iter().enumerate() {
            assert!(part.encoded_len() <= 500 || part.events.len() == 1);
            assert_eq!((part.fragment, part.watch_id), (index != last, 3));
        }
        let events = parts.into_iter().flat_map(|part| part.events);
        assert_eq!(events.collect::<Vec<_>>(), response(&sizes).events);
    }

    #[test]
    fn what_fits_is_not_fragmented() {
        assert_eq!(fragments(response(&[10, 10]), 500), [response(&[10, 10])]);
        assert_eq!(fragments(response(&[900]), 500), [response(&[900])], "one event is never cut");
    }
}
