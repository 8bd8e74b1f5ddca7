//! What of a recording is drawn: a window of time, the messages and marks in it, and how every replica's line looks.

use super::{ARROWS_LIMIT, ARROWS_MAX, Picture, escaped, millis};
use crate::client::whose;
use crate::trace::{Happened, Recording, Travel, What, name, note, status};
use quorate_core::ids::Peer;
use quorate_core::outbox::Note;
use quorate_core::protocol::Status;
use std::collections::{BTreeMap, BTreeSet};

/// A process's line: clients first, then replicas.
pub type Lane = usize;

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It arrived at this moment.
    Arrived(u64),
    /// It came to a process that was not there any more.
    Missed(u64),
    /// It was lost by chance.
    Lost,
    /// Its link was cut.
    Cut,
    /// A scenario keeps it.
    Held,
    /// The picture ends before it arrives.
    Flying,
}

/// One message.
#[derive(Clone, Debug)]
pub struct Arrow {
    /// The event of its sending.
    pub event: usize,
    /// From which line.
    pub from: Lane,
    /// To which line.
    pub to: Lane,
    /// When it left.
    pub left: u64,
    /// What became of it.
    pub end: End,
    /// Its name's place in [`Scene::kinds`].
    pub kind: usize,
    /// What stands beside its name.
    pub gist: String,
    /// What it says, in full.
    pub tip: String,
    /// Was it kept back for a while?
    pub held: bool,
    /// Is it the second arrival of a message?
    pub again: bool,
}

/// How a mark looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Glyph {
    /// A process dies.
    Crash,
    /// A process starts.
    Start,
    /// What was appended at the given moment is safe.
    Synced(u64),
    /// A batch was applied.
    Executed,
    /// Something is known to be committed.
    Committed,
    /// A note worth words.
    Noted,
    /// A fault strikes.
    Fault,
    /// An adversary lies.
    Lie,
    /// A client calls.
    Called,
    /// A client is answered.
    Told,
    /// A client is told an excuse.
    Excused,
}

/// Something at one moment on one line.
#[derive(Clone, Debug)]
pub struct Mark {
    /// The event.
    pub event: usize,
    /// On which line.
    pub lane: Lane,
    /// When.
    pub at: u64,
    /// How it looks.
    pub glyph: Glyph,
    /// Words beside it, if there is room.
    pub text: String,
    /// What it means, in full.
    pub tip: String,
}

/// How a replica's line looks for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    /// It runs.
    Up {
        /// In which view.
        view: u64,
        /// Doing what.
        role: String,
    },
    /// It is down.
    Down,
    /// It stands still.
    Paused,
}

/// A part of a replica's line.
#[derive(Clone, Debug)]
pub struct Band {
    /// Which line.
    pub lane: Lane,
    /// From when.
    pub from: u64,
    /// To when.
    pub to: u64,
    /// How it looks.
    pub look: Look,
}

/// What a scenario or the nemesis says, above all lines.
#[derive(Clone, Debug)]
pub struct Caption {
    /// The event.
    pub event: usize,
    /// When.
    pub at: u64,
    /// What.
    pub text: String,
    /// Is it a scenario's, hence part of its story?
    pub told: bool,
}

/// What is drawn.
#[derive(Debug)]
pub struct Scene {
    /// From when.
    pub from: u64,
    /// To when.
    pub to: u64,
    /// The clients that have a line: those to which something happens.
    pub clients: Vec<usize>,
    /// How many replicas have a line.
    pub replicas: usize,
    /// Messages.
    pub arrows: Vec<Arrow>,
    /// Marks.
    pub marks: Vec<Mark>,
    /// Replicas' lines.
    pub bands: Vec<Band>,
    /// Names of messages, in the order of their first appearance, and how often each is drawn.
    pub kinds: Vec<(&'static str, usize)>,
    /// Every replica's statuses: when, which, what. The first of each replica is what it was when the picture begins.
    pub statuses: Vec<(u64, usize, Option<Status>)>,
    /// Captions.
    pub captions: Vec<Caption>,
    /// The violation's moment and event, if it is in the picture.
    pub violated: Option<(u64, usize)>,
    /// What is not drawn, in words; empty if everything is.
    pub left_out: String,
}

impl Scene {
    /// Chooses what to draw.
    pub fn new(recording: &Recording, picture: &Picture) -> Self {
        let all = arrows(recording);
        let (from, to) = window(recording, &all, picture);
        let inside = |at: u64| (from..=to).contains(&at);
        let touches = |arrow: &&Arrow| inside(arrow.left) || arrow.arrival().is_some_and(inside);
        let left_out = left_out(recording, &all, (from, to));
        let mut kinds: Vec<(&'static str, usize)> = Vec::new();
        let mut drawn = Vec::new();
        for arrow in all.iter().filter(touches).take(ARROWS_LIMIT) {
            let label = label(recording, arrow.event);
            let kind = kinds.iter().position(|(name, _)| *name == label).unwrap_or_else(|| {
                kinds.push((label, 0));
                kinds.len() - 1
            });
            if let Some((_, count)) = kinds.get_mut(kind) {
                *count += 1;
            }
            let end = match arrow.end {
                End::Arrived(at) | End::Missed(at) if at > to => End::Flying,
                end => end,
            };
            drawn.push(Arrow { kind, end, ..arrow.clone() });
        }
        let shown = |event: &(usize, &Happened)| inside(event.1.at);
        let events = || recording.events.iter().enumerate().filter(shown);
        let violated = events().find(|(_, event)| matches!(event.what, What::Violated { .. }));
        let mut marks = marks(recording);
        marks.retain(|mark| inside(mark.at));
        let mut bands = bands(recording, (from, to));
        let clients = busy(recording, &drawn, &marks);
        let line = |lane: Lane| match lane.checked_sub(recording.clients) {
            Some(replica) => clients.len() + replica,
            None => clients.iter().position(|client| *client == lane).unwrap_or(0),
        };
        for arrow in &mut drawn {
            (arrow.from, arrow.to) = (line(arrow.from), line(arrow.to));
        }
        marks.iter_mut().for_each(|mark| mark.lane = line(mark.lane));
        bands.iter_mut().for_each(|band| band.lane = line(band.lane));
        Self {
            from,
            to,
            clients,
            replicas: recording.replicas,
            arrows: drawn,
            marks,
            bands,
            kinds,
            statuses: statuses(recording, (from, to)),
            captions: events().filter_map(|(index, event)| caption(index, event)).collect(),
            violated: violated.map(|(index, event)| (event.at, index)),
            left_out,
        }
    }

    /// Every moment in which something is drawn.
    pub fn moments(&self) -> Vec<u64> {
        let arrows = self.arrows.iter().flat_map(|arrow| [Some(arrow.left), arrow.arrival()]).flatten();
        let marks = self.marks.iter().map(|mark| mark.at);
        let bands = self.bands.iter().flat_map(|band| [band.from, band.to]);
        let captions = self.captions.iter().map(|caption| caption.at);
        let all = arrows.chain(marks).chain(bands).chain(captions).chain(self.violated.map(|(at, _)| at));
        all.filter(|at| (self.from..=self.to).contains(at)).collect()
    }

    /// The median time that a message takes, nanoseconds.
    pub fn flight(&self) -> u64 {
        let taken = |arrow: &Arrow| Some(arrow.arrival().filter(|_| !arrow.held && !arrow.again)? - arrow.left);
        let mut flights: Vec<u64> = self.arrows.iter().filter_map(taken).collect();
        flights.sort_unstable();
        flights.get(flights.len() / 2).copied().unwrap_or(1_000_000)
    }
}

impl Arrow {
    /// When it came to its receiver, alive or not.
    pub fn arrival(&self) -> Option<u64> {
        match self.end {
            End::Arrived(at) | End::Missed(at) => Some(at),
            End::Lost | End::Cut | End::Held | End::Flying => None,
        }
    }
}

/// The clients that send, receive or are told something.
fn busy(recording: &Recording, arrows: &[Arrow], marks: &[Mark]) -> Vec<usize> {
    let lanes = arrows.iter().flat_map(|arrow| [arrow.from, arrow.to]).chain(marks.iter().map(|mark| mark.lane));
    let clients: BTreeSet<usize> = lanes.filter(|lane| *lane < recording.clients).collect();
    clients.into_iter().collect()
}

/// The line of a process, if all clients had one.
fn lane(recording: &Recording, peer: Peer) -> Lane {
    match peer {
        Peer::Client(id) => whose(id).map_or(0, |(client, _)| client),
        Peer::Replica(id) => recording.clients + id.index(),
    }
}

fn label(recording: &Recording, event: usize) -> &'static str {
    match recording.events.get(event).map(|event| &event.what) {
        Some(What::Sent { travel, .. }) => travel.label,
        _ => "",
    }
}

/// All messages whose sending was kept.
fn arrows(recording: &Recording) -> Vec<Arrow> {
    let mut arrows: Vec<Arrow> = Vec::new();
    let mut by_id: BTreeMap<u64, usize> = BTreeMap::new();
    for (event, Happened { at, what }) in recording.events.iter().enumerate() {
        let mut ends = |travel: &Travel, end: End| {
            let Some(arrow) = by_id.get(&travel.id).and_then(|index| arrows.get_mut(*index)) else { return };
            if arrow.arrival().is_some() {
                let again = Arrow { end, again: true, ..arrow.clone() };
                arrows.push(again);
            } else {
                arrow.end = end;
                arrow.held |= end == End::Held;
            }
        };
        match what {
            What::Sent { travel, content } => {
                by_id.insert(travel.id, arrows.len());
                arrows.push(arrow(recording, event, *at, travel, content));
            }
            What::Arrived(travel) => ends(travel, End::Arrived(*at)),
            What::Missed(travel) => ends(travel, End::Missed(*at)),
            What::Lost(travel) => ends(travel, End::Lost),
            What::Cut(travel) => ends(travel, End::Cut),
            What::Held(travel) => ends(travel, End::Held),
            What::Released(travel) => ends(travel, End::Flying),
            _ => {}
        }
    }
    arrows
}

fn arrow(recording: &Recording, event: usize, left: u64, travel: &Travel, content: &str) -> Arrow {
    let (gist, rest) = content.split_once('\n').unwrap_or(("", content));
    let (from, to) = (name(travel.from), name(travel.to));
    let rest = if rest.is_empty() { String::new() } else { format!("\n{rest}") };
    let tip = format!("{from} → {to}   {}   {gist}{rest}", travel.label);
    let (from, to) = (lane(recording, travel.from), lane(recording, travel.to));
    let (end, gist) = (End::Flying, gist.to_owned());
    Arrow { event, from, to, left, end, kind: 0, gist, tip, held: false, again: false }
}

/// From when to when to draw.
fn window(recording: &Recording, arrows: &[Arrow], picture: &Picture) -> (u64, u64) {
    let first = recording.events.first().map_or(0, |event| event.at);
    let last = recording.events.last().map_or(0, |event| event.at);
    if picture.from.is_some() || picture.to.is_some() {
        let from = picture.from.unwrap_or(first).clamp(first, last);
        let to = picture.to.unwrap_or(last).clamp(from, last);
        let too_late = arrows.iter().filter(|arrow| arrow.left >= from).nth(ARROWS_LIMIT);
        return (from, to.min(too_late.map_or(last, |arrow| arrow.left)));
    }
    if arrows.len() <= ARROWS_MAX {
        return (first, last);
    }
    // Around the violation; or around the first thing that is out of the ordinary; or the beginning.
    let is_change = |event: &&Happened| matches!(event.what, What::Noted { note: Note::ViewChange(_), .. });
    let change = recording.events.iter().find(is_change).map(|event| event.at);
    let Some(middle) = picture.violation.as_ref().map(|violation| violation.at).or(change) else {
        let end = arrows.get(ARROWS_MAX).map_or(last, |arrow| arrow.left);
        return (first, end);
    };
    let before = arrows.partition_point(|arrow| arrow.left <= middle);
    let share = if picture.violation.is_some() { 7 } else { 3 }; // what led to a violation; what a change leads to
    let from =
        before.checked_sub(ARROWS_MAX * share / 8).and_then(|index| arrows.get(index)).map_or(first, |it| it.left);
    let to = arrows.get(before + ARROWS_MAX * (8 - share) / 8).map_or(last, |arrow| arrow.left);
    (from, to.max(middle))
}

fn left_out(recording: &Recording, arrows: &[Arrow], (from, to): (u64, u64)) -> String {
    let before = arrows.iter().filter(|arrow| arrow.left < from && arrow.arrival().is_none_or(|at| at < from)).count();
    let after = arrows.iter().filter(|arrow| arrow.left > to).count();
    let mut parts = Vec::new();
    let last = recording.events.last().map_or(0, |event| event.at);
    if before > 0 {
        parts.push(format!("{before} messages before {}", millis(from)));
    }
    if after > 0 {
        parts.push(format!("{after} messages after {} (the run ends at {})", millis(to), millis(last)));
    }
    if recording.dropped > 0 {
        parts.push(format!("the {} oldest events, which were not kept", recording.dropped));
    }
    if parts.is_empty() { String::new() } else { format!("Not drawn: {}.", parts.join(", ")) }
}

/// All marks.
fn marks(recording: &Recording) -> Vec<Mark> {
    let mut marks = Vec::new();
    let mut appended: BTreeMap<usize, Vec<(u64, u64)>> = BTreeMap::new(); // by replica: seq, when
    for (event, Happened { at, what }) in recording.events.iter().enumerate() {
        if let What::Appended { replica, seq, .. } = what {
            appended.entry(*replica).or_default().push((seq.get(), *at));
            continue;
        }
        let Some((who, glyph, text)) = mark(what) else { continue };
        let lane = match who {
            Who::Client(client) => client,
            Who::Replica(replica) => recording.clients + replica,
        };
        let glyph = match (what, glyph) {
            (What::Synced { replica, seq }, _) => {
                let written = appended.entry(*replica).or_default();
                let first = written.first().map_or(*at, |(_, at)| *at);
                written.retain(|(it, _)| *it > seq.get());
                Glyph::Synced(first)
            }
            (_, glyph) => glyph,
        };
        if let What::Crashed { replica, .. } = what {
            appended.remove(replica);
        }
        let tip = format!("{}   {}", millis(*at), crate::trace::text(what, &BTreeMap::new()).unwrap_or_default());
        marks.push(Mark { event, lane, at: *at, glyph, text, tip });
    }
    marks
}

enum Who {
    Client(usize),
    Replica(usize),
}

/// How an event is marked on a line; `None` for one that is drawn otherwise.
fn mark(what: &What) -> Option<(Who, Glyph, String)> {
    use Who::{Client, Replica};
    let none = String::new;
    Some(match what {
        What::Started { replica, life: 0 } => (Replica(*replica), Glyph::Start, none()),
        What::Started { replica, .. } => (Replica(*replica), Glyph::Start, "restarts".to_owned()),
        What::Crashed { replica, .. } => (Replica(*replica), Glyph::Crash, "crashes".to_owned()),
        What::Refused { replica, .. } => (Replica(*replica), Glyph::Crash, "does not start".to_owned()),
        What::Halted { replica, .. } => (Replica(*replica), Glyph::Crash, "halts".to_owned()),
        What::Failed { replica, what } => (Replica(*replica), Glyph::Noted, what.clone()),
        What::Synced { replica, .. } => (Replica(*replica), Glyph::Synced(0), none()),
        What::Executed { replica, op, applied, .. } => {
            let applied: Vec<String> = applied.iter().map(crate::trace::Applied::text).collect();
            (Replica(*replica), Glyph::Executed, format!("{op}: {}", applied.join(", ")))
        }
        What::Installed { replica, op, .. } => {
            (Replica(*replica), Glyph::Executed, format!("installs checkpoint {op}"))
        }
        What::Noted { replica, note: it } => match it {
            Note::Committed(_) => (Replica(*replica), Glyph::Committed, none()),
            Note::ViewStarted { .. } => return None, // the line's colour says it
            Note::Fetched(op) => (Replica(*replica), Glyph::Noted, format!("fetched {op}")),
            Note::Repaired(op) => (Replica(*replica), Glyph::Noted, format!("repaired {op}")),
            Note::Checkpointed(op) => (Replica(*replica), Glyph::Noted, format!("checkpoint {op}")),
            it => (Replica(*replica), Glyph::Noted, note(it)),
        },
        What::Lied { replica, lie } => (Replica(*replica), Glyph::Lie, lie.clone()),
        What::Fault { replica: Some(replica), fault, .. } => (Replica(*replica), Glyph::Fault, fault.to_string()),
        What::Called { client, asked, .. } => (Client(*client), Glyph::Called, asked.clone()),
        What::Told { client, told, answered: true, .. } => (Client(*client), Glyph::Told, format!("⇒ {told}")),
        What::Told { client, told, .. } => (Client(*client), Glyph::Excused, format!("⇒ {told}")),
        What::ClientDied(client) => (Client(*client), Glyph::Crash, "dies".to_owned()),
        _ => return None,
    })
}

/// Every replica's line, part by part.
fn bands(recording: &Recording, (from, to): (u64, u64)) -> Vec<Band> {
    let mut bands = Vec::new();
    let mut now: Vec<(u64, Look)> = vec![(0, Look::Down); recording.replicas];
    let mut before_pause: Vec<Option<Look>> = vec![None; recording.replicas];
    for Happened { at, what } in &recording.events {
        let (replica, look) = match what {
            What::Stated { replica, status } => {
                let look = Look::Up { view: status.view.get(), role: status.role.clone() };
                (*replica, look)
            }
            What::Crashed { replica, .. } => (*replica, Look::Down),
            What::Paused(replica) => {
                if let (Some(saved), Some((_, look))) = (before_pause.get_mut(*replica), now.get(*replica)) {
                    *saved = Some(look.clone());
                }
                (*replica, Look::Paused)
            }
            What::Resumed(replica) => {
                let saved = before_pause.get_mut(*replica).and_then(Option::take);
                (*replica, saved.unwrap_or(Look::Down))
            }
            _ => continue,
        };
        let Some((since, current)) = now.get_mut(replica) else { continue };
        if *current == look {
            continue;
        }
        if *since == 0 {
            (*since, *current) = (*at, look); // it had not started yet
            continue;
        }
        let band = Band { lane: recording.clients + replica, from: *since, to: *at, look: current.clone() };
        bands.push(band);
        (*since, *current) = (*at, look);
    }
    for (replica, (since, look)) in now.into_iter().enumerate() {
        bands.push(Band { lane: recording.clients + replica, from: since, to: u64::MAX, look });
    }
    let clipped = bands.into_iter().map(|band| Band { from: band.from.max(from), to: band.to.min(to), ..band });
    clipped.filter(|band| band.from < band.to).collect()
}

/// Statuses for the table that follows the cursor.
fn statuses(recording: &Recording, (from, to): (u64, u64)) -> Vec<(u64, usize, Option<Status>)> {
    let mut first: Vec<(u64, usize, Option<Status>)> = (0..recording.replicas).map(|it| (from, it, None)).collect();
    let mut later = Vec::new();
    for Happened { at, what } in recording.events.iter().filter(|event| event.at <= to) {
        let (replica, status) = match what {
            What::Stated { replica, status } => (*replica, Some(status.clone())),
            What::Crashed { replica, .. } => (*replica, None),
            _ => continue,
        };
        match first.get_mut(replica) {
            Some(known) if *at <= from => known.2 = status,
            _ => later.push((*at, replica, status)),
        }
    }
    first.extend(later);
    first
}

fn caption(event: usize, happened: &Happened) -> Option<Caption> {
    let (text, told) = match &happened.what {
        What::Said(text) => (text.clone(), true),
        What::Healed(text) => (text.clone(), false),
        What::Fault { fault, replica: None, text } => (format!("{fault}, {text}"), false),
        _ => return None,
    };
    Some(Caption { event, at: happened.at, text, told })
}

/// A status as cells of a table.
pub fn cells(replica: usize, it: Option<&Status>) -> String {
    let Some(it) = it else {
        return format!("<tr class=\"down\"><th>R{replica}</th><td>down</td><td colspan=\"5\"></td></tr>");
    };
    let Status { role, view, op, committed, executed, checkpoint, .. } = it;
    let (role, tip) = (escaped(role), escaped(&status(it)));
    format!(
        "<tr title=\"{tip}\"><th>R{replica}</th><td>{role}</td><td class=\"view v{}\">{view}</td><td>{op}</td>\
         <td>{committed}</td><td>{executed}</td><td>{checkpoint}</td></tr>",
        view.get() % super::draw::VIEW_COLOURS
    )
}
