//! The Lock service: whoever is first in line holds the lock, as long as its lease lives.

use crate::gateway::Api;
use crate::proto::v3lockpb::lock_server::Lock;
use crate::proto::v3lockpb::{LockRequest, LockResponse, UnlockRequest, UnlockResponse};
use crate::turn::Place;
use bytes::Bytes;
use quorate_machines::kv::Operation;
use tonic::{Request, Response, Status, async_trait};

#[async_trait]
impl Lock for Api {
    /// Answers when the lock is held. A client that goes away before leaves the line.
    async fn lock(&self, request: Request<LockRequest>) -> Result<Response<LockResponse>, Status> {
        let line = self.line(request.metadata());
        let LockRequest { name, lease } = request.into_inner();
        let place = Place::take(&line, &name, lease, Bytes::new()).await?;
        let (header, place) = place.wait().await?;
        Ok(Response::new(LockResponse { header: Some(header), key: place.key.clone() }))
    }

    async fn unlock(&self, request: Request<UnlockRequest>) -> Result<Response<UnlockResponse>, Status> {
        let access = self.access(request.metadata());
        let (header, _) = access.apply(Operation::delete(request.into_inner().key)).await?;
        Ok(Response::new(UnlockResponse { header: Some(header) }))
    }
}
