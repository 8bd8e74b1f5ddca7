//! What a person reads when something went wrong: what happened, why, and what to do next.
//!
//! ```text
//! error: the cluster did not answer
//!   caused by: no answer in time; the operation was not sent
//!   try: `quorate status` shows which replicas are reachable
//! ```

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::panic;

/// An error that knows what to do next.
#[derive(Debug)]
pub struct Advised {
    what: String,
    advice: Option<String>,
    cause: Option<anyhow::Error>,
}

impl fmt::Display for Advised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Advised {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.cause.as_ref().map(|cause| cause.as_ref())
    }
}

/// An error with advice and no deeper cause.
pub fn failure(what: impl Into<String>, advice: impl Into<String>) -> anyhow::Error {
    Advised { what: what.into(), advice: Some(advice.into()), cause: None }.into()
}

/// Says what an error means and what to do about it.
pub trait Advise<T> {
    /// Puts a sentence, and what to try next, in front of the error.
    fn advise(self, what: impl Into<String>, advice: impl Into<String>) -> anyhow::Result<T>;

    /// Puts a sentence in front of the error, which gives its own advice.
    fn explain(self, what: impl Into<String>) -> anyhow::Result<T>;
}

impl<T, E: Into<anyhow::Error>> Advise<T> for Result<T, E> {
    fn advise(self, what: impl Into<String>, advice: impl Into<String>) -> anyhow::Result<T> {
        self.map_err(|error| {
            Advised { what: what.into(), advice: Some(advice.into()), cause: Some(error.into()) }.into()
        })
    }

    fn explain(self, what: impl Into<String>) -> anyhow::Result<T> {
        self.map_err(|error| Advised { what: what.into(), advice: None, cause: Some(error.into()) }.into())
    }
}

/// What a shell says of a command that a closed pipe has ended.
const BROKEN_PIPE: i32 = 141;

/// From here on, whoever stops reading our output (`quorate sim … | head`) ends the command without a word, as it ends others.
/// `println!` would panic.
pub fn end_when_nobody_reads() {
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let what = info.payload_as_str().unwrap_or_default();
        if what.starts_with("failed printing to stdout") && what.contains("Broken pipe") {
            std::process::exit(BROKEN_PIPE);
        }
        before(info);
    }));
}

/// Writes an error to stderr.
pub fn report(error: &anyhow::Error) {
    if is_broken_pipe(error) {
        return; // whoever read our output has enough: `quorate kv export | head`
    }
    let bold = io::stderr().is_terminal();
    let _unheard = io::stderr().write_all(text(error, bold).as_bytes());
}

/// The error, its causes and its advice, a line each. A cause that the line before it quotes already is left out.
fn text(error: &anyhow::Error, bold: bool) -> String {
    let (on, off) = if bold { ("\x1b[1;31m", "\x1b[0m") } else { ("", "") };
    let mut last = error.to_string();
    let mut text = format!("{on}error:{off} {last}\n");
    for cause in error.chain().skip(1) {
        let line = cause.to_string();
        if !last.contains(&line) {
            text.push_str(&format!("  caused by: {line}\n"));
            last = line;
        }
    }
    for advice in error.chain().filter_map(|cause| cause.downcast_ref::<Advised>()?.advice.as_ref()) {
        text.push_str(&format!("  try: {advice}\n"));
    }
    text
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = |cause: &(dyn std::error::Error + 'static)| cause.downcast_ref::<io::Error>().map(io::Error::kind);
    error.chain().filter_map(io).any(|kind| kind == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_happened_why_and_what_to_do() {
        let cause: Result<(), _> = Err(io::Error::other("the disk is full"));
        let error = cause.advise("the export stopped", "make room and run it again").expect_err("an error");
        let expected = "error: the export stopped\n  caused by: the disk is full\n  try: make room and run it again\n";
        assert_eq!(text(&error, false), expected);
    }

    #[test]
    fn a_cause_that_was_quoted_is_not_repeated() {
        let cause: Result<(), _> = Err(io::Error::other("the disk is full"));
        let error = cause.explain("cannot write: the disk is full").expect_err("an error");
        assert_eq!(text(&error, false), "error: cannot write: the disk is full\n");
    }
}
