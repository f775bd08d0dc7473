"""Keeps up with one collection of the API: lists it, watches it from there, and lists again where history is lost."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Protocol

from controlplane.kube.backoff import Backoff
from controlplane.kube.client import Api, ApiError, error_of_status

_log = logging.getLogger(__name__)

_PARTIAL: Final = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
_PARTIAL_LIST: Final = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
_EVENTS: Final = frozenset({"ADDED", "MODIFIED", "DELETED"})
# A watch that ends sooner, without a word, is not asked for again at once.
_SHORT_S: Final = 1.0
_STEADY_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Pace:
    """How much is asked for at once, and how patiently: numbers that suit an API server; tests have others."""

    page: int = 500
    """Objects that a list asks for at once."""
    watch_s: int = 300
    """How long a watch lasts before it is asked for anew, about."""
    silence_s: float | None = None
    """How long a watch may say nothing; as long as it lasts, and a little more, where this is not told."""
    first_wait_s: float = 0.1
    """Before something that failed is tried again; doubled each time."""
    longest_wait_s: float = 10.0
    forbidden_wait_s: float = 30.0
    """At most, before something that is not permitted is tried again."""


class Sink(Protocol):
    """Whom it is told: a list from `begin` to `end`, page by page (a list that fails begins anew), then events."""

    def begin(self) -> None: ...
    def page(self, items: Iterable[dict[str, Any]]) -> None: ...
    def end(self) -> None: ...
    def changed(self, type_: str, document: dict[str, Any]) -> None: ...
    def failed(self, error: ApiError) -> None: ...
    def well(self) -> None: ...


class ListWatch:
    """`run()` until cancelled. The sink may take documents apart: they are not used again.

    `selecting` are parameters by which only some of the collection's objects are asked for.
    """

    def __init__(
        self,
        api: Api,
        path: str,
        sink: Sink,
        *,
        metadata_only: bool = False,
        selecting: Mapping[str, str] = MappingProxyType({}),
        pace: Pace | None = None,
    ) -> None:
        self._api = api
        self._path = path
        self._sink = sink
        self._metadata_only = metadata_only
        self._selecting = selecting
        self._pace = pace = pace or Pace()
        self._backoff = Backoff(first_s=pace.first_wait_s, longest_s=pace.longest_wait_s)
        self._version: str | None = None
        self._behind = 0

    async def run(self) -> None:
        """Lists, then watches, over and over; what fails is told and tried again after a while."""
        while True:
            try:
                if self._version is None:
                    await self._list()
                await self._watch()
            except ApiError as error:
                await self._recover(error)
            except Exception as error:
                # A fault of ours with something that came: a list sets right what was missed.
                _log.exception("%s", self._path)
                self._version = None
                await self._recover(ApiError(0, "Malformed", f"{self._path}: {error}"))

    async def _recover(self, error: ApiError) -> None:
        if error.gone or error.reason in ("Expired", "Malformed"):
            self._version = None
        first_loss = error.gone and self._backoff.tries == 0
        if not error.gone:
            self._sink.failed(error)
        longest_s = self._pace.forbidden_wait_s if error.forbidden else None
        wait_s = self._backoff.next_s(error, longest_s=longest_s)
        if not first_loss:
            await asyncio.sleep(wait_s)

    async def _list(self) -> None:
        self._sink.begin()
        # No resourceVersion is asked for: the list is of now, not of some cache that may be behind what we know.
        answer = await self._page("")
        version = str(answer["metadata"]["resourceVersion"])
        while following := answer["metadata"].get("continue"):
            # The API server works on the next page while this one is looked at.
            coming = asyncio.create_task(self._page(following))
            try:
                await asyncio.sleep(0)
                self._sink.page(answer["items"])
                answer = await coming
            finally:
                coming.cancel()
        self._sink.page(answer["items"] or ())
        self._sink.end()
        self._sink.well()
        self._version = version

    async def _page(self, following: str) -> dict[str, Any]:
        params = {"limit": str(self._pace.page), **self._selecting, **({"continue": following} if following else {})}
        accept = _PARTIAL_LIST if self._metadata_only else None
        return await self._api.get(self._path, params=params, accept=accept)

    async def _watch(self) -> None:
        began, version = time.monotonic(), self._version
        self._behind = 0
        # Not all at the same time: they would all be asked for anew at the same time, too.
        lasts_s = max(1, int(self._pace.watch_s * random.uniform(0.8, 1.2)))  # noqa: S311
        params = {
            **self._selecting,
            "resourceVersion": version or "",
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(lasts_s),
        }
        accept = _PARTIAL if self._metadata_only else None
        lines = self._api.lines(
            self._path, params=params, accept=accept, silence_s=self._pace.silence_s, on_open=self._sink.well
        )
        async with contextlib.aclosing(lines):
            async for line in lines:
                self._take(self._parse(line))
                if self._backoff.tries and time.monotonic() - began > _STEADY_S:
                    self._backoff.reset()
        lasted_s = time.monotonic() - began
        if lasted_s > _STEADY_S:
            self._backoff.reset()
        elif lasted_s < _SHORT_S and self._version == version:
            await asyncio.sleep(self._backoff.next_s())

    def _parse(self, line: bytes) -> tuple[str, dict[str, Any], str]:
        """Returns type, object and version of an event."""
        try:
            event = json.loads(line)
            type_, document = event["type"], event["object"]
            if type_ == "ERROR":
                raise error_of_status(document)
            return type_, document, str(document["metadata"]["resourceVersion"])
        except (ValueError, KeyError, TypeError, RecursionError):
            raise ApiError(0, "Malformed", f"{self._path}: an event that cannot be read") from None

    def _take(self, event: tuple[str, dict[str, Any], str]) -> None:
        type_, document, version = event
        if type_ == "BOOKMARK":
            self._mark(version)
        elif type_ in _EVENTS:
            # Only what was taken is behind us: should it fail, a list sets it right.
            self._sink.changed(type_, document)
            self._version = version

    def _mark(self, version: str) -> None:
        """Takes a bookmark. One that leads back is not followed; if another does, history is not what it was."""
        if _is_before(version, self._version):
            self._behind += 1
            if self._behind > 1:
                raise ApiError(410, "Gone", f"{self._path}: the API server is at {version}, and was at {self._version}")
            return
        self._behind = 0
        self._version = version


def _is_before(version: str, other: str | None) -> bool:
    # Elsewhere opaque, here only a doubt: a needless list is the worst that comes of it.
    return other is not None and version.isdecimal() and other.isdecimal() and int(version) < int(other)
