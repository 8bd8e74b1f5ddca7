//! Protobuf with a look before the leap: a message that would cost far more memory than its bytes is refused undecoded.
//!
//! Only transactions can do that: an empty operation is two bytes on the wire and more than a hundred in memory. Its entries
//! are counted on the wire. The bound is the store's, so nothing is refused here that it would take.

use crate::errors::EtcdError;
use crate::proto::etcdserverpb::TxnRequest;
use bytes::{Buf, Bytes};
use prost::Message;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use quorate_machines::kv::KvError;
use quorate_machines::kv::limits::{TXN_DEPTH_MAX, TXN_OPS_TOTAL_MAX};
use std::any::TypeId;
use std::marker::PhantomData;
use tonic::Status;
use tonic::codec::{DecodeBuf, Decoder};
use tonic_prost::{ProstCodec, ProstEncoder};

/// See the module.
#[derive(Debug)]
pub struct Codec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for Codec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> tonic::codec::Codec for Codec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = Bounded<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<T, U>::default().encoder()
    }

    fn decoder(&mut self) -> Self::Decoder {
        Bounded(PhantomData)
    }
}

/// Decodes what has been looked at.
#[derive(Debug)]
pub struct Bounded<U>(PhantomData<U>);

impl<U: Message + Default + 'static> Decoder for Bounded<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        let bytes = buffer.copy_to_bytes(buffer.remaining());
        if TypeId::of::<U>() == TypeId::of::<TxnRequest>() {
            count_txn(bytes.clone(), TXN_DEPTH_MAX, &mut { TXN_OPS_TOTAL_MAX })?;
        }
        U::decode(bytes).map(Some).map_err(|error| Status::internal(format!("the message cannot be decoded: {error}")))
    }
}

/// Takes the entries of a transaction's bytes, and of those that it encloses, from the budget.
fn count_txn(mut bytes: Bytes, levels: usize, entries: &mut usize) -> Result<(), Status> {
    let too_many = || Status::from(EtcdError::Kv(KvError::TooManyOps));
    let levels = levels.checked_sub(1).ok_or_else(too_many)?;
    while let Some((field, content)) = next_field(&mut bytes)? {
        if !(1..=3).contains(&field) {
            continue;
        }
        *entries = entries.checked_sub(1).ok_or_else(too_many)?;
        if field > 1 {
            count_operation(content, levels, entries)?;
        }
    }
    Ok(())
}

/// An operation is counted already; it may be a transaction. Protobuf lets the last of several count, and we count them all.
fn count_operation(mut bytes: Bytes, levels: usize, entries: &mut usize) -> Result<(), Status> {
    while let Some((field, content)) = next_field(&mut bytes)? {
        if field == 4 {
            count_txn(content, levels, entries)?;
        }
    }
    Ok(())
}

/// The number and content of the next field; empty content for what is not a string of bytes.
fn next_field(bytes: &mut Bytes) -> Result<Option<(u32, Bytes)>, Status> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let wrong = |error: prost::DecodeError| Status::internal(format!("the message cannot be decoded: {error}"));
    let (field, wire) = decode_key(bytes).map_err(wrong)?;
    if wire != WireType::LengthDelimited {
        skip_field(wire, field, bytes, DecodeContext::default()).map_err(wrong)?;
        return Ok(Some((field, Bytes::new())));
    }
    let length = usize::try_from(decode_varint(bytes).map_err(wrong)?).unwrap_or(usize::MAX);
    if length > bytes.len() {
        return Err(Status::internal("the message cannot be decoded: a field is longer than what is left of it"));
    }
    Ok(Some((field, bytes.split_to(length))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::etcdserverpb::{RequestOp, request_op::Request};

    fn count(txn: &TxnRequest) -> Result<(), Status> {
        count_txn(txn.encode_to_vec().into(), TXN_DEPTH_MAX, &mut { TXN_OPS_TOTAL_MAX })
    }

    fn empty_ops(count: usize) -> TxnRequest {
        TxnRequest { success: vec![RequestOp::default(); count], ..TxnRequest::default() }
    }

    fn nested(inner: TxnRequest) -> TxnRequest {
        let operation = RequestOp { request: Some(Request::RequestTxn(inner)) };
        TxnRequest { failure: vec![operation], ..TxnRequest::default() }
    }

    #[test]
    fn a_bomb_of_empty_operations_is_refused_before_it_is_decoded() {
        assert!(count(&empty_ops(TXN_OPS_TOTAL_MAX)).is_ok());
        let refused = count(&empty_ops(TXN_OPS_TOTAL_MAX + 1)).expect_err("it is too much");
        assert_eq!(refused.message(), "etcdserver: too many operations in txn request");
        assert!(count(&nested(empty_ops(TXN_OPS_TOTAL_MAX))).is_err(), "enclosed ones count, too");
    }

    #[test]
    fn transactions_are_not_nested_deeper_than_the_store_takes_them() {
        let deep = |levels| (1..levels).fold(TxnRequest::default(), |inner, _| nested(inner));
        assert!(count(&deep(TXN_DEPTH_MAX)).is_ok());
        assert!(count(&deep(TXN_DEPTH_MAX + 1)).is_err());
    }

    #[test]
    fn bytes_that_are_no_message_are_refused() {
        for bytes in [&[0x12, 0x7f][..], &[0x12], &[0xff; 20]] {
            assert!(count_txn(Bytes::copy_from_slice(bytes), TXN_DEPTH_MAX, &mut { 9 }).is_err(), "{bytes:?}");
        }
    }
}
