# pyright: standard, reportAttributeAccessIssue=false
"""One module per HTTP filter, under the name of its concern in compile; the ordered list of them is here.

The list is the same on every listener: each filter is there, disabled, and a route enables what it needs. So no change
of a route or policy touches a listener, and no open connection sees new routes with old filters.

The order: what a client may not claim goes first, and preflight requests, which carry no credentials, are answered
next. Then who is it (keys, tokens, what the service says), then may they, and only what may pass counts towards limits:
the limits are of those who are let in, and what refuses the others is cheap. Own limits come before shared ones, which
cost a call.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from envoy.extensions.filters.http.router.v3.router_pb2 import Router
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import HttpFilter
from google.protobuf.any_pb2 import Any as AnyMessage

from controlplane.ir import Policies, Rule
from controlplane.translate.filters import (
    api_key_auth,
    authorization,
    cors,
    ext_authz,
    identity_headers,
    jwt,
    local_ratelimit,
    rate_limit_quota,
    ratelimit,
    request_id,
    shield,
)
from controlplane.translate.wire import packed


class FilterModule(Protocol):
    """What a module of this package offers, or an object in its place."""

    @property
    def NAME(self) -> str:  # noqa: N802  (a constant, where it is a module's)
        """The filter's name, under which routes enable it."""
        ...

    def listener_filter(self) -> HttpFilter:
        """Returns the filter as it stands on every listener, disabled."""
        ...

    def route_config(self, rule: Rule, policies: Policies) -> AnyMessage | None:
        """Returns what enables the filter on a route; None where the route does not need it."""
        ...


FILTERS: tuple[FilterModule, ...] = (
    identity_headers,
    cors,
    api_key_auth,
    jwt,
    ext_authz,
    authorization,
    local_ratelimit,
    *rate_limit_quota.ALL,
    request_id,
    shield,
    *ratelimit.ALL,
)


def listener_filters(*, quota_mode: bool = False) -> list[HttpFilter]:
    """Returns all filters of a listener in order, the router last; those for quotas only with `quota_mode`."""
    router = HttpFilter(name="envoy.filters.http.router", typed_config=packed(Router()))
    there = (each for each in FILTERS if quota_mode or each not in rate_limit_quota.ALL)
    return [*(module.listener_filter() for module in there), router]


def per_route_configs(rule: Rule, policies: Policies) -> Iterator[tuple[str, AnyMessage]]:
    """Yields the filters that a route enables, with their settings; where nothing passes, no guard is asked."""
    for module in (cors,) if policies.deny is not None else FILTERS:
        config = module.route_config(rule, policies)
        if config is not None:
            yield module.NAME, config
