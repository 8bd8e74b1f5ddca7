//! HotStuff: the chain in the normal case, and how it goes on without its leader.

use super::{Named, Played, played};
use crate::adversary::Misdeed;
use crate::protocols::Simulated;
use crate::script::Scenario;
use quorate_core::time::Duration;
use quorate_machines::counter::Counter;
use quorate_protocols::hotstuff::{Config, HotStuff};

type Story = Scenario<HotStuff, Counter>;

/// Four replicas and a client, whose session is open and who has counted to 1, when the chain has come to rest.
fn begin(config: Config) -> Story {
    let mut it = Story::new(5, 4, 1, config, Counter::default);
    it.apply(0, "set 1");
    it.settle();
    it.run_ms(1_000);
    it
}

/// So patient that nobody repeats himself in the picture, and so impatient that it is short.
fn impatient() -> Config {
    let resend = Duration::from_secs(5);
    Config { resend, resend_max: resend, timeout: Duration::from_millis(60), ..Config::default() }
}

pub(super) const NORMAL_CASE: Named = Named {
    name: "hotstuff-normal-case",
    title: "HotStuff: three blocks on top of each other commit the first",
    about: "The leader proposes a block with the request; everybody votes to the leader, who makes a certificate of three votes and \
            proposes the next block with it. Each block carries the certificate of the one before: when three follow each other \
            in consecutive views, the first of them is committed (Yin et al., PODC 2019, §5). The empty blocks are there for the \
            request's sake.",
    play: normal_case,
};

fn normal_case() -> Played {
    let mut it = begin(Config::default());
    let from = it.cluster.now();
    it.say(
        "C0 signs its request and sends it to the leader, who proposes a block. Votes leave when they are on the disk.",
    );
    it.apply(0, "add 1");
    it.settle();
    it.say("The request is committed and answered. When nothing more is asked, the leader stops proposing.");
    it.run_ms(20);
    played(it, from, None)
}

pub(super) const LEADER_CRASH: Named = Named {
    name: "hotstuff-leader-crash",
    title: "HotStuff: the leader dies, and the next one goes on with the chain",
    about: "Nobody hears of the client's request any more. Its patience ends first: it asks everybody. Then that of the replicas: they \
            promise to vote no more in the leader's term and say which certificate is their highest (Timeout). Three of these are \
            a certificate, too; the next leader builds on the highest block that is certified, and nothing committed is lost.",
    play: leader_crash,
};

fn leader_crash() -> Played {
    let mut it = begin(impatient());
    let from = it.cluster.now();
    let leader = leader(&it);
    it.say("The leader dies, and C0 asks.");
    it.crash(leader);
    it.apply(0, "add 1");
    it.settle();
    it.say("The next leader has answered. The old one comes back, and gets the blocks that it has missed.");
    it.restart(leader);
    it.run_ms(60);
    it.apply(0, "add 1");
    it.settle();
    it.run_ms(10);
    played(it, from, None)
}

pub(super) const EQUIVOCATION: Named = Named {
    name: "hotstuff-equivocating-leader",
    title: "HotStuff: a leader that proposes two blocks in one view",
    about: "The leader sends one block to one replica, and another one in its place to the two others. Each votes once in a view, the \
            leader for its first block: two votes for each, and no certificate for any. The replicas' patience ends, three promises \
            to leave the term are a certificate, and the next leader goes on from the last block that has one. Whoever sees both \
            proposals has proof against the leader.",
    play: equivocation,
};

fn equivocation() -> Played {
    let mut it = begin(impatient());
    let from = it.cluster.now();
    let leader = leader(&it);
    let victims: Vec<_> = (0..4).filter(|other| *other != leader).skip(1).map(|other| it.replica(other)).collect();
    it.lies(leader, Misdeed::TwoWords(victims.into_iter().collect()), HotStuff::lies());
    it.say("The leader lies: one replica gets the block with the request, the two others get another block for the same view.");
    it.apply(0, "add 1");
    it.settle();
    it.say("The request is executed once, everywhere.");
    it.run_ms(20);
    played(it, from, None)
}

/// Who leads.
fn leader(it: &Story) -> usize {
    (0..4).find(|replica| it.status(*replica).is_some_and(|status| status.role.starts_with("primary"))).unwrap_or(0)
}
