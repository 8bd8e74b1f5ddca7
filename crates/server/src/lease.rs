//! The Lease service. Leases live in the store, by agreed time; a gateway only passes on who asks for what.

use crate::access::Access;
use crate::errors::EtcdError;
use crate::gateway::{Api, Responses};
use crate::limits::RESPONSES_WAITING_MAX;
use crate::proto::etcdserverpb::lease_server::Lease;
use crate::proto::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseLeasesRequest,
    LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse, LeaseStatus, LeaseTimeToLiveRequest,
    LeaseTimeToLiveResponse,
};
use crate::store::Read;
use quorate_core::time::WallTime;
use quorate_machines::kv::{Operation, Query, Response as Answer};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc;
use tonic::{Request, Response, Status, Streaming, async_trait};

#[async_trait]
impl Lease for Api {
    type LeaseKeepAliveStream = Responses<LeaseKeepAliveResponse>;

    async fn lease_grant(&self, request: Request<LeaseGrantRequest>) -> Result<Response<LeaseGrantResponse>, Status> {
        let access = self.access(request.metadata());
        let LeaseGrantRequest { ttl, id } = request.into_inner();
        match access.apply(Operation::LeaseGrant { id, ttl }).await? {
            (header, Answer::LeaseGrant { id, ttl }) => {
                Ok(Response::new(LeaseGrantResponse { header: Some(header), id, ttl, error: String::new() }))
            }
            _ => Err(EtcdError::Strange.into()),
        }
    }

    async fn lease_revoke(
        &self,
        request: Request<LeaseRevokeRequest>,
    ) -> Result<Response<LeaseRevokeResponse>, Status> {
        let access = self.access(request.metadata());
        let (header, _) = access.apply(Operation::LeaseRevoke { id: request.into_inner().id }).await?;
        Ok(Response::new(LeaseRevokeResponse { header: Some(header) }))
    }

    /// One answer for each request of the stream, in their order. The client's slowness is its own: one request is
    /// under way at a time.
    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<LeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let (responses, stream) = mpsc::channel(RESPONSES_WAITING_MAX);
        let access = self.access(request.metadata());
        tokio::spawn(keep_alive(access, request.into_inner(), responses));
        Ok(Response::new(stream.into()))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<LeaseTimeToLiveRequest>,
    ) -> Result<Response<LeaseTimeToLiveResponse>, Status> {
        let access = self.access(request.metadata());
        let LeaseTimeToLiveRequest { id, keys } = request.into_inner();
        let query = Query::LeaseTimeToLive { id, keys, now: now() };
        let (header, Answer::LeaseTimeToLive(lease)) = access.query(Read::Linearizable, query).await? else {
            return Err(EtcdError::Strange.into());
        };
        Ok(Response::new(LeaseTimeToLiveResponse {
            header: Some(header),
            id: lease.id,
            ttl: lease.ttl,
            granted_ttl: lease.granted_ttl,
            keys: lease.keys,
        }))
    }

    async fn lease_leases(
        &self,
        request: Request<LeaseLeasesRequest>,
    ) -> Result<Response<LeaseLeasesResponse>, Status> {
        match self.access(request.metadata()).query(Read::Linearizable, Query::LeaseLeases).await? {
            (header, Answer::LeaseLeases(ids)) => {
                let leases = ids.into_iter().map(|id| LeaseStatus { id }).collect();
                Ok(Response::new(LeaseLeasesResponse { header: Some(header), leases }))
            }
            _ => Err(EtcdError::Strange.into()),
        }
    }
}

async fn keep_alive(
    access: Access,
    mut requests: Streaming<LeaseKeepAliveRequest>,
    responses: mpsc::Sender<Result<LeaseKeepAliveResponse, Status>>,
) {
    while let Ok(Some(LeaseKeepAliveRequest { id })) = requests.message().await {
        let response = match access.apply(Operation::LeaseKeepAlive { id }).await {
            Ok((header, Answer::LeaseKeepAlive { id, ttl })) => {
                Ok(LeaseKeepAliveResponse { header: Some(header), id, ttl })
            }
            Ok(_) => Err(EtcdError::Strange.into()),
            Err(error) => Err(Status::from(error)),
        };
        let failed = response.is_err();
        if responses.send(response).await.is_err() || failed {
            return;
        }
    }
}

/// What time it is here. Agreed time is the leader's, so an answer may be off by what separates the two clocks.
fn now() -> WallTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    WallTime::from_nanos(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}
