"""SecurityPolicy: who may call, and how they prove who they are."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from controlplane.api.apikey import APIKeyAuth, Consumers
from controlplane.api.authorization import Authorization
from controlplane.api.jwt import JWT
from controlplane.api.marks import NotSupported
from controlplane.api.meta import Model, Resource, SecretObjectReference
from controlplane.api.oidc import OIDC
from controlplane.api.policy import BackendCluster, MergeablePolicySpec
from controlplane.api.scalars import Bool, Duration, HeaderName, Origin, Positive, refuse


class CORS(Model):
    """Cross-origin resource sharing: which origins may call, and how."""

    allow_origins: Annotated[tuple[Origin, ...], Field(max_length=64)] = ()
    """Origins as `https://HOST[:PORT]`; the host may begin with `*.`, and `*` alone allows every origin."""
    allow_methods: Annotated[tuple[Annotated[str, Field(min_length=1, max_length=64)], ...], Field(max_length=16)] = ()
    """Methods that may be used; `*` allows all."""
    allow_headers: Annotated[tuple[HeaderName, ...], Field(max_length=64)] = ()
    """Request headers that may be sent; `*` allows all."""
    expose_headers: Annotated[tuple[HeaderName, ...], Field(max_length=64)] = ()
    """Response headers that scripts may read."""
    max_age: Duration | None = None
    """How long a browser may keep the answer to a preflight request."""
    allow_credentials: Bool = False
    """Whether requests may carry cookies and authorization."""


class BasicAuth(Model):
    """Users and passwords."""

    users: SecretObjectReference
    """A Secret with the htpasswd file under `.htpasswd`."""
    forward_username_header: HeaderName | None = None


class BodyToExtAuth(Model):
    """How much of the request's body the authorization server gets."""

    max_request_bytes: Positive


class GRPCExtAuthService(BackendCluster):
    """An authorization server that speaks Envoy's gRPC protocol."""


class HTTPExtAuthService(BackendCluster):
    """An authorization server that answers HTTP requests."""

    path: Annotated[str, Field(max_length=1024)] | None = None
    path_override: Annotated[str, Field(max_length=1024)] | None = None
    headers_to_backend: Annotated[tuple[HeaderName, ...], Field(max_length=64)] = ()


class ExtAuth(Model):
    """Asks an authorization server about each request."""

    grpc: GRPCExtAuthService | None = None
    http: HTTPExtAuthService | None = None
    headers_to_ext_auth: Annotated[tuple[HeaderName, ...], Field(max_length=64)] = ()
    body_to_ext_auth: BodyToExtAuth | None = None
    context_extensions: Annotated[tuple[dict[str, object], ...], Field(max_length=64)] = ()
    fail_open: Bool = False
    recompute_route: Bool = False
    timeout: Duration | None = None
    status_on_error: Annotated[int, Field(strict=True, ge=400, le=599)] | None = None

    @model_validator(mode="after")
    def _one_protocol(self) -> ExtAuth:
        if (self.grpc is None) == (self.http is None):
            raise refuse("set either grpc or http")
        return self


class SecurityPolicySpec(MergeablePolicySpec):
    """Which requests are let in."""

    target_kinds: ClassVar[tuple[str, ...]] = ("Gateway", "ListenerSet", "HTTPRoute", "GRPCRoute", "TCPRoute")

    cors: CORS | None = None
    jwt: JWT | None = None
    api_key_auth: APIKeyAuth | None = None
    consumers: Consumers | None = None
    """Not in Envoy Gateway: API keys with scopes and metadata, which can be made and revoked at any time."""
    authorization: Authorization | None = None
    basic_auth: Annotated[BasicAuth | None, NotSupported("use apiKeyAuth or jwt")] = None
    oidc: Annotated[OIDC | None, NotSupported("use jwt")] = None
    ext_auth: Annotated[ExtAuth | None, NotSupported()] = None
    allow_route_override: Bool = False
    """Not in Envoy Gateway, for policies of Gateways: routes may drop the authentication that this policy asks for,
    if they say so with `dropParentAuthentication`."""
    drop_parent_authentication: Bool = False
    """Not in Envoy Gateway, for policies of routes: do without the authentication that the Gateway's policy asks for,
    which must allow it with `allowRouteOverride`."""


class SecurityPolicy(Resource):
    """Authentication and authorization for a Gateway or a route."""

    kind: Literal["SecurityPolicy"] = "SecurityPolicy"
    spec: SecurityPolicySpec
