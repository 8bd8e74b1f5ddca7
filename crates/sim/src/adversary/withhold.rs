//! Says it to some only: its victims do not hear, all others do.

use super::{Frame, Lie, Scene};
use quorate_core::protocol::Protocol;

/// Keeps messages from its victims.
#[derive(Debug)]
pub struct Withhold;

impl<P: Protocol> Lie<P> for Withhold {
    fn tell(&mut self, frame: Frame, scene: &mut Scene<'_, P>) -> Vec<Frame> {
        if scene.victims.contains(&frame.to) && scene.random.chance(scene.often) {
            scene.told += 1;
            return Vec::new();
        }
        vec![frame]
    }
}
