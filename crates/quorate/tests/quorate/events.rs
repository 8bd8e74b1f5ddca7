//! The event store as a library: commands that race, a subscription that sees everything once, a replica that dies.

use quorate::events::{
    Aggregate, Checkpoint, CommandError, Event, EventStore, Expected, Filter, Item, Loaded, NewEvent, Operation,
    Progress, Projection, ProjectionError, Projector, Recorded, Repository, Source, draw_id,
};
use quorate::{ClientOptions, Events, Local, ReplicaId, Vr, vr};
use std::path::Path;

#[derive(Clone, Debug, Default)]
struct Counter(u64);

#[derive(Clone, Debug, PartialEq)]
struct Counted(u64);

impl Event for Counted {
    fn kind(&self) -> &'static str {
        "counted"
    }

    fn encode(&self) -> Vec<u8> {
        self.0.to_string().into_bytes()
    }

    fn decode(_: &str, data: &[u8]) -> Result<Self, String> {
        String::from_utf8_lossy(data).parse().map(Counted).map_err(|_| "no number".to_owned())
    }
}

impl Aggregate for Counter {
    const CATEGORY: &'static str = "counter";
    type Command = ();
    type Event = Counted;
    type Error = std::fmt::Error;

    /// The next number: two that decide from the same state would say it twice.
    fn handle(&self, (): ()) -> Result<Vec<Counted>, Self::Error> {
        Ok(vec![Counted(self.0 + 1)])
    }

    fn apply(&mut self, event: &Counted) {
        assert_eq!(event.0, self.0 + 1, "somebody decided from an old state");
        self.0 = event.0;
    }
}

fn store(cluster: &Local) -> EventStore {
    let (config, key) = cluster.cluster();
    EventStore::connect::<Vr>(config, key, ClientOptions::default()).expect("a client")
}

#[test]
fn commands_that_race_are_decided_one_after_the_other_and_a_subscription_sees_each_event_once() {
    let mut cluster = Local::start::<Vr, _>(3, vr::Config::default(), Events::new).expect("a cluster");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let follower = store(&cluster);
        let follow = tokio::spawn(async move {
            let mut seen = Vec::new();
            let mut subscription = follower.subscribe(Source::Category("counter".into()), Filter::default(), 1);
            while seen.len() < 30 {
                if let Item::Events(events, next) = subscription.next().await.expect("events") {
                    seen.extend(events.iter().map(|event| event.position));
                    assert_eq!(next, subscription.next_number());
                }
            }
            seen
        });
        for round in 0..2 {
            let racing: Vec<_> = (0..3)
                .map(|_| {
                    let counters = Repository::<Counter>::new(store(&cluster));
                    tokio::spawn(async move {
                        for _ in 0..5 {
                            counters.execute("one", ()).await.expect("it is done");
                        }
                    })
                })
                .collect();
            for one in racing {
                one.await.expect("a task");
            }
            if round == 0 {
                cluster.crash(ReplicaId::new(0)); // the one that led
            }
        }
        let loaded = Repository::<Counter>::new(store(&cluster)).load("one").await.expect("an aggregate");
        assert_eq!((loaded.state.0, loaded.version), (30, 30));
        assert_eq!(follow.await.expect("a task"), (1..=30).collect::<Vec<u64>>());
    });
}

fn three() -> Local {
    Local::start::<Vr, _>(3, vr::Config::default(), Events::new).expect("a cluster")
}

async fn append(store: &EventStore, stream: &str, data: &'static str) {
    let event = NewEvent { id: draw_id(), kind: "counted".into(), data: data.into(), ..NewEvent::default() };
    store.append(stream, Expected::Any, vec![event]).await.expect("appended");
}

/// How many events there were of each stream, and their sum.
#[derive(Clone, Debug, Default, PartialEq)]
struct Sum(u64, i64);

impl Projection for Sum {
    const NAME: &'static str = "sum, version 1";

    fn apply(&mut self, event: &Recorded) -> Result<(), String> {
        let text = String::from_utf8_lossy(&event.data);
        let number: i64 = text.parse().map_err(|_| format!("`{text}` is no number"))?;
        *self = Self(self.0 + 1, self.1 + number);
        Ok(())
    }

    fn encode(&self) -> Vec<u8> {
        [self.0.to_le_bytes(), self.1.to_le_bytes()].concat()
    }

    fn decode(bytes: &[u8]) -> Result<Self, String> {
        let (count, sum) = bytes.split_first_chunk().ok_or("too short")?;
        Ok(Self(u64::from_le_bytes(*count), i64::from_le_bytes(sum.try_into().map_err(|_| "too short")?)))
    }
}

fn open(cluster: &Local, file: &Path) -> Result<Projector<Sum>, ProjectionError> {
    Projector::open(store(cluster), Source::Category("s".into()), Filter::default(), file)
}

#[tokio::test]
async fn a_projection_goes_on_from_its_file_and_each_event_counts_once() {
    let mut cluster = three();
    let (store, folder) = (store(&cluster), tempfile::tempdir().expect("a folder"));
    let file = folder.path().join("sum");
    append(&store, "s-1", "5").await;
    append(&store, "s-2", "7").await;
    let mut projector = open(&cluster, &file).expect("a projection");
    assert_eq!(projector.catch_up().await.expect("events"), 2);
    assert_eq!(projector.catch_up().await.expect("nothing"), 0);
    drop(projector);
    cluster.crash(ReplicaId::new(0));
    append(&store, "s-1", "-2").await;
    let mut projector = open(&cluster, &file).expect("the same");
    assert_eq!(*projector.checkpoint(), Checkpoint { state: Sum(2, 12), next: 3 });
    let follower = projector.follow(|sum, progress| !(matches!(progress, Progress::Took(_)) && sum.0 == 4));
    let appending = append(&store, "s-9", "100");
    let (followed, ()) = tokio::join!(follower, appending);
    followed.expect("followed");
    assert_eq!(*projector.checkpoint(), Checkpoint { state: Sum(4, 110), next: 5 });
    drop(projector);
    assert_eq!(
        open(&cluster, &file).expect("the same").checkpoint().state,
        Sum(4, 110),
        "what was followed is kept, too"
    );
}

#[tokio::test]
async fn a_projection_is_made_again_from_any_position() {
    let cluster = three();
    let (store, folder) = (store(&cluster), tempfile::tempdir().expect("a folder"));
    for data in ["1", "2", "3", "4"] {
        append(&store, "s-1", data).await;
    }
    let mut projector = open(&cluster, &folder.path().join("sum")).expect("a projection");
    projector.catch_up().await.expect("events");
    let whole = projector.checkpoint().clone();
    for checkpoint in [Checkpoint::default(), Checkpoint { state: Sum(2, 3), next: 3 }, whole.clone()] {
        projector.rebuild_from(checkpoint).expect("a file");
        projector.catch_up().await.expect("events");
        assert_eq!(*projector.checkpoint(), whole);
    }
    let mut other = Projector::from(store, Source::All, Filter::default(), Checkpoint { state: Sum(0, 0), next: 4 });
    other.catch_up().await.expect("events");
    assert_eq!(other.checkpoint().state, Sum(1, 4));
}

#[tokio::test]
async fn a_page_with_an_event_that_does_not_fit_is_not_taken_in_at_all() {
    let cluster = three();
    let (store, folder) = (store(&cluster), tempfile::tempdir().expect("a folder"));
    let file = folder.path().join("sum");
    append(&store, "s-1", "1").await;
    let mut projector = open(&cluster, &file).expect("a projection");
    projector.catch_up().await.expect("events");
    append(&store, "s-1", "2").await;
    append(&store, "s-1", "many").await;
    let stopped = projector.catch_up().await;
    assert!(matches!(stopped, Err(ProjectionError::Unusable { position: 3, .. })), "{stopped:?}");
    assert_eq!(*projector.checkpoint(), Checkpoint { state: Sum(1, 1), next: 2 });
    assert_eq!(open(&cluster, &file).expect("the same").checkpoint().next, 2);
}

#[tokio::test]
async fn a_checkpoint_that_is_damaged_or_of_something_else_is_not_gone_on_with() {
    let cluster = three();
    let (store, folder) = (store(&cluster), tempfile::tempdir().expect("a folder"));
    let file = folder.path().join("sum");
    append(&store, "s-1", "1").await;
    open(&cluster, &file).expect("a projection").catch_up().await.expect("events");
    let bytes = std::fs::read(&file).expect("a file");
    for index in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[index] ^= 1;
        std::fs::write(&file, flipped).expect("a file");
        assert!(matches!(open(&cluster, &file), Err(ProjectionError::Checkpoint { .. })), "byte {index}");
    }
    std::fs::write(&file, &bytes).expect("a file");
    let other = Projector::<Sum>::open(store, Source::All, Filter::default(), &file);
    assert!(other.is_err_and(|it| it.to_string().contains("other events")));
    assert!(open(&cluster, &file).is_ok());
}

#[tokio::test]
async fn an_aggregate_goes_on_from_a_snapshot_and_is_never_made_of_half_its_events() {
    let cluster = three();
    let (raw, counters) = (store(&cluster), Repository::<Counter>::new(store(&cluster)));
    for _ in 0..5 {
        counters.execute("one", ()).await.expect("done");
    }
    let snapshot = counters.load("one").await.expect("a counter");
    counters.execute("one", ()).await.expect("done");
    let hide = Operation::Truncate { stream: "counter-one".into(), before: 6 };
    raw.apply(&hide).await.expect("an answer").result.expect("it is done");
    let loaded = counters.load_from("one", snapshot).await.expect("a counter");
    assert_eq!((loaded.state.0, loaded.version), (6, 6));
    let without = counters.load("one").await;
    assert!(matches!(without, Err(CommandError::Hidden { version: 0, .. })), "{without:?}");
    let old = Loaded { state: Counter(3), version: 3 };
    assert!(matches!(counters.load_from("one", old).await, Err(CommandError::Hidden { version: 3, .. })));
    let delete = Operation::Delete { stream: "counter-one".into(), expected: Expected::Any, forever: false };
    raw.apply(&delete).await.expect("an answer").result.expect("it is done");
    assert!(matches!(counters.execute("one", ()).await, Err(CommandError::Hidden { .. })));
}

/// A counter whose events were once written in another form.
#[derive(Clone, Debug, PartialEq)]
struct Added(u64);

impl Event for Added {
    fn kind(&self) -> &'static str {
        "added-2"
    }

    fn encode(&self) -> Vec<u8> {
        self.0.to_string().into_bytes()
    }

    /// `added-1` was in dozens.
    fn decode(kind: &str, data: &[u8]) -> Result<Self, String> {
        let number = String::from_utf8_lossy(data).parse::<u64>().map_err(|_| "no number".to_owned())?;
        match kind {
            "added-1" => Ok(Added(number * 12)),
            "added-2" => Ok(Added(number)),
            other => Err(format!("`{other}` is not known")),
        }
    }
}

#[derive(Clone, Debug, Default)]
struct Total(u64);

impl Aggregate for Total {
    const CATEGORY: &'static str = "total";
    type Command = u64;
    type Event = Added;
    type Error = std::fmt::Error;

    fn handle(&self, add: u64) -> Result<Vec<Added>, Self::Error> {
        Ok(vec![Added(add)])
    }

    fn apply(&mut self, event: &Added) {
        self.0 += event.0;
    }
}

#[tokio::test]
async fn old_forms_of_events_are_read_as_new_ones_and_unknown_ones_stop_the_aggregate() {
    let cluster = three();
    let (raw, totals) = (store(&cluster), Repository::<Total>::new(store(&cluster)));
    let written = |kind: &str, data: &'static str| {
        vec![NewEvent { id: draw_id(), kind: kind.into(), data: data.into(), ..NewEvent::default() }]
    };
    raw.append("total-a", Expected::NoStream, written("added-1", "2")).await.expect("appended");
    totals.execute("a", 5).await.expect("done");
    assert_eq!(totals.load("a").await.expect("a total").state.0, 29);
    raw.append("total-a", Expected::Any, written("added-3", "1")).await.expect("appended");
    let stopped = totals.execute("a", 1).await;
    assert!(matches!(stopped, Err(CommandError::Unreadable { version: 3, .. })), "{stopped:?}");
}

#[tokio::test]
async fn a_subscription_says_how_far_nothing_of_interest_has_happened() {
    let cluster = three();
    let store = store(&cluster);
    let filter = Filter { kinds: vec!["rare".into()], ..Filter::default() };
    let mut subscription = store.subscribe(Source::All, filter, 1);
    append(&store, "s", "1").await;
    append(&store, "s", "2").await;
    loop {
        match subscription.next().await.expect("an item") {
            Item::Passed(3) => break,
            Item::Passed(_) | Item::Live => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(subscription.next_number(), 3);
}
