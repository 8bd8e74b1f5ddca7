//! Says nothing: to anybody, for a while or for good.

use super::{Frame, Lie, Scene};
use quorate_core::protocol::Protocol;

/// Frames that one silence swallows, at most.
const SILENCE_FRAMES_MAX: u64 = 400;

/// Falls silent every now and then.
#[derive(Debug, Default)]
pub struct Silent {
    left: u64,
}

impl Silent {
    /// Never says anything again.
    pub fn for_good() -> Self {
        Self { left: u64::MAX }
    }
}

impl<P: Protocol> Lie<P> for Silent {
    fn tell(&mut self, frame: Frame, scene: &mut Scene<'_, P>) -> Vec<Frame> {
        if self.left == 0 && scene.random.chance(scene.often / 50) {
            self.left = scene.random.between(1, SILENCE_FRAMES_MAX);
        }
        if self.left == 0 {
            return vec![frame];
        }
        self.left -= 1;
        scene.told += 1;
        Vec::new()
    }
}
