//! Asynchronous total-order broadcast: an epoch, one without a replica that is down, and a lane that forks.

use super::{Named, Played, played};
use crate::adversary::Misdeed;
use crate::protocols::Simulated;
use crate::script::Scenario;
use quorate_core::time::Duration;
use quorate_machines::counter::Counter;
use quorate_protocols::async_tob::{AsyncTob, Config};

type Story = Scenario<AsyncTob, Counter>;

/// Four replicas and a client, whose session is open and who has counted to 1, when everybody has said where it is.
fn begin() -> Story {
    // So patient that nobody repeats itself in the picture.
    let resend = Duration::from_secs(5);
    let config = Config { resend, resend_busy_max: resend, resend_max: resend, ..Config::default() };
    let mut it = Story::new(5, 4, 1, config, Counter::default);
    it.apply(0, "set 1");
    it.settle();
    it.run_ms(1_000);
    it
}

pub(super) const NORMAL_CASE: Named = Named {
    name: "async-tob-normal-case",
    title: "Asynchronous total-order broadcast: an epoch",
    about: "The request goes into the lane of one replica. Three of the four have the batch on disk: it is certified. Everybody \
            proposes how far it knows the lanes to be certified, and shows that three have seen its proposal. One binary \
            agreement for each proposal says whether it counts: three echoes, and no coin. The union of what counts is executed. \
            No step waits for a time.",
    play: normal_case,
};

fn normal_case() -> Played {
    let mut it = begin();
    let from = it.cluster.now();
    it.say("C0 signs its request and sends it to one replica, which puts it into its lane.");
    it.apply(0, "add 1");
    it.settle();
    it.say(
        "The epoch is committed where all four agreements are decided. Two equal answers are one of an honest replica.",
    );
    it.run_ms(8);
    played(it, from, None)
}

pub(super) const ONE_DOWN: Named = Named {
    name: "async-tob-one-down",
    title: "Asynchronous total-order broadcast: an epoch without one that is down",
    about: "R3 is down. Nobody waits for it and nobody suspects it: when three proposals are agreed to count, the others wish \
            that R3's does not, and one more round of agreement, whose coin is fixed, says so. The request is executed, and \
            R3 fetches what it has missed when it is back.",
    play: one_down,
};

fn one_down() -> Played {
    let mut it = begin();
    it.crash(3);
    let from = it.cluster.now();
    it.say("R3 is down. C0 asks for 1 to be added.");
    it.apply(0, "add 1");
    it.settle();
    it.say("Three proposals count, R3's does not. No timeout has passed.");
    it.run_ms(4);
    it.say("R3 comes back, says where it is, and asks what was decided.");
    it.restart(3);
    it.run_ms(12);
    played(it, from, None)
}

pub(super) const FORK: Named = Named {
    name: "async-tob-fork",
    title: "Asynchronous total-order broadcast: a lane that forks",
    about: "The replica that was given the request lies: it sends one batch to one of the others, and another batch of the same \
            height to two. Everybody acknowledges one batch at a height, so neither gets a certificate, and the lane stands \
            still. The client asks everybody, and the request is ordered in the lanes of the others, once.",
    play: fork,
};

fn fork() -> Played {
    let mut it = begin();
    let victims = [it.replica(2), it.replica(3)];
    it.lies(0, Misdeed::TwoWords(victims.into()), AsyncTob::lies());
    let from = it.cluster.now();
    it.say("R0 lies: R1 gets the batch with the request, R2 and R3 get one without it.");
    it.apply(0, "add 1");
    it.run_ms(30);
    it.say("R0's batch has two acknowledgements, the other one has two as well. A certificate takes three.");
    it.settle();
    it.say("The client has asked everybody: the request was in the lanes of the others, and was executed once.");
    it.run_ms(8);
    played(it, from, None)
}
