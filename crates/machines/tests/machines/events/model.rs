//! Random operations: the store agrees with a model that keeps one list, and obeys the laws of machines.

use super::bench::*;
use proptest::collection::vec;
use proptest::prelude::*;
use quorate_core::laws;
use quorate_machines::Events;
use quorate_machines::events::*;

const STREAMS: [&str; 4] = ["a-1", "a-2", "b-1", "a"];

/// A list of all events, and a filter for each question: slow, and easy to believe.
#[derive(Default)]
struct Model {
    /// (stream, version, event)
    events: Vec<(String, u64, NewEvent)>,
    /// (stream, first version that can be read)
    first: std::collections::BTreeMap<String, u64>,
    deleted: std::collections::BTreeSet<String>,
}

impl Model {
    fn version(&self, stream: &str) -> u64 {
        self.events.iter().filter(|(of, ..)| of == stream).count() as u64
    }

    fn find(&self, stream: &str, id: EventId) -> Option<(u64, &NewEvent)> {
        let mut all = self.events.iter();
        all.find_map(|(of, version, event)| (of == stream && event.id == id).then_some((*version, event)))
    }

    /// The versions after it, or `None` for a refusal.
    fn append(&mut self, append: &Append) -> Option<Vec<u64>> {
        let events = || append.writes.iter().flat_map(|write| write.events.iter().map(move |event| (write, event)));
        if events().any(|(write, event)| self.find(&write.stream, event.id).is_some()) {
            let again = |write: &Write| {
                let first = self.find(&write.stream, write.events.first()?.id)?.0;
                let same =
                    (first..).zip(&write.events).all(|it| self.find(&write.stream, it.1.id) == Some((it.0, it.1)));
                let expected = !matches!(write.expected, Expected::Exact(version) if version + 1 != first);
                (same && expected).then(|| first + write.events.len() as u64 - 1)
            };
            let versions = |write: &Write| {
                if write.events.is_empty() { Some(self.version(&write.stream)) } else { again(write) }
            };
            return append.writes.iter().map(versions).collect();
        }
        for write in &append.writes {
            let version = self.version(&write.stream);
            let there = version > 0 && !self.deleted.contains(&write.stream);
            let met = match write.expected {
                Expected::Any => true,
                Expected::NoStream => !there,
                Expected::Exact(expected) => expected == version,
            };
            if !met {
                return None;
            }
        }
        for (write, event) in events() {
            let version = self.version(&write.stream) + 1;
            self.deleted.remove(&write.stream);
            self.events.push((write.stream.clone(), version, event.clone()));
        }
        Some(append.writes.iter().map(|write| self.version(&write.stream)).collect())
    }

    /// What a source shows: positions.
    fn visible(&self, source: &Source) -> Vec<u64> {
        let of = |stream: &str| match source {
            Source::All => true,
            Source::Category(name) => category(stream) == name,
            Source::Stream(name) => stream == name,
        };
        let all = (1..).zip(&self.events);
        let seen =
            all.filter(|(_, (stream, version, _))| of(stream) && *version >= *self.first.get(stream).unwrap_or(&1));
        seen.map(|(position, _)| position).collect()
    }
}

fn new_event() -> impl Strategy<Value = NewEvent> {
    (1..12_u64, 0..3_u8).prop_map(|(number, data)| event(number, &data.to_string()))
}

fn write() -> impl Strategy<Value = Write> {
    let expected = prop_oneof![Just(Expected::Any), Just(Expected::NoStream), (0..8_u64).prop_map(Expected::Exact)];
    (0..STREAMS.len(), expected, vec(new_event(), 0..3)).prop_map(|(stream, expected, events)| {
        let mut ids = std::collections::BTreeSet::new();
        let events = events.into_iter().filter(|event| ids.insert(event.id)).collect();
        Write { stream: STREAMS[stream].to_owned(), expected, events }
    })
}

fn some_append() -> impl Strategy<Value = Append> {
    vec(write(), 1..3).prop_map(|mut writes| {
        writes.dedup_by(|one, two| one.stream == two.stream);
        if writes.iter().all(|write| write.events.is_empty()) {
            writes[0].events.push(event(1, "0"));
        }
        Append { writes }
    })
}

fn operation() -> impl Strategy<Value = Operation> {
    let stream = (0..STREAMS.len()).prop_map(|index| STREAMS[index].to_owned());
    prop_oneof![
        8 => some_append().prop_map(Operation::Append),
        1 => (stream.clone(), 0..6_u64).prop_map(|(stream, before)| Operation::Truncate { stream, before }),
        1 => stream.prop_map(|stream| Operation::Delete { stream, expected: Expected::Any, forever: false }),
        1 => (1..4_u32).prop_map(|limit| Operation::Scavenge { limit }),
    ]
}

fn group_operation() -> impl Strategy<Value = Operation> {
    let new = |from| NewGroup {
        group: "g".into(),
        source: Source::Category("a".into()),
        filter: Filter::default(),
        from,
        settings: Settings { retry_after_nanos: 3_000_000_000, attempts_max: 2, in_flight_max: 3 },
    };
    let (group, consumer, reason) = (|| "g".to_owned(), || "ann".to_owned(), || "why".to_owned());
    let verdict = prop_oneof![Just(Verdict::Retry), Just(Verdict::Park), Just(Verdict::Skip)];
    prop_oneof![
        1 => (0..3_u64).prop_map(move |from| Operation::CreateGroup(new(from))),
        4 => (0..4_u32).prop_map(move |limit| Operation::Take { group: group(), consumer: consumer(), limit }),
        2 => vec(1..9_u64, 0..3).prop_map(move |numbers| Operation::Ack { group: group(), numbers }),
        2 => (vec(1..9_u64, 0..3), verdict).prop_map(move |(numbers, verdict)| {
            Operation::Nack { group: group(), consumer: consumer(), numbers, verdict, reason: reason() }
        }),
        1 => any::<bool>().prop_map(move |replay| Operation::Unpark { group: group(), replay }),
    ]
}

/// An operation's bytes, a few of them spoilt: a byte changed, cut short, or all noise.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let good = prop_oneof![operation(), group_operation()].prop_map(|operation| borsh::to_vec(&operation).unwrap());
    (good, 0..12_u8, any::<prop::sample::Index>(), any::<u8>(), vec(any::<u8>(), 0..60)).prop_map(
        |(mut good, kind, index, byte, noise)| match kind {
            0 => noise,
            1 => {
                good.truncate(index.index(good.len()));
                good
            }
            2 | 3 => {
                let index = index.index(good.len());
                good[index] = byte;
                good
            }
            _ => good,
        },
    )
}

fn queries() -> Vec<Vec<u8>> {
    let sources = [Source::All, of_category("a"), of_stream("a-1")];
    let reads = sources.into_iter().flat_map(|source| {
        let read = |backwards, from| Read { source: source.clone(), from, backwards, limit: 3, ..Read::default() };
        [Query::Read(read(false, 2)), Query::Read(read(true, 5))]
    });
    let others =
        [Query::Status, Query::Groups, Query::Group { group: "g".into() }, Query::Stream { stream: "a-1".into() }];
    reads.chain(others).map(|query| borsh::to_vec(&query).unwrap()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_store_agrees_with_a_list(operations in vec(operation(), 0..60)) {
        let mut bench = Bench::new();
        let mut model = Model::default();
        for operation in operations {
            let reply = bench.reply(&operation);
            match &operation {
                Operation::Append(append) => {
                    let found = reply.appended().ok();
                    let versions = found.as_ref().map(|it| it.writes.iter().map(|it| it.version).collect::<Vec<_>>());
                    prop_assert_eq!(versions, model.append(append), "{:?}", operation);
                }
                Operation::Truncate { stream, before } if reply.result.is_ok() => {
                    let first = model.first.get(stream).copied().unwrap_or(1);
                    model.first.insert(stream.clone(), first.max((*before).min(model.version(stream) + 1)));
                }
                Operation::Delete { stream, .. } if reply.result.is_ok() => {
                    model.first.insert(stream.clone(), model.version(stream) + 1);
                    model.deleted.insert(stream.clone());
                }
                _ => {}
            }
            prop_assert_eq!(bench.status().position, model.events.len() as u64);
        }
        let sources = [Source::All, of_category("a"), of_category("b"), of_stream("a"), of_stream("a-1"), of_stream("b-1")];
        for source in sources {
            let page = bench.page(Read { source: source.clone(), ..Read::default() });
            let mut positions: Vec<_> = page.events.iter().map(|event| event.position).collect();
            prop_assert_eq!(&positions, &model.visible(&source), "{:?}", &source);
            let back = bench.page(Read { source, backwards: true, from: u64::MAX, ..Read::default() });
            positions.reverse();
            prop_assert_eq!(positions, back.events.iter().map(|event| event.position).collect::<Vec<_>>());
        }
    }

    #[test]
    fn the_store_keeps_the_laws(operations in vec(bytes(), 0..40)) {
        prop_assert_eq!(laws::check(Events::new, &operations, &queries()), Ok(()));
    }

    #[test]
    fn what_decodes_encodes_to_the_same_bytes(bytes in bytes()) {
        if let Ok(operation) = Operation::decode(&bytes) {
            prop_assert_eq!(operation.encode(), Ok(bytes));
        }
    }

    #[test]
    fn replies_from_liars_never_panic(bytes in vec(any::<u8>(), 0..200)) {
        let _ = Reply::decode(&bytes);
    }
}
