"""An API server and a clock that the test turns: writes, a watch that lags behind, failures on demand."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import Counter, deque
from collections.abc import Callable, Mapping
from typing import Any

from controlplane.api.meta import ObjectKey
from controlplane.conditions import ObjectStatus
from controlplane.kube.errors import ApiError
from controlplane.status.encode import merge_patch
from controlplane.status.queue import Timer
from controlplane.status.writer import Desired, StatusWriter
from tests.unit.status.seen import NOW, SETTING, Seen


class _Timer:
    def __init__(self, call: Callable[[], None]) -> None:
        self.call: Callable[[], None] | None = call

    def cancel(self) -> None:
        self.call = None


class World:
    """`async with World() as world`: a writer at work against an API server in memory."""

    def __init__(self, concurrency: int = 16) -> None:
        self.time = 100.0
        self.stored: dict[ObjectKey, Seen] = {}
        self.observed: dict[ObjectKey, Seen] = {}
        self.desired: dict[ObjectKey, Desired] = {}
        self.events: deque[tuple[ObjectKey, Seen | None]] = deque()
        self.failures: deque[tuple[ApiError, bool]] = deque()
        self.requests: list[tuple[str, Mapping[str, Any]]] = []
        self.vain: list[str] = []
        self.writes: Counter[ObjectKey] = Counter()
        self.in_flight = 0
        self.most_in_flight = 0
        self.gate: asyncio.Event | None = None
        self.drops: Callable[[Mapping[str, Any]], dict[str, Any]] = dict
        self.leads = True
        self.tell: Callable[[ObjectKey], Desired] = lambda key: self.desired.get(key, Desired(None))
        self._version = 10
        self._timers: list[tuple[float, int, _Timer]] = []
        self._order = itertools.count()
        self.writer = StatusWriter(
            self,
            observed=self.observed.get,
            desired=lambda key: self.tell(key),
            keys=lambda: list(self.observed),
            setting=lambda: SETTING,
            leading=lambda: self.leads,
            concurrency=concurrency,
            clock=lambda: self.time,
            now=lambda: NOW,
            later=self._later,
            jitter=lambda: 1.0,
        )

    async def __aenter__(self) -> World:
        self._task = asyncio.create_task(self.writer.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        assert not self.vain, "writes that changed nothing"

    # The API server

    async def patch(
        self, path: str, document: Mapping[str, Any], *, params: Mapping[str, str] | None = None
    ) -> Mapping[str, Any]:
        self.requests.append((path, document))
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await (self.gate.wait() if self.gate is not None else asyncio.sleep(0))
            return self._patch(path, document)
        finally:
            self.in_flight -= 1

    def _patch(self, path: str, document: Mapping[str, Any]) -> Mapping[str, Any]:
        *_, namespace, _, name, subresource = path.split("/")
        assert subresource == "status"
        failure, done = self.failures.popleft() if self.failures else (None, True)
        if failure is not None and not done:
            raise failure
        key = next((key for key in self.stored if (key.namespace, key.name) == (namespace, name)), None)
        if key is None:
            raise ApiError(404, "NotFound", "no such object")
        before = self.stored[key]
        if document["metadata"]["resourceVersion"] != before.resource_version:
            raise ApiError(409, "Conflict", "the object has been modified")
        status = self.drops(_merged(before.status, document["status"]))
        if status == before.status and self.drops is dict:
            self.vain.append(path)
        self.writes[key] += 1
        after = self._store(key, Seen(status, before.generation, uid=before.uid))
        if failure is not None:
            raise failure
        return {
            "metadata": {"resourceVersion": after.resource_version, "uid": after.uid, "generation": after.generation},
            "status": after.status,
        }

    def _store(self, key: ObjectKey, found: Seen) -> Seen:
        self._version += 1
        stored = Seen(found.status, found.generation, str(self._version), found.uid)
        self.stored[key] = stored
        self.events.append((key, stored))
        return stored

    # What happens

    def create(self, key: ObjectKey, status: ObjectStatus | None = None) -> None:
        """An object comes, and what is to be said of it is known at once."""
        self._store(key, Seen(uid=f"u{self._version}"))
        self.desired[key] = Desired(status)

    def delete(self, key: ObjectKey) -> None:
        del self.stored[key]
        self.events.append((key, None))

    def edit(self, key: ObjectKey) -> None:
        """Somebody changes the spec."""
        before = self.stored[key]
        self._store(key, Seen(before.status, before.generation + 1, uid=before.uid))

    def set_status(self, key: ObjectKey, status: Mapping[str, Any]) -> None:
        """Somebody else writes the status."""
        before = self.stored[key]
        self._store(key, Seen(status, before.generation, uid=before.uid))

    def say(self, key: ObjectKey, desired: Desired) -> None:
        """What is to be said of an object changes."""
        self.desired[key] = desired
        self.writer.enqueue((key,))

    def deliver(self, count: int | None = None) -> None:
        """The watch brings what it has not yet brought."""
        for _ in range(len(self.events) if count is None else min(count, len(self.events))):
            key, found = self.events.popleft()
            if found is None:
                self.observed.pop(key, None)
            else:
                self.observed[key] = found
            self.writer.enqueue((key,))

    async def run(self) -> None:
        """Lets the writer go on until it waits for something."""
        for _ in range(60):
            await asyncio.sleep(0)

    async def calm(self, rounds: int = 12) -> None:
        """Lets everything come to rest."""
        for _ in range(rounds):
            self.deliver()
            await self.run()
            await self.advance(35.0)

    async def advance(self, seconds: float) -> None:
        """Lets time pass."""
        await self.run()
        until = self.time + seconds
        while self._timers and self._timers[0][0] <= until:
            when, _, timer = heapq.heappop(self._timers)
            self.time = max(self.time, when)
            if timer.call is not None:
                timer.call()
                await self.run()
        self.time = until
        await self.run()

    def _later(self, seconds: float, call: Callable[[], None]) -> Timer:
        timer = _Timer(call)
        heapq.heappush(self._timers, (self.time + seconds, next(self._order), timer))
        return timer


def _merged(old: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    out = dict(old)
    for name, value in patch.items():
        if value is None:
            out.pop(name, None)
        elif isinstance(value, dict) and isinstance(out.get(name), Mapping):
            out[name] = _merged(out[name], value)
        else:
            out[name] = value
    assert merge_patch(old, out) == patch
    return out
