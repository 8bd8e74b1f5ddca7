//! Serves wrong bytes of a state: a chunk with a changed byte, or a manifest of another state under the same name.

use super::{Frame, Lie, Scene};
use crate::process::CLUSTER;
use quorate_core::crypto::Digest;
use quorate_core::ids::Epoch;
use quorate_core::node::Payload;
use quorate_core::protocol::Protocol;
use quorate_core::transfer::Message;
use quorate_core::wire::Envelope;

/// Damages what it serves.
#[derive(Debug)]
pub struct BadChunks;

impl<P: Protocol> Lie<P> for BadChunks {
    fn tell(&mut self, frame: Frame, scene: &mut Scene<'_, P>) -> Vec<Frame> {
        if !matches!(frame.label, "Chunk" | "Manifest") || !scene.random.chance(scene.often.saturating_mul(3)) {
            return vec![frame];
        }
        let Ok((_, Payload::Transfer(message))) = Envelope::open::<Payload<P::Message>>(&frame.bytes) else {
            return vec![frame];
        };
        let message = match message {
            Message::Chunk(checkpoint, index, bytes) => {
                let mut bytes = bytes.to_vec();
                let at = scene.random.index(bytes.len());
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1;
                }
                Message::Chunk(checkpoint, index, bytes.into())
            }
            Message::Manifest(mut manifest) => {
                manifest.digest = Digest::of(manifest.digest.as_bytes());
                Message::Manifest(manifest)
            }
            other => other,
        };
        scene.told += 1;
        let payload = Payload::<P::Message>::Transfer(message);
        let bytes = Envelope { cluster: CLUSTER, epoch: Epoch::ZERO }.seal(&payload);
        vec![Frame { bytes, ..frame }]
    }
}
