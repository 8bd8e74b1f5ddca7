//! Says again what it once said, perhaps to somebody else: each such message is genuine, and of another time.

use super::{Frame, Lie, Scene};
use quorate_core::protocol::Protocol;

/// Frames that a liar remembers.
const REMEMBERED_MAX: usize = 256;

/// Repeats old messages.
#[derive(Debug, Default)]
pub struct Replay {
    said: Vec<Frame>,
}

impl<P: Protocol> Lie<P> for Replay {
    fn tell(&mut self, frame: Frame, scene: &mut Scene<'_, P>) -> Vec<Frame> {
        let mut frames = vec![frame.clone()];
        if scene.random.chance(scene.often) && !self.said.is_empty() {
            let old = self.said.get(scene.random.index(self.said.len())).cloned();
            let to = if scene.random.chance(500_000) { Some(frame.to) } else { None };
            frames.extend(old.map(|old| Frame { to: to.unwrap_or(old.to), ..old }));
            scene.told += 1;
        }
        if self.said.len() < REMEMBERED_MAX {
            self.said.push(frame);
        } else if let Some(place) = self.said.get_mut(scene.random.index(REMEMBERED_MAX)) {
            *place = frame;
        }
        frames
    }
}
