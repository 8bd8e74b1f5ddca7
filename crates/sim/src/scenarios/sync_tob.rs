//! Synchronous total-order broadcast: an epoch, a leader that says two things, and a replica that is late.

use super::{Named, Played, played};
use crate::adversary::Misdeed;
use crate::clock::MILLI;
use crate::protocols::Simulated;
use crate::script::Scenario;
use quorate_core::time::Duration;
use quorate_machines::counter::Counter;
use quorate_protocols::sync_tob::{Config, SyncTob};

type Story = Scenario<SyncTob, Counter>;

/// So short that a broadcast fits into a picture: (f + 1) R is 24 ms with three replicas.
fn config() -> Config {
    Config {
        delta: Duration::from_millis(10),
        epsilon: Duration::from_millis(2),
        epoch: Duration::from_millis(8),
        cast_pause: Duration::from_millis(1),
        ..Config::default()
    }
}

/// Three replicas and a client, whose session is open and who has counted to 1, when everybody has said where it is.
fn begin() -> Story {
    let mut it = Story::new(5, 3, 1, config(), Counter::default);
    it.apply(0, "set 1");
    it.settle();
    it.run_ms(1_000);
    it
}

/// As [`begin`], a moment later: what is asked now is ordered by R2, whose epoch is the next one.
fn begin_before_r2() -> Story {
    let mut it = begin();
    it.run_ms(8);
    it
}

pub(super) const NORMAL_EPOCH: Named = Named {
    name: "sync-tob-normal-epoch",
    title: "Synchronous total-order broadcast: an epoch",
    about: "A replica casts the request to all; who has it signs that it does. The leader of the next epoch, whose turn it is by \
            the clock, broadcasts a block that orders it; everybody signs the block and passes it on. At the end of the broadcast, \
            (f + 1) R after the epoch began, everybody has the same one value, and says so (Vote, then Commit); then it is \
            executed (seed 004; Dolev and Strong 1983).",
    play: normal_epoch,
};

fn normal_epoch() -> Played {
    let mut it = begin();
    let from = it.cluster.now();
    it.say("C0 asks one replica, which casts the request; f + 1 = 2 signatures say that it can be had.");
    it.apply(0, "add 1");
    it.settle();
    it.say(
        "The output came when the clock said so, and not before: until then a liar could have shown a second block.",
    );
    it.run_ms(4);
    played(it, from, None)
}

pub(super) const EQUIVOCATION: Named = Named {
    name: "sync-tob-equivocating-leader",
    title: "Synchronous total-order broadcast: a leader that signs two blocks gets neither",
    about: "The leader of the epoch shows one block to one replica and another block to the other. Both pass on what they were \
            shown, so both hold two values with the leader's signature when the broadcast ends: the output is ⊥, and the pair \
            convicts the leader. The leader of the next epoch orders the request. One of three replicas lies, and no vote was \
            needed to find out (Dolev and Strong 1983).",
    play: equivocation,
};

fn equivocation() -> Played {
    let mut it = begin_before_r2();
    let (liar, victim) = (2, it.replica(0));
    it.lies(liar, Misdeed::TwoWords([victim].into()), SyncTob::lies());
    let from = it.cluster.now();
    it.say("R2 lies: whatever it says, R0 is told something else.");
    it.apply(0, "add 1");
    it.settle();
    it.say("What R2 had proposed was nobody's output; the next leader's block was.");
    it.run_ms(4);
    played(it, from, None)
}

pub(super) const LATE: Named = Named {
    name: "sync-tob-late-replica",
    title: "Synchronous total-order broadcast: a replica that is late",
    about: "All that R2 says leaves 30 ms late, three times the bound on delays. Its block comes after the deadline and is nobody's \
            output; its votes come when the others have counted without them. Two of three are a quorum: nothing \
            stops, and nothing differs.",
    play: late,
};

fn late() -> Played {
    let mut it = begin_before_r2();
    it.lies(2, Misdeed::Slowness(30 * MILLI), None);
    let from = it.cluster.now();
    it.say("From now on, whatever R2 says leaves 30 ms late.");
    it.apply(0, "add 1");
    it.settle();
    it.say("The others have confirmed the output without R2.");
    it.run_ms(40);
    played(it, from, None)
}
