"""How hits are counted against a limit of the rate limit service: the fields that rules of policies and Plans share.

None of them are in Envoy Gateway.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypeAlias

from pydantic import AfterValidator, Field, model_validator

from controlplane.api.meta import Model
from controlplane.api.scalars import Duration, Positive, parse_duration, refuse

Algorithm: TypeAlias = Literal["FixedWindow", "SlidingWindow", "TokenBucket", "LeakyBucket", "Concurrency"]
RateLimitUnit: TypeAlias = Literal["Second", "Minute", "Hour", "Day", "Week", "Month", "Year"]

_MAX_DELAY_S: Final = 10
_MAX_LEASE_TIME_S: Final = 86_400


def _check_delay(text: str) -> str:
    if parse_duration(text).total_seconds() > _MAX_DELAY_S:
        raise refuse(f"expected at most {_MAX_DELAY_S}s; got {text!r}")
    return text


def _check_lease_time(text: str) -> str:
    if not 1 <= parse_duration(text).total_seconds() <= _MAX_LEASE_TIME_S:
        raise refuse(f"expected 1s to 24h; got {text!r}")
    return text


class Counted(Model):
    """How hits are counted."""

    algorithm: Algorithm = "FixedWindow"
    """Not in Envoy Gateway: FixedWindow counts from one multiple of the unit to the next; SlidingWindow over the unit
    that ends now; TokenBucket spreads the limit evenly over the unit, with a burst; LeakyBucket does so by holding
    requests back until it is their turn; Concurrency admits so many at a time."""
    burst: Positive | None = None
    """Not in Envoy Gateway: requests that TokenBucket admits at once; `requests` when absent."""
    delay: Annotated[Duration, Field(max_length=32), AfterValidator(_check_delay)] | None = None
    """Not in Envoy Gateway: how long LeakyBucket holds a request back at the most (10s); not at all when absent."""
    lease_time: Annotated[Duration, Field(max_length=32), AfterValidator(_check_lease_time)] | None = None
    """Not in Envoy Gateway: how long Concurrency counts a request whose end it is not told; the unit when absent."""
    precision: Literal["Exact", "Lease"] = "Exact"
    """Not in Envoy Gateway: Lease takes several hits from the store at a time, so that most requests do not wait for
    it; near the limit it may refuse a request that Exact would have admitted."""
    lease_size: Annotated[int, Field(strict=True, ge=2, le=100_000)] | None = None
    """Not in Envoy Gateway: how many hits Lease takes at a time."""
    mode: Literal["Request", "Quota"] = "Request"
    """Not in Envoy Gateway: Request asks the service about each request; Quota has each Envoy enforce a share that the
    service assigns to it, by what Envoy calls work in progress."""
    on_store_error: Literal["Allow", "Deny", "Local"] | None = None
    """Not in Envoy Gateway: what holds while the service cannot reach its store; Local counts in the service itself. As
    `failureMode` says when absent."""

    @model_validator(mode="after")
    def _fit_together(self) -> Counted:
        for field, value, algorithm in (
            ("burst", self.burst, "TokenBucket"),
            ("delay", self.delay, "LeakyBucket"),
            ("leaseTime", self.lease_time, "Concurrency"),
        ):
            if value is not None and self.algorithm != algorithm:
                raise refuse(f"{field} needs algorithm {algorithm}", field)
        if (self.precision == "Lease") != (self.lease_size is not None):
            words = "must not have" if self.precision == "Exact" else "needs"
            raise refuse(f"precision {self.precision} {words} leaseSize", "leaseSize")
        if self.precision == "Lease" and self.algorithm in ("LeakyBucket", "Concurrency"):
            raise refuse(f"algorithm {self.algorithm} is exact; it has no leases", "precision")
        if self.mode == "Quota" and self.algorithm in ("LeakyBucket", "Concurrency"):
            raise refuse(f"algorithm {self.algorithm} asks about each request; it has no quotas", "mode")
        return self
