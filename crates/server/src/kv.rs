//! The KV service: etcd's reads, writes and transactions.

use crate::convert;
use crate::errors::EtcdError;
use crate::gateway::Api;
use crate::pages;
use crate::proto::etcdserverpb::kv_server::Kv;
use crate::proto::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse,
    RangeRequest, RangeResponse, TxnRequest, TxnResponse,
};
use crate::store::Read;
use quorate_machines::kv::{KvError, Operation, Query, Response as Answer};
use tonic::{Request, Response, Status, async_trait};

#[async_trait]
impl Kv for Api {
    async fn range(&self, request: Request<RangeRequest>) -> Result<Response<RangeResponse>, Status> {
        let access = self.access(request.metadata());
        let request = request.into_inner();
        let read = Read::serializable(request.serializable);
        let range = convert::range(request)?;
        let (header, found) = match access.query(read, Query::Range(range.clone())).await {
            Ok((header, Answer::Range(found))) => (header, found),
            Ok(_) => return Err(EtcdError::Strange.into()),
            Err(EtcdError::Kv(KvError::ReplyTooLarge)) if pages::possible(&range) => {
                pages::read(&access, range).await?
            }
            Err(error) => return Err(error.into()),
        };
        Ok(Response::new(convert::range_response(Some(header), found)))
    }

    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        let access = self.access(request.metadata());
        match access.apply(Operation::Put(convert::put(request.into_inner()))).await? {
            (header, Answer::Put(put)) => Ok(Response::new(convert::put_response(Some(header), put))),
            _ => Err(EtcdError::Strange.into()),
        }
    }

    async fn delete_range(
        &self,
        request: Request<DeleteRangeRequest>,
    ) -> Result<Response<DeleteRangeResponse>, Status> {
        let access = self.access(request.metadata());
        match access.apply(Operation::Delete(convert::delete_range(request.into_inner()))).await? {
            (header, Answer::Delete(delete)) => Ok(Response::new(convert::delete_response(Some(header), delete))),
            _ => Err(EtcdError::Strange.into()),
        }
    }

    async fn txn(&self, request: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        let access = self.access(request.metadata());
        let txn = convert::txn(request.into_inner())?;
        match access.apply(Operation::Txn(txn)).await? {
            (header, Answer::Txn(txn)) => Ok(Response::new(convert::txn_response(Some(header), txn))),
            _ => Err(EtcdError::Strange.into()),
        }
    }

    async fn compact(&self, request: Request<CompactionRequest>) -> Result<Response<CompactionResponse>, Status> {
        let access = self.access(request.metadata());
        let (header, _) = access.apply(Operation::Compact { revision: request.into_inner().revision }).await?;
        Ok(Response::new(CompactionResponse { header: Some(header) }))
    }
}
