"""What a request asks for, worked out once for all requests of the same bytes: which counters, and by how much."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from ratelimit_service.algorithms.base import Counting
from ratelimit_service.headers import HeaderWriter
from ratelimit_service.model import Rule
from ratelimit_service.stats import RuleStats
from ratelimit_service.wire import RuleParts

if TYPE_CHECKING:
    from ratelimit_service.stores.local import Local


class Limit:
    """A rule in force, with what the request path needs of it at hand."""

    __slots__ = (
        "binding",
        "capacity",
        "cost",
        "counting",
        "drain",
        "header",
        "item",
        "local",
        "near",
        "numbers",
        "parts",
        "per_unit",
        "rule",
        "script",
        "seconds",
        "size",
        "stats",
        "tick_us",
    )

    def __init__(
        self,
        rule: Rule,
        counting: Counting,
        stats: RuleStats,
        *,
        near_ratio: float,
        headers: HeaderWriter,
        enforced: bool = True,
    ) -> None:
        self.rule = rule
        self.binding = enforced and not (rule.shadow_mode or rule.quota_mode)
        """Whether it refuses requests: in shadow mode it only says that it would."""
        self.counting = counting
        self.script = counting.script
        self.stats = stats
        self.local: Local | None = None
        """What decides while the store cannot; None where nothing does."""
        self.parts = RuleParts(rule)
        (self.header,) = headers.fixed((rule,))
        self.numbers = headers.numbers_of(rule)
        (self.item,) = headers.items((rule,))
        self.seconds = rule.unit.seconds
        self.per_unit = rule.requests_per_unit
        self.tick_us, self.cost, self.capacity, self.size = counting.scale(rule)
        self.drain = self.per_unit
        self.near = int(self.size * near_ratio)


class Counter:
    """One thing that is counted: a rule and the values that a request has for its descriptors."""

    __slots__ = ("command", "key", "level", "limit", "over_until", "prefix", "sent_expiry", "since", "tick", "window")

    def __init__(self, limit: Limit, prefix: bytes) -> None:
        self.limit = limit
        self.prefix = prefix
        self.over_until = 0.0
        """Until then (Unix time) a further hit is over the limit, so the store need not be asked."""
        # The algorithm's notes: what it saw when it refused (of a bucket, how full it was and when).
        self.level = 0
        self.tick = 0
        self.since = 0
        # The store's notes: what it prepared for the present window.
        self.window = -1
        self.key = b""
        self.command = b""
        self.sent_expiry = 0


class Check(NamedTuple):
    """A descriptor of a request that a limit applies to."""

    counter: Counter
    limit: Limit
    hits: int
    caller: bytes = b""
    """Concurrency: the request that counts."""
    ends: bool = False
    """Concurrency: the request has ended."""
    patience_us: int = -1
    """Leaky bucket: how long the caller can wait for its turn; below 0 for as long as the limit has requests wait."""
    take: bool = True
    """Whether hits that are admitted are counted; a fixed window counts all."""
    together: tuple[tuple[int, bytes, Check], ...] = ()
    """What it stands for on its way to Redis: checks, with their keys and their places among the flight's replies."""


def all_fixed(checks: Sequence[Check]) -> bool:
    """Whether all of them count whatever comes, so that there is nothing to decide together."""
    return all(check.limit.script is None for check in checks)


class Plan(NamedTuple):
    """What to do for a request. `reply` is the whole answer where nothing is counted."""

    checks: tuple[Check, ...] = ()
    positions: tuple[int, ...] = ()
    """For each descriptor the index of its check, below 0 where nothing is counted (`answers.NO_LIMIT`)."""
    reply: bytes = b""
    only: Check | None = None
    """The check of a request with one, the case that is made fast; None where more is to be done for it."""
    limit_headers: tuple[bytes, ...] = ()
    """What does not change of the headers, encoded, for each check being the one that they tell of."""
    items: tuple[bytes, ...] = ()
    """How each check's item of the header RateLimit begins."""
    metadata: bytes = b""
    """The dynamic metadata, encoded, where it is asked for."""
    is_known: bool = True
    """Whether the domain is configured."""
    leased: bool = False
    """Whether hits on one of the limits are taken from the store several at a time."""
    conditional: bool = False
    """Whether some check counts hits only if it admits them, so that the checks are decided together."""
    holds: bool = False
    """Whether some check may have the answer held back."""
    once: bool = False
    """Whether no other request is of the same bytes."""

    @classmethod
    def of(
        cls,
        checks: tuple[Check, ...],
        positions: tuple[int, ...],
        headers: HeaderWriter,
        metadata: bytes = b"",
        *,
        once: bool = False,
    ) -> Plan:
        """Returns the plan for these checks, at least one."""
        rules = [check.limit.rule for check in checks]
        leased = any(rule.lease > 1 for rule in rules)
        holds = any(check.limit.counting.holds for check in checks)
        involved = holds or any(check.limit.counting.needs_caller for check in checks)
        several = len(positions) > 1
        conditional = involved or (several and any(check.limit.script is not None for check in checks))
        only = None if several or leased or involved else checks[0]
        fixed, items = headers.fixed(rules), headers.items(rules)
        return cls(
            checks,
            positions,
            only=only,
            limit_headers=fixed,
            items=items,
            metadata=metadata,
            leased=leased,
            conditional=conditional,
            holds=holds,
            once=once,
        )
