"""Follows changes: hears of steps from the control plane and of answers from the xDS cache, remembers the last ones."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Generator
from contextlib import contextmanager
from typing import Any, Final

from controlplane.engine import Step
from controlplane.slices import Steps, finish
from controlplane.tracing.change import Change, Delivery, Stages, TypeDelivery
from controlplane.tracing.owner import Owner
from controlplane.xds.diff import Diff
from controlplane.xds.events import Deliveries, Nack
from controlplane.xds.resources import Snapshot

MOST_CHANGES: Final = 256
_MOST_OBJECTS: Final = 1000
_MOST_OWNERS: Final = 64
"""Deliveries of one change that are told; those of more owners are followed all the same."""

Done = Callable[[Delivery, float], None]
"""Hears of a delivery that is over, and how long after the change was seen."""


class Tracer(Deliveries):
    """Keeps the last `most` changes. `on_done` hears each delivery that all have answered, or that is given up."""

    def __init__(
        self,
        *,
        on_done: Done = lambda delivery, seconds: None,
        on_stages: Callable[[Stages, int], None] = lambda stages, objects: None,
        most: int = MOST_CHANGES,
        clock: Callable[[], float] = time.monotonic,
        calendar: Callable[[], float] = time.time,
    ) -> None:
        self._on_done = on_done
        self._on_stages = on_stages
        self._clock = clock
        self._calendar = calendar
        self._changes: deque[Change] = deque(maxlen=most)
        self._owners: dict[str, Owner] = {}
        self._seen: dict[int, float] = {}
        self._current: Change | None = None
        self._number = 0

    @property
    def newest(self) -> int:
        """The number of the newest change."""
        return self._changes[-1].number if self._changes else 0

    @property
    def behind(self) -> int:
        """How many clients have something to answer."""
        return sum(owner.behind for owner in self._owners.values())

    @property
    def open(self) -> int:
        """How many deliveries are under way."""
        return len(self._seen)

    @contextmanager
    def step(self, step: Step, *, seen_at: float | None = None) -> Generator[None]:
        """Holds the publishing of a step; what is offered meanwhile is put down to it."""
        now = self._clock()
        taken = now - step.duration_s
        seen = taken if seen_at is None else min(seen_at, taken)
        before, self._current = self._current, self._begin(step, seen, taken)
        try:
            yield
        finally:
            change, self._current = self._current, before
            change.stages = Stages(
                taken - seen, step.load_s, step.duration_s - step.load_s, publish_s=self._clock() - now
            )
            if step.changed or change.deliveries:
                self._number += 1
                change.number = self._number
                self._changes.append(change)
                self._on_stages(change.stages, change.total)

    def changes(self, *, words: str = "", last: int = MOST_CHANGES, since: int = 0) -> list[dict[str, Any]]:
        """Returns the changes after the one with this number that concern an object, the newest last, as JSON."""
        return finish(self.telling(words=words, last=last, since=since))

    def telling(self, *, words: str = "", last: int = MOST_CHANGES, since: int = 0) -> Steps[list[dict[str, Any]]]:
        """Does the same, and may be interrupted."""
        now = self._clock()
        found = [each for each in self._changes if each.number > since and (not words or each.concerns(words))]
        yield
        waiting: dict[int, list[Any]] = {}
        for owner in self._owners.values():
            for delivery, client in owner.waiting(now):
                waiting.setdefault(id(delivery), []).append(client)
        told: list[dict[str, Any]] = []
        for change in found[-last:] if last > 0 else ():
            told.append(change.to_json(now, waiting))
            yield
        return told

    # What the cache tells

    def attached(self, owner: str, number: int, node_id: str) -> None:
        self._owner(owner).attached(number, node_id)

    def detached(self, owner: str, number: int) -> None:
        self._owner(owner).detached(number, self._clock())
        self._discard(owner)

    def offered(self, owner: str, served: Snapshot, changes: Diff, behind: Collection[int]) -> None:
        now = self._clock()
        followed = self._owner(owner)
        delivery = Delivery(owner, followed.seq + 1, now, _types(served, changes))
        change = self._current
        if change is not None and len(change.deliveries) < _MOST_OWNERS:
            change.deliveries.append(delivery)
        if behind:
            self._seen[id(delivery)] = change.seen if change is not None else now
        followed.offered(delivery, behind, now)
        self._discard(owner)

    def pushed(self, owner: str, number: int, type_url: str) -> None:
        self._owner(owner).pushed(number, type_url, self._clock())

    def acked(self, owner: str, number: int, type_url: str) -> None:
        self._owner(owner).acked(number, type_url, self._clock())

    def refused(self, owner: str, number: int, type_url: str) -> None:
        self._owner(owner).refused(number, type_url)

    def rejected(self, owner: str, number: int, nack: Nack) -> None:
        self._owner(owner).rejected(number, nack)

    def settled(self, owner: str, number: int) -> None:
        self._owner(owner).settled(number, self._clock())

    # Within

    def _begin(self, step: Step, seen: float, taken: float) -> Change:
        at = self._calendar() - (self._clock() - seen)
        stages = Stages(taken - seen, step.load_s, step.duration_s - step.load_s)
        return Change(0, at, seen, step.changed[:_MOST_OBJECTS], len(step.changed), stages)

    def _owner(self, name: str) -> Owner:
        found = self._owners.get(name)
        if found is None:
            found = self._owners[name] = Owner(name, self._done)
        return found

    def _discard(self, name: str) -> None:
        if self._owners[name].unused:
            del self._owners[name]

    def _done(self, delivery: Delivery) -> None:
        seen = self._seen.pop(id(delivery), None)
        if seen is not None:
            self._on_done(delivery, (delivery.settled or self._clock()) - seen)


def _types(served: Snapshot, changes: Diff) -> dict[str, TypeDelivery]:
    out: dict[str, TypeDelivery] = {}
    for type_url, names in changes.items():
        having = served.of_type(type_url)
        added = {name: len(resource.body) for name in names if (resource := having.get(name)) is not None}
        out[type_url] = TypeDelivery.of(added, len(names) - len(added))
    return out
