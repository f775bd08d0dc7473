"""Looks at a request's fixed windows before any of them counts: of a request of which one is over, it alone does."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dragoman.grpc_worker import Call
from ratelimit_service.answers import Answers
from ratelimit_service.checks import Check, Plan
from ratelimit_service.stores.base import Asked, Flight, Store
from ratelimit_service.stores.local import judged, known_over


class Looking(Asked):
    """As envoyproxy/ratelimit with STOP_CACHE_KEY_INCREMENT_WHEN_OVERLIMIT: first what all counters stand at, and then
    the hits of those that would be over, or of all if none would be. Between the two others may be counted.
    """

    __slots__ = ("_answers", "_asked", "_counted", "_known", "_now", "_plan", "_store")

    def __init__(self, plan: Plan, call: Call, now: float, answers: Answers) -> None:
        super().__init__()
        self._plan = plan
        self._call = call
        self._now = now
        self._answers = answers
        self._known = known_over(plan.checks, now)
        self._counted: list[int | None] = [None] * len(plan.checks)
        self._asked: Sequence[int] = [index for index, known in enumerate(self._known) if known is None]

    def start(self, store: Store) -> None:
        """Asks for what is not known."""
        self._store = store
        if not self._asked:
            self._finish()
        elif len(self._plan.checks) > 1:
            store.take([self._plan.checks[index]._replace(hits=0) for index in self._asked], self._now, self)
        else:
            self._count(self._plan.checks)

    def settle(self) -> None:
        checks = [self._plan.checks[index] for index in self._asked]
        over = [_is_over(check, count) for check, count in zip(checks, self.replies, strict=True)]
        if any(over):
            # The others are asked again, for two may be of one counter.
            checks = [check if is_over else check._replace(hits=0) for check, is_over in zip(checks, over, strict=True)]
        elif any(self._known):
            self._finish_with(self.replies)
            return
        self._count(checks)

    def _count(self, checks: Sequence[Check]) -> None:
        # A flight of its own: what is late of the first one must not be taken for a reply to this.
        self._store.take(checks, self._now, _Counting(self._finish_with, self.fail))

    def _finish_with(self, replies: Sequence[int | None]) -> None:
        for index, reply in zip(self._asked, replies, strict=True):
            self._counted[index] = reply
        self._finish()

    def _finish(self) -> None:
        plan, now = self._plan, self._now
        verdicts = [
            known or judged(check, reply, now)
            for check, known, reply in zip(plan.checks, self._known, self._counted, strict=True)
        ]
        self._call.done(self._answers.several(plan, verdicts))


class _Counting(Flight):
    """The hits, once the counters have been looked at."""

    __slots__ = ("_failed", "_then")

    def __init__(self, then: Callable[[Sequence[int | None]], None], failed: Callable[[], None]) -> None:
        super().__init__()
        self._then = then
        self._failed = failed

    def settle(self) -> None:
        self._then(self.replies)

    def fail(self) -> None:
        self._failed()


def _is_over(check: Check, count: int | None) -> bool:
    return count is not None and count + check.hits > check.limit.per_unit
