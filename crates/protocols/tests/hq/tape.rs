//! The machine of these tests: each object remembers every operation on it, in order. An operation is `object=word`, or
//! `object+object=word` for several at once; its answer is how many each has seen. A query is an object's name, answered with
//! all its words, or `*` for all objects.

use bytes::Bytes;
use quorate_core::crypto::Digest;
use quorate_core::machine::{At, Corrupt, Output, Query, Sink, Snapshot, StateMachine, View, Whole};
use quorate_core::objects::{Image, Objects};
use quorate_core::wire::Wire;
use std::collections::BTreeMap;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tape {
    pub objects: BTreeMap<Vec<u8>, Vec<String>>,
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
        let words = self.objects.entry(object.to_vec()).or_default();
        words.push(word);
        assert_eq!(words.len() as u64, at.position.get(), "the object's own count");
        out.reply(words.len().to_string().as_bytes());
    }

    fn apply_across(&mut self, objects: &[Bytes], at: &At, operation: &[u8], out: &mut Output) {
        let Some((_, word)) = split(operation) else { return };
        let mut counts = Vec::new();
        for object in objects {
            let words = self.objects.entry(object.to_vec()).or_default();
            words.push(word.clone());
            counts.push(words.len());
        }
        assert_eq!(counts.iter().max().copied().unwrap_or(0) as u64, at.position.get(), "the greatest of their counts");
        out.reply(counts.iter().map(usize::to_string).collect::<Vec<_>>().join(" ").as_bytes());
    }

    fn image(&self, object: &[u8]) -> Image {
        self.objects.get(object).map(|words| words.encode().into())
    }

    fn put_image(&mut self, object: &[u8], image: Option<&[u8]>) -> Result<(), Corrupt> {
        match image.map(Vec::<String>::decode).transpose().map_err(|error| Corrupt(error.0))? {
            Some(words) => drop(self.objects.insert(object.to_vec(), words)),
            None => drop(self.objects.remove(object)),
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
        Ok(Tape { objects: Wire::decode(&self.0).map_err(|error| Corrupt(error.to_string()))? })
    }
}

impl Snapshot for Tape {
    type Source = Whole;
    type Sink = Rest;
    fn snapshot(&self) -> Whole {
        Whole::new(self.objects.encode())
    }
    fn rebuild() -> Rest {
        Rest(Vec::new())
    }
}
