# pyright: standard, reportAttributeAccessIssue=false
"""The messages of RateLimitQuotaService: from bytes to usages, from actions to bytes."""

from __future__ import annotations

from collections.abc import Iterable

from envoy.service.rate_limit_quota.v3 import rlqs_pb2
from envoy.type.v3 import ratelimit_strategy_pb2
from google.protobuf.message import DecodeError

from ratelimit_service.quota.ledger import Action, Usage

METHOD = "/envoy.service.rate_limit_quota.v3.RateLimitQuotaService/StreamRateLimitQuotas"

_BLANKET = {
    True: ratelimit_strategy_pb2.RateLimitStrategy.ALLOW_ALL,
    False: ratelimit_strategy_pb2.RateLimitStrategy.DENY_ALL,
}


def read_reports(body: bytes) -> tuple[str, list[Usage]] | None:
    """Returns the domain (empty where it is that of the messages before) and the usages; None for other bytes."""
    try:
        message = rlqs_pb2.RateLimitQuotaUsageReports.FromString(body)
    except DecodeError:
        return None
    usages = [
        Usage(
            dict(each.bucket_id.bucket),
            each.num_requests_allowed,
            each.num_requests_denied,
            each.time_elapsed.seconds + each.time_elapsed.nanos / 1e9,
        )
        for each in message.bucket_quota_usages
    ]
    return message.domain, usages


def write_actions(actions: Iterable[Action]) -> bytes:
    """Encodes a RateLimitQuotaResponse."""
    message = rlqs_pb2.RateLimitQuotaResponse()
    for action in actions:
        made = message.bucket_action.add()
        for name, value in action.key[1]:
            made.bucket_id.bucket[name] = value
        if action.strategy is None:
            made.abandon_action.SetInParent()
            continue
        assignment = made.quota_assignment_action
        # Envoy takes a missing time to live for none at all.
        assignment.assignment_time_to_live.seconds = action.time_to_live_s
        strategy = action.strategy
        if isinstance(strategy, bool):
            assignment.rate_limit_strategy.blanket_rule = _BLANKET[strategy]
            continue
        bucket = assignment.rate_limit_strategy.token_bucket
        bucket.max_tokens = strategy.max_tokens
        bucket.tokens_per_fill.value = strategy.tokens_per_fill
        bucket.fill_interval.seconds = strategy.fill_interval_s
        # Envoy reads the seconds alone, but only looks at the nanoseconds when it compares a bucket with the last one.
        bucket.fill_interval.nanos = strategy.fill_interval_s % 1_000_000
    return message.SerializeToString(deterministic=True)
