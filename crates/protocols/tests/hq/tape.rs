//! The machine of these tests: each object remembers every operation on it, in order. An operation is `object=word`, or
//! `object+object=word` for several at once; its answer is how many each has seen, after the word `long` with many blanks, and after `huge` with
//! more than any record takes. A query is an object's name, answered with
//! all its words, or `*` for all objects.

use bytes::Bytes;
use quorate_core::crypto::Digest;
use quorate_core::machine::{At, Corrupt, Output, Query, Sink, Snapshot, StateMachine, View, Whole};
use quorate_core::objects::{Image, Objects, REPLIES_BYTES_SOFT_MAX};
use quorate_core::wire::Wire;
use std::collections::BTreeMap;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tape {
    pub objects: BTreeMap<Vec<u8>, Vec<String>>,
    /// The number of the last write of each: several operations may be one.
    places: BTreeMap<Vec<u8>, u64>,
}

impl Tape {
    /// The words of each object, as `object: word word`.
    pub fn text(&self) -> Vec<String> {
        self.objects
            .iter()
            .map(|(name, words)| format!("{}: {}", String::from_utf8_lossy(name), words.join(" ")))
            .collect()
    }
}

fn split(operation: &[u8]) -> Option<(Vec<u8>, String)> {
    let text = String::from_utf8(operation.to_vec()).ok()?;
    let (name, word) = text.split_once('=')?;
    Some((name.as_bytes().to_vec(), word.to_owned()))
}

/// How many an answer to this word has.
fn blanks(word: &str) -> usize {
    match word {
        _ if word.starts_with("long") => REPLIES_BYTES_SOFT_MAX,
        _ if word.starts_with("huge") => 18 << 20,
        _ => 0,
    }
}

impl StateMachine for Tape {
    fn apply(&mut self, _: &At, _: &[u8], out: &mut Output) {
        out.reply(b"not in one order");
    }

    fn objects(operation: &[u8]) -> Objects {
        let names = |name: &[u8]| name.split(|byte| *byte == b'+').map(Bytes::copy_from_slice).collect();
        split(operation).map_or(Objects::All, |(name, _)| Objects::of(names(&name)))
    }

    fn queried(query: &[u8]) -> Objects {
        if query == b"*" { Objects::All } else { Objects::One(Bytes::copy_from_slice(query)) }
    }

    fn apply_to(&mut self, object: &[u8], at: &At, operation: &[u8], out: &mut Output) {
        let Some((_, word)) = split(operation) else { return };
        let blanks = blanks(&word);
        let words = self.objects.entry(object.to_vec()).or_default();
        words.push(word);
        let place = self.places.entry(object.to_vec()).or_default();
        let is_next = at.position.get() == *place + 1 || (at.position.get() == *place && *place > 0);
        assert!(is_next, "the object's own count: {} after {place}", at.position);
        *place = at.position.get();
        out.reply(format!("{}{}", words.len(), " ".repeat(blanks)).as_bytes());
    }

    fn apply_across(&mut self, objects: &[Bytes], at: &At, operation: &[u8], out: &mut Output) {
        let Some((_, word)) = split(operation) else { return };
        let mut counts = Vec::new();
        for object in objects {
            let words = self.objects.entry(object.to_vec()).or_default();
            words.push(word.clone());
            counts.push(words.len());
            *self.places.entry(object.to_vec()).or_default() += 1;
        }
        let greatest = objects.iter().map(|object| self.places[object.as_ref()]).max();
        assert_eq!(greatest, Some(at.position.get()), "the greatest of their counts");
        let counts = counts.iter().map(usize::to_string).collect::<Vec<_>>().join(" ");
        out.reply(format!("{counts}{}", " ".repeat(blanks(&word))).as_bytes());
    }

    fn image(&self, object: &[u8]) -> Image {
        self.objects.get(object).map(|words| (words.clone(), self.places[object]).encode().into())
    }

    fn put_image(&mut self, object: &[u8], image: Option<&[u8]>) -> Result<(), Corrupt> {
        match image.map(<(Vec<String>, u64)>::decode).transpose().map_err(|error| Corrupt(error.0))? {
            Some((words, place)) => {
                self.objects.insert(object.to_vec(), words);
                self.places.insert(object.to_vec(), place);
            }
            None => {
                self.objects.remove(object);
                self.places.remove(object);
            }
        }
        Ok(())
    }

    fn digest(&self) -> Digest {
        Digest::of(&self.objects.encode())
    }
}

impl View for Tape {
    fn query(&self, query: &[u8], reply: &mut Vec<u8>) {
        let text = match query {
            b"*" => self.text().join("; "),
            name => self.objects.get(name).map(|words| words.join(" ")).unwrap_or_default(),
        };
        reply.extend_from_slice(text.as_bytes());
    }
}

impl Query for Tape {
    type View = Self;
    fn view(&self) -> Self {
        self.clone()
    }
}

pub struct Rest(Vec<u8>);

impl Sink<Tape> for Rest {
    fn push(&mut self, bytes: &[u8]) -> Result<(), Corrupt> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
    fn finish(self) -> Result<Tape, Corrupt> {
        let (objects, places) = Wire::decode(&self.0).map_err(|error| Corrupt(error.to_string()))?;
        Ok(Tape { objects, places })
    }
}

impl Snapshot for Tape {
    type Source = Whole;
    type Sink = Rest;
    fn snapshot(&self) -> Whole {
        Whole::new((self.objects.clone(), self.places.clone()).encode())
    }
    fn rebuild() -> Rest {
        Rest(Vec::new())
    }
}
