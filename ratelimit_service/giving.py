"""Hits that a request gives back (`is_negative_hits`): counted before what it takes, and refused by no limit."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dragoman.grpc_worker import Call
from ratelimit_service.algorithms.base import Verdict
from ratelimit_service.checks import Check
from ratelimit_service.stores.base import Asked, Store
from ratelimit_service.stores.local import decided_here


class Giving(Asked):
    """What a request gives back, on its way to the store; `go_on` is then told what is known of all its checks."""

    __slots__ = ("_checks", "_go_on", "_now")

    def __init__(
        self, checks: Sequence[Check], call: Call, now: float, go_on: Callable[[list[Verdict | None]], None]
    ) -> None:
        super().__init__()
        self._checks = checks
        self._call = call
        self._now = now
        self._go_on = go_on

    def start(self, store: Store) -> None:
        """Has the store count it."""
        store.take([check for check in self._checks if check.hits < 0], self._now, self)

    def settle(self) -> None:
        replies = iter(self.replies)
        given = [_given(check, next(replies), self._now) if check.hits < 0 else None for check in self._checks]
        known = zip(self._checks, given, strict=True)
        self._go_on([_known(check, self._now) if check.hits >= 0 else verdict for check, verdict in known])


def _given(check: Check, reply: int | None, now: float) -> Verdict | None:
    """Returns what is left after hits were given back; None where nobody knows."""
    if reply is None:
        decided = decided_here(check, now)
        if decided is None:
            return None
        check, reply = decided
    check.limit.stats.given_back -= check.hits
    # There may be room again.
    check.counter.over_until = 0.0
    _, remaining, reset_s = check.limit.counting.judge(check._replace(hits=0), reply, now)
    return False, remaining, reset_s


def _known(check: Check, now: float) -> Verdict | None:
    return check.limit.counting.known_over(check, now) if check.counter.over_until > now else None
