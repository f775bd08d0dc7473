"""What an algorithm is to the request path and to the stores."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from ratelimit_service.checks import Check, Limit

Verdict = tuple[bool, int, int]
"""Over the limit; what remains; seconds until the limit resets, or until the request may come again if it is over."""

Stepped = tuple[int, Any, float]
"""The reply; the state to hold from now on (None: as it was); Unix time from when on the state is as good as none."""


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script that works on one key, and replies with an integer."""

    body: bytes
    sha: bytes

    @classmethod
    def of(cls, body: bytes) -> Script:
        """Returns the script with its digest, by which EVALSHA names it."""
        return cls(body, hashlib.sha1(body, usedforsecurity=False).hexdigest().encode())


class Counting(Protocol):
    """One algorithm. It holds nothing: what is counted is in the store, what is known of it in the counters.

    The script and the step are the same function, and reply the same integers to the same questions.
    """

    @property
    def script(self) -> Script | None:
        """What Redis runs; None for the fixed window, which is INCRBY."""
        ...

    @property
    def holds(self) -> bool:
        """Whether `hold_s` is ever more than zero."""
        ...

    def key_part(self, limit: Limit) -> bytes:
        """What follows the descriptors in a counter's key; a window's start follows that."""
        ...

    def arguments(self, check: Check) -> Sequence[bytes | int]:
        """ARGV of the script; the last one is the clock's tick, which the store adds unless the server's counts."""
        ...

    def step(self, check: Check, held: Any, now: float) -> Stepped:
        """Does in memory what the script does; `held` is the state, None for none."""
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
