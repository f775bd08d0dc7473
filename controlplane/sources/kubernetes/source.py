"""The source `kubernetes`: lists and watches every kind that is read, and hands over what changes."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from controlplane.api.kinds import SERVED, Served
from controlplane.api.meta import ObjectKey
from controlplane.kube.client import Api, ApiError
from controlplane.kube.listwatch import ListWatch
from controlplane.sources.changes import Changes
from controlplane.sources.kubernetes.catalogue import Catalogue
from controlplane.sources.kubernetes.collection import Collection
from controlplane.sources.kubernetes.held import Held, Metadata
from controlplane.sources.kubernetes.observed import Observed, observe
from controlplane.sources.kubernetes.outbox import Outbox
from controlplane.sources.kubernetes.references import References
from controlplane.sources.kubernetes.resources import BY_REFERENCE, Kind, Resource, is_optional
from controlplane.sources.kubernetes.troubles import Troubles
from controlplane.sources.kubernetes.tuning import Tuning

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Reader:
    """What reads one kind, in one namespace or everywhere."""

    name: str
    sink: Collection | Metadata
    synced: bool = False
    """It has been read, or may not be read and one can live with that."""
    task: asyncio.Task[None] | None = field(default=None, repr=False)


class KubernetesSource:
    """The objects of a cluster, of all namespaces or of some. Used on the event loop; `watch` is called once.

    Nothing is handed over before every kind has been read; then all of it at once, then what changes. While the API
    server does not answer, nothing is: what was handed over stays. `on_observed` hears which objects have another
    status, or another version, than they had.
    """

    def __init__(
        self,
        api: Api,
        *,
        namespaces: Sequence[str] = (),
        kinds: Mapping[Kind, Served] = SERVED,
        on_observed: Callable[[Iterable[ObjectKey]], None] = lambda keys: None,
        tuning: Tuning | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.on_observed = on_observed
        self._api = api
        self._namespaces = tuple(dict.fromkeys(namespaces))
        self._tuning = tuning or Tuning()
        self._clock = clock
        self._troubles = Troubles(api.url, clock=clock)
        self._said = self._troubles.faults
        self._wake = asyncio.Event()
        self._whole_by: float | None = None
        self._synced = False
        self._readers: dict[tuple[Kind, str], _Reader] = {}
        self._outbox = Outbox(
            references=References(self._referred),
            is_answered=self._is_answered,
            wake=self._wake.set,
            patience_s=self._tuning.patience_s,
            clock=clock,
        )
        self._held = {
            resource.kind: Held(api, resource, outbox=self._outbox, may_read=self._may_read)
            for resource in BY_REFERENCE
            if (resource.group, resource.kind) in kinds
        }
        self._catalogue = Catalogue(
            api,
            {kind: served.versions for kind, served in kinds.items()},
            on_served=self._serve,
            on_state=self._troubles.note,
            tuning=self._tuning,
            clock=clock,
        )

    @property
    def trouble(self) -> str | None:
        """Words on why this is not current, or not read whole yet; None if all is well."""
        found = self._troubles.text
        if found is not None or self._synced:
            return found
        unread = [reader.name for reader in self._readers.values() if not reader.synced]
        return "not read yet: " + (", ".join(sorted(unread)[:5]) or "which kinds there are")

    @property
    def waiting(self) -> int:
        """How many objects have been read and are yet to be handed over."""
        return self._outbox.waiting

    @property
    def versions(self) -> Mapping[str, str] | None:
        """The release that each CustomResourceDefinition of Gateway API is of, by name; None while not known."""
        return self._catalogue.versions

    def observed(self, key: ObjectKey) -> Observed | None:
        """Returns an object of a kind with a status as the API server has it; None if there is none."""
        for namespace in (key.namespace, "") if self._namespaces else ("",):
            reader = self._readers.get(((key.group, key.kind), namespace))
            if reader is not None and isinstance(reader.sink, Collection):
                entry = reader.sink.entries.get(key)
                return observe(reader.sink.resource, entry.seen) if entry is not None and entry.seen else None
        return None

    def read(self) -> Changes:
        """Nothing yet: an API server is not asked without waiting."""
        return Changes(complete=False)

    async def watch(self, stop: asyncio.Event) -> AsyncGenerator[Changes, None]:
        """First all that there is, as soon as it is known, then what changes, until `stop` is set."""
        tasks = [
            asyncio.create_task(self._catalogue.run(), name="kinds"),
            asyncio.create_task(self._wake_when(stop), name="stop"),
        ]
        try:
            while not stop.is_set():
                timer = self._look_later()
                await self._wake.wait()
                self._wake.clear()
                if timer is not None:
                    timer.cancel()
                if not stop.is_set() and (changes := self._take()) is not None:
                    yield changes
                    self._tell(self._outbox.taken())
        finally:
            await self._end(tasks)

    def _take(self) -> Changes | None:
        if self._synced:
            self._tell(self._outbox.observed())
            faults = self._troubles.faults
            changes = self._outbox.take(faults=faults)
            if changes is None and faults != self._said:
                changes = Changes(faults=faults)
        elif self._is_whole():
            self._synced = True
            faults = self._troubles.faults
            changes = self._outbox.take(faults=faults, everything=True)
        else:
            return None
        self._said = faults
        return changes

    def _is_whole(self) -> bool:
        """Whether every kind has been read, and all that is referred to (for which it does not wait for ever)."""
        if not self._catalogue.settled or not all(reader.synced for reader in self._readers.values()):
            return False
        if self._whole_by is None:
            self._whole_by = self._clock() + self._tuning.whole_patience_s
        return not self._outbox.waits or self._clock() >= self._whole_by

    def _look_later(self) -> asyncio.TimerHandle | None:
        due_s = None if self._whole_by is None else max(0.0, self._whole_by - self._clock())
        if self._synced:
            due_s = self._outbox.due_in_s()
        return None if due_s is None else asyncio.get_running_loop().call_later(due_s, self._wake.set)

    def _tell(self, keys: list[ObjectKey]) -> None:
        if keys:
            self.on_observed(keys)

    async def _wake_when(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._wake.set()

    async def _end(self, tasks: list[asyncio.Task[None]]) -> None:
        tasks += [reader.task for reader in self._readers.values() if reader.task is not None]
        for task in tasks:
            task.cancel()
        for held in self._held.values():
            await held.close()
        await asyncio.gather(*tasks, return_exceptions=True)

    # Kinds

    def _serve(self, resources: Mapping[Kind, Resource]) -> None:
        """Reads these kinds from now on, and no others."""
        wanted: dict[tuple[Kind, str], Resource] = {}
        for kind, resource in resources.items():
            for namespace in self._namespaces if self._namespaces and resource.namespaced else ("",):
                wanted[kind, namespace] = resource
        for place in self._readers.keys() - wanted.keys():
            self._stop(place)
        for place, resource in wanted.items():
            reader = self._readers.get(place)
            if reader is None or reader.sink.resource != resource:
                self._start(place, resource)
        self._wake.set()

    def _start(self, place: tuple[Kind, str], resource: Resource) -> None:
        namespace = place[1]
        before = self._readers.get(place)
        name = f"{resource.name} in {namespace}" if namespace else resource.name
        on_state = partial(self._note, place)
        if before is not None and before.task is not None:
            before.task.cancel()
        if resource in BY_REFERENCE:
            sink = Metadata(resource, self._held[resource.kind], namespace=namespace, on_state=on_state)
        elif before is not None and isinstance(before.sink, Collection):
            sink = before.sink
            sink.convert(resource)
        else:
            sink = Collection(resource, outbox=self._outbox, on_state=on_state)
        reader = self._readers[place] = _Reader(name, sink, synced=before is not None and before.synced)
        path, metadata_only = resource.path(namespace), isinstance(sink, Metadata)
        listwatch = ListWatch(self._api, path, sink, metadata_only=metadata_only, pace=self._tuning)
        reader.task = asyncio.create_task(listwatch.run(), name=f"watch {name}")
        _log.debug("reading %s (%s)", name, resource.api_version)

    def _stop(self, place: tuple[Kind, str]) -> None:
        reader = self._readers.pop(place)
        if reader.task is not None:
            reader.task.cancel()
        if isinstance(reader.sink, Collection):
            reader.sink.clear()
        self._troubles.forget(reader.name)
        _log.info("%s is not there any more", reader.name)

    def _note(self, place: tuple[Kind, str], error: ApiError | None) -> None:
        reader = self._readers.get(place)
        if reader is None:
            return
        optional = is_optional(place[0], namespaces_limited=bool(self._namespaces))
        self._troubles.note(reader.name, error, optional=optional)
        reader.synced = reader.synced or error is None or (error.forbidden and optional)
        if error is None or error.forbidden:
            self._wake.set()
        elif error.not_found:
            self._catalogue.look_again()

    # References

    def _referred(self, key: ObjectKey, wanted: bool) -> None:
        held = self._held.get(key.kind)
        if held is None:
            return
        if wanted:
            held.want(key)
        else:
            held.drop(key)

    def _is_answered(self, key: ObjectKey) -> bool:
        held = self._held.get(key.kind)
        return held is None or held.is_answered(key)

    def _may_read(self, namespace: str) -> bool:
        return not self._namespaces or namespace in self._namespaces
