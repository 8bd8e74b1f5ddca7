//! The same random requests to Debian's etcd and to us, and the same answers: whole responses, refusals with their codes and
//! texts, and what watches tell. Ids of cluster and member and the term aside, nothing may differ.
//!
//! Intended differences, which the generator therefore does not ask about:
//! - etcd cuts at `limit` before it sorts if the order is NONE, and has no order among equals; here sorted ranges have no
//!   limit, and are compared as sets.
//! - A delete from a key on, inside a transaction, counts as covering all of these keys (etcd: none of them).
//! - A transaction's step that is none of the known kinds is refused before anything else about it (etcd: in its turn).
//! - etcd 3.4 takes sort orders and comparisons that do not exist, and does not tell a deletion made at the compacted revision.
//!
//! Runs if `etcd` is installed (Debian: etcd-server); `QUORATE_NEEDS_ETCD` makes its absence a failure.
//! `QUORATE_SEED` chooses the requests.

use crate::common::{Client, PATIENCE, Served, everything};
use bytes::Bytes;
use quorate_machines::kv::Kv;
use quorate_protocols::async_tob::{self, AsyncTob};
use quorate_protocols::hotstuff::{self, HotStuff};
use quorate_protocols::hq;
use quorate_protocols::pbft;
use quorate_protocols::reception::{self, Reception};
use quorate_protocols::sync_tob::{self, SyncTob};
use quorate_server::proto::etcdserverpb::compare::TargetUnion;
use quorate_server::proto::etcdserverpb::request_op::Request as Op;
use quorate_server::proto::etcdserverpb::response_op::Response as Done;
use quorate_server::proto::etcdserverpb::{
    CompactionRequest, Compare, DeleteRangeRequest, LeaseGrantRequest, LeaseKeepAliveRequest, LeaseLeasesRequest,
    LeaseRevokeRequest, LeaseTimeToLiveRequest, PutRequest, RangeRequest, RangeResponse, RequestOp, ResponseHeader,
    TxnRequest, TxnResponse, WatchCreateRequest,
};
use quorate_server::proto::mvccpb::Event;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tonic::{Response, Status};

const REQUESTS: usize = 2_000;

/// Debian's etcd, alone, on an empty disk.
pub struct Etcd {
    process: Child,
    pub address: SocketAddr,
    _folder: TempDir,
}

impl Drop for Etcd {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

impl Etcd {
    /// `None` if it is not installed.
    pub fn start() -> Option<Self> {
        Self::start_with(&[])
    }

    /// With further flags.
    pub fn start_with(flags: &[&str]) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        let [address, peer] = [free_address(), free_address()];
        let (client_url, peer_url) = (format!("http://{address}"), format!("http://{peer}"));
        let log = std::fs::File::create(folder.path().join("log")).expect("a log");
        let started = Command::new("etcd")
            .arg("--data-dir")
            .arg(folder.path().join("data"))
            .args(["--listen-client-urls", &client_url, "--advertise-client-urls", &client_url])
            .args(["--listen-peer-urls", &peer_url, "--initial-advertise-peer-urls", &peer_url])
            .args(["--initial-cluster", &format!("default={peer_url}"), "--logger", "zap"])
            .args(flags)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        let Ok(process) = started else {
            assert!(std::env::var_os("QUORATE_NEEDS_ETCD").is_none(), "etcd is not installed");
            eprintln!("etcd is not installed: nothing was compared");
            return None;
        };
        let etcd = Self { process, address, _folder: folder };
        let until = Instant::now() + PATIENCE;
        while TcpStream::connect(etcd.address).is_err() {
            assert!(Instant::now() < until, "etcd does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(etcd)
    }
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a port")
}

/// Numbers that look random and are the same for the same seed.
pub struct Dice(pub u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[usize::try_from(self.below(from.len() as u64)).expect("it is small")].clone()
    }

    pub fn key(&mut self) -> Bytes {
        if self.one_in(60) {
            return Bytes::new();
        }
        self.pick(&["a", "b", "c", "ca", "cb", "d"]).into()
    }

    pub fn value(&mut self) -> Bytes {
        self.pick(&["", "1", "2", "3"]).into()
    }

    /// The end of a range that begins at whatever key.
    pub fn range_end(&mut self) -> Bytes {
        match self.below(6) {
            0 | 1 => Bytes::new(),
            2 => Bytes::from_static(&[0]),
            3 => "d".into(),
            4 => "cc".into(),
            _ => self.key(),
        }
    }

    fn lease(&mut self) -> i64 {
        self.pick(&[0, 0, 0, 1, 2, 3])
    }

    /// A revision: mostly none, else one about the present.
    fn revision(&mut self, present: i64) -> i64 {
        match self.below(6) {
            0 => present,
            1 => present - i64::try_from(self.below(12)).expect("it is small"),
            2 => present + 1,
            3 => -1,
            _ => 0,
        }
    }

    pub fn put(&mut self) -> PutRequest {
        let (ignore_value, ignore_lease) = (self.one_in(8), self.one_in(8));
        PutRequest {
            key: self.key(),
            value: if ignore_value && !self.one_in(4) { Bytes::new() } else { self.value() },
            lease: if ignore_lease && !self.one_in(4) { 0 } else { self.lease() },
            prev_kv: self.one_in(2),
            ignore_value,
            ignore_lease,
        }
    }

    pub fn delete(&mut self) -> DeleteRangeRequest {
        DeleteRangeRequest { key: self.key(), range_end: self.range_end(), prev_kv: self.one_in(2) }
    }

    pub fn range(&mut self, present: i64) -> RangeRequest {
        let sorted = self.one_in(2);
        let order = self.pick(&[1, 2]);
        let target = if sorted { i32::try_from(self.below(5)).expect("it is small") } else { 0 };
        let bound = |dice: &mut Self| if dice.one_in(5) { dice.revision(present) } else { 0 };
        RangeRequest {
            key: self.key(),
            range_end: self.range_end(),
            limit: if sorted { 0 } else { self.pick(&[0, 0, 1, 2, 3, -1]) },
            revision: self.revision(present),
            sort_order: if sorted { order } else { 0 },
            sort_target: target,
            serializable: false,
            keys_only: self.one_in(6),
            count_only: self.one_in(8),
            min_mod_revision: bound(self),
            max_mod_revision: bound(self),
            min_create_revision: bound(self),
            max_create_revision: bound(self),
        }
    }

    fn compare(&mut self, present: i64) -> Compare {
        let target = i32::try_from(self.below(5)).expect("it is small");
        let number = self.pick(&[0, 1, 2, 3, present, present - 3]);
        let target_union = match if self.one_in(10) { self.below(6) } else { u64::from(target.unsigned_abs()) } {
            0 => Some(TargetUnion::Version(number)),
            1 => Some(TargetUnion::CreateRevision(number)),
            2 => Some(TargetUnion::ModRevision(number)),
            3 => Some(TargetUnion::Value(self.value())),
            4 => Some(TargetUnion::Lease(number)),
            _ => None,
        };
        let range_end = if self.one_in(4) { self.range_end() } else { Bytes::new() };
        let result = i32::try_from(self.below(4)).expect("it is small");
        Compare { result, target, key: self.key(), target_union, range_end }
    }

    fn txn(&mut self, present: i64, depth: u32) -> TxnRequest {
        let compare = (0..self.below(3)).map(|_| self.compare(present)).collect();
        let mut list = || (0..self.below(4)).map(|_| self.operation(present, depth)).collect();
        TxnRequest { compare, success: list(), failure: list() }
    }

    fn operation(&mut self, present: i64, depth: u32) -> RequestOp {
        let request = match self.below(if depth == 0 { 7 } else { 8 }) {
            0..=2 => Op::RequestPut(self.put()),
            3 | 4 => {
                let mut delete = self.delete();
                if delete.range_end == [0][..] {
                    delete.range_end = "c".into();
                }
                Op::RequestDeleteRange(delete)
            }
            5 | 6 => Op::RequestRange(self.range(present)),
            _ => Op::RequestTxn(self.txn(present, depth - 1)),
        };
        RequestOp { request: Some(request) }
    }
}

/// An answer in a form that can be compared.
pub trait Comparable: std::fmt::Debug {
    fn header(&mut self) -> Option<&mut ResponseHeader>;
    fn normalise(&mut self) {}
}

macro_rules! comparable {
    ($($name:ident),*) => {$(
        impl Comparable for quorate_server::proto::etcdserverpb::$name {
            fn header(&mut self) -> Option<&mut ResponseHeader> {
                self.header.as_mut()
            }
        }
    )*};
}

comparable!(PutResponse, DeleteRangeResponse, CompactionResponse, LeaseGrantResponse, LeaseRevokeResponse);
comparable!(LeaseKeepAliveResponse);

impl Comparable for RangeResponse {
    fn header(&mut self) -> Option<&mut ResponseHeader> {
        self.header.as_mut()
    }

    fn normalise(&mut self) {
        self.kvs.sort_by(|left, right| left.key.cmp(&right.key));
    }
}

impl Comparable for TxnResponse {
    fn header(&mut self) -> Option<&mut ResponseHeader> {
        self.header.as_mut()
    }

    fn normalise(&mut self) {
        for response in &mut self.responses {
            match &mut response.response {
                Some(Done::ResponseRange(range)) => range.normalise(),
                Some(Done::ResponseTxn(txn)) => txn.normalise(),
                _ => {}
            }
        }
    }
}

impl Comparable for quorate_server::proto::etcdserverpb::LeaseTimeToLiveResponse {
    fn header(&mut self) -> Option<&mut ResponseHeader> {
        self.header.as_mut()
    }

    /// How much of a long time is left is not the same at two moments.
    fn normalise(&mut self) {
        self.ttl = self.ttl.signum();
        self.keys.sort();
    }
}

impl Comparable for quorate_server::proto::etcdserverpb::LeaseLeasesResponse {
    fn header(&mut self) -> Option<&mut ResponseHeader> {
        self.header.as_mut()
    }

    fn normalise(&mut self) {
        self.leases.sort_by_key(|lease| lease.id);
    }
}

pub fn comparable<T: Comparable>(answer: Result<Response<T>, Status>) -> String {
    match answer {
        Ok(answer) => {
            let mut answer = answer.into_inner();
            if let Some(header) = answer.header() {
                *header = ResponseHeader { revision: header.revision, ..ResponseHeader::default() };
            }
            answer.normalise();
            format!("{answer:?}")
        }
        Err(status) => format!("{:?}: {}", status.code(), status.message()),
    }
}

/// Asks both the same.
macro_rules! both {
    ($pair:expr, $client:ident . $call:ident ( $request:expr )) => {{
        let request = $request;
        let (ours, theirs) =
            tokio::join!($pair.ours.$client.$call(request.clone()), $pair.theirs.$client.$call(request.clone()));
        (format!("{request:?}"), comparable(ours), comparable(theirs))
    }};
}

struct Pair {
    ours: Client,
    theirs: Client,
}

impl Pair {
    /// A request and both answers to it.
    async fn ask(&mut self, dice: &mut Dice, present: i64) -> (String, String, String) {
        match dice.below(40) {
            0..=11 => both!(self, kv.put(dice.put())),
            12..=15 => both!(self, kv.delete_range(dice.delete())),
            16..=23 => both!(self, kv.range(dice.range(present))),
            24..=33 => both!(self, kv.txn(dice.txn(present, 2))),
            34 => both!(self, kv.compact(CompactionRequest { revision: dice.revision(present), physical: true })),
            35 | 36 => {
                let ttl = dice.pick(&[600, 6000, i64::MAX]);
                both!(self, lease.lease_grant(LeaseGrantRequest { id: 1 + dice.lease(), ttl }))
            }
            37 => both!(self, lease.lease_revoke(LeaseRevokeRequest { id: 1 + dice.lease() })),
            38 => {
                let request = LeaseTimeToLiveRequest { id: 1 + dice.lease(), keys: dice.one_in(2) };
                both!(self, lease.lease_time_to_live(request))
            }
            _ => both!(self, lease.lease_leases(LeaseLeasesRequest {})),
        }
    }

    async fn present(&mut self) -> i64 {
        let found = self.ours.range(RangeRequest { key: "x".into(), ..RangeRequest::default() }).await;
        found.expect("an answer").header.expect("a header").revision
    }
}

/// What a watch from `from` on tells until a deletion of the key `end`.
async fn told(client: &Client, create: WatchCreateRequest) -> Vec<Event> {
    let mut watches = client.watches_with(Some(create)).await;
    let created = watches.next().await;
    assert!(created.created, "{created:?}");
    let mut events = Vec::new();
    loop {
        let response = watches.next().await;
        if response.canceled {
            assert!(response.compact_revision > 0, "{response:?}");
            return Vec::new();
        }
        for event in response.events {
            if event.kv.as_ref().is_some_and(|kv| kv.key == "end") {
                return events;
            }
            events.push(event);
        }
    }
}

#[tokio::test]
async fn random_requests_are_answered_as_by_etcd() {
    let Some(etcd) = Etcd::start() else { return };
    compare(&Served::start().await, &etcd, REQUESTS).await;
}

#[tokio::test]
async fn random_requests_are_answered_as_by_etcd_where_a_replica_may_lie() {
    let Some(etcd) = Etcd::start() else { return };
    compare(&Served::start_pbft().await, &etcd, REQUESTS / 2).await;
}

#[tokio::test]
async fn random_requests_are_answered_as_by_etcd_by_a_chain_of_blocks() {
    let Some(etcd) = Etcd::start() else { return };
    let served = Served::start_of::<HotStuff, Kv>(4, hotstuff::Config::default(), Kv::new).await;
    compare(&served, &etcd, REQUESTS / 4).await;
}

#[tokio::test]
async fn random_requests_are_answered_as_by_etcd_without_a_leader() {
    let Some(etcd) = Etcd::start() else { return };
    let served = Served::start_of::<AsyncTob, Kv>(4, async_tob::Config::default(), Kv::new).await;
    compare(&served, &etcd, REQUESTS / 8).await;
}

#[tokio::test]
async fn random_requests_are_answered_as_by_etcd_once_they_are_certified() {
    let Some(etcd) = Etcd::start() else { return };
    let served = Served::start_of::<Reception, Kv>(4, reception::Config::default(), Kv::new).await;
    compare(&served, &etcd, REQUESTS / 8).await;
}

#[tokio::test]
async fn random_requests_are_answered_as_by_etcd_by_hq_in_total_order() {
    let Some(etcd) = Etcd::start() else { return };
    let served = Served::start_of::<hq::Total, Kv>(4, pbft::Config::default(), Kv::new).await;
    compare(&served, &etcd, REQUESTS / 4).await;
}

/// Each answer takes its time there, hence so few requests.
#[tokio::test]
async fn random_requests_are_answered_as_by_etcd_where_clocks_order_them() {
    let Some(etcd) = Etcd::start() else { return };
    let served = Served::start_of::<SyncTob, Kv>(3, sync_tob::Config::default(), Kv::new).await;
    compare(&served, &etcd, REQUESTS / 20).await;
}

/// Random requests to both, then random watches of what happened.
async fn compare(served: &Served, etcd: &Etcd, requests: usize) {
    let mut pair = Pair { ours: served.client().await, theirs: Client::connect(etcd.address).await };
    let seed = std::env::var("QUORATE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let mut dice = Dice(seed);
    let mut present = 1;
    for number in 0..requests {
        let asked = tokio::time::timeout(PATIENCE, pair.ask(&mut dice, present)).await;
        let (request, ours, theirs) = asked.unwrap_or_else(|_| panic!("seed {seed}, request {number}: no answer"));
        assert!(ours == theirs, "seed {seed}, request {number}: {request}\n\nours: {ours}\n\netcd's: {theirs}");
        present = pair.present().await;
    }

    for client in [&mut pair.ours, &mut pair.theirs] {
        client.put("end", "").await;
    }
    for _ in 0..30 {
        let back = i64::try_from(dice.below(200)).expect("it is small");
        let start_revision = (present - back).max(1);
        let filters = if dice.one_in(2) { vec![i32::from(dice.one_in(2))] } else { Vec::new() };
        let filters = filters.into_iter().filter(|filter| *filter != 0).collect(); // the end is a put
        let create = WatchCreateRequest { start_revision, prev_kv: dice.one_in(2), filters, ..everything() };
        let (ours, theirs) = (told(&pair.ours, create.clone()).await, told(&pair.theirs, create.clone()).await);
        assert_eq!(ours, theirs, "seed {seed}: ours, then etcd's, to {create:?}");
    }
}

#[tokio::test]
async fn leases_are_kept_alive_as_by_etcd() {
    let Some(etcd) = Etcd::start() else { return };
    let served = Served::start().await;
    for address in [served.address(), etcd.address] {
        let mut client = Client::connect(address).await;
        let granted = client.lease.lease_grant(LeaseGrantRequest { id: 7, ttl: 1 }).await.expect("a lease");
        assert_eq!(granted.into_inner().ttl, 2);
        let requests = [7, 8].map(|id| LeaseKeepAliveRequest { id });
        let answers = client.lease.lease_keep_alive(tokio_stream::iter(requests)).await;
        let mut answers = answers.expect("a stream").into_inner();
        for expected in [(7, 2), (8, 0)] {
            let answer = answers.message().await.expect("an answer").expect("the stream goes on");
            assert_eq!((answer.id, answer.ttl), expected);
        }
    }
}
