//! Placeholder.
use super::{Message, Outbox, Timer, Vr};
use bytes::Bytes;
use quorate_core::ids::{OpNumber, Peer};
use quorate_core::protocol::{self, Checkpoint, QueryTicket, Restore, RestoreError, Status};
use quorate_core::sessions::Outcome;
use quorate_core::time::WallTime;
/// Placeholder.
#[derive(Debug)]
pub struct Replica;
impl protocol::Replica<Vr> for Replica {
    fn restore(_: Restore<Vr>, _: &mut Outbox) -> Result<Self, RestoreError> { Ok(Self) }
    fn on_message(&mut self, _: Peer, _: Message, _: &mut Outbox) {}
    fn on_timer(&mut self, _: Timer, _: &mut Outbox) {}
    fn on_executed(&mut self, _: OpNumber, _: Outcome, _: &mut Outbox) {}
    fn on_queried(&mut self, _: QueryTicket, _: Bytes, _: &mut Outbox) {}
    fn on_checkpoint(&mut self, _: Checkpoint, _: &mut Outbox) {}
    fn on_installed(&mut self, _: Checkpoint, _: Option<WallTime>, _: &mut Outbox) {}
    fn on_fetch_failed(&mut self, _: Checkpoint, _: &mut Outbox) {}
    fn status(&self) -> Status { Status::default() }
    fn check(&self) -> Result<(), String> { Ok(()) }
}
