"""Which kinds are served by now: looks again when CustomResourceDefinitions come, change and go."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final

from controlplane.api.meta import GATEWAY_GROUP
from controlplane.kube.backoff import Backoff
from controlplane.kube.client import Api, ApiError, path_of
from controlplane.kube.listwatch import ListWatch
from controlplane.sources.kubernetes.collection import OnState
from controlplane.sources.kubernetes.discovery import Discovered, discover
from controlplane.sources.kubernetes.resources import BUILT_IN, Kind, Resource
from controlplane.sources.kubernetes.tuning import Tuning

_log = logging.getLogger(__name__)

_NAME: Final = "customresourcedefinitions"
_DEFINITIONS: Final = path_of("apiextensions.k8s.io", "v1", _NAME)
_BUNDLE_VERSION: Final = f"{GATEWAY_GROUP}/bundle-version"
_ABSENT_S: Final = 30.0
"""How long a kind must be missing before it counts as gone, where its definition cannot be looked at."""

_ECHO_S: Final = 2.0
"""What is served changes a moment after the definition did."""

OnServed = Callable[[Mapping[Kind, Resource]], None]
OnNamedState = Callable[[str, ApiError | None], None]


class Definitions:
    """A listwatch.Sink for the metadata of CustomResourceDefinitions: their names, `PLURAL.GROUP`."""

    def __init__(self, groups: frozenset[str], *, on_change: Callable[[], None], on_state: OnState) -> None:
        self.names: set[str] | None = None
        """None while unknown."""
        self.versions: dict[str, str] = {}
        """Of those of Gateway API: the release that each is of, by name."""
        self.answered = asyncio.Event()
        self._groups = groups
        self._on_change = on_change
        self._on_state = on_state
        self._listed: set[str] = set()

    def begin(self) -> None:
        """A list begins."""
        self._listed = set()

    def page(self, items: Iterable[dict[str, Any]]) -> None:
        """Takes a part of the list."""
        for item in items:
            if self._concerns(name := _name(item)):
                self._listed.add(name)
                self._note_version(name, item)

    def end(self) -> None:
        """The list is whole."""
        if self.names != self._listed:
            self.names = self._listed
            self._on_change()
        self.answered.set()

    def changed(self, type_: str, document: dict[str, Any]) -> None:
        """Takes an event of a watch."""
        name = _name(document)
        if not self._concerns(name) or self.names is None:
            return
        if type_ == "DELETED":
            self.names.discard(name)
            self.versions.pop(name, None)
        else:
            self.names.add(name)
            self._note_version(name, document)
        # Versions may be served now that were not before, too.
        self._on_change()

    def failed(self, error: ApiError) -> None:
        """Without permission it is asked for the kinds now and then."""
        if error.forbidden:
            if not self.answered.is_set():
                _log.info("kinds are asked for now and then, as definitions cannot be watched: %s", error.message)
            self.names = None
            self.answered.set()
        else:
            self._on_state(error)

    def well(self) -> None:
        """Events come."""
        self._on_state(None)

    def _note_version(self, name: str, document: dict[str, Any]) -> None:
        if name.endswith(f".{GATEWAY_GROUP}"):
            annotations: Mapping[str, Any] = document["metadata"].get("annotations") or {}
            self.versions[name] = str(annotations.get(_BUNDLE_VERSION, ""))

    def _concerns(self, name: str) -> bool:
        return name.partition(".")[2] in self._groups


class Catalogue:
    """`run()` until cancelled; `on_served` is told all kinds that are served, whenever those change.

    A kind goes only when its definition is gone: an API server that starts may not know of all kinds yet.
    """

    def __init__(
        self,
        api: Api,
        wanted: Mapping[Kind, Sequence[str]],
        *,
        on_served: OnServed,
        on_state: OnNamedState,
        tuning: Tuning,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api = api
        self._wanted = wanted
        self._on_served = on_served
        self._on_state = on_state
        self._tuning = tuning
        self._clock = clock
        self._look = asyncio.Event()
        self._served: dict[Kind, Resource] = {}
        self._absent_since: dict[Kind, float] = {}
        self.settled = False
        """Whether all kinds that are defined have been found, or have been waited for long enough."""
        groups = frozenset(group for group, _ in wanted) - BUILT_IN
        self._echo = False
        self._definitions = Definitions(groups, on_change=self._defined, on_state=partial(on_state, _NAME))

    def _defined(self) -> None:
        self._echo = True
        self._look.set()

    @property
    def versions(self) -> Mapping[str, str] | None:
        """The release that each definition of Gateway API is of, by name; None while that is not known."""
        return self._definitions.versions if self._definitions.names is not None else None

    def look_again(self) -> None:
        """Something hints at a change: a kind that was served is not found."""
        self._look.set()

    async def run(self) -> None:
        """Keeps the kinds current."""
        sink = self._definitions
        watching = ListWatch(self._api, _DEFINITIONS, sink, metadata_only=True, pace=self._tuning)
        task = asyncio.create_task(watching.run(), name=f"watch {_NAME}")
        try:
            await sink.answered.wait()
            while True:
                self._look.clear()
                await self._find_all()
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._next_look_s()):
                        await self._look.wait()
        finally:
            task.cancel()

    async def _find_all(self) -> None:
        """Looks until every kind that is defined is served, or long enough: definitions take a moment to do so."""
        backoff = Backoff(first_s=self._tuning.first_wait_s, longest_s=self._tuning.longest_wait_s)
        until = self._clock() + self._tuning.whole_patience_s
        while True:
            try:
                found = await discover(self._api, self._wanted)
            except ApiError as error:
                self._on_state("kinds", error)
                until = self._clock() + self._tuning.whole_patience_s
                await asyncio.sleep(backoff.next_s(error))
                continue
            self._on_state("kinds", None)
            missing = self._missing(found)
            self.settled = self.settled or not missing or self._clock() >= until
            self._take(found)
            if not missing or self._clock() >= until:
                return
            await asyncio.sleep(backoff.next_s())

    def _missing(self, found: Discovered) -> set[str]:
        missing = (self._definitions.names or set[str]()).difference(found.names)
        built_in = {
            f"{kind}.{group}" for group, kind in self._wanted.keys() - found.resources.keys() if group in BUILT_IN
        }
        return missing | built_in

    def _take(self, found: Discovered) -> None:
        served = dict(found.resources)
        for kind in served:
            self._absent_since.pop(kind, None)
        for kind, resource in self._served.items():
            if kind not in served and not self._is_gone(kind, resource):
                served[kind] = resource
        if served != self._served:
            self._tell(served)
        self._served = served
        # Also when nothing changed: that all has been looked for is news, too.
        self._on_served(served)

    def _is_gone(self, kind: Kind, resource: Resource) -> bool:
        if kind[0] in BUILT_IN:
            return False
        names = self._definitions.names
        if names is not None:
            return resource.name not in names
        return self._clock() - self._absent_since.setdefault(kind, self._clock()) >= _ABSENT_S

    def _next_look_s(self) -> float | None:
        if self._echo:
            self._echo = False
            return _ECHO_S
        if self._absent_since:
            return _ABSENT_S
        return self._tuning.look_again_s if self._definitions.names is None else None

    def _tell(self, served: Mapping[Kind, Resource]) -> None:
        missing: dict[str, list[str]] = {}
        for group, kind in sorted(self._wanted.keys() - served.keys()):
            missing.setdefault(group, []).append(kind)
        for group, kinds in missing.items():
            _log.info("%s is not there, or not all of it: %s will be read when defined", group, ", ".join(kinds))


def _name(document: dict[str, Any]) -> str:
    return str(document["metadata"]["name"])
