"""What an algorithm is to the request path and to the stores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from ratelimit_service.algorithms.scripts import Script
    from ratelimit_service.algorithms.ticks import Scale
    from ratelimit_service.checks import Check, Limit
    from ratelimit_service.model import Rule

Verdict = tuple[bool, int, int]
"""Over the limit; what remains; seconds until the limit resets, or until the request may come again if it is over."""

Stepped = tuple[int, Any, float]
"""The reply; the state to hold from now on (None: as it was); Unix time from when on the state is as good as none."""


class Counting(Protocol):
    """One algorithm. It holds nothing: what is counted is in the store, what is known of it in the counters."""

    @property
    def script(self) -> Script | None:
        """What Redis runs; None for the fixed window, which is INCRBY."""
        ...

    @property
    def number(self) -> int:
        """Which of the functions it is in the script that decides several checks."""
        ...

    @property
    def holds(self) -> bool:
        """Whether `hold_s` is ever more than zero."""
        ...

    @property
    def needs_caller(self) -> bool:
        """Whether what counts is the request itself, so that it must be told from others."""
        ...

    def scale(self, rule: Rule) -> Scale:
        """Returns in what numbers a rule is counted."""
        ...

    def key_part(self, limit: Limit) -> bytes:
        """What follows the descriptors in a counter's key; a window's start follows that."""
        ...

    def arguments(self, check: Check) -> Sequence[bytes | int]:
        """What the script is told of a check. Last come, where it `needs_caller`, that and 1 if it has ended."""
        ...

    def judge(self, check: Check, reply: int, now: float) -> Verdict:
        """Judges the store's reply, counts it, and notes in the counter what settles the requests that follow."""
        ...

    def known_over(self, check: Check, now: float) -> Verdict | None:
        """Judges without the store, while `counter.over_until` is to come; None where the store must be asked."""
        ...

    def hold_s(self, check: Check, reply: int) -> float:
        """Seconds for which the answer to an allowed request is to be held back."""
        ...


class Conditional(Counting, Protocol):
    """All but fixed windows: they count hits only if they admit them, and a reply below zero is a refusal.

    The script and the step are the same function, and reply the same integers to the same questions.
    """

    def step(self, check: Check, held: Any, now: float) -> Stepped:
        """Does in memory what the script does; `held` is the state, None for none. Hits below zero are given back.

        Of a check that must not take, the reply to one that is admitted is that to no hits, and no state is returned.
        """
        ...
