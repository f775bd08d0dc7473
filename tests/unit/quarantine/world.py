"""An engine, a cache and model Envoys that refuse some routes: no network, no clock, every message when a test says."""

from __future__ import annotations

import heapq
import itertools
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from controlplane.api.load import key_of
from controlplane.api.meta import ObjectKey
from controlplane.engine import Engine, Step
from controlplane.provision.binding import bind
from controlplane.quarantine.entry import Bounds
from controlplane.quarantine.quarantine import Quarantine
from controlplane.sources.changes import Changes, Origin, RawObject
from controlplane.xds.cache import Observers, Session, SnapshotCache
from controlplane.xds.events import Deliveries
from controlplane.xds.requests import Request
from controlplane.xds.resources import CLUSTER, ENDPOINT, EXTENSION_CONFIG, LISTENER, ROUTE, Resource, Snapshot
from controlplane.xds.subscription import Outgoing
from tests.support import manifests as m

OWNER = "demo/edge"
BASE = [m.gateway_class(), m.gateway(), m.backend("echo", 8080)]
_MARK = re.compile(rb"/r(\d+)\.v(\d+)\.(good|bad|one|other)")

Mark = tuple[int, int, str]
"""A version of a route: which route, which version, of what kind."""


def document(mark: Mark) -> dict[str, Any]:
    """Returns the manifest of a version of a route."""
    number, version, kind = mark
    return m.route(f"r{number}", [m.to_backend(f"/r{number}.v{version}.{kind}", "echo")])


def marks(resource: Resource) -> set[Mark]:
    """Returns the versions of routes that a resource was made from."""
    return {(int(number), int(version), kind.decode()) for number, version, kind in _MARK.findall(resource.body)}


def refusal(resource: Resource, *, telling: bool) -> str | None:
    """Returns why the model refuses a resource: a bad route, or one and the other together."""
    found = marks(resource)
    bad = [each for each in found if each[2] == "bad"]
    if bad:
        return f"'/r{bad[0][0]}.v{bad[0][1]}.bad' is bad" if telling else "something is wrong"
    return "cannot have both" if {"one", "other"} <= {each[2] for each in found} else None


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Envoy:
    """Takes what it does not refuse; notes every set of routes that it has had in force."""

    node_id: str
    cache: SnapshotCache
    telling: bool = False
    fresh: bool = True
    deaf: bool = False
    held: dict[str, dict[str, Resource]] = field(default_factory=dict[str, dict[str, Resource]])
    asked: dict[str, set[str]] = field(default_factory=dict[str, set[str]])
    history: list[set[Mark]] = field(default_factory=list[set[Mark]])
    rejections: int = 0
    to_server: deque[Request] = field(default_factory=deque[Request])
    to_client: deque[Outgoing] = field(default_factory=deque[Outgoing])
    session: Session = field(init=False)

    def connect(self) -> None:
        self.session = self.cache.attach(OWNER, self.node_id, "delta", lambda: None)
        self.to_server.clear()
        self.to_client.clear()
        for type_url in (CLUSTER, EXTENSION_CONFIG, ENDPOINT, LISTENER, ROUTE):
            if type_url in (CLUSTER, LISTENER) or self.asked.get(type_url):
                held = {name: each.version for name, each in self.held.get(type_url, {}).items()}
                self.to_server.append(
                    Request(type_url, subscribe=sorted(self.asked.get(type_url, ())), initial_versions=held)
                )

    def disconnect(self) -> None:
        self.cache.detach(self.session)

    def move(self) -> bool:
        """Lets one message go either way; returns whether there was one."""
        if self.to_server:
            assert self.cache.handle(self.session, self.to_server.popleft()) is None
            return True
        out = self.cache.next_response(self.session)
        if out is not None:
            self.to_client.append(out)
            return True
        if self.to_client and not self.deaf:
            self._receive(self.to_client.popleft())
            return True
        return False

    @property
    def in_force(self) -> set[Mark]:
        return {mark for each in self.held.get(ROUTE, {}).values() for mark in marks(each)}

    def _receive(self, out: Outgoing) -> None:
        refused = [said for each in out.resources if (said := refusal(each, telling=self.telling)) is not None]
        held = self.held.setdefault(out.type_url, {})
        before = set(held)
        if refused:
            self.rejections += 1
        else:
            held.update({each.name: each for each in out.resources})
        for name in out.removed:
            held.pop(name, None)
        self._follow(out.type_url, held.keys() - before, before - held.keys())
        self.to_server.append(Request(out.type_url, out.nonce, refused[0] if refused else None))
        if out.type_url == ROUTE and (not self.history or self.history[-1] != self.in_force):
            self.history.append(self.in_force)

    def _follow(self, type_url: str, more: set[str], less: set[str]) -> None:
        wanted = {CLUSTER: ENDPOINT, LISTENER: ROUTE}.get(type_url)
        if wanted is None or not (more or less):
            return
        name = {ROUTE: lambda each: each, ENDPOINT: lambda each: each}[wanted]  # A listener is called like its routes.
        asked = self.asked.setdefault(wanted, set())
        first = not asked
        asked |= {name(each) for each in more}
        asked -= less
        for each in less:
            self.held.get(wanted, {}).pop(each, None)
        del first
        self.to_server.append(Request(wanted, subscribe=sorted(more), unsubscribe=sorted(less)))


@dataclass
class World:
    """`apply` what changes, `move` messages as far as is wanted, `settle` at the end."""

    telling: bool = False
    envoys: int = 1
    clock: Clock = field(default_factory=Clock)
    bounds: Bounds = field(default_factory=Bounds)
    engine: Engine = field(init=False)
    cache: SnapshotCache = field(init=False)
    quarantine: Quarantine = field(init=False)
    clients: list[Envoy] = field(init=False)
    published: int = 0
    _due: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list[Any])
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        self.start()
        self.clients = [Envoy(f"envoy-{n}", self.cache, telling=self.telling) for n in range(self.envoys)]

    def start(self) -> None:
        """Starts the control plane, which knows nothing."""
        self._due.clear()
        self.engine = Engine(bind=bind, now=lambda: datetime(2026, 6, 1, tzinfo=UTC), clock=self.clock)
        self.cache = SnapshotCache(clock=self.clock)
        self.quarantine = Quarantine(
            self.engine, self.cache, publish=self._publish, clock=self.clock, later=self._later, bounds=self.bounds
        )
        observers = Observers(
            on_ack=self.quarantine.acked,
            on_nack=self.quarantine.nacked,
            on_settled=self.quarantine.settled,
            on_stream=self.quarantine.came_or_went,
        )
        self.cache.adopt(observers, Deliveries(), lambda: True)

    def connect(self) -> None:
        for each in self.clients:
            each.cache = self.cache
            each.connect()

    def apply(self, documents: Iterable[Mapping[str, Any]], removed: Iterable[ObjectKey] = ()) -> None:
        raws = [RawObject(key, each, Origin("x")) for each in documents if (key := key_of(each)) is not None]
        self._publish(self.engine.apply(Changes(tuple(raws), tuple(removed))))

    def move(self, most: int) -> bool:
        """Lets up to so many things happen; returns whether there is nothing left but to wait."""
        for _ in range(most):
            self.clock.now += 1e-6
            if any(each.move() for each in self.clients):
                continue
            if self._due and self._due[0][0] <= self.clock.now:
                heapq.heappop(self._due)[2]()
                continue
            return True
        return False

    def settle(self) -> None:
        """Lets everything happen, and time pass as long as anybody waits for it."""
        for _ in range(20_000):
            if not self.move(50):
                continue
            if not self.wait():
                return
        raise AssertionError("the world never comes to rest")

    def wait(self) -> bool:
        """Lets time pass until somebody has waited long enough; returns whether anybody waits."""
        if self._due:
            self.clock.now = max(self.clock.now, self._due[0][0])
        return bool(self._due)

    def routes(self) -> bytes:
        """Returns all that Envoys are sent of routes."""
        return b"".join(each.body for each in self.served().of_type(ROUTE).values())

    def served(self) -> Snapshot:
        found = self.cache.published(OWNER)
        assert found is not None
        return found

    @property
    def quarantined(self) -> set[str]:
        return {key.name for key in self.quarantine.entries}

    def said(self, name: str) -> str:
        """Returns what is said of a route."""
        for key, status in self.engine.pipeline.statuses.current().items():
            if key.name == name:
                everything = [*status.conditions, *(c for parent in status.parents for c in parent.conditions)]
                return " ".join(each.message for each in everything)
        raise AssertionError(f"nothing is said of {name}")

    def _publish(self, step: Step) -> None:
        self.published += 1
        self.clock.now += 1e-6
        self.cache.publish({owner: each for owner, each in step.snapshots.items() if each is not None})
        self.cache.complete()
        self.quarantine.stepped(step)

    def _later(self, delay_s: float, call: Callable[[], None]) -> None:
        heapq.heappush(self._due, (self.clock.now + delay_s, next(self._numbers), call))
