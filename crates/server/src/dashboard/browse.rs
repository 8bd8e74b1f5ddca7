//! Keys and events: read through the cluster's client, linearizably, a page at a time.

use super::form::{Form, encoded};
use super::html::{brief, escaped, readable, size, thousands};
use bytes::Bytes;
use quorate_core::protocol::Consistency;
use quorate_machines::kv::{
    Event, EventKind, Events, KeyValue, KvError, Query, Range, Reply, Response, Status, prefix_end,
};
use quorate_runtime::client::Client;
use std::fmt::Write;
use std::time::Duration;

/// Keys on a page.
const KEYS_PER_PAGE: u64 = 50;
/// Events on a page, about: whole revisions.
pub const EVENTS_PER_PAGE: u64 = 100;
/// Characters of a key or value in a list.
const LISTED_CHARS_MAX: usize = 120;
/// Characters of a value on its own page.
const VALUE_CHARS_MAX: usize = 65_536;
/// How long the cluster may take to answer.
const PATIENCE: Duration = Duration::from_secs(4);

/// Why there is nothing to show, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// What was asked for is older than what is kept.
    Compacted(i64),
    /// Anything else, in a sentence.
    Other(String),
}

impl Trouble {
    /// As a paragraph.
    pub fn html(&self) -> String {
        let sentence = match self {
            Trouble::Compacted(revision) => {
                format!("History before revision {revision} was compacted away: ask for a later revision.")
            }
            Trouble::Other(sentence) => sentence.clone(),
        };
        format!("<p class=\"trouble\" role=\"alert\">{}</p>", escaped(&sentence))
    }
}

async fn ask(client: &Client, query: &Query) -> Result<(i64, Response), Trouble> {
    let other = |error: &dyn ToString| Trouble::Other(error.to_string());
    let bytes = query.encode().map_err(|error| other(&error))?;
    let call = tokio::time::timeout(PATIENCE, client.read(Consistency::Linearizable, bytes));
    let silent = "The cluster does not answer: as long as too few replicas run, nothing can be read.";
    let answer = call.await.map_err(|_| Trouble::Other(silent.to_owned()))?.map_err(|error| other(&error))?;
    let reply = Reply::decode(&answer.reply).map_err(|error| other(&error))?;
    match reply.result {
        Ok(response) => Ok((reply.revision, response)),
        Err(KvError::Compacted { compact_revision }) => Err(Trouble::Compacted(compact_revision)),
        Err(error) => Err(other(&error)),
    }
}

fn strange<T>() -> Result<T, Trouble> {
    Err(Trouble::Other("The cluster answered something else than it was asked.".to_owned()))
}

async fn status(client: &Client) -> Result<Status, Trouble> {
    match ask(client, &Query::Status).await?.1 {
        Response::Status(status) => Ok(status),
        _ => strange(),
    }
}

/// `/keys?prefix=…&from=…`
pub async fn keys(client: &Client, form: &Form) -> String {
    let prefix = form.bytes("prefix").unwrap_or_default();
    let mut html = format!(
        "<h1>Keys</h1>\n<form method=\"get\" action=\"/keys\" class=\"search\"><label for=\"prefix\">Keys that start with</label>\
         <input id=\"prefix\" name=\"prefix\" value=\"{}\" autocomplete=\"off\" spellcheck=\"false\"><button>Show</button></form>\n",
        escaped(&readable(prefix))
    );
    match page_of_keys(client, prefix, form.bytes("from").unwrap_or_default()).await {
        Err(trouble) => html.push_str(&trouble.html()),
        Ok((range, from)) => html.push_str(&keys_table(&range, prefix, &from)),
    }
    html
}

/// One page, without values if they are too large for one answer.
async fn page_of_keys(client: &Client, prefix: &[u8], from: &[u8]) -> Result<(Found, Vec<u8>), Trouble> {
    let mut range = Range::prefix(Bytes::copy_from_slice(prefix));
    if from > &range.key[..] {
        range.key = Bytes::copy_from_slice(from);
        if !prefix.is_empty() && from >= &prefix_end(prefix)[..] && prefix_end(prefix)[..] != [0] {
            return Ok((Found::default(), from.to_vec())); // an address that was made up: nothing is beyond the end
        }
    }
    range.limit = KEYS_PER_PAGE;
    let from = range.key.to_vec();
    let answer = match ask(client, &Query::Range(range.clone())).await {
        Err(Trouble::Other(_)) => {
            range.keys_only = true;
            ask(client, &Query::Range(range.clone())).await?
        }
        other => other?,
    };
    let Response::Range(found) = answer.1 else { return strange() };
    Ok((Found { kvs: found.kvs, more: found.more, count: found.count, values: !range.keys_only }, from))
}

#[derive(Debug, Default)]
struct Found {
    kvs: Vec<KeyValue>,
    more: bool,
    count: u64,
    values: bool,
}

fn keys_table(found: &Found, prefix: &[u8], from: &[u8]) -> String {
    if found.kvs.is_empty() {
        return "<p class=\"quiet\">There are no such keys. Put one: <code>quorate kv put greeting hello</code></p>"
            .to_owned();
    }
    let mut html = format!(
        "<p class=\"quiet\">{} from here on</p><div class=\"wide\"><table><thead><tr><th scope=\"col\">Key</th><th \
         scope=\"col\">Value</th><th scope=\"col\" class=\"n\">Size</th><th scope=\"col\" class=\"n\">Version</th><th \
         scope=\"col\" class=\"n\">Changed at</th><th scope=\"col\">Lease</th></tr></thead><tbody>",
        thousands(found.count)
    );
    for kv in &found.kvs {
        let value = if found.values { brief(&readable(&kv.value), LISTED_CHARS_MAX) } else { "(large)".to_owned() };
        let bytes = if found.values { size(kv.value.len() as u64) } else { "–".to_owned() };
        let _infallible = write!(
            html,
            "<tr><th scope=\"row\"><a href=\"/key?key={}\">{}</a></th><td class=\"value\">{value}</td><td class=\"n\">{bytes}</td>\
             <td class=\"n\">{}</td><td class=\"n\">{}</td><td>{}</td></tr>",
            encoded(&kv.key),
            brief(&readable(&kv.key), LISTED_CHARS_MAX),
            kv.version,
            kv.mod_revision,
            if kv.lease == 0 { String::new() } else { format!("{:x}", kv.lease) }
        );
    }
    html.push_str("</tbody></table></div><nav class=\"pages\" aria-label=\"Pages of keys\">");
    if from > prefix {
        let _infallible = write!(html, "<a href=\"/keys?prefix={}\">From the beginning</a>", encoded(prefix));
    }
    if let Some(last) = found.kvs.last().filter(|_| found.more) {
        let next = [&last.key[..], &[0]].concat(); // the first key after it
        let _infallible = write!(
            html,
            "<a rel=\"next\" href=\"/keys?prefix={}&amp;from={}\">Next page</a>",
            encoded(prefix),
            encoded(&next)
        );
    }
    html.push_str("</nav>");
    html
}

/// `/key?key=…`: one key, its value, and what happened to it.
pub async fn key(client: &Client, form: &Form) -> String {
    let key = Bytes::copy_from_slice(form.bytes("key").unwrap_or_default());
    let mut html = format!("<h1 class=\"key\">{}</h1>\n", brief(&readable(&key), LISTED_CHARS_MAX * 4));
    match one_key(client, &key).await {
        Err(trouble) => html.push_str(&trouble.html()),
        Ok((kv, history)) => {
            html.push_str(&key_facts(kv.as_ref()));
            html.push_str("<h2>What happened to it</h2>");
            html.push_str(&history);
        }
    }
    html
}

async fn one_key(client: &Client, key: &Bytes) -> Result<(Option<KeyValue>, String), Trouble> {
    if key.is_empty() {
        return Err(Trouble::Other("No key is empty: choose one in the list of keys.".to_owned()));
    }
    let Response::Range(found) = ask(client, &Query::get(key.clone())).await?.1 else { return strange() };
    let kv = found.kvs.into_iter().next();
    let first = status(client).await?.compact_revision.saturating_add(1).max(1);
    let interest = Events { key: key.clone(), from_revision: first, limit: EVENTS_PER_PAGE, ..Events::default() };
    let Response::Events(events) = ask(client, &Query::Events(interest)).await?.1 else { return strange() };
    let rows: Vec<String> = events
        .batches
        .iter()
        .flat_map(|batch| batch.events.iter().map(|event| event_row(batch.revision, event)))
        .collect();
    let about = format!("<p class=\"quiet\">The first {} changes that are still kept, oldest first</p>", rows.len());
    Ok((kv, about + &events_table(&rows.concat())))
}

fn key_facts(kv: Option<&KeyValue>) -> String {
    let Some(kv) = kv else {
        return "<p>This key does not exist now.</p>".to_owned();
    };
    let lease = if kv.lease == 0 { "none".to_owned() } else { format!("{:x}", kv.lease) };
    format!(
        "<dl class=\"facts\"><div><dt>Version</dt><dd>{}</dd></div><div><dt>Created at revision</dt><dd>{}</dd></div>\
         <div><dt>Changed at revision</dt><dd>{}</dd></div><div><dt>Lease</dt><dd>{lease}</dd></div>\
         <div><dt>Size</dt><dd>{}</dd></div></dl><pre class=\"value\" tabindex=\"0\">{}</pre>",
        kv.version,
        kv.create_revision,
        kv.mod_revision,
        size(kv.value.len() as u64),
        brief(&readable(&kv.value), VALUE_CHARS_MAX)
    )
}

/// `/events?from=…&prefix=…`: what happened from a revision on; without one, what happened last. The rest comes in by a
/// stream, if the browser can.
pub async fn events(client: &Client, form: &Form) -> String {
    let prefix = form.bytes("prefix").unwrap_or_default();
    let asked = form.text("from").unwrap_or_default().trim();
    let mut html = format!(
        "<h1>Events</h1>\n<form method=\"get\" action=\"/events\" class=\"search\"><label for=\"prefix\">Keys that start with\
         </label><input id=\"prefix\" name=\"prefix\" value=\"{}\" autocomplete=\"off\" spellcheck=\"false\"><label \
         for=\"from\">from revision</label><input id=\"from\" name=\"from\" inputmode=\"numeric\" size=\"10\" value=\"{}\" \
         placeholder=\"the last\"><button>Show</button></form>\n",
        escaped(&readable(prefix)),
        escaped(asked)
    );
    match page_of_events(client, prefix, asked).await {
        Err(trouble) => html.push_str(&trouble.html()),
        Ok(page) => html.push_str(&events_page(&page, prefix)),
    }
    html
}

struct PageOfEvents {
    first: i64,
    next: i64,
    present: i64,
    compacted: i64,
    rows: Vec<String>,
}

async fn page_of_events(client: &Client, prefix: &[u8], asked: &str) -> Result<PageOfEvents, Trouble> {
    let status = status(client).await?;
    let oldest = status.compact_revision.saturating_add(1).max(1);
    let last_page = i64::try_from(EVENTS_PER_PAGE).unwrap_or(i64::MAX);
    let first = match asked {
        "" => status.revision.saturating_sub(last_page - 1).max(oldest),
        number => number
            .parse::<i64>()
            .map_err(|_| Trouble::Other(format!("A revision is a number, and not `{number}`.")))?
            .max(1),
    };
    let (rows, next, present) = event_rows(client, prefix, first).await?;
    Ok(PageOfEvents { first, next, present, compacted: status.compact_revision, rows })
}

/// Rows for events from a revision on, where to go on, and the present revision.
pub async fn event_rows(client: &Client, prefix: &[u8], from: i64) -> Result<(Vec<String>, i64, i64), Trouble> {
    let all = Range::prefix(Bytes::copy_from_slice(prefix));
    let interest = Events {
        key: all.key,
        range_end: all.range_end,
        from_revision: from.max(1),
        limit: EVENTS_PER_PAGE,
        ..Events::default()
    };
    let (present, response) = ask(client, &Query::Events(interest)).await?;
    let Response::Events(found) = response else { return strange() };
    let rows = found
        .batches
        .iter()
        .flat_map(|batch| batch.events.iter().map(|event| event_row(batch.revision, event)))
        .collect();
    Ok((rows, found.next_revision, present))
}

fn event_row(revision: i64, event: &Event) -> String {
    let (kind, value) = match event.kind {
        EventKind::Put => {
            (if event.is_create() { "created" } else { "put" }, brief(&readable(&event.kv.value), LISTED_CHARS_MAX))
        }
        EventKind::Delete => ("deleted", String::new()),
    };
    format!(
        "<tr><td class=\"n\">{revision}</td><td><span class=\"badge {kind}\">{kind}</span></td><th scope=\"row\"><a \
         href=\"/key?key={}\">{}</a></th><td class=\"value\">{value}</td></tr>",
        encoded(&event.kv.key),
        brief(&readable(&event.kv.key), LISTED_CHARS_MAX)
    )
}

fn events_table(rows: &str) -> String {
    format!(
        "<div class=\"wide\"><table><thead><tr><th scope=\"col\" class=\"n\">Revision</th><th scope=\"col\">What</th><th \
         scope=\"col\">Key</th><th scope=\"col\">Value</th></tr></thead><tbody id=\"rows\">{rows}</tbody></table></div>"
    )
}

fn events_page(page: &PageOfEvents, prefix: &[u8]) -> String {
    let follows = page.next > page.present;
    // Newest first, as they come in.
    let rows: String = page.rows.iter().rev().map(String::as_str).collect();
    let mut html = format!(
        "<p class=\"quiet\" id=\"events\"{}>Revisions {} to {}, newest first; the store is at {}</p>",
        if follows {
            format!(" data-next=\"{}\" data-prefix=\"{}\"", page.next, encoded(prefix))
        } else {
            String::new()
        },
        page.first,
        page.next.saturating_sub(1).max(page.first),
        page.present
    );
    html.push_str(&events_table(&rows));
    html.push_str("<nav class=\"pages\" aria-label=\"Pages of events\">");
    let oldest = page.compacted.saturating_add(1).max(1);
    if page.first > oldest {
        let size = i64::try_from(EVENTS_PER_PAGE).unwrap_or(i64::MAX);
        let earlier = page.first.saturating_sub(size).max(oldest);
        let _infallible =
            write!(html, "<a rel=\"prev\" href=\"/events?prefix={}&amp;from={earlier}\">Earlier</a>", encoded(prefix));
    }
    if !follows {
        let _infallible = write!(
            html,
            "<a rel=\"next\" href=\"/events?prefix={}&amp;from={}\">Later</a>",
            encoded(prefix),
            page.next
        );
        let _infallible = write!(html, "<a href=\"/events?prefix={}\">The last</a>", encoded(prefix));
    }
    html.push_str("</nav>");
    html
}
