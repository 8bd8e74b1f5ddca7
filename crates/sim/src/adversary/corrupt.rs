//! Says something that nobody understands: bytes changed, cut off, or put behind.

use super::{Frame, Lie, Scene};
use quorate_core::protocol::Protocol;

/// Sends garbage.
#[derive(Debug)]
pub struct Corrupt;

impl<P: Protocol> Lie<P> for Corrupt {
    fn tell(&mut self, frame: Frame, scene: &mut Scene<'_, P>) -> Vec<Frame> {
        if !scene.random.chance(scene.often) {
            return vec![frame];
        }
        scene.told += 1;
        let mut bytes = frame.bytes.to_vec();
        match scene.random.below(3) {
            0 => bytes.truncate(scene.random.index(bytes.len())),
            1 => bytes.extend_from_slice(&scene.random.bits().to_le_bytes()),
            _ => {
                for _ in 0..scene.random.between(1, 8) {
                    let at = scene.random.index(bytes.len());
                    let [noise, ..] = scene.random.bits().to_le_bytes();
                    if let Some(byte) = bytes.get_mut(at) {
                        *byte ^= noise | 1;
                    }
                }
            }
        }
        vec![Frame { bytes: bytes.into(), ..frame }]
    }
}
