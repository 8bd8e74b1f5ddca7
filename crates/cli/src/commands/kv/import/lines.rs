//! The lines of an import, one at a time, with their numbers; bounded in memory whatever the file holds.

use super::super::format::{Format, LINE_BYTES_MAX};
use crate::errors::{Advise, failure};
use crate::text::thousands;
use bytes::Bytes;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::{Path, PathBuf};

/// Where lines come from, as often as wanted.
pub enum Source {
    /// A file.
    File(PathBuf),
    /// What stdin, or a pipe, had to say.
    Read(String, Bytes),
}

impl Source {
    /// Finds the file, or reads stdin to its end.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        if path.as_os_str() == "-" {
            let mut bytes = Vec::new();
            io::stdin().lock().read_to_end(&mut bytes).explain("cannot read stdin")?;
            return Ok(Self::Read("stdin".to_owned(), bytes.into()));
        }
        let shown = path.display();
        let advice = "name a file with lines `key<TAB>value`, or `-` for stdin";
        match std::fs::metadata(path) {
            Ok(it) if it.is_file() => return Ok(Self::File(path.to_owned())),
            Ok(it) if it.is_dir() => return Err(failure(format!("{shown} is a folder, not a file"), advice)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(failure(format!("there is no file {shown}"), advice));
            }
            _ => {} // a pipe, or what the next line will say
        }
        let bytes = std::fs::read(path).advise(format!("cannot read {shown}"), advice)?;
        Ok(Self::Read(shown.to_string(), bytes.into()))
    }

    /// For messages.
    pub fn name(&self) -> String {
        match self {
            Source::File(path) => path.display().to_string(),
            Source::Read(name, _) => name.clone(),
        }
    }

    /// From the beginning.
    pub fn reader(&self) -> anyhow::Result<Box<dyn BufRead>> {
        match self {
            Source::File(path) => {
                let file = File::open(path).explain(format!("cannot read {}", path.display()))?;
                Ok(Box::new(BufReader::with_capacity(1 << 16, file)))
            }
            Source::Read(_, bytes) => Ok(Box::new(Cursor::new(bytes.clone()))),
        }
    }
}

/// What a good line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The line's number, from 1.
    pub line: u64,
    /// The key.
    pub key: Bytes,
    /// The value.
    pub value: Bytes,
}

/// A line: what it says, or `line N: what is wrong`.
#[derive(Debug)]
pub struct Line {
    /// Either.
    pub entry: Result<Entry, String>,
}

/// All lines of a reader.
pub struct Lines {
    reader: Box<dyn BufRead>,
    format: Format,
    number: u64,
    buffer: Vec<u8>,
}

impl Lines {
    /// From where the reader stands.
    pub fn new(reader: Box<dyn BufRead>, format: Format) -> Self {
        Self { reader, format, number: 0, buffer: Vec::new() }
    }

    /// Reads a line without its newline into the buffer; of one that is too long, only the beginning. `None` at the end.
    fn read(&mut self) -> io::Result<Option<bool>> {
        self.buffer.clear();
        let limit = LINE_BYTES_MAX as u64 + 1;
        if (&mut self.reader).take(limit).read_until(b'\n', &mut self.buffer)? == 0 {
            return Ok(None);
        }
        if self.buffer.last() == Some(&b'\n') {
            self.buffer.pop();
            return Ok(Some(true));
        }
        let whole = self.buffer.len() <= LINE_BYTES_MAX;
        if !whole {
            self.skip_rest()?;
        }
        Ok(Some(whole))
    }

    fn skip_rest(&mut self) -> io::Result<()> {
        loop {
            let available = self.reader.fill_buf()?;
            let (used, found) = match available.iter().position(|byte| *byte == b'\n') {
                Some(at) => (at + 1, true),
                None => (available.len(), available.is_empty()),
            };
            self.reader.consume(used);
            if found {
                return Ok(());
            }
        }
    }
}

impl Iterator for Lines {
    type Item = io::Result<Line>;

    fn next(&mut self) -> Option<Self::Item> {
        let read = match self.read() {
            Ok(Some(whole)) => whole,
            Ok(None) => return None,
            Err(error) => return Some(Err(error)),
        };
        self.number = self.number.saturating_add(1);
        let too_long = || Err("it is longer than any key and value".to_owned());
        let parsed = if read { self.format.read(&self.buffer) } else { too_long() };
        let number = self.number;
        Some(Ok(Line {
            entry: parsed
                .map(|(key, value)| Entry { line: number, key, value })
                .map_err(|problem| format!("line {}: {problem}", thousands(number))),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(text: &[u8]) -> Vec<Result<(Bytes, Bytes), String>> {
        let reader = Box::new(Cursor::new(text.to_vec()));
        Lines::new(reader, Format::Raw)
            .map(|line| line.expect("memory reads").entry.map(|it| (it.key, it.value)))
            .collect()
    }

    #[test]
    fn the_last_line_needs_no_newline_and_bytes_need_not_be_text() {
        let expected = [Ok(("a".into(), "1".into())), Ok((Bytes::from_static(b"\xff"), "".into()))];
        assert_eq!(entries(b"a\t1\n\xff\t"), expected);
    }

    #[test]
    fn bad_lines_are_told_by_number_and_the_rest_goes_on() {
        let mut text = b"no tab\n\tempty key\n\n".to_vec();
        text.extend(std::iter::repeat_n(b'x', LINE_BYTES_MAX * 2));
        text.extend_from_slice(b"\ngood\tline\n");
        let found = entries(&text);
        let bad: Vec<_> = found.iter().filter_map(|it| it.as_ref().err()).map(|it| &it[..8]).collect();
        assert_eq!(bad, ["line 1: ", "line 2: ", "line 3: ", "line 4: "]);
        assert_eq!(found[4], Ok(("good".into(), "line".into())));
    }
}
