"""What each algorithm must decide, written plainly and apart from the service: lists and fractions, no caches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from math import ceil, floor
from typing import Protocol

Told = tuple[bool, int, int]
"""Whether it is over the limit, what remains, and the seconds that are told."""


@dataclass(frozen=True)
class Ask:
    """What one descriptor asks of its counter."""

    now_us: int
    hits: int
    caller: str = ""
    ends: bool = False
    patience: Fraction | None = None

    @property
    def now(self) -> Fraction:
        return Fraction(self.now_us, 1_000_000)

    @property
    def second(self) -> int:
        return self.now_us // 1_000_000


class Model(Protocol):
    """One counter."""

    conditional: bool

    def told(self, ask: Ask, *, taken: bool) -> Told:
        """What is to be said, before anything is counted; `taken` if it will be, provided that there is room."""
        ...

    def take(self, ask: Ask) -> None:
        """Counts it."""
        ...


@dataclass
class FixedWindow:
    """Hits from one multiple of the unit to the next, refused ones among them."""

    limit: int
    unit: int
    hits: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    conditional = False

    def _start(self, ask: Ask) -> int:
        return ask.second // self.unit * self.unit

    def told(self, ask: Ask, *, taken: bool) -> Told:
        count = max(0, self._count(ask) + ask.hits)
        over = count > self.limit and ask.hits >= 0
        return over, max(0, self.limit - count), self.unit - ask.second % self.unit

    def take(self, ask: Ask) -> None:
        self.hits.append((self._start(ask), max(-self._count(ask), ask.hits)))

    def _count(self, ask: Ask) -> int:
        return sum(hits for begun, hits in self.hits if begun == self._start(ask))


@dataclass
class SlidingWindow:
    """The hits of the present window, and those of the one before as if they had come evenly."""

    limit: int
    unit: int
    hits: list[tuple[Fraction, int]] = field(default_factory=list[tuple[Fraction, int]])
    conditional = True

    def _now(self, ask: Ask) -> Fraction:
        latest = max((floor(at / self.unit) for at, _ in self._known(ask)), default=0)
        return max(ask.now, Fraction(latest * self.unit))

    def _known(self, ask: Ask) -> list[tuple[Fraction, int]]:
        """Nothing, once the clock has gone back by more than a window."""
        return [] if any(at / self.unit >= ask.now // self.unit + 2 for at, _ in self.hits) else self.hits

    def used(self, now: Fraction, known: list[tuple[Fraction, int]]) -> Fraction:
        window = floor(now / self.unit)
        elapsed = now - window * self.unit
        used = Fraction(0)
        for at, hits in known:
            if floor(at / self.unit) == window:
                used += hits
            elif floor(at / self.unit) == window - 1:
                used += hits * (self.unit - elapsed) / self.unit
        return used

    def told(self, ask: Ask, *, taken: bool) -> Told:
        now = self._now(ask)
        known = self._known(ask)
        used = self.used(now, known)
        if ask.hits > 0 and used + ask.hits > self.limit:
            return True, 0, self._wait_s(now, ask.hits, known)
        if ask.hits < 0:
            used = self.used(now, self._without(now, known, -ask.hits))
            return False, max(0, floor(self.limit - used)), self.unit - ask.second % self.unit
        left = self.limit - used - (ask.hits if taken else 0)
        return False, floor(left), self.unit - ask.second % self.unit

    def take(self, ask: Ask) -> None:
        now = self._now(ask)
        present = [(at, hits) for at, hits in self._known(ask) if floor(at / self.unit) >= floor(now / self.unit) - 1]
        if ask.hits > 0:
            self.hits = [*present, (now, ask.hits)]
        elif ask.hits < 0 and self.used(now, present) > 0:
            self.hits = [*self._without(now, present, -ask.hits), (now, 0)]

    def _without(self, now: Fraction, known: list[tuple[Fraction, int]], given_back: int) -> list[tuple[Fraction, int]]:
        """Takes hits of the present window away, and when there are no more, of the one before."""
        left = list(known)
        for window in (floor(now / self.unit), floor(now / self.unit) - 1):
            for index, (at, hits) in enumerate(left):
                if floor(at / self.unit) == window:
                    off = min(hits, given_back)
                    left[index] = at, hits - off
                    given_back -= off
        return left

    def _wait_s(self, now: Fraction, hits: int, known: list[tuple[Fraction, int]]) -> int:
        """Searches for the microsecond at which the hits would be admitted if nobody else came."""
        end = 2 * self.unit - now % self.unit
        if hits > self.limit:
            return ceil(end)
        low, high = 0, int(end * 1_000_000)
        while low < high:
            middle = (low + high) // 2
            if self.used(now + Fraction(middle, 1_000_000), known) + hits <= self.limit:
                high = middle
            else:
                low = middle + 1
        return ceil(Fraction(low, 1_000_000))


@dataclass
class TokenBucket:
    """Tokens, and when they were counted."""

    limit: int
    unit: int
    burst: int
    tokens: Fraction = Fraction(-1)
    at: Fraction = Fraction(0)
    conditional = True

    def _tokens(self, ask: Ask) -> Fraction:
        if self.tokens < 0 or self.at - ask.now > self.unit:
            return Fraction(self.burst)
        gained = max(Fraction(0), ask.now - self.at) * self.limit / self.unit
        return min(Fraction(self.burst), self.tokens + gained)

    def told(self, ask: Ask, *, taken: bool) -> Told:
        tokens = self._tokens(ask)
        if ask.hits > 0 and tokens < ask.hits:
            return True, floor(tokens), self._seconds(min(ask.hits, self.burst) - tokens)
        left = min(Fraction(self.burst), tokens - (ask.hits if taken else 0))
        return False, floor(left), self._seconds(self.burst - left)

    def take(self, ask: Ask) -> None:
        tokens = self._tokens(ask)
        if ask.hits < 0 and tokens == self.burst:
            return
        self.tokens = min(Fraction(self.burst), tokens - ask.hits)
        self.at = ask.now if self.at - ask.now > self.unit else max(self.at, ask.now)

    def _seconds(self, tokens: Fraction) -> int:
        return ceil(tokens * self.unit / self.limit) if self.limit else self.unit


@dataclass
class LeakyBucket:
    """The time from when on nobody waits any more."""

    limit: int
    unit: int
    delay: Fraction
    free: Fraction = Fraction(0)
    at: Fraction = Fraction(0)
    conditional = True

    def wait(self, ask: Ask) -> Fraction:
        """How long the request has to wait for its turn."""
        return max(Fraction(0), self.free - max(ask.now, self.at)) if self.at - ask.now <= self.unit else Fraction(0)

    def told(self, ask: Ask, *, taken: bool) -> Told:
        if not self.limit:
            return ask.hits > 0, 0, self.unit
        each = Fraction(self.unit, self.limit)
        wait = self.wait(ask)
        patience = self.delay if ask.patience is None else min(self.delay, ask.patience)
        if ask.hits > 0 and (wait > patience or ask.hits > self.limit):
            return True, 0, ceil(wait if ask.hits > self.limit else wait - patience)
        after = max(Fraction(0), wait + (ask.hits * each if taken else 0))
        told_s = min(after, ask.hits * each) if ask.hits > 0 else after
        return False, max(0, floor((self.delay + each - after) / each)), ceil(told_s)

    def take(self, ask: Ask) -> None:
        wait = self.wait(ask)
        if ask.hits < 0 and not (wait and self.limit):
            return
        self.at = ask.now if self.at - ask.now > self.unit else max(self.at, ask.now)
        self.free = self.at + max(Fraction(0), wait + Fraction(ask.hits * self.unit, self.limit))


@dataclass
class Concurrency:
    """Who is in flight: the request, its places, and when its lease ends."""

    limit: int
    lease: Fraction
    callers: list[tuple[str, int, Fraction]] = field(default_factory=list[tuple[str, int, Fraction]])
    conditional = True

    def told(self, ask: Ask, *, taken: bool) -> Told:
        here = self._here(ask)
        count = sum(places for _, places, _ in here)
        if ask.ends:
            return False, self.limit - sum(places for caller, places, _ in here if caller != ask.caller), 0
        again = any(caller == ask.caller for caller, _, _ in here)
        if ask.hits and not again and count + ask.hits > self.limit:
            return True, max(0, self.limit - count), 1
        added = ask.hits if taken and not again else 0
        return False, self.limit - count - added, ceil(self.lease)

    def take(self, ask: Ask) -> None:
        here = self._here(ask)
        places = next((places for caller, places, _ in here if caller == ask.caller), ask.hits)
        self.callers = [each for each in here if each[0] != ask.caller]
        if not ask.ends and ask.hits:
            self.callers.append((ask.caller, places, ask.now + self.lease))

    def _here(self, ask: Ask) -> list[tuple[str, int, Fraction]]:
        """No lease ends later than one that begins now."""
        latest = ask.now + self.lease
        self.callers = [(caller, places, min(ends, latest)) for caller, places, ends in self.callers if ends > ask.now]
        return self.callers


def decided(asked: Sequence[tuple[Model, Ask, bool]]) -> list[Told]:
    """What a request is told whose descriptors ask this of these counters; False for a limit in shadow mode.

    A conditional counter takes its hits only if no limit refuses; a fixed window counts in any case. A request that
    has several descriptors with the same conditional counter asks it once, for all hits. What is given back (hits below
    zero) is counted first, whatever is refused.
    """
    merged: list[tuple[Model, Ask, bool]] = []
    places: list[int] = []
    for model, ask, binding in asked:
        same = next((i for i, each in enumerate(merged) if model.conditional and each[0] is model), None)
        if same is None:
            places.append(len(merged))
            merged.append((model, ask, binding))
        else:
            places.append(same)
            first = merged[same][1]
            merged[same] = model, Ask(ask.now_us, first.hits + ask.hits, ask.caller, ask.ends, ask.patience), binding
    told: list[Told] = [(False, 0, 0)] * len(merged)
    for index, (model, ask, _) in sorted(enumerate(merged), key=lambda each: each[1][1].hits >= 0):
        told[index] = model.told(ask, taken=True)
        if not model.conditional or ask.ends or ask.hits < 0:
            model.take(ask)
    refused = any(over and binding for (over, _, _), (_, _, binding) in zip(told, merged, strict=True))
    for index, (model, ask, _) in enumerate(merged):
        if not model.conditional or ask.ends or ask.hits <= 0 or told[index][0]:
            continue
        if refused:
            told[index] = model.told(ask, taken=False)
        else:
            model.take(ask)
    return [told[place] for place in places]
