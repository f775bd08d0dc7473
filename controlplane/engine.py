"""The loop's one step: changes of a source in, snapshots and statuses out. All I/O is left to whoever calls it."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from controlplane.api.load import load
from controlplane.api.meta import GATEWAY_GROUP, ObjectKey, Resource
from controlplane.api.version import version_of
from controlplane.compile.check import check
from controlplane.compile.targets import of_document
from controlplane.conditions import ObjectStatus
from controlplane.expansion import Expander
from controlplane.pipeline import Admitted, Pipeline
from controlplane.pipeline.guards import Lingering, Required
from controlplane.pipeline.objects import Verdict
from controlplane.pipeline.policies import is_policy
from controlplane.provision.binding import Bindings, Clash
from controlplane.sources.changes import Changes, Origin, RawObject, SourceFault
from controlplane.translate.services import ServiceTls
from controlplane.xds.identity import GRPC_SUFFIX
from controlplane.xds.resources import Snapshot

Ports = Mapping[str, tuple[tuple[str, ...], tuple[int, ...]]]
"""`NAMESPACE/GATEWAY` → the addresses that it asks for, the ports of its listeners; the oldest Gateway first."""
Bind = Callable[[Ports], Bindings]
Recall = Callable[[Collection[ObjectKey]], Mapping[ObjectKey, Resource]]
"""Returns what was last accepted of objects, by an engine before this one; of those that it knows."""
Told = Callable[[ObjectKey, str, Resource | None], Resource | None]
"""Returns what is to stand in for the refused version (by its digest) of an object; None: what does so far."""
Judge = Callable[[ObjectKey, Resource], Verdict | None]
"""Returns why a version of an object that has no fault of its own is not to be in force; None where it may be."""

LINGER_S = 60.0
"""How long a JWT requirement outlives the last route that names it."""


@dataclass(frozen=True, slots=True)
class Step:
    """What one step did: what is new to publish (None: gone), what is new to say, and how long it took."""

    snapshots: Mapping[str, Snapshot | None]
    statuses: Mapping[ObjectKey, ObjectStatus | None]
    changed: tuple[ObjectKey, ...]
    faults: tuple[SourceFault, ...]
    duration_s: float
    load_s: float = 0.0  # of it, until what the changes say was known: the rest computes what depends on it
    accepted: tuple[ObjectKey, ...] = ()  # whose newest version now stands in for any bad one that follows
    superseded: Mapping[ObjectKey, Resource | None] = field(default_factory=dict[ObjectKey, "Resource | None"])
    """Of those that did not do so before: what did."""


@dataclass(slots=True)
class Engine:
    """Holds the pipeline and what is known of where each object stands. Single-threaded.

    `bind` maps the ports of listeners to addresses; `now` is what certificates are judged by.
    """

    bind: Bind
    now: Callable[[], datetime]
    pipeline: Pipeline = field(default_factory=Pipeline)
    origins: dict[ObjectKey, Origin] = field(default_factory=dict[ObjectKey, "Origin"])
    faults: tuple[SourceFault, ...] = ()
    clashes: tuple[Clash, ...] = ()
    clock: Callable[[], float] = time.monotonic
    recall: Recall | None = None
    told: Told | None = None
    judge: Judge | None = None
    refused: dict[ObjectKey, str] = field(default_factory=dict[ObjectKey, str])
    """The objects whose newest version cannot be in force for what it says, with the digest of that version."""
    ingresses: Expander = field(default_factory=Expander)
    steps: int = 0
    _unsettled: set[ObjectKey] = field(default_factory=set[ObjectKey])
    _required: dict[ObjectKey, frozenset[Required]] = field(default_factory=dict[ObjectKey, "frozenset[Required]"])
    _lingering: dict[Lingering, float] = field(default_factory=dict[Lingering, float])
    _carried_until: float = 0.0

    def __post_init__(self) -> None:
        self.ingresses.accepted = self._last_accepted

    def apply(self, changes: Changes) -> Step:
        """Takes changes of a source into account and recomputes what depends on them.

        Ingresses are joined by what they expand to, which from here on is as if the source had it.
        """
        start = time.perf_counter()
        changes = self.ingresses.take(changes)
        changed = [*self._upsert(changes.upserted), *self._remove(changes.removed)]
        self.faults = changes.faults
        return self._step(changed, start)

    def resolve(self, addresses: Mapping[str, tuple[str, ...]]) -> Step:
        """Takes the addresses of host names into account: host → addresses, none where it has none."""
        start = time.perf_counter()
        for host, found in addresses.items():
            self.pipeline.objects.resolved.set(host, found)
        return self._step([], start)

    def take_key_sets(self, key_sets: Mapping[str, str]) -> Step:
        """Takes fetched JWKS into account: URI → JSON text."""
        start = time.perf_counter()
        for uri, text in key_sets.items():
            self.pipeline.objects.key_sets.set(uri, text)
        return self._step([], start)

    def serve_at(self, endpoints: Mapping[str, tuple[str, ...]]) -> Step:
        """Takes the addresses of the services into account: `dragoman-authz` or `dragoman-ratelimit` → addresses.

        An address is `unix:PATH` or `HOST:PORT`; a service without any is asked in vain.
        """
        start = time.perf_counter()
        for service, addresses in endpoints.items():
            self.pipeline.guards.endpoints.set(service, tuple(addresses))
        return self._step([], start)

    def trust_services(self, tls: Mapping[str, ServiceTls]) -> Step:
        """Takes into account that services are spoken to in TLS, and by what each is known."""
        start = time.perf_counter()
        for service, known_by in tls.items():
            self.pipeline.guards.tls.set(service, known_by)
        return self._step([], start)

    def carry_over(self, before: Mapping[str, bytes]) -> None:
        """Takes in the JWT extensions that Envoys were sent before a restart, by owner.

        Requirements that only these hold linger, for routes in force may still name them.
        """
        for owner, extension in before.items():
            self.pipeline.guards.carried.set(_gateway(owner), extension)
        self._carried_until = self.clock() + LINGER_S

    def reconsider(self, keys: Iterable[ObjectKey]) -> Step:
        """Asks anew what is to stand in for refused objects."""
        start = time.perf_counter()
        return self._step([key for key in keys if key in self.refused], start)

    def rejudge(self, keys: Collection[ObjectKey], standing: Mapping[ObjectKey, Resource | None] | None = None) -> Step:
        """Asks anew whether versions may be in force; `standing` has what is to stand in where they may not be."""
        start = time.perf_counter()
        objects = self.pipeline.objects
        for key, version in (standing or {}).items():
            if version is None:
                objects.accepted.delete(key)
            else:
                objects.accepted.set(key, version)
        for key in keys:
            admitted = objects.peek(key)
            if admitted is not None and admitted.object is not None:
                self._set(key, self._judged(key, replace(admitted, verdict=None)))
        return self._step([*keys], start)

    def age(self) -> Step:
        """Lets go of what has lingered long enough; to be called every few seconds."""
        return self._step([], time.perf_counter())

    def project_for_grpc(self, owner: str, *, wanted: bool) -> Step:
        """Starts or ends the projection of a Gateway (`NAMESPACE/NAME`) for gRPC's own xDS clients."""
        start = time.perf_counter()
        key = _gateway(owner)
        if wanted:
            self.pipeline.grpc.wanted.set(key, None)
        else:
            self.pipeline.grpc.wanted.delete(key)
        return self._step([], start)

    def line_of(self, key: ObjectKey) -> Origin | None:
        """Returns where an object stands in its source."""
        return self.origins.get(key)

    def _last_accepted(self, key: ObjectKey) -> Resource | None:
        accepted = self.pipeline.objects.accepted.peek(key)
        return self.recall([key]).get(key) if accepted is None and self.recall is not None else accepted

    def _upsert(self, objects: Iterable[RawObject]) -> Iterable[ObjectKey]:
        for raw in objects:
            self.origins[raw.key] = raw.origin
            admitted = self._judged(raw.key, self._admit(raw))
            if self._set(raw.key, admitted, raw.document):
                yield raw.key

    def _set(self, key: ObjectKey, admitted: Admitted, document: Mapping[str, object] | None = None) -> bool:
        if admitted.good:
            self.refused.pop(key, None)
        elif document is not None and admitted.verdict is None:
            self.refused[key] = _digest(document)
        elif admitted.verdict is not None:
            self.refused[key] = version_of(admitted.object)
        return self.pipeline.set_object(key, admitted)

    def _judged(self, key: ObjectKey, admitted: Admitted) -> Admitted:
        verdict = self.judge(key, admitted.object) if self.judge is not None and admitted.good else None
        return admitted if verdict is None else replace(admitted, verdict=verdict)

    def _remove(self, keys: Iterable[ObjectKey]) -> Iterable[ObjectKey]:
        for key in keys:
            self.origins.pop(key, None)
            self._unsettled.discard(key)
            self.refused.pop(key, None)
            self.pipeline.delete_object(key)
            yield key

    def _admit(self, raw: RawObject) -> Admitted:
        loaded = load(raw.document)
        if loaded.object is None:
            targets = of_document(raw.document, raw.key.namespace) if is_policy(raw.key) else None
            return Admitted(None, loaded.faults, targets)
        return Admitted(loaded.object, check(loaded.object, now=self.now()))

    def _step(self, changed: list[ObjectKey], start: float) -> Step:
        pipeline = self.pipeline
        load_s = time.perf_counter() - start
        self.steps += 1
        pipeline.graph.stabilise()
        if self._stand_in(changed):
            pipeline.graph.stabilise()
        if any((self._rebind(), self._linger())):
            pipeline.graph.stabilise()
        accepted, superseded = self._accept(changed)
        snapshots = {f"{k.namespace}/{k.name}": s for k, s in pipeline.snapshots.take_changes().items()}
        snapshots |= pipeline.guards.snapshots.take_changes()
        projected = pipeline.grpc.snapshots.take_changes()
        snapshots |= {f"{k.namespace}/{k.name}{GRPC_SUFFIX}": s for k, s in projected.items()}
        statuses = dict(pipeline.statuses.take_changes())
        took_s = time.perf_counter() - start
        return Step(snapshots, statuses, tuple(changed), self.faults, took_s, load_s, accepted, superseded)

    def _linger(self) -> bool:
        """Keeps what came by ECDS past its last reference: Envoys may still have routes that name it."""
        now, lingering = self.clock(), self.pipeline.guards.lingering
        for gateway, required in self.pipeline.guards.required.take_changes().items():
            before = self._required.pop(gateway, frozenset())
            if required is not None:
                self._required[gateway] = required
                self._lingering |= {Lingering(gateway, each): now + LINGER_S for each in before - required}
        over = [each for each, until in self._lingering.items() if until <= now or each.gateway not in self._required]
        for each in over:
            del self._lingering[each]
        gone = [each for each, _ in lingering.items() if each not in self._lingering]
        carried = self.pipeline.guards.carried
        let_go = [key for key, _ in carried.items()] if self._carried_until <= now else []
        return any(
            [
                *[carried.delete(key) for key in let_go],
                *[lingering.delete(each) for each in gone],
                *[lingering.set(each, None) for each in self._lingering],
            ]
        )

    def _rebind(self) -> bool:
        bindings = self.pipeline.bindings
        made = self.bind(self.pipeline.gateway_ports())
        wanted, self.clashes = made.bound, made.clashes
        gone = [key for key, _ in bindings.items() if key not in wanted]
        moved = [bindings.delete(key) for key in gone]
        return any([*moved, *[bindings.set(key, address) for key, address in wanted.items()]])

    def _stand_in(self, changed: Iterable[ObjectKey]) -> bool:
        """Brings back what an engine elsewhere, or before this one, had accepted of objects that cannot be in force."""
        told = [self._take_told(key) for key in changed if key in self.refused] if self.told is not None else []
        if self.recall is None:
            return any(told)
        objects = self.pipeline.objects
        found = [(key, objects.peek(key)) for key in changed if objects.accepted.peek(key) is None]
        bad = [key for key, each in found if each is not None and not (each.good and not self.pipeline.is_waiting(key))]
        recalled = self.recall(bad).items() if bad else ()
        return any([*told, *[objects.accepted.set(key, object_) for key, object_ in recalled]])

    def _take_told(self, key: ObjectKey) -> bool:
        assert self.told is not None
        accepted = self.pipeline.objects.accepted
        found = self.told(key, self.refused[key], accepted.peek(key))
        if found is None or not accepted.set(key, found):
            return False
        changes = self.ingresses.again(key)
        for _ in (*self._upsert(changes.upserted), *self._remove(changes.removed)):
            pass
        return True

    def _accept(self, changed: Iterable[ObjectKey]) -> tuple[tuple[ObjectKey, ...], dict[ObjectKey, Resource | None]]:
        """What is good and in force is what stands in for the object should it turn bad."""
        objects = self.pipeline.objects
        accepted: list[ObjectKey] = []
        superseded: dict[ObjectKey, Resource | None] = {}
        for key in {*changed, *self._unsettled}:
            admitted = objects.peek(key)
            if admitted is None or not admitted.good:
                self._unsettled.discard(key)
            elif self.pipeline.is_waiting(key):
                self._unsettled.add(key)
            else:
                self._unsettled.discard(key)
                before = objects.accepted.peek(key)
                if objects.accepted.set(key, admitted.object):
                    superseded[key] = before
                accepted.append(key)
        return tuple(accepted), superseded


def _gateway(owner: str) -> ObjectKey:
    namespace, _, name = owner.partition("/")
    return ObjectKey(GATEWAY_GROUP, "Gateway", namespace, name)


def _digest(document: Mapping[str, object]) -> str:
    """Tells versions of an object apart, on every replica alike."""
    content = {name: value for name, value in document.items() if name != "status"}
    text = json.dumps(content, sort_keys=True, default=str, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
