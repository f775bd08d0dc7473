"""Applies the documents of one Gateway: only what differs from what is there, and nothing that is somebody else's."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from controlplane.api.meta import ObjectKey
from controlplane.kube.client import Api, ApiError
from controlplane.provision.kubernetes.drift import projected
from controlplane.provision.kubernetes.labels import APPLIED, annotation, is_managed, owner_of
from controlplane.provision.kubernetes.wanted import Document
from controlplane.provision.kubernetes.watching import AUTOSCALER, DEPLOYMENT, Id, Watched, id_of

FIELD_MANAGER: Final = "dragoman"
_REPLICAS_MANAGER: Final = "dragoman-replicas"
_REPAIR_S: Final = 10.0
"""Somebody who keeps changing an object back is not fought more often than this."""

# What pods cannot start without comes before them.
_FIRST: Final = ("ServiceAccount", "ConfigMap", "Service")


class NotOursError(Exception):
    """An object of the name that is needed exists, and belongs to somebody else."""


class Applier:
    """`recheck(key, after_s)` is called where a Gateway is to be looked at again later."""

    def __init__(
        self,
        api: Api,
        watched: Watched,
        *,
        recheck: Callable[[ObjectKey, float], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api = api
        self._watched = watched
        self._recheck = recheck
        self._clock = clock
        # Of each object: the hash of what was applied, what the API server made of it, and when that was.
        self._applied: dict[Id, tuple[str, Any, float]] = {}

    async def apply(self, key: ObjectKey, documents: Sequence[Document]) -> list[Exception]:
        """Brings the objects of a Gateway in line; returns what went wrong, the first first."""
        first = [each for each in documents if each["kind"] in _FIRST]
        then = [each for each in documents if each["kind"] not in _FIRST]
        scaled = any(each["kind"] == AUTOSCALER.kind for each in documents)
        return [*await self._all(key, first, scaled=scaled), *await self._all(key, then, scaled=scaled)]

    async def delete(self, id_: Id, seen: Document) -> None:
        """Deletes an object as it was seen, not another of its name."""
        self._applied.pop(id_, None)
        try:
            await self._api.delete(id_.path, uid=seen["metadata"]["uid"])
        except ApiError as error:
            if not (error.not_found or error.conflict):
                raise

    async def _all(self, key: ObjectKey, documents: Iterable[Document], *, scaled: bool) -> list[Exception]:
        done = await asyncio.gather(*(self._one(key, each, scaled=scaled) for each in documents))
        return [error for error in done if error is not None]

    async def _one(self, key: ObjectKey, document: Document, *, scaled: bool) -> Exception | None:
        id_ = id_of(document)
        wait_s = self._due_in_s(id_, document)
        if wait_s is None:
            return None
        if wait_s > 0:
            self._recheck(key, wait_s)
            return None
        try:
            before = await self._before(key, id_)
            if scaled and id_.kind == DEPLOYMENT and before is not None:
                await self._keep_replicas(id_, before, document)
            answer = await self._api.apply(id_.path, document, field_manager=FIELD_MANAGER)
        except (ApiError, NotOursError) as error:
            return error
        self._applied[id_] = (annotation(document, APPLIED), projected(answer, document), self._clock())
        self._watched.note(id_, answer)
        return None

    def _due_in_s(self, id_: Id, document: Document) -> float | None:
        """Returns when the document is to be applied; None if the object says what it should."""
        wanted, seen = annotation(document, APPLIED), self._watched.get(id_)
        if seen is None or annotation(seen, APPLIED) != wanted:
            return 0.0
        applied, made, at = self._applied.get(id_, ("", None, 0.0))
        now = projected(seen, document)
        if applied != wanted:
            # Applied by who led before: it may be that the API server spells it otherwise, then it is applied again.
            if now != document:
                return 0.0
            self._applied[id_] = (wanted, now, at)
            return None
        return None if now == made else max(0.0, at + _REPAIR_S - self._clock())

    async def _before(self, key: ObjectKey, id_: Id) -> Document | None:
        seen = self._watched.get(id_)
        if seen is None:
            try:
                seen = await self._api.get(id_.path)
            except ApiError as error:
                if error.not_found:
                    return None
                raise
        owner = owner_of(seen)
        if not is_managed(seen) or (owner is not None and owner != key):
            raise NotOursError(f"{id_} exists, and was not made for this Gateway")
        return seen

    async def _keep_replicas(self, id_: Id, before: Document, document: Document) -> None:
        """Hands the number of replicas over to the autoscaler.

        A field that is no longer applied by its only owner falls back to its default: to a single replica, until the
        autoscaler has its say. So it gets another owner first, from whom the autoscaler takes it.
        """
        if "replicas" in document["spec"] or annotation(before, APPLIED) == annotation(document, APPLIED):
            return
        same = {"apiVersion": document["apiVersion"], "kind": document["kind"]}
        name = {"name": id_.name, "namespace": id_.namespace, "resourceVersion": before["metadata"]["resourceVersion"]}
        kept = {**same, "metadata": name, "spec": {"replicas": before["spec"].get("replicas", 1)}}
        await self._api.apply(id_.path, kept, field_manager=_REPLICAS_MANAGER)
