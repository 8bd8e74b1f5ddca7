//! Viewstamped Replication: what its paper tells, section by section.

use super::{Named, Played, played};
use crate::script::Scenario;
use quorate_core::ids::View;
use quorate_core::protocol::Consistency;
use quorate_machines::counter::Counter;
use quorate_protocols::vr::{Config, Reads, Vr, WINDOW_ENTRIES, rejoin};

type Story = Scenario<Vr, Counter>;

/// Three replicas and so many clients, whose sessions are open and who have counted to 1 together.
fn begin(clients: usize, config: Config) -> Story {
    let mut it = Story::new(5, 3, clients, config, Counter::default);
    it.apply(0, "set 1");
    it.settle();
    for client in 1..clients {
        it.apply(client, "add 0");
        it.settle();
    }
    it.run_ms(3);
    it
}

/// Clients adds 1 and waits for the answer.
fn add(it: &mut Story, client: usize) {
    it.apply(client, "add 1");
    it.settle();
}

pub(super) const NORMAL_CASE: Named = Named {
    name: "vr-normal-case",
    title: "Viewstamped Replication: the normal case",
    about: "The primary gives the request a place in the log and sends it to the backups; one of them suffices, with the \
            primary, to have it on disk. Then it is committed, applied and answered. The other replicas learn of the commit \
            with the next message (Viewstamped Replication Revisited, §4.1).",
    play: normal_case,
};

fn normal_case() -> Played {
    let mut it = begin(1, Config::default());
    let from = it.cluster.now();
    it.say("C0 asks. The primary, R0, sends a Prepare at once: it promises nothing yet, so it need not wait for its own disk.");
    add(&mut it, 0);
    it.run_ms(2);
    it.say("The next request tells the backups what is committed, and they apply it as well.");
    add(&mut it, 0);
    it.say("Without a request, a Commit does so after a while.");
    it.run_ms(60);
    played(it, from, None)
}

pub(super) const LEADER_CRASH: Named = Named {
    name: "vr-leader-crash",
    title: "Viewstamped Replication: the primary dies, and the view changes",
    about: "The backups do not hear from the primary. A majority of them agree to leave its view; everybody sends its log to \
            the next primary, which begins the new view with the one that counts. Nothing that a client was answered is lost \
            (§4.2). The old primary comes back as a backup.",
    play: leader_crash,
};

fn leader_crash() -> Played {
    let mut it = begin(1, Config::default());
    let from = it.cluster.now();
    add(&mut it, 0);
    it.run_ms(1);
    it.say("R0, the primary, dies.");
    it.crash(0);
    it.run_ms(280);
    it.say("The backups have heard nothing for a while: they want to leave view 0, and say so to everybody.");
    it.apply(0, "add 1");
    it.settle();
    it.run_ms(5);
    it.say("R1 leads view 1 and has answered. R0 comes back, asks for the view, and gets what it has missed.");
    it.restart(0);
    it.run_ms(60);
    add(&mut it, 0);
    it.run_ms(5);
    played(it, from, None)
}

pub(super) const PARTITION: Named = Named {
    name: "vr-partition",
    title: "Viewstamped Replication: the primary is cut off",
    about: "R0 goes on believing that it leads, but without a majority it can commit nothing, so it answers nobody. The other \
            two go on in view 1. When the network heals, R0 gives up what it could not commit, and the request of its client is \
            applied once, in the new view.",
    play: partition,
};

fn partition() -> Played {
    let mut it = begin(2, Config::default());
    let from = it.cluster.now();
    let here = [it.replica(0), it.client(0)];
    let there = [it.replica(1), it.replica(2), it.client(1)];
    it.say("R0 and C0 are cut off from all others. C0 asks for 1 to be added.");
    let cut = it.cut(&here, &there);
    it.apply(0, "add 1");
    it.run_ms(340);
    it.say("R1 and R2 have changed to view 1, and C1 gets 10 added.");
    it.apply(1, "add 10");
    it.run_ms(40);
    it.say("The network heals. R0 learns of view 1, and C0's request is ordered there.");
    it.heal(cut);
    it.settle();
    it.run_ms(10);
    played(it, from, None)
}

pub(super) const RECOVERY: Named = Named {
    name: "vr-recovery",
    title: "Viewstamped Replication: a backup comes back with its disk",
    about: "R2 dies with a log that is on its disk. The others go on without it. When it comes back it asks for the view, sees \
            which entries it lacks, and gets them.",
    play: recovery,
};

fn recovery() -> Played {
    let mut it = begin(1, Config::default());
    let from = it.cluster.now();
    it.say("R2 dies. Two replicas of three are enough.");
    it.crash(2);
    add(&mut it, 0);
    add(&mut it, 0);
    it.run_ms(2);
    it.say("R2 starts from its disk, asks for the view, and for the entries that it has missed.");
    it.restart(2);
    it.run_ms(40);
    add(&mut it, 0);
    it.run_ms(4);
    played(it, from, None)
}

pub(super) const LOST_DISK: Named = Named {
    name: "vr-lost-disk",
    title: "Viewstamped Replication: a replica loses its disk",
    about: "R1 has promised things to the others that nobody remembers now. So the others first commit as many entries as can be \
            in doubt; then R1 begins two views later than they are in, with a log that vouches for nothing, and is told \
            everything. That is what `quorate recover` does.",
    play: lost_disk,
};

fn lost_disk() -> Played {
    let mut it = begin(1, Config { checkpoint_entries: 16, ..Config::default() });
    it.crash(1);
    for _ in 0..=WINDOW_ENTRIES {
        add(&mut it, 0);
    }
    it.run_ms(2);
    let from = it.cluster.now();
    it.say("R1's disk is gone. Its owner has let the others commit 33 entries, so that nothing it knew is in doubt.");
    let view = it.status(0).map_or(View::ZERO, |status| status.view);
    it.lose_disk(1, &rejoin(view));
    it.run_ms(1);
    it.say("R1 begins anew, two views after the last one. It leads nobody and vouches for nothing until it has been told the log.");
    it.restart(1);
    it.run_ms(120);
    it.say("Everything is as before, in a later view.");
    add(&mut it, 0);
    it.run_ms(60);
    played(it, from, None)
}

pub(super) const STATE_TRANSFER: Named = Named {
    name: "vr-state-transfer",
    title: "Viewstamped Replication: too far behind for the log",
    about: "While R2 was away, the others have made checkpoints and dropped the log before them. R2 fetches a checkpoint, in \
            chunks that prove themselves, installs it, and goes on with the log after it (§5.2).",
    play: state_transfer,
};

fn state_transfer() -> Played {
    let mut it = begin(1, Config { checkpoint_entries: 4, ..Config::default() });
    it.crash(2);
    for _ in 0..18 {
        add(&mut it, 0);
        it.run_ms(20);
    }
    let from = it.cluster.now();
    it.say("R2 was away for 18 entries. The others keep a checkpoint, and the log after it.");
    it.restart(2);
    it.run_ms(150);
    it.say("R2 has caught up and takes part again.");
    add(&mut it, 0);
    it.run_ms(4);
    played(it, from, None)
}

pub(super) const LEASE_READ: Named = Named {
    name: "vr-lease-read",
    title: "Viewstamped Replication: reads",
    about: "With leases the backups have promised not to leave the view for a while, so the primary answers a linearizable read \
            at once. A stale read, which says how much it must reflect at least, is answered by the replica that is asked. An \
            ordered read goes through the log like a write.",
    play: lease_read,
};

fn lease_read() -> Played {
    let mut it = begin(1, Config { reads: Reads::Lease, ..Config::default() });
    it.run_ms(60);
    let from = it.cluster.now();
    it.say("The backups answer every Commit: each CommitOk prolongs the lease.");
    it.run_ms(52);
    it.say("A linearizable read: one message there, one back.");
    it.read(0, Consistency::Linearizable, "value");
    it.settle();
    it.run_ms(2);
    it.say("An ordered read takes its place in the log.");
    it.read(0, Consistency::Ordered, "value");
    it.settle();
    it.run_ms(2);
    it.say("The primary dies. Nobody else may lead before its lease has run out, so a read waits for the next view.");
    it.crash(0);
    it.read(0, Consistency::Linearizable, "value");
    it.settle();
    it.run_ms(4);
    played(it, from, None)
}
