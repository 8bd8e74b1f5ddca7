//! PBFT: the normal case, and what becomes of a primary that says two things.

use super::{Named, Played, played};
use crate::adversary::Misdeed;
use crate::protocols::Simulated;
use crate::script::Scenario;
use quorate_core::time::Duration;
use quorate_machines::counter::Counter;
use quorate_protocols::pbft::{Config, Pbft};

type Story = Scenario<Pbft, Counter>;

/// Four replicas and a client, whose session is open and who has counted to 1, when everybody has said where it is.
fn begin(config: Config) -> Story {
    let mut it = Story::new(5, 4, 1, config, Counter::default);
    it.apply(0, "set 1");
    it.settle();
    it.run_ms(1_000);
    it
}

pub(super) const NORMAL_CASE: Named = Named {
    name: "pbft-normal-case",
    title: "PBFT: the normal case",
    about: "The primary gives the request a place in the order; three of the four must have said that they accept nothing else \
            there (PREPARE), and three that they can prove it (COMMIT). Then everybody executes and answers, and the client \
            believes what two of them say: one of two is honest (Castro and Liskov, §4.2).",
    play: normal_case,
};

fn normal_case() -> Played {
    let mut it = begin(Config::default());
    let from = it.cluster.now();
    it.say("C0 signs its request and sends it to the primary, R0, which proposes it as entry 3.");
    it.apply(0, "add 1");
    it.settle();
    it.say("One replica has answered in full, the others with a digest. All vote from their disks: what they say, they know.");
    it.run_ms(8);
    played(it, from, None)
}

pub(super) const EQUIVOCATION: Named = Named {
    name: "pbft-equivocating-primary",
    title: "PBFT: a primary that says two things is replaced",
    about: "R0 proposes the request to R1, and an empty entry in its place to R2 and R3. Neither can be executed: what R2 and R3 \
            have prepared nobody else votes for, and what R1 was given lacks votes. The client asks everybody, nobody sees its \
            request executed, and R1 takes over with what can be proven (Castro and Liskov, §4.4). The request is executed once.",
    play: equivocation,
};

fn equivocation() -> Played {
    // So patient that nobody repeats itself in the picture, and so impatient that it is short.
    let (resend, view_change) = (Duration::from_secs(5), Duration::from_millis(60));
    let mut it = begin(Config { resend, resend_max: resend, view_change, ..Config::default() });
    let victims = [it.replica(2), it.replica(3)];
    it.lies(0, Misdeed::TwoWords(victims.into()), Pbft::lies());
    let from = it.cluster.now();
    it.say("R0, the primary, lies: it proposes the request to R1, and entry 3 without it to R2 and R3.");
    it.apply(0, "add 1");
    it.run_ms(30);
    it.say("R0 votes for both. Two of the others hold the empty entry prepared, and no quorum can commit either.");
    it.run_ms(150);
    it.say("The client has asked everybody. The others have waited long enough for its request, and leave the view.");
    it.settle();
    it.run_ms(5);
    it.say("R1 leads view 1. Entry 3 is what was prepared; the request follows it, and is applied once.");
    it.run_ms(10);
    played(it, from, None)
}
