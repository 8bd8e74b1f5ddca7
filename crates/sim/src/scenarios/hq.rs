//! HQ: a write without and with contention, grants that contradict each other, and a client that dies between its phases.

use super::{Named, Played, played};
use crate::registers::{Operation, Registers};
use crate::script::Scenario;
use quorate_core::ids::Peer;
use quorate_core::time::Duration;
use quorate_core::wire::Wire;
use quorate_protocols::hq::{Config, Hq};

type Story = Scenario<Hq, Registers>;

/// Four replicas and two clients, the first of which has written 1 into register 0.
fn begin() -> Story {
    // So patient that nobody repeats itself, or compares what it has, in the picture.
    let resend = Duration::from_secs(5);
    let config = Config { resend, resend_max: resend, compare: Duration::from_secs(60), ..Config::default() };
    let mut it = Story::new(5, 4, 2, config, Registers::default);
    write(&mut it, 0, 1);
    it.settle();
    it.run_ms(200);
    it
}

fn write(it: &mut Story, client: usize, value: u64) {
    it.apply(client, Operation::Put { key: 0, value }.encode());
}

/// The links from a client to some replicas.
fn links(it: &Story, client: usize, replicas: impl IntoIterator<Item = usize>) -> Vec<(Peer, Peer)> {
    replicas.into_iter().map(|replica| (it.client(client), it.replica(replica))).collect()
}

fn hold(it: &mut Story, links: &[(Peer, Peer)]) {
    links.iter().for_each(|(from, to)| _ = it.hold(*from, *to));
}

fn release(it: &mut Story, links: &[(Peer, Peer)]) {
    links.iter().for_each(|(from, to)| _ = it.release(*from, *to));
}

pub(super) const NORMAL_CASE: Named = Named {
    name: "hq-normal-case",
    title: "HQ: a write without contention",
    about: "The client asks three of the four replicas for the next place of register 0 (Write1). Each grants it, signed. \
            Three equal grants are a certificate, which the client shows to everybody (Write2): whoever sees it executes and \
            answers. Two round trips, no leader, and no word between replicas (Cowling and others, OSDI 2006, §3). The \
            replica that was not asked gets the operation with the certificate.",
    play: normal_case,
};

fn normal_case() -> Played {
    let mut it = begin();
    let from = it.cluster.now();
    it.say("C0 wants to write 2 into register 0, and asks a quorum for the next place.");
    write(&mut it, 0, 2);
    it.settle();
    it.say("Three replicas have executed the write and said so.");
    it.run_ms(4);
    played(it, from, None)
}

pub(super) const CONTENTION: Named = Named {
    name: "hq-contention",
    title: "HQ: two clients want the same place",
    about: "C0 has the grants for the next place, and its certificate is held up. C1 asks for the same place and is refused \
            everywhere, with the grants that C0 was given: three of them are C0's certificate. So C1 finishes C0's write, \
            and then asks for the place after it (WriteBack; §3.2). Nobody waits for C0, and each write happens once.",
    play: contention,
};

fn contention() -> Played {
    let mut it = begin();
    let from = it.cluster.now();
    it.say("C0 asks for the next place of register 0. What it says next is held up.");
    write(&mut it, 0, 2);
    let late = links(&it, 0, 0..4);
    hold(&mut it, &late);
    it.run_ms(8);
    it.say("C1 wants to write, too, and is shown the grants that C0 has.");
    write(&mut it, 1, 3);
    it.run_ms(16);
    it.say("C0's certificate comes late. Its write has happened; each replica tells it what it came to.");
    release(&mut it, &late);
    it.settle();
    it.run_ms(4);
    played(it, from, None)
}

pub(super) const RESOLUTION: Named = Named {
    name: "hq-resolution",
    title: "HQ: grants that contradict each other, and PBFT decides",
    about: "Two replicas grant the place to C0 and two to C1: neither can get three grants. A client that sees both shows \
            them to everybody (Resolve). Replicas freeze the register and say what they have executed and were asked for \
            (Start); PBFT, which sleeps until then, orders a quorum of these words. From them everybody computes the same \
            order of both writes, grants it (Grants), and executes (§3.3).",
    play: resolution,
};

fn resolution() -> Played {
    let mut it = begin();
    let from = it.cluster.now();
    it.say("Both clients ask at once: C0 reaches R0 and R1 first, C1 reaches R3.");
    let (late, later) = (links(&it, 1, [0, 1]), links(&it, 0, [2, 3]));
    hold(&mut it, &late);
    hold(&mut it, &later);
    write(&mut it, 0, 2);
    write(&mut it, 1, 3);
    it.run_ms(6);
    it.say("C1 is refused by R0 and R1, and asks R2.");
    release(&mut it, &late);
    it.run_ms(10);
    it.say("The rest of what C0 said arrives: two grants for each, and no third one.");
    release(&mut it, &later);
    it.settle();
    it.say("Both writes have happened, in one order.");
    it.run_ms(4);
    played(it, from, None)
}

pub(super) const CLIENT_CRASH: Named = Named {
    name: "hq-client-crash",
    title: "HQ: the next client finishes the write of one that died",
    about: "C1 collects its grants and dies before anybody sees its certificate. Every replica has promised the place to it, \
            and nobody can take that back. C0 asks, is refused with C1's grants, makes C1's certificate of them, and \
            finishes C1's write before its own (§3.2). A client that dies leaves nothing locked.",
    play: client_crash,
};

fn client_crash() -> Played {
    let mut it = begin();
    let from = it.cluster.now();
    it.say("C1 asks for the next place of register 0.");
    write(&mut it, 1, 2);
    let unsaid = links(&it, 1, 0..4);
    hold(&mut it, &unsaid);
    it.run_ms(8);
    it.say("It has its grants, and dies. Its certificate is lost with it.");
    it.crash_client(1);
    it.run_ms(10);
    it.say("C0 wants to write, and finishes what C1 began.");
    write(&mut it, 0, 3);
    it.settle();
    it.run_ms(4);
    played(it, from, None)
}
