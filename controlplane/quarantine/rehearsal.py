"""Tries what is risky before it is published: meanwhile it stands back, and what Envoy refuses goes on doing so."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol, TypeVar

from controlplane.api.meta import GATEWAY_GROUP, ObjectKey, Resource
from controlplane.engine import Engine, Step
from controlplane.pipeline.objects import Verdict
from controlplane.quarantine.hunt import joined
from controlplane.quarantine.search import Search
from controlplane.quarantine.suspicion import (
    Texts,
    exposed,
    in_order,
    is_guard,
    is_risky,
    is_route,
    may_be_rehearsed,
    may_wait,
    named,
)
from controlplane.quarantine.validator import NotValidatedError
from controlplane.sources.changes import Changes
from controlplane.xds.identity import GRPC_SUFFIX, SERVICE_OWNERS
from controlplane.xds.resources import Snapshot

_log = logging.getLogger(__name__)

T = TypeVar("T")
_AGAIN_S: Final = 0.02


class Asks(Protocol):
    """What is needed of a validator."""

    async def refusal(self, snapshot: Snapshot, published: Snapshot | None) -> str | None: ...


@dataclass(frozen=True, slots=True)
class Context:
    """What a rehearsal needs of who has it.

    `published` returns what an owner's Envoys are sent; `known_good` whether Envoys have confirmed a version before;
    `unconfirmed` what is in force and not confirmed; `busy` whether nothing is to be tried just now. `done` hears whom
    Envoy refuses, and why, and publishes what the step has.
    """

    published: Callable[[str], Snapshot | None]
    known_good: Callable[[ObjectKey, Resource], bool]
    unconfirmed: Callable[[], Iterable[ObjectKey]]
    busy: Callable[[], bool]
    done: Callable[[Mapping[ObjectKey, Resource], Mapping[ObjectKey, str], Step | None], None]


class Rehearsal:
    """`expect` changes, have the engine ask `judge`, and `begin` when it is done: what stands back is then tried.

    Nothing stands back unless there is somebody to `ask`.
    """

    def __init__(self, engine: Engine, context: Context, *, within_s: float = 60.0) -> None:
        self._engine = engine
        self._validator: Asks | None = None
        self._turn: Callable[[Callable[[], object]], object] = lambda work: work()
        self._context = context
        self._within_s = within_s
        self._waiting: dict[ObjectKey, None] = {}
        self._imagined: frozenset[ObjectKey] = frozenset()  # what is not to stand back, if only to see what comes of it
        self._task: asyncio.Task[None] | None = None
        self._first = True

    def ask(self, validator: Asks, turn: Callable[[Callable[[], object]], object]) -> None:
        """Has a validator asked; `turn` runs what uses the engine."""
        self._validator, self._turn = validator, turn

    @property
    def running(self) -> bool:
        """Says whether anything stands back."""
        return bool(self._waiting)

    @property
    def held(self) -> frozenset[ObjectKey]:
        """What stands back."""
        return frozenset(self._waiting)

    def expect(self, changes: Changes) -> None:
        """Takes in what is about to be taken in: with what is risky of it, all of it that can stands back.

        At the start, when nothing is published before this is done, only what is risky does.
        """
        if self._validator is None:
            return
        if self._first:
            self._first = False
        elif self._waiting or any(_is_risky_document(raw.key, raw.document) for raw in changes.upserted):
            self._waiting |= dict.fromkeys(raw.key for raw in changes.upserted if may_wait(raw.key))
        for key in changes.removed:
            self._waiting.pop(key, None)

    def judge(self, key: ObjectKey, object_: Resource, accepted: Resource | None) -> Verdict | None:
        """Returns whether a version may be in force at the moment."""
        if self._validator is None or key in self._imagined or object_ == accepted:
            return None
        if key not in self._waiting:
            if not (is_risky(key, object_) and may_be_rehearsed(key, has_before=accepted is not None)):
                return None
            if self._context.known_good(key, object_):
                return None
            self._waiting[key] = None
        if not is_guard(key) or accepted is not None:
            return Verdict()
        open_ = frozenset(each for each in self._context.unconfirmed() if is_route(each) and each not in self._waiting)
        return Verdict(absent=not exposed(object_, open_))

    def begin(self) -> None:
        """Begins to try what stands back, if anything does; on the event loop."""
        if not self._waiting:
            return
        self._waiting = {key: None for key in self._waiting if self._newest(key) is not None}
        if self._waiting and self._task is None:
            self._task = asyncio.get_running_loop().create_task(self.run(), name="rehearsal")
            self._task.add_done_callback(self._ended)

    async def run(self) -> None:
        """Tries until nothing stands back."""
        while self._waiting:
            if self._context.busy():
                await asyncio.sleep(_AGAIN_S)
                continue
            batch = await self._in_turn(self._batch)
            convicted: Mapping[ObjectKey, str] = {}
            try:
                convicted = await self._try(batch)
            except NotValidatedError as error:
                _log.warning("%d changed objects are published untried: %s", len(batch), error)
            except Exception:
                _log.exception("%d changed objects are published untried", len(batch))
            await self._in_turn(partial(self._release, batch, convicted))

    async def close(self) -> None:
        """Ends what goes on."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if not task.cancelled() and task.exception() is None:
            self.begin()

    def _newest(self, key: ObjectKey) -> Resource | None:
        admitted = self._engine.pipeline.objects.peek(key)
        return admitted.object if admitted is not None and not admitted.faults else None

    def _batch(self) -> dict[ObjectKey, Resource]:
        self._waiting = {key: None for key in self._waiting if self._newest(key) is not None}
        return {key: found for key in self._waiting if (found := self._newest(key)) is not None}

    async def _try(self, batch: Mapping[ObjectKey, Resource]) -> Mapping[ObjectKey, str]:
        """Returns whom Envoy refuses, and what it says of each."""
        if not batch:
            return {}
        deadline = time.monotonic() + self._within_s
        owners: set[str] = set()
        message = await self._refusal(frozenset(batch), owners)
        if message is None:
            return {}
        suspects = in_order(batch, batch.get)
        search = Search(suspects, message, named=partial(named, text=Texts(batch.get).of))
        while not search.done:
            if time.monotonic() > deadline:
                raise NotValidatedError("it was not found out in time which of them Envoy refuses")
            message = await self._refusal(search.trial, owners)
            if message is None:
                search.accepted()
            else:
                search.rejected(message)
        if search.unexplained:
            raise NotValidatedError(f"Envoy refuses what is in force already: {search.message}")
        return search.convicted

    async def _refusal(self, trial: frozenset[ObjectKey], owners: set[str]) -> str | None:
        """Returns what Envoy says against these; `owners` are whose Envoys are concerned, and grow by those found."""
        assert self._validator is not None
        imagined = await self._in_turn(partial(self._imagine, trial))
        owners.update(imagined)
        for owner in sorted(owners):
            snapshot = imagined.get(owner) or await self._in_turn(partial(self._current, owner))
            if snapshot is None:
                continue
            # Without any of them, the rest has to be looked at too: perhaps that is what is refused.
            message = await self._validator.refusal(snapshot, self._context.published(owner) if trial else None)
            if message is not None:
                return message
        return None

    def _current(self, owner: str) -> Snapshot | None:
        namespace, _, name = owner.partition("/")
        key = ObjectKey(GATEWAY_GROUP, "Gateway", namespace, name)
        return self._engine.pipeline.snapshots.current().get(key)

    def _imagine(self, trial: frozenset[ObjectKey]) -> dict[str, Snapshot]:
        """Returns what would be published with these in force; the engine is left as it was."""
        accepted = self._engine.pipeline.objects.accepted
        before = {key: accepted.peek(key) for key in trial}
        self._imagined = trial
        try:
            with_them = self._engine.rejudge(trial)
        finally:
            self._imagined = frozenset()
        as_it_was = self._engine.rejudge(trial, before)
        self._context.done({}, {}, joined(with_them, as_it_was))
        return {
            owner: snapshot
            for owner, snapshot in with_them.snapshots.items()
            if snapshot is not None and owner not in SERVICE_OWNERS and not owner.endswith(GRPC_SUFFIX)
        }

    def _release(self, batch: Mapping[ObjectKey, Resource], convicted: Mapping[ObjectKey, str]) -> None:
        tried = {key: each for key, each in batch.items() if self._newest(key) is each}
        for key in [key for key in batch if key in tried or self._newest(key) is None]:
            self._waiting.pop(key, None)
        self._imagined = frozenset(tried)
        try:
            self._context.done(tried, {key: each for key, each in convicted.items() if key in tried}, None)
        finally:
            self._imagined = frozenset()

    async def _in_turn(self, work: Callable[[], T]) -> T:
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        def do() -> None:
            try:
                future.set_result(work())
            except Exception as error:
                future.set_exception(error)

        self._turn(do)
        return await future


def _is_risky_document(key: ObjectKey, document: Mapping[str, object]) -> bool:
    return is_risky(key, None) or (may_wait(key) and "RegularExpression" in repr(document))
