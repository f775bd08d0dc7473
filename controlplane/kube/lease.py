"""Who leads among replicas: a Lease that one of them holds and renews (coordination.k8s.io)."""

from __future__ import annotations

import asyncio
import logging
import math
import random
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Protocol, cast

from controlplane.kube.errors import ApiError
from controlplane.kube.paths import path_of

_log = logging.getLogger(__name__)

ADDRESS_ANNOTATION: Final = "dragoman.dev/address"
_GROUP: Final = "coordination.k8s.io"
_RELEASE_S: Final = 2.0

Document = dict[str, Any]


class Leases(Protocol):
    """What an election needs of the API client."""

    async def get(self, path: str) -> Document: ...
    async def create(self, path: str, document: Mapping[str, Any]) -> Document: ...
    async def replace(self, path: str, document: Mapping[str, Any]) -> Document: ...


@dataclass(frozen=True, slots=True)
class LeaseTiming:
    """A holder that has not renewed for `renew_within_s` leads no more; nobody else leads before `lease_s`."""

    lease_s: float = 15.0
    renew_within_s: float = 10.0
    retry_s: float = 2.0

    def __post_init__(self) -> None:
        if not self.lease_s > self.renew_within_s > self.retry_s > 0:
            raise ValueError("a lease must last longer than its renewal may take, and that longer than a retry")


@dataclass(frozen=True, slots=True)
class Holder:
    """Who leads, and where it is reached ("" where it does not say)."""

    identity: str
    address: str


def identity_of(pod: str) -> str:
    """Returns an identity that no other process has, not even the next one of the same pod."""
    return f"{pod}_{secrets.token_hex(4)}"


class Election:
    """One candidate. At most one candidate of a Lease leads at any time, whatever their wall clocks say.

    A candidate trusts only its own monotonic clock: it leads for `renew_within_s` from the moment at which it *sent* a
    renewal that succeeded, and takes the Lease over when it has *seen* the record unchanged for as long as the record
    says that it lasts; from the process that was before it in its own pod, at once. `on_change` is called on the event
    loop with what `leading` has become.
    """

    def __init__(
        self,
        api: Leases,
        *,
        namespace: str,
        name: str,
        identity: str,
        address: str = "",
        on_change: Callable[[bool], None] = lambda leading: None,
        timing: LeaseTiming | None = None,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._api = api
        self._collection = path_of(_GROUP, "v1", "leases", namespace)
        self._path = path_of(_GROUP, "v1", "leases", namespace, name)
        self._metadata = {"namespace": namespace, "name": name}
        self._identity = identity
        self._address = address
        self._on_change = on_change
        self._timing = timing or LeaseTiming()
        self._clock = clock
        self._now = now
        self._jitter = jitter
        self._until = -math.inf
        self._told = False
        self._may_hold = False  # a write may have made us the holder, whether or not it was answered
        self._seen: _Record | None = None
        self._seen_at = -math.inf

    @property
    def leading(self) -> bool:
        """Whether this candidate leads; True no longer than it is certain that no other does."""
        return self._clock() < self._until

    @property
    def holder(self) -> Holder | None:
        """Who leads as far as this candidate has seen; None where nobody does."""
        if self.leading:
            return Holder(self._identity, self._address)
        seen = self._seen
        return None if seen is None or self._free(seen) else Holder(seen.holder, seen.address)

    async def look(self) -> Holder | None:
        """Reads who leads, without standing for it; raises ApiError and TimeoutError."""
        async with asyncio.timeout(self._timing.retry_s):
            await self._read()
        return self.holder

    async def run(self) -> None:
        """Stands for election until cancelled; then lets go of the Lease, so that another takes over at once."""
        try:
            while True:
                wait_s = await self._round()
                await asyncio.sleep(wait_s)
        finally:
            self._until = -math.inf
            self._tell()
            if self._may_hold:
                await self._release()

    async def _round(self) -> float:
        """Tries once to get or to keep the Lease; returns in how many seconds to try again."""
        began = self._clock()
        within_s = self._timing.renew_within_s / 2
        if self.leading:
            within_s = min(within_s, self._until - began)
        try:
            async with asyncio.timeout(within_s):
                await self._try(began)
        except (ApiError, TimeoutError) as error:
            _log.warning("the Lease %s cannot be had: %s", self._path, str(error) or "no answer in time")
        self._tell()
        if self.leading:
            return max(0.0, min(self._timing.retry_s, self._until - self._clock()))
        # Candidates that began together shall not ask together.
        return self._timing.retry_s * (1 + 0.2 * self._jitter())

    async def _try(self, began: float) -> None:
        seen = self._seen
        if self.leading and seen is not None and seen.holder == self._identity:
            try:
                await self._take(began, seen)
                return
            except ApiError as error:
                if not (error.conflict or error.not_found):
                    raise
        found = await self._read()
        if found is None:
            await self._create(began)
        elif found.holder == self._identity or self._free(found):
            await self._take(began, found)
        else:
            # Somebody else holds it, whatever we thought.
            self._until = -math.inf
            self._may_hold = False

    async def _read(self) -> _Record | None:
        try:
            document = await self._api.get(self._path)
        except ApiError as error:
            if not error.not_found:
                raise
            return None
        self._observe(document)
        return self._seen

    async def _create(self, began: float) -> None:
        if self._seen is not None and self._seen.holder != self._identity and not self._free(self._seen):
            # Somebody has deleted the Lease; its holder does not know yet.
            return
        document = self._document({"metadata": dict(self._metadata)}, took_over=True)
        self._may_hold = True
        try:
            self._observe(await self._api.create(self._collection, document))
        except ApiError as error:
            if not error.exists:
                raise
            return
        self._until = began + self._timing.renew_within_s

    async def _take(self, began: float, found: _Record) -> None:
        document = self._document(found.document, took_over=found.holder != self._identity)
        self._may_hold = True
        try:
            self._observe(await self._api.replace(self._path, document))
        except ApiError as error:
            if error.conflict and not self.leading:
                return  # Somebody else was faster.
            raise
        self._until = began + self._timing.renew_within_s

    async def _release(self) -> None:
        try:
            async with asyncio.timeout(_RELEASE_S):
                found = await self._read()
                if found is not None and found.holder == self._identity:
                    await self._api.replace(self._path, self._released(found.document))
        except (ApiError, TimeoutError) as error:
            _log.warning("the Lease %s was not let go of: %s", self._path, str(error) or "no answer in time")

    def _document(self, before: Mapping[str, Any], *, took_over: bool) -> Document:
        now = self._now().astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = dict(before.get("spec") or {})
        spec |= {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": math.ceil(self._timing.lease_s),
            "renewTime": now,
        }
        if took_over:
            spec["acquireTime"] = now
            spec["leaseTransitions"] = int(spec.get("leaseTransitions") or 0) + ("spec" in before)
        return {
            "apiVersion": f"{_GROUP}/v1",
            "kind": "Lease",
            "metadata": _annotated(before["metadata"], self._address),
            "spec": spec,
        }

    def _released(self, before: Mapping[str, Any]) -> Document:
        spec = {**before["spec"], "holderIdentity": "", "leaseDurationSeconds": 1}
        return {**before, "metadata": _annotated(before["metadata"], ""), "spec": spec}

    def _observe(self, document: Document) -> None:
        found = _Record.of(document)
        if self._seen is None or found.document["spec"] != self._seen.document["spec"]:
            self._seen_at = self._clock()
            if self._seen is None or self._seen.holder != found.holder:
                _log.info("the Lease %s is held by %s", self._path, found.holder or "nobody")
        self._seen = found

    def _free(self, record: _Record) -> bool:
        lasts_s = record.lasts_s or self._timing.lease_s
        return not record.holder or self._succeeds(record) or self._clock() >= self._seen_at + lasts_s

    def _succeeds(self, record: _Record) -> bool:
        """Whether its holder was the process before this one: in the same pod, and reached where this one is.

        That one has ended: no container is started again before it has.
        """
        pod, _, process = self._identity.rpartition("_")
        held_by, _, holder = record.holder.rpartition("_")
        same_place = self._address != "" and self._address == record.address
        return same_place and pod != "" and pod == held_by and process != holder

    def _tell(self) -> None:
        leading = self.leading
        if leading == self._told:
            return
        self._told = leading
        _log.info("%s %s", self._identity, "leads" if leading else "leads no more")
        try:
            self._on_change(leading)
        except Exception:
            _log.exception("a change of leader was not taken in")


@dataclass(frozen=True, slots=True)
class _Record:
    """A Lease as it was seen."""

    holder: str
    address: str
    lasts_s: float
    document: Document

    @staticmethod
    def of(document: Document) -> _Record:
        spec = cast("Document", document.get("spec") or {})
        annotations = cast("dict[str, str]", document["metadata"].get("annotations") or {})
        return _Record(
            holder=str(spec.get("holderIdentity") or ""),
            address=annotations.get(ADDRESS_ANNOTATION, ""),
            lasts_s=float(spec.get("leaseDurationSeconds") or 0),
            document={**document, "spec": spec},
        )


def _annotated(metadata: Mapping[str, Any], address: str) -> Document:
    annotations: dict[str, str] = {**(metadata.get("annotations") or {})}
    annotations.pop(ADDRESS_ANNOTATION, None)
    if address:
        annotations[ADDRESS_ANNOTATION] = address
    return {**metadata, "annotations": annotations}
