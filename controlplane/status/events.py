"""Tells what is wrong with objects that have no conditions, as Events: each thing once, by the leader alone."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from controlplane.api.meta import ObjectKey
from controlplane.conditions import Condition
from controlplane.kube.errors import ApiError
from controlplane.kube.paths import path_of
from controlplane.status.encode import Observed
from controlplane.status.queue import KeyQueue, Later

_log = logging.getLogger(__name__)

_CONTROLLER: Final = "dragoman.dev/ingress-controller"
_MAX_NOTE: Final = 1024
_MAX_NAME: Final = 200
_MAX_EVENTS: Final = 16
"""How many are told of one object at a time."""
_MAX_TOLD: Final = 10_000
"""Of how many objects it is remembered what they were told."""
# What is applied together comes in any order: a Secret that is not there yet is no news.
_SETTLE_S: Final = 1.0
_RETRY_S: Final = 10.0

Wrong = Callable[[ObjectKey], Iterable[Condition]]
"""Returns what is wrong with an object as things stand."""


class Creates(Protocol):
    """What the writer needs of the API client."""

    async def create(self, path: str, document: Mapping[str, Any]) -> Mapping[str, Any]: ...


class EventWriter:
    """Writes Events while it leads. `lead` and `enqueue` are called on the event loop."""

    def __init__(
        self,
        api: Creates,
        *,
        wrong: Wrong,
        observed: Callable[[ObjectKey], Observed | None],
        keys: Callable[[], Iterable[ObjectKey]],
        leading: Callable[[], bool],
        instance: str,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        later: Later | None = None,
    ) -> None:
        """`keys` are all objects that Events are written about; `instance` is who writes them."""
        self._api = api
        self._wrong = wrong
        self._observed = observed
        self._keys = keys
        self._leading = leading
        self._instance = instance
        self._now = now
        self._queue = KeyQueue(later)
        self._settling: set[ObjectKey] = set()
        self._told: dict[ObjectKey, frozenset[str]] = {}

    def enqueue(self, keys: Iterable[ObjectKey]) -> None:
        """Has objects looked at: what is wrong with them may have changed."""
        if self._leading():
            self._queue.put(keys)

    def lead(self, leading: bool) -> None:
        """Takes up everything, or lets go of it. What is there already is not told twice: its name is taken."""
        self._queue.clear()
        self._settling.clear()
        self._told.clear()
        if leading:
            self._queue.put(self._keys())

    async def run(self) -> None:
        """Writes until cancelled, one after another."""
        while True:
            key = await self._queue.take()
            again_in_s: float | None = _SETTLE_S
            try:
                if key in self._settling:
                    self._settling.discard(key)
                    again_in_s = await self._tell(key)
                else:
                    self._settling.add(key)
            except Exception:
                again_in_s = None
                _log.exception("what is wrong with %s cannot be told", key)
            finally:
                self._queue.done(key, again_in_s=again_in_s)

    async def _tell(self, key: ObjectKey) -> float | None:
        """Writes what is new; returns in how many seconds to try again, None if nothing is left."""
        observed = self._observed(key)
        wrong = {_digest(observed.uid, each): each for each in self._wrong(key)} if observed is not None else {}
        before = self._told.pop(key, frozenset())
        told = {digest for digest in wrong if digest in before}
        again_in_s: float | None = None
        for digest in [each for each in wrong if each not in before][:_MAX_EVENTS]:
            if observed is None or not self._leading():
                break
            try:
                await self._api.create(_path(key), self._document(key, observed, digest, wrong[digest]))
            except ApiError as error:
                if error.status != 409 and not error.forbidden and not error.not_found:
                    _log.warning("an Event about %s cannot be written: %s", key, error)
                    again_in_s = _RETRY_S
                    break
            told.add(digest)
        if told:
            self._told[key] = frozenset(told)
            if len(self._told) > _MAX_TOLD:
                del self._told[next(iter(self._told))]
        if again_in_s is not None:
            self._settling.add(key)
        return again_in_s

    def _document(self, key: ObjectKey, observed: Observed, digest: str, condition: Condition) -> Mapping[str, Any]:
        note = f"{condition.field}: {condition.message}" if condition.field else condition.message
        return {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"namespace": key.namespace, "name": f"{key.name[:_MAX_NAME].rstrip('.-')}.{digest}"},
            "eventTime": self._now().astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "reportingController": _CONTROLLER,
            "reportingInstance": self._instance[:128],
            "action": "Expand",
            "type": "Warning",
            "reason": condition.reason,
            "note": note[:_MAX_NOTE],
            "regarding": {
                "apiVersion": observed.api_version,
                "kind": key.kind,
                "namespace": key.namespace,
                "name": key.name,
                "uid": observed.uid,
            },
        }


def _path(key: ObjectKey) -> str:
    return path_of("events.k8s.io", "v1", "events", key.namespace)


def _digest(uid: str, condition: Condition) -> str:
    said = f"{uid} {condition.reason} {condition.field} {condition.message}"
    return hashlib.blake2b(said.encode(), digest_size=8).hexdigest()
