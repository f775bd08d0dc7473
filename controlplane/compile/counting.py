"""How hits are counted, of rules and of Plans alike."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from controlplane import ir
from controlplane.api.counting import Counted
from controlplane.api.faults import Fault
from controlplane.api.scalars import parse_duration
from controlplane.conditions import Condition

# What the service keeps of each request that runs is in one value of its store.
_MAX_RUNNING: Final = 100_000


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


def faults_of(given: Counted, *, requests: int, field: str, limit_field: str) -> Iterator[Fault]:
    """Yields what the service would refuse: `requests` stands at `limit_field`, the other fields below `field`."""
    if given.burst and not requests:
        yield Fault(f"{field}.burst", "a token bucket with 0 requests never fills again")
    if given.algorithm == "Concurrency" and requests > _MAX_RUNNING:
        yield Fault(limit_field, f"at most {_MAX_RUNNING} requests at a time can be counted; got {requests}")


def _milliseconds(duration: str | None) -> int:
    return round(parse_duration(duration).total_seconds() * 1000) if duration is not None else 0
