//! An event as a line of JSON: what reading gives, over HTTP as on the command line, and what appending takes.
//!
//! Data and metadata that are JSON stand in the line as they were appended, byte for byte: what is read can be appended
//! elsewhere. Other text is under `data_text`, other bytes in hexadecimal under `data_hex`; so with metadata.

use bytes::Bytes;
use quorate::WallTime;
use quorate::events::{EventId, NewEvent, Recorded};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// An event as it is printed.
#[derive(Debug, Serialize)]
struct Printed<'a> {
    position: u64,
    stream: &'a str,
    version: u64,
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(flatten)]
    data: Content<'a>,
    #[serde(flatten)]
    metadata: Metadata<'a>,
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    correlation: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    causation: Option<String>,
    time: String,
}

/// Bytes in the form that suits them.
#[derive(Debug)]
enum Form<'a> {
    Nothing,
    Json(&'a RawValue),
    Text(&'a str),
    Hex(String),
}

impl<'a> Form<'a> {
    fn of(bytes: &'a [u8]) -> Self {
        let Ok(text) = std::str::from_utf8(bytes) else { return Self::Hex(hex(bytes)) };
        if text.is_empty() {
            return Self::Nothing;
        }
        let exact = |raw: &&RawValue| raw.get().len() == text.len() && !text.contains(['\n', '\r']);
        match serde_json::from_str::<&RawValue>(text).ok().filter(exact) {
            Some(raw) => Self::Json(raw),
            None => Self::Text(text),
        }
    }

    fn map<S: serde::Serializer>(&self, name: [&'static str; 3], serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap;
        let [json, text, hexadecimal] = name;
        let mut map = serializer.serialize_map(None)?;
        match self {
            Form::Nothing => {}
            Form::Json(raw) => map.serialize_entry(json, raw)?,
            Form::Text(words) => map.serialize_entry(text, words)?,
            Form::Hex(digits) => map.serialize_entry(hexadecimal, digits)?,
        }
        map.end()
    }
}

#[derive(Debug)]
struct Content<'a>(Form<'a>);

impl Serialize for Content<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.map(["data", "data_text", "data_hex"], serializer)
    }
}

#[derive(Debug)]
struct Metadata<'a>(Form<'a>);

impl Serialize for Metadata<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.map(["metadata", "metadata_text", "metadata_hex"], serializer)
    }
}

/// The line of an event.
///
/// # Errors
/// None: an event has a form in JSON.
pub fn print(event: &Recorded) -> serde_json::Result<String> {
    serde_json::to_string(&Printed {
        position: event.position,
        stream: &event.stream,
        version: event.version,
        kind: &event.kind,
        data: Content(Form::of(&event.data)),
        metadata: Metadata(Form::of(&event.metadata)),
        id: event.id.to_string(),
        correlation: event.correlation.map(|id| id.to_string()),
        causation: event.causation.map(|id| id.to_string()),
        time: rfc3339(event.time),
    })
}

/// A line that is to be appended. Where it was, `position`, `version` and `time`, is read and counts for nothing.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Given<'a> {
    stream: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    data_text: Option<String>,
    data_hex: Option<String>,
    #[serde(borrow)]
    metadata: Option<&'a RawValue>,
    metadata_text: Option<String>,
    metadata_hex: Option<String>,
    id: Option<String>,
    correlation: Option<String>,
    causation: Option<String>,
    #[serde(default, rename = "position")]
    _position: serde::de::IgnoredAny,
    #[serde(default, rename = "version")]
    _version: serde::de::IgnoredAny,
    #[serde(default, rename = "time")]
    _time: serde::de::IgnoredAny,
}

/// What a line leaves out.
#[derive(Clone, Debug, Default)]
pub struct Defaults {
    /// The stream.
    pub stream: Option<String>,
    /// The type.
    pub kind: Option<String>,
    /// The whole line is the data.
    pub raw: bool,
}

/// The stream and the event of a line; without an id of its own it gets `id`.
///
/// # Errors
/// What is wrong with it, in words.
pub fn parse(line: &str, defaults: &Defaults, id: EventId) -> Result<(String, NewEvent), String> {
    let no_stream = || "it names no stream, and --stream names none".to_owned();
    let no_kind = || "it has no type, and --type names none".to_owned();
    if defaults.raw {
        let data = serde_json::from_str::<&RawValue>(line).map_err(|error| format!("it is no JSON: {error}"))?;
        let data = Bytes::copy_from_slice(data.get().as_bytes());
        let kind = defaults.kind.clone().ok_or_else(no_kind)?;
        return Ok((
            defaults.stream.clone().ok_or_else(no_stream)?,
            NewEvent { id, kind, data, ..NewEvent::default() },
        ));
    }
    let given: Given<'_> = serde_json::from_str(line).map_err(|error| format!("it is no event: {error}"))?;
    let event = NewEvent {
        id: given_id(given.id.as_deref())?.unwrap_or(id),
        kind: given.kind.or_else(|| defaults.kind.clone()).ok_or_else(no_kind)?,
        data: content("data", given.data, given.data_text, given.data_hex.as_deref())?,
        metadata: content("metadata", given.metadata, given.metadata_text, given.metadata_hex.as_deref())?,
        correlation: given_id(given.correlation.as_deref())?,
        causation: given_id(given.causation.as_deref())?,
    };
    Ok((given.stream.or_else(|| defaults.stream.clone()).ok_or_else(no_stream)?, event))
}

fn given_id(text: Option<&str>) -> Result<Option<EventId>, String> {
    text.map(str::parse).transpose().map_err(|error: quorate::events::BadEventId| error.to_string())
}

fn content(name: &str, json: Option<&RawValue>, text: Option<String>, hex: Option<&str>) -> Result<Bytes, String> {
    match (json, text, hex) {
        (None, None, None) => Ok(Bytes::new()),
        (Some(json), None, None) => Ok(Bytes::copy_from_slice(json.get().as_bytes())),
        (None, Some(text), None) => Ok(text.into()),
        (None, None, Some(hex)) => unhex(hex).ok_or_else(|| format!("`{name}_hex` is not in hexadecimal")),
        _ => Err(format!("it has `{name}` in more than one form")),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(digits: &str) -> Option<Bytes> {
    let pairs = digits.as_bytes().chunks(2);
    let byte = |pair: &[u8]| {
        let text = std::str::from_utf8(pair).ok().filter(|it| it.len() == 2 && !it.starts_with('+'))?;
        u8::from_str_radix(text, 16).ok()
    };
    pairs.map(byte).collect::<Option<Vec<_>>>().map(Bytes::from)
}

/// A time as RFC 3339 writes it, in UTC.
pub fn rfc3339(time: WallTime) -> String {
    let nanos = time.as_nanos();
    let (seconds, nanos) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Years that begin in March end with their leap day; 400 of them have 146,097 days, and 0000-03-01 is 719,468 days before
    // 1970-01-01.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (year, month) = if month < 10 { (year, month + 3) } else { (year + 1, month - 9) };
    let year = era * 400 + year;
    let (minute, second) = (second / 60, second % 60);
    let (hour, minute) = (minute / 60, minute % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded(data: &'static [u8], metadata: &'static [u8]) -> Recorded {
        Recorded {
            position: 3,
            stream: "a-1".into(),
            version: 2,
            id: EventId([7; 16]),
            kind: "opened".into(),
            data: Bytes::from_static(data),
            metadata: Bytes::from_static(metadata),
            correlation: Some(EventId([8; 16])),
            causation: None,
            time: WallTime::from_nanos(951_827_696_000_000_001),
        }
    }

    #[test]
    fn what_is_printed_can_be_appended_byte_for_byte() {
        let contents: [&[u8]; 6] = [b"{\"b\": 1,\"a\":[1.50,1e2]}", b"", b"not json", b"{\n}", b"\xff\x00", b" 1"];
        for data in contents {
            for metadata in contents {
                let event = recorded(data, metadata);
                let line = print(&event).expect("json");
                assert!(!line.contains('\n'));
                let (stream, new) = parse(&line, &Defaults::default(), EventId::default()).expect("an event");
                let expected = NewEvent {
                    id: event.id,
                    kind: event.kind,
                    data: event.data,
                    metadata: event.metadata,
                    correlation: event.correlation,
                    causation: event.causation,
                };
                assert_eq!((stream.as_str(), new), ("a-1", expected));
            }
        }
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        let at = |seconds: u64| rfc3339(WallTime::from_nanos(seconds * 1_000_000_000));
        assert_eq!(rfc3339(WallTime::from_nanos(951_827_696_000_000_001)), "2000-02-29T12:34:56.000000001Z");
        assert_eq!(at(0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(at(4_107_542_399), "2100-02-28T23:59:59.000000000Z");
        assert_eq!(at(4_107_542_400), "2100-03-01T00:00:00.000000000Z");
        assert_eq!(at(1_735_689_599), "2024-12-31T23:59:59.000000000Z");
    }

    #[test]
    fn a_line_that_is_no_event_is_told_why() {
        let parse = |line| parse(line, &Defaults::default(), EventId::default()).expect_err("no event");
        assert!(parse("{}").contains("no type"));
        assert!(parse("{\"type\":\"x\"}").contains("no stream"));
        assert!(
            parse("{\"type\":\"x\",\"stream\":\"s\",\"data\":1,\"data_text\":\"1\"}").contains("more than one form")
        );
        assert!(parse("{\"type\":\"x\",\"stream\":\"s\",\"data_hex\":\"0g\"}").contains("hexadecimal"));
        assert!(parse("{\"type\":\"x\",\"stream\":\"s\",\"id\":\"1\"}").contains("hexadecimal"));
        assert!(parse("{\"kind\":\"x\"}").contains("unknown field"));
    }
}
