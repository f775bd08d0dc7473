"""Writes statuses to the API server: what is desired against what is observed, at most once for each change."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from controlplane.api.meta import ObjectKey
from controlplane.conditions import ObjectStatus
from controlplane.kube.errors import ApiError
from controlplane.kube.paths import group_version, path_of
from controlplane.status.encode import Observed, Setting, encode, merge_patch
from controlplane.status.metrics import StatusMetrics
from controlplane.status.programmed import PATIENCE_S
from controlplane.status.queue import KeyQueue, Later

_log = logging.getLogger(__name__)

_FIELD_MANAGER: Final = "dragoman"
_LOOKS_AT_ONCE: Final = 16
_BACK_OFF_S: Final = 0.05
_MAX_BACK_OFF_S: Final = 30.0


class Patches(Protocol):
    """What the writer needs of the API client."""

    async def patch(
        self, path: str, document: Mapping[str, Any], *, params: Mapping[str, str] | None = None
    ) -> Mapping[str, Any]: ...


@dataclass(frozen=True, slots=True)
class Desired:
    """What is to be said about an object.

    `status` is None for one that is not ours. `settled` is False while an answer is due any moment that changes it
    (an ACK): the write waits for that a while. `generation` is that of the version which the status is about; while
    it is behind the observed one, the write waits likewise, and then says what it is about. For `withheld_s` nothing is
    written, for what it depends on is not known yet.
    """

    status: ObjectStatus | None
    settled: bool = True
    generation: int | None = None
    withheld_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Timing:
    """How long things may take; `patience_s` is how long a write waits for what is not settled."""

    patience_s: float = PATIENCE_S
    write_timeout_s: float = 5.0
    """Below what a lease outlasts its holder by: no write of ours arrives once somebody else leads."""


class StatusWriter:
    """Keeps statuses as they should be while it leads. `lead` and `enqueue` are called on the event loop."""

    def __init__(
        self,
        api: Patches,
        *,
        observed: Callable[[ObjectKey], Observed | None],
        desired: Callable[[ObjectKey], Desired],
        keys: Callable[[], Iterable[ObjectKey]],
        setting: Callable[[], Setting],
        leading: Callable[[], bool] = lambda: True,
        concurrency: int = 16,
        timing: Timing | None = None,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        later: Later | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """`keys` are all objects that have a status; `leading` is asked right before each write."""
        self._api = api
        self._observed = observed
        self._desired = desired
        self._keys = keys
        self._setting = setting
        self._leading = leading
        self._slots = asyncio.Semaphore(concurrency)
        self._timing = timing or Timing()
        self._clock = clock
        self._now = now
        self._jitter = jitter
        self._queue = KeyQueue(later)
        self._notes: dict[ObjectKey, _Note] = {}
        self.metrics = StatusMetrics(lambda: len(self._queue))

    def enqueue(self, keys: Iterable[ObjectKey]) -> None:
        """Has objects looked at: their desired status, or what is observed of them, has changed."""
        if self._leading():
            self._queue.put(keys)

    def lead(self, leading: bool) -> None:
        """Takes up everything, or lets go of it."""
        self._queue.clear()
        self._notes.clear()
        if leading:
            self._queue.put(self._keys())

    async def run(self) -> None:
        """Writes until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            looks = 0
            while True:
                await self._slots.acquire()
                key = await self._queue.take()
                write = self._look(key)
                if write is None:
                    self._slots.release()
                else:
                    tasks.create_task(self._write(write))
                looks += 1
                if looks % _LOOKS_AT_ONCE == 0:
                    await asyncio.sleep(0)

    # Deciding

    def _look(self, key: ObjectKey) -> _Write | None:
        """Returns what is to be written now; otherwise the key is done."""
        try:
            found = self._plan(key)
        except Exception:
            self.metrics.errors += 1
            _log.exception("the status of %s cannot be told", key)
            found = None
        if isinstance(found, _Write):
            return found
        self._queue.done(key, again_in_s=found)
        return None

    def _plan(self, key: ObjectKey) -> _Write | float | None:
        """Returns a write, in how many seconds to look again, or None if there is nothing to do."""
        if not self._leading():
            return None
        observed = self._newest(key)
        if observed is None:
            self._notes.pop(key, None)
            return None
        note = self._notes.setdefault(key, _Note())
        if observed.resource_version != note.stale and (wait_s := note.not_before - self._clock()) > 0:
            return wait_s
        if observed.resource_version == note.stale and (wait_s := note.stale_until - self._clock()) > 0:
            return wait_s
        return self._difference(key, note, observed)

    def _difference(self, key: ObjectKey, note: _Note, observed: Observed) -> _Write | float | None:
        desired = self._desired(key)
        if desired.withheld_s > 0:
            return desired.withheld_s
        setting = self._setting()
        status = encode(key, desired.status, observed, now=self._now(), setting=setting, generation=desired.generation)
        said = (desired.status, desired.generation, observed.uid, observed.generation)
        if (wait_s := self._patience(note, desired, observed)) > 0:
            return wait_s
        # An answer that stays away will have to be told, without anybody saying that it has.
        again_in_s = None if desired.settled else self._timing.patience_s
        if status is None or note.refused == said:
            self.metrics.skipped += 1
            if note.idle:
                del self._notes[key]
            return again_in_s
        wait_s = self._calm(note, said)
        return wait_s or _Write(key, note, observed, desired, setting, status, said, again_in_s)

    def _patience(self, note: _Note, desired: Desired, observed: Observed) -> float:
        """Returns how long to wait for what is about to change; after that wait, 0 once."""
        behind = desired.generation is not None and desired.generation < observed.generation
        if desired.settled and not behind:
            note.waits_for = None
            return 0.0
        waits_for = ("the version" if behind else "an answer", observed.generation)
        if waits_for != note.waits_for:
            note.waits_for, note.deadline = waits_for, self._clock() + self._timing.patience_s
        wait_s = note.deadline - self._clock()
        if wait_s <= 0:
            note.deadline = self._clock() + self._timing.patience_s
        return max(0.0, wait_s)

    def _calm(self, note: _Note, said: _Said) -> float:
        """Somebody else may undo each of our writes: then we write more and more seldom."""
        if note.said != said:
            note.repeats = 0
            return 0.0
        return max(0.0, note.written_at + self._back_off_s(note.repeats + 1) - self._clock())

    def _newest(self, key: ObjectKey) -> Observed | None:
        """What the watch has brought, or what our last write has made of it if the watch is behind that."""
        watched = self._observed(key)
        note = self._notes.get(key)
        if watched is None or note is None or note.written is None:
            return watched
        behind = watched.resource_version == note.base or _older(watched, note.written)
        if behind and watched.uid == note.written.uid:
            return note.written
        note.written = None
        return watched

    # Writing

    async def _write(self, write: _Write) -> None:
        again_in_s = write.again_in_s
        try:
            async with asyncio.timeout(self._timing.write_timeout_s):
                document = await self._api.patch(write.path, write.patch, params={"fieldManager": _FIELD_MANAGER})
            self._written(write, document)
        except ApiError as error:
            again_in_s = self._failed(write, error)
        except TimeoutError:
            again_in_s = self._failed(write, ApiError(0, "Timeout", "the API server did not answer in time"))
        except Exception:
            self.metrics.errors += 1
            _log.exception("the status of %s cannot be written", write.key)
        finally:
            self._slots.release()
            self._queue.done(write.key, again_in_s=again_in_s)

    def _written(self, write: _Write, document: Mapping[str, Any]) -> None:
        note = write.note
        self.metrics.writes[write.key.kind] += 1
        seen = _seen(write.observed, document)
        note.base, note.written = write.observed.resource_version, seen
        note.repeats = note.repeats + 1 if note.said == write.said else 0
        note.said, note.written_at = write.said, self._clock()
        note.stale, note.failures, note.not_before = None, 0, 0.0
        desired = write.desired
        left = encode(
            write.key,
            desired.status,
            seen,
            now=self._now(),
            setting=write.setting,
            generation=desired.generation,
        )
        if left is not None:
            note.refused = write.said
            _log.warning("%s keeps another status than what is written; is its CRD of another version?", write.key)

    def _failed(self, write: _Write, error: ApiError) -> float | None:
        """Returns in how many seconds to try again; None if that would not help."""
        note = write.note
        note.failures += 1
        wait_s = max(self._back_off_s(note.failures), error.retry_after_s or 0.0)
        if error.conflict:
            self.metrics.conflicts += 1
            note.stale, note.stale_until = write.observed.resource_version, self._clock() + wait_s
            return wait_s
        if error.not_found:
            # Deleted, or a kind whose status cannot be written.
            note.refused = write.said
            return None
        self.metrics.errors += 1
        if error.invalid:
            note.refused = write.said
            _log.error("the status of %s is refused: %s", write.key, error)
            return None
        _log.warning("the status of %s cannot be written, next try in %.1f s: %s", write.key, wait_s, error)
        note.not_before = self._clock() + wait_s
        return wait_s

    def _back_off_s(self, times: int) -> float:
        return min(_BACK_OFF_S * 2 ** min(times, 16), _MAX_BACK_OFF_S) * (0.5 + self._jitter() / 2)


_Said = tuple[ObjectStatus | None, int | None, str, int]
"""What is said, about which version of the object."""


@dataclass(slots=True)
class _Note:
    """What the writer remembers of an object."""

    base: str = ""
    written: Observed | None = None  # what our write has made of the version `base`
    said: _Said | None = None
    written_at: float = 0.0
    repeats: int = 0
    refused: _Said | None = None
    waits_for: tuple[str, int] | None = None  # what is about to change, for which generation
    deadline: float = 0.0  # until when a write waits for it
    stale: str | None = None  # a version that is known not to be the newest
    stale_until: float = 0.0
    failures: int = 0
    not_before: float = 0.0

    @property
    def idle(self) -> bool:
        """Whether nothing would be lost with it."""
        return self.written is None and self.refused is None and self.said is None and not self.waits_for


@dataclass(frozen=True, slots=True)
class _Write:
    key: ObjectKey
    note: _Note
    observed: Observed
    desired: Desired
    setting: Setting
    status: Mapping[str, Any]
    said: _Said
    again_in_s: float | None

    @property
    def path(self) -> str:
        group, version = group_version(self.observed.api_version)
        return path_of(group, version, self.observed.plural, self.key.namespace, self.key.name, "status")

    @property
    def patch(self) -> dict[str, Any]:
        return {
            "metadata": {"resourceVersion": self.observed.resource_version},
            "status": merge_patch(self.observed.status, self.status),
        }


@dataclass(frozen=True, slots=True)
class _Seen:
    """An object as a write of ours has left it."""

    api_version: str
    plural: str
    uid: str
    resource_version: str
    generation: int
    status: Mapping[str, Any]


def _seen(before: Observed, document: Mapping[str, Any]) -> _Seen:
    metadata = document.get("metadata", {})
    return _Seen(
        before.api_version,
        before.plural,
        metadata.get("uid", before.uid),
        metadata.get("resourceVersion", before.resource_version),
        metadata.get("generation", before.generation),
        document.get("status", {}),
    )


def _older(one: Observed, other: Observed) -> bool:
    """Whether a version came before another; versions that are not numbers cannot be compared."""
    versions = one.resource_version, other.resource_version
    return all(each.isdecimal() for each in versions) and int(versions[0]) < int(versions[1])
