"""Requests that count while they run: names for those without one, and ends that the store could not be told."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Sequence

from ratelimit_service.checks import Check
from ratelimit_service.stores.base import Flight, Store

_MOST_UNTOLD = 16_384
_AT_A_TIME = 256
_AGAIN_AFTER_S = 0.1


class Running:
    """What a worker knows of requests that count while they run.

    An end that the store cannot be told of, since it is away, is told once it answers: else a store that stands still
    for a second would leave places taken until their leases end. Beyond so many the oldest are left to that.
    """

    __slots__ = ("_again_at", "_numbers", "_process", "_untold")

    def __init__(self) -> None:
        # No header's value has a NUL in it: no name that a request brings is the same.
        self._process = b"\0" + secrets.token_bytes(8)
        self._numbers = itertools.count()
        self._untold: dict[tuple[bytes, bytes], tuple[Check, float]] = {}
        self._again_at = 0.0

    @property
    def untold(self) -> int:
        """How many ends the store has yet to be told."""
        return len(self._untold)

    def name(self) -> bytes:
        """Returns a name that no other request has."""
        return b"%b%d" % (self._process, next(self._numbers))

    def end(self, checks: Sequence[Check], now: float, store: Store) -> None:
        """Ends requests that nobody let through: nobody else will say that they ended."""
        ended = [check._replace(ends=True) for check in checks if check.limit.counting.needs_caller and check.take]
        if ended:
            store.take(ended, now, _Ending(self, ended, now))

    def heard(self, check: Check, reply: int | None, now: float, store: Store) -> None:
        """Takes in what became of a check that may end a request, or that says that the store answers."""
        if reply is None:
            self._keep(check, now)
        elif self._untold and check.limit.counting.needs_caller and now >= self._again_at:
            self._tell(now, store)

    def _keep(self, check: Check, now: float) -> None:
        if not check.ends or not check.caller:
            return
        if len(self._untold) >= _MOST_UNTOLD:
            del self._untold[next(iter(self._untold))]
        lease_ends = now + check.limit.cost / 1_000_000
        self._untold.setdefault((check.counter.prefix, check.caller), (check, lease_ends))

    def _tell(self, now: float, store: Store) -> None:
        keys = list(itertools.islice(self._untold, _AT_A_TIME))
        told = [self._untold.pop(key) for key in keys]
        checks = [check for check, lease_ends in told if lease_ends > now]
        if checks:
            store.take(checks, now, _Ending(self, checks, now))

    def settled(self, checks: Sequence[Check], replies: Sequence[int | None], now: float) -> None:
        """Takes in which ends the store was told."""
        for check, reply in zip(checks, replies, strict=True):
            if reply is None:
                # Of several servers one may still be away: it is not to be asked with each request to another.
                self._again_at = now + _AGAIN_AFTER_S
                self._keep(check, now)


class _Ending(Flight):
    """Ends, whose answers matter to no request."""

    __slots__ = ("_checks", "_now", "_running")

    def __init__(self, running: Running, checks: Sequence[Check], now: float) -> None:
        super().__init__()
        self._running = running
        self._checks = checks
        self._now = now

    def settle(self) -> None:
        self._running.settled(self._checks, self.replies, self._now)
