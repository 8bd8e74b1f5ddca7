//! Reception in front of PBFT: a publication, a copy that is lost, a publisher that contradicts itself, and replicas that were
//! apart.

use super::{Named, Played, played};
use crate::script::Scenario;
use quorate_core::crypto::Keyring;
use quorate_core::sessions::Body;
use quorate_core::time::Duration;
use quorate_machines::counter::Counter;
use quorate_protocols::pbft;
use quorate_protocols::reception::{Config, Message, Reception};

type Story = Scenario<Reception, Counter>;

/// Four replicas and a client, whose session is open and who has counted to 1, when everybody has said where it is.
fn begin(resend: Duration) -> Story {
    // So patient that nobody repeats itself in the picture, unless that is what it shows.
    let module =
        pbft::Config { resend: Duration::from_secs(5), resend_max: Duration::from_secs(5), ..Default::default() };
    let config = Config { module, resend, resend_max: resend, ..Config::default() };
    let mut it = Story::new(5, 4, 1, config, Counter::default);
    it.apply(0, "set 1");
    it.settle();
    it.run_ms(1_000);
    it
}

const PATIENT: Duration = Duration::from_secs(5);

pub(super) const NORMAL_CASE: Named = Named {
    name: "reception-normal-case",
    title: "Reception: a publication is received, certified and ordered",
    about: "The client signs its request once and publishes a copy for each replica, by whatever way. Each replica keeps it \
            and says when it received it (Reception: a digest and a time, signed). Three of four make a certificate, whose \
            time is the median of theirs. PBFT, inside, orders certificates; what it has ordered is inserted by certified \
            time.",
    play: normal_case,
};

fn normal_case() -> Played {
    let mut it = begin(PATIENT);
    let from = it.cluster.now();
    it.say("C0 signs its request and publishes it: one copy for each replica.");
    it.apply(0, "add 1");
    it.settle();
    it.say("Two replicas have said the same: one of them is honest.");
    it.run_ms(6);
    played(it, from, None)
}

pub(super) const LOST: Named = Named {
    name: "reception-lost-publication",
    title: "Reception: a publication that never came is pulled by its digest",
    about: "R3's copy is lost on its way. R3 hears from the others that they have received something with a digest that it \
            does not know, waits a moment for its own copy, and asks one of those who have it (GetPublication). The \
            publication proves itself, whoever sends it: the client has signed it. From three receptions on it can be \
            certified, R3's or not.",
    play: lost,
};

fn lost() -> Played {
    let mut it = begin(PATIENT);
    let (client, late) = (it.client(0), it.replica(3));
    let cut = it.cut(&[client], &[late]);
    let from = it.cluster.now();
    it.say("The broker does not reach R3. C0 publishes its request.");
    it.apply(0, "add 1");
    it.settle();
    it.run_ms(30);
    it.say("R3 has pulled what it lacked, and has executed it as everybody else.");
    it.heal(cut);
    it.run_ms(4);
    played(it, from, None)
}

pub(super) const EQUIVOCATION: Named = Named {
    name: "reception-equivocating-publisher",
    title: "Reception: a publisher that contradicts itself harms nobody but itself",
    about: "The client signs two requests under one number, and publishes one to R0 and R1 and the other to R2 and R3. Both \
            are received, pulled by those who lack them, certified and ordered: no replica has to choose, so none can be \
            made to choose differently. The session takes the first in the order and answers both with its result; everybody \
            holds two signatures of the client that nobody honest gives.",
    play: equivocation,
};

/// The same request with another operation, signed as well.
fn another(message: &Message, keyring: &Keyring) -> Option<Message> {
    let Message::Publish(group) = message else { return None };
    let mut words = group.statement().clone();
    let (_, body) = words.requests.iter_mut().find(|(_, body)| matches!(body, Body::Apply(_)))?;
    *body = Body::Apply("add 100".into());
    Some(Message::Publish(keyring.sign_as_client(words)))
}

fn equivocation() -> Played {
    let mut it = begin(PATIENT);
    let victims = [it.replica(2), it.replica(3)];
    it.contradicts_itself(0, &victims, another);
    let from = it.cluster.now();
    it.say("C0 publishes “add 1” to R0 and R1, and “add 100” to R2 and R3, under one number.");
    it.apply(0, "add 1");
    it.settle();
    it.run_ms(60);
    it.say("One of the two was applied, everywhere. Every replica knows that its client has signed both.");
    it.run_ms(4);
    played(it, from, None)
}

pub(super) const RECONCILIATION: Named = Named {
    name: "reception-reconciliation",
    title: "Reception: replicas that were apart come to agree on what was published",
    about: "The broker reaches R0 alone, and R0 reaches nobody. What one correct replica has received is not lost: nothing \
            expires. When the links are whole again R0 compares what waits there with what waits elsewhere (Compare: a digest of \
            a range); who lacks something is told of it and pulls it, says when it received it, and it is certified and \
            ordered like everything else.",
    play: reconciliation,
};

fn reconciliation() -> Played {
    let mut it = begin(Duration::from_millis(40));
    let client = it.client(0);
    let [first, others] = [vec![it.replica(0)], vec![it.replica(1), it.replica(2), it.replica(3)]];
    let broker = it.cut(&[client], &others);
    let group = it.cut(&first, &others);
    let from = it.cluster.now();
    it.say("The broker reaches R0 alone, and R0 reaches none of the others.");
    it.apply(0, "add 1");
    it.run_ms(20);
    it.say("The replicas hear each other again; the broker still reaches R0 only.");
    it.heal(group);
    it.run_ms(90);
    it.say("Everybody has the publication, and it was executed. The broker is whole again.");
    it.heal(broker);
    it.settle();
    it.run_ms(4);
    played(it, from, None)
}
