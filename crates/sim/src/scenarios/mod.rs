//! Named scenarios: the cases that the papers tell, one by one, to look at. Each is a script without luck: the same bytes
//! whenever it runs. `docs/gallery/` holds their pictures, and a test keeps it current.

mod async_tob;
mod hotstuff;
mod hq;
mod naive;
mod pbft;
mod reception;
mod sync_tob;
mod vr;

use crate::checker::Violation;
use crate::cluster::Cluster;
use crate::diagram::{Picture, page, svg};
use crate::script::Scenario;
use crate::trace::Recording;
use quorate_core::machine::Machine;
use quorate_core::protocol::Protocol;

/// A scenario.
#[derive(Clone, Copy, Debug)]
pub struct Named {
    /// Its name on the command line, which begins with the protocol's.
    pub name: &'static str,
    /// The picture's title.
    pub title: &'static str,
    /// What it shows, in a few sentences.
    pub about: &'static str,
    /// Plays it.
    pub play: fn() -> Played,
}

/// What a scenario came to.
#[derive(Clone, Debug)]
pub struct Played {
    /// All that happened.
    pub recording: Recording,
    /// What was violated first, if anything.
    pub violation: Option<Violation>,
    /// When what it is about begins, virtual nanoseconds.
    pub from: u64,
    /// What clients were told, call by call; `None` for no answer. Calls of clients that died are left out.
    pub answers: Vec<Option<String>>,
}

/// Every scenario, in the order in which they are best read.
pub const ALL: &[Named] = &[
    vr::NORMAL_CASE,
    vr::LEADER_CRASH,
    vr::PARTITION,
    vr::RECOVERY,
    vr::LOST_DISK,
    vr::STATE_TRANSFER,
    vr::LEASE_READ,
    pbft::NORMAL_CASE,
    pbft::EQUIVOCATION,
    hotstuff::NORMAL_CASE,
    hotstuff::LEADER_CRASH,
    hotstuff::EQUIVOCATION,
    sync_tob::NORMAL_EPOCH,
    sync_tob::EQUIVOCATION,
    sync_tob::LATE,
    async_tob::NORMAL_CASE,
    async_tob::ONE_DOWN,
    async_tob::FORK,
    hq::NORMAL_CASE,
    hq::CONTENTION,
    hq::RESOLUTION,
    hq::CLIENT_CRASH,
    reception::NORMAL_CASE,
    reception::LOST,
    reception::EQUIVOCATION,
    reception::RECONCILIATION,
    naive::DIVERGENCE,
];

/// The scenario with this name.
pub fn find(name: &str) -> Option<&'static Named> {
    ALL.iter().find(|named| named.name == name)
}

impl Named {
    /// Its picture's heading.
    pub fn picture(&self, played: &Played) -> Picture {
        Picture {
            title: self.title.to_owned(),
            about: self.about.to_owned(),
            command: format!("quorate sim --scenario {} --html {}.html", self.name, self.name),
            violation: played.violation.clone(),
            expected: true,
            from: Some(played.from),
            to: None,
        }
    }
}

/// All files of the gallery: names and contents.
pub fn gallery() -> Vec<(String, String)> {
    let mut files = Vec::new();
    for named in ALL {
        let played = (named.play)();
        let picture = named.picture(&played);
        files.push((format!("{}.html", named.name), page(&played.recording, &picture)));
        files.push((format!("{}.svg", named.name), svg(&played.recording, &picture)));
    }
    files.push(("index.html".to_owned(), index()));
    files
}

fn index() -> String {
    let mut html = include_str!("index.html").to_owned();
    for Named { name, title, about, .. } in ALL {
        html.push_str(&format!(
            "<article><a href=\"{name}.html\"><h2>{title}</h2></a><p>{about}</p>\n\
             <a class=\"picture\" href=\"{name}.html\"><img loading=\"lazy\" src=\"{name}.svg\" alt=\"{title}\"></a>\n\
             <p><code>quorate sim --scenario {name} --html {name}.html</code></p></article>\n"
        ));
    }
    html.push_str("</main></body></html>\n");
    html
}

/// What is left when a scenario has been played.
fn played<P: Protocol, M: Machine>(it: Scenario<P, M>, from: u64, violation: Option<Violation>) -> Played {
    let violation = violation.or_else(|| it.cluster.violation().cloned());
    let answers = answers(&it.cluster);
    Played { recording: it.into_recording(), violation, from, answers }
}

fn answers<P: Protocol, M: Machine>(cluster: &Cluster<P, M>) -> Vec<Option<String>> {
    let answer = |entry: &crate::history::Entry| entry.answer().map(|answer| crate::trace::words(&answer.reply));
    cluster.history().entries().iter().filter(|entry| !entry.abandoned).map(answer).collect()
}
