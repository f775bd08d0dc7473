"""One side of a stream between replicas: what there is to tell is gathered for a moment, and told when it can be.

Nothing is queued: who reads slowly is told later, and then what is true by then.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from typing import Final

from controlplane.api.meta import ObjectKey
from controlplane.replicas.messages import Hello, KeySets, Message, StandIn, StandIns, Whole, Workers, batches, encode
from controlplane.replicas.report import Report
from controlplane.replicas.standins import Agreement

GATHER_S: Final = 0.02
_LONGEST_GATHER_S: Final = 1.0
_CATCH_UP_S: Final = 1.0
_SHARE: Final = 10  # Of the time, no more than one part in so many goes into telling.


class Telling:
    """`run` tells everything once and then what `touch…` has named; `report` and `key_sets` are for who has any."""

    def __init__(
        self,
        hello: Hello,
        agreement: Agreement,
        *,
        report: Report | None = None,
        key_sets: Callable[[], Mapping[str, str]] = dict,
        workers: Callable[[], Mapping[str, str | None]] = dict,
    ) -> None:
        self._hello = hello
        self._agreement = agreement
        self._report = report
        self._key_sets = key_sets
        self._workers = workers
        self._workers_told: Mapping[str, str | None] = {}
        self._standing: dict[ObjectKey, StandIn] = {}
        self._objects: dict[ObjectKey, None] = dict.fromkeys(agreement.all())
        self._uris: dict[str, None] = dict.fromkeys(key_sets())
        self._due = asyncio.Event()
        if report is not None:
            report.touch_all()

    def touch_objects(self, keys: Iterable[ObjectKey]) -> None:
        """Has objects looked at for what stands in for them."""
        refused = [key for key in keys if key in self._standing or self._agreement.is_refused(key)]
        if refused:
            self._objects.update(dict.fromkeys(refused))
            self._due.set()

    def touch_key_set(self, uri: str) -> None:
        """Has a key set told."""
        self._uris[uri] = None
        self._due.set()

    def touch_owners(self, owners: Iterable[str]) -> None:
        """Has the clients of owners looked at."""
        if self._report is not None:
            self._report.touch(owners)
            self._due.set()

    def touch_workers(self) -> None:
        """Has the workers of the services looked at."""
        self._due.set()

    async def run(self, write: Callable[[bytes], Awaitable[object]]) -> None:
        """Tells until cancelled, or until `write` raises."""
        await write(encode(self._hello))
        pause_s = await self._tell(write)
        await write(encode(Whole()))
        while True:
            # What happens alone is told at once; what follows closely is gathered.
            await asyncio.sleep(pause_s)
            await self._wait()
            self._due.clear()
            pause_s = await self._tell(write)

    async def _wait(self) -> None:
        while not self._due.is_set():
            try:
                # Not wait_for, in which a cancellation is lost that comes with what is due.
                async with asyncio.timeout(_CATCH_UP_S):
                    await self._due.wait()
            except TimeoutError:
                if self._report is not None and self._report.behind:
                    self._report.touch_all()
                    return

    async def _tell(self, write: Callable[[bytes], Awaitable[object]]) -> float:
        """Tells what there is; returns how long to gather before the next time."""
        began = time.perf_counter()
        encoded = [encode(message) for message in self._messages()]
        took_s = time.perf_counter() - began
        for each in encoded:
            await write(each)
        return min(max(GATHER_S, took_s * _SHARE), _LONGEST_GATHER_S)

    def _messages(self) -> Iterator[Message]:
        if (workers := self._workers()) != self._workers_told:
            self._workers_told = workers
            yield Workers(have=dict(workers))
        yield from self._key_set_messages()
        yield from self._stand_in_messages()
        if self._report is not None:
            yield from self._report.take()

    def _key_set_messages(self) -> Iterator[Message]:
        known, self._uris, uris = self._key_sets(), {}, self._uris
        documents = [(uri, known[uri]) for uri in uris if uri in known]
        for batch in batches(documents, lambda pair: len(pair[0]) + len(pair[1])):
            yield KeySets(documents=dict(batch))

    def _stand_in_messages(self) -> Iterator[Message]:
        keys, self._objects = list(self._objects), {}
        found = {key: self._agreement.standing(key) for key in keys}
        over = tuple(key for key, each in found.items() if each is None and self._standing.pop(key, None) is not None)
        new = {key: each for key, each in found.items() if each is not None and self._standing.get(key) != each}
        self._standing |= new
        if over:
            yield StandIns(over=over)
        for batch in batches(new.values(), lambda each: len(each.document)):
            yield StandIns(standing=batch)
