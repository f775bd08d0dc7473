"""What a request asks for, worked out once for all requests of the same bytes: which counters, and by how much."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ratelimit_service.algorithms.base import Counting
from ratelimit_service.headers import HeaderWriter
from ratelimit_service.model import Algorithm, Rule
from ratelimit_service.stats import RuleStats
from ratelimit_service.wire import RuleParts

if TYPE_CHECKING:
    from ratelimit_service.stores.local import Local


class Limit:
    """A rule in force, with what the request path needs of it at hand."""

    __slots__ = (
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
        "stats",
        "tps",
    )

    def __init__(
        self, rule: Rule, counting: Counting, stats: RuleStats, *, near_ratio: float, headers: HeaderWriter
    ) -> None:
        self.rule = rule
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
        self.near = int((rule.bucket_size if rule.algorithm is Algorithm.TOKEN_BUCKET else self.per_unit) * near_ratio)
        # A bucket is counted in `cost` parts per token, of which `drain` parts come back per tick of the clock: exact
        # in integers whatever the rate is.
        self.tps = rule.unit.ticks_per_second
        self.cost = rule.unit.seconds * self.tps
        self.drain = self.per_unit
        self.capacity = rule.bucket_size * self.cost


class Counter:
    """One thing that is counted: a rule and the values that a request has for its descriptors."""

    __slots__ = ("command", "key", "level", "limit", "over_until", "prefix", "sent_expiry", "tick", "window")

    def __init__(self, limit: Limit, prefix: bytes) -> None:
        self.limit = limit
        self.prefix = prefix
        self.over_until = 0.0
        """Until then (Unix time) a further hit is over the limit, so the store need not be asked."""
        # How full a bucket was when it had no room, and when that was.
        self.level = 0
        self.tick = 0
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


class Plan(NamedTuple):
    """What to do for a request. `reply` is the whole answer where nothing is counted."""

    checks: tuple[Check, ...] = ()
    positions: tuple[int, ...] = ()
    """For each descriptor the index of its check, below 0 where nothing is counted (`answers.NO_LIMIT`)."""
    reply: bytes = b""
    only: Check | None = None
    """The check of a request with one descriptor, the case that is made fast."""
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

    @classmethod
    def of(
        cls, checks: tuple[Check, ...], positions: tuple[int, ...], headers: HeaderWriter, metadata: bytes = b""
    ) -> Plan:
        """Returns the plan for these checks, at least one."""
        leased = any(check.limit.rule.lease > 1 for check in checks)
        if len(positions) == 1:
            limit = checks[0].limit
            only = None if leased else checks[0]
            return cls(checks, positions, b"", only, (limit.header,), (limit.item,), metadata, leased)
        rules = [check.limit.rule for check in checks]
        return cls(checks, positions, b"", None, headers.fixed(rules), headers.items(rules), metadata, leased)
