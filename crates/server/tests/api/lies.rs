//! Under a Byzantine protocol no replica is believed alone: neither answers nor events.

use crate::common::{PATIENCE, Served};
use quorate_core::machine::{At, Corrupt, Output, Query, Sink, Snapshot, StateMachine};
use quorate_core::protocol::Protocol as _;
use quorate_core::time::WallTime;
use quorate_machines::kv::{Kv, KvSink, KvSource, KvView, WatchBatch};
use quorate_protocols::pbft::{self, Pbft};
use quorate_protocols::vr::Vr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A store that may tell of other values than were written. Otherwise it is like any.
struct Told {
    kv: Kv,
    lies: Option<Arc<AtomicUsize>>,
}

impl StateMachine for Told {
    fn apply(&mut self, at: &At, operation: &[u8], out: &mut Output) {
        let mut honest = Output::default();
        self.kv.apply(at, operation, &mut honest);
        let (reply, events) = honest.take();
        out.reply(&reply);
        for (topic, bytes) in events {
            match &self.lies {
                None => out.event(topic, bytes),
                Some(lies) => {
                    let mut batch: WatchBatch = borsh::from_slice(&bytes).expect("a batch");
                    batch.events.iter_mut().for_each(|event| event.kv.value = "a lie".into());
                    out.event(topic, borsh::to_vec(&batch).expect("bytes"));
                    lies.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    fn tick(&mut self, at: &At, out: &mut Output) {
        self.kv.tick(at, out);
    }

    fn wake(&self) -> Option<WallTime> {
        self.kv.wake()
    }

    fn digest(&self) -> quorate_core::crypto::Digest {
        self.kv.digest()
    }
}

impl Query for Told {
    type View = KvView;

    fn view(&self) -> KvView {
        self.kv.view()
    }
}

struct ToldSink(KvSink);

impl Sink<Told> for ToldSink {
    fn push(&mut self, bytes: &[u8]) -> Result<(), Corrupt> {
        self.0.push(bytes)
    }

    fn finish(self) -> Result<Told, Corrupt> {
        Ok(Told { kv: self.0.finish()?, lies: None })
    }
}

impl Snapshot for Told {
    type Source = KvSource;
    type Sink = ToldSink;

    fn snapshot(&self) -> KvSource {
        self.kv.snapshot()
    }

    fn rebuild() -> ToldSink {
        ToldSink(Kv::rebuild())
    }
}

#[test]
fn as_many_must_tell_an_event_as_cannot_all_be_lying() {
    assert_eq!([1, 3, 4, 6, 7, 10].map(Pbft::vouch), [1, 1, 2, 2, 3, 4]);
    assert_eq!([1, 3, 5].map(Vr::vouch), [1, 1, 1]);
}

#[tokio::test]
async fn a_replica_whose_events_are_lies_is_not_believed_and_delays_nothing() {
    const PUTS: usize = 200;
    let (lies, started) = (Arc::new(AtomicUsize::new(0)), AtomicUsize::new(0));
    let counted = lies.clone();
    let machine = move || {
        let liar = started.fetch_add(1, Ordering::Relaxed) == 0;
        Told { kv: Kv::new(), lies: liar.then(|| counted.clone()) }
    };
    let served = Served::start_of::<Pbft, Told>(4, pbft::Config::default(), machine).await;
    let mut client = served.client().await;
    let mut watches = client.watches().await;
    watches.all(0).await;
    for _ in 0..PUTS {
        client.put("a", "the truth").await;
    }
    let events = watches.events(PUTS).await;
    let revisions: Vec<i64> = events.iter().map(|(revision, ..)| *revision).collect();
    assert_eq!(revisions, (2..).take(PUTS).collect::<Vec<i64>>(), "every revision once, in order");
    assert!(events.iter().all(|(.., value)| value == "the truth"));
    assert!(lies.load(Ordering::Relaxed) > PUTS / 2, "it did lie");
}

#[tokio::test]
async fn a_watch_goes_on_with_one_of_four_replicas_gone_and_when_it_is_back() {
    let mut served = Served::start_pbft().await;
    let mut client = served.client().await;
    let mut watches = client.watches().await;
    watches.all(0).await;
    let mut revision = 1;
    for replica in 0..4 {
        client.put("a", "before").await;
        served.crash(replica);
        client.put("a", "without").await;
        served.restart(replica);
        client.put("a", "after").await;
        let told = tokio::time::timeout(PATIENCE, watches.events(3)).await.expect("it is told");
        for (event, value) in told.iter().zip(["before", "without", "after"]) {
            revision += 1;
            assert_eq!((event.0, event.2.as_str()), (revision, value));
        }
    }
}
