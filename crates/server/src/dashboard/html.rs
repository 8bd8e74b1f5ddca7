//! What every page shares: text that stays text, numbers, and the frame around a page.

use std::borrow::Cow;
use std::fmt::Write;

/// Characters of something that somebody else said that are shown at most.
pub const WORDS_CHARS_MAX: usize = 240;

/// Text as HTML, in elements and in quoted attributes alike.
pub fn escaped(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            // Nothing that turns the direction of what follows, or does anything else but be read.
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => html.push('\u{fffd}'),
            c if c.is_control() && c != '\n' && c != '\t' => html.push('\u{fffd}'),
            c => html.push(c),
        }
    }
    html
}

/// The beginning of something long, as HTML.
pub fn brief(text: &str, chars_max: usize) -> String {
    match text.char_indices().nth(chars_max) {
        None => escaped(text),
        Some((end, _)) => escaped(text.get(..end).unwrap_or_default()) + "…",
    }
}

/// Bytes for people: as text if they are, otherwise with escapes.
pub fn readable(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => Cow::Owned(bytes.escape_ascii().to_string()),
    }
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

/// Bytes as `1.2 MB`.
pub fn size(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

/// The pages, for the menu.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tab {
    /// Replicas, rates, messages.
    Overview,
    /// Keys.
    Keys,
    /// Events.
    Events,
}

/// A whole page. `closed` leaves out what is not for everybody who can reach it.
pub fn page(title: &str, tab: Tab, closed: bool, refresh: bool, body: &str) -> String {
    let mut html = String::with_capacity(body.len().saturating_add(2048));
    html.push_str("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
    html.push_str("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
    html.push_str("<meta name=\"color-scheme\" content=\"light dark\">\n");
    if refresh {
        html.push_str("<noscript><meta http-equiv=\"refresh\" content=\"5\"></noscript>\n");
    }
    let _infallible = writeln!(html, "<title>{} · Quorate</title>", escaped(title));
    html.push_str("<link rel=\"icon\" href=\"/icon.svg\" type=\"image/svg+xml\">\n");
    html.push_str(
        "<link rel=\"stylesheet\" href=\"/style.css\">\n<script src=\"/app.js\" defer></script>\n</head>\n<body>\n",
    );
    html.push_str("<a class=\"skip\" href=\"#main\">Skip to the content</a>\n<header class=\"top\">\n");
    html.push_str(
        "<a class=\"brand\" href=\"/\"><img src=\"/icon.svg\" alt=\"\" width=\"26\" height=\"26\">Quorate</a>\n",
    );
    if !closed {
        html.push_str("<nav aria-label=\"Pages\">");
        for (tab_of, path, name) in
            [(Tab::Overview, "/", "Cluster"), (Tab::Keys, "/keys", "Keys"), (Tab::Events, "/events", "Events")]
        {
            let current = if tab == tab_of { " aria-current=\"page\"" } else { "" };
            let _infallible = write!(html, "<a href=\"{path}\"{current}>{name}</a>");
        }
        html.push_str("</nav>\n");
    }
    html.push_str("<span id=\"live\" role=\"status\"></span>\n</header>\n<main id=\"main\">\n");
    html.push_str(body);
    html.push_str("</main>\n</body>\n</html>\n");
    html
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_say_is_text_wherever_it_stands() {
        assert_eq!(
            escaped("<img src=x onerror=\"a('b')\">&\u{202e}\u{7}"),
            "&lt;img src=x onerror=&quot;a(&#39;b&#39;)&quot;&gt;&amp;\u{fffd}\u{fffd}"
        );
        assert_eq!(brief("é<é<é", 4), "é&lt;é&lt;…", "cut between characters, and before it is escaped");
        assert_eq!(readable(b"caf\xc3\xa9"), "café");
        assert_eq!(readable(b"\xff<"), "\\xff<");
    }

    #[test]
    fn numbers_are_grouped_and_sizes_rounded() {
        assert_eq!([0, 999, 1000, 1_234_567].map(thousands), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([999, 1_500, 2_000_000].map(size), ["999 B", "1.5 kB", "2.0 MB"]);
    }
}
