//! What a client sends, when it sends it again, and when it gives up.

use super::links::{Attempt, Replicas, Whom};
use super::session::{Open, Sent, Session, Waiting};
use super::{Client, ClientTimer, Message, Outbox};
use crate::vr::message::{REQUESTS_MAX, Request};
use quorate_core::ids::{ReplicaId, RequestNumber, SessionId};
use quorate_core::protocol::CallError;
use quorate_core::sessions::{Body, WINDOW};
use quorate_core::time::Instant;
use std::collections::BTreeMap;

/// Bytes of operations in one message, unless a single one is longer: well below the frame that replicas take from clients.
const MESSAGE_BYTES_MAX: usize = 512 << 10;

impl Client {
    /// Sends everything that wants a replica which was not handed it, or that is due.
    pub(super) fn sweep(&mut self, out: &mut Outbox) {
        let now = out.now();
        self.links.soonest = None; // every attempt that counts is looked at below
        let mut groups: BTreeMap<Replicas, Vec<RequestNumber>> = BTreeMap::new();
        if let Session::Open(open) = &mut self.session {
            for (number, sent) in &mut open.sent {
                let to = sent.attempt.step(&mut self.links, now);
                if !to.is_empty() {
                    groups.entry(to).or_default().push(*number);
                }
            }
        }
        for (to, numbers) in groups {
            self.send_requests(to, &numbers, out);
        }
        self.reads.fresh.clear(); // they are among all
        for key in self.reads.keys() {
            self.reads.deliver(key, &mut self.links, out);
        }
        self.send_new(out);
    }

    /// Sends what was not sent before, as far as it may be.
    pub(super) fn send_new(&mut self, out: &mut Outbox) {
        for key in std::mem::take(&mut self.reads.fresh) {
            self.reads.deliver(key, &mut self.links, out);
        }
        self.open_session(out);
        self.send_waiting(out);
        self.arm(out);
    }

    /// Asks for a session if a request waits for one, by an operation that is ordered like any other (CT1).
    fn open_session(&mut self, out: &mut Outbox) {
        if self.waiting.is_empty() {
            return; // nobody needs it: no retries either
        }
        if matches!(self.session, Session::None) {
            self.session = Session::Opening(Attempt::new(Whom::Primary));
        }
        let Session::Opening(attempt) = &mut self.session else { return };
        let to = attempt.step(&mut self.links, out.now());
        let request = Request {
            client: self.client,
            session: SessionId::ZERO,
            acknowledged: RequestNumber::ZERO,
            requests: vec![(RequestNumber::ZERO, Body::Register)],
        };
        for replica in to.iter() {
            out.send(replica, Message::Request(request.clone()));
        }
    }

    /// Numbers and sends what waits, as far as the window reaches. Without a link nothing gets a number: a number means
    /// that a link was given the request.
    fn send_waiting(&mut self, out: &mut Outbox) {
        let Session::Open(open) = &mut self.session else { return };
        let to = self.links.wanted();
        if to.is_empty() {
            return;
        }
        let mut numbers = Vec::new();
        while let Some(Waiting { ticket, body, deadline }) =
            self.waiting.pop_front_if(|next| open.has_room(next.body.len()))
        {
            let mut attempt = Attempt::new(Whom::Primary);
            let wanted = attempt.step(&mut self.links, out.now());
            assert_eq!(wanted, to, "a new request wants what every new request wants");
            numbers.push(open.add(Sent { ticket, body, deadline, attempt }));
        }
        self.send_requests(to, &numbers, out);
    }

    /// Sends these requests of the open session in as few messages as their bounds allow.
    fn send_requests(&self, to: Replicas, numbers: &[RequestNumber], out: &mut Outbox) {
        let Some(open) = self.open() else { return };
        let acknowledged = open.acknowledged();
        let (mut requests, mut bytes) = (Vec::new(), 0_usize);
        let mut send = |requests: Vec<(RequestNumber, Body)>| {
            if requests.is_empty() {
                return;
            }
            let request = Request { client: self.client, session: open.id, acknowledged, requests };
            for replica in to.iter() {
                out.send(replica, Message::Request(request.clone()));
            }
        };
        for number in numbers {
            let Some(sent) = open.sent.get(number) else { continue };
            assert!(*number > acknowledged, "what is acknowledged is never sent again");
            assert!(number.since(acknowledged) <= WINDOW, "nothing is sent that the table would have to refuse");
            let more = bytes.saturating_add(sent.body.len());
            if requests.len() >= REQUESTS_MAX || more > MESSAGE_BYTES_MAX {
                send(std::mem::take(&mut requests));
                bytes = 0;
            }
            bytes = bytes.saturating_add(sent.body.len());
            requests.push((*number, sent.body.clone()));
        }
        send(requests);
    }

    /// Gives up what has waited too long, and says whether it may have been applied (CT7).
    ///
    /// A request that was sent leaves its number behind: used, never sent again, and from the next request on counted as
    /// acknowledged. That is safe: the table refuses what is acknowledged, so a copy that the network still holds is either
    /// ordered before that acknowledgement, and applied once, or after it, and not applied. `maybe_applied` covers both.
    pub(super) fn expire(&mut self, out: &mut Outbox) {
        let now = out.now();
        let mut late = |ticket, maybe_applied| out.complete(ticket, Err(CallError::Timeout { maybe_applied }));
        if let Session::Open(open) = &mut self.session {
            while let Some(sent) = open.remove_first_if(|sent| sent.deadline <= now) {
                late(sent.ticket, !quorate_core::mutated!("client/says-that-nothing-happened"));
            }
        }
        while let Some(waiting) = self.waiting.pop_front_if(|waiting| waiting.deadline <= now) {
            late(waiting.ticket, false);
        }
        while let Some(read) = self.reads.remove_first_if(|read| read.deadline <= now) {
            late(read.ticket, read.sent);
        }
    }

    /// Tells the host when to wake us, where that changed. The retry may come early, when the one that was due first has
    /// been answered since; then it finds nothing to do and is armed again.
    pub(super) fn arm(&mut self, out: &mut Outbox) {
        let sent = self.open().and_then(|open| open.sent.values().next());
        let opening = matches!(self.session, Session::Opening(_)) && !self.waiting.is_empty();
        let unanswered = opening || sent.is_some() || !self.reads.reads.is_empty();
        let first = [
            sent.map(|sent| sent.deadline),
            self.waiting.front().map(|waiting| waiting.deadline),
            self.reads.reads.values().next().map(|read| read.deadline),
        ];
        let timeout = first.into_iter().flatten().min();
        self.links.soonest = self.links.soonest.filter(|_| unanswered);
        set_timer(&mut self.armed_retry, ClientTimer::Retry, self.links.soonest, out);
        set_timer(&mut self.armed_timeout, ClientTimer::Timeout, timeout, out);
    }

    /// What a replica was handed does not count any more.
    pub(super) fn forget_handed(&mut self, replica: ReplicaId) {
        for attempt in self.attempts() {
            attempt.handed.remove(replica);
        }
    }

    /// All that is under way.
    pub(super) fn attempts(&mut self) -> impl Iterator<Item = &mut Attempt> {
        let (opening, open) = match &mut self.session {
            Session::None => (None, None),
            Session::Opening(attempt) => (Some(attempt), None),
            Session::Open(open) => (None, Some(open)),
        };
        let sent = open.into_iter().flat_map(|open| open.sent.values_mut()).map(|sent| &mut sent.attempt);
        let reads = self.reads.reads.values_mut().map(|read| &mut read.attempt);
        opening.into_iter().chain(sent).chain(reads)
    }

    pub(super) fn open(&self) -> Option<&Open> {
        match &self.session {
            Session::Open(open) => Some(open),
            Session::None | Session::Opening(_) => None,
        }
    }

    /// The replica that this client asks first for stale reads: clients spread over all.
    pub(super) fn home(&self) -> usize {
        let index = self.client.get() % self.links.quorums.replicas() as u128;
        usize::try_from(index).unwrap_or(0) // less than the number of replicas
    }
}

fn set_timer(armed: &mut Option<Instant>, timer: ClientTimer, at: Option<Instant>, out: &mut Outbox) {
    if *armed == at {
        return;
    }
    match at {
        Some(at) => out.arm(timer, at.since(out.now())),
        None => out.disarm(timer),
    }
    *armed = at;
}
