//! Projections that need no program: a count, a sum or the latest data of each key.
//!
//! The reducers are pure: the same events make the same state. State and place are one value, so each event counts once.

use quorate::events::{EventId, Filter, Recorded, Source};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// What a value in a state takes besides its key, unless it is data, in bytes.
const NUMBER_BYTES: usize = 8;

/// What a tally is of: two with the same definition have the same state at the same place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Definition {
    /// The source, in words.
    pub source: String,
    /// Only events of these types; all, if there is none.
    pub types: Vec<String>,
    /// Only events with this correlation.
    pub correlation: Option<String>,
    /// The first number that counts.
    #[serde(default = "first")]
    pub from: u64,
    /// What has a value of its own: `stream`, `type`, or a field of the data, with dots for fields inside fields.
    pub by: String,
    /// What is made of the events of a key.
    pub reducer: Reducer,
}

/// What is made of the events of a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reducer {
    /// How many there are.
    Count,
    /// The sum of this field of their data, a whole number.
    Sum(String),
    /// The data of the last.
    Latest,
}

/// A state and its place.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Tally {
    /// What it is of.
    pub definition: Definition,
    /// The first number that is not in the state.
    pub next: u64,
    /// A value for each key.
    pub state: BTreeMap<String, Value>,
    /// How long the data of each key is, as it was appended.
    #[serde(skip)]
    lengths: BTreeMap<String, usize>,
    /// Bytes of keys and values, about.
    #[serde(skip)]
    bytes: usize,
}

/// Why an event cannot be taken in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the event at position {position} cannot be projected: {why}")]
pub struct Unusable {
    /// Where it is.
    pub position: u64,
    /// What is wrong with it.
    pub why: String,
}

/// Numbers count from one.
fn first() -> u64 {
    1
}

impl Definition {
    /// A definition over the events of a source that a filter takes, from a number on.
    pub fn new(source: &Source, filter: &Filter, from: u64, by: String, reducer: Reducer) -> Self {
        let source = match source {
            Source::Stream(stream) => format!("stream {stream}"),
            Source::Category(category) => format!("category {category}"),
            Source::All => "all".to_owned(),
        };
        let correlation = filter.correlation.as_ref().map(EventId::to_string);
        Self { source, types: filter.kinds.clone(), correlation, from: from.max(first()), by, reducer }
    }
}

impl Tally {
    /// A tally that has taken nothing in.
    pub fn new(definition: Definition) -> Self {
        Self { next: definition.from, definition, state: BTreeMap::new(), lengths: BTreeMap::new(), bytes: 0 }
    }

    /// Bytes of keys and values that were taken in, about.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes a page of events in. `next` is where the source goes on behind it.
    ///
    /// # Errors
    /// The first event that it cannot be made of. The tally is to be thrown away then: it may be between two places.
    pub fn take(&mut self, events: &[Recorded], next: u64) -> Result<(), Unusable> {
        for event in events {
            self.reduce(event).map_err(|why| Unusable { position: event.position, why })?;
        }
        self.next = next;
        Ok(())
    }

    /// The state after an event.
    fn reduce(&mut self, event: &Recorded) -> Result<(), String> {
        let data = || serde_json::from_slice::<Value>(&event.data).map_err(|_| "its data is not JSON".to_owned());
        let key = match self.definition.by.as_str() {
            "stream" => event.stream.clone(),
            "type" => event.kind.clone(),
            field => match at(&data()?, field) {
                Some(Value::String(text)) => text.clone(),
                Some(other) => other.to_string(),
                None => "null".to_owned(),
            },
        };
        let before = self.state.get(&key).and_then(Value::as_i64).unwrap_or(0);
        let (value, length) = match &self.definition.reducer {
            Reducer::Count => (before.saturating_add(1).into(), NUMBER_BYTES),
            Reducer::Sum(field) => {
                let data = data()?;
                let number = at(&data, field).and_then(Value::as_i64);
                let number = number.ok_or_else(|| format!("its data has no whole number `{field}`"))?;
                let sum = before.checked_add(number).ok_or("the sum is out of range: 64 bits")?;
                (sum.into(), NUMBER_BYTES)
            }
            Reducer::Latest => (data()?, event.data.len()),
        };
        let was = match self.lengths.insert(key.clone(), length) {
            Some(before) => before,
            None => {
                self.bytes = self.bytes.saturating_add(key.len());
                0
            }
        };
        self.bytes = self.bytes.saturating_add(length).saturating_sub(was);
        self.state.insert(key, value);
        Ok(())
    }
}

/// A field of a value, with dots for fields inside fields.
fn at<'a>(data: &'a Value, field: &str) -> Option<&'a Value> {
    field.split('.').try_fold(data, |value, name| value.get(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use quorate::WallTime;
    use serde_json::json;

    fn event(position: u64, stream: &str, data: &'static str) -> Recorded {
        Recorded {
            position,
            stream: stream.to_owned(),
            version: position,
            id: EventId::default(),
            kind: "moved".to_owned(),
            data: Bytes::from_static(data.as_bytes()),
            metadata: Bytes::new(),
            correlation: None,
            causation: None,
            time: WallTime::from_nanos(0),
        }
    }

    fn tally(by: &str, reducer: Reducer) -> Tally {
        Tally::new(Definition::new(&Source::All, &Filter::default(), 1, by.to_owned(), reducer))
    }

    #[test]
    fn a_tally_counts_sums_and_keeps_the_latest() {
        let events =
            [event(1, "a", "{\"n\":{\"m\":2},\"who\":\"x\"}"), event(2, "b", "{\"n\":{\"m\":3},\"who\":\"x\"}")];
        let state = |by: &str, reducer: Reducer| {
            let mut tally = tally(by, reducer);
            tally.take(&events, 3).expect("events");
            assert_eq!(tally.next, 3);
            json!(tally.state)
        };
        assert_eq!(state("stream", Reducer::Count), json!({ "a": 1, "b": 1 }));
        assert_eq!(state("type", Reducer::Count), json!({ "moved": 2 }));
        assert_eq!(state("who", Reducer::Sum("n.m".to_owned())), json!({ "x": 5 }));
        assert_eq!(state("n.m", Reducer::Count), json!({ "2": 1, "3": 1 }));
        assert_eq!(state("type", Reducer::Latest)["moved"]["n"]["m"], json!(3));
    }

    #[test]
    fn what_a_tally_holds_is_counted() {
        let mut tally = tally("type", Reducer::Latest);
        tally.take(&[event(1, "a", "\"long, long\"")], 2).expect("events");
        let long = tally.bytes();
        tally.take(&[event(2, "a", "\"short\"")], 3).expect("events");
        assert_eq!(long - tally.bytes(), "long, long".len() - "short".len());
    }

    #[test]
    fn an_event_that_does_not_fit_is_named() {
        let refused = tally("type", Reducer::Sum("n".to_owned())).take(&[event(7, "a", "{\"n\":1.5}")], 8);
        assert!(refused.is_err_and(|it| it.position == 7 && it.why.contains("no whole number `n`")));
        let refused = tally("who", Reducer::Count).take(&[event(8, "a", "no json")], 9);
        assert!(refused.is_err_and(|it| it.why.contains("not JSON")));
    }
}
