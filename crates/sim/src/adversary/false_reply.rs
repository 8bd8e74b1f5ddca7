//! Tells clients what did not happen: a reply with another result.

use super::{Frame, Lie, Scene};
use quorate_core::ids::Peer;
use quorate_core::protocol::Protocol;

/// Answers wrongly.
#[derive(Debug)]
pub struct FalseReply;

impl<P: Protocol> Lie<P> for FalseReply {
    fn tell(&mut self, frame: Frame, scene: &mut Scene<'_, P>) -> Vec<Frame> {
        let lies = matches!(frame.to, Peer::Client(_)) && scene.random.chance(scene.often);
        let Some((message, hook)) = frame.message::<P>().filter(|_| lies).zip(scene.lies) else { return vec![frame] };
        match hook.false_reply(&message, scene.keyring, scene.random) {
            Some(message) => {
                scene.told += 1;
                vec![frame.with::<P>(message, scene.keyring)]
            }
            None => vec![frame],
        }
    }
}
