//! What browsers put into addresses and forms: `name=value` pairs whose values are bytes, not only text.

/// Pairs that are read at most; a form of ours has fewer.
const PAIRS_MAX: usize = 64;

/// Decoded pairs, in order.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Form(Vec<(String, Vec<u8>)>);

impl Form {
    /// Reads `application/x-www-form-urlencoded`. What does not decode stands for itself.
    pub fn parse(text: &str) -> Self {
        let pairs = text.split('&').filter(|pair| !pair.is_empty()).take(PAIRS_MAX);
        Self(
            pairs
                .map(|pair| {
                    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                    (String::from_utf8_lossy(&decoded(name)).into_owned(), decoded(value))
                })
                .collect(),
        )
    }

    /// The first value with this name.
    pub fn bytes(&self, name: &str) -> Option<&[u8]> {
        self.0.iter().find(|(it, _)| it == name).map(|(_, value)| value.as_slice())
    }

    /// The first value with this name, if it is text.
    pub fn text(&self, name: &str) -> Option<&str> {
        std::str::from_utf8(self.bytes(name)?).ok()
    }

    /// All values with this name that are numbers.
    pub fn numbers(&self, name: &str) -> impl Iterator<Item = u8> {
        let values = self.0.iter().filter(move |(it, _)| it == name).map(|(_, value)| value.as_slice());
        values.filter_map(|it| std::str::from_utf8(it).ok()?.parse().ok())
    }
}

fn decoded(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => match tail.split_at_checked(2).and_then(|(digits, after)| Some((hex(digits)?, after))) {
                Some((value, after)) => {
                    bytes.push(value);
                    rest = after;
                }
                None => bytes.push(b'%'),
            },
            other => bytes.push(other),
        }
    }
    bytes
}

fn hex(digits: &[u8]) -> Option<u8> {
    if !digits.iter().all(u8::is_ascii_hexdigit) {
        return None; // `from_str_radix` would take a sign
    }
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// Bytes as the value of a pair: safe in an address and in an attribute.
pub fn encoded(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for &byte in bytes {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => text.push(char::from(byte)),
            other => text.push_str(&format!("%{other:02X}")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_survive_an_address() {
        let all: Vec<u8> = (0..=255).collect();
        let form = Form::parse(&format!("a=1&key={}", encoded(&all)));
        assert_eq!(form.bytes("key"), Some(&all[..]));
        assert_eq!(form.text("a"), Some("1"));
        assert_eq!(form.text("key"), None, "it is no text");
    }

    #[test]
    fn what_is_malformed_stands_for_itself() {
        let form = Form::parse("a=%&b=%zz&c=%+1&d&&e=x+y&peer=1&peer=two&peer=3");
        let values: Vec<_> = ["a", "b", "c", "d", "e"].iter().map(|it| form.text(it)).collect();
        assert_eq!(values, [Some("%"), Some("%zz"), Some("% 1"), Some(""), Some("x y")]);
        assert_eq!(form.numbers("peer").collect::<Vec<_>>(), [1, 3]);
    }
}
