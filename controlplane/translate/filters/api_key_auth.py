# pyright: standard, reportAttributeAccessIssue=false
"""API keys out of Secrets, by Envoy's api_key_auth filter; the keys of a route travel with it."""

from __future__ import annotations

from collections.abc import Iterator

from envoy.extensions.filters.http.api_key_auth.v3.api_key_auth_pb2 import (
    ApiKeyAuth,
    ApiKeyAuthPerRoute,
    Credential,
    Forwarding,
    KeySource,
)
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import HttpFilter
from google.protobuf.any_pb2 import Any as AnyMessage

from controlplane import ir
from controlplane.translate.wire import packed

NAME: str = "envoy.filters.http.api_key_auth"


def listener_filter() -> HttpFilter:
    """Returns the filter as it stands on every listener, disabled."""
    return HttpFilter(name=NAME, typed_config=packed(ApiKeyAuth()), disabled=True)


def route_config(rule: ir.Rule, policies: ir.Policies) -> AnyMessage | None:
    """Returns the keys of a route; without any, every request is refused."""
    source = policies.api_keys
    if source is None:
        return None
    forwarding = Forwarding(header=source.forward_client_header or "", hide_credentials=source.sanitize)
    message = ApiKeyAuthPerRoute(
        credentials=[Credential(key=key, client=client) for client, key in source.keys],
        key_sources=[each for place in source.sources for each in _places(place)],
        forwarding=forwarding,
    )
    return packed(message)


def _places(source: ir.KeySource) -> Iterator[KeySource]:
    yield from (KeySource(header=name) for name in source.headers)
    yield from (KeySource(query=name) for name in source.params)
    yield from (KeySource(cookie=name) for name in source.cookies)
