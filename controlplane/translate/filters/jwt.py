# pyright: standard, reportAttributeAccessIssue=false
"""JSON Web Tokens, by Envoy's jwt_authn filter; providers come by ECDS, a route names what it requires."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from envoy.config.core.v3.base_pb2 import DataSource
from envoy.config.core.v3.extension_pb2 import TypedExtensionConfig
from envoy.extensions.filters.http.jwt_authn.v3.config_pb2 import (
    JwtAuthentication,
    JwtCacheConfig,
    JwtClaimToHeader,
    JwtHeader,
    JwtProvider,
    JwtRequirement,
    JwtRequirementOrList,
    PerRouteConfig,
)
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import HttpFilter
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import DecodeError

from controlplane import ir
from controlplane.translate.filters.discovery import discovered, extension
from controlplane.translate.wire import packed

NAME: str = "dragoman/jwt"
SCOPE_CLAIM = "scope"
_MAX_CACHED_TOKEN_BYTES = 4096


def listener_filter() -> HttpFilter:
    """Returns the filter as it stands on every listener, disabled."""
    return discovered(NAME, JwtAuthentication, disabled=True)


def route_config(rule: ir.Rule, policies: ir.Policies) -> AnyMessage | None:
    """Returns what a route requires, by the name of its content."""
    return packed(PerRouteConfig(requirement_name=policies.jwt.id)) if policies.jwt is not None else None


def extension_config(requirements: Iterable[ir.Jwt], *, key_set: Callable[[ir.Jwks], str | None]) -> bytes:
    """Encodes the providers and requirements of a Gateway.

    A provider without a key set is left out, for Envoy refuses it; a requirement without any provider is refused by
    the filter itself.
    """
    config = JwtAuthentication(bypass_cors_preflight=True)
    for requirement in requirements:
        known = [(each, text) for each in requirement.providers if (text := key_set(each.jwks)) is not None]
        for provider, text in known:
            config.providers[provider.id].CopyFrom(_provider(provider, text))
        if known:
            names = [provider.id for provider, _ in known]
            config.requirement_map[requirement.id].CopyFrom(_requirement(names, optional=requirement.optional))
    return extension(NAME, config)


def carried_over(encoded: bytes, before: bytes) -> bytes:
    """Returns an encoded extension with the requirements and providers, too, that only an earlier one has.

    An earlier one that cannot be read had none.
    """
    try:
        now, earlier = _opened(encoded), _opened(before)
    except DecodeError:
        return encoded
    for mine, theirs in ((now.providers, earlier.providers), (now.requirement_map, earlier.requirement_map)):
        for name in theirs.keys() - mine.keys():
            mine[name].CopyFrom(theirs[name])
    return extension(NAME, now)


def _opened(encoded: bytes) -> JwtAuthentication:
    config = JwtAuthentication()
    TypedExtensionConfig.FromString(encoded).typed_config.Unpack(config)
    return config


def _requirement(names: list[str], *, optional: bool) -> JwtRequirement:
    alternatives = [JwtRequirement(provider_name=name) for name in names]
    if optional:
        alternatives.append(JwtRequirement(allow_missing=Empty()))
    if len(alternatives) == 1:
        return alternatives[0]
    return JwtRequirement(requires_any=JwtRequirementOrList(requirements=alternatives))


def _provider(provider: ir.JwtProvider, key_set: str) -> JwtProvider:
    made = JwtProvider(
        issuer=provider.issuer,
        audiences=provider.audiences,
        local_jwks=DataSource(inline_string=key_set),
        # The backend gets the token too: it may want to look at it, or to pass it on.
        forward=True,
        from_headers=[JwtHeader(name=each.name, value_prefix=each.prefix) for each in provider.from_headers],
        from_params=provider.from_params,
        from_cookies=provider.from_cookies,
        claim_to_headers=[
            JwtClaimToHeader(header_name=each.header, claim_name=each.claim) for each in provider.claim_headers
        ],
        jwt_cache_config=JwtCacheConfig(jwt_max_token_size=_MAX_CACHED_TOKEN_BYTES),
    )
    if provider.claims_read:
        # More than doubles what the filter costs: Envoy copies the claims for each request.
        made.payload_in_metadata = provider.id
        made.normalize_payload_in_metadata.space_delimited_claims.append(SCOPE_CLAIM)
    return made
