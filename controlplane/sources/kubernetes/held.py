"""Secrets and ConfigMaps: metadata of all of them come by, and only what is referred to is fetched and held."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Any, Final

from controlplane.api.meta import ObjectKey
from controlplane.kube.backoff import Backoff
from controlplane.kube.client import Api, ApiError
from controlplane.sources.kubernetes.collection import OnState
from controlplane.sources.kubernetes.outbox import Entry, Outbox, digest
from controlplane.sources.kubernetes.resources import Resource

_log = logging.getLogger(__name__)

_PATIENT_TRIES: Final = 5


class Held:
    """The objects of one kind that others refer to: `want` and `drop` say which."""

    def __init__(self, api: Api, resource: Resource, *, outbox: Outbox, may_read: Callable[[str], bool]) -> None:
        self._api = api
        self._resource = resource
        self._outbox = outbox
        self._may_read = may_read
        self.wanted: dict[ObjectKey, Entry | None] = {}
        """None: it does not exist, or nothing is known yet."""
        self._answered: set[ObjectKey] = set()
        self._fetching: dict[ObjectKey, asyncio.Task[None]] = {}
        self._again: set[ObjectKey] = set()

    def is_answered(self, key: ObjectKey) -> bool:
        """Whether it is known of something wanted that it exists, or that it does not."""
        return key in self._answered

    def want(self, key: ObjectKey) -> None:
        """Something refers to this now."""
        self.wanted[key] = None
        if self._may_read(key.namespace):
            self._fetch(key)
        else:
            self._answered.add(key)

    def drop(self, key: ObjectKey) -> None:
        """Nothing refers to this any more."""
        entry = self.wanted.pop(key)
        self._answered.discard(key)
        self._again.discard(key)
        task = self._fetching.pop(key, None)
        if task is not None:
            task.cancel()
        if entry is not None:
            self._outbox.remove(key, entry)

    def look(self, key: ObjectKey, version: str | None) -> None:
        """There is news of something that may be wanted: it has this version; None: it has been deleted.

        That is not taken for granted: what was fetched may be newer than the news.
        """
        if key in self.wanted:
            entry = self.wanted[key]
            known = entry.version if entry is not None else None
            if known != version or key in self._fetching:
                self._fetch(key)

    async def close(self) -> None:
        """Ends all fetching."""
        tasks = list(self._fetching.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _fetch(self, key: ObjectKey) -> None:
        if key in self._fetching:
            self._again.add(key)
            return
        task = asyncio.create_task(self._keep_fetching(key), name=f"fetch {key}")
        self._fetching[key] = task

    async def _keep_fetching(self, key: ObjectKey) -> None:
        backoff = Backoff()
        while True:
            self._again.discard(key)
            try:
                document = await self._get(key)
            except ApiError as error:
                _log.log(logging.WARNING if backoff.tries == _PATIENT_TRIES else logging.DEBUG, "%s: %s", key, error)
                await asyncio.sleep(backoff.next_s(error))
                continue
            # Events that came meanwhile may tell of something newer than what was read.
            if key not in self._again:
                break
        del self._fetching[key]
        self._take(key, document)

    async def _get(self, key: ObjectKey) -> dict[str, Any] | None:
        try:
            return await self._api.get(self._resource.path(key.namespace, key.name))
        except ApiError as error:
            if error.forbidden:
                _log.warning("%s cannot be read: %s", key, error)
            if error.forbidden or error.not_found:
                return None
            raise

    def _take(self, key: ObjectKey, document: dict[str, Any] | None) -> None:
        entry = self.wanted[key]
        self._answered.add(key)
        if document is None:
            self.wanted[key] = None
            if entry is not None:
                self._outbox.remove(key, entry)
        else:
            self._upsert(key, document, entry)
        # Something may have waited for this very answer.
        self._outbox.wake()

    def _upsert(self, key: ObjectKey, document: dict[str, Any], entry: Entry | None) -> None:
        metadata = document["metadata"]
        metadata.pop("managedFields", None)
        version = metadata.pop("resourceVersion", "")
        document["apiVersion"], document["kind"] = self._resource.api_version, self._resource.kind
        now = digest(document)
        if entry is None:
            entry = self.wanted[key] = Entry()
        changed = entry.digest != now
        entry.version, entry.digest = version, now
        if changed:
            self._outbox.upsert(key, document, entry)


class Metadata:
    """A listwatch.Sink for the metadata of such objects, in one namespace or everywhere."""

    def __init__(self, resource: Resource, held: Held, *, namespace: str, on_state: OnState) -> None:
        self.resource = resource
        self._held = held
        self._namespace = namespace
        self._on_state = on_state
        self._listed: set[ObjectKey] = set()

    def begin(self) -> None:
        """A list begins."""
        self._listed = set()

    def page(self, items: Iterable[dict[str, Any]]) -> None:
        """Takes a part of the list."""
        for document in items:
            key, version = self._read(document)
            if key in self._held.wanted:
                self._listed.add(key)
                self._held.look(key, version)

    def end(self) -> None:
        """The list is whole: what is not on it does not exist."""
        for key in self._held.wanted.keys() - self._listed:
            if self._namespace in ("", key.namespace):
                self._held.look(key, None)
        self._listed = set()

    def changed(self, type_: str, document: dict[str, Any]) -> None:
        """Takes an event of a watch."""
        key, version = self._read(document)
        self._held.look(key, None if type_ == "DELETED" else version)

    def failed(self, error: ApiError) -> None:
        """What is known stays."""
        self._on_state(error)

    def well(self) -> None:
        """Events come."""
        self._on_state(None)

    def _read(self, document: dict[str, Any]) -> tuple[ObjectKey, str]:
        metadata = document["metadata"]
        key = ObjectKey(self.resource.group, self.resource.kind, metadata["namespace"], metadata["name"])
        return key, metadata.get("resourceVersion", "")
