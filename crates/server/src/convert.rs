//! etcd's messages to the store's requests, and the store's answers back.

use crate::errors::EtcdError;
use crate::proto::etcdserverpb::{self as pb, compare, range_request, request_op, response_op};
use crate::proto::mvccpb;
use bytes::Bytes;
use quorate_machines::kv::{
    self, Compare, DeleteRange, Event, EventKind, KvError, Operand, Operator, Put, Range, SortOrder, SortTarget, Txn,
    TxnOp, TxnOpResponse,
};

pub fn range(request: pb::RangeRequest) -> Result<Range, EtcdError> {
    let (order, target) = sorting(request.sort_order, request.sort_target)?;
    Ok(Range {
        key: request.key,
        range_end: request.range_end,
        limit: u64::try_from(request.limit).unwrap_or(0), // below zero is no limit, as in etcd
        revision: request.revision,
        order,
        target,
        keys_only: request.keys_only,
        count_only: request.count_only,
        min_mod_revision: request.min_mod_revision,
        max_mod_revision: request.max_mod_revision,
        min_create_revision: request.min_create_revision,
        max_create_revision: request.max_create_revision,
    })
}

fn sorting(order: i32, target: i32) -> Result<(SortOrder, SortTarget), EtcdError> {
    use range_request::{SortOrder as PbOrder, SortTarget as PbTarget};
    let order = match PbOrder::try_from(order).map_err(|_| EtcdError::InvalidSortOption)? {
        PbOrder::None => SortOrder::None,
        PbOrder::Ascend => SortOrder::Ascend,
        PbOrder::Descend => SortOrder::Descend,
    };
    let target = match PbTarget::try_from(target).map_err(|_| EtcdError::InvalidSortOption)? {
        PbTarget::Key => SortTarget::Key,
        PbTarget::Version => SortTarget::Version,
        PbTarget::Create => SortTarget::Create,
        PbTarget::Mod => SortTarget::Mod,
        PbTarget::Value => SortTarget::Value,
    };
    Ok((order, target))
}

pub fn put(request: pb::PutRequest) -> Put {
    let pb::PutRequest { key, value, lease, prev_kv, ignore_value, ignore_lease } = request;
    Put { key, value, lease, prev_kv, ignore_value, ignore_lease }
}

pub fn delete_range(request: pb::DeleteRangeRequest) -> DeleteRange {
    let pb::DeleteRangeRequest { key, range_end, prev_kv } = request;
    DeleteRange { key, range_end, prev_kv }
}

/// Recursion is as deep as the transaction is nested, which the codec has bounded.
pub fn txn(request: pb::TxnRequest) -> Result<Txn, EtcdError> {
    Ok(Txn {
        compare: request.compare.into_iter().map(compare).collect::<Result<_, _>>()?,
        success: request.success.into_iter().map(operation).collect::<Result<_, _>>()?,
        failure: request.failure.into_iter().map(operation).collect::<Result<_, _>>()?,
    })
}

fn operation(operation: pb::RequestOp) -> Result<TxnOp, EtcdError> {
    Ok(match operation.request.ok_or(KvError::KeyNotFound)? {
        request_op::Request::RequestRange(request) => TxnOp::Range(range(request)?),
        request_op::Request::RequestPut(request) => TxnOp::Put(put(request)),
        request_op::Request::RequestDeleteRange(request) => TxnOp::Delete(delete_range(request)),
        request_op::Request::RequestTxn(request) => TxnOp::Txn(txn(request)?),
    })
}

/// The operand is that of the target; one of another kind counts as zero or empty, as in etcd.
fn compare(compare: pb::Compare) -> Result<Compare, EtcdError> {
    use compare::{CompareResult, CompareTarget, TargetUnion};
    let operator = match CompareResult::try_from(compare.result).map_err(|_| EtcdError::InvalidCompare)? {
        CompareResult::Equal => Operator::Equal,
        CompareResult::NotEqual => Operator::NotEqual,
        CompareResult::Greater => Operator::Greater,
        CompareResult::Less => Operator::Less,
    };
    let target = CompareTarget::try_from(compare.target).map_err(|_| EtcdError::InvalidCompare)?;
    let operand = match (target, compare.target_union) {
        (CompareTarget::Version, Some(TargetUnion::Version(version))) => Operand::Version(version),
        (CompareTarget::Version, _) => Operand::Version(0),
        (CompareTarget::Create, Some(TargetUnion::CreateRevision(revision))) => Operand::Create(revision),
        (CompareTarget::Create, _) => Operand::Create(0),
        (CompareTarget::Mod, Some(TargetUnion::ModRevision(revision))) => Operand::Mod(revision),
        (CompareTarget::Mod, _) => Operand::Mod(0),
        (CompareTarget::Value, Some(TargetUnion::Value(value))) => Operand::Value(value),
        (CompareTarget::Value, _) => Operand::Value(Bytes::new()),
        (CompareTarget::Lease, Some(TargetUnion::Lease(lease))) => Operand::Lease(lease),
        (CompareTarget::Lease, _) => Operand::Lease(0),
    };
    Ok(Compare { key: compare.key, range_end: compare.range_end, operator, operand })
}

pub fn key_value(kv: kv::KeyValue) -> mvccpb::KeyValue {
    let kv::KeyValue { key, create_revision, mod_revision, version, value, lease } = kv;
    mvccpb::KeyValue { key, create_revision, mod_revision, version, value, lease }
}

pub fn event(event: Event) -> mvccpb::Event {
    let kind = match event.kind {
        EventKind::Put => mvccpb::event::EventType::Put,
        EventKind::Delete => mvccpb::event::EventType::Delete,
    };
    mvccpb::Event { r#type: kind.into(), kv: Some(key_value(event.kv)), prev_kv: event.prev_kv.map(key_value) }
}

pub fn range_response(header: Option<pb::ResponseHeader>, response: kv::RangeResponse) -> pb::RangeResponse {
    pb::RangeResponse {
        header,
        kvs: response.kvs.into_iter().map(key_value).collect(),
        more: response.more,
        count: signed(response.count),
    }
}

pub fn put_response(header: Option<pb::ResponseHeader>, response: kv::PutResponse) -> pb::PutResponse {
    pb::PutResponse { header, prev_kv: response.prev_kv.map(key_value) }
}

pub fn delete_response(header: Option<pb::ResponseHeader>, response: kv::DeleteResponse) -> pb::DeleteRangeResponse {
    pb::DeleteRangeResponse {
        header,
        deleted: signed(response.deleted),
        prev_kvs: response.prev_kvs.into_iter().map(key_value).collect(),
    }
}

pub fn txn_response(header: Option<pb::ResponseHeader>, response: kv::TxnResponse) -> pb::TxnResponse {
    let responses = response.responses.into_iter().map(|reply| {
        // inside a transaction, etcd's headers have only the revision
        let header = Some(pb::ResponseHeader { revision: reply.revision, ..pb::ResponseHeader::default() });
        let response = match reply.response {
            TxnOpResponse::Range(range) => response_op::Response::ResponseRange(range_response(header, range)),
            TxnOpResponse::Put(put) => response_op::Response::ResponsePut(put_response(header, put)),
            TxnOpResponse::Delete(delete) => {
                response_op::Response::ResponseDeleteRange(delete_response(header, delete))
            }
            TxnOpResponse::Txn(txn) => response_op::Response::ResponseTxn(txn_response(header, txn)),
        };
        pb::ResponseOp { response: Some(response) }
    });
    pb::TxnResponse { header, succeeded: response.succeeded, responses: responses.collect() }
}

/// Counts and sizes, which etcd has as signed numbers.
pub fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
