//! The client of Viewstamped Replication, driven by hand: no replicas, only what they might say.

use bytes::Bytes;
use proptest::prelude::*;
use quorate_core::ids::{ClientId, OpNumber, Position, ReplicaId, RequestNumber, SessionId, View};
use quorate_core::protocol::Client as _;
use quorate_core::protocol::{Answer, Call, CallError, ClientConfig, ClientEffect, ClientOutbox, Consistency, Ticket};
use quorate_core::sessions::{self, Admission, Body, OPERATION_BYTES_MAX, Ruling, Sessions, WINDOW};
use quorate_core::time::{Duration, Instant};
use quorate_protocols::vr::{Client, ClientTimer, Message, REQUESTS_MAX, Reply, Request, Vr};
use std::collections::{BTreeMap, BTreeSet};

const RETRY_MS: u64 = 150;
const TIMEOUT_MS: u64 = 10_000;

/// A client, its clock and its timers, and what it said.
struct Bench {
    client: Client,
    now: Instant,
    timers: BTreeMap<ClientTimer, Instant>,
    sent: Vec<(u8, Message)>,
    done: BTreeMap<Ticket, Result<Answer, CallError>>,
    tickets: u64,
}

impl Bench {
    /// A client of three replicas whose stale reads begin at replica 1.
    fn new() -> Self {
        Self::with(RETRY_MS, TIMEOUT_MS)
    }

    fn with(retry_ms: u64, timeout_ms: u64) -> Self {
        let config = ClientConfig {
            client: ClientId::new(7),
            replicas: 3,
            retry: Duration::from_millis(retry_ms),
            timeout: Duration::from_millis(timeout_ms),
        };
        Self {
            client: Client::new(config),
            now: Instant::from_nanos(5_000_000_000),
            timers: BTreeMap::new(),
            sent: Vec::new(),
            done: BTreeMap::new(),
            tickets: 0,
        }
    }

    /// Connected to all, session 40 open, nothing on its way.
    fn ready() -> Self {
        let mut bench = Self::new();
        bench.connect_all();
        let ticket = bench.apply("first");
        bench.opened(40);
        bench.replied(40, 1, "done");
        assert!(bench.done.remove(&ticket).is_some());
        bench.sent.clear();
        bench
    }

    fn turn(&mut self, act: impl FnOnce(&mut Client, &mut ClientOutbox<Vr>)) {
        let mut out = ClientOutbox::new(self.now);
        act(&mut self.client, &mut out);
        for effect in out.into_effects() {
            match effect {
                ClientEffect::Send(to, message) => {
                    assert_eq!(message.check(), None, "a client sends nothing that replicas refuse");
                    self.sent.push((to.get(), message));
                }
                ClientEffect::Arm { timer, at } => drop(self.timers.insert(timer, at)),
                ClientEffect::Disarm(timer) => drop(self.timers.remove(&timer)),
                ClientEffect::Complete(ticket, result) => {
                    let former = self.done.insert(ticket, result);
                    assert_eq!(former, None, "a call completes once");
                }
            }
        }
    }

    fn submit(&mut self, call: Call) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.turn(|client, out| client.submit(ticket, call, out));
        ticket
    }

    fn flush(&mut self) {
        self.turn(|client, out| client.flush(out));
    }

    fn apply(&mut self, operation: &str) -> Ticket {
        let ticket = self.submit(Call::Apply(bytes(operation)));
        self.flush();
        ticket
    }

    fn read(&mut self, consistency: Consistency) -> Ticket {
        let ticket = self.submit(Call::Read(consistency, bytes("query")));
        self.flush();
        ticket
    }

    fn connect(&mut self, replica: u8) {
        self.turn(|client, out| client.on_connected(ReplicaId::new(replica), out));
    }

    fn connect_all(&mut self) {
        (0..3).for_each(|replica| self.connect(replica));
    }

    fn disconnect(&mut self, replica: u8) {
        self.turn(|client, out| client.on_disconnected(ReplicaId::new(replica), out));
    }

    fn hear(&mut self, from: u8, message: Message) {
        self.turn(|client, out| client.on_message(ReplicaId::new(from), message, out));
    }

    fn rulings(&mut self, view: u64, session: u64, rulings: Vec<(u64, Ruling)>) {
        let rulings = rulings.into_iter().map(|(number, ruling)| (RequestNumber::new(number), ruling)).collect();
        let (view, op, session) = (View::new(view), OpNumber::new(99), SessionId::new(session));
        let from = u8::try_from(view.get() % 3).expect("small");
        self.hear(from, Message::Reply(Reply { view, op, session, rulings }));
    }

    fn opened(&mut self, session: u64) {
        self.rulings(0, 0, vec![(0, Ruling::Opened(SessionId::new(session)))]);
    }

    fn replied(&mut self, session: u64, number: u64, reply: &str) {
        self.rulings(0, session, vec![(number, Ruling::Replied(bytes(reply)))]);
    }

    fn evicted(&mut self, session: u64, number: u64) {
        self.rulings(0, session, vec![(number, Ruling::Evicted)]);
    }

    fn answer(&mut self, from: u8, id: u64, op: u64) {
        let (view, op) = (View::ZERO, OpNumber::new(op));
        self.hear(from, Message::ReadReply { view, id, op, answer: bytes("answer") });
    }

    fn not_primary(&mut self, from: u8, view: u64) {
        self.hear(from, Message::NotPrimary { view: View::new(view) });
    }

    fn busy(&mut self, from: u8, view: u64) {
        self.hear(from, Message::Busy { view: View::new(view) });
    }

    /// Lets time pass, and timers fire when they are due.
    fn pass(&mut self, millis: u64) {
        let end = self.now.plus(Duration::from_millis(millis));
        while let Some((&timer, &at)) = self.timers.iter().min_by_key(|(_, at)| **at).filter(|(_, at)| **at <= end) {
            self.now = self.now.max(at);
            self.timers.remove(&timer);
            self.turn(|client, out| client.on_timer(timer, out));
        }
        self.now = end;
    }

    /// What was said since the last look: to whom, and which numbers, ids or registrations.
    fn said(&mut self) -> Vec<(u8, Said)> {
        let said = std::mem::take(&mut self.sent).into_iter();
        said.map(|(to, message)| (to, Said::from(message))).collect()
    }

    /// The ids of the reads that were sent since the last look.
    fn ids(&mut self) -> Vec<(u8, u64)> {
        let said = self.said().into_iter();
        said.filter_map(|(to, said)| if let Said::Read(id) = said { Some((to, id)) } else { None }).collect()
    }
}

/// A message, as far as most tests look at it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Said {
    Register,
    /// Numbers in this session.
    Requests(u64, Vec<u64>),
    Read(u64),
}

impl From<Message> for Said {
    fn from(message: Message) -> Self {
        match message {
            Message::Read { id, .. } => Said::Read(id),
            Message::Request(request) if request.session == SessionId::ZERO => {
                assert_eq!(request.requests, [(RequestNumber::ZERO, Body::Register)]);
                Said::Register
            }
            Message::Request(request) => {
                let numbers = request.requests.iter().map(|(number, _)| number.get()).collect();
                Said::Requests(request.session.get(), numbers)
            }
            other => panic!("no client says {other:?}"),
        }
    }
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn requests(session: u64, numbers: impl IntoIterator<Item = u64>) -> Said {
    Said::Requests(session, numbers.into_iter().collect())
}

fn answer(reply: &str) -> Result<Answer, CallError> {
    Ok(Answer { reply: bytes(reply), op: OpNumber::new(99) })
}

const STALE: Consistency = Consistency::Stale { at_least: OpNumber::new(20) };

// ---- the session (CT1) ----

#[test]
fn the_first_call_opens_a_session_and_waits_for_it() {
    // CT1: a session is opened by an ordered operation.
    let mut bench = Bench::new();
    bench.connect_all();
    assert_eq!(bench.said(), [], "nobody wants a session yet");
    let ticket = bench.apply("x");
    assert_eq!(bench.said(), [(0, Said::Register)]);
    bench.opened(40);
    assert_eq!(bench.said(), [(0, requests(40, [1]))]);
    bench.replied(40, 1, "done");
    assert_eq!(bench.done[&ticket], answer("done"));
}

#[test]
fn a_client_that_only_reads_past_the_log_opens_no_session() {
    let mut bench = Bench::new();
    bench.connect_all();
    bench.read(Consistency::Linearizable);
    bench.read(STALE);
    assert!(bench.said().iter().all(|(_, said)| matches!(said, Said::Read(_))));
}

#[test]
fn an_evicted_session_ends_what_was_sent_and_takes_what_was_not_into_the_next() {
    // CT1: eviction is told, and what may have been applied is called so (CT7).
    let mut bench = Bench::ready();
    let tickets: Vec<_> = (0..WINDOW + 2).map(|_| bench.submit(Call::Apply(bytes("x")))).collect();
    bench.flush();
    bench.said();
    bench.evicted(40, 2);
    let (sent, waiting) = tickets.split_at(WINDOW as usize);
    assert!(sent.iter().all(|ticket| bench.done[ticket] == Err(CallError::Evicted { maybe_applied: true })));
    assert!(waiting.iter().all(|ticket| !bench.done.contains_key(ticket)));
    assert_eq!(bench.said(), [(0, Said::Register)]);
    bench.opened(90);
    assert_eq!(bench.said(), [(0, requests(90, [1, 2]))], "numbers begin at 1 in a new session");
    bench.rulings(0, 90, vec![(1, Ruling::Replied(bytes("a"))), (2, Ruling::Replied(bytes("b")))]);
    assert_eq!(bench.done[&waiting[1]], answer("b"));
}

#[test]
fn an_evicted_client_without_work_asks_for_a_session_only_when_it_needs_one() {
    let mut bench = Bench::ready();
    bench.evicted(40, 1);
    assert_eq!(bench.said(), []);
    bench.apply("x");
    assert_eq!(bench.said(), [(0, Said::Register)]);
}

#[test]
fn late_replies_of_an_evicted_session_answer_nothing_in_the_new_one() {
    // CT3's hazard within one life: the same number, another operation, another session.
    let mut bench = Bench::ready();
    bench.apply("old");
    bench.evicted(40, 2);
    let first = bench.apply("new one");
    bench.opened(90);
    let second = bench.apply("new two");
    bench.said();
    bench.replied(40, 1, "old");
    bench.replied(40, 2, "old");
    bench.evicted(40, 2);
    assert!(!bench.done.contains_key(&first) && !bench.done.contains_key(&second));
    assert_eq!(bench.said(), []);
    bench.replied(90, 1, "new");
    assert_eq!(bench.done[&first], answer("new"));
}

#[test]
fn a_late_answer_to_the_first_registration_does_not_bring_an_evicted_session_back() {
    // CT1: sessions grow. In session 40 number 1 is used, and its reply may still be on its way.
    let mut bench = Bench::ready();
    bench.evicted(40, 1);
    let ticket = bench.apply("x");
    bench.said();
    bench.opened(40);
    assert_eq!(bench.said(), [], "session 40 is gone");
    bench.replied(40, 1, "another call's");
    assert!(!bench.done.contains_key(&ticket));
    bench.opened(90);
    assert_eq!(bench.said(), [(0, requests(90, [1]))]);
    bench.opened(95); // and none replaces one that is open
    assert_eq!(bench.said(), []);
    bench.replied(90, 1, "done");
    assert_eq!(bench.done[&ticket], answer("done"));
}

// ---- links ----

#[test]
fn a_call_made_before_any_connection_completes_after_one() {
    let mut bench = Bench::new();
    let write = bench.apply("x");
    let read = bench.read(Consistency::Linearizable);
    let stale = bench.read(STALE);
    bench.pass(1000);
    assert_eq!(bench.said(), [], "there is nobody to say it to");
    bench.connect(0);
    assert_eq!(bench.said(), [(0, Said::Read(3)), (0, Said::Read(4)), (0, Said::Register)]);
    bench.opened(40);
    bench.replied(40, 1, "done");
    bench.answer(0, 3, 99);
    bench.answer(0, 4, 99);
    assert_eq!(bench.done[&write], answer("done"));
    assert_eq!(bench.done[&read], answer("answer"));
    assert_eq!(bench.done[&stale], answer("answer"));
}

#[test]
fn while_the_primary_is_not_connected_backups_pass_requests_on() {
    // §2.3 step 1: a backup forwards.
    let mut bench = Bench::new();
    bench.connect(2);
    bench.apply("x");
    assert_eq!(bench.said(), [(2, Said::Register)]);
    bench.connect(1);
    assert_eq!(bench.said(), [(1, Said::Register)]);
    bench.connect(0);
    assert_eq!(bench.said(), [(0, Said::Register)], "the primary itself has not heard it");
    bench.opened(40);
    assert_eq!(bench.said(), [(0, requests(40, [1]))], "and once it is connected, only it");
}

#[test]
fn when_the_primary_disconnects_everything_outstanding_goes_to_the_others_at_once() {
    let mut bench = Bench::ready();
    bench.apply("x");
    bench.read(Consistency::Linearizable);
    bench.said();
    bench.disconnect(0);
    let said = bench.said();
    for other in [1, 2] {
        assert!(said.contains(&(other, requests(40, [2]))), "{said:?}");
        assert!(said.iter().any(|(to, said)| *to == other && matches!(said, Said::Read(_))), "{said:?}");
    }
    assert_eq!(said.len(), 4);
    bench.apply("y");
    assert_eq!(bench.said(), [(1, requests(40, [3])), (2, requests(40, [3]))]);
}

#[test]
fn a_new_primary_is_told_everything_again_once() {
    let mut bench = Bench::ready();
    bench.apply("x");
    bench.disconnect(0);
    bench.said();
    bench.rulings(1, 40, vec![]); // R1 leads now; what it heard as a backup went to the former primary
    assert_eq!(bench.said(), [(1, requests(40, [2]))]);
    bench.rulings(1, 40, vec![]);
    assert_eq!(bench.said(), []);
    bench.rulings(0, 40, vec![]);
    bench.apply("y");
    assert_eq!(bench.said(), [(1, requests(40, [3]))], "an older view teaches nothing");
}

#[test]
fn a_primary_that_comes_back_is_told_what_its_lost_link_may_have_swallowed() {
    let mut bench = Bench::ready();
    (0..3).for_each(|replica| bench.disconnect(replica));
    let unsent = bench.apply("before");
    assert_eq!(bench.said(), []);
    bench.connect(0);
    assert_eq!(bench.said(), [(0, requests(40, [2]))]);
    bench.disconnect(0);
    bench.connect(0);
    assert_eq!(bench.said(), [(0, requests(40, [2]))]);
    bench.connect(0); // a link that was replaced without a word
    assert_eq!(bench.said(), [(0, requests(40, [2]))]);
    bench.replied(40, 2, "done");
    assert_eq!(bench.done[&unsent], answer("done"));
}

#[test]
fn replicas_outside_the_group_are_not_heard() {
    let mut bench = Bench::ready();
    let ticket = bench.apply("x");
    bench.said();
    bench.connect(3);
    bench.connect(200);
    let ruling = (RequestNumber::new(2), Ruling::Replied(bytes("lie")));
    let reply = Reply { view: View::new(1), op: OpNumber::new(1), session: SessionId::new(40), rulings: vec![ruling] };
    bench.hear(17, Message::Reply(reply));
    bench.disconnect(200);
    assert!(!bench.done.contains_key(&ticket));
    assert_eq!(bench.said(), []);
}

// ---- the window and messages ----

#[test]
fn what_is_ready_together_leaves_in_one_message() {
    let mut bench = Bench::ready();
    for index in 0..10 {
        bench.submit(Call::Apply(bytes(&index.to_string())));
    }
    assert_eq!(bench.said(), [], "nothing leaves before the flush");
    bench.flush();
    assert_eq!(bench.said(), [(0, requests(40, 2..=11))]);
    bench.flush();
    assert_eq!(bench.said(), []);
}

#[test]
fn no_request_runs_further_ahead_than_the_window_and_answers_make_room() {
    let mut bench = Bench::ready();
    for _ in 0..WINDOW + 5 {
        bench.submit(Call::Apply(bytes("x")));
    }
    bench.flush();
    assert_eq!(bench.said(), [(0, requests(40, 2..=WINDOW + 1))]);
    bench.replied(40, 3, "out of order"); // 2 is still unanswered: nothing is acknowledged
    assert_eq!(bench.said(), []);
    bench.replied(40, 2, "done");
    assert_eq!(bench.said(), [(0, requests(40, [WINDOW + 2, WINDOW + 3]))]);
}

#[test]
fn a_message_says_up_to_where_the_client_knows_the_answers() {
    // §2.7: the table may drop those replies, and only those.
    let mut bench = Bench::ready();
    for _ in 0..4 {
        bench.apply("x");
    }
    bench.replied(40, 2, "");
    bench.replied(40, 4, "");
    bench.sent.clear();
    bench.apply("y");
    let [(0, Message::Request(request))] = &bench.sent[..] else { panic!("one request, not {:?}", bench.sent) };
    assert_eq!(request.acknowledged, RequestNumber::new(2), "3 has no answer yet");
}

#[test]
fn messages_stay_below_the_frame_that_replicas_take() {
    let mut bench = Bench::ready();
    let sizes = [300 << 10, 300 << 10, 100 << 10, OPERATION_BYTES_MAX, 1, 1];
    for size in sizes {
        bench.submit(Call::Apply(Bytes::from(vec![0; size])));
    }
    bench.flush();
    let expected = [vec![2], vec![3, 4], vec![5], vec![6, 7]].map(|numbers| (0, requests(40, numbers)));
    assert_eq!(bench.said(), expected);
    assert!(REQUESTS_MAX as u64 >= WINDOW, "a whole window fits one message");
}

#[test]
fn large_operations_in_flight_are_bounded_together() {
    let mut bench = Bench::ready();
    for _ in 0..9 {
        bench.submit(Call::Apply(Bytes::from(vec![0; 1 << 20])));
    }
    bench.flush();
    assert_eq!(bench.said().len(), 8);
    bench.replied(40, 5, "");
    assert_eq!(bench.said(), [(0, requests(40, [10]))]);
}

#[test]
fn an_operation_that_no_replica_takes_is_refused_here() {
    let mut bench = Bench::ready();
    let ticket = bench.submit(Call::Apply(Bytes::from(vec![0; OPERATION_BYTES_MAX + 1])));
    let Err(CallError::Refused(why)) = &bench.done[&ticket] else { panic!("not refused") };
    assert!(why.contains("1572865 bytes"), "{why}");
    bench.flush();
    assert_eq!(bench.said(), []);
}

// ---- answers ----

#[test]
fn an_ordered_read_is_a_numbered_request() {
    let mut bench = Bench::ready();
    let ticket = bench.read(Consistency::Ordered);
    let [(0, Message::Request(request))] = &bench.sent[..] else { panic!("one request") };
    assert_eq!(request.requests, [(RequestNumber::new(2), Body::Query(bytes("query")))]);
    bench.replied(40, 2, "seen");
    assert_eq!(bench.done[&ticket], answer("seen"));
}

#[test]
fn replies_that_are_late_repeated_or_unknown_change_nothing() {
    let mut bench = Bench::ready();
    let ticket = bench.apply("x");
    bench.replied(40, 1, "again");
    bench.replied(40, 77, "never asked");
    bench.replied(41, 2, "another session's");
    assert!(!bench.done.contains_key(&ticket));
    bench.replied(40, 2, "done");
    bench.replied(40, 2, "done");
    bench.rulings(0, 40, vec![(2, Ruling::Reused), (0, Ruling::Closed), (u64::MAX, Ruling::OutsideWindow)]);
    bench.rulings(0, 40, vec![(3, Ruling::Opened(SessionId::new(50)))]);
    bench.rulings(0, 0, vec![(0, Ruling::Evicted), (5, Ruling::Replied(bytes("?")))]);
    bench.answer(0, 1, 99);
    assert_eq!(bench.done.len(), 1);
    assert_eq!(bench.done[&ticket], answer("done"));
}

#[test]
fn what_the_table_refuses_is_refused_with_a_sentence() {
    // CT4 and CT5; none of them is anything that this client does.
    let mut bench = Bench::ready();
    for (number, ruling, word) in [
        (2, Ruling::OutsideWindow, "further ahead"),
        (3, Ruling::Reused, "another operation"),
        (4, Ruling::Closed, "closed"),
    ] {
        let ticket = bench.apply("x");
        bench.rulings(0, 40, vec![(number, ruling)]);
        let Err(CallError::Refused(why)) = &bench.done[&ticket] else { panic!("not refused: {number}") };
        assert!(why.contains(word), "{why}");
    }
}

#[test]
fn words_between_replicas_are_not_for_clients() {
    let mut bench = Bench::ready();
    bench.apply("x");
    bench.said();
    bench.hear(0, Message::ExitView { view: View::new(9) });
    bench.hear(0, Message::GetEntries { wanted: vec![] });
    let request = Request {
        client: ClientId::new(7),
        session: SessionId::new(40),
        acknowledged: RequestNumber::ZERO,
        requests: vec![],
    };
    bench.hear(0, Message::Request(request));
    assert_eq!(bench.said(), []);
}

// ---- retries (CT7) ----

#[test]
fn silence_sends_a_request_to_every_replica_under_its_old_number_ever_more_slowly() {
    // CT7: broadcast after a timeout. The executor knows the number (CT4).
    let mut bench = Bench::ready();
    bench.apply("x");
    bench.said();
    let everyone: Vec<_> = (0..3).map(|to| (to, requests(40, [2]))).collect();
    for delay in [150, 300, 600, 1200, 2000, 2000] {
        bench.pass(delay - 1);
        assert_eq!(bench.said(), [], "{delay} ms are not over");
        bench.pass(1);
        assert_eq!(bench.said(), everyone, "after {delay} ms");
    }
}

#[test]
fn a_registration_is_retried_like_a_request() {
    let mut bench = Bench::new();
    bench.connect_all();
    bench.apply("x");
    bench.said();
    bench.pass(RETRY_MS);
    assert_eq!(bench.said(), [(0, Said::Register), (1, Said::Register), (2, Said::Register)]);
}

#[test]
fn only_what_is_late_is_sent_again() {
    let mut bench = Bench::ready();
    bench.apply("x");
    bench.pass(100);
    bench.apply("y");
    bench.said();
    bench.pass(50);
    assert_eq!(bench.said(), (0..3).map(|to| (to, requests(40, [2]))).collect::<Vec<_>>());
    bench.pass(100);
    assert_eq!(bench.said(), (0..3).map(|to| (to, requests(40, [3]))).collect::<Vec<_>>());
}

#[test]
fn an_idle_client_arms_no_timer() {
    let mut bench = Bench::new();
    bench.connect_all();
    assert_eq!(bench.timers.len(), 0);
    bench.apply("x");
    bench.opened(40);
    bench.read(Consistency::Linearizable);
    assert_eq!(bench.timers.len(), 2);
    let (_, id) = bench.ids()[0];
    bench.replied(40, 1, "done");
    bench.answer(0, id, 99);
    assert_eq!(bench.done.len(), 2);
    assert_eq!(bench.timers.len(), 0);
}

#[test]
fn the_retry_timer_stands_at_the_earliest_need_and_not_at_all_without_links() {
    let mut bench = Bench::ready();
    bench.apply("x");
    let first = bench.now.plus(Duration::from_millis(RETRY_MS));
    assert_eq!(bench.timers[&ClientTimer::Retry], first);
    bench.pass(100);
    bench.apply("y");
    assert_eq!(bench.timers[&ClientTimer::Retry], first);
    (0..3).for_each(|replica| bench.disconnect(replica));
    assert_eq!(bench.timers.keys().collect::<Vec<_>>(), [&ClientTimer::Timeout]);
}

#[test]
fn a_busy_primary_is_asked_again_after_the_delay_and_alone_and_then_with_the_others() {
    let mut bench = Bench::ready();
    bench.apply("x");
    bench.said();
    bench.busy(0, 0);
    assert_eq!(bench.said(), [], "not at once");
    bench.pass(RETRY_MS);
    assert_eq!(bench.said(), [(0, requests(40, [2]))]);
    bench.busy(0, 0);
    bench.pass(2 * RETRY_MS);
    assert_eq!(bench.said().len(), 3, "a primary that is cut off may be busy for ever");
}

#[test]
fn a_busy_primary_that_is_news_is_not_flooded_but_gets_what_comes_next() {
    let mut bench = Bench::ready();
    bench.apply("x");
    bench.said();
    bench.busy(1, 1); // a backup passed it on
    assert_eq!(bench.said(), []);
    bench.apply("y");
    assert_eq!(bench.said(), [(1, requests(40, [3]))]);
    bench.pass(RETRY_MS);
    assert!(bench.said().contains(&(1, requests(40, [2]))));
    bench.busy(0, 0); // it led once
    bench.apply("z");
    assert_eq!(bench.said(), [(1, requests(40, [4]))]);
}

// ---- reads (§2.8) ----

#[test]
fn a_linearizable_read_asks_the_primary_and_after_silence_everyone_under_a_new_id() {
    let mut bench = Bench::ready();
    let ticket = bench.read(Consistency::Linearizable);
    let [(0, first)] = bench.ids()[..] else { panic!("one message") };
    bench.pass(RETRY_MS);
    let again = bench.ids();
    assert_eq!(again.iter().map(|(to, _)| *to).collect::<Vec<_>>(), [0, 1, 2]);
    assert!(again.iter().all(|(_, id)| *id == again[0].1 && *id != first));
    bench.answer(0, again[0].1, 99);
    assert_eq!(bench.done[&ticket], answer("answer"));
}

#[test]
fn an_answer_to_an_earlier_attempt_at_the_same_read_counts_once() {
    // Every attempt began after the call did: its answer is fresh enough for the call.
    let mut bench = Bench::ready();
    let ticket = bench.read(Consistency::Linearizable);
    let (_, first) = bench.ids()[0];
    bench.pass(RETRY_MS);
    let (_, second) = bench.ids()[0];
    bench.answer(0, first, 99);
    assert_eq!(bench.done[&ticket], answer("answer"));
    bench.answer(0, second, 99);
    assert_eq!(bench.done.len(), 1);
}

#[test]
fn not_primary_moves_a_read_to_the_new_primary_once_for_each_view() {
    let mut bench = Bench::ready();
    bench.read(Consistency::Linearizable);
    bench.apply("x");
    bench.said();
    bench.not_primary(0, 1);
    let said = bench.said();
    assert!(said.len() == 2 && said.iter().all(|(to, _)| *to == 1), "{said:?}");
    bench.not_primary(0, 1);
    bench.not_primary(1, 1);
    bench.not_primary(1, 0);
    assert_eq!(bench.said(), [], "two replicas that point at each other get no stream");
    bench.not_primary(1, 2);
    assert!(bench.said().iter().all(|(to, _)| *to == 2));
}

#[test]
fn a_stale_read_asks_one_replica_and_then_the_next() {
    let mut bench = Bench::ready();
    let ticket = bench.read(STALE);
    let mut asked = Vec::new();
    for delay in [150, 300, 600, 1200] {
        asked.extend(bench.ids());
        bench.pass(delay);
    }
    assert_eq!(asked.iter().map(|(to, _)| *to).collect::<Vec<_>>(), [1, 2, 0, 1]);
    assert_eq!(asked.iter().map(|(_, id)| *id).collect::<BTreeSet<_>>().len(), 4, "each attempt has its own id");
    bench.answer(1, asked[3].1, 99);
    assert_eq!(bench.done[&ticket], answer("answer"));
}

#[test]
fn a_stale_read_skips_replicas_that_are_not_connected_and_leaves_one_that_goes() {
    let mut bench = Bench::ready();
    bench.disconnect(1);
    bench.read(STALE);
    assert_eq!(bench.ids().iter().map(|(to, _)| *to).collect::<Vec<_>>(), [2]);
    bench.connect(1);
    bench.not_primary(0, 1);
    assert_eq!(bench.ids(), [], "what it asked still works on it, whoever leads");
    bench.disconnect(2);
    assert_eq!(bench.ids().iter().map(|(to, _)| *to).collect::<Vec<_>>(), [0]);
}

#[test]
fn a_stale_read_takes_no_answer_that_is_older_than_it_asked_for() {
    let mut bench = Bench::ready();
    let ticket = bench.read(STALE);
    let (_, id) = bench.ids()[0];
    bench.answer(1, id, 19);
    assert!(!bench.done.contains_key(&ticket));
    bench.answer(1, id, 20);
    assert_eq!(bench.done[&ticket], Ok(Answer { reply: bytes("answer"), op: OpNumber::new(20) }));
}

#[test]
fn a_backup_that_answers_a_read_does_not_say_who_leads() {
    let mut bench = Bench::ready();
    bench.read(STALE);
    let (_, id) = bench.ids()[0];
    bench.hear(1, Message::ReadReply { view: View::new(5), id, op: OpNumber::new(50), answer: Bytes::new() });
    bench.apply("x");
    assert_eq!(bench.said(), [(0, requests(40, [2]))]);
    bench.read(Consistency::Linearizable);
    let (_, id) = bench.ids()[0];
    bench.hear(2, Message::ReadReply { view: View::new(5), id, op: OpNumber::new(50), answer: Bytes::new() });
    assert_eq!(bench.said(), [(2, requests(40, [2]))], "the primary of view 5 says so itself");
}

// ---- timeouts (CT7) ----

#[test]
fn a_timeout_says_whether_the_operation_was_handed_to_anyone() {
    // CT7: TB's never-time-out client is the finding; an honest one is the answer.
    let mut bench = Bench::new();
    let unsent = bench.apply("x");
    let unread = bench.read(Consistency::Linearizable);
    bench.pass(TIMEOUT_MS - 1);
    assert_eq!(bench.done.len(), 0);
    bench.pass(1);
    assert_eq!(bench.done[&unsent], Err(CallError::Timeout { maybe_applied: false }));
    assert_eq!(bench.done[&unread], Err(CallError::Timeout { maybe_applied: false }));
    assert_eq!(bench.timers.len(), 0);
    bench.connect_all();
    assert_eq!(bench.said(), [], "nobody waits for it any more");

    let mut bench = Bench::ready();
    (0..3).for_each(|replica| bench.disconnect(replica));
    let unsent = bench.apply("x");
    bench.pass(TIMEOUT_MS);
    assert_eq!(bench.done[&unsent], Err(CallError::Timeout { maybe_applied: false }), "nor does it get a number");

    let mut bench = Bench::ready();
    let sent = bench.apply("x");
    bench.disconnect(0);
    bench.pass(TIMEOUT_MS);
    assert_eq!(bench.done[&sent], Err(CallError::Timeout { maybe_applied: true }));
}

#[test]
fn a_call_that_waits_for_its_session_was_not_applied() {
    // Only the registration was sent.
    let mut bench = Bench::new();
    bench.connect_all();
    let ticket = bench.apply("x");
    bench.pass(TIMEOUT_MS);
    assert_eq!(bench.done[&ticket], Err(CallError::Timeout { maybe_applied: false }));
    bench.said();
    bench.pass(TIMEOUT_MS);
    assert_eq!(bench.said(), [], "and nobody needs the session now");
    let next = bench.apply("y");
    assert_eq!(bench.said().len(), 3, "until somebody does");
    bench.opened(40);
    bench.replied(40, 1, "done");
    assert_eq!(bench.done[&next], answer("done"));
}

#[test]
fn an_abandoned_number_stays_used_and_is_acknowledged_and_never_sent_again() {
    // CT5: after the acknowledgement the table refuses a late copy.
    let mut bench = Bench::ready();
    bench.apply("abandoned");
    bench.pass(TIMEOUT_MS - 100);
    let kept = bench.apply("kept");
    bench.pass(100);
    bench.sent.clear();
    bench.pass(1000);
    assert!(!bench.sent.is_empty());
    for (_, message) in std::mem::take(&mut bench.sent) {
        let Message::Request(request) = message else { panic!("a request") };
        assert_eq!(request.acknowledged, RequestNumber::new(2));
        assert_eq!(request.requests, [(RequestNumber::new(3), Body::Apply(bytes("kept")))]);
    }
    bench.replied(40, 2, "late");
    assert!(!bench.done.contains_key(&kept));
    bench.replied(40, 3, "done");
    assert_eq!(bench.done[&kept], answer("done"));
}

#[test]
fn numbers_that_were_given_up_make_room_in_the_window() {
    let mut bench = Bench::ready();
    bench.apply("abandoned");
    bench.pass(TIMEOUT_MS - 100);
    for _ in 0..WINDOW {
        bench.submit(Call::Apply(bytes("x")));
    }
    bench.flush();
    bench.said();
    bench.pass(100);
    let said = bench.said();
    assert!(said.contains(&(0, requests(40, [WINDOW + 2]))), "{said:?}");
}

#[test]
fn limits_of_configuration_do_no_harm() {
    let mut bench = Bench::with(0, 0);
    bench.connect_all();
    let ticket = bench.apply("x");
    bench.pass(0);
    assert_eq!(bench.done[&ticket], Err(CallError::Timeout { maybe_applied: false }));
    let mut bench = Bench::with(0, u64::MAX);
    bench.connect_all();
    bench.apply("x");
    bench.pass(100);
    assert!(bench.said().len() < 50, "a retry delay of zero does not spin");
}

// ---- whatever happens ----

/// One thing that happens to a client.
#[derive(Clone, Debug)]
enum Step {
    Submit(u16, u8),
    Deliver(u16),
    Repeat(u16),
    Lose(u16),
    Answer(u16),
    AnswerTwice(u16),
    LoseAnswer(u16),
    Connect(u8),
    Disconnect(u8),
    View(u8, u8),
    Busy(u8),
    Evict,
    Pass(u16),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (prop_oneof![8 => 1_u16..4, 1 => 300_u16..1200], 0_u8..8).prop_map(|(count, kind)| Step::Submit(count, kind)),
        10 => any::<u16>().prop_map(Step::Deliver),
        2 => any::<u16>().prop_map(Step::Repeat),
        2 => any::<u16>().prop_map(Step::Lose),
        10 => any::<u16>().prop_map(Step::Answer),
        2 => any::<u16>().prop_map(Step::AnswerTwice),
        2 => any::<u16>().prop_map(Step::LoseAnswer),
        3 => (0_u8..3).prop_map(Step::Connect),
        2 => (0_u8..3).prop_map(Step::Disconnect),
        1 => (0_u8..3, 0_u8..6).prop_map(|(from, view)| Step::View(from, view)),
        1 => (0_u8..6).prop_map(Step::Busy),
        1 => Just(Step::Evict),
        4 => (1_u16..2500).prop_map(Step::Pass),
    ]
}

/// The cluster as a client sees it: one order, the real table of sessions, and a network that does what it likes.
struct World {
    bench: Bench,
    connected: BTreeSet<u8>,
    table: Sessions,
    position: u64,
    /// How often each operation was applied. An operation is its ticket.
    applied: BTreeMap<Bytes, u32>,
    network: Vec<Message>,
    answers: Vec<Message>,
    named: BTreeMap<(SessionId, RequestNumber), Body>,
    ids: BTreeSet<u64>,
    /// What each call is, for its answer.
    calls: BTreeMap<Ticket, Bytes>,
}

impl World {
    fn new(timeout_ms: u64) -> Self {
        Self {
            bench: Bench::with(RETRY_MS, timeout_ms),
            connected: BTreeSet::new(),
            table: Sessions::default(),
            position: 0,
            applied: BTreeMap::new(),
            network: Vec::new(),
            answers: Vec::new(),
            named: BTreeMap::new(),
            ids: BTreeSet::new(),
            calls: BTreeMap::new(),
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Submit(count, kind) => self.submit(count, kind),
            Step::Deliver(index) => drop(remove(&mut self.network, index).map(|message| self.deliver(message))),
            Step::Repeat(index) => drop(pick(&self.network, index).map(|message| self.deliver(message))),
            Step::Lose(index) => drop(remove(&mut self.network, index)),
            Step::Answer(index) => drop(remove(&mut self.answers, index).map(|message| self.bench.hear(0, message))),
            Step::AnswerTwice(index) => drop(pick(&self.answers, index).map(|message| self.bench.hear(1, message))),
            Step::LoseAnswer(index) => drop(remove(&mut self.answers, index)),
            Step::Connect(replica) => {
                self.connected.insert(replica);
                self.bench.connect(replica);
            }
            Step::Disconnect(replica) => {
                self.connected.remove(&replica);
                self.bench.disconnect(replica);
            }
            Step::View(from, view) => self.bench.not_primary(from, u64::from(view)),
            Step::Busy(view) => self.bench.busy(view % 3, u64::from(view)),
            Step::Evict => {
                for raw in 1..=self.position {
                    self.table.close(SessionId::new(raw));
                }
            }
            Step::Pass(millis) => self.bench.pass(u64::from(millis)),
        }
        self.overhear();
    }

    fn submit(&mut self, count: u16, kind: u8) {
        for _ in 0..count {
            let bytes = bytes(&(self.bench.tickets + 1).to_string());
            let call = match kind {
                0 => Call::Read(Consistency::Linearizable, bytes.clone()),
                1 => Call::Read(STALE, bytes.clone()),
                2 => Call::Read(Consistency::Ordered, bytes.clone()),
                _ => Call::Apply(bytes.clone()),
            };
            let ticket = self.bench.submit(call);
            self.calls.insert(ticket, bytes);
        }
        self.bench.flush();
    }

    /// Checks what the client said, and puts it on the network.
    fn overhear(&mut self) {
        for (to, message) in std::mem::take(&mut self.bench.sent) {
            assert!(self.connected.contains(&to), "nothing is said to a replica that is not connected");
            match &message {
                Message::Request(request) => {
                    for (number, body) in &request.requests {
                        assert!(number.since(request.acknowledged) <= WINDOW, "beyond the window");
                        assert!(
                            *body == Body::Register || *number > request.acknowledged,
                            "acknowledged, and sent again"
                        );
                        let named = self.named.entry((request.session, *number)).or_insert_with(|| body.clone());
                        assert_eq!(named, body, "one number, two operations");
                    }
                }
                Message::Read { id, .. } => drop(self.ids.insert(*id)),
                other => panic!("no client says {other:?}"),
            }
            self.network.push(message);
        }
    }

    /// The cluster orders and executes it.
    fn deliver(&mut self, message: Message) {
        match message {
            Message::Request(request) => {
                for (number, body) in request.requests {
                    self.position += 1;
                    let one = sessions::Request {
                        client: request.client,
                        session: request.session,
                        number,
                        acknowledged: request.acknowledged,
                        body,
                    };
                    let Some(ruling) = self.rule(&one) else { continue };
                    assert!(!matches!(ruling, Ruling::OutsideWindow | Ruling::Reused | Ruling::Closed), "{ruling:?}");
                    let (view, op) = (View::ZERO, OpNumber::new(self.position));
                    let rulings = vec![(number, ruling)];
                    self.answers.push(Message::Reply(Reply { view, op, session: request.session, rulings }));
                }
            }
            Message::Read { id, query, .. } => {
                let op = OpNumber::new(self.position + 20);
                self.answers.push(Message::ReadReply { view: View::ZERO, id, op, answer: query });
            }
            other => panic!("no client says {other:?}"),
        }
    }

    fn rule(&mut self, request: &sessions::Request) -> Option<Ruling> {
        let position = Position::new(self.position);
        if request.body == Body::Register {
            return Some(Ruling::Opened(self.table.open(request.client, position)));
        }
        match self.table.admit(request, position) {
            Admission::Answered(ruling) => return Some(ruling),
            Admission::Acknowledged => return None,
            Admission::Fresh => {}
        }
        let (Body::Apply(bytes) | Body::Query(bytes)) = &request.body else { panic!("no client says this") };
        *self.applied.entry(bytes.clone()).or_default() += 1;
        self.table.store(request, bytes.clone());
        Some(Ruling::Replied(bytes.clone()))
    }

    /// Everything is connected and nothing is lost any more.
    fn settle(&mut self) {
        for replica in 0..3 {
            self.take(Step::Connect(replica));
        }
        for _ in 0..40 {
            self.overhear();
            while let Some(message) = self.network.pop() {
                self.deliver(message);
            }
            for message in std::mem::take(&mut self.answers) {
                self.bench.hear(0, message);
            }
            self.bench.pass(RETRY_MS);
        }
    }

    fn check_end(&self) {
        assert_eq!(self.bench.done.len(), self.calls.len(), "every call completes");
        assert_eq!(self.bench.timers.len(), 0, "an idle client arms no timer");
        for (ticket, result) in &self.bench.done {
            let call = &self.calls[ticket];
            let applied = self.applied.get(call).copied().unwrap_or(0);
            assert!(applied <= 1, "applied {applied} times: {call:?}");
            match result {
                Ok(answer) => assert_eq!(answer.reply, call, "another call's answer"),
                Err(CallError::Timeout { maybe_applied } | CallError::Evicted { maybe_applied }) => {
                    assert!(*maybe_applied || applied == 0, "it was applied: {call:?}");
                }
                Err(CallError::Refused(why)) => panic!("refused: {why}"),
            }
        }
    }
}

fn pick(messages: &[Message], index: u16) -> Option<Message> {
    messages.get(usize::from(index) % messages.len().max(1)).cloned()
}

fn remove(messages: &mut Vec<Message>, index: u16) -> Option<Message> {
    (!messages.is_empty()).then(|| messages.swap_remove(usize::from(index) % messages.len()))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// CT1-CT7: whatever the network, the links and the clock do.
    #[test]
    fn no_call_is_lost_answered_twice_or_applied_twice(
        steps in proptest::collection::vec(step(), 1..120),
        patient in any::<bool>(),
    ) {
        let mut world = World::new(if patient { 3_600_000 } else { 3_000 });
        for step in steps {
            world.take(step);
        }
        world.settle();
        if patient {
            let late = |result: &Result<Answer, CallError>| matches!(result, Err(CallError::Timeout { .. }));
            assert!(!world.bench.done.values().any(late), "with answers, nothing times out");
        }
        world.check_end();
    }
}
