"""Leases: takes several hits of a limit from the store at a time, and answers requests from those.

A lease is never more than the store has counted, so all workers together stay within the limit. What a worker does
not use is lost to the others until the limit resets: up to `Rule.lease` hits for each worker and key.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ratelimit_service.checks import Check, Counter, all_fixed
from ratelimit_service.memo import Memo
from ratelimit_service.reading import MAX_HITS
from ratelimit_service.stores.base import Flight, Store
from ratelimit_service.stores.leases_terms import Grant, Terms, all_terms

_MAX_LEASES = 16_384
_MAX_WAITING = 16_384
_MAX_RETURNED = 8_192
_BRISK_S, _SLOW_S = 1.0, 10.0
"""What was used up within the first of these is followed by twice as much, after the second by half."""
_RETURN_WITHIN_S = 0.5
_MAX_TRIES = 10


class _Waiter(NamedTuple):
    """A check that waits for the store: which reply of which flight."""

    flight: Flight
    at: int
    hits: int
    now: float


class _Lease:
    """What this worker has of one counter."""

    __slots__ = ("asked", "begun", "check", "left", "low", "size", "spare", "step", "terms", "top", "until", "waiting")

    def __init__(self, check: Check, terms: Terms) -> None:
        self.check = check._replace(hits=1, take=True)
        self.terms = terms
        self.left = 0
        self.until = 0.0
        self.top = self.step = 0
        self.spare = 0
        """How many hits the store had left when it was last asked."""
        self.size = 1
        """How many hits are taken at a time at present."""
        self.low = 0
        """With so many left, more are taken."""
        self.begun = 0.0
        """Unix time at which it was last asked for more."""
        self.asked = False
        """Whether an answer of the store is to come."""
        self.waiting: deque[_Waiter] = deque()

    def reply(self) -> int:
        """What the store would have replied to the hit that was just taken from here."""
        return max(0, self.top - self.left * self.step)

    def resize(self, now: float) -> None:
        """Takes more at a time where hits come fast, less where they do not."""
        since_s = now - self.begun
        if since_s < _BRISK_S:
            self.size = min(self.check.limit.rule.lease, self.size * 2)
        elif since_s > _SLOW_S:
            self.size = max(1, self.size // 2)
        self.begun = now

    def demand(self) -> int:
        """How many hits are waited for."""
        return sum(waiter.hits for waiter in self.waiting)

    def ahead(self, now: float) -> int:
        """How many hits to have beyond those that are asked for by now: few where few are left for everybody."""
        spare = self.spare if now < self.until else self.check.limit.rule.bucket_size
        return min(self.size, spare // 4)


class LeaseStore:
    """A store before another: all checks of limits with leases go through it.

    Who has waited for `patience_s` asks the store for itself: that is one more answer to wait for, and the last.
    """

    def __init__(self, store: Store, *, clock: Callable[[], float] = time.time, patience_s: float = 0.02) -> None:
        self._store = store
        self._clock = clock
        self._patience_s = patience_s
        self._terms = all_terms()
        self._leases: Memo[Counter, _Lease] = Memo(_MAX_LEASES)
        self.answered = 0
        """How many checks were answered from a lease that was there."""
        self.waited = 0
        """How many had to wait for the store."""
        self.refills = 0
        """How often the store was asked for more."""
        self.granted = 0
        """How many hits the store has given."""
        self.unused = 0
        """How many of those were gone before they were used."""

    @property
    def available(self) -> bool:
        """Whether the store behind can be asked."""
        return self._store.available

    def take(self, checks: Sequence[Check], now: float, flight: Flight) -> None:
        """Answers from leases where they last, and has the flight settled when the store has answered the rest."""
        if len(checks) > 1 or flight.together:
            self._take_several(checks, now, flight)
            return
        check = checks[0]
        lease = self._leases.young.get(check.counter)
        if lease is None:
            if check.limit.rule.lease == 1:
                # What is left to ask of a request whose other limits have leases.
                self._take_several(checks, now, flight)
                return
            lease = self._lease(check)
        left = lease.left - check.hits
        if 0 <= left < lease.left and now < lease.until:
            lease.left = left
            self.answered += 1
            flight.replies = [max(0, lease.top - left * lease.step)]
            flight.settle()
            if left <= lease.low and not lease.asked:
                self._refill_ahead(lease, now)
            return
        flight.replies = [None]
        flight.left = 1
        self._take(check, now, flight, 0)

    async def close(self) -> None:
        """Gives back what can be given back. The store behind is closed by who opened it."""
        now = self._clock()
        unused = [lease for lease in self._leases.values() if lease.left > 0 and now < lease.until]
        self._leases.clear()
        checks = [lease.check._replace(hits=-lease.left) for lease in unused if lease.terms.returnable]
        if checks and self._store.available:
            returned = _Returned()
            self._store.take(checks[:_MAX_RETURNED], now, returned)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(returned.done.wait(), _RETURN_WITHIN_S)

    def _lease(self, check: Check) -> _Lease:
        lease = self._leases.get(check.counter)
        if lease is None:
            lease = _Lease(check, self._terms[check.limit.rule.algorithm])
            self._leases.put(check.counter, lease)
        return lease

    def _take_several(self, checks: Sequence[Check], now: float, flight: Flight) -> None:
        flight.replies = [None] * len(checks)
        flight.left = len(checks)
        others: list[int] = []
        for index, check in enumerate(checks):
            if check.limit.rule.lease > 1:
                self._take(check, now, flight, index)
            else:
                others.append(index)
        if others:
            part = [checks[index] for index in others]
            together = flight.together and not all_fixed(part)
            self._store.take(part, now, _Part(flight, others, together=together))

    def _take(self, check: Check, now: float, flight: Flight, index: int) -> None:
        lease = self._lease(check)
        hits = check.hits
        if not check.take and check.limit.script is not None:
            self._store.take((check,), now, _Part(flight, (index,), together=True))
            return
        if hits <= 0 and (hits < 0 or not (lease.left and now < lease.until)):
            self._store.take((check,), now, _Part(flight, (index,)))
            return
        if hits <= lease.left and now < lease.until and not lease.waiting:
            lease.left -= hits
            self.answered += 1
            _fill(flight, index, lease.reply())
            if lease.left <= lease.low and not lease.asked:
                self._refill_ahead(lease, now)
            return
        self.waited += 1
        if len(lease.waiting) >= _MAX_WAITING:
            _fill(flight, index, None)
            return
        lease.waiting.append(_Waiter(flight, index, hits, now))
        if not lease.asked:
            self._refill(lease, now)

    def _refill_ahead(self, lease: _Lease, now: float) -> None:
        if lease.ahead(now) > lease.left:
            self._refill(lease, now)

    def _refill(self, lease: _Lease, now: float) -> None:
        """Asks for what is waited for, and some more."""
        if now >= lease.until:
            self.unused += lease.left
            lease.left = 0
        lease.resize(now)
        self._ask(lease, lease.demand() + lease.ahead(now) - lease.left, now, tries=0)

    def _ask(self, lease: _Lease, hits: int, now: float, *, tries: int) -> None:
        lease.asked = True
        self.refills += 1
        check = lease.check._replace(hits=min(hits, MAX_HITS))
        self._store.take((check,), now, _Refill(self, lease, check.hits, now, tries=tries))

    def _ask_by_themselves(self, lease: _Lease) -> None:
        # What is left is being fought for, and nobody is to wait longer.
        waiting, lease.waiting = lease.waiting, deque()
        for waiter in waiting:
            check = lease.check._replace(hits=waiter.hits)
            self._store.take((check,), waiter.now, _Part(waiter.flight, (waiter.at,)))

    def refilled(self, lease: _Lease, refill: _Refill) -> None:
        """Hands out what the store gave."""
        lease.asked = False
        reply = refill.replies[0]
        if reply is None:
            waiting, lease.waiting = lease.waiting, deque()
            for waiter in waiting:
                _fill(waiter.flight, waiter.at, None)
            return
        grant = lease.terms.grant(lease.check.limit, refill.hits, reply, refill.now)
        self.granted += grant.granted
        lease.left += grant.granted
        lease.top, lease.step, lease.until = grant.top, grant.step, grant.until
        lease.spare = grant.room or 0
        lease.low = lease.size // 4
        while waiting := lease.waiting:
            waiter = waiting[0]
            missing = waiter.hits - lease.left
            if waiter.now >= lease.until:
                # A window has begun since.
                self._refill(lease, waiter.now)
                return
            if missing <= 0:
                waiting.popleft()
                lease.left -= waiter.hits
                _fill(waiter.flight, waiter.at, lease.reply())
            elif (hits := _once_more(lease, refill, grant, missing)) == 0:
                waiting.popleft()
                _fill(waiter.flight, waiter.at, grant.refusal)
                if lease.left:
                    # There is still something for who asks for less.
                    lease.check.counter.over_until = 0.0
            elif hits > 0 and (refill.tries >= _MAX_TRIES or self._clock() - waiter.now > self._patience_s):
                self._ask_by_themselves(lease)
            elif hits > 0:
                self._ask(lease, hits, refill.now, tries=refill.tries + 1)
                return
            else:
                self._refill(lease, waiting[-1].now)
                return


def _once_more(lease: _Lease, refill: _Refill, grant: Grant, missing: int) -> int:
    """How many hits to ask for, since so many are missing; 0 for none, below 0 for as many as at first."""
    refused = grant.granted < refill.hits
    if not refused and not refill.tries:
        # Who lacks them came when the store had been asked.
        return -1
    if grant.room is not None:
        # Not all of it: others ask at the same time, and who asks for what they have just taken gets nothing.
        most = max(missing, grant.room - grant.room // 8)
        return min(most, lease.demand() - lease.left) if missing <= grant.room else 0 if refused else missing
    return missing if missing < refill.hits else 0


class _Refill(Flight):
    """More hits, on their way from the store."""

    __slots__ = ("_leases", "hits", "lease", "now", "tries")

    def __init__(self, leases: LeaseStore, lease: _Lease, hits: int, now: float, *, tries: int) -> None:
        super().__init__()
        self._leases = leases
        self.lease = lease
        self.hits = hits
        self.now = now
        self.tries = tries
        """How often more was asked for before, for the same requests, and refused."""

    def settle(self) -> None:
        self._leases.refilled(self.lease, self)


class _Part(Flight):
    """Those checks of a flight that go to the store as they are."""

    __slots__ = ("_flight", "_indices", "together")

    def __init__(self, flight: Flight, indices: Sequence[int], *, together: bool = False) -> None:
        super().__init__()
        self.together = together
        self._flight = flight
        self._indices = indices

    def settle(self) -> None:
        for index, reply in zip(self._indices, self.replies, strict=True):
            _fill(self._flight, index, reply)


class _Returned(Flight):
    """What is given back."""

    __slots__ = ("done",)

    def __init__(self) -> None:
        super().__init__()
        self.done = asyncio.Event()

    def settle(self) -> None:
        self.done.set()


def _fill(flight: Flight, index: int, reply: int | None) -> None:
    flight.replies[index] = reply
    flight.left -= 1
    if not flight.left:
        flight.settle_or_fail()
