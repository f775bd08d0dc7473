# pyright: standard, reportAttributeAccessIssue=false
"""Limits that each Envoy counts for itself, by Envoy's local_ratelimit filter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import envoy.extensions.filters.http.local_ratelimit.v3.local_rate_limit_pb2  # noqa: F401  (newer must find it)
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import HttpFilter
from google.protobuf.any_pb2 import Any as AnyMessage

from controlplane import ir
from controlplane.translate import newer
from controlplane.translate.counting import SECONDS
from controlplane.translate.descriptors import RULE_KEY, levels, rate_limits
from controlplane.translate.wire import packed

NAME: str = "envoy.filters.http.local_ratelimit"
LocalRateLimit: Any = newer.message("envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit")
ALWAYS: Final = {"default_value": {"numerator": 100}}
# Envoy wants a bucket for the requests that no descriptor matches, also where they are not limited.
UNLIMITED: Final = {
    "max_tokens": 2**32 - 1,
    "tokens_per_fill": {"value": 2**32 - 1},
    "fill_interval": {"seconds": 1},
}
# How many clients that are counted apart a route remembers; the one that was not seen for longest gives way.
MAX_DISTINCT: Final = 10_000
_SHOWN, _HIDDEN = "DRAFT_VERSION_03", "OFF"


def listener_filter() -> HttpFilter:
    """Returns the filter as it stands on every listener, disabled."""
    return HttpFilter(name=NAME, typed_config=packed(LocalRateLimit(stat_prefix="local")), disabled=True)


def route_config(rule: ir.Rule, policies: ir.Policies) -> AnyMessage | None:
    """Returns the token buckets of a route: one for each rule that is told apart, one for all other requests."""
    if policies.local_limit is None:
        return None
    rules = policies.local_limit.rules
    told_by_service = _told_by_service(policies.global_limit)
    # Envoy's bucket for all other requests would have none beside a rule that is about all, as there may be in a merge.
    has_others = all(each.selects or not each.told_apart for each in rules)
    general = next((each for each in rules if has_others and not each.told_apart), None)
    message = LocalRateLimit(
        stat_prefix="local",
        token_bucket=_bucket(general) if general is not None else UNLIMITED,
        filter_enabled=ALWAYS,
        filter_enforced=ALWAYS,
        always_consume_default_token_bucket={"value": False},
        max_dynamic_descriptors={"value": MAX_DISTINCT},
        # Without such a rule the headers would tell of the bucket that is not there.
        enable_x_ratelimit_headers=int(general is not None and general.headers_shown and not told_by_service),
        enable_retry_after_header=True,
        rate_limited_as_resource_exhausted=True,
    )
    for index, each in enumerate(rules):
        if each is general:
            continue
        for made in rate_limits(index, each, tokens=policies.tokens):
            made.x_ratelimit_option = _SHOWN if each.headers_shown and not told_by_service else _HIDDEN
            message.rate_limits.append(made)
            message.descriptors.add(**_descriptor(index, each))
    return packed(message)


def _told_by_service(limit: ir.GlobalLimit | None) -> bool:
    """Says whether responses have the headers of the service, beside which there must not be another set of them."""
    if limit is None:
        return False
    return limit.plans is not None or any(each.headers_shown and not each.counting.quota for each in limit.rules)


def _descriptor(index: int, rule: ir.LimitRule) -> Mapping[str, Any]:
    return {
        "entries": [{"key": key, "value": value} for key, value in ((RULE_KEY, str(index)), *levels(rule))],
        "token_bucket": _bucket(rule),
        "shadow_mode": rule.shadow,
    }


def _bucket(rule: ir.LimitRule) -> Mapping[str, Any]:
    return {
        "max_tokens": rule.requests,
        "tokens_per_fill": {"value": rule.requests},
        "fill_interval": {"seconds": SECONDS[rule.unit]},
    }
