# pyright: standard, reportAttributeAccessIssue=false
"""How hits are counted, as the rate limit service is told."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, get_args

from controlplane import ir
from dragoman.protos.ratelimit.config.ratelimit.v3 import rls_conf_pb2 as rls

UNITS: Final[Mapping[str, Any]] = MappingProxyType(
    {unit: rls.RateLimitUnit.Value(unit.upper()) for unit in get_args(ir.Unit)}
)
SECONDS: Final[Mapping[ir.Unit, int]] = MappingProxyType(
    {
        "Second": 1,
        "Minute": 60,
        "Hour": 3600,
        "Day": 86_400,
        "Week": 7 * 86_400,
        "Month": 30 * 86_400,
        "Year": 365 * 86_400,
    }
)
_ALGORITHMS: Final = MappingProxyType(
    {
        "FixedWindow": rls.FIXED_WINDOW,
        "SlidingWindow": rls.SLIDING_WINDOW,
        "TokenBucket": rls.TOKEN_BUCKET,
        "LeakyBucket": rls.LEAKY_BUCKET,
        "Concurrency": rls.CONCURRENCY,
    }
)
_ON_STORE_ERROR: Final = MappingProxyType({"Allow": rls.ALLOW, "Deny": rls.DENY, "Local": rls.LOCAL})


def counting_of(source: ir.Counting, on_error: rls.OnStoreError) -> rls.PolicyExtension:
    """Returns what the service is told; `on_error` is for limits that say nothing of a lost store."""
    return rls.PolicyExtension(
        algorithm=_ALGORITHMS[source.algorithm],
        burst=source.burst,
        on_store_error=on_error if source.on_store_error is None else _ON_STORE_ERROR[source.on_store_error],
        delay_ms=source.delay_ms,
        lease_time_ms=source.lease_time_ms,
        lease=source.lease if source.lease > 1 else 0,
        mode=rls.QUOTA if source.quota else rls.MODE_UNSPECIFIED,
    )
