//! The same random changes of users and roles, logins, and requests by whoever, to us and to Debian's etcd: the same answers.
//!
//! Intended differences, which the requests leave out: etcd 3.4 lets nobody grant and revoke leases, compact and do empty transactions; tells
//! whether a user has no password; may
//! grant a permission twice where several begin with the same key, and then takes back one of the two; looks at no nested
//! transaction, and at neither `prev_kv` nor the lease of a put within a transaction; it refuses wrong tokens even while users
//! do not count, as its later releases do not.

use crate::common::{Client, PATIENCE, Served};
use crate::differential::{Comparable, Dice, Etcd, comparable};
use bytes::Bytes;
use quorate_server::proto::authpb::{Permission, UserAddOptions};
use quorate_server::proto::etcdserverpb::request_op::Request as Op;
use quorate_server::proto::etcdserverpb::{
    AuthDisableRequest, AuthEnableRequest, AuthRoleAddRequest, AuthRoleDeleteRequest, AuthRoleGetRequest,
    AuthRoleGetResponse, AuthRoleGrantPermissionRequest, AuthRoleListRequest, AuthRoleRevokePermissionRequest,
    AuthUserAddRequest, AuthUserChangePasswordRequest, AuthUserDeleteRequest, AuthUserGetRequest,
    AuthUserGrantRoleRequest, AuthUserListRequest, AuthUserRevokeRoleRequest, AuthenticateRequest,
    AuthenticateResponse, Compare, LeaseGrantRequest, LeaseRevokeRequest, PutRequest, RequestOp, ResponseHeader,
    TxnRequest,
};
use std::collections::BTreeMap;
use tonic::{Request, Response, Status};

const REQUESTS: usize = 1_500;

macro_rules! with_header {
    ($($name:ident),* $(,)?) => {$(
        impl Comparable for quorate_server::proto::etcdserverpb::$name {
            fn header(&mut self) -> Option<&mut ResponseHeader> {
                self.header.as_mut()
            }
        }
    )*};
}

with_header!(
    AuthEnableResponse,
    AuthDisableResponse,
    AuthUserAddResponse,
    AuthUserGetResponse,
    AuthUserDeleteResponse,
    AuthUserChangePasswordResponse,
    AuthUserGrantRoleResponse,
    AuthUserRevokeRoleResponse,
    AuthRoleAddResponse,
    AuthRoleListResponse,
    AuthUserListResponse,
    AuthRoleDeleteResponse,
    AuthRoleGrantPermissionResponse,
    AuthRoleRevokePermissionResponse,
);

impl Comparable for AuthRoleGetResponse {
    fn header(&mut self) -> Option<&mut ResponseHeader> {
        self.header.as_mut()
    }

    /// etcd sorts by the first key only, equals in any order.
    fn normalise(&mut self) {
        self.perm.sort_by(|left, right| (&left.key, &left.range_end).cmp(&(&right.key, &right.range_end)));
    }
}

impl Comparable for AuthenticateResponse {
    fn header(&mut self) -> Option<&mut ResponseHeader> {
        self.header.as_mut()
    }

    fn normalise(&mut self) {
        self.token = if self.token.is_empty() { String::new() } else { "a token".to_owned() };
    }
}

impl Dice {
    fn user(&mut self) -> String {
        self.pick(&["root", "root", "u", "u", "v", "v", "w", ""]).to_owned()
    }

    fn role(&mut self) -> String {
        self.pick(&["root", "r", "r", "s", "s", "t"]).to_owned()
    }

    fn password(&mut self) -> String {
        self.pick(&["p", "p", "p", "q"]).to_owned()
    }

    /// A range that is one key, or begins before it ends.
    fn span(&mut self) -> (Bytes, Bytes) {
        let key = self.pick(&["a", "b", "c", "ca", "d"]);
        let end = self.pick(&["", "", "\0", "b", "c", "cb", "e"]);
        let end = if end != "\0" && end <= key { "" } else { end };
        (key.into(), end.into())
    }

    /// The keys of a permission: the end follows from the key.
    fn permitted(&mut self) -> (Bytes, Bytes) {
        let all = [("a", ""), ("b", "c"), ("bb", "d"), ("c", "\0"), ("ca", ""), ("d", "e"), ("d\0", "\0")];
        let (key, end) = self.pick(&all);
        (key.into(), end.into())
    }

    fn simple_txn(&mut self) -> TxnRequest {
        let compare = (0..1 + self.below(2)).map(|_| {
            let (key, range_end) = self.span();
            Compare { key, range_end, ..Compare::default() }
        });
        let compare = compare.collect();
        let mut list = || (0..self.below(3)).map(|_| RequestOp { request: Some(self.step()) }).collect();
        TxnRequest { compare, success: list(), failure: list() }
    }

    fn step(&mut self) -> Op {
        match self.below(4) {
            0 => Op::RequestRange(self.get()),
            1 => Op::RequestDeleteRange(self.remove()),
            _ => Op::RequestPut(PutRequest { prev_kv: false, lease: 0, ..self.plain_put() }),
        }
    }

    fn plain_put(&mut self) -> PutRequest {
        let lease = self.pick(&[0, 0, 1]);
        PutRequest { key: self.span().0, value: self.value(), prev_kv: self.one_in(3), lease, ..PutRequest::default() }
    }

    fn get(&mut self) -> quorate_server::proto::etcdserverpb::RangeRequest {
        let (key, range_end) = self.span();
        quorate_server::proto::etcdserverpb::RangeRequest { key, range_end, ..Default::default() }
    }

    fn remove(&mut self) -> quorate_server::proto::etcdserverpb::DeleteRangeRequest {
        let (key, range_end) = self.span();
        let range_end = if range_end == [0][..] { Bytes::new() } else { range_end };
        quorate_server::proto::etcdserverpb::DeleteRangeRequest { key, range_end, prev_kv: self.one_in(3) }
    }
}

/// Who asks: a token of each side, or none.
type Caller = Option<(String, String)>;

struct Pair {
    ours: Client,
    theirs: Client,
    /// The newest token of each user.
    tokens: BTreeMap<String, (String, String)>,
    /// Whether users count.
    enabled: bool,
}

fn by<T>(token: Option<&String>, request: T) -> Request<T> {
    let mut request = Request::new(request);
    if let Some(token) = token {
        request.metadata_mut().insert("token", token.parse().expect("ASCII"));
    }
    request
}

/// Asks both the same, each with its own token.
macro_rules! both {
    ($pair:expr, $caller:expr, $client:ident . $call:ident ( $request:expr )) => {{
        let request = $request;
        let caller: &Caller = $caller;
        let ours = by(caller.as_ref().map(|it| &it.0), request.clone());
        let theirs = by(caller.as_ref().map(|it| &it.1), request.clone());
        let (ours, theirs) = tokio::join!($pair.ours.$client.$call(ours), $pair.theirs.$client.$call(theirs));
        (format!("{request:?}"), comparable(ours), comparable(theirs))
    }};
}

impl Pair {
    async fn log_in(&mut self, name: String, password: String) -> (String, String, String) {
        let request = AuthenticateRequest { name: name.clone(), password };
        let (ours, theirs) =
            tokio::join!(self.ours.auth.authenticate(request.clone()), self.theirs.auth.authenticate(request.clone()));
        let token = |answer: &Result<Response<AuthenticateResponse>, Status>| {
            answer.as_ref().ok().map(|answer| answer.get_ref().token.clone())
        };
        if let (Some(ours), Some(theirs)) = (token(&ours), token(&theirs)) {
            self.tokens.insert(name, (ours, theirs));
        }
        let theirs = theirs.map_err(|status| match status.message() {
            "auth: authentication failed, password was given for no password user" => wrong_password(),
            _ => status,
        });
        (format!("{request:?}"), comparable(ours), comparable(theirs))
    }

    fn caller(&self, dice: &mut Dice) -> Caller {
        let user = dice.user();
        match user.as_str() {
            _ if !self.enabled => None,
            "w" if dice.one_in(2) => Some(("nonsense".to_owned(), "nonsense".to_owned())),
            _ => self.tokens.get(&user).cloned(),
        }
    }

    async fn ask(&mut self, dice: &mut Dice) -> (String, String, String) {
        let caller = &self.caller(dice);
        let root = &self.tokens.get("root").cloned().filter(|_| self.enabled);
        let manager = if dice.one_in(4) { caller } else { root };
        let (user, role) = (dice.user(), dice.role());
        match dice.below(60) {
            _ if !self.enabled && dice.one_in(8) => {
                let asked = both!(self, manager, auth.auth_enable(AuthEnableRequest {}));
                if !self.enabled && asked.1.starts_with("AuthEnable") {
                    self.enabled = true;
                    for name in ["root", "u", "v"] {
                        let (request, ours, theirs) = self.log_in(name.to_owned(), "p".to_owned()).await;
                        if ours != theirs {
                            return (request, ours, theirs);
                        }
                    }
                }
                asked
            }
            0 => {
                let options = (dice.one_in(4) && user != "root").then_some(UserAddOptions { no_password: true });
                let password = if options.is_some() { String::new() } else { dice.password() };
                let request = AuthUserAddRequest { name: user, password, options, ..Default::default() };
                both!(self, manager, auth.user_add(request))
            }
            1 if dice.one_in(2) => both!(self, manager, auth.user_delete(AuthUserDeleteRequest { name: user })),
            2 if dice.one_in(3) => {
                let password = if user == "root" { "p".to_owned() } else { dice.password() };
                let request = AuthUserChangePasswordRequest { name: user, password, ..Default::default() };
                both!(self, manager, auth.user_change_password(request))
            }
            3 | 4 => both!(self, manager, auth.user_grant_role(AuthUserGrantRoleRequest { user, role })),
            5 => both!(self, manager, auth.user_revoke_role(AuthUserRevokeRoleRequest { name: user, role })),
            6 => both!(self, manager, auth.role_add(AuthRoleAddRequest { name: role })),
            7 if dice.one_in(3) => both!(self, manager, auth.role_delete(AuthRoleDeleteRequest { role })),
            8..=13 => {
                let (key, range_end) = dice.permitted();
                let perm_type = i32::try_from(dice.below(3)).expect("it is small");
                let perm = Some(Permission { perm_type, key, range_end });
                let request = AuthRoleGrantPermissionRequest { name: role, perm };
                both!(self, manager, auth.role_grant_permission(request))
            }
            14..=16 => {
                let (key, range_end) = dice.permitted();
                let request = AuthRoleRevokePermissionRequest { role, key, range_end };
                both!(self, manager, auth.role_revoke_permission(request))
            }
            17 if !user.is_empty() => both!(self, caller, auth.user_get(AuthUserGetRequest { name: user })),
            18 => both!(self, caller, auth.user_list(AuthUserListRequest {})),
            19 | 20 => both!(self, caller, auth.role_get(AuthRoleGetRequest { role })),
            21 => both!(self, caller, auth.role_list(AuthRoleListRequest {})),
            22 if self.enabled => both!(self, manager, auth.auth_enable(AuthEnableRequest {})),
            23 if dice.one_in(4) => {
                let asked = both!(self, manager, auth.auth_disable(AuthDisableRequest {}));
                self.enabled &= !asked.1.starts_with("AuthDisable");
                asked
            }
            24 | 25 => {
                let password = dice.password();
                return self.log_in(user, password).await;
            }
            26 if root.is_some() || !self.enabled => {
                let id = 1;
                both!(self, root, lease.lease_grant(LeaseGrantRequest { id, ttl: 6000 }))
            }
            27 if dice.one_in(3) && (caller.is_some() || !self.enabled) => {
                both!(self, caller, lease.lease_revoke(LeaseRevokeRequest { id: 1 }))
            }
            28..=37 => both!(self, caller, kv.put(dice.plain_put())),
            38..=46 => both!(self, caller, kv.range(dice.get())),
            47..=51 => both!(self, caller, kv.delete_range(dice.remove())),
            _ => both!(self, caller, kv.txn(dice.simple_txn())),
        }
    }
}

fn wrong_password() -> Status {
    Status::invalid_argument("etcdserver: authentication failed, invalid user ID or password")
}

#[tokio::test]
async fn users_and_roles_do_what_they_do_in_etcd() {
    let Some(etcd) = Etcd::start_with(&["--bcrypt-cost", "4"]) else { return };
    let served = Served::start().await;
    let (ours, theirs) = (served.client().await, Client::connect(etcd.address).await);
    let mut pair = Pair { ours, theirs, tokens: BTreeMap::new(), enabled: false };
    let seed = std::env::var("QUORATE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let mut dice = Dice(seed);
    for client in [&mut pair.ours, &mut pair.theirs] {
        let root = AuthUserAddRequest { name: "root".into(), password: "p".into(), ..Default::default() };
        client.auth.user_add(root).await.expect("a user");
        let role = AuthUserGrantRoleRequest { user: "root".into(), role: "root".into() };
        client.auth.user_grant_role(role).await.expect("a role");
        client.auth.auth_enable(AuthEnableRequest {}).await.expect("they count");
    }
    pair.enabled = true;
    pair.log_in("root".to_owned(), "p".to_owned()).await;
    let mut denied = 0;
    for number in 0..REQUESTS {
        let asked = tokio::time::timeout(PATIENCE, pair.ask(&mut dice)).await;
        let (request, ours, theirs) = asked.unwrap_or_else(|_| panic!("seed {seed}, request {number}: no answer"));
        assert!(ours == theirs, "seed {seed}, request {number}: {request}\n\nours: {ours}\n\netcd's: {theirs}");
        denied += usize::from(ours.contains("permission denied"));
    }
    assert!(denied > REQUESTS / 100, "only {denied} requests were denied: it was not about users");
}
