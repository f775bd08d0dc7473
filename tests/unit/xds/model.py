"""A model Envoy without a network: it has refs from routes to clusters, and complains when one leads nowhere."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Set
from dataclasses import dataclass, field

from controlplane.xds.cache import Session, SnapshotCache
from controlplane.xds.events import Protocol
from controlplane.xds.requests import Request
from controlplane.xds.resources import (
    AUTHZ_POLICY,
    CLUSTER,
    ENDPOINT,
    EXTENSION_CONFIG,
    LISTENER,
    RATE_LIMIT_CONFIG,
    ROUTE,
    SECRET,
    Resource,
    Snapshot,
)
from controlplane.xds.subscription import Outgoing
from tests.unit.xds.made import plain, snapshot


class Clock:
    """Time that passes when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


def gateway(
    clusters: dict[str, str],
    routes: dict[str, tuple[str, ...]],
    policies: Iterable[str] = (),
    text: str = "",
    *,
    named: dict[str, tuple[str, str]] | None = None,
    secrets: dict[str, str] | None = None,
    configs: dict[str, str] | None = None,
) -> Snapshot:
    """A snapshot: cluster → text, route → the clusters that it names; a listener for each route.

    `named` are a secret and an extension's configuration (each may be empty) that a cluster or a listener names.
    """
    named = named or {}
    made = [plain(CLUSTER, name, f"{text}|{named.get(name, ('', ''))[0]}|") for name, text in clusters.items()]
    made += [plain(ENDPOINT, name) for name in clusters]
    for name, refs in routes.items():
        made.append(plain(ROUTE, name, "|".join((",".join(refs), ",".join(sorted(policies)), text))))
        made.append(plain(LISTENER, name, "|".join((name, *named.get(name, ("", ""))))))
    made += [plain(SECRET, name, value) for name, value in (secrets or {}).items()]
    made += [plain(EXTENSION_CONFIG, name, value) for name, value in (configs or {}).items()]
    return snapshot(*made)


def names_in(referrer: Resource) -> set[tuple[str, str]]:
    """What a cluster or listener names (type, name) beside what has its own name."""
    _, secret, config = referrer.body.decode().partition("=")[2].split("|")
    return {(type_url, name) for type_url, name in ((SECRET, secret), (EXTENSION_CONFIG, config)) if name}


def refs(route: Resource) -> set[str]:
    """The clusters that a route names."""
    return set(filter(None, route.body.decode().partition("=")[2].split("|")[0].split(",")))


def needs(route: Resource) -> set[str]:
    """The policies that a route names."""
    return set(filter(None, route.body.decode().split("|")[1].split(",")))


def is_bad(resource: Resource) -> bool:
    """Whether the model refuses the resource."""
    return b"bad" in resource.body


@dataclass
class Wire:
    """A stream to the cache: messages wait in it, in order, until the test delivers them."""

    cache: SnapshotCache
    owner: str
    node_id: str
    protocol: Protocol
    on_sent: Callable[[Outgoing], None]
    to_server: deque[Request] = field(default_factory=deque[Request])
    to_client: deque[Outgoing] = field(default_factory=deque[Outgoing])
    session: Session = field(init=False)

    def __post_init__(self) -> None:
        self.session = self.cache.attach(self.owner, self.node_id, self.protocol, lambda: None)

    def serve(self) -> Outgoing | None:
        """Lets the server send one response, if it may."""
        out = self.cache.next_response(self.session)
        if out is not None:
            self.to_client.append(out)
            self.on_sent(out)
        return out

    def upload(self) -> bool:
        """Lets one request arrive."""
        if not self.to_server:
            return False
        violation = self.cache.handle(self.session, self.to_server.popleft())
        assert violation is None
        return True


@dataclass
class ModelClient:
    """Holds resources, accepts and rejects; the subclasses subscribe."""

    owner: str
    node_id: str
    protocol: Protocol = "delta"
    # Whether it asks for what a response makes it want before it answers the response, or after.
    asks_first: bool = True
    on_sent: Callable[[Outgoing], None] = lambda _: None
    held: dict[str, dict[str, Resource]] = field(default_factory=dict[str, dict[str, Resource]])
    asked: dict[str, set[str]] = field(default_factory=dict[str, set[str]])
    accepted: dict[str, str] = field(default_factory=dict[str, str])
    nonces: dict[str, str] = field(default_factory=dict[str, str])
    rejections: list[str] = field(default_factory=list[str])
    wire: Wire = field(init=False)

    wildcards: tuple[str, ...] = ()

    def connect(self, cache: SnapshotCache) -> None:
        """Opens a stream and says what it has, in the order in which Envoy does."""
        self.wire = Wire(cache, self.owner, self.node_id, self.protocol, self.on_sent)
        self.nonces.clear()
        for type_url in (AUTHZ_POLICY, RATE_LIMIT_CONFIG, SECRET, CLUSTER, ENDPOINT, EXTENSION_CONFIG, LISTENER, ROUTE):
            if type_url in self.wildcards or self.asked.get(type_url):
                self.ask(type_url, self.asked.get(type_url, set()), set(), first=True)

    def disconnect(self) -> None:
        self.wire.cache.detach(self.wire.session)

    def receive(self) -> bool:
        """Takes one response and answers it."""
        if not self.wire.to_client:
            return False
        out = self.wire.to_client.popleft()
        held = self.held.setdefault(out.type_url, {})
        bad = [resource.name for resource in out.resources if is_bad(resource)]
        # Like Envoy: what is bad among clusters and listeners leaves the others alone, elsewhere nothing is taken.
        good = [] if bad and out.type_url not in (CLUSTER, LISTENER) else [r for r in out.resources if not is_bad(r)]
        before = dict(held)
        if self.protocol == "sotw" and out.type_url in (CLUSTER, LISTENER):
            for name in before.keys() - {resource.name for resource in out.resources}:
                del held[name]
        # What has been asked for no longer may still come; it is not taken.
        wanted = None if out.type_url in self.wildcards else self.asked.get(out.type_url, set())
        held.update({resource.name: resource for resource in good if wanted is None or resource.name in wanted})
        for name in out.removed:
            held.pop(name, None)
        self.nonces[out.type_url] = out.nonce
        if not bad:
            self.accepted[out.type_url] = out.version
        self.rejections += bad
        error = f"cannot take {' '.join(bad)}: bad" if bad else None
        if not self.asks_first:
            self.answer(out, error)
        self.changed(out.type_url, before)
        if self.asks_first:
            self.answer(out, error)
        return True

    def changed(self, type_url: str, before: dict[str, Resource]) -> None:
        """Is told what it held before."""

    def answer(self, out: Outgoing, error: str | None) -> None:
        names = sorted(self.asked.get(out.type_url, ())) if self.protocol == "sotw" else ()
        version = self.accepted.get(out.type_url, "") if self.protocol == "sotw" else ""
        self.wire.to_server.append(Request(out.type_url, out.nonce, error, subscribe=names, version=version))

    def ask(self, type_url: str, more: set[str], less: set[str], *, first: bool = False) -> None:
        """Changes what is asked for by name."""
        first = first or (type_url not in self.asked and type_url not in self.wildcards)
        asked = self.asked.setdefault(type_url, set())
        asked |= more
        asked -= less
        held = self.held.get(type_url, {})
        if self.protocol == "delta":
            versions = {name: resource.version for name, resource in held.items()} if first else {}
            request = Request(type_url, subscribe=sorted(more), unsubscribe=sorted(less), initial_versions=versions)
        else:
            nonce = self.nonces.get(type_url, "")
            request = Request(type_url, nonce, subscribe=sorted(asked), version=self.accepted.get(type_url, ""))
        self.wire.to_server.append(request)


@dataclass
class ModelEnvoy(ModelClient):
    """Subscribes as Envoy does; `faults` says what would have failed a request."""

    wildcards: tuple[str, ...] = (CLUSTER, LISTENER)
    faults: list[str] = field(default_factory=list[str])

    def changed(self, type_url: str, before: dict[str, Resource]) -> None:
        gone = before.keys() - self.held[type_url].keys()
        self.check_gone(type_url, gone)
        if type_url in (CLUSTER, LISTENER):
            for of_type, wanted in self.wanted().items():
                self.ask_if_other(of_type, wanted)
        self.check(type_url)

    def wanted(self) -> dict[str, set[str]]:
        """What is to be asked for by name: what the clusters and listeners that are held name."""
        clusters, listeners = self.held.get(CLUSTER, {}), self.held.get(LISTENER, {})
        named = {each for held in (clusters, listeners) for resource in held.values() for each in names_in(resource)}
        return {
            SECRET: {name for type_url, name in named if type_url == SECRET},
            ENDPOINT: set(clusters),
            EXTENSION_CONFIG: {name for type_url, name in named if type_url == EXTENSION_CONFIG},
            ROUTE: set(listeners),
        }

    def ask_if_other(self, type_url: str, wanted: set[str]) -> None:
        asked = self.asked.get(type_url, set())
        more, less = wanted - asked, asked - wanted
        for name in less:
            self.held.get(type_url, {}).pop(name, None)
        if more or less:
            self.ask(type_url, more, less)

    def check(self, type_url: str) -> None:
        """Notes the routes that lead to a cluster that is missing or has no endpoints yet."""
        clusters, warm = self.held.get(CLUSTER, {}), self.held.get(ENDPOINT, {})
        for route in self.held.get(ROUTE, {}).values():
            for name in refs(route):
                if name not in clusters:
                    self.faults.append(f"{route.name} names {name}, which is missing (after {type_url})")
                elif name not in warm and type_url == ROUTE:
                    self.faults.append(f"{route.name} names {name}, which has no endpoints yet")

    def check_gone(self, type_url: str, gone: Set[str]) -> None:
        """Notes what was taken away though something that is held names it."""
        wanted = self.wanted().get(type_url, set())
        for name in gone & wanted:
            self.faults.append(f"{name} ({type_url}) is taken away while it is named")


@dataclass
class ModelWorker(ModelClient):
    """A service that holds policies."""

    wildcards: tuple[str, ...] = (AUTHZ_POLICY,)


@dataclass
class ModelLimiter(ModelClient):
    """A service that holds limits."""

    wildcards: tuple[str, ...] = (RATE_LIMIT_CONFIG,)


def settle(*clients: ModelClient) -> None:
    """Delivers everything until nobody has anything to say."""
    for _ in range(10_000):
        moved = [step() for client in clients for step in (client.wire.upload, client.wire.serve, client.receive)]
        if not any(moved):
            return
    raise AssertionError("the clients never come to rest")
