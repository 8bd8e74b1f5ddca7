//! A counter: the smallest machine, and the one that shows why order matters.
//!
//! Operations are text: `set n`, `add n`, `div n`, where `n` is a decimal number with at most three places after the
//! point (`1`, `-2.5`). The reply is the new value as text. From 1, `div 2` then `add 1` gives `1.5`; `add 1` then `div 2`
//! gives `1`: two replicas that disagree on the order disagree on the state.
//!
//! The state is a fixed-point number: an `i128` that counts thousandths. Division drops what is below a thousandth
//! (towards zero). An operation that is not understood, divides by zero or leaves the range changes nothing and is
//! answered with a text that starts with `error:`.

use quorate_core::crypto::Digest;
use quorate_core::machine::{At, Corrupt, Output, Query, Sink, Snapshot, StateMachine, View, Whole};

/// Thousandths in one.
const SCALE: i128 = 1_000;

/// Longest operation that is looked at, in bytes: `set -170141183460469231731687303715884105.728` fits twice.
pub const OPERATION_BYTES_MAX: usize = 96;

/// A number in thousandths, and all there is to the state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counter {
    thousandths: i128,
}

impl Counter {
    /// The value after `operation`, or a sentence that says why there is none.
    fn after(self, operation: &[u8]) -> Result<Self, &'static str> {
        let text = operation
            .get(..OPERATION_BYTES_MAX.min(operation.len()))
            .filter(|_| operation.len() <= OPERATION_BYTES_MAX);
        let text = std::str::from_utf8(text.ok_or("longer than 96 bytes")?).map_err(|_| "not text")?;
        let (verb, number) = text.trim().split_once(' ').ok_or("write: set n, add n or div n")?;
        let number = parse(number).ok_or("n is a number with at most three places after the point")?;
        let thousandths = match verb {
            "set" => Some(number),
            "add" => self.thousandths.checked_add(number),
            "div" if number == 0 => return Err("division by zero"),
            "div" => self.thousandths.checked_mul(SCALE).and_then(|scaled| scaled.checked_div(number)),
            _ => return Err("write: set n, add n or div n"),
        };
        thousandths.map(|thousandths| Self { thousandths }).ok_or("the result is out of range")
    }

    /// The value as decimal text, without trailing zeros.
    fn text(self) -> String {
        let sign = if self.thousandths < 0 { "-" } else { "" };
        let magnitude = self.thousandths.unsigned_abs();
        let scale = SCALE.unsigned_abs();
        let text = format!("{sign}{}.{:03}", magnitude / scale, magnitude % scale);
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    }
}

/// Thousandths from decimal text.
fn parse(text: &str) -> Option<i128> {
    let (whole, places) = text.split_once('.').unwrap_or((text, "0"));
    let digits = whole.strip_prefix('-').unwrap_or(whole);
    let plain = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !plain(digits) || !plain(places) || places.len() > 3 {
        return None;
    }
    let places: i128 = format!("{places:0<3}").parse().ok()?;
    let places = if whole.starts_with('-') { -places } else { places };
    whole.parse::<i128>().ok()?.checked_mul(SCALE)?.checked_add(places)
}

impl StateMachine for Counter {
    fn apply(&mut self, _at: &At, operation: &[u8], out: &mut Output) {
        match self.after(operation) {
            Ok(after) => {
                *self = after;
                out.reply(self.text().as_bytes());
            }
            Err(why) => out.reply(format!("error: {why}").as_bytes()),
        }
    }

    fn digest(&self) -> Digest {
        Digest::of_parts(&[b"quorate counter", &self.thousandths.to_le_bytes()])
    }

    fn fork(&self) -> Option<Self> {
        Some(*self)
    }
}

impl Query for Counter {
    type View = Self;

    fn view(&self) -> Self {
        *self
    }
}

impl View for Counter {
    /// Whatever is asked, the answer is the value as text.
    fn query(&self, _query: &[u8], reply: &mut Vec<u8>) {
        reply.extend_from_slice(self.text().as_bytes());
    }
}

impl Snapshot for Counter {
    type Source = Whole;
    type Sink = Rebuild;

    fn snapshot(&self) -> Whole {
        Whole::new(self.thousandths.to_le_bytes().to_vec())
    }

    fn rebuild() -> Rebuild {
        Rebuild::default()
    }
}

/// A counter under construction: 16 bytes, the thousandths in little-endian order.
#[derive(Debug, Default)]
pub struct Rebuild {
    bytes: Vec<u8>,
}

impl Sink<Counter> for Rebuild {
    fn push(&mut self, bytes: &[u8]) -> Result<(), Corrupt> {
        if self.bytes.len().saturating_add(bytes.len()) > size_of::<i128>() {
            return Err(Corrupt("a counter is 16 bytes, these are more".to_owned()));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn finish(self) -> Result<Counter, Corrupt> {
        let found = self.bytes.len();
        let bytes = self.bytes.try_into().map_err(|_| Corrupt(format!("a counter is 16 bytes, these are {found}")))?;
        Ok(Counter { thousandths: i128::from_le_bytes(bytes) })
    }
}
