# pyright: standard, reportAttributeAccessIssue=false
"""Envoy's own buckets before the rate limit service, by Envoy's local_ratelimit filter: who is far above a limit is
refused without a question.

A bucket holds twice what its limit admits at once, and wins twice the limit back in its unit. So nobody is refused
here who keeps to the limit, whichever Envoys the requests come by: a limit admits itself twice from one window into the
next, and never more in the time that it takes to win that back.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import HttpFilter
from google.protobuf.any_pb2 import Any as AnyMessage

from controlplane import ir
from controlplane.translate import plans
from controlplane.translate.counting import SECONDS
from controlplane.translate.descriptors import rate_limits
from controlplane.translate.filters.local_ratelimit import ALWAYS, MAX_DISTINCT, UNLIMITED, LocalRateLimit
from controlplane.translate.services import rule_descriptor
from controlplane.translate.wire import packed
from dragoman.protos.ratelimit.config.ratelimit.v3 import rls_conf_pb2 as rls

NAME: str = "dragoman/ratelimit-shield"
_MAX_TOKENS = 2**32 - 1
_UNITS = {rls.RateLimitUnit.Value(unit.upper()): seconds for unit, seconds in SECONDS.items()}
_Path = tuple[tuple[str, str], ...]


def listener_filter() -> HttpFilter:
    """Returns the filter as it stands on every listener, disabled."""
    return HttpFilter(name=NAME, typed_config=packed(LocalRateLimit(stat_prefix="shield")), disabled=True)


def route_config(rule: ir.Rule, policies: ir.Policies) -> AnyMessage | None:
    """Returns the buckets of a route: for each limit that may be shielded one for each of those whom it tells apart."""
    limit = policies.global_limit
    if limit is None:
        return None
    asked: list[Any] = []
    tree: list[rls.RateLimitDescriptor] = []
    for index, each in enumerate(limit.rules):
        if each.shielded:
            asked += list(rate_limits(index, each, tokens=policies.tokens, scope=policies.limit_scope))[:1]
            tree.append(rule_descriptor(index, each, rls.ALLOW))
    if limit.plans is not None and limit.plans.shielded:
        asked += plans.rate_limits(limit.plans, policies, running=False)
        # Of two descriptors with gaps Envoy takes either: one for any plan could be taken for a plan that there is.
        tree += plans.descriptors(limit.plans, rls.ALLOW, unknown=False)
    limits = [(path, found) for path, found in _leaves(tree, ()) if _can_tell(found)]
    if not asked or all(_lets_all_through(found) for _, found in limits):
        return None
    message = LocalRateLimit(
        stat_prefix="shield",
        token_bucket=UNLIMITED,
        filter_enabled=ALWAYS,
        filter_enforced=ALWAYS,
        always_consume_default_token_bucket={"value": False},
        max_dynamic_descriptors={"value": MAX_DISTINCT},
        enable_retry_after_header=True,
        rate_limited_as_resource_exhausted=True,
        descriptors=[_bucket(path, found) for path, found in limits],
    )
    for each in asked:
        # They would tell of the bucket, not of the limit.
        each.x_ratelimit_option = "OFF"
        message.rate_limits.append(each)
    return packed(message)


def _leaves(tree: Iterable[rls.RateLimitDescriptor], above: _Path) -> Iterator[tuple[_Path, rls.RateLimitDescriptor]]:
    for each in tree:
        path = (*above, (each.key, each.value))
        if each.HasField("rate_limit"):
            yield path, each
        yield from _leaves(each.descriptors, path)


def _can_tell(found: rls.RateLimitDescriptor) -> bool:
    """Says whether a bucket can stand for a limit; it cannot tell how many requests run at a time."""
    return found.rate_limit.dragoman.algorithm != rls.CONCURRENCY


def _lets_all_through(found: rls.RateLimitDescriptor) -> bool:
    """Says whether a bucket has no end. Who is not limited needs one, too: else that of all others would be theirs."""
    return found.rate_limit.unlimited or found.shadow_mode


def _bucket(path: _Path, found: rls.RateLimitDescriptor) -> Mapping[str, Any]:
    entries = [{"key": key, "value": value} for key, value in path]
    if _lets_all_through(found):
        return {"entries": entries, "token_bucket": UNLIMITED}
    limit = found.rate_limit
    seconds = _UNITS[limit.unit]
    held = 1 + math.ceil(limit.requests_per_unit * limit.dragoman.delay_ms / 1000 / seconds)
    at_once = max(limit.requests_per_unit, limit.dragoman.burst, held)
    bucket = {
        "max_tokens": min(2 * at_once, _MAX_TOKENS),
        "tokens_per_fill": {"value": min(2 * max(limit.requests_per_unit, 1), _MAX_TOKENS)},
        "fill_interval": {"seconds": seconds},
    }
    return {"entries": entries, "token_bucket": bucket}
