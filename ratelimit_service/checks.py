"""What a request asks for, worked out once for all requests of the same bytes: which counters, and by how much."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from ratelimit_service.algorithms.base import Counting
from ratelimit_service.headers import HeaderWriter
from ratelimit_service.model import Rule
from ratelimit_service.stats import RuleStats
from ratelimit_service.wire import RuleParts

if TYPE_CHECKING:
    from ratelimit_service.memo import Memo
    from ratelimit_service.stores.local import Local


class Limit:
    """A rule in force, with what the request path needs of it at hand."""

    __slots__ = (
        "alone",
        "binding",
        "capacity",
        "cost",
        "counting",
        "drain",
        "full",
        "header",
        "item",
        "key_part",
        "known_s",
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
        self.numbers = headers.numbers_of(rule)
        self.seconds = rule.seconds
        self.known_s: float = rule.seconds
        """For how long what was seen to be over is taken to be so without asking the store."""
        self.per_unit = rule.requests_per_unit
        self.tick_us, self.cost, self.capacity, self.size, self.full = counting.scale(rule)
        self.drain = self.per_unit
        self.near = int(self.size * near_ratio)
        self.key_part = counting.key_part(self)
        self.alone = Shape.of((self,), (0,), headers)
        """The shape of requests that meet this limit alone."""
        (self.header,), (self.item,) = self.alone.limit_headers, self.alone.items


class Counter:
    """One thing that is counted: a rule and the values that a request has for its descriptors."""

    __slots__ = (
        "command",
        "home",
        "key",
        "level",
        "limit",
        "over_until",
        "prefix",
        "sent_expiry",
        "since",
        "tick",
        "window",
    )

    def __init__(self, limit: Limit, prefix: bytes) -> None:
        self.limit = limit
        self.prefix = prefix
        self.over_until = 0.0
        """Until then (Unix time) a further hit is over the limit, so the store need not be asked."""
        self.home: Memo[bytes, Counter] | None = None
        """Where it is to be remembered once it has something to tell; None where it is, or nobody will look for it."""
        # The algorithm's notes: what it saw when it refused (of a bucket, how full it was and when).
        self.level = 0
        self.tick = 0
        self.since = 0
        # The store's notes: what it prepared for the present window.
        self.window = -1
        self.key = b""
        self.command = b""
        self.sent_expiry = 0

    def refuse_until(self, time: float) -> None:
        """Notes until when (Unix time) a further hit is over the limit."""
        self.over_until = time
        if self.home is not None:
            self.home.put(self.prefix, self)
            self.home = None


class Check(NamedTuple):
    """A descriptor of a request that a limit applies to."""

    counter: Counter
    limit: Limit
    hits: int
    """Below zero, so many are given back."""
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


@dataclass(frozen=True, slots=True)
class Shape:
    """What all requests have in common that meet the same limits in the same order."""

    positions: tuple[int, ...] = ()
    """For each descriptor the index of its check, below 0 where nothing is counted (`answers.NO_LIMIT`)."""
    limit_headers: tuple[bytes, ...] = ()
    """What does not change of the headers, encoded, for each check being the one that they tell of."""
    items: tuple[bytes, ...] = ()
    """How each check's item of the header RateLimit begins."""
    is_plain: bool = False
    """Whether there is one check, and nothing but the store decides on it: the case that is made fast."""
    leased: bool = False
    """Whether hits on one of the limits are taken from the store several at a time."""
    conditional: bool = False
    """Whether some check counts hits only if it admits them, so that the checks are decided together."""
    holds: bool = False
    """Whether some check may have the answer held back."""
    gives: bool = False
    """Whether some check gives hits back."""

    @classmethod
    def of(cls, limits: Sequence[Limit], positions: tuple[int, ...], headers: HeaderWriter) -> Shape:
        """Returns the shape for these limits, one for each check."""
        rules = [limit.rule for limit in limits]
        leased = any(rule.lease > 1 for rule in rules)
        holds = any(limit.counting.holds for limit in limits)
        involved = holds or any(limit.counting.needs_caller for limit in limits)
        several = len(positions) > 1
        return cls(
            positions,
            headers.fixed(rules),
            headers.items(rules),
            is_plain=not (several or leased or involved),
            leased=leased,
            conditional=involved or (several and any(limit.script is not None for limit in limits)),
            holds=holds,
        )


_UNCOUNTED = Shape()


@dataclass(slots=True)
class Plan:
    """What to do for a request. `reply` is the whole answer where nothing is counted."""

    checks: tuple[Check, ...] = ()
    shape: Shape = _UNCOUNTED
    only: Check | None = None
    """The check of a plain request; None where more is to be done for it."""
    reply: bytes = b""
    metadata: bytes = b""
    """The dynamic metadata, encoded, where it is asked for."""
    unknown: tuple[str, int] | None = None
    """The domain, and how many descriptors there are, where it is not configured."""
    once: bool = False
    """Whether no other request is of the same bytes."""
