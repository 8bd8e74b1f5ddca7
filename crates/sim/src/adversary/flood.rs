//! Says it many times.

use super::{Frame, Lie, Scene};
use quorate_core::protocol::Protocol;

/// Copies that one message becomes, at most.
const COPIES_MAX: u64 = 12;

/// Repeats itself at once.
#[derive(Debug)]
pub struct Flood;

impl<P: Protocol> Lie<P> for Flood {
    fn tell(&mut self, frame: Frame, scene: &mut Scene<'_, P>) -> Vec<Frame> {
        if !scene.random.chance(scene.often / 4) {
            return vec![frame];
        }
        scene.told += 1;
        let copies = scene.random.between(2, COPIES_MAX);
        (0..copies).map(|_| frame.clone()).collect()
    }
}
