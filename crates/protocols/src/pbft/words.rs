//! What messages say, in words, for pictures and traces: see [`quorate_core::protocol::Protocol::content`].

use super::message::{Content, Message, Proposal, Told};
use quorate_core::crypto::Digest;
use quorate_core::ids::{OpNumber, View};
use quorate_core::sessions::{Body, Ruling};

/// Puts the bytes of an operation, a query or an answer into words.
type Words<'a> = &'a dyn Fn(&[u8]) -> String;

impl Message {
    /// In the first line what stands beside the message's name, in the second line the rest.
    pub(super) fn content(&self, words: Words<'_>) -> String {
        match self {
            Message::Request(group) => {
                let it = group.statement();
                let bodies: Vec<String> = it.requests.iter().map(|(_, body)| body.text(words)).collect();
                let numbers: Vec<String> = it.requests.iter().map(|(number, _)| number.to_string()).collect();
                format!("{}\nsession {}, request {}, signed", bodies.join(", "), it.session, numbers.join(", "))
            }
            Message::Reply(it) | Message::Tentative(it) => {
                let rulings: Vec<String> = it.rulings.iter().map(|(_, told)| ruling(told, words)).collect();
                format!("{}\nentry {}, session {}, in view {}", rulings.join(", "), it.op, it.session, it.view)
            }
            Message::Busy { view } => format!("\nmy queue is full, in view {view}"),
            Message::Read { id, consistency, query, .. } => format!("{}\nread {id}, {consistency:?}", words(query)),
            Message::ReadReply { view, id, op, answer } => {
                let answer = match answer {
                    Told::Full(bytes) => words(bytes),
                    Told::Digest(digest) => digest.short(),
                };
                format!("{answer}\nread {id}, as of entry {op}, in view {view}")
            }
            Message::PrePrepare { vote, proposal } => {
                let (it, what) = (vote.statement(), proposal.text(words));
                format!("{}: {what}\nthis is entry {} of view {}: {}", it.op, it.op, it.view, short(it.digest))
            }
            Message::Prepare(vote) => {
                let it = vote.statement();
                vote_text(it.op, it.view, it.digest, "I have it, and accept nothing else there")
            }
            Message::Commit(vote) => {
                let it = vote.statement();
                vote_text(it.op, it.view, it.digest, "a quorum has it, and I can prove it")
            }
            Message::Checkpoint(vote) => {
                format!("{}\nI have executed everything up to it", vote.statement().op)
            }
            Message::State(vote) => format!("{}\nI have this state on my disk", vote.statement().checkpoint.op),
            Message::ViewChange(change) => {
                let it = change.statement();
                let prepared = ops(it.prepared.iter().map(|it| it.statement().op));
                format!("{}\nto view {}: stable up to {}, prepared: {prepared}", it.view, it.view, it.low())
            }
            Message::NewView(start) => {
                let it = start.statement();
                let from = listed(it.changes.iter().map(|change| change.by().to_string()));
                let begins = ops(it.proposals.iter().map(|vote| vote.statement().op));
                format!("{}\nview {} starts, as {from} have said: it proposes {begins}", it.view, it.view)
            }
            Message::Status(place) => {
                let state = if place.active { "in" } else { "changing to" };
                format!("{}\n{state} view {}, stable up to {}", place.committed, place.view, place.stable)
            }
            Message::GetCommitted { after } => format!("after {after}\n"),
            Message::Committed { certificate, proposal } => {
                let it = certificate.statement();
                format!("{}: {}\ncommitted in view {}, with proof", it.op, proposal.text(words), it.view)
            }
            Message::Stable(certificate) => {
                format!("{}\nthe log is stable up to it, with proof", certificate.statement().op)
            }
            Message::StateStable(certificate) => {
                format!("{}\na quorum has this state, with proof", certificate.statement().checkpoint.op)
            }
            Message::GetProposals { wanted } => {
                format!("{}\nwhat do their digests stand for?", ops(wanted.iter().map(|(op, _)| *op)))
            }
            Message::Proposal { op, proposal } => format!("{op}: {}\n", proposal.text(words)),
            Message::GetBeyond { until } => format!("{until}\nmake the log stable there, so that my silence ends"),
            Message::GetBound { .. } => "\nhow far may my former self have voted?".to_owned(),
            Message::Bound { view, stable, .. } => {
                let stable = stable.as_ref().map_or(OpNumber::ZERO, |stable| stable.statement().op);
                format!("{stable}\nmy last stable checkpoint, in view {view}")
            }
        }
    }
}

impl Proposal {
    fn text(&self, words: Words<'_>) -> String {
        let content = self.content();
        let Content::Orders(orders) = &*content else { return "nothing, to fill a gap".to_owned() };
        let tick = orders.tick.then(|| "tick".to_owned());
        let bodies = orders.requests().map(|(_, _, body): (_, _, &Body)| body.text(words));
        let all: Vec<String> = tick.into_iter().chain(bodies).collect();
        if all.is_empty() { "no requests".to_owned() } else { all.join(", ") }
    }
}

fn ruling(told: &Told<Ruling>, words: Words<'_>) -> String {
    match told {
        Told::Full(ruling) => ruling.text(words),
        Told::Digest(digest) => format!("digest {}", short(*digest)),
    }
}

fn vote_text(op: OpNumber, view: View, digest: Digest, what: &str) -> String {
    format!("{op}\nentry {op} of view {view} is {}: {what}", short(digest))
}

/// As many digits as tell the proposals of one picture apart.
fn short(digest: Digest) -> String {
    digest.short().chars().take(6).collect()
}

fn ops(ops: impl Iterator<Item = OpNumber>) -> String {
    listed(ops.map(|op| op.to_string()))
}

fn listed(words: impl Iterator<Item = String>) -> String {
    let words: Vec<String> = words.collect();
    if words.is_empty() { "nothing".to_owned() } else { words.join(", ") }
}
