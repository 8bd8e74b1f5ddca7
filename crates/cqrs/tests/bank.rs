//! The framework's usual example, a bank account, over replicas that crash.

use async_trait::async_trait;
use cqrs_es::event_sink::EventSink;
use cqrs_es::persist::{
    EventUpcaster, PersistedEventRepository, PersistedEventStore, PersistenceError, QueryReplay, ReplayStream,
    SemanticVersionEventUpcaster, SerializedEvent, SerializedSnapshot,
};
use cqrs_es::{
    Aggregate, AggregateError, CqrsFramework, DomainEvent, EventEnvelope, EventStore as _, Query, test::TestFramework,
};
use quorate::events::{EventStore, Expected, Filter, NewEvent, Operation, Read, Source, draw_id};
use quorate::{ClientOptions, Events, Local, Pbft, Protocol, ReplicaId, Vr, pbft, vr};
use quorate_cqrs::{EventRepository, ReplicatedStore, feed};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex};

#[derive(Debug, Default, Serialize, Deserialize)]
struct Account {
    open: bool,
    cents: i64,
}

#[derive(Clone, Debug)]
enum Command {
    Open,
    Move(i64),
    /// Two events at a time.
    MoveTwice(i64),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Happened {
    Opened,
    Moved { cents: i64 },
}

#[derive(Debug, PartialEq, thiserror::Error)]
enum Refused {
    #[error("there is no such account")]
    NotOpen,
    #[error("only {0} cents are there")]
    TooLittle(i64),
}

impl DomainEvent for Happened {
    fn event_type(&self) -> String {
        match self {
            Happened::Opened => "opened".to_owned(),
            Happened::Moved { .. } => "moved".to_owned(),
        }
    }

    fn event_version(&self) -> String {
        "1.0".to_owned()
    }
}

impl Account {
    async fn move_once(&mut self, cents: i64, sink: &EventSink<Self>) -> Result<(), Refused> {
        match self {
            Account { open: false, .. } => Err(Refused::NotOpen),
            Account { cents: has, .. } if *has + cents < 0 => Err(Refused::TooLittle(*has)),
            _ => {
                sink.write(Happened::Moved { cents }, self).await;
                Ok(())
            }
        }
    }
}

impl Aggregate for Account {
    const TYPE: &'static str = "account";
    type Command = Command;
    type Event = Happened;
    type Error = Refused;
    type Services = ();

    async fn handle(&mut self, command: Command, (): &(), sink: &EventSink<Self>) -> Result<(), Refused> {
        match command {
            Command::Open => sink.write(Happened::Opened, self).await,
            Command::Move(cents) => self.move_once(cents, sink).await?,
            Command::MoveTwice(cents) => {
                self.move_once(cents, sink).await?;
                self.move_once(cents, sink).await?;
            }
        }
        Ok(())
    }

    fn apply(&mut self, event: Happened) {
        match event {
            Happened::Opened => self.open = true,
            Happened::Moved { cents } => self.cents += cents,
        }
    }
}

fn client<P: Protocol>(cluster: &Local) -> EventStore {
    let (config, key) = cluster.cluster();
    EventStore::connect::<P>(config, key, ClientOptions::default()).expect("a client")
}

fn three() -> Local {
    Local::start::<Vr, _>(3, vr::Config::default(), Events::new).expect("a cluster")
}

/// A balance, and the sequences that made it.
type Told = (i64, Vec<usize>);

/// What a query was told of each account.
#[derive(Clone, Default)]
struct Balances(Arc<Mutex<BTreeMap<String, Told>>>);

#[async_trait]
impl Query<Account> for Balances {
    async fn dispatch(&self, id: &str, events: &[EventEnvelope<Account>]) {
        let mut all = self.0.lock().expect("no panic");
        let (cents, sequences) = all.entry(id.to_owned()).or_default();
        for event in events {
            sequences.push(event.sequence);
            if let Happened::Moved { cents: moved } = event.payload {
                *cents += moved;
            }
        }
    }
}

impl Balances {
    fn of(&self, id: &str) -> Told {
        self.0.lock().expect("no panic").get(id).cloned().unwrap_or_default()
    }
}

#[test]
fn the_framework_tests_an_account_without_any_cluster() {
    TestFramework::<Account>::with(())
        .given(vec![Happened::Opened, Happened::Moved { cents: 50 }])
        .when(Command::Move(-51))
        .then_expect_error(Refused::TooLittle(50));
}

#[tokio::test]
async fn commands_survive_the_loss_of_a_replica_and_queries_hear_of_them() {
    let mut cluster = Local::start::<Pbft, _>(4, pbft::Config::default(), Events::new).expect("a cluster");
    let balances = Balances::default();
    let store = ReplicatedStore::<Account>::new(client::<Pbft>(&cluster));
    let bank = CqrsFramework::new(store.clone(), vec![Box::new(balances.clone())], ());
    bank.execute("ann", Command::Open).await.expect("opened");
    bank.execute("ann", Command::Move(100)).await.expect("moved");
    cluster.crash(ReplicaId::new(0)); // the one that led
    bank.execute("ann", Command::MoveTwice(-40)).await.expect("moved");
    let refused = bank.execute("ann", Command::Move(-21)).await;
    assert!(matches!(refused, Err(AggregateError::UserError(Refused::TooLittle(20)))), "{refused:?}");
    assert!(matches!(bank.execute("bob", Command::Move(1)).await, Err(AggregateError::UserError(Refused::NotOpen))));
    assert_eq!(balances.of("ann"), (20, vec![1, 2, 3, 4]));
    let events = store.load_events("ann").await.expect("events");
    assert_eq!(events.iter().map(|it| it.sequence).collect::<Vec<_>>(), [1, 2, 3, 4]);
}

#[tokio::test]
async fn of_two_that_race_one_is_told_that_it_was_late_and_changes_nothing() {
    let cluster = three();
    let store = ReplicatedStore::<Account>::new(client::<Vr>(&cluster));
    let one = store.load_aggregate("a").await.expect("an account");
    let other = store.load_aggregate("a").await.expect("an account");
    store.commit(vec![Happened::Opened], one, HashMap::new()).await.expect("first");
    let late = store.commit(vec![Happened::Opened, Happened::Opened], other, HashMap::new()).await;
    assert!(matches!(late, Err(AggregateError::AggregateConflict)), "{late:?}");
    assert_eq!(store.load_events("a").await.expect("events").len(), 1);
}

#[tokio::test]
async fn the_frameworks_own_store_works_over_the_repository_and_is_replayed() {
    let cluster = three();
    let repository = EventRepository::new(client::<Vr>(&cluster));
    let store = PersistedEventStore::<_, Account>::new_event_store(repository.clone());
    let bank = CqrsFramework::new(store, vec![], ());
    for id in ["ann", "bob-2"] {
        bank.execute(id, Command::Open).await.expect("opened");
        bank.execute(id, Command::MoveTwice(7)).await.expect("moved");
    }
    let balances = Balances::default();
    let replay = QueryReplay::<_, _, Account>::new(repository.clone(), balances.clone());
    replay.replay("bob-2").await.expect("a replay");
    assert_eq!((balances.of("ann").0, balances.of("bob-2")), (0, (14, vec![1, 2, 3])));
    replay.replay_all().await.expect("a replay");
    assert_eq!((balances.of("ann").0, balances.of("bob-2").0), (14, 28));
    assert!(repository.get_last_events::<Account>("ann", 2).await.is_ok_and(|it| it.len() == 1));
}

/// A repository that looks at the snapshots that it is given.
#[derive(Clone, Default)]
struct Looking(Arc<Mutex<Vec<Value>>>);

impl PersistedEventRepository for Looking {
    async fn get_events<A: Aggregate>(&self, _: &str) -> Result<Vec<SerializedEvent>, PersistenceError> {
        Ok(Vec::new())
    }

    async fn get_last_events<A: Aggregate>(&self, _: &str, _: usize) -> Result<Vec<SerializedEvent>, PersistenceError> {
        Ok(Vec::new())
    }

    async fn get_snapshot<A: Aggregate>(&self, _: &str) -> Result<Option<SerializedSnapshot>, PersistenceError> {
        let aggregate = json!({ "open": true, "cents": 100 });
        let aggregate_id = "ann".to_owned();
        Ok(Some(SerializedSnapshot { aggregate_id, aggregate, current_sequence: 2, current_snapshot: 1 }))
    }

    async fn persist<A: Aggregate>(
        &self,
        _: &[SerializedEvent],
        snapshot_update: Option<(String, Value, usize)>,
    ) -> Result<(), PersistenceError> {
        self.0.lock().expect("no panic").extend(snapshot_update.map(|(_, aggregate, _)| aggregate));
        Ok(())
    }

    async fn stream_events<A: Aggregate>(&self, _: &str) -> Result<ReplayStream, PersistenceError> {
        Ok(ReplayStream::new(1).1)
    }

    async fn stream_all_events<A: Aggregate>(&self) -> Result<ReplayStream, PersistenceError> {
        Ok(ReplayStream::new(1).1)
    }
}

/// Why the repository refuses them. When this fails, the framework has changed, and the refusal can go.
#[tokio::test]
async fn the_frameworks_own_snapshots_hold_the_events_of_a_command_twice() {
    let looking = Looking::default();
    let store = PersistedEventStore::<_, Account>::new_aggregate_store(looking.clone());
    CqrsFramework::new(store, vec![], ()).execute("ann", Command::Move(10)).await.expect("moved");
    assert_eq!(*looking.0.lock().expect("no panic"), [json!({ "open": true, "cents": 120 })], "110 would be right");
}

#[tokio::test]
async fn snapshots_that_hold_events_twice_are_refused() {
    let cluster = three();
    let repository = EventRepository::new(client::<Vr>(&cluster));
    let aggregates = PersistedEventStore::<_, Account>::new_aggregate_store(repository.clone());
    let bank = CqrsFramework::new(aggregates, vec![], ());
    let refused = bank.execute("ann", Command::Open).await;
    assert!(refused.is_err_and(|it| it.to_string().contains("ReplicatedStore")));
    assert_eq!(repository.get_events::<Account>("ann").await.expect("events"), []);
}

#[tokio::test]
async fn a_snapshot_saves_reading_and_holds_what_the_events_make() {
    let cluster = three();
    let every = NonZeroU64::new(5).expect("five");
    let store = ReplicatedStore::<Account>::new(client::<Vr>(&cluster)).with_snapshot_every(every);
    let bank = CqrsFramework::new(store.clone(), vec![], ());
    bank.execute("ann", Command::Open).await.expect("opened");
    for _ in 0..6 {
        bank.execute("ann", Command::MoveTwice(1)).await.expect("moved");
    }
    let raw = client::<Vr>(&cluster);
    let snapshots = Source::Stream("snapshot.account-ann".to_owned());
    let page = raw.read(Read { source: snapshots.clone(), from: 1, ..Read::default() }).await.expect("snapshots");
    assert_eq!(page.events.len(), 1, "the ones before are hidden");
    let kept: Value = serde_json::from_slice(&page.events[0].data).expect("JSON");
    assert_eq!(kept, json!({ "version": 11, "aggregate": { "open": true, "cents": 10 } }));

    // With a snapshot the events before it are not needed; without it their absence is an error and not another balance.
    let hide = Operation::Truncate { stream: "account-ann".to_owned(), before: 11 };
    raw.apply(&hide).await.expect("an answer").result.expect("it is done");
    let mut loaded = store.load_aggregate("ann").await.expect("an account");
    assert_eq!(cqrs_es::AggregateContext::aggregate(&mut loaded).cents, 12);
    let without = ReplicatedStore::<Account>::new(raw.clone()).load_aggregate("ann").await;
    assert!(without.is_err_and(|it| it.to_string().contains("hidden")));

    // One that the program cannot read is as good as none.
    let strange = NewEvent { id: draw_id(), kind: "snapshot".into(), data: "{}".into(), ..NewEvent::default() };
    raw.append("snapshot.account-bob", Expected::Any, vec![strange]).await.expect("appended");
    bank.execute("bob", Command::Open).await.expect("opened");
}

#[tokio::test]
async fn old_forms_of_events_are_made_new_ones() {
    let cluster = three();
    let raw = client::<Vr>(&cluster);
    let old = NewEvent {
        id: draw_id(),
        kind: "moved".into(),
        data: "{\"Moved\":{\"euros\":3}}".into(),
        metadata: "{\"event_version\":\"0.9\",\"metadata\":{}}".into(),
        ..NewEvent::default()
    };
    raw.append("account-ann", Expected::NoStream, vec![old]).await.expect("appended");
    let plain = ReplicatedStore::<Account>::new(raw.clone());
    assert!(matches!(plain.load_aggregate("ann").await, Err(AggregateError::DeserializationError(_))));
    let to_cents =
        |payload: Value| json!({ "Moved": { "cents": payload["Moved"]["euros"].as_i64().unwrap_or(0) * 100 } });
    let upcaster: Box<dyn EventUpcaster> =
        Box::new(SemanticVersionEventUpcaster::new("moved", "1.0", Box::new(to_cents)));
    let store = plain.with_upcasters(vec![upcaster]);
    let mut loaded = store.load_aggregate("ann").await.expect("an account");
    assert_eq!(cqrs_es::AggregateContext::aggregate(&mut loaded).cents, 300);
}

#[tokio::test]
async fn metadata_is_kept_and_names_correlation_and_causation() {
    let cluster = three();
    let store = ReplicatedStore::<Account>::new(client::<Vr>(&cluster));
    let bank = CqrsFramework::new(store.clone(), vec![], ());
    let id = "00000000-0000-0000-0000-0000000004d2";
    let metadata = HashMap::from([("correlation_id", id), ("user", "root")].map(|(a, b)| (a.to_owned(), b.to_owned())));
    bank.execute_with_metadata("ann", Command::Open, metadata.clone()).await.expect("opened");
    bank.execute("ann", Command::Move(1)).await.expect("moved");
    let filter = Filter { correlation: Some(id.parse().expect("an id")), ..Filter::default() };
    let page = client::<Vr>(&cluster).read(Read { filter, from: 1, ..Read::default() }).await.expect("a page");
    assert_eq!(page.events.iter().map(|it| it.version).collect::<Vec<_>>(), [1]);
    assert_eq!(store.load_events("ann").await.expect("events")[0].metadata, metadata);
}

#[tokio::test]
async fn a_query_that_is_made_later_is_fed_from_any_position() {
    let mut cluster = three();
    let store = ReplicatedStore::<Account>::new(client::<Vr>(&cluster));
    let bank = CqrsFramework::new(store.clone(), vec![], ()); // nobody dispatches anything
    bank.execute("ann", Command::Open).await.expect("opened");
    bank.execute("ann", Command::MoveTwice(10)).await.expect("moved");
    let balances = Balances::default();
    let mut place = 1;
    feed(&store, &balances, place, |next| {
        place = next;
        next < 4
    })
    .await
    .expect("fed");
    assert_eq!((balances.of("ann"), place), ((20, vec![1, 2, 3]), 4));
    cluster.crash(ReplicaId::new(0));
    bank.execute("ann", Command::Move(5)).await.expect("moved");
    feed(&store, &balances, place, |next| next < 5).await.expect("fed");
    assert_eq!(balances.of("ann"), (25, vec![1, 2, 3, 4]), "each once");
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Hyphened;

impl Aggregate for Hyphened {
    const TYPE: &'static str = "hyphened-type";
    type Command = ();
    type Event = Happened;
    type Error = Refused;
    type Services = ();

    async fn handle(&mut self, (): (), (): &(), _: &EventSink<Self>) -> Result<(), Refused> {
        Ok(())
    }

    fn apply(&mut self, _: Happened) {}
}

#[tokio::test]
async fn a_type_that_would_be_part_of_another_category_is_refused() {
    let cluster = three();
    let store = ReplicatedStore::<Hyphened>::new(client::<Vr>(&cluster));
    assert!(store.load_aggregate("a").await.is_err_and(|it| it.to_string().contains("hyphened-type")));
}
