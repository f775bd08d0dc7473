"""In what a limit counts time: whole ticks of the clock, so short as its numbers allow."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ratelimit_service.model import Rule

MAX_EXACT = 2**52
"""Lua's numbers are doubles: sums of two such numbers are still exact."""
UNBOUNDED = 2**53
_TICKS_US = (1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000, 60_000_000)
_DAY_S = 86_400


class Scale(NamedTuple):
    """What an algorithm makes of a rule."""

    tick_us: int = 1
    cost: int = 0
    """The ticks in the window: in so many parts is a hit counted, of which `requests_per_unit` go in a tick."""
    capacity: int = 0
    """How many parts there is room for; what that means is a matter of the algorithm."""
    size: int = 0
    """How many hits are admitted where nothing is counted."""
    full: int = UNBOUNDED
    """How much there can be in a bucket, and how long a lease can last. More is of a limit before it was edited."""


def micros(now: float) -> int:
    """Returns Unix time in microseconds."""
    return int(now * 1_000_000)


def tick_us(rule: Rule, fits: Callable[[int], bool]) -> int:
    """Returns the length of a tick in microseconds: the shortest that `fits`, which is told the ticks in the window.

    From a day on it is a millisecond at least. For the largest limits it is longer, which these do not feel: what goes
    in a tick is a small part of what they count. A window of many units has as many ticks as one unit at the least.
    """
    whole, usual = rule.seconds * 1_000_000, _usual_us(rule.seconds)
    single = [tick for tick in _TICKS_US if rule.unit.seconds * 1_000_000 % tick == 0]
    multiple = {tick * times for tick in single for times in (1, rule.unit_multiplier)}
    choices = sorted(tick for tick in multiple if tick >= usual)
    return next((tick for tick in choices if fits(whole // tick)), choices[-1])


def named(seconds: int, tick_us: int) -> bytes:
    """Names a scale in a key, so that an edited limit does not read numbers of another one."""
    return b"%d" % seconds if tick_us == _usual_us(seconds) else b"%d_%d" % (seconds, tick_us)


def _usual_us(seconds: int) -> int:
    return 1_000 if seconds >= _DAY_S else 1
