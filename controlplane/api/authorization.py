"""Authorization: which clients may do what, by address, claims and headers."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field, model_validator

from controlplane.api.httproute import HTTPMethod
from controlplane.api.meta import Model
from controlplane.api.policy import CIDR, LaterList
from controlplane.api.scalars import Bool, HeaderName, ObjectName, refuse
from controlplane.api.uripath import check_path

Action: TypeAlias = Literal["Allow", "Deny"]
_Value: TypeAlias = Annotated[str, Field(min_length=1, max_length=1024)]


class PathMatch(Model):
    """Paths of requests."""

    type: Literal["Exact", "PathPrefix", "RegularExpression"] = "PathPrefix"
    """How the value is compared."""
    value: Annotated[str, Field(max_length=1024)] = "/"
    """The path, or a regular expression (RE2) that must match all of it."""
    invert: Bool = False
    """Match all other paths."""

    @model_validator(mode="after")
    def _value_is_path(self) -> PathMatch:
        if self.type != "RegularExpression":
            check_path(self.value)
        return self


class Operation(Model):
    """What a request wants to do."""

    methods: Annotated[tuple[HTTPMethod, ...], Field(max_length=16)] = ()
    """Methods, one of which the request must have."""
    path: PathMatch | None = None
    """Path that the request must have."""

    @model_validator(mode="after")
    def _not_empty(self) -> Operation:
        if not self.methods and self.path is None:
            raise refuse("set methods, path or both")
        return self


class JWTClaim(Model):
    """A claim and the values that it may have."""

    name: ObjectName
    """Name of the claim; dots lead into nested ones, as in `organization.name`."""
    value_type: Literal["String", "StringArray"] = "String"
    """What the claim is."""
    values: Annotated[tuple[_Value, ...], Field(min_length=1, max_length=128)]
    """The claim must be one of these (String) or hold one of these (StringArray)."""


class JWTPrincipal(Model):
    """A client by its token, which `jwt` of the same policy must verify."""

    provider: ObjectName
    """Name of the provider in `jwt`."""
    claims: Annotated[tuple[JWTClaim, ...], Field(max_length=16)] = ()
    """All of them must match."""
    scopes: Annotated[tuple[ObjectName, ...], Field(max_length=16)] = ()
    """Words that the claim `scope` must hold, all of them."""

    @model_validator(mode="after")
    def _not_empty(self) -> JWTPrincipal:
        if not self.claims and not self.scopes:
            raise refuse("set claims, scopes or both")
        return self


class AuthorizationHeaderMatch(Model):
    """A header and the values that it may have."""

    name: HeaderName
    """Name of the header."""
    values: Annotated[tuple[_Value, ...], Field(min_length=1, max_length=256)]
    """Values, one of which it must have."""


class Principal(Model):
    """Who sends a request; all that is set must hold."""

    client_cidrs: Annotated[tuple[CIDR, ...], Field(alias="clientCIDRs", max_length=256)] = ()
    """Ranges of addresses, one of which must hold the client's."""
    jwt: JWTPrincipal | None = None
    headers: Annotated[tuple[AuthorizationHeaderMatch, ...], Field(max_length=256)] = ()
    client_ip_geo_locations: Annotated[LaterList, Field(alias="clientIPGeoLocations")] = None

    @model_validator(mode="after")
    def _not_empty(self) -> Principal:
        if not (self.client_cidrs or self.jwt or self.headers or self.client_ip_geo_locations):
            raise refuse("set at least one of clientCIDRs, jwt and headers")
        return self


class AuthorizationRule(Model):
    """What to do with some clients' requests."""

    name: ObjectName | None = None
    """Name of the rule, for people."""
    action: Action
    """What happens to requests that the rule matches."""
    operation: Operation | None = None
    """Requests that the rule is about; all when absent."""
    principal: Principal


class Authorization(Model):
    """Rules in order; the first that matches decides."""

    rules: Annotated[tuple[AuthorizationRule, ...], Field(max_length=128)] = ()
    default_action: Action = "Deny"
    """When no rule matches."""
