"""JSON Web Tokens: who issues them, where the keys are, where in the request they are found."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, Field, model_validator

from controlplane.api.marks import NotSupported
from controlplane.api.meta import LocalObjectReference, Model
from controlplane.api.policy import BackendCluster
from controlplane.api.scalars import URL_PATTERN, Bool, Duration, HeaderName, ObjectName, refuse, require_unique

Name: TypeAlias = Annotated[str, Field(min_length=1, max_length=253)]
Names: TypeAlias = Annotated[tuple[Name, ...], Field(max_length=16)]


class RemoteJWKS(BackendCluster):
    """Keys that are fetched over HTTP."""

    uri: Annotated[str, Field(min_length=1, max_length=1024, pattern=URL_PATTERN)]
    """Where the JSON Web Key Set is."""
    cache_duration: Duration = "300s"
    """How long fetched keys are used before they are fetched again."""
    failed_refetch_duration: Annotated[Duration | None, NotSupported()] = None


class LocalJWKS(Model):
    """Keys that are written here or kept in a ConfigMap."""

    type: Literal["Inline", "ValueRef"] = "Inline"
    """Which field is set."""
    inline: Annotated[str, Field(max_length=262_144)] | None = None
    """The JSON Web Key Set as text."""
    value_ref: LocalObjectReference | None = None
    """A ConfigMap with the key set under `jwks` (or as its first value)."""

    @model_validator(mode="after")
    def _type_has_value(self) -> LocalJWKS:
        for kind, field, value in (("Inline", "inline", self.inline), ("ValueRef", "valueRef", self.value_ref)):
            if (value is None) == (self.type == kind):
                words = "needs" if value is None else "must not have"
                raise refuse(f"type {self.type} {words} {field}", field)
        return self


class ClaimToHeader(Model):
    """A claim that becomes a request header."""

    header: HeaderName
    """Name of the header."""
    claim: Name
    """Name of the claim; dots lead into nested ones, as in `organization.name`."""


class JWTHeaderExtractor(Model):
    """A header that holds a token."""

    name: HeaderName
    """Name of the header."""
    value_prefix: Annotated[str, Field(max_length=253)] | None = None
    """Text before the token, such as `Bearer ` with its space."""


class JWTExtractor(Model):
    """Where a token is looked for."""

    headers: Annotated[tuple[JWTHeaderExtractor, ...], Field(max_length=16)] = ()
    cookies: Names = ()
    """Cookies."""
    params: Names = ()
    """Query parameters."""


class JWTProvider(Model):
    """An issuer of tokens."""

    name: ObjectName
    """Name of the provider, which authorization rules refer to."""
    issuer: Annotated[str, Field(max_length=253)] | None = None
    """What the claim `iss` must be; not checked when absent."""
    audiences: Annotated[tuple[Name, ...], Field(max_length=8)] = ()
    """The claim `aud` must hold one of these; not checked when empty."""
    remote_jwks: RemoteJWKS | None = None
    local_jwks: LocalJWKS | None = None
    claim_to_headers: Annotated[tuple[ClaimToHeader, ...], Field(max_length=32)] = ()
    """Claims to pass on as headers; headers of these names that a client sends are removed."""
    recompute_route: Bool = False
    """Has no effect: filters are chosen with the first route, so that a second one would go unguarded."""
    extract_from: JWTExtractor | None = None
    """The header `Authorization: Bearer TOKEN` or the query parameter `access_token` when absent."""

    @model_validator(mode="after")
    def _one_source_of_keys(self) -> JWTProvider:
        if (self.remote_jwks is None) == (self.local_jwks is None):
            raise refuse("set either remoteJWKS or localJWKS")
        if self.recompute_route and not self.claim_to_headers:
            raise refuse("recomputeRoute needs claimToHeaders", "recomputeRoute")
        return self


def _check_providers(providers: tuple[JWTProvider, ...]) -> tuple[JWTProvider, ...]:
    require_unique(providers, lambda each: each.name, "provider")
    return providers


class JWT(Model):
    """Requests carry a token of one of the providers."""

    optional: Bool = False
    """Let requests without a token pass; an invalid token is refused all the same."""
    providers: Annotated[tuple[JWTProvider, ...], Field(min_length=1, max_length=4), AfterValidator(_check_providers)]
