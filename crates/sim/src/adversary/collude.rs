//! Liars that work together: they have the same victims, and tell them the same other version of everything, always. More of
//! them than a protocol's model has break it at once; as many as it has must not.

use super::{Frame, Lie, Scene};
use quorate_core::protocol::Protocol;

/// Says to its victims, without exception, what the other colluders say to them.
#[derive(Debug)]
pub struct Collude;

impl<P: Protocol> Lie<P> for Collude {
    fn tell(&mut self, frame: Frame, scene: &mut Scene<'_, P>) -> Vec<Frame> {
        if !scene.shared_victims.contains(&frame.to) {
            return vec![frame];
        }
        let Some((message, hook)) = frame.message::<P>().zip(scene.lies) else { return vec![frame] };
        match hook.other(&message, scene.keyring, scene.random) {
            Some(message) => {
                scene.told += 1;
                vec![frame.with::<P>(message, scene.keyring)]
            }
            None => vec![frame],
        }
    }
}
