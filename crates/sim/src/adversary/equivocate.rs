//! Says one thing to some and another to the others: to its victims the protocol's other version of a message, and the same
//! other version to each of them.

use super::{Frame, Lie, Scene};
use bytes::Bytes;
use quorate_core::protocol::Protocol;
use std::collections::BTreeMap;

/// Versions that a liar remembers, so that it tells all victims the same.
const VERSIONS_MAX: usize = 64;

/// Contradicts itself, to different peers.
#[derive(Debug, Default)]
pub struct Equivocate {
    /// The other version of what was said, `None` where the liar chose to be honest.
    versions: BTreeMap<Bytes, Option<Bytes>>,
}

impl<P: Protocol> Lie<P> for Equivocate {
    fn tell(&mut self, frame: Frame, scene: &mut Scene<'_, P>) -> Vec<Frame> {
        if !scene.victims.contains(&frame.to) {
            return vec![frame];
        }
        let version = match self.versions.get(&frame.bytes) {
            Some(version) => version.clone(),
            None => {
                let lies = scene.random.chance(scene.often);
                let other = frame.message::<P>().filter(|_| lies).zip(scene.lies);
                let other = other.and_then(|(message, lies)| lies.other(&message, scene.keyring, scene.random));
                let version = other.map(|message| frame.with::<P>(message, scene.keyring).bytes);
                self.versions.insert(frame.bytes.clone(), version.clone());
                if self.versions.len() > VERSIONS_MAX {
                    self.versions.pop_first();
                }
                version
            }
        };
        match version {
            Some(bytes) => {
                scene.told += 1;
                vec![Frame { bytes, ..frame }]
            }
            None => vec![frame],
        }
    }
}
