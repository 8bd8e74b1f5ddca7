//! Placeholder.
use super::{ClientTimer, Message, Vr};
use quorate_core::ids::ReplicaId;
use quorate_core::protocol::{self, Call, ClientConfig, ClientOutbox, Ticket};
/// Placeholder.
#[derive(Debug)]
pub struct Client;
impl protocol::Client<Vr> for Client {
    fn new(_: ClientConfig) -> Self {
        Self
    }
    fn submit(&mut self, _: Ticket, _: Call, _: &mut ClientOutbox<Vr>) {}
    fn flush(&mut self, _: &mut ClientOutbox<Vr>) {}
    fn on_message(&mut self, _: ReplicaId, _: Message, _: &mut ClientOutbox<Vr>) {}
    fn on_timer(&mut self, _: ClientTimer, _: &mut ClientOutbox<Vr>) {}
    fn on_connected(&mut self, _: ReplicaId, _: &mut ClientOutbox<Vr>) {}
    fn on_disconnected(&mut self, _: ReplicaId, _: &mut ClientOutbox<Vr>) {}
}
