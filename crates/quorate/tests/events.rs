//! The event store as a library: commands that race, a subscription that sees everything once, a replica that dies.

use quorate::events::{Aggregate, Event, EventStore, Filter, Item, Repository, Source};
use quorate::{ClientOptions, Events, Local, ReplicaId, Vr, vr};

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
