"""The plans' part of the IR: how hits are counted, and which limits callers have. See `controlplane.ir`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

# How long the service may hold a request back.
MAX_DELAY_S = 10
Unit = Literal["Second", "Minute", "Hour", "Day", "Week", "Month", "Year"]
Per = Literal["Consumer", "Tenant", "Plan"]


@dataclass(frozen=True, slots=True)
class Counting:
    """How the rate limit service counts hits; `on_store_error` of None is as the policy fails."""

    algorithm: Literal["FixedWindow", "SlidingWindow", "TokenBucket", "LeakyBucket", "Concurrency"] = "FixedWindow"
    burst: int = 0
    delay_ms: int = 0
    lease_time_ms: int = 0
    lease: int = 1
    quota: bool = False
    on_store_error: Literal["Allow", "Deny", "Local"] | None = None

    @property
    def until_done(self) -> bool:
        """Says whether a request counts until it ends."""
        return self.algorithm == "Concurrency"


FIXED_WINDOW = Counting()


@dataclass(frozen=True, slots=True)
class CallerLimit:
    """`requests` per unit for each caller, or for all together."""

    requests: int
    unit: Unit
    counting: Counting = FIXED_WINDOW
    shadow: bool = False


@dataclass(frozen=True, slots=True)
class Override:
    """Limits of one consumer or tenant in place of those that its plan has per Consumer or Tenant."""

    caller: str
    limits: tuple[CallerLimit, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """Limits by who has a counter of its own; `origin` is the NAMESPACE/NAME of the object that it was made from."""

    name: str
    origin: str
    per_consumer: tuple[CallerLimit, ...] = ()
    per_tenant: tuple[CallerLimit, ...] = ()
    together: tuple[CallerLimit, ...] = ()
    consumers: tuple[Override, ...] = ()
    tenants: tuple[Override, ...] = ()

    def limits(self, per: Per) -> tuple[CallerLimit, ...]:
        """Returns the limits of callers of which nothing else is said."""
        return {"Consumer": self.per_consumer, "Tenant": self.per_tenant, "Plan": self.together}[per]

    def overrides(self, per: Per) -> tuple[Override, ...]:
        """Returns the callers that have other limits."""
        return {"Consumer": self.consumers, "Tenant": self.tenants, "Plan": ()}[per]

    def everything(self) -> Iterator[CallerLimit]:
        """Yields every limit."""
        yield from (*self.per_consumer, *self.per_tenant, *self.together)
        for each in (*self.consumers, *self.tenants):
            yield from each.limits


@dataclass(frozen=True, slots=True)
class PlanIdentity:
    """Where a request has the name of its plan, its consumer and its tenant: see `api.plans.PlanIdentity`."""

    source: Literal["Key", "Token", "Headers"] = "Key"
    plan: str = "plan"
    consumer: str = ""
    tenant: str = ""
    provider: str | None = None

    @property
    def read_providers(self) -> frozenset[str | None]:
        """The names of the JWT providers whose tokens' claims it reads; None for any."""
        return frozenset((self.provider,)) if self.source == "Token" else frozenset()

    @property
    def headers(self) -> tuple[str, ...]:
        """The request headers that tell who calls; no client may set them."""
        return (self.plan, self.consumer, self.tenant) if self.source == "Headers" else ()


@dataclass(frozen=True, slots=True)
class Plans:
    """The plans that callers may have; `default` is for those that have none of them, `anonymous` for the unknown.

    `home` stands before their counters: the policy that has them, and how it knows callers.
    """

    identity: PlanIdentity
    plans: tuple[Plan, ...] = ()
    default: str = ""
    anonymous: str = ""
    shielded: bool = False
    home: str = ""

    def find(self, name: str) -> Plan | None:
        """Returns the plan of a name."""
        return next((each for each in self.plans if each.name == name), None)

    @property
    def slots(self) -> tuple[tuple[Per | None, bool, int], ...]:
        """As many places for limits as any plan needs of each sort: counted per what, of requests that run, how many.

        None is per address, of anonymous callers.
        """
        found: list[tuple[Per | None, bool, int]] = []
        pers: tuple[Per, ...] = ("Consumer", "Tenant", "Plan")
        for per in pers:
            lists = [each.limits(per) for each in self.plans]
            lists += [override.limits for each in self.plans for override in each.overrides(per)]
            for running, most in _most(lists):
                found.append((per, running, most))
        found += [(None, running, most) for running, most in _most([self.by_address])]
        return tuple(found)

    @property
    def by_address(self) -> tuple[CallerLimit, ...]:
        """The limits of anonymous callers."""
        plan = self.find(self.anonymous)
        return (*plan.per_consumer, *plan.per_tenant) if plan is not None else ()

    @property
    def asked(self) -> tuple[object, ...]:
        """What routes say of the plans: with anything else, they are sent anew."""
        slots = self.slots
        names = tuple(each.name for each in self.plans) if any(per == "Plan" for per, _, _ in slots) else ()
        return (slots, names, self.default, self.anonymous)

    def everything(self) -> Iterator[CallerLimit]:
        """Yields every limit of every plan."""
        for plan in self.plans:
            yield from plan.everything()


def _most(lists: Iterable[Sequence[CallerLimit]]) -> Iterator[tuple[bool, int]]:
    needed = dict.fromkeys((False, True), 0)
    for limits in lists:
        for running in needed:
            alike = sum(1 for each in limits if each.counting.until_done is running)
            needed[running] = max(needed[running], alike)
    yield from ((running, count) for running, count in needed.items() if count)
