//! The Election service: whoever is first in line leads, and its key's value is what it proclaims.

use crate::convert::key_value;
use crate::errors::EtcdError;
use crate::gateway::{Api, Responses};
use crate::limits::RESPONSES_WAITING_MAX;
use crate::proto::v3electionpb::election_server::Election;
use crate::proto::v3electionpb::{
    CampaignRequest, CampaignResponse, LeaderKey, LeaderRequest, LeaderResponse, ProclaimRequest, ProclaimResponse,
    ResignRequest, ResignResponse,
};
use crate::store::Store;
use crate::turn::{self, Line, Place, next_event};
use bytes::Bytes;
use quorate_machines::kv::{Events, KeyValue, KvError, prefix_end};
use std::sync::Arc;
use tokio::sync::mpsc;
use tonic::{Request, Response, Status, async_trait};

#[async_trait]
impl Election for Api {
    type ObserveStream = Responses<LeaderResponse>;

    /// Answers when the election is won. A client that goes away before leaves the line.
    async fn campaign(&self, request: Request<CampaignRequest>) -> Result<Response<CampaignResponse>, Status> {
        let line = self.line(request.metadata());
        let CampaignRequest { name, lease, value } = request.into_inner();
        let place = Place::take(&line, &name, lease, value).await?;
        let (header, place) = place.wait().await?;
        let leader = LeaderKey { name, key: place.key.clone(), rev: place.revision, lease: place.lease };
        Ok(Response::new(CampaignResponse { header: Some(header), leader: Some(leader) }))
    }

    async fn proclaim(&self, request: Request<ProclaimRequest>) -> Result<Response<ProclaimResponse>, Status> {
        let line = self.line(request.metadata());
        let ProclaimRequest { leader, value } = request.into_inner();
        let LeaderKey { key, rev, lease, .. } = leader.ok_or(EtcdError::Kv(KvError::EmptyKey))?;
        let header = turn::set_value(&line, &key, rev, lease, value).await?;
        Ok(Response::new(ProclaimResponse { header: Some(header) }))
    }

    async fn leader(&self, request: Request<LeaderRequest>) -> Result<Response<LeaderResponse>, Status> {
        match turn::head(&self.line(request.metadata()), &request.into_inner().name).await? {
            (header, Some(kv)) => Ok(Response::new(LeaderResponse { header: Some(header), kv: Some(key_value(kv)) })),
            (_, None) => Err(EtcdError::NobodyLeads.into()),
        }
    }

    /// Who leads now, each of its proclamations, whoever leads then, and so on.
    async fn observe(&self, request: Request<LeaderRequest>) -> Result<Response<Self::ObserveStream>, Status> {
        let (responses, stream) = mpsc::channel(RESPONSES_WAITING_MAX);
        let (store, line) = (self.store.clone(), self.line(request.metadata()));
        let observer = Observer { store, line, name: request.into_inner().name, responses };
        tokio::spawn(observer.run());
        Ok(Response::new(stream.into()))
    }

    async fn resign(&self, request: Request<ResignRequest>) -> Result<Response<ResignResponse>, Status> {
        let line = self.line(request.metadata());
        let LeaderKey { key, rev, .. } = request.into_inner().leader.ok_or(EtcdError::Kv(KvError::EmptyKey))?;
        let header = turn::leave(&line, &key, rev).await?;
        Ok(Response::new(ResignResponse { header: Some(header) }))
    }
}

struct Observer {
    store: Arc<Store>,
    line: Line,
    name: Bytes,
    responses: mpsc::Sender<Result<LeaderResponse, Status>>,
}

impl Observer {
    /// Runs until the client goes or the cluster does not answer.
    async fn run(self) {
        tokio::select! {
            () = self.responses.closed() => {}
            error = self.observe() => drop(self.responses.send(Err(error.into())).await),
        }
    }

    async fn observe(&self) -> EtcdError {
        loop {
            if let Err(error) = self.observe_one().await {
                return error;
            }
        }
    }

    /// One leader, from its beginning or from now to its end.
    async fn observe_one(&self) -> Result<(), EtcdError> {
        let (header, leader) = turn::head(&self.line, &self.name).await?;
        let (mut revision, mut kv) = match leader {
            Some(kv) => (header.revision, kv),
            None => {
                let prefix = Bytes::from([&self.name[..], b"/"].concat());
                let range_end = prefix_end(&prefix);
                let puts = Events { key: prefix, range_end, no_delete: true, ..Events::default() };
                next_event(&self.line, &puts, header.revision.saturating_add(1)).await?
            }
        };
        let own = Events { key: kv.key.clone(), ..Events::default() };
        while !kv.is_tombstone() {
            self.tell(revision, kv).await?;
            (revision, kv) = next_event(&self.line, &own, revision.saturating_add(1)).await?;
        }
        Ok(())
    }

    async fn tell(&self, revision: i64, kv: KeyValue) -> Result<(), EtcdError> {
        let header = Some(self.store.header(revision));
        let response = LeaderResponse { header, kv: Some(key_value(kv)) };
        self.responses.send(Ok(response)).await.map_err(|_| EtcdError::Stopped)
    }
}
