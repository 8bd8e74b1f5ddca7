//! Serves no state, or takes for ever: says that it does not have what it offered, or falls silent in the middle.

use super::{Frame, Lie, Scene};
use crate::process::CLUSTER;
use quorate_core::ids::Epoch;
use quorate_core::node::Payload;
use quorate_core::protocol::Protocol;
use quorate_core::transfer::Message;
use quorate_core::wire::Envelope;

/// Takes back what it offered.
#[derive(Debug)]
pub struct StaleState;

impl<P: Protocol> Lie<P> for StaleState {
    fn tell(&mut self, frame: Frame, scene: &mut Scene<'_, P>) -> Vec<Frame> {
        if !matches!(frame.label, "Chunk" | "Manifest") || !scene.random.chance(scene.often.saturating_mul(3)) {
            return vec![frame];
        }
        scene.told += 1;
        let checkpoint = match Envelope::open::<Payload<P::Message>>(&frame.bytes) {
            Ok((_, Payload::Transfer(Message::Chunk(checkpoint, ..)))) => checkpoint,
            Ok((_, Payload::Transfer(Message::Manifest(manifest)))) => manifest.checkpoint(),
            _ => return Vec::new(),
        };
        if scene.random.chance(500_000) {
            return Vec::new();
        }
        let payload = Payload::<P::Message>::Transfer(Message::Unavailable(checkpoint));
        let bytes = Envelope { cluster: CLUSTER, epoch: Epoch::ZERO }.seal(&payload);
        vec![Frame { bytes, label: "Unavailable", ..frame }]
    }
}
