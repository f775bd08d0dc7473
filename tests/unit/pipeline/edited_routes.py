"""Gateways and routes, at random."""

from __future__ import annotations

from hypothesis import strategies as st

from tests.support import manifests as m
from tests.unit.pipeline.edited_names import CREATED, ROUTES, SERVICES, Manifest, one_of, stamped


def listener(name: str, port: int, hostname: str | None, source: str, certificate: Manifest) -> Manifest:
    namespaces: Manifest = {"from": source}
    if source == "Selector":
        namespaces["selector"] = {"matchLabels": {"team": "x"}}
    https = {"protocol": "HTTPS", "tls": {"certificateRefs": [certificate]}} if port == 443 else {"protocol": "HTTP"}
    host = {"hostname": hostname} if hostname else {}
    return {"name": name, "port": port, **https, **host, "allowedRoutes": {"namespaces": namespaces}}


@st.composite
def gateways(draw: st.DrawFn) -> Manifest:
    ports = st.tuples(one_of([80, 81, 443]), one_of([None, "*.example.com", "a.example.com"]))
    # Sometimes twice the same: a Gateway with a fault.
    found = draw(st.lists(ports, min_size=1, max_size=4, unique=draw(one_of([True, True, True, False]))))
    refs = one_of([{"name": "cert-1"}, {"name": "cert-2"}, {"name": "cert-1", "namespace": "other"}])
    listeners = [
        listener(f"l{index}", port, host, draw(one_of(["All", "All", "Same", "Selector"])), draw(refs))
        for index, (port, host) in enumerate(found)
    ]
    listeners += draw(st.lists(one_of(STREAM_LISTENERS), max_size=3, unique_by=lambda each: each["name"]))
    labels = draw(one_of([None, {"tier": "gold"}]))
    made = m.gateway(draw(one_of(["edge", "edge", "side"])), listeners=listeners)
    made["spec"] |= draw(one_of(_ALLOWED))
    return stamped(made, None, labels)


STREAM_LISTENERS: list[Manifest] = [
    {"name": "through", "port": 443, "protocol": "TLS", "tls": {"mode": "Passthrough"}},
    {"name": "near", "port": 443, "protocol": "TLS", "hostname": "b.example.com", "tls": {"mode": "Passthrough"}},
    {
        "name": "ended",
        "port": 443,
        "protocol": "TLS",
        "hostname": "*.example.org",
        "tls": {"certificateRefs": [{"name": "cert-1"}]},
    },
    {"name": "tcp", "port": 9300, "protocol": "TCP"},
    {"name": "udp", "port": 80, "protocol": "UDP"},
    {"name": "dns", "port": 53, "protocol": "UDP"},
]
_ALLOWED: list[Manifest] = [
    {},
    {"allowedListeners": {"namespaces": {"from": "All"}}},
    {"allowedListeners": {"namespaces": {"from": "Selector", "selector": {"matchLabels": {"team": "x"}}}}},
]


@st.composite
def listener_sets(draw: st.DrawFn) -> Manifest:
    ports = st.tuples(one_of([80, 82, 443]), one_of([None, "a.example.com", "b.example.com"]))
    refs = one_of([{"name": "cert-1"}, {"name": "cert-1", "namespace": "other"}])
    listeners = [
        listener(f"s{index}", port, host, draw(one_of(["All", "Same"])), draw(refs))
        for index, (port, host) in enumerate(draw(st.lists(ports, min_size=1, max_size=2, unique=True)))
    ]
    spec = {"parentRef": {"name": draw(one_of(["edge", "side"])), "namespace": "demo"}, "listeners": listeners}
    name, namespace = draw(one_of(["set-1", "set-2"])), draw(one_of(["demo", "other"]))
    return stamped(m.manifest(m.GATEWAY_API, "ListenerSet", name, spec, namespace=namespace), draw(one_of(CREATED)))


_paths = one_of(["/", "/a", "/a/b", "/c"])


@st.composite
def _rules(draw: st.DrawFn) -> Manifest:
    kind = draw(one_of(["PathPrefix", "PathPrefix", "Exact"]))
    if draw(st.booleans()):
        made: Manifest = m.to_backend(draw(_paths), draw(one_of(["by-ip", "by-name"])))
        made["matches"][0]["path"]["type"] = kind
    else:
        namespace = draw(one_of([None, None, "other"]))
        made = m.rule(draw(_paths), draw(one_of(SERVICES)), kind=kind, namespace=namespace)
    return made


@st.composite
def routes(draw: st.DrawFn) -> Manifest:
    rules = draw(st.lists(_rules(), min_size=1, max_size=3))
    for index in range(len(rules)):
        if draw(st.booleans()):
            rules[index]["name"] = f"rule-{index}"
    hosts = draw(
        one_of([[], [], ["a.example.com"], ["*.example.com"], ["a.example.com", "b.example.com"], ["c.example.org"]])
    )
    namespace = draw(one_of(["demo", "demo", "demo", "other"]))
    made = m.route(draw(one_of(ROUTES)), rules, hostnames=hosts, namespace=namespace)
    made["spec"]["parentRefs"] += draw(one_of(_FURTHER_PARENTS))
    return stamped(made, draw(one_of(CREATED)), draw(one_of([None, {"tier": "gold"}])))


_FURTHER_PARENTS: list[list[Manifest]] = [
    [],
    [],
    [{"kind": "ListenerSet", "name": "set-1", "namespace": "demo"}],
    [{"kind": "ListenerSet", "name": "set-1", "namespace": "other", "sectionName": "s0"}],
]


@st.composite
def grpc_routes(draw: st.DrawFn) -> Manifest:
    service = draw(one_of(["shop.Cart", "shop.Till"]))
    asked = draw(one_of([None, {"service": service}, {"method": "Get"}, {"service": service, "method": "Get"}]))
    rule = {key: value for key, value in draw(_rules()).items() if key == "backendRefs"}
    if asked is not None:
        rule["matches"] = [{"method": asked}]
    parents = [{"name": "edge", "namespace": "demo"}, *draw(one_of(_FURTHER_PARENTS))]
    hosts = draw(one_of([[], ["a.example.com"], ["*.example.com"], ["c.example.org"]]))
    spec = {"parentRefs": parents, "hostnames": hosts, "rules": [rule]}
    made = m.manifest(m.GATEWAY_API, "GRPCRoute", draw(one_of(["r1", "calls"])), spec)
    return stamped(made, draw(one_of(CREATED)), draw(one_of([None, {"tier": "gold"}])))


@st.composite
def stream_routes(draw: st.DrawFn) -> Manifest:
    kind = draw(one_of(["TLSRoute", "TCPRoute", "UDPRoute"]))
    backends = [
        *({"name": service, "port": 80} for service in SERVICES),
        *({"group": "dragoman.dev", "kind": "Backend", "name": name} for name in ("by-ip", "by-name")),
    ]
    refs = [
        {**ref, "weight": draw(one_of([0, 1, 5]))} for ref in draw(st.lists(one_of(backends), min_size=1, max_size=3))
    ]
    spec: Manifest = {"parentRefs": draw(one_of(_STREAM_PARENTS)), "rules": [{"backendRefs": refs}]}
    if kind == "TLSRoute":
        spec["hostnames"] = draw(one_of([["b.example.com"], ["*.example.com", "a.example.com"], ["c.example.org"]]))
    made = m.manifest(m.GATEWAY_API, kind, draw(one_of(["stream-1", "stream-2"])), spec)
    return stamped(made, draw(one_of(CREATED)))


_STREAM_PARENTS: list[list[Manifest]] = [
    [{"name": "edge"}],
    [{"name": "edge", "sectionName": "through"}, {"name": "edge", "port": 80}],
    [{"name": "side"}],
]
bad_routes = st.builds(
    lambda name: m.route(name, [m.rule("/(", "one", kind="RegularExpression")]), st.sampled_from(ROUTES)
)
