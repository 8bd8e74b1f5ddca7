//! The Cluster and Maintenance services: who the replicas are and how they do, in etcd's words.

use crate::convert::signed;
use crate::errors::EtcdError;
use crate::gateway::{Api, Responses};
use crate::offered::API_VERSION;
use crate::proto::etcdserverpb::alarm_request::AlarmAction;
use crate::proto::etcdserverpb::cluster_server::Cluster;
use crate::proto::etcdserverpb::maintenance_server::Maintenance;
use crate::proto::etcdserverpb::{
    AlarmRequest, AlarmResponse, DefragmentRequest, DefragmentResponse, HashKvRequest, HashKvResponse, HashRequest,
    HashResponse, Member, MemberListRequest, MemberListResponse, ResponseHeader, SnapshotRequest, SnapshotResponse,
    StatusRequest, StatusResponse,
};
use crate::store::{Read, member_id};
use quorate_core::crypto::Digest;
use quorate_core::node::Report;
use quorate_machines::kv::{KvError, Query, Response as Answer, Status as StoreStatus};
use tonic::{Request, Response, Status, async_trait};

#[async_trait]
impl Cluster for Api {
    /// The replicas. Their client URLs are this gateway's: they do not speak etcd's API themselves.
    async fn member_list(&self, _: Request<MemberListRequest>) -> Result<Response<MemberListResponse>, Status> {
        let members = self.store.members().iter().map(|member| Member {
            id: member_id(member),
            name: format!("replica-{}", member.replica.get()),
            peer_ur_ls: vec![format!("quorate://{}", member.address)],
            client_ur_ls: vec![self.url.to_string()],
            is_learner: false,
        });
        Ok(Response::new(MemberListResponse { header: Some(self.store.header(0)), members: members.collect() }))
    }
}

#[async_trait]
impl Maintenance for Api {
    type SnapshotStream = Responses<SnapshotResponse>;

    async fn snapshot(&self, request: Request<SnapshotRequest>) -> Result<Response<Self::SnapshotStream>, Status> {
        self.administer(request.metadata()).await?;
        Ok(Response::new(self.take_snapshot().await?))
    }

    /// There are no alarms to raise: the store has no quota, and a replica whose state differs stops by itself.
    async fn alarm(&self, request: Request<AlarmRequest>) -> Result<Response<AlarmResponse>, Status> {
        if request.get_ref().action() == AlarmAction::Activate {
            return Err(EtcdError::NotOffered("quorate: alarms cannot be raised by hand").into());
        }
        let (header, _) = self.present().await?;
        Ok(Response::new(AlarmResponse { header: Some(header), alarms: Vec::new() }))
    }

    /// The primary's view as the term, its log as Raft's. A gateway sends what is written to the primary, so it says that it is
    /// the leader: clients that look for the endpoint of the leader have found it.
    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        let (store, reports) = tokio::join!(self.present(), self.store.reports());
        let (_, status) = store?;
        let view = self.store.vouched(&reports, |status| status.view.get());
        let leader = leader(&reports, view);
        let down = self.store.members().iter().filter(|it| reports.iter().all(|report| report.replica != it.replica));
        let leader_id = leader.and_then(|leader| self.id_of(leader)).unwrap_or_default();
        let header = self.store.header(status.revision); // anew: the reports may have told of a new term
        let member_id = if leader_id == 0 { header.member_id } else { leader_id };
        Ok(Response::new(StatusResponse {
            header: Some(ResponseHeader { member_id, ..header }),
            version: API_VERSION.to_owned(),
            db_size: signed(status.bytes),
            leader: leader_id,
            raft_index: self.store.vouched(&reports, |status| status.op.get()),
            raft_term: self.store.header(0).raft_term,
            raft_applied_index: self.store.vouched(&reports, |status| status.executed.get()),
            errors: down.map(|member| format!("{} ({}) does not answer", member.replica, member.address)).collect(),
            db_size_in_use: signed(status.bytes),
            is_learner: false,
        }))
    }

    /// Nothing to do: there is no file that could be smaller.
    async fn defragment(&self, request: Request<DefragmentRequest>) -> Result<Response<DefragmentResponse>, Status> {
        self.administer(request.metadata()).await?;
        Ok(Response::new(DefragmentResponse { header: None })) // like etcd's
    }

    async fn hash(&self, request: Request<HashRequest>) -> Result<Response<HashResponse>, Status> {
        self.administer(request.metadata()).await?;
        let (header, status) = self.present().await?;
        Ok(Response::new(HashResponse { header: Some(header), hash: folded(&status.digest) }))
    }

    async fn hash_kv(&self, request: Request<HashKvRequest>) -> Result<Response<HashKvResponse>, Status> {
        self.administer(request.metadata()).await?;
        let revision = request.into_inner().revision;
        let (header, status) = self.present().await?;
        if revision > status.revision {
            return Err(EtcdError::Kv(KvError::FutureRevision).into());
        }
        if revision > 0 && revision < status.revision {
            let why = "quorate: the hash covers the whole history: ask without a revision";
            return Err(EtcdError::NotOffered(why).into());
        }
        Ok(Response::new(HashKvResponse {
            header: Some(header),
            hash: folded(&status.digest),
            compact_revision: status.compact_revision,
            hash_revision: status.revision,
        }))
    }
}

impl Api {
    async fn present(&self) -> Result<(ResponseHeader, StoreStatus), EtcdError> {
        match self.store.query(Read::Linearizable, &Query::Status).await? {
            (header, Answer::Status(status)) => Ok((header, status)),
            _ => Err(EtcdError::Strange),
        }
    }

    fn id_of(&self, report: &Report) -> Option<u64> {
        self.store.members().iter().find(|member| member.replica == report.replica).map(member_id)
    }
}

/// Whoever says that it is the primary, in the newest view.
/// Who says to lead the latest view; `view` is the latest that is no liar's alone.
fn leader(reports: &[Report], view: u64) -> Option<&Report> {
    reports
        .iter()
        .filter(|report| matches!(report.status.role.as_str(), "primary" | "leads in turn"))
        .filter(|report| report.status.view.get() <= view)
        .max_by_key(|report| report.status.view)
}

fn folded(digest: &Digest) -> u32 {
    u32::from_be_bytes(std::array::from_fn(|index| digest.as_bytes()[index]))
}
