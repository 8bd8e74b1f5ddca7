//! The Auth service. Users, roles and their permissions live in the store, which also decides who may change them; a gateway
//! hashes passwords, compares them, and hands out tokens (see `access`).

use crate::errors::EtcdError;
use crate::gateway::Api;
use crate::proto::authpb;
use crate::proto::etcdserverpb::auth_server::Auth;
use crate::proto::etcdserverpb::{self as pb, ResponseHeader};
use crate::store::Read;
use quorate_machines::kv::{
    AuthOperation, AuthQuery, AuthResponse, KvError, Operation, Permission, PermissionKind, Query, Response as Answer,
};
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, async_trait};

/// A call that changes something and is answered with a header only.
macro_rules! change {
    ($self:ident, $request:ident, $response:ident, $operation:expr) => {{
        let header = $self.change($request.metadata(), $operation).await?;
        Ok(Response::new(pb::$response { header: Some(header) }))
    }};
}

#[async_trait]
impl Auth for Api {
    async fn auth_enable(
        &self,
        request: Request<pb::AuthEnableRequest>,
    ) -> Result<Response<pb::AuthEnableResponse>, Status> {
        change!(self, request, AuthEnableResponse, AuthOperation::Enable)
    }

    async fn auth_disable(
        &self,
        request: Request<pb::AuthDisableRequest>,
    ) -> Result<Response<pb::AuthDisableResponse>, Status> {
        change!(self, request, AuthDisableResponse, AuthOperation::Disable)
    }

    async fn auth_status(
        &self,
        request: Request<pb::AuthStatusRequest>,
    ) -> Result<Response<pb::AuthStatusResponse>, Status> {
        match self.ask(request.metadata(), AuthQuery::Status).await? {
            (header, AuthResponse::Status { enabled, revision }) => {
                let header = Some(header);
                Ok(Response::new(pb::AuthStatusResponse { header, enabled, auth_revision: revision }))
            }
            _ => Err(EtcdError::Strange.into()),
        }
    }

    /// Whoever knows the password gets a token. That it is right is decided by the hash of one revision of users and roles, and
    /// the token is of that revision: a password that is changed meanwhile makes it void.
    async fn authenticate(
        &self,
        request: Request<pb::AuthenticateRequest>,
    ) -> Result<Response<pb::AuthenticateResponse>, Status> {
        let pb::AuthenticateRequest { name, password } = request.into_inner();
        let query = Query::Auth(AuthQuery::Secret { name: name.clone() });
        let (header, answer) = match self.store.query(Read::Linearizable, &query).await {
            Err(EtcdError::Kv(KvError::RequestTooLarge(_))) => return Err(EtcdError::AuthFailed.into()),
            other => other?,
        };
        let Answer::Auth(AuthResponse::Secret { enabled, hash, revision }) = answer else {
            return Err(EtcdError::Strange.into());
        };
        if !enabled {
            return Err(EtcdError::AuthNotEnabled.into());
        }
        if !self.passwords.matches(password, hash).await? {
            return Err(EtcdError::AuthFailed.into());
        }
        let token = self.tokens.issue(&name, revision);
        Ok(Response::new(pb::AuthenticateResponse { header: Some(header), token }))
    }

    async fn user_add(
        &self,
        request: Request<pb::AuthUserAddRequest>,
    ) -> Result<Response<pb::AuthUserAddResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let pb::AuthUserAddRequest { name, password, options, hashed_password } = request;
        let without = options.is_some_and(|options| options.no_password);
        let hash = if without { None } else { Some(self.hash(&metadata, password, &hashed_password).await?) };
        let header = self.change(&metadata, AuthOperation::UserAdd { name, hash }).await?;
        Ok(Response::new(pb::AuthUserAddResponse { header: Some(header) }))
    }

    async fn user_get(
        &self,
        request: Request<pb::AuthUserGetRequest>,
    ) -> Result<Response<pb::AuthUserGetResponse>, Status> {
        let query = AuthQuery::User { name: request.get_ref().name.clone() };
        let (header, roles) = self.names(request.metadata(), query).await?;
        Ok(Response::new(pb::AuthUserGetResponse { header: Some(header), roles }))
    }

    async fn user_list(
        &self,
        request: Request<pb::AuthUserListRequest>,
    ) -> Result<Response<pb::AuthUserListResponse>, Status> {
        let (header, users) = self.names(request.metadata(), AuthQuery::Users).await?;
        Ok(Response::new(pb::AuthUserListResponse { header: Some(header), users }))
    }

    async fn user_delete(
        &self,
        request: Request<pb::AuthUserDeleteRequest>,
    ) -> Result<Response<pb::AuthUserDeleteResponse>, Status> {
        let name = request.get_ref().name.clone();
        change!(self, request, AuthUserDeleteResponse, AuthOperation::UserDelete { name })
    }

    async fn user_change_password(
        &self,
        request: Request<pb::AuthUserChangePasswordRequest>,
    ) -> Result<Response<pb::AuthUserChangePasswordResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let pb::AuthUserChangePasswordRequest { name, password, hashed_password } = request;
        let hash = Some(self.hash(&metadata, password, &hashed_password).await?);
        let header = self.change(&metadata, AuthOperation::UserChangePassword { name, hash }).await?;
        Ok(Response::new(pb::AuthUserChangePasswordResponse { header: Some(header) }))
    }

    async fn user_grant_role(
        &self,
        request: Request<pb::AuthUserGrantRoleRequest>,
    ) -> Result<Response<pb::AuthUserGrantRoleResponse>, Status> {
        let pb::AuthUserGrantRoleRequest { user: name, role } = request.get_ref().clone();
        change!(self, request, AuthUserGrantRoleResponse, AuthOperation::UserGrantRole { name, role })
    }

    async fn user_revoke_role(
        &self,
        request: Request<pb::AuthUserRevokeRoleRequest>,
    ) -> Result<Response<pb::AuthUserRevokeRoleResponse>, Status> {
        let pb::AuthUserRevokeRoleRequest { name, role } = request.get_ref().clone();
        change!(self, request, AuthUserRevokeRoleResponse, AuthOperation::UserRevokeRole { name, role })
    }

    async fn role_add(
        &self,
        request: Request<pb::AuthRoleAddRequest>,
    ) -> Result<Response<pb::AuthRoleAddResponse>, Status> {
        let name = request.get_ref().name.clone();
        change!(self, request, AuthRoleAddResponse, AuthOperation::RoleAdd { name })
    }

    async fn role_get(
        &self,
        request: Request<pb::AuthRoleGetRequest>,
    ) -> Result<Response<pb::AuthRoleGetResponse>, Status> {
        let query = AuthQuery::Role { name: request.get_ref().role.clone() };
        match self.ask(request.metadata(), query).await? {
            (header, AuthResponse::Permissions(permissions)) => {
                let perm = permissions.into_iter().map(told).collect();
                Ok(Response::new(pb::AuthRoleGetResponse { header: Some(header), perm }))
            }
            _ => Err(EtcdError::Strange.into()),
        }
    }

    async fn role_list(
        &self,
        request: Request<pb::AuthRoleListRequest>,
    ) -> Result<Response<pb::AuthRoleListResponse>, Status> {
        let (header, roles) = self.names(request.metadata(), AuthQuery::Roles).await?;
        Ok(Response::new(pb::AuthRoleListResponse { header: Some(header), roles }))
    }

    async fn role_delete(
        &self,
        request: Request<pb::AuthRoleDeleteRequest>,
    ) -> Result<Response<pb::AuthRoleDeleteResponse>, Status> {
        let name = request.get_ref().role.clone();
        change!(self, request, AuthRoleDeleteResponse, AuthOperation::RoleDelete { name })
    }

    async fn role_grant_permission(
        &self,
        request: Request<pb::AuthRoleGrantPermissionRequest>,
    ) -> Result<Response<pb::AuthRoleGrantPermissionResponse>, Status> {
        let pb::AuthRoleGrantPermissionRequest { name, perm } = request.get_ref().clone();
        let permission = understood(perm.ok_or(EtcdError::PermissionNotGiven)?)?;
        let operation = AuthOperation::RoleGrantPermission { name, permission };
        change!(self, request, AuthRoleGrantPermissionResponse, operation)
    }

    async fn role_revoke_permission(
        &self,
        request: Request<pb::AuthRoleRevokePermissionRequest>,
    ) -> Result<Response<pb::AuthRoleRevokePermissionResponse>, Status> {
        let pb::AuthRoleRevokePermissionRequest { role: name, key, range_end } = request.get_ref().clone();
        let operation = AuthOperation::RoleRevokePermission { name, key, range_end };
        change!(self, request, AuthRoleRevokePermissionResponse, operation)
    }
}

impl Api {
    async fn change(&self, metadata: &MetadataMap, operation: AuthOperation) -> Result<ResponseHeader, EtcdError> {
        match self.access(metadata).apply(Operation::Auth(operation)).await? {
            (header, Answer::Auth(AuthResponse::Done)) => Ok(header),
            _ => Err(EtcdError::Strange),
        }
    }

    async fn ask(&self, metadata: &MetadataMap, query: AuthQuery) -> Result<(ResponseHeader, AuthResponse), EtcdError> {
        match self.access(metadata).query(Read::Linearizable, Query::Auth(query)).await? {
            (header, Answer::Auth(answer)) => Ok((header, answer)),
            _ => Err(EtcdError::Strange),
        }
    }

    async fn names(
        &self,
        metadata: &MetadataMap,
        query: AuthQuery,
    ) -> Result<(ResponseHeader, Vec<String>), EtcdError> {
        match self.ask(metadata, query).await? {
            (header, AuthResponse::Names(names)) => Ok((header, names)),
            _ => Err(EtcdError::Strange),
        }
    }

    /// A hash, for those who may use it: it costs much.
    async fn hash(&self, metadata: &MetadataMap, password: String, hashed: &str) -> Result<String, EtcdError> {
        self.administer(metadata).await?;
        if !hashed.is_empty() {
            let why = "quorate: passwords are hashed by the gateway: send `password`, not `hashedPassword`";
            return Err(EtcdError::NotOffered(why));
        }
        self.passwords.hash(password).await
    }

    /// Refuses whoever may not administer, for what a gateway does by itself.
    pub(crate) async fn administer(&self, metadata: &MetadataMap) -> Result<(), EtcdError> {
        self.ask(metadata, AuthQuery::Administer).await.map(drop)
    }
}

fn understood(permission: authpb::Permission) -> Result<Permission, EtcdError> {
    let kind = match authpb::permission::Type::try_from(permission.perm_type) {
        Ok(authpb::permission::Type::Read) => PermissionKind::Read,
        Ok(authpb::permission::Type::Write) => PermissionKind::Write,
        Ok(authpb::permission::Type::Readwrite) => PermissionKind::ReadWrite,
        Err(_) => return Err(EtcdError::PermissionNotGiven),
    };
    Ok(Permission { kind, key: permission.key, range_end: permission.range_end })
}

fn told(permission: Permission) -> authpb::Permission {
    let Permission { kind, key, range_end } = permission;
    let kind = match kind {
        PermissionKind::Read => authpb::permission::Type::Read,
        PermissionKind::Write => authpb::permission::Type::Write,
        PermissionKind::ReadWrite => authpb::permission::Type::Readwrite,
    };
    authpb::Permission { perm_type: kind.into(), key, range_end }
}
