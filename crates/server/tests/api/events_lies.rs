//! Over HTTP, too, no replica of a Byzantine protocol is believed alone.

use crate::common::{PATIENCE, http};
use crate::events::answer;
use quorate::events::{EventStore, Page, Published, Query as EventsQuery, Reply, Response};
use quorate::{ClientOptions, Events, Pbft, pbft};
use quorate_core::crypto::Digest;
use quorate_core::machine::{At, Corrupt, Output, Query, Sink, Snapshot, StateMachine, View};
use quorate_machines::events::{EventsSink, EventsSource, EventsView};
use quorate_runtime::local::Local;
use quorate_server::{EventsGateway, Options, listen};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A store that may tell of other events than were appended, and of positions that are not there yet.
struct Told {
    events: Events,
    lies: Option<Arc<AtomicUsize>>,
}

struct ToldView {
    view: EventsView,
    lies: Option<Arc<AtomicUsize>>,
}

fn lied(bytes: &[u8], lies: &AtomicUsize) -> Vec<u8> {
    lies.fetch_add(1, Ordering::Relaxed);
    let mut reply = Reply::decode(bytes).expect("a reply");
    reply.position += 1000;
    match &mut reply.result {
        Ok(Response::Page(Page { events, .. })) => {
            events.iter_mut().for_each(|event| event.data = "{\"lie\":true}".into());
        }
        Ok(Response::Appended(appended)) => appended.writes.iter_mut().for_each(|write| write.position += 1000),
        _ => {}
    }
    borsh::to_vec(&reply).expect("bytes")
}

impl StateMachine for Told {
    fn apply(&mut self, at: &At, operation: &[u8], out: &mut Output) {
        let mut honest = Output::default();
        self.events.apply(at, operation, &mut honest);
        let (reply, events) = honest.take();
        match &self.lies {
            None => {
                out.reply(&reply);
                events.into_iter().for_each(|(topic, bytes)| out.event(topic, bytes));
            }
            Some(lies) => {
                out.reply(&lied(&reply, lies));
                let hint = borsh::to_vec(&Published { position: u64::MAX }).expect("bytes");
                events.into_iter().for_each(|(topic, _)| out.event(topic, hint.clone()));
            }
        }
    }

    fn digest(&self) -> Digest {
        self.events.digest()
    }
}

impl Query for Told {
    type View = ToldView;

    fn view(&self) -> ToldView {
        ToldView { view: self.events.view(), lies: self.lies.clone() }
    }
}

impl View for ToldView {
    fn query(&self, query: &[u8], reply: &mut Vec<u8>) {
        let mut honest = Vec::new();
        self.view.query(query, &mut honest);
        match &self.lies {
            None => reply.extend_from_slice(&honest),
            Some(lies) => reply.extend_from_slice(&lied(&honest, lies)),
        }
    }
}

struct ToldSink(EventsSink);

impl Sink<Told> for ToldSink {
    fn push(&mut self, bytes: &[u8]) -> Result<(), Corrupt> {
        self.0.push(bytes)
    }

    fn finish(self) -> Result<Told, Corrupt> {
        Ok(Told { events: self.0.finish()?, lies: None })
    }
}

impl Snapshot for Told {
    type Source = EventsSource;
    type Sink = ToldSink;

    fn snapshot(&self) -> EventsSource {
        self.events.snapshot()
    }

    fn rebuild() -> ToldSink {
        ToldSink(Events::rebuild())
    }
}

#[tokio::test]
async fn a_replica_that_lies_changes_no_answer() {
    let (made, lies) = (AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
    let told = lies.clone();
    let machine = move || {
        let liar = made.fetch_add(1, Ordering::Relaxed) == 0;
        Told { events: Events::new(), lies: liar.then(|| told.clone()) }
    };
    let local = Local::start::<Pbft, Told>(4, pbft::Config::default(), machine).expect("a cluster");
    let (config, key) = local.cluster();
    let store = EventStore::connect::<Pbft>(config, key, ClientOptions::default()).expect("a client");
    assert!(EventsQuery::Status.encode().is_ok());
    let listener = listen::bind("127.0.0.1:0").await.expect("a port");
    let gateway = EventsGateway::start(store, listener, &Options::default()).expect("a gateway");
    for number in 1..=20_u64 {
        let body = json!({ "type": "t", "data": { "number": number } }).to_string();
        let (status, appended) = answer(http(gateway.address(), "POST", "/v1/streams/s", &body).await);
        assert_eq!((status, &appended["writes"][0]["position"]), (201, &json!(number)));
        let path = format!("/v1/streams/s?from={number}");
        let (_, read) = answer(http(gateway.address(), "GET", &path, "").await);
        assert_eq!(read["events"][0]["data"], json!({ "number": number }), "{read}");
    }
    let until = std::time::Instant::now() + PATIENCE;
    while lies.load(Ordering::Relaxed) < 20 {
        assert!(std::time::Instant::now() < until, "the liar was not asked");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}
