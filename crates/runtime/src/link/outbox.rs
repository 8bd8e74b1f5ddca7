//! What waits to be written to one connection: bounded in bytes, filled by the host without ever waiting, emptied by the
//! connection's task as many frames at a time as fit into one write.

use super::frame::{HEADER_BYTES, Kind, header};
use super::status::CloseReason;
use super::{Sent, held};
use bytes::{Bytes, BytesMut};
use quorate_core::ids::Epoch;
use std::collections::VecDeque;
use std::sync::Mutex;
use tokio::sync::Notify;

/// About how much is put together for one write.
const WRITE_BYTES: usize = 256 * 1024;
/// Bodies from this size on are written from where they are; smaller ones are copied together.
const COPY_BYTES_MAX: usize = 64 * 1024;
/// What a queued frame costs beside its body: the header, and its place in the queue.
const FRAME_OVERHEAD_BYTES: usize = HEADER_BYTES + size_of::<Bytes>();

/// A bounded queue of bodies for one connection.
#[derive(Debug)]
pub(super) struct Outbox {
    state: Mutex<State>,
    filled: Notify,
    ended: Notify,
    bytes_max: usize,
}

#[derive(Debug, Default)]
struct State {
    bodies: VecDeque<Bytes>,
    bytes: usize,
    ping: bool,
    closed: Option<CloseReason>,
}

impl Outbox {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { state: Mutex::default(), filled: Notify::new(), ended: Notify::new(), bytes_max }
    }

    /// Queues a body, unless the bytes that wait would exceed the bound, or the outbox is closed.
    pub(super) fn push(&self, body: Bytes) -> Sent {
        let mut state = held(&self.state);
        let cost = FRAME_OVERHEAD_BYTES + body.len();
        if state.closed.is_some() {
            return Sent::Unconnected;
        }
        if state.bytes + cost > self.bytes_max {
            return Sent::Full;
        }
        state.bytes += cost;
        state.bodies.push_back(body);
        drop(state);
        self.filled.notify_one();
        Sent::Queued
    }

    /// Asks for a ping, unless something waits to be written anyway.
    pub(super) fn ping(&self) {
        held(&self.state).ping = true;
        self.filled.notify_one();
    }

    /// Ends the connection, even one that is stuck in a write. The first reason stays.
    pub(super) fn close(&self, reason: CloseReason) {
        held(&self.state).closed.get_or_insert(reason);
        self.ended.notify_one();
    }

    /// Waits until it is closed, and says why.
    pub(super) async fn ended(&self) -> CloseReason {
        loop {
            if let Some(reason) = self.closed() {
                return reason;
            }
            self.ended.notified().await;
        }
    }

    /// Closes, and returns how many frames were never written.
    pub(super) fn abandon(&self, reason: CloseReason) -> u64 {
        self.close(reason);
        let mut state = held(&self.state);
        state.bytes = 0;
        std::mem::take(&mut state.bodies).len() as u64
    }

    /// Why it was closed, if it was.
    pub(super) fn closed(&self) -> Option<CloseReason> {
        held(&self.state).closed.clone()
    }

    /// Bytes that wait.
    pub(super) fn bytes(&self) -> usize {
        held(&self.state).bytes
    }

    /// Waits until there is something to write, and fills `staged` with it.
    pub(super) async fn stage(&self, staged: &mut Staged, epoch: Epoch) {
        while !self.try_stage(staged, epoch) {
            staged.release();
            self.filled.notified().await;
        }
    }

    fn try_stage(&self, staged: &mut Staged, epoch: Epoch) -> bool {
        let mut state = held(&self.state);
        while staged.small.len() < WRITE_BYTES && staged.large.is_none() {
            let Some(body) = state.bodies.pop_front() else { break };
            state.bytes -= FRAME_OVERHEAD_BYTES + body.len();
            staged.add(body, epoch);
        }
        let ping = std::mem::take(&mut state.ping);
        if ping && staged.frames == 0 {
            staged.small.extend_from_slice(&header(Kind::Ping, epoch, 0));
        }
        !staged.small.is_empty()
    }
}

/// What goes out in one go: many frames copied together, and at most one large body after them.
#[derive(Debug, Default)]
pub(super) struct Staged {
    pub(super) small: BytesMut,
    pub(super) large: Option<Bytes>,
    pub(super) frames: u64,
}

impl Staged {
    fn add(&mut self, body: Bytes, epoch: Epoch) {
        self.frames += 1;
        self.small.extend_from_slice(&header(Kind::Message, epoch, body.len()));
        if body.len() < COPY_BYTES_MAX {
            self.small.extend_from_slice(&body);
        } else {
            self.large = Some(body);
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.small.len() + self.large.as_ref().map_or(0, Bytes::len)
    }

    pub(super) fn clear(&mut self) {
        self.small.clear();
        self.large = None;
        self.frames = 0;
    }

    /// Gives memory back before a pause: a thousand idle clients should not keep a thousand write buffers.
    fn release(&mut self) {
        if self.small.capacity() > COPY_BYTES_MAX {
            self.small = BytesMut::new();
        }
    }
}
