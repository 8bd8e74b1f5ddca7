//! Garbage, messages out of place, messages of another time and messages that contradict what is known: no peer and no
//! client makes a replica panic or break an invariant, and queues stay bounded. Peers are believed (crashes are the model,
//! lies are not), so what is checked is the one replica that hears them.

use crate::dice::Dice;
use crate::harness::{Cluster, ENVELOPE, Flying, config, replica};
use bytes::Bytes;
use quorate_core::crypto::Digest;
use quorate_core::ids::{ClientId, OpNumber, Peer, RequestNumber, SessionId, View};
use quorate_core::node::{Input, Payload};
use quorate_core::protocol::{Checkpoint, Consistency};
use quorate_core::sessions::{Body, OPERATION_BYTES_MAX};
use quorate_protocols::vr::{
    Config, DoViewChange, HEADERS_MAX, Message, REQUESTS_MAX, Reads, Request, StartView, Vouch,
};

const ENVELOPE_BYTES: usize = quorate_core::wire::ENVELOPE_BYTES;

/// A cluster with some history, and all messages of it.
fn some_history(dice: &mut Dice) -> (Cluster, Vec<Flying>) {
    let reads = [Reads::Index, Reads::Lease][dice.below(2)];
    let n = [1, 2, 3, 5][dice.below(4)];
    let mut it = Cluster::with(n, Config { checkpoint_entries: 4, reads, ..config() });
    it.believing = true;
    it.apply(1, "a").apply(2, "lease").apply(1, "b");
    it.read(1, Consistency::Linearizable);
    for _ in 0..dice.below(4) {
        let id = dice.below(n);
        match dice.below(5) {
            0 => it.restart(id),
            1 => {
                it.crash(id);
            }
            2 => {
                it.isolate(id);
            }
            3 => it.hosts[id].fast_disk = false,
            _ => {
                it.heal();
            }
        }
        it.submit(1, "x");
        it.run(dice.next() % 1500);
    }
    it.heal();
    let sent = it.sent.clone();
    (it, sent)
}

/// Sets some of its numbers to others.
fn bent(bytes: &Bytes, dice: &mut Dice) -> Bytes {
    let mut bytes = bytes.to_vec();
    for _ in 0..=dice.below(3) {
        let at = ENVELOPE_BYTES + dice.below(bytes.len() - ENVELOPE_BYTES);
        let Some(field) = bytes.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<8>()) else { continue };
        let value = u64::from_le_bytes(*field);
        let value = match dice.below(6) {
            0 => 0,
            1 => u64::MAX,
            2 => value.wrapping_add(1),
            3 => value.wrapping_sub(1),
            4 => 1 << 62,
            _ => value ^ (1 << dice.below(64)),
        };
        *field = value.to_le_bytes();
    }
    bytes.into()
}

#[test]
fn no_message_bent_replayed_or_out_of_place_panics_a_replica_or_breaks_an_invariant() {
    let seeds = std::env::var("CHAOS_SEEDS").ok().and_then(|count| count.parse().ok()).unwrap_or(150);
    for seed in 0..seeds {
        let run = || {
            let mut dice = Dice::new(seed);
            let (mut it, sent) = some_history(&mut dice);
            for _ in 0..200 {
                let victim = dice.below(it.hosts.len());
                let said = &sent[dice.below(sent.len())];
                let from = if dice.one_in(4) { said.from } else { replica(dice.below(it.hosts.len())) };
                let bytes = if dice.one_in(3) { said.bytes.clone() } else { bent(&said.bytes, &mut dice) };
                it.input(victim, Input::Frame { from, bytes });
                if dice.one_in(10) {
                    it.hosts.iter_mut().for_each(|host| host.fast_disk = true);
                    it.flying.truncate(200);
                    (0..it.flying.len()).for_each(|_| it.flying.pop_front().iter().for_each(|next| it.hand_over(next)));
                    it.now += 60_000_000;
                    (0..it.hosts.len()).for_each(|id| it.input(id, Input::Timers));
                }
            }
        };
        if let Err(panic) = std::panic::catch_unwind(run) {
            eprintln!("seed {seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

/// One message of each kind with the most extreme numbers.
fn extremes(view: View, op: OpNumber) -> Vec<Message> {
    let checkpoint = Checkpoint { op, id: Digest::ZERO };
    let (checksum, nonce, committed) = (Digest::ZERO, 1, op);
    let vouches = vec![Vouch { header: None, present: false, nack: false }; 3];
    let log_view = View::new(view.get().saturating_sub(1));
    vec![
        Message::PrepareOk { view, op, checksum, checkpoint },
        Message::Commit { view, committed, op, checkpoint, stable: op, round: u64::MAX, sent: u64::MAX },
        Message::CommitOk { view, round: u64::MAX, sent: u64::MAX, checkpoint },
        Message::ExitView { view },
        Message::DoViewChange(DoViewChange {
            view,
            log_view,
            committed,
            committed_checksum: checksum,
            checkpoint,
            vouches,
        }),
        Message::StartView(StartView {
            view,
            committed,
            checkpoint,
            after: op,
            after_checksum: checksum,
            headers: Vec::new(),
            nonce,
        }),
        Message::GetView { view, committed, nonce },
        Message::GetHeaders { view, after: op },
        Message::Headers { view, after: op, headers: Vec::new() },
        Message::CheckpointDue { op },
        Message::GetEntries { wanted: vec![(op, checksum)] },
        Message::NotPrimary { view },
        Message::Busy { view },
    ]
}

#[test]
fn views_and_entries_at_the_end_of_their_numbers_are_refused_and_the_group_goes_on() {
    for (view, op) in [(u64::MAX, 0), (0, u64::MAX), (u64::MAX, u64::MAX), ((1 << 62) + 1, 1), (1, (1 << 62) + 1)] {
        let mut it = Cluster::new(3);
        it.apply(1, "a");
        for message in extremes(View::new(view), OpNumber::new(op)) {
            for (from, to) in [(0, 1), (1, 0), (2, 1), (1, 2)] {
                it.say(replica(from), to, message.clone());
            }
        }
        it.run(500).apply(1, "b").run(200);
        assert!(it.agrees(&["a", "b"]), "view {view}, entry {op}");
    }
}

#[test]
fn a_view_just_below_the_limit_stops_nobody_from_answering_without_a_panic() {
    let mut it = Cluster::new(3);
    it.apply(1, "a").say(replica(1), 0, Message::ExitView { view: View::new(1 << 62) });
    it.run(5000);
}

#[test]
fn messages_with_more_parts_than_any_replica_sends_are_blamed() {
    let mut it = Cluster::new(3);
    it.apply(1, "a");
    let vouches = vec![Vouch { header: None, present: false, nack: false }; HEADERS_MAX + 1];
    let Message::DoViewChange(change) = &extremes(View::new(1), OpNumber::ZERO)[4] else { unreachable!() };
    it.say(replica(2), 1, Message::DoViewChange(DoViewChange { vouches, ..change.clone() }));
    it.say(replica(2), 1, Message::GetEntries { wanted: vec![(OpNumber::ZERO, Digest::ZERO); 65] });
    let body = |bytes| (RequestNumber::new(1), Body::Apply(Bytes::from(vec![0; bytes])));
    let client = ClientId::new(1);
    let request = |requests| Request { client, session: SessionId::ZERO, acknowledged: RequestNumber::ZERO, requests };
    it.say(Peer::Client(client), 1, Message::Request(request(vec![body(0); REQUESTS_MAX + 1])));
    it.say(Peer::Client(client), 1, Message::Request(request(vec![body(OPERATION_BYTES_MAX + 1)])));
    assert_eq!(it.blamed(1), 4);
}

#[test]
fn nobody_asks_in_the_name_of_another_client() {
    let mut it = Cluster::new(1);
    it.client(2).talk();
    let requests = vec![(RequestNumber::ZERO, Body::Register)];
    let (session, acknowledged) = (SessionId::ZERO, RequestNumber::ZERO);
    let request = Request { client: ClientId::new(2), session, acknowledged, requests };
    it.say(Peer::Client(ClientId::new(1)), 0, Message::Request(request)).deliver();
    assert_eq!(it.count("Reply"), 0);
}

#[test]
fn only_oneself_says_that_a_checkpoint_is_due() {
    let mut it = Cluster::with(3, Config { checkpoint_entries: 1, ..config() });
    it.hosts[1].fast_disk = false;
    it.apply(1, "a").run(60);
    it.say(replica(2), 1, Message::CheckpointDue { op: OpNumber::new(1) });
    assert_eq!(it.status(1).checkpoint, OpNumber::ZERO);
}

#[test]
fn a_replica_whose_state_is_another_than_the_primarys_stops_and_says_so() {
    let mut it = Cluster::with(3, Config { checkpoint_entries: 2, ..config() }); // vr.md §2.3 step 5
    it.apply(1, "a").run(200);
    let Message::Commit { view, committed, op, stable, round, sent, checkpoint } = it.last(0, "Commit") else {
        unreachable!()
    };
    let checkpoint = Checkpoint { id: Digest::ZERO, ..checkpoint };
    it.say(replica(0), 1, Message::Commit { view, committed, op, checkpoint, stable, round, sent });
    assert!(it.hosts[1].halted.as_deref().is_some_and(|why| why.contains("diverged")));
}

#[test]
fn floods_of_reads_are_bounded_and_reads_of_the_far_future_make_room() {
    let mut it = Cluster::new(3);
    it.apply(1, "a").run(200).talk();
    for id in 0..10_000 {
        let consistency = Consistency::Stale { at_least: OpNumber::new(u64::MAX) };
        it.say(Peer::Client(ClientId::new(9)), 1, Message::Read { id, consistency, query: Bytes::new() });
    }
    assert_eq!(it.count("Busy"), 10_000 - 8192);
    let read = it.read(1, Consistency::Stale { at_least: OpNumber::ZERO });
    it.run(500);
    assert_eq!(it.answer(1, read).as_deref(), Some("a"));
}

#[test]
fn garbage_is_blamed_and_changes_nothing() {
    let mut it = Cluster::new(3);
    it.apply(1, "a");
    for length in 0..80 {
        it.input(1, Input::Frame { from: replica(0), bytes: Bytes::from(vec![length; usize::from(length)]) });
    }
    let trailing =
        [ENVELOPE.seal(&Payload::Protocol(Message::ExitView { view: View::ZERO })).to_vec(), vec![0]].concat();
    it.input(1, Input::Frame { from: replica(0), bytes: trailing.into() });
    assert_eq!(it.blamed(1), 81);
    it.apply(1, "b").run(200);
    assert!(it.agrees(&["a", "b"]));
}
