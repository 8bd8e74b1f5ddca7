//! How bytes and numbers are written for people and for scripts.
//!
//! A line of `range` and `watch`, and with `--escaped` of `import` and `export`, holds fields between tabs. Inside a field a
//! tab is written `\t`, a newline `\n` and a backslash `\\`; all other bytes stand for themselves, UTF-8 or not.

use serde_json::{Map, Value};
use std::borrow::Cow;

/// A field as it is written in a line.
pub fn escape(bytes: &[u8]) -> Cow<'_, [u8]> {
    if !bytes.iter().any(|byte| matches!(byte, b'\t' | b'\n' | b'\\')) {
        return Cow::Borrowed(bytes);
    }
    let mut line = Vec::with_capacity(bytes.len().saturating_add(8));
    for &byte in bytes {
        match byte {
            b'\t' => line.extend_from_slice(b"\\t"),
            b'\n' => line.extend_from_slice(b"\\n"),
            b'\\' => line.extend_from_slice(b"\\\\"),
            _ => line.push(byte),
        }
    }
    Cow::Owned(line)
}

/// The field that was written as `line`.
///
/// # Errors
/// The backslash that stands for nothing, in words.
pub fn unescape(line: &[u8]) -> Result<Cow<'_, [u8]>, String> {
    if !line.contains(&b'\\') {
        return Ok(Cow::Borrowed(line));
    }
    let mut bytes = Vec::with_capacity(line.len());
    let mut rest = line.iter();
    while let Some(&byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        match rest.next() {
            Some(b't') => bytes.push(b'\t'),
            Some(b'n') => bytes.push(b'\n'),
            Some(b'\\') => bytes.push(b'\\'),
            Some(&other) => {
                return Err(format!("`\\{}` means nothing; a backslash is written `\\\\`", other.escape_ascii()));
            }
            None => return Err("it ends in a single backslash; a backslash is written `\\\\`".to_owned()),
        }
    }
    Ok(Cow::Owned(bytes))
}

/// Puts bytes into a JSON object: as a string under `name` if they are UTF-8, otherwise in hexadecimal under `name_hex`.
pub fn json_bytes(object: &mut Map<String, Value>, name: &str, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => object.insert(name.to_owned(), text.into()),
        Err(_) => object.insert(format!("{name}_hex"), hex(bytes).into()),
    };
}

/// Hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// 1234567 as `1,234,567`.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len().saturating_mul(2));
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 line`, `2 lines`.
pub fn count(number: u64, one: &str) -> String {
    format!("{} {one}{}", thousands(number), if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_survives_a_line() {
        let all: Vec<u8> = (0..=255).collect();
        let line = escape(&all);
        assert!(!line.contains(&b'\t') && !line.contains(&b'\n'));
        assert_eq!(unescape(&line).expect("a field").as_ref(), all);
    }

    #[test]
    fn a_backslash_that_stands_for_nothing_is_an_error() {
        assert!(unescape(b"C:\\users").is_err());
        assert!(unescape(b"end\\").is_err());
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!([0, 999, 1000, 1_234_567].map(thousands), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(count(1, "line"), "1 line");
    }
}
