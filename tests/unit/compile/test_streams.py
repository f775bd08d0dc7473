"""Who has a connection: listeners by the closest hostname, then routes by the closest of theirs, then the oldest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.api.gateway import Gateway
from controlplane.api.load import load
from controlplane.api.meta import GATEWAY_GROUP, ObjectKey
from controlplane.compile import gateway, streams
from controlplane.compile.gateway import GatewayListener
from controlplane.compile.hosts import ANY, covers, intersect
from controlplane.compile.routes import compile_route
from controlplane.ir import ClusterId, StreamChain, UpstreamPolicy, WeightedBackend
from tests.support import manifests as m
from tests.unit.compile.view import PlainView

HOSTS = ["a.example.com", "b.example.com", "*.example.com", "x.a.example.com", "*.a.example.com", "*.com", "a.org"]
NAMES = [
    "a.example.com",
    "b.example.com",
    "c.example.com",
    "x.a.example.com",
    "y.a.example.com",
    "z.com",
    "a.org",
    "q.net",
]


def key(name: str, kind: str = "TLSRoute") -> ObjectKey:
    return ObjectKey(GATEWAY_GROUP, kind, "demo", name)


def judged(*listeners: dict[str, Any]) -> tuple[GatewayListener, ...]:
    loaded = load(m.gateway(listeners=list(listeners))).object
    assert isinstance(loaded, Gateway)
    return gateway.listeners(PlainView(), loaded)


def tls(name: str, hostname: str | None) -> dict[str, Any]:
    host = {"hostname": hostname} if hostname else {}
    return {"name": name, "port": 443, "protocol": "TLS", "tls": {"mode": "Passthrough"}, **host}


def backends(name: str) -> tuple[WeightedBackend, ...]:
    return (WeightedBackend(ClusterId("demo", "Service", name, 80, UpstreamPolicy(carries="streams")), 1),)


def of_port(
    listeners: Sequence[GatewayListener], routes: Sequence[tuple[str, Sequence[str]]]
) -> list[tuple[GatewayListener, StreamChain]]:
    hostnames = [each.hostname or ANY for each in listeners]
    found: list[tuple[GatewayListener, StreamChain]] = []
    for listener in listeners:
        attached = [
            streams.Attached(key(name), domains, backends(name))
            for name, wanted in routes
            if (domains := intersect(listener.hostname, wanted))
        ]
        found += [(listener, chain) for chain in streams.chains(listener, attached, hostnames=hostnames)]
    return found


def specificity(domain: str) -> tuple[int, int]:
    """Orders domains: exact before wildcard, longer before shorter. Smaller sorts first."""
    return (domain.startswith("*"), -len(domain))


def envoys_choice(chains: Sequence[tuple[GatewayListener, StreamChain]], name: str) -> str | None:
    """The route that has a connection for a name, as Envoy matches server names: exact, then the longest suffix."""
    matching = [chain for _, chain in chains for host in chain.hostnames or (ANY,) if covers(host, name)]
    closest = min(matching, key=lambda chain: specificity((chain.hostnames or (ANY,))[0]), default=None)
    return closest.origin or None if closest is not None else None


def as_specified(
    listeners: Sequence[GatewayListener], routes: Sequence[tuple[str, Sequence[str]]], name: str
) -> str | None:
    hosts = [each.hostname or ANY for each in listeners if covers(each.hostname or ANY, name)]
    if not hosts:
        return None
    listener = min(hosts, key=specificity)
    found = [
        (specificity(domain), age, str(key(route)))
        for age, (route, wanted) in enumerate(routes)
        for domain in intersect(listener, wanted)
        if covers(domain, name)
    ]
    return min(found)[2] if found else None


@given(
    st.lists(st.sampled_from([None, *HOSTS]), min_size=1, max_size=4, unique=True),
    st.lists(st.lists(st.sampled_from(HOSTS), min_size=1, max_size=3, unique=True), max_size=4),
)
def test_envoy_gives_each_name_to_whom_the_specification_gives_it(
    hosts: list[str | None], wanted: list[list[str]]
) -> None:
    listeners = judged(*(tls(f"l{index}", host) for index, host in enumerate(hosts)))
    routes = [(f"r{index}", each) for index, each in enumerate(wanted)]
    found = of_port(listeners, routes)
    matches = [chain.hostnames for _, chain in found]
    assert len(matches) == len(set(matches)), "Envoy refuses two chains that match the same"
    names = [chain.name for _, chain in found]
    assert len(names) == len(set(names))
    assert {name: envoys_choice(found, name) for name in NAMES} == {
        name: as_specified(listeners, routes, name) for name in NAMES
    }


def test_a_chain_keeps_its_name_whatever_routes_and_listeners_come_beside_it() -> None:
    alone = of_port(judged(tls("l", "*.example.com")), [("r", ["a.example.com"])])
    beside = of_port(
        judged(tls("other", None), tls("l", "*.example.com")), [("o", ["*.com"]), ("r", ["a.example.com"])]
    )
    assert alone[0][1] in [chain for _, chain in beside]
    assert alone[0][1].name == "l/a.example.com"


def test_no_route_on_any_listener_leaves_nobody_listening() -> None:
    listeners = judged(tls("wide", None), tls("narrow", "*.example.com"))
    loaded = load(m.gateway(listeners=[tls("wide", None), tls("narrow", "*.example.com")])).object
    assert isinstance(loaded, Gateway)
    by_listener = {each.id: tuple(chain for at, chain in of_port(listeners, []) if at is each) for each in listeners}
    assert [chain.origin for chain in by_listener["narrow"]] == [""]
    assert gateway.port_listeners(loaded, listeners, by_listener) == ()


def test_tls_that_goes_through_and_bytes_that_are_in_clear_have_different_clusters() -> None:
    (through,) = judged(tls("l", None))
    (chain,) = streams.chains(through, [streams.Attached(key("r"), (ANY,), backends("one"))])
    assert chain.backends[0].cluster == ClusterId("demo", "Service", "one", 80, UpstreamPolicy(carries="tls"))
    (clear,) = judged({"name": "l", "port": 9300, "protocol": "TCP"})
    (chain,) = streams.chains(clear, [streams.Attached(key("r", "TCPRoute"), (ANY,), backends("one"))])
    assert chain.backends == backends("one")


REFS = [
    {"name": "one", "port": 80, "weight": 2},
    {"name": "gone", "port": 80, "weight": 3},
    {"name": "one", "port": 80, "weight": 4},
    {"name": "far", "namespace": "other", "port": 80, "weight": 5},
    {"name": "one", "port": 81, "weight": 0},
]


@pytest.mark.parametrize("kind", ["TCPRoute", "TLSRoute", "UDPRoute"])
def test_what_is_invalid_keeps_its_weight_and_says_why(kind: str) -> None:
    transport = "UDP" if kind == "UDPRoute" else "TCP"
    service = m.manifest("v1", "Service", "one", {"ports": [{"port": 80, "protocol": transport}]})
    spec = {"hostnames": ["a.example.com"]} if kind == "TLSRoute" else {}
    made = m.manifest(m.GATEWAY_API, kind, "r", {"rules": [{"backendRefs": REFS}], **spec})
    found = compile_route(PlainView(service), load(made).object)
    assert [(each.cluster.name if each.cluster else None, each.weight) for each in found.backends] == [
        ("one", 6),
        (None, 8),
    ]
    assert [(fault.reason, fault.field) for fault in found.faults] == [
        ("BackendNotFound", "spec.rules[0].backendRefs[1].name"),
        ("RefNotPermitted", "spec.rules[0].backendRefs[3]"),
        ("BackendNotFound", "spec.rules[0].backendRefs[4].port"),
    ]
