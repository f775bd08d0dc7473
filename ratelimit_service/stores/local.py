"""Decides while the store cannot, by what this process alone has seen, at its share of each limit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

from ratelimit_service.algorithms.base import Verdict
from ratelimit_service.checks import Check, Counter, Limit
from ratelimit_service.memo import Memo
from ratelimit_service.stores.memory import MemoryStore
from ratelimit_service.stores.shared_rule import bare_limit

_KEEP_S = 60.0
_MAX_LIMITS = 4096


class Local:
    """Estimates at limit / (`replicas` * `processes`), rounded up: no less than one, unless the limit is zero.

    Counts begin when they are first needed and stay through a store that comes and goes, lest each outage give
    everybody a new share; they are dropped once none was needed for `keep_s`.
    """

    def __init__(
        self,
        *,
        replicas: int = 1,
        processes: int = 1,
        max_keys: int = 100_000,
        keep_s: float = _KEEP_S,
        later: Callable[[float, Callable[[], None]], object] | None = None,
    ) -> None:
        self._processes = processes
        self._parts = replicas * processes
        self._max_keys = max_keys
        self._keep_s = keep_s
        self._later = later
        self._memory: MemoryStore | None = None
        self._shares: Memo[Limit, Limit] = Memo(_MAX_LIMITS)
        self._needed = False
        self.decided = 0
        """How many checks were decided so."""

    @property
    def parts(self) -> int:
        """Among how many processes limits are divided."""
        return self._parts

    def divide_among(self, replicas: int) -> None:
        """Divides limits among so many replicas from now on; what was counted is held against the new parts."""
        parts = replicas * self._processes
        if parts != self._parts:
            self._parts = parts
            self._shares.clear()

    @property
    def keys(self) -> int:
        """How many counters are held."""
        return self._memory.keys if self._memory is not None else 0

    def decide(self, check: Check, now: float) -> tuple[Check, int] | None:
        """Counts a check; returns what to judge instead of it, and the reply. None where there is no more room."""
        memory = self._memory
        if memory is None:
            memory = self._memory = MemoryStore(max_keys=self._max_keys)
            self._look_later()
        self._needed = True
        share = self._shares.get(check.limit)
        if share is None:
            share = self._share(check.limit)
            self._shares.put(check.limit, share)
        own = check._replace(limit=share, counter=Counter(share, check.counter.prefix))
        reply = memory.count(own, own.counter.prefix, now)
        if reply is None:
            return None
        self.decided += 1
        return own, reply

    def _share(self, limit: Limit) -> Limit:
        rule = limit.rule
        each = replace(rule, requests_per_unit=self._part(rule.requests_per_unit), burst=self._part(rule.burst))
        share = bare_limit(each, limit.stats, near_ratio=1.0)
        share.near = self._part(limit.near)
        return share

    def _part(self, amount: int) -> int:
        return -(-amount // self._parts)

    def _look_later(self) -> None:
        later = self._later or asyncio.get_running_loop().call_later
        later(self._keep_s, self._look)

    def _look(self) -> None:
        if self._needed:
            self._needed = False
            self._look_later()
        else:
            self._memory = None
            self._shares.clear()


def decided_here(check: Check, now: float) -> tuple[Check, int] | None:
    """Returns what to judge instead of a check that the store cannot answer, and the reply."""
    local = check.limit.local
    decided = local.decide(check, now) if local is not None else None
    if decided is not None:
        check.limit.stats.errors += abs(check.hits)
    return decided


def known_over(checks: Sequence[Check], now: float) -> list[Verdict | None]:
    """Returns the verdict on each check that is over and need not be asked for; None for the others."""
    return [check.limit.counting.known_over(check, now) if check.counter.over_until > now else None for check in checks]


def judged(check: Check, reply: int | None, now: float) -> Verdict | None:
    """Judges the store's reply, or what is estimated instead; None where nobody can tell."""
    if reply is None:
        decided = decided_here(check, now)
        if decided is None:
            return None
        check, reply = decided
    return check.limit.counting.judge(check, reply, now)
