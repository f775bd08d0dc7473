"""Divides one limit among the Envoys that report their use of it: plain arithmetic, the time is an argument.

Three rules keep the sum of what the Envoys may do within the limit. A share that shrinks counts as it was until the
smaller one is on its way, and only then do others grow. The share of one that left is nobody's until it could have come
back. What was let through beyond the shares (before the first assignment, or out of full buckets) is paid back.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

REPORT_S = 5.0
"""How often Envoy reports, whatever its configuration says (1.40)."""
LINGER_S = REPORT_S + 1.0
"""An Envoy that lost its stream opens another with its next report: until then what it had is kept for it."""
SETTLE_S = REPORT_S + 1.0
"""For so long after the first one Envoys come back that have shares which we know nothing of."""
IDLE_S = 600.0
"""Envoy never forgets a bucket by itself: one without requests for so long is taken from it."""

_HEADROOM = 1.03
_FLOOR = 0.01  # of the limit, for all idle ones together
_TAU_S = 1.0
_LEAST_WINDOW_S = 0.5
_WORTH_TELLING = 0.02
_REPAID_WITHIN_S = 5.0
_MOST_REPAID = 0.2  # of the limit
_LONGEST_REPAID_S = 300.0
"""What would take longer to pay back is forgiven: a limit is not to be smaller for hours after one bad moment."""
_LEAST_SHARE = 1e-9


def divide(limit: float, demands: Sequence[float | None]) -> list[float]:
    """Returns shares that add up to the limit, all in requests per second: max-min fair.

    Small demands get what they need and a little more, the others share alike; so do all what nobody needs. None is a
    demand that is not known yet: it counts as a great one.
    """
    if not demands:
        return []
    floor = limit * _FLOOR / len(demands)
    wanted = [math.inf if demand is None else demand * _HEADROOM + floor for demand in demands]
    left, shares = limit, [0.0] * len(demands)
    ascending = sorted(range(len(wanted)), key=wanted.__getitem__)
    for served, index in enumerate(ascending):
        shares[index] = min(wanted[index], left / (len(wanted) - served))
        left -= shares[index]
    extra = max(0.0, left) / len(shares)
    return [share + extra for share in shares]


@dataclass(slots=True)
class Holder:
    """An Envoy and its share, in requests per second."""

    held: float = 0.0
    """The most that it may do, by whatever of what it was told is in force."""
    told: float | None = None
    """What it was told last; None before the first time."""
    told_at: float = 0.0
    demand: float | None = None
    continues: bool = False
    """It had the bucket before it came to us, so that it goes on with some share, if only we are silent."""
    reported_at: float = 0.0
    active_at: float = 0.0
    allowed: int = 0
    asked: int = 0
    entitled: float = 0.0
    since: float = 0.0

    def accrue(self, now: float) -> None:
        """Counts up to now how many requests its share lets through."""
        self.entitled += self.held * max(0.0, now - self.since)
        self.since = now


@dataclass(frozen=True, slots=True)
class Left:
    """What an Envoy had that is gone, kept until `until`."""

    held: float
    until: float


class Division:
    """One limit, in requests per second, and those who share it.

    `burst` is what their buckets hold together. Until `settled_at` others may yet come back.
    """

    def __init__(self, limit: float, *, burst: float, refresh_s: float, settled_at: float = 0.0) -> None:
        self._limit = limit
        self._burst = burst
        self._refresh_s = refresh_s
        self._settled_at = settled_at
        # What was let through beyond the shares; below zero, what full buckets may still let through.
        self._debt = -burst
        self._repaid_at = 0.0
        self.holders: dict[int, Holder] = {}
        self.left: list[Left] = []

    def change(self, limit: float, burst: float) -> None:
        """Takes in that the limit was edited."""
        self._limit, self._burst = limit, burst
        self._debt = max(self._debt, -burst)

    @property
    def empty(self) -> bool:
        """Whether nobody has a part in it, nor had until just now."""
        return not self.holders and not self.left

    @property
    def held(self) -> float:
        """The most that all may do together."""
        return sum(each.held for each in self.holders.values()) + sum(each.held for each in self.left)

    def report(self, who: int, now: float, *, allowed: int, denied: int, elapsed_s: float) -> bool:
        """Takes in a report; returns whether it is the first of this one. `elapsed_s` is as Envoy tells it."""
        holder = self.holders.get(who)
        if holder is None:
            self.holders[who] = self._joined(now, allowed, denied, elapsed_s)
            return True
        holder.allowed += allowed
        holder.asked += allowed + denied
        if allowed or denied:
            holder.active_at = now
        window_s = now - holder.reported_at
        if window_s < _LEAST_WINDOW_S:
            return False
        rate = holder.asked / window_s
        weight = 1.0 if holder.demand is None else 1.0 - math.exp(-window_s / _TAU_S)
        holder.demand = rate * weight + (holder.demand or 0.0) * (1.0 - weight)
        holder.accrue(now)
        self._repay(now)
        most = self._limit * _MOST_REPAID * _LONGEST_REPAID_S
        self._debt = max(-self._burst, min(most, self._debt + holder.allowed - holder.entitled))
        holder.allowed, holder.asked, holder.entitled, holder.reported_at = 0, 0, 0.0, now
        return False

    def leave(self, who: int, now: float) -> None:
        """Takes in that an Envoy is gone, perhaps to come back at once."""
        holder = self.holders.pop(who, None)
        if holder is not None:
            self.left.append(Left(holder.held, now + LINGER_S))

    def drop(self, who: int) -> None:
        """Takes in that an Envoy was told to forget the bucket."""
        self.holders.pop(who, None)

    def sent(self, who: int, share: float, now: float) -> bool:
        """Takes in that an assignment is on its way; returns whether that leaves something for others."""
        holder = self.holders.get(who)
        # Of two on the way it is the last that counts, and only then what it leaves.
        if holder is None or share != holder.told or share >= holder.held:
            return False
        holder.accrue(now)
        holder.held = share
        return True

    def idle(self, now: float) -> list[int]:
        """Returns those who have had no requests for long."""
        return [who for who, holder in self.holders.items() if now - holder.active_at > IDLE_S]

    def assign(self, now: float) -> dict[int, float]:
        """Returns the shares that are to be told now; those who are told nothing go on with what they have."""
        self.left = [each for each in self.left if each.until > now]
        if now < self._settled_at:
            return self._assign_settling(now)
        limit = self._limit - self._repay(now)
        away = sum(each.held for each in self.left)
        shares = divide(max(0.0, limit - away), [each.demand for each in self.holders.values()])
        wanted = dict(zip(self.holders, shares, strict=True))
        told: dict[int, float] = {}
        free = self._limit - self.held
        # Those who shrink make no room yet: `sent` does.
        for who, share in sorted(wanted.items(), key=lambda item: item[1]):
            holder = self.holders[who]
            share = min(share, holder.held + max(0.0, free))
            if not self._worth_telling(holder, share, now):
                continue
            free -= self._tell(holder, share, now)
            told[who] = share
        return told

    def _assign_settling(self, now: float) -> dict[int, float]:
        told: dict[int, float] = {}
        for who, holder in self.holders.items():
            if holder.told is None:
                free = max(0.0, self._limit - self.held)
                share = holder.held if holder.continues else free / 2
                self._tell(holder, share, now)
                told[who] = share
            elif now - holder.told_at > self._refresh_s:
                self._tell(holder, holder.told, now)
                told[who] = holder.told
        return told

    def _worth_telling(self, holder: Holder, share: float, now: float) -> bool:
        if holder.told is None or now - holder.told_at > self._refresh_s:
            return True
        return abs(share - holder.told) > max(_LEAST_SHARE, _WORTH_TELLING * holder.told)

    def _tell(self, holder: Holder, share: float, now: float) -> float:
        """Notes what one is told; returns by how much it may do more at once."""
        more = max(0.0, share - holder.held)
        holder.accrue(now)
        holder.held += more
        holder.told, holder.told_at = share, now
        return more

    def _joined(self, now: float, allowed: int, denied: int, elapsed_s: float) -> Holder:
        holder = Holder(reported_at=now, since=now, active_at=now, continues=elapsed_s >= 1.0)
        if not holder.continues:
            return holder
        rate = allowed / elapsed_s
        holder.demand = (allowed + denied) / elapsed_s
        if self.left:
            found = min(self.left, key=lambda each: abs(each.held - rate))
            self.left.remove(found)
            holder.held = found.held
        elif now < self._settled_at:
            holder.held = max(0.0, min(rate, self._limit - self.held))
        return holder

    def _repay(self, now: float) -> float:
        """Pays up to now; returns by how much the limit is smaller for the time to come."""
        if self._debt > 0.0:
            self._debt = max(0.0, self._debt - self._repayment * max(0.0, now - self._repaid_at))
        self._repaid_at = now
        return self._repayment

    @property
    def _repayment(self) -> float:
        return max(0.0, min(self._debt / _REPAID_WITHIN_S, self._limit * _MOST_REPAID))
