"""How hits are counted, of rules and of Plans alike."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from controlplane import ir
from controlplane.api.counting import Counted, RateLimitUnit
from controlplane.api.faults import Fault
from controlplane.api.scalars import parse_duration
from controlplane.conditions import Condition

# The service counts buckets in numbers that a double holds exactly: seconds of the unit, ticks of its clock.
_MAX_EXACT: Final = 2**53
_TICKS: Final = {
    "Second": 1_000_000,
    "Minute": 60 * 1_000_000,
    "Hour": 3600 * 1_000_000,
    "Day": 86_400 * 1_000,
    "Week": 7 * 86_400 * 1_000,
    "Month": 30 * 86_400 * 1_000,
    "Year": 365 * 86_400 * 1_000,
}


def counting(given: Counted) -> ir.Counting:
    """Returns how the service is to count."""
    return ir.Counting(
        algorithm=given.algorithm,
        burst=given.burst or 0,
        delay_ms=_milliseconds(given.delay),
        lease_time_ms=_milliseconds(given.lease_time),
        lease=given.lease_size or 1,
        on_store_error=given.on_store_error,
    )


def without_effect(given: Counted, field: str) -> Iterator[Condition]:
    """Yields what is not in force of the fields of a Plan's limit at `field`."""
    if given.mode == "Quota":
        yield not_by_quota("callers are counted each for itself, in buckets that Envoy never forgets by itself", field)


def not_by_quota(reason: str, field: str) -> Condition:
    """Returns the condition of a limit at `field` that Envoys cannot enforce by shares."""
    message = f"Quota is not supported here: {reason}; the service is asked about each request"
    return Condition("NotSupported", "True", "UnsupportedField", message, f"{field}.mode")


def faults_of(given: Counted, *, requests: int, unit: RateLimitUnit, field: str, limit_field: str) -> Iterator[Fault]:
    """Yields what the service would refuse: `requests` stands at `limit_field`, the other fields below `field`."""
    if given.algorithm not in ("TokenBucket", "LeakyBucket"):
        return
    if given.burst and not requests:
        yield Fault(f"{field}.burst", "a token bucket with 0 requests never fills again")
        return
    largest = _MAX_EXACT // _TICKS[unit]
    size = given.burst or requests
    if size > largest:
        where = f"{field}.burst" if given.burst else limit_field
        bucket = "token bucket" if given.algorithm == "TokenBucket" else "leaky bucket"
        yield Fault(where, f"a {bucket} per {unit} holds at most {largest} requests; got {size}")


def _milliseconds(duration: str | None) -> int:
    return round(parse_duration(duration).total_seconds() * 1000) if duration is not None else 0
