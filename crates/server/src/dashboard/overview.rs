//! The first page: how the cluster is, what its replicas do, and buttons to try it.
//!
//! The page is made of *parts*. A stream sends the parts that have changed, drawn by the same functions; what a person may be
//! pressing stands in a part of its own that changes only when it must.

use super::history::Point;
use super::html::{WORDS_CHARS_MAX, brief, escaped, size, thousands};
use super::sampler::State;
use super::spark::sparkline;
use super::strip::strip;
use super::{Facts, Health, Lies, Look, Process, ReplicaLook};
use quorate_core::ids::ReplicaId;
use std::collections::BTreeMap;
use std::fmt::Write;

/// Parts by name.
pub type Parts = BTreeMap<&'static str, String>;

/// Proofs and faults that are listed for each replica.
const EVIDENCE_MAX: usize = 15;

/// What is shown to whom.
#[derive(Clone, Copy, Debug)]
pub struct Show<'a> {
    /// Buttons, with the token that they need.
    pub token: Option<&'a str>,
    /// Whether the store's sizes may be seen.
    pub store: bool,
}

/// All parts of the page.
pub fn parts(state: &State, show: Show<'_>) -> Parts {
    let mut parts = Parts::new();
    parts.insert("verdict", verdict(state, show.store));
    parts.insert("replicas", replicas(&state.look.replicas));
    parts.insert("rates", rates(state));
    let ids: Vec<ReplicaId> = state.look.replicas.iter().map(|it| it.replica).collect();
    parts.insert("strip", strip(&state.scene, &ids));
    parts.insert("faults", faults(&state.look.replicas));
    parts.insert("happened", happened(state));
    if let Some(token) = show.token {
        parts.insert("controls", controls(&state.look, token));
    }
    parts
}

/// The page's content.
pub fn body(parts: &Parts) -> String {
    let part = |name: &str| parts.get(name).map(String::as_str).unwrap_or_default();
    let section = |name: &str, title: &str, about: &str| {
        format!(
            "<section aria-labelledby=\"h-{name}\"><h2 id=\"h-{name}\">{title}</h2>{about}<div id=\"part-{name}\">{}</div></section>\n",
            part(name)
        )
    };
    let mut html = format!("<div id=\"part-verdict\">{}</div>\n", part("verdict"));
    html.push_str(&section("replicas", "Replicas", ""));
    if parts.contains_key("controls") {
        let about = "<p class=\"about\">These are real processes with real disks. Whatever you do to fewer than the protocol \
                     tolerates, nothing that was acknowledged is lost.</p><p id=\"said\" role=\"status\"></p>";
        html.push_str(&section("controls", "Break something", about));
    }
    html.push_str(&section("rates", "The last five minutes", ""));
    let about = "<p class=\"about\">What replicas and clients say to each other. Point at an arrow to see how long it took. \
                 <button type=\"button\" id=\"freeze\" hidden aria-pressed=\"false\">Hold the picture</button></p>";
    html.push_str(&section("strip", "Messages", about));
    html.push_str(&section("faults", "Faults and evidence", ""));
    html.push_str(&section("happened", "What happened", ""));
    html
}

fn verdict(state: &State, store: bool) -> String {
    let look = &state.look;
    let class = match look.health {
        Health::Good => "good",
        Health::Strained => "strained",
        Health::Bad => "bad",
    };
    let summary = if look.summary.is_empty() { "asking the replicas" } else { &look.summary };
    let mut html = format!(
        "<div class=\"verdict {class}\"><h1>{}</h1><p>{} · cluster {}",
        brief(&first_upper(summary), WORDS_CHARS_MAX),
        brief(&look.protocol, WORDS_CHARS_MAX),
        brief(look.cluster.get(..8).unwrap_or(&look.cluster), WORDS_CHARS_MAX)
    );
    if let Some(status) = state.store.as_ref().filter(|_| store) {
        let _infallible = write!(
            html,
            " · {} keys · revision {} · {} with history",
            thousands(status.keys),
            thousands(status.revision.unsigned_abs()),
            size(status.bytes)
        );
    }
    html.push_str("</p></div>");
    html
}

fn first_upper(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

fn replicas(replicas: &[ReplicaLook]) -> String {
    let mut html = "<div class=\"wide\"><table class=\"replicas\"><thead><tr><th scope=\"col\">Replica</th><th scope=\"col\">Role\
                    </th><th scope=\"col\" class=\"n\">View</th><th scope=\"col\" class=\"n\">Log ends at</th><th scope=\"col\" \
                    class=\"n\">Committed</th><th scope=\"col\" class=\"n\">Executed</th><th scope=\"col\" class=\"n\">Lag</th>\
                    <th scope=\"col\" class=\"n\">Checkpoint</th><th scope=\"col\">State</th></tr></thead><tbody>"
        .to_owned();
    for replica in replicas {
        html.push_str(&row(replica));
    }
    html.push_str("</tbody></table></div>");
    html
}

fn row(look: &ReplicaLook) -> String {
    let id = look.replica;
    let who = format!("<th scope=\"row\"><b>{id}</b> <small>{}</small></th>", brief(&look.address, WORDS_CHARS_MAX));
    let facts = match &look.facts {
        Ok(facts) => facts,
        Err(why) => {
            let process = match &look.process {
                Process::Stopped => "stopped",
                Process::Running { paused: true, .. } => "paused",
                _ => "not reachable",
            };
            let why = brief(why, WORDS_CHARS_MAX);
            return format!(
                "<tr id=\"replica-{}\" class=\"down\">{who}<td data-label=\"Role\"><span class=\"badge down\">{process}</span></td>\
                 <td colspan=\"7\" class=\"why\">{why}</td></tr>",
                id.get()
            );
        }
    };
    let number = |label: &str, value: u64| format!("<td class=\"n\" data-label=\"{label}\">{}</td>", thousands(value));
    let leads = matches!(facts.role.as_str(), "primary" | "leader");
    let class = if leads { "leads" } else { "follows" };
    let cut = match &look.process {
        Process::Running { cut: Some(cut), .. } if !cut.is_empty() => {
            let names: Vec<_> = cut.iter().map(ToString::to_string).collect();
            format!(" <span class=\"badge cut\">cut off from {}</span>", names.join(", "))
        }
        _ => String::new(),
    };
    let lies = match &look.process {
        Process::Running { lies: Some(lie), .. } => {
            format!(" <span class=\"badge lies\">lies: {}</span>", brief(lie, WORDS_CHARS_MAX))
        }
        _ => String::new(),
    };
    let mut html = format!("<tr id=\"replica-{}\">{who}", id.get());
    let _infallible = write!(
        html,
        "<td data-label=\"Role\"><span class=\"badge {class}\">{}</span>{cut}{lies}</td>",
        brief(&facts.role, WORDS_CHARS_MAX)
    );
    html.push_str(&number("View", facts.view));
    html.push_str(&number("Log ends at", facts.op));
    html.push_str(&number("Committed", facts.committed));
    html.push_str(&number("Executed", facts.executed));
    html.push_str(&lag(facts));
    html.push_str(&number("Checkpoint", facts.checkpoint));
    let _infallible = write!(
        html,
        "<td data-label=\"State\"><code>{}</code> <small>at {}</small></td></tr>",
        escaped(facts.digest.get(..8).unwrap_or_default()),
        thousands(facts.digest_op)
    );
    html
}

fn lag(facts: &Facts) -> String {
    let missing = match facts.missing {
        0 => String::new(),
        count => format!(" <small>{} missing</small>", thousands(count)),
    };
    let class = if facts.lag > 0 || facts.missing > 0 { "n behind" } else { "n" };
    format!("<td class=\"{class}\" data-label=\"Lag\">{}{missing}</td>", thousands(facts.lag))
}

fn rates(state: &State) -> String {
    let now = state.point();
    let figure = |title: &str, unit: &str, class: &str, digits: usize, of: fn(&Point) -> Option<f64>| {
        let value = |number: Option<f64>| match number {
            None => "–".to_owned(),
            Some(number) if digits == 0 => thousands(number.round() as u64),
            Some(number) => format!("{number:.digits$}"),
        };
        let top = state.history.points().filter_map(of).reduce(f64::max);
        let (shown, top) = (value(of(&now)), value(top));
        let about = format!("{title}: now {shown} {unit}, at most {top} in the last five minutes");
        format!(
            "<figure><figcaption>{title}</figcaption><p class=\"now\"><b id=\"now-{class}\">{shown}</b> {unit}</p>{}\
             <p class=\"top\">at most {top}</p></figure>",
            sparkline(state.history.points().map(of), class, &about)
        )
    };
    format!(
        "<div class=\"rates\">{}{}{}</div>",
        figure("Throughput", "operations a second", "ops", 0, |it| it.ops_per_second),
        figure("A linearizable read", "ms", "read", 2, |it| it.read_ms),
        figure("Disk syncs, all replicas", "a second", "syncs", 0, |it| it.syncs_per_second)
    )
}

fn faults(replicas: &[ReplicaLook]) -> String {
    let mut html = String::new();
    for look in replicas {
        let Ok(facts) = &look.facts else { continue };
        for proof in facts.evidence.iter().take(EVIDENCE_MAX) {
            let proof = brief(proof, WORDS_CHARS_MAX);
            let _infallible = write!(html, "<li class=\"proof\"><b>proof</b> held by {}: {proof}</li>", look.replica);
        }
        if let Some(fault) = &facts.last_fault {
            let fault = brief(fault, WORDS_CHARS_MAX);
            let _infallible = write!(
                html,
                "<li><b>{}</b> has noticed {} lies, the last: {fault}</li>",
                look.replica,
                thousands(facts.blamed)
            );
        }
        if facts.missing > 0 {
            let missing = thousands(facts.missing);
            let _infallible = write!(html, "<li><b>{}</b> misses {missing} entries of its log</li>", look.replica);
        }
    }
    let ignored: Vec<String> = replicas
        .iter()
        .filter_map(|look| Some(format!("{} {}", look.replica, thousands(look.facts.as_ref().ok()?.ignored))))
        .collect();
    let ignored = match ignored.is_empty() {
        true => String::new(),
        false => format!(
            "<p class=\"quiet\">Messages that came late and were ignored, which is harmless: {}</p>",
            escaped(&ignored.join(", "))
        ),
    };
    match html.is_empty() {
        true => {
            format!("<p class=\"quiet\">No replica has noticed a lie, or damage that is not repaired.</p>{ignored}")
        }
        false => format!("<ul class=\"faults\">{html}</ul>{ignored}"),
    }
}

fn happened(state: &State) -> String {
    if state.happened.is_empty() {
        return "<p class=\"quiet\">Nothing since this page was opened.</p>".to_owned();
    }
    let mut html = "<ol class=\"happened\">".to_owned();
    for line in &state.happened {
        let who = line.replica.map(|it| format!("<b>{it}</b> ")).unwrap_or_default();
        let words = brief(&line.words, WORDS_CHARS_MAX);
        let _infallible = write!(html, "<li><time>{}</time> {who}{words}</li>", time_of_day(line.at));
    }
    html.push_str("</ol>");
    html
}

/// `17:02:11` UTC.
pub fn time_of_day(nanos: u64) -> String {
    let seconds = nanos / 1_000_000_000;
    format!("{:02}:{:02}:{:02}", seconds / 3600 % 24, seconds / 60 % 60, seconds % 60)
}

fn controls(look: &Look, token: &str) -> String {
    let mut html = "<div class=\"controls\">".to_owned();
    for replica in &look.replicas {
        html.push_str(&control(replica, look, token));
    }
    html.push_str("</div>");
    if let Lies::None(why) = &look.lies {
        let _infallible = write!(html, "<p class=\"quiet\">{}</p>", escaped(why));
    }
    html
}

fn control(look: &ReplicaLook, cluster: &Look, token: &str) -> String {
    let (id, all) = (look.replica.get(), &cluster.replicas);
    let mut html = format!(
        "<form method=\"post\" action=\"/act\"><fieldset><legend>{}</legend><input type=\"hidden\" name=\"token\" value=\"{}\">\
         <input type=\"hidden\" name=\"replica\" value=\"{id}\">",
        look.replica,
        escaped(token)
    );
    let button = |act: &str, name: &str, about: &str| {
        format!("<button name=\"act\" value=\"{act}\" data-key=\"{act}-{id}\" title=\"{about}\">{name}</button>")
    };
    match &look.process {
        Process::Unknown => html.push_str("<p>not a process of this machine</p>"),
        Process::Stopped => {
            html.push_str("<p>stopped</p>");
            html.push_str(&button("start", "Start", "It reads its disk and catches up"));
        }
        Process::Running { pid, paused, cut, lies } => {
            let state = match (paused, lies) {
                (true, _) => "stands still",
                (false, Some(_)) => "lies",
                (false, None) => "runs",
            };
            let _infallible = write!(html, "<p>process {pid} {state}</p>");
            if *paused {
                html.push_str(&button("resume", "Resume", "SIGCONT: it goes on, and finds that time has passed"));
            } else {
                html.push_str(&button("stop", "Stop", "SIGTERM: it syncs and ends"));
                html.push_str(&button("pause", "Pause", "SIGSTOP: it keeps its connections and says nothing"));
            }
            html.push_str(&button("kill", "Kill", "SIGKILL: it ends in the middle of whatever it does"));
            match cut {
                Some(cut) => html.push_str(&links(look.replica, all, cut, &button)),
                None => html.push_str("<p class=\"quiet\">started by hand: its links cannot be cut from here</p>"),
            }
            match lies {
                Some(_) => html.push_str(&button("honest", "Stop lying", "It ends, and starts again as it should be")),
                None if cut.is_some() && !*paused => html.push_str(&lie(id, cluster, &button)),
                None => {}
            }
        }
    }
    html.push_str("</fieldset></form>");
    html
}

/// What a replica can be told to lie, while no other one does.
fn lie(id: u8, cluster: &Look, button: &dyn Fn(&str, &str, &str) -> String) -> String {
    let Lies::Offered(lies) = &cluster.lies else { return String::new() };
    if cluster.replicas.iter().any(|it| matches!(it.process, Process::Running { lies: Some(_), .. })) {
        return String::new();
    }
    let mut html = format!("<details id=\"d-lies-{id}\"><summary>Let it lie</summary><label>It <select name=\"lie\">");
    for (name, words) in lies {
        let _infallible = write!(html, "<option value=\"{}\">{}</option>", escaped(name), escaped(words));
    }
    html.push_str("</select></label>");
    html.push_str(&button("lie", "Lie", "It ends, and starts again as a replica that lies; the others must bear it"));
    html.push_str("</details>");
    html
}

fn links(
    own: ReplicaId,
    all: &[ReplicaLook],
    cut: &[ReplicaId],
    button: &dyn Fn(&str, &str, &str) -> String,
) -> String {
    let others = || all.iter().map(|it| it.replica).filter(|it| *it != own);
    let mut html = match cut.is_empty() {
        true => {
            button("isolate", "Cut off", "It drops all messages from and to the other replicas; clients still reach it")
        }
        false => button("heal", "Reconnect", "Messages pass again"),
    };
    let _infallible = write!(html, "<details id=\"d-links-{}\"><summary>Single links</summary>", own.get());
    for other in others() {
        let checked = if cut.contains(&other) { " checked" } else { "" };
        let _infallible = write!(
            html,
            "<label><input type=\"checkbox\" name=\"peer\" value=\"{}\"{checked}> cut {own} – {other}</label>",
            other.get()
        );
    }
    html.push_str(&button("cut", "Apply", "Cuts the links that are marked, and no others"));
    html.push_str("</details>");
    html
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dashboard::Look;

    fn look(replica: u8, facts: Result<Facts, String>, process: Process) -> ReplicaLook {
        ReplicaLook { replica: ReplicaId::new(replica), address: "127.0.0.1:1".to_owned(), facts, process }
    }

    fn state(replicas: Vec<ReplicaLook>) -> State {
        let mut state = State::default();
        state.look = Look { replicas, ..Look::default() };
        state
    }

    #[test]
    fn what_a_replica_says_cannot_become_markup() {
        let evil = "<script>alert(1)</script>\"'";
        let facts = Facts {
            role: evil.into(),
            last_fault: Some(evil.into()),
            evidence: vec![evil.into()],
            digest: evil.into(),
            ..Facts::default()
        };
        let replicas = vec![look(0, Ok(facts), Process::Unknown), look(1, Err(evil.into()), Process::Stopped)];
        let mut state = state(replicas);
        state.look.summary = evil.into();
        state.look.protocol = evil.into();
        let html = body(&parts(&state, Show { token: Some("t"), store: true }));
        assert!(html.contains("&lt;script&gt;") && !html.contains("<script"), "{html}");
    }

    #[test]
    fn there_are_no_buttons_without_a_token() {
        let running = Process::Running { pid: 7, paused: false, cut: Some(vec![]), lies: None };
        let state = state(vec![look(0, Ok(Facts::default()), running)]);
        let html = body(&parts(&state, Show { token: None, store: true }));
        assert!(!html.contains("<form") && !html.contains("/act"), "{html}");
        let html = body(&parts(&state, Show { token: Some("secret"), store: true }));
        assert!(html.contains("value=\"secret\"") && html.contains("value=\"stop\""), "{html}");
    }

    #[test]
    fn buttons_are_those_that_make_sense() {
        let acts = |process| {
            let html = control(&look(0, Ok(Facts::default()), process), &Look::default(), "t");
            let values = html.split("name=\"act\" value=\"").skip(1);
            values.map(|it| it.split('"').next().unwrap_or_default().to_owned()).collect::<Vec<_>>().join(" ")
        };
        let running = |paused, cut| Process::Running { pid: 7, paused, cut, lies: None };
        assert_eq!(acts(Process::Unknown), "");
        assert_eq!(acts(Process::Stopped), "start");
        assert_eq!(acts(running(false, None)), "stop pause kill");
        assert_eq!(acts(running(false, Some(vec![]))), "stop pause kill isolate cut");
        assert_eq!(acts(running(true, Some(vec![ReplicaId::new(1)]))), "resume kill heal cut");
    }

    #[test]
    fn one_replica_at_a_time_can_be_told_to_lie_and_only_where_lies_are_borne() {
        let running = |cut, lies: Option<&str>| {
            let lies = lies.map(str::to_owned);
            look(0, Ok(Facts::default()), Process::Running { pid: 7, paused: false, cut, lies })
        };
        let buttons = |replica: &ReplicaLook, others: Vec<ReplicaLook>, lies| {
            let cluster = Look { replicas: others, lies, ..Look::default() };
            let html = control(replica, &cluster, "t");
            (html.contains("value=\"lie\""), html.contains("value=\"honest\""), html.contains("<nothing>"))
        };
        let offered = || Lies::Offered(vec![("silent".to_owned(), "says <nothing>".to_owned())]);
        let (honest, liar) = (running(Some(vec![]), None), running(Some(vec![]), Some("silent")));
        assert_eq!(buttons(&honest, vec![], offered()), (true, false, false));
        assert_eq!(buttons(&honest, vec![liar.clone()], offered()), (false, false, false), "another one lies");
        assert_eq!(buttons(&liar, vec![], offered()), (false, true, false));
        assert_eq!(buttons(&running(None, None), vec![], offered()), (false, false, false), "started by hand");
        assert_eq!(buttons(&honest, vec![], Lies::None("nobody bears it".to_owned())), (false, false, false));
        let mut state = state(vec![liar]);
        state.look.lies = Lies::None("nobody <b>bears</b> it".to_owned());
        let html = body(&parts(&state, Show { token: Some("t"), store: true }));
        assert!(html.contains("lies: silent") && html.contains("nobody &lt;b&gt;bears"), "{html}");
    }

    #[test]
    fn the_time_of_day_is_utc() {
        assert_eq!(time_of_day(86_400_000_000_000 + 3_661_000_000_000), "01:01:01");
    }
}
