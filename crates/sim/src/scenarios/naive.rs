//! Naive broadcast: the scenario for which the house exists.

use super::{Named, Played, played};
use crate::script::Scenario;
use quorate_machines::counter::Counter;
use quorate_protocols::naive::Naive;

pub(super) const DIVERGENCE: Named = Named {
    name: "naive-divergence",
    title: "Naive broadcast: 1, divided by 2, plus 1 is 1.5, or 1",
    about: "Two clients send to both replicas, and each replica applies what it receives, as it receives it. One hears \
            “divide by 2” first, the other “add 1”. Both did as they were told; they will never agree again.",
    play: divergence,
};

/// Seed 004, *Problem*.
fn divergence() -> Played {
    let mut it = Scenario::<Naive, Counter>::new(5, 2, 2, (), Counter::default);
    for client in [0, 1] {
        it.apply(client, "add 0"); // opens the client's session at both replicas, one client after the other
        it.settle();
        it.run_ms(20);
    }
    let from = it.cluster.now();
    it.say("Both replicas are told to begin with 1.");
    it.apply(0, "set 1");
    it.settle();
    it.run_ms(10);
    let (halver, adder, first, second) = (it.client(0), it.client(1), it.replica(0), it.replica(1));
    it.hold(adder, first).hold(halver, second);
    it.say("C0 divides by 2 and C1 adds 1, at the same time. The network is slow from C0 to R1, and from C1 to R0.");
    it.apply(0, "div 2");
    it.apply(1, "add 1");
    it.run_ms(10);
    let violation = it.cluster.go_on();
    it.say("What was late arrives. R0 has divided first, R1 has added first: 1.5 and 1, and no way back.");
    it.release(adder, first).release(halver, second);
    it.run_ms(1);
    while it.cluster.go_on().is_some() {
        it.run_ms(1);
    }
    it.run_ms(20);
    it.cluster.go_on();
    it.run_ms(20);
    played(it, from, violation)
}
