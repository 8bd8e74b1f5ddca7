//! Says it late: just soon enough that nobody gives up on it.

use super::{Frame, Lie, Scene};
use crate::clock::MILLI;
use quorate_core::protocol::Protocol;

/// Speaks late.
#[derive(Debug)]
pub struct Drip;

impl<P: Protocol> Lie<P> for Drip {
    fn tell(&mut self, mut frame: Frame, scene: &mut Scene<'_, P>) -> Vec<Frame> {
        if scene.random.chance(scene.often) {
            scene.told += 1;
            frame.delay = frame.delay.saturating_add(scene.random.between(50 * MILLI, 280 * MILLI));
        }
        vec![frame]
    }
}

/// Speaks so many nanoseconds late, always.
#[derive(Debug)]
pub struct Late(pub u64);

impl<P: Protocol> Lie<P> for Late {
    fn tell(&mut self, mut frame: Frame, scene: &mut Scene<'_, P>) -> Vec<Frame> {
        scene.told += 1;
        frame.delay = frame.delay.saturating_add(self.0);
        vec![frame]
    }
}
