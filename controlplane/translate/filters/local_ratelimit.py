# pyright: standard, reportAttributeAccessIssue=false
"""Limits that each Envoy counts for itself, by Envoy's local_ratelimit filter."""

from __future__ import annotations

import math

from envoy.config.core.v3.base_pb2 import HeaderValue, HeaderValueOption, RuntimeFractionalPercent
from envoy.extensions.common.ratelimit.v3.ratelimit_pb2 import LocalRateLimitDescriptor, RateLimitDescriptor
from envoy.extensions.filters.http.local_ratelimit.v3.local_rate_limit_pb2 import LocalRateLimit
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import HttpFilter
from envoy.type.v3.percent_pb2 import FractionalPercent
from envoy.type.v3.token_bucket_pb2 import TokenBucket
from google.protobuf.any_pb2 import Any as AnyMessage

from controlplane import ir
from controlplane.translate.descriptors import RULE_KEY, levels, rate_limit
from controlplane.translate.wire import duration, packed

NAME: str = "envoy.filters.http.local_ratelimit"
_SECONDS = {
    "Second": 1,
    "Minute": 60,
    "Hour": 3600,
    "Day": 86_400,
    "Week": 7 * 86_400,
    "Month": 30 * 86_400,
    "Year": 365 * 86_400,
}
_ALWAYS = RuntimeFractionalPercent(default_value=FractionalPercent(numerator=100))
_OVERWRITE = HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD
# Envoy wants a bucket for the requests that no descriptor matches, also where they are not limited.
_UNLIMITED = TokenBucket(max_tokens=2**32 - 1, tokens_per_fill={"value": 2**32 - 1}, fill_interval=duration(1))
# How many clients that are counted apart a route remembers; the one that was not seen for longest gives way.
_MAX_DISTINCT = 10_000


def listener_filter() -> HttpFilter:
    """Returns the filter as it stands on every listener, disabled."""
    return HttpFilter(name=NAME, typed_config=packed(LocalRateLimit(stat_prefix="local")), disabled=True)


def route_config(rule: ir.Rule, policies: ir.Policies) -> AnyMessage | None:
    """Returns the token buckets of a route: one for each rule with selectors, one for all other requests."""
    if policies.local_limit is None:
        return None
    rules = policies.local_limit.rules
    general = next((each for each in rules if not each.selects), None)
    message = LocalRateLimit(
        stat_prefix="local",
        token_bucket=_bucket(general) if general is not None else _UNLIMITED,
        filter_enabled=_ALWAYS,
        filter_enforced=_ALWAYS,
        always_consume_default_token_bucket={"value": False},
        max_dynamic_descriptors={"value": _MAX_DISTINCT},
        # The headers would tell of the bucket that is not there.
        enable_x_ratelimit_headers=1 if general is not None else 0,
    )
    for index, each in enumerate(rules):
        if each.selects:
            entries = [(RULE_KEY, str(index)), *levels(each)]
            message.descriptors.append(
                LocalRateLimitDescriptor(
                    entries=[RateLimitDescriptor.Entry(key=key, value=value) for key, value in entries],
                    token_bucket=_bucket(each),
                )
            )
            message.rate_limits.append(rate_limit(index, each))
    longest = max(math.ceil(_SECONDS[each.unit] / each.requests) for each in rules)
    retry = HeaderValueOption(header=HeaderValue(key="retry-after", value=str(longest)), append_action=_OVERWRITE)
    message.response_headers_to_add.append(retry)
    return packed(message)


def _bucket(rule: ir.LimitRule) -> TokenBucket:
    return TokenBucket(
        max_tokens=rule.requests,
        tokens_per_fill={"value": rule.requests},
        fill_interval=duration(_SECONDS[rule.unit]),
    )
