//! Bytes on the wire and on disk: one form per value, decoded strictly.
//!
//! The codec is borsh (canonical, sorted maps, trailing bytes refused); this module is the only door to it. The *frame*
//! around a message bounds its size before anything is decoded; inside, borsh never allocates more than the input holds.

use crate::ids::{ClusterId, Epoch};
use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;
use thiserror::Error;

/// A value with exactly one encoding.
pub trait Wire: BorshSerialize + BorshDeserialize + Sized {
    /// The value's only encoding.
    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(256);
        self.encode_into(&mut bytes);
        bytes
    }

    /// Appends the value's only encoding.
    fn encode_into(&self, bytes: &mut Vec<u8>) {
        // Writing into a Vec fails only where a length does not fit u32, and no value of ours holds 4 GiB.
        self.serialize(bytes).expect("a Vec takes every byte");
    }

    /// Decodes the whole of `bytes`.
    ///
    /// # Errors
    /// [`Malformed`] for bytes that no value encodes to, trailing bytes included.
    fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        Self::try_from_slice(bytes).map_err(|error| Malformed(error.to_string()))
    }
}

impl<T: BorshSerialize + BorshDeserialize> Wire for T {}

/// Bytes that are not the encoding of a value of the expected type.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("malformed bytes: {0}")]
pub struct Malformed(pub String);

/// What every message between replicas, and between clients and replicas, says first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Envelope {
    /// The cluster that the sender belongs to.
    pub cluster: ClusterId,
    /// The epoch that the sender is in.
    pub epoch: Epoch,
}

/// Encoded size of an [`Envelope`], bytes.
pub const ENVELOPE_BYTES: usize = 20;

impl Envelope {
    /// Puts the envelope before a message.
    pub fn seal(&self, message: &impl Wire) -> Bytes {
        let mut bytes = Vec::with_capacity(512);
        self.encode_into(&mut bytes);
        message.encode_into(&mut bytes);
        bytes.into()
    }

    /// Takes envelope and message apart.
    ///
    /// # Errors
    /// [`Malformed`] for bytes too short or a message that does not decode.
    pub fn open<M: Wire>(bytes: &[u8]) -> Result<(Self, M), Malformed> {
        let (envelope, body) = Self::split(bytes)?;
        Ok((envelope, M::decode(body)?))
    }

    /// Reads the envelope alone: the message behind it may be of another epoch, hence of another type.
    ///
    /// # Errors
    /// [`Malformed`] for bytes too short.
    pub fn split(bytes: &[u8]) -> Result<(Self, &[u8]), Malformed> {
        let (head, body) =
            bytes.split_at_checked(ENVELOPE_BYTES).ok_or_else(|| Malformed("shorter than an envelope".to_owned()))?;
        Ok((Self::decode(head)?, body))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_envelope_has_the_size_that_is_written_down() {
        let envelope = Envelope { cluster: ClusterId::new(7), epoch: Epoch::new(1) };
        assert_eq!(envelope.encode().len(), ENVELOPE_BYTES);
        assert_eq!(Envelope::open::<u32>(&envelope.seal(&5_u32)), Ok((envelope, 5)));
    }

    #[test]
    fn trailing_bytes_are_refused() {
        let mut bytes = 5_u32.encode();
        bytes.push(0);
        assert!(u32::decode(&bytes).is_err());
    }

    #[test]
    fn a_map_whose_keys_are_not_in_order_or_are_repeated_is_refused() {
        let bytes = |pairs: &[(u8, u8)]| pairs.to_vec().encode();
        type Map = std::collections::BTreeMap<u8, u8>;
        assert!(Map::decode(&bytes(&[(1, 0), (2, 0)])).is_ok());
        assert!(Map::decode(&bytes(&[(2, 0), (1, 0)])).is_err());
        assert!(Map::decode(&bytes(&[(1, 0), (1, 1)])).is_err());
    }
}
