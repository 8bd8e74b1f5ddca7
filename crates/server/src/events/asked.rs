//! What a request brings: the words of its path and its query, and its body, bounded before it is looked into.

use super::limits::{BODIES_BYTES_MAX, BODY_BYTES_MAX, BODY_PATIENCE, QUERY_BYTES_MAX};
use super::refusal::Refusal;
use bytes::Bytes;
use http::StatusCode;
use http_body::Body as _;
use http_body_util::{BodyExt, Limited};
use quorate::events::{EventId, Filter, Source};
use serde::de::{Deserialize, Deserializer, SeqAccess, Visitor};
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::body::Body;

/// Bytes that one permit of [`Bodies`] stands for.
const PERMIT_BYTES: usize = 1 << 10;

/// The query of a request's address. What nobody asks for is refused: a misspelt parameter must not be one that was left out.
#[derive(Debug, Default)]
pub struct Parameters {
    given: BTreeMap<String, Vec<String>>,
}

impl Parameters {
    /// The parameters of a query.
    pub fn parse(query: &str) -> Result<Self, Refusal> {
        if query.len() > QUERY_BYTES_MAX {
            return Err(Refusal::bad(format!("the query of an address has at most {QUERY_BYTES_MAX} bytes")));
        }
        let mut given: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let decoded = |text: &str| percent_decoded(&text.replace('+', " "));
            let (Some(name), Some(value)) = (decoded(name), decoded(value)) else {
                return Err(Refusal::bad(format!("`{pair}` is not percent-encoded UTF-8")));
            };
            given.entry(name).or_default().push(value);
        }
        Ok(Self { given })
    }

    /// All values of a parameter.
    pub fn all(&mut self, name: &str) -> Vec<String> {
        self.given.remove(name).unwrap_or_default()
    }

    /// The value of a parameter that may be given once.
    pub fn text(&mut self, name: &str) -> Result<Option<String>, Refusal> {
        let mut values = self.all(name);
        match values.len() {
            0 | 1 => Ok(values.pop()),
            _ => Err(Refusal::bad(format!("`{name}` is given more than once"))),
        }
    }

    /// A number.
    pub fn number(&mut self, name: &str) -> Result<Option<u64>, Refusal> {
        let text = self.text(name)?;
        let parsed = text.map(|text| text.parse().map_err(|_| text));
        parsed.transpose().map_err(|text| Refusal::bad(format!("`{name}={text}`: a number is wanted")))
    }

    /// A level of criticality; which of them the cluster has, its client knows.
    pub fn level(&mut self) -> Result<Option<u8>, Refusal> {
        let level = self.number("criticality")?.map(u8::try_from).transpose();
        level.map_err(|_| Refusal::bad("`criticality`: a level is the number of liars that it bears"))
    }

    /// A flag: `true`, or nothing after the name, or `false`.
    pub fn flag(&mut self, name: &str) -> Result<bool, Refusal> {
        match self.text(name)?.as_deref() {
            None | Some("false") => Ok(false),
            Some("" | "true") => Ok(true),
            Some(other) => Err(Refusal::bad(format!("`{name}={other}`: true or false is wanted"))),
        }
    }

    /// An event id.
    pub fn id(&mut self, name: &str) -> Result<Option<EventId>, Refusal> {
        let id = self.text(name)?.map(|text| text.parse::<EventId>()).transpose();
        id.map_err(|error| Refusal::bad(format!("`{name}`: {error}")))
    }

    /// Which events of a source are of interest.
    pub fn filter(&mut self) -> Result<Filter, Refusal> {
        Ok(Filter { kinds: self.all("type"), correlation: self.id("correlation")? })
    }

    /// A source that is named by `stream` or `category`, or all events.
    pub fn source(&mut self) -> Result<Source, Refusal> {
        match (self.text("stream")?, self.text("category")?) {
            (None, None) => Ok(Source::All),
            (Some(stream), None) => Ok(Source::Stream(stream)),
            (None, Some(category)) => Ok(Source::Category(category)),
            (Some(_), Some(_)) => Err(Refusal::bad("`stream` and `category` exclude each other")),
        }
    }

    /// Refuses what is left over.
    pub fn end(self) -> Result<(), Refusal> {
        match self.given.keys().next() {
            None => Ok(()),
            Some(name) => Err(Refusal::bad(format!("this request has no parameter `{name}`"))),
        }
    }
}

/// The words of a path; `None` if one is not percent-encoded UTF-8.
pub fn words(path: &str) -> Option<Vec<String>> {
    path.split('/').skip(1).map(percent_decoded).collect()
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        if *byte != b'%' {
            bytes.push(*byte);
            continue;
        }
        let (digits, after) = rest.split_first_chunk::<2>()?;
        rest = after;
        let digit = |byte: u8| char::from(byte).to_digit(16);
        let value = digit(digits[0])?.checked_mul(16)?.checked_add(digit(digits[1])?)?;
        bytes.push(u8::try_from(value).ok()?);
    }
    String::from_utf8(bytes).ok()
}

/// Room for the bodies of requests. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Bodies(Arc<Semaphore>);

/// A body, and its room.
#[derive(Debug)]
pub struct Arrived {
    /// What has arrived.
    pub bytes: Bytes,
    _room: OwnedSemaphorePermit,
}

impl Bodies {
    /// All of it free.
    pub fn new() -> Self {
        Self(Arc::new(Semaphore::new(BODIES_BYTES_MAX / PERMIT_BYTES)))
    }

    /// Waits for room, then for the body.
    pub async fn read(&self, body: Body) -> Result<Arrived, Refusal> {
        // Whoever does not say how much comes needs room for the most.
        let announced = body.size_hint().upper().map_or(BODY_BYTES_MAX, |it| usize::try_from(it).unwrap_or(usize::MAX));
        if announced > BODY_BYTES_MAX {
            return Err(Refusal::too_long());
        }
        let permits = u32::try_from(announced.div_ceil(PERMIT_BYTES)).unwrap_or(u32::MAX);
        let arrive = async {
            let room = self.0.clone().acquire_many_owned(permits).await.map_err(|_| Refusal::busy())?;
            let body = Limited::new(body, BODY_BYTES_MAX).collect().await.map_err(|_| Refusal::too_long())?;
            Ok(Arrived { bytes: body.to_bytes(), _room: room })
        };
        let late = || Refusal::new(StatusCode::REQUEST_TIMEOUT, "too-slow", "the body did not arrive in time");
        tokio::time::timeout(BODY_PATIENCE, arrive).await.map_err(|_| late())?
    }
}

/// The value that a body is.
pub fn json<'a, T: Deserialize<'a>>(body: &'a Arrived) -> Result<T, Refusal> {
    serde_json::from_slice(&body.bytes).map_err(|error| Refusal::bad(format!("the body: {error}")))
}

/// A list that is refused as soon as it has more than `MAX` entries.
#[derive(Clone, Debug)]
pub struct Few<T, const MAX: usize>(pub Vec<T>);

impl<T, const MAX: usize> Default for Few<T, MAX> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for Few<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<T, const MAX: usize>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for Entries<T, MAX> {
            type Value = Few<T, MAX>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a list of at most {MAX} entries")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Few<T, MAX>, A::Error> {
                let mut few = Vec::new();
                while let Some(entry) = entries.next_element()? {
                    if few.len() >= MAX {
                        return Err(serde::de::Error::custom(format!("a list here has at most {MAX} entries")));
                    }
                    few.push(entry);
                }
                Ok(Few(few))
            }
        }

        deserializer.deserialize_seq(Entries(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_path_are_percent_encoded() {
        let words = |path| words(path).map(|it| it.join("|"));
        assert_eq!(words("/v1/streams/a%2Fb%20c").as_deref(), Some("v1|streams|a/b c"));
        assert_eq!(words("/v1/streams/a+b").as_deref(), Some("v1|streams|a+b"));
        for bad in ["/%", "/%2", "/%zz", "/%ff", "/%+1"] {
            assert_eq!(words(bad), None, "{bad}");
        }
    }

    #[test]
    fn parameters_that_nobody_asks_for_are_refused() {
        let mut parameters = Parameters::parse("from=3&type=a&type=b+c&backwards").expect("parameters");
        assert_eq!(parameters.number("from"), Ok(Some(3)));
        assert_eq!(parameters.all("type"), ["a", "b c"]);
        assert_eq!(parameters.flag("backwards"), Ok(true));
        assert_eq!(parameters.end(), Ok(()));
        assert!(Parameters::parse("form=3").expect("parameters").end().is_err());
        assert!(Parameters::parse("from=x").expect("parameters").number("from").is_err());
        assert!(Parameters::parse("from=1&from=2").expect("parameters").number("from").is_err());
        assert!(Parameters::parse(&"a".repeat(QUERY_BYTES_MAX + 1)).is_err());
    }

    #[test]
    fn a_long_list_is_refused_before_it_is_read_to_its_end() {
        let few: Few<u64, 2> = serde_json::from_str("[1,2]").expect("few");
        assert_eq!(few.0, [1, 2]);
        let many = serde_json::from_str::<Few<u64, 2>>("[1,2,3,not even json").expect_err("many");
        assert!(many.to_string().contains("at most 2 entries"), "{many}");
    }
}
