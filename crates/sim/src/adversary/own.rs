//! The lies that only a protocol itself can think of.

use super::{Frame, Lie, Scene};
use quorate_core::protocol::Protocol;

/// Tells the protocol's own lies.
#[derive(Debug)]
pub struct Own;

impl<P: Protocol> Lie<P> for Own {
    fn tell(&mut self, frame: Frame, scene: &mut Scene<'_, P>) -> Vec<Frame> {
        let lies = scene.random.chance(scene.often);
        let Some((message, hook)) = frame.message::<P>().filter(|_| lies).zip(scene.lies) else { return vec![frame] };
        match hook.own(frame.to, &message, scene.keyring, scene.random) {
            Some(messages) => {
                scene.told += 1;
                messages.into_iter().map(|message| frame.with::<P>(message, scene.keyring)).collect()
            }
            None => vec![frame],
        }
    }
}
