//! How a key and a value share a line of import, export and range.

use crate::text::{escape, unescape};
use bytes::Bytes;
use quorate_machines::kv::limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use std::borrow::Cow;
use std::io::{self, Write};

/// The longest line that can be good: every byte of a longest key and value escaped, and the tab.
pub const LINE_BYTES_MAX: usize = 2 * (KEY_BYTES_MAX + VALUE_BYTES_MAX) + 1;

/// Key, tab, value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Every byte stands for itself, and the first tab ends the key: any text is good as it is.
    Raw,
    /// A tab is written `\t`, a newline `\n` and a backslash `\\`: any key and value can be written.
    Escaped,
}

impl Format {
    /// As the flag `--escaped` says.
    pub fn new(escaped: bool) -> Self {
        if escaped { Self::Escaped } else { Self::Raw }
    }

    /// The key and value of a line without its newline.
    ///
    /// # Errors
    /// What is wrong with the line, in words.
    pub fn read(self, line: &[u8]) -> Result<(Bytes, Bytes), String> {
        let tab = line.iter().position(|byte| *byte == b'\t').ok_or("it has no tab between key and value")?;
        let (key, rest) = line.split_at(tab);
        let value = rest.get(1..).unwrap_or_default();
        let (key, value) = match self {
            Format::Raw => (Cow::Borrowed(key), Cow::Borrowed(value)),
            Format::Escaped if value.contains(&b'\t') => {
                return Err(
                    "it has more than one tab; with --escaped, a tab in a key or value is written `\\t`".to_owned()
                );
            }
            Format::Escaped => (
                unescape(key).map_err(|problem| format!("in the key, {problem}"))?,
                unescape(value).map_err(|problem| format!("in the value, {problem}"))?,
            ),
        };
        if key.is_empty() {
            return Err("its key is empty".to_owned());
        }
        if key.len() > KEY_BYTES_MAX {
            return Err(format!("its key has {} bytes; at most {KEY_BYTES_MAX} are allowed", key.len()));
        }
        if value.len() > VALUE_BYTES_MAX {
            return Err(format!("its value has {} bytes; at most {VALUE_BYTES_MAX} are allowed", value.len()));
        }
        Ok((Bytes::copy_from_slice(&key), Bytes::copy_from_slice(&value)))
    }

    /// Why a line of this format cannot hold this key and value, if it cannot.
    pub fn refuses(self, key: &[u8], value: &[u8]) -> Option<String> {
        let what = match self {
            Format::Escaped => return None,
            Format::Raw if key.contains(&b'\n') => "holds a newline",
            Format::Raw if key.contains(&b'\t') => "holds a tab",
            Format::Raw if value.contains(&b'\n') => "has a value with a newline",
            Format::Raw => return None,
        };
        Some(format!("the key `{}` {what}, which a raw line cannot say", key.escape_ascii()))
    }

    /// Writes a line that the format does not refuse.
    ///
    /// # Errors
    /// What the writer says.
    pub fn write(self, out: &mut impl Write, key: &[u8], value: &[u8]) -> io::Result<()> {
        let field = |bytes| match self {
            Format::Raw => Cow::Borrowed(bytes),
            Format::Escaped => escape(bytes),
        };
        out.write_all(&field(key))?;
        out.write_all(b"\t")?;
        out.write_all(&field(value))?;
        out.write_all(b"\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(format: Format, key: &[u8], value: &[u8]) -> Vec<u8> {
        let mut line = Vec::new();
        format.write(&mut line, key, value).expect("memory takes it");
        line
    }

    #[test]
    fn raw_lines_are_split_at_the_first_tab_and_mean_what_they_are() {
        let line = b"a\\n\tone\ttwo \\r \\q \\\r";
        let (key, value) = Format::Raw.read(line).expect("a good line");
        assert_eq!((&key[..], &value[..]), (&b"a\\n"[..], &b"one\ttwo \\r \\q \\\r"[..]));
        assert_eq!(written(Format::Raw, &key, &value), [&line[..], b"\n"].concat());
    }

    #[test]
    fn raw_lines_refuse_only_what_would_be_read_back_otherwise() {
        for (key, value) in [(&b"a\tb"[..], &b"v"[..]), (b"a\nb", b"v"), (b"a", b"v\nw")] {
            assert!(Format::Raw.refuses(key, value).is_some_and(|why| why.contains("the key `a")));
            assert_eq!(Format::Escaped.refuses(key, value), None);
        }
        assert_eq!(Format::Raw.refuses(b"\\ \r", b"\t\r\\"), None);
    }

    #[test]
    fn escaped_lines_hold_every_key_and_value() {
        let all: Vec<u8> = (0..=255).collect();
        let line = written(Format::Escaped, &all, &all);
        assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
        let (key, value) = Format::Escaped.read(&line[..line.len() - 1]).expect("a good line");
        assert_eq!((key.as_ref(), value.as_ref()), (&all[..], &all[..]));
        assert!(Format::Escaped.read(b"a\tb\tc").is_err() && Format::Escaped.read(b"a\\q\tb").is_err());
    }
}
