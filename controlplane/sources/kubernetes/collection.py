"""All objects of one kind, in one namespace or everywhere: what is told of them, compared with what is known."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any, Final

from controlplane.api.meta import ObjectKey
from controlplane.kube.client import ApiError
from controlplane.sources.kubernetes.observed import see
from controlplane.sources.kubernetes.outbox import Entry, Outbox, digest
from controlplane.sources.kubernetes.references import references, refers
from controlplane.sources.kubernetes.resources import Resource, has_status

_NO_REFERENCES: Final[frozenset[ObjectKey]] = frozenset()
OnState = Callable[[ApiError | None], None]
"""Hears of each failure, and with None that there is none any more."""


class Collection:
    """A listwatch.Sink that puts what changed into the outbox."""

    def __init__(self, resource: Resource, *, outbox: Outbox, on_state: OnState) -> None:
        self.resource = resource
        self.entries: dict[ObjectKey, Entry] = {}
        self._outbox = outbox
        self._on_state = on_state
        self._has_status = has_status((resource.group, resource.kind))
        self._refers = refers((resource.group, resource.kind))
        self._listed: set[ObjectKey] = set()

    def convert(self, resource: Resource) -> None:
        """Has the objects from now on in another version of the API."""
        self.resource = resource
        for entry in self.entries.values():
            entry.version = ""

    def begin(self) -> None:
        """A list begins."""
        self._listed = set()

    def page(self, items: Iterable[dict[str, Any]]) -> None:
        """Takes a part of the list."""
        for document in items:
            key = self._key(document)
            self._listed.add(key)
            self._upsert(key, document)

    def end(self) -> None:
        """The list is whole: what is not on it is gone."""
        for key in [key for key in self.entries if key not in self._listed]:
            self._remove(key)
        self._listed = set()

    def changed(self, type_: str, document: dict[str, Any]) -> None:
        """Takes an event of a watch."""
        key = self._key(document)
        if type_ == "DELETED":
            self._remove(key)
        else:
            self._upsert(key, document)

    def clear(self) -> None:
        """All objects are gone."""
        for key in list(self.entries):
            self._remove(key)

    def failed(self, error: ApiError) -> None:
        """What is known stays."""
        self._on_state(error)

    def well(self) -> None:
        """Events come."""
        self._on_state(None)

    def _key(self, document: dict[str, Any]) -> ObjectKey:
        metadata = document["metadata"]
        # One copy of each namespace's name is enough.
        namespace = sys.intern(metadata.get("namespace", "")) if self.resource.namespaced else ""
        return ObjectKey(self.resource.group, self.resource.kind, namespace, metadata["name"])

    def _upsert(self, key: ObjectKey, document: dict[str, Any]) -> None:
        metadata = document["metadata"]
        version = metadata.pop("resourceVersion", "")
        entry = self.entries.get(key)
        if entry is not None and entry.version == version:
            return
        metadata.pop("managedFields", None)
        status = document.pop("status", None)
        # Items of lists of built-in kinds do not say what they are.
        document["apiVersion"], document["kind"] = self.resource.api_version, self.resource.kind
        now = digest(document)
        if entry is None:
            entry = self.entries[key] = Entry()
        seen = see(metadata, version, status) if self._has_status else None
        changed = entry.digest != now
        entry.version, entry.digest = version, now
        if changed:
            needs = references(document) if self._refers else _NO_REFERENCES
            self._outbox.upsert(key, document, entry, seen=seen, needs=needs)
        elif seen is not None:
            self._outbox.observe(key, entry, seen)

    def _remove(self, key: ObjectKey) -> None:
        entry = self.entries.pop(key, None)
        if entry is not None:
            self._outbox.remove(key, entry)
