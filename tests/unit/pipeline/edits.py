"""Random edits of every kind: few names, so that what is written meets what refers to it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, TypeVar

from hypothesis import strategies as st

from tests.support import manifests as m
from tests.support.certificates import Authority, Certificate
from tests.support.tokens import SigningKey, jwks

Manifest = dict[str, Any]
OURS = "dragoman.dev/v1alpha1"
THEIRS = "gateway.envoyproxy.io/v1alpha1"
NAMESPACES = ["demo", "other"]
ROUTES = ["r1", "r2", "r3"]
SERVICES = ["one", "two", "far"]
HOSTS = ["a.backends.example", "b.backends.example"]
URIS = ["https://issuer.example/keys", "https://elsewhere.example/keys"]
JWKS = [json.dumps(jwks(SigningKey.make(f"key-{index}"))) for index in range(2)]
_AUTHORITY = Authority()
CERTIFICATES = [_AUTHORITY.leaf("a.example.com"), _AUTHORITY.leaf("a.example.com")]
_OF_TWO = Certificate(CERTIFICATES[0].cert_pem, CERTIFICATES[1].key_pem)
_CREATED = [None, "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"]


@dataclass(frozen=True, slots=True)
class Put:
    """An object is written, new or anew."""

    document: Manifest


@dataclass(frozen=True, slots=True)
class Drop:
    """One of the objects that are there is deleted."""

    which: int


@dataclass(frozen=True, slots=True)
class Resolve:
    """A host name has these addresses; None: they are not known any more."""

    host: str
    addresses: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class Fetch:
    """A key set comes."""

    uri: str
    text: str


@dataclass(frozen=True, slots=True)
class Wait:
    """Time goes by."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Serve:
    """The services move."""

    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Project:
    """A gRPC client comes or goes."""

    wanted: bool


Edit = Put | Drop | Resolve | Fetch | Wait | Serve | Project
_one_of = st.sampled_from


def _made(document: Manifest, created: str | None, labels: dict[str, str] | None = None) -> Manifest:
    more: Manifest = {"creationTimestamp": created} if created else {}
    document["metadata"] |= {**more, **({"labels": labels} if labels else {})}
    return document


# -- Gateways and routes --


def _listener(name: str, port: int, hostname: str | None, source: str, certificate: Manifest) -> Manifest:
    namespaces: Manifest = {"from": source}
    if source == "Selector":
        namespaces["selector"] = {"matchLabels": {"team": "x"}}
    https = {"protocol": "HTTPS", "tls": {"certificateRefs": [certificate]}} if port == 443 else {"protocol": "HTTP"}
    host = {"hostname": hostname} if hostname else {}
    return {"name": name, "port": port, **https, **host, "allowedRoutes": {"namespaces": namespaces}}


@st.composite
def _gateways(draw: st.DrawFn) -> Manifest:
    ports = st.tuples(_one_of([80, 81, 443]), _one_of([None, "*.example.com", "a.example.com"]))
    # Sometimes twice the same: a Gateway with a fault.
    found = draw(st.lists(ports, min_size=1, max_size=4, unique=draw(_one_of([True, True, True, False]))))
    refs = _one_of([{"name": "cert-1"}, {"name": "cert-2"}, {"name": "cert-1", "namespace": "other"}])
    listeners = [
        _listener(f"l{index}", port, host, draw(_one_of(["All", "All", "Same", "Selector"])), draw(refs))
        for index, (port, host) in enumerate(found)
    ]
    listeners += draw(st.lists(_one_of(_STREAM_LISTENERS), max_size=3, unique_by=lambda each: each["name"]))
    labels = draw(_one_of([None, {"tier": "gold"}]))
    made = m.gateway(draw(_one_of(["edge", "edge", "side"])), listeners=listeners)
    made["spec"] |= draw(_one_of(_ALLOWED))
    return _made(made, None, labels)


_STREAM_LISTENERS: list[Manifest] = [
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
def _listener_sets(draw: st.DrawFn) -> Manifest:
    ports = st.tuples(_one_of([80, 82, 443]), _one_of([None, "a.example.com", "b.example.com"]))
    refs = _one_of([{"name": "cert-1"}, {"name": "cert-1", "namespace": "other"}])
    listeners = [
        _listener(f"s{index}", port, host, draw(_one_of(["All", "Same"])), draw(refs))
        for index, (port, host) in enumerate(draw(st.lists(ports, min_size=1, max_size=2, unique=True)))
    ]
    spec = {"parentRef": {"name": draw(_one_of(["edge", "side"])), "namespace": "demo"}, "listeners": listeners}
    name, namespace = draw(_one_of(["set-1", "set-2"])), draw(_one_of(["demo", "other"]))
    return _made(m.manifest(m.GATEWAY_API, "ListenerSet", name, spec, namespace=namespace), draw(_one_of(_CREATED)))


_paths = _one_of(["/", "/a", "/a/b", "/c"])


@st.composite
def _rules(draw: st.DrawFn) -> Manifest:
    kind = draw(_one_of(["PathPrefix", "PathPrefix", "Exact"]))
    if draw(st.booleans()):
        made: Manifest = m.to_backend(draw(_paths), draw(_one_of(["by-ip", "by-name"])))
        made["matches"][0]["path"]["type"] = kind
    else:
        namespace = draw(_one_of([None, None, "other"]))
        made = m.rule(draw(_paths), draw(_one_of(SERVICES)), kind=kind, namespace=namespace)
    return made


@st.composite
def _routes(draw: st.DrawFn) -> Manifest:
    rules = draw(st.lists(_rules(), min_size=1, max_size=3))
    for index in range(len(rules)):
        if draw(st.booleans()):
            rules[index]["name"] = f"rule-{index}"
    hosts = draw(
        _one_of([[], [], ["a.example.com"], ["*.example.com"], ["a.example.com", "b.example.com"], ["c.example.org"]])
    )
    namespace = draw(_one_of(["demo", "demo", "demo", "other"]))
    made = m.route(draw(_one_of(ROUTES)), rules, hostnames=hosts, namespace=namespace)
    made["spec"]["parentRefs"] += draw(_one_of(_FURTHER_PARENTS))
    return _made(made, draw(_one_of(_CREATED)), draw(_one_of([None, {"tier": "gold"}])))


_FURTHER_PARENTS: list[list[Manifest]] = [
    [],
    [],
    [{"kind": "ListenerSet", "name": "set-1", "namespace": "demo"}],
    [{"kind": "ListenerSet", "name": "set-1", "namespace": "other", "sectionName": "s0"}],
]


@st.composite
def _grpc_routes(draw: st.DrawFn) -> Manifest:
    service = draw(_one_of(["shop.Cart", "shop.Till"]))
    asked = draw(_one_of([None, {"service": service}, {"method": "Get"}, {"service": service, "method": "Get"}]))
    rule = {key: value for key, value in draw(_rules()).items() if key == "backendRefs"}
    if asked is not None:
        rule["matches"] = [{"method": asked}]
    parents = [{"name": "edge", "namespace": "demo"}, *draw(_one_of(_FURTHER_PARENTS))]
    hosts = draw(_one_of([[], ["a.example.com"], ["*.example.com"], ["c.example.org"]]))
    spec = {"parentRefs": parents, "hostnames": hosts, "rules": [rule]}
    made = m.manifest(m.GATEWAY_API, "GRPCRoute", draw(_one_of(["r1", "calls"])), spec)
    return _made(made, draw(_one_of(_CREATED)), draw(_one_of([None, {"tier": "gold"}])))


@st.composite
def _stream_routes(draw: st.DrawFn) -> Manifest:
    kind = draw(_one_of(["TLSRoute", "TCPRoute", "UDPRoute"]))
    backends = [
        *({"name": service, "port": 80} for service in SERVICES),
        *({"group": "dragoman.dev", "kind": "Backend", "name": name} for name in ("by-ip", "by-name")),
    ]
    refs = [
        {**ref, "weight": draw(_one_of([0, 1, 5]))} for ref in draw(st.lists(_one_of(backends), min_size=1, max_size=3))
    ]
    spec: Manifest = {"parentRefs": draw(_one_of(_STREAM_PARENTS)), "rules": [{"backendRefs": refs}]}
    if kind == "TLSRoute":
        spec["hostnames"] = draw(_one_of([["b.example.com"], ["*.example.com", "a.example.com"], ["c.example.org"]]))
    made = m.manifest(m.GATEWAY_API, kind, draw(_one_of(["stream-1", "stream-2"])), spec)
    return _made(made, draw(_one_of(_CREATED)))


_STREAM_PARENTS: list[list[Manifest]] = [
    [{"name": "edge"}],
    [{"name": "edge", "sectionName": "through"}, {"name": "edge", "port": 80}],
    [{"name": "side"}],
]
_bad_routes = st.builds(
    lambda name: m.route(name, [m.rule("/(", "one", kind="RegularExpression")]), st.sampled_from(ROUTES)
)

# -- backends --

_services = st.builds(
    lambda name, namespace, protocol: m.service(name, namespace=namespace, protocol=protocol),
    _one_of(SERVICES),
    _one_of(NAMESPACES),
    _one_of([None, "kubernetes.io/h2c"]),
)
_both_transports = st.builds(
    lambda name: m.manifest(
        "v1", "Service", name, {"ports": [{"name": "u", "port": 80, "protocol": "UDP"}, {"port": 80}]}
    ),
    _one_of(SERVICES),
)
_slices = st.builds(
    lambda name, namespace, addresses, suffix: m.endpoint_slice(name, *addresses, namespace=namespace, suffix=suffix),
    _one_of(SERVICES),
    _one_of(NAMESPACES),
    st.lists(_one_of(["192.0.2.1", "192.0.2.2", "192.0.2.3"]), max_size=2),
    _one_of("ab"),
)
_CA = {"tls": {"sni": "backend.example", "caCertificateRefs": [{"group": "", "kind": "ConfigMap", "name": "text"}]}}
_backends = st.one_of(
    st.builds(
        lambda address, tls: m.manifest(
            OURS, "Backend", "by-ip", {"endpoints": [{"ip": {"address": address, "port": 80}}], **tls}
        ),
        _one_of(["192.0.2.7", "192.0.2.8"]),
        _one_of([{}, {}, _CA]),
    ),
    st.builds(
        lambda hosts: m.manifest(
            OURS, "Backend", "by-name", {"endpoints": [{"fqdn": {"hostname": host, "port": 80}} for host in hosts]}
        ),
        st.lists(_one_of(HOSTS), min_size=1, max_size=2, unique=True),
    ),
)
_config_maps = st.builds(
    lambda data: m.manifest("v1", "ConfigMap", "text", None, data=data),
    _one_of([{"jwks": JWKS[0]}, {"jwks": JWKS[1]}, {"jwks": "{}"}, {"ca.crt": _AUTHORITY.cert_pem}, {"ca.crt": "no"}]),
)

# -- Secrets, grants, namespaces --

_certificates = st.builds(
    lambda which, namespace, name: which.secret(namespace, name),
    _one_of([*CERTIFICATES, _OF_TWO]),
    _one_of(["demo", "demo", "other"]),
    _one_of(["cert-1", "cert-2"]),
)
_keys = st.builds(
    lambda name, namespace, data: m.manifest("v1", "Secret", name, None, namespace=namespace, stringData=data),
    _one_of(["keys-1", "keys-2"]),
    _one_of(NAMESPACES),
    _one_of([{"ann": "key-of-ann"}, {"ann": "key-of-ann", "bob": "key-of-bob"}, {"eve": "key-of-ann"}, {"no": "\n"}]),
)
_many_keys = st.just(
    m.manifest("v1", "Secret", "keys-1", None, stringData={f"client-{index}": f"key-{index}" for index in range(101)})
)
_GRANTED = [
    ("HTTPRoute", "gateway.networking.k8s.io", "Service", ""),
    ("SecurityPolicy", "dragoman.dev", "Secret", ""),
    ("Gateway", "gateway.networking.k8s.io", "Secret", ""),
    ("GRPCRoute", "gateway.networking.k8s.io", "Service", ""),
    ("BackendTrafficPolicy", "dragoman.dev", "Plan", "dragoman.dev"),
]


def _grant(granted: tuple[str, str, str, str], name: str, source: str) -> Manifest:
    kind, group, to, to_group = granted
    spec = {
        "from": [{"group": group, "kind": kind, "namespace": source}],
        "to": [{"group": to_group, "kind": to}],
    }
    return m.manifest(m.GATEWAY_API, "ReferenceGrant", name, spec, namespace="other")


_grants = st.builds(_grant, _one_of(_GRANTED), _one_of(["g1", "g2"]), _one_of(["demo", "demo", "elsewhere"]))
_namespaces = st.builds(
    lambda name, labels: m.manifest("v1", "Namespace", name, None, namespace=None, metadata={"labels": labels}),
    _one_of(NAMESPACES),
    _one_of([{}, {"team": "x"}]),
)

# -- policies --


def _target(kind: str, name: str, section: str | None = None) -> Manifest:
    ref = {"group": "gateway.networking.k8s.io", "kind": kind, "name": name}
    return {**ref, "sectionName": section} if section else ref


_TARGETS = [
    {"targetRefs": [_target("Gateway", "edge")]},
    {"targetRefs": [_target("Gateway", "edge", "l0")]},
    {"targetRefs": [_target("HTTPRoute", "r1")]},
    {"targetRefs": [_target("HTTPRoute", "r2"), _target("HTTPRoute", "r3")]},
    {"targetRefs": [_target("HTTPRoute", "r1", "rule-0")]},
    {"targetSelectors": [{"kind": "HTTPRoute", "matchLabels": {"tier": "gold"}}]},
    {"targetSelectors": [{"kind": "Gateway", "matchLabels": {"tier": "gold"}}]},
    {"targetRefs": [_target("GRPCRoute", "r1")]},
    {"targetRefs": [_target("ListenerSet", "set-1"), _target("ListenerSet", "set-2", "s0")]},
]


def _provider(source: Manifest, name: str = "main", **more: Any) -> Manifest:
    return {"name": name, "issuer": "https://issuer.example", **source, **more}


_KEY_SETS = [
    *({"localJWKS": {"type": "Inline", "inline": text}} for text in JWKS),
    {"localJWKS": {"type": "ValueRef", "valueRef": {"group": "", "kind": "ConfigMap", "name": "text"}}},
    *({"remoteJWKS": {"uri": uri}} for uri in URIS),
]
_tokens = st.builds(
    lambda source, claims, optional: {"jwt": {"optional": optional, "providers": [_provider(source, **claims)]}},
    _one_of(_KEY_SETS),
    _one_of([{}, {"claimToHeaders": [{"header": "x-user", "claim": "sub"}]}]),
    st.booleans(),
)
_api_keys = st.builds(
    lambda refs, forward: {"apiKeyAuth": {"credentialRefs": refs, "extractFrom": [{"headers": ["x-key"]}], **forward}},
    st.lists(_one_of([{"name": "keys-1"}, {"name": "keys-2"}, {"name": "keys-1", "namespace": "other"}]), min_size=1),
    _one_of([{}, {"forwardClientIDHeader": "x-client"}]),
)
_consumers = st.builds(lambda scopes: {"consumers": {"requiredScopes": scopes}}, _one_of([[], ["read"]]))
_PRINCIPALS = [
    {"clientCIDRs": ["10.0.0.0/8"]},
    {"jwt": {"provider": "main", "scopes": ["read"]}},
    {"headers": [{"name": "x-user", "values": ["ann"]}]},
]
_authorizations = st.builds(
    lambda action, principal, default: {
        "authorization": {"defaultAction": default, "rules": [{"action": action, "principal": principal}]}
    },
    _one_of(["Allow", "Deny"]),
    _one_of(_PRINCIPALS),
    _one_of(["Allow", "Deny"]),
)
_origins = st.builds(lambda origin: {"cors": {"allowOrigins": [origin]}}, _one_of(["*", "https://a.example"]))
_FLAWS: list[Manifest] = [
    {"unknown": 1},  # of no known shape
    {"jwt": {"providers": [_provider({"localJWKS": {"type": "Inline", "inline": "{}"}})]}},  # no key
    {"basicAuth": {"users": {"name": "keys-1"}}},  # not supported
]
_manners = _one_of(
    [{}, {}, {}, {"mergeType": "Replace"}, {"allowRouteOverride": True}, {"dropParentAuthentication": True}]
)


@st.composite
def _security(draw: st.DrawFn) -> Manifest:
    spec: Manifest = dict(draw(_one_of(_TARGETS)))
    for part in draw(
        st.lists(st.one_of(_tokens, _api_keys, _consumers, _authorizations, _origins), min_size=1, max_size=3)
    ):
        spec |= part
    spec |= draw(_manners)
    if draw(_one_of([False, False, False, True])):
        spec |= draw(_one_of(_FLAWS))
    api = draw(_one_of([OURS, OURS, THEIRS]))
    return _made(m.manifest(api, "SecurityPolicy", draw(_one_of(["s1", "s2", "s3"])), spec), draw(_one_of(_CREATED)))


_SELECTORS: list[Manifest] = [
    {},
    {"clientSelectors": [{"headers": [{"name": "x-user", "type": "Distinct"}]}]},
    {"clientSelectors": [{"sourceCIDR": {"value": "10.0.0.0/8"}}]},
]


@st.composite
def _limits(draw: st.DrawFn) -> Manifest:
    spec: Manifest = dict(draw(_one_of(_TARGETS)))
    rule = {"limit": {"requests": draw(_one_of([1, 5])), "unit": "Minute"}, **draw(_one_of(_SELECTORS))}
    kind = draw(_one_of(["local", "global"]))
    if kind == "global" and draw(st.booleans()):
        rule["shared"] = True
    spec["rateLimit"] = {kind: {"rules": [rule]}}
    if kind == "global" and draw(st.booleans()):
        spec["rateLimit"]["global"] |= draw(_one_of(_PLANNED))
    spec |= draw(_one_of([{}, {}, {"mergeType": "Replace"}, {"retry": {"numRetries": 2}}, {"unknown": 1}]))
    api = draw(_one_of([OURS, OURS, THEIRS]))
    return _made(m.manifest(api, "BackendTrafficPolicy", draw(_one_of(["t1", "t2"])), spec), draw(_one_of(_CREATED)))


_PLANNED: list[Manifest] = [
    {"plans": {"default": "free"}, "localShield": True},
    {"plans": {"default": "paid", "anonymous": "free", "identity": {"from": "Token"}}},
    {"plans": {"default": "far", "refs": [{"name": "free"}, {"name": "far", "namespace": "other"}]}},
    {
        "plans": {"default": "free", "identity": {"from": "Headers", "plan": "x-plan", "consumer": "x-user"}},
        "rules": [],
    },
    {"plans": {}},
]
_plans = st.builds(
    lambda place, limits, more: m.manifest(OURS, "Plan", place[0], {"limits": limits, **more}, namespace=place[1]),
    _one_of([("free", "demo"), ("paid", "demo"), ("far", "other")]),
    st.lists(
        st.builds(
            lambda requests, more: {"requests": requests, "unit": "Minute", **more},
            _one_of([1, 5]),
            _one_of([{}, {"per": "Tenant"}, {"per": "Plan"}, {"algorithm": "Concurrency"}, {"burst": 5}]),
        ),
        max_size=2,
    ),
    _one_of([{}, {}, {"overrides": [{"consumers": ["ann"], "limits": [{"requests": 9, "unit": "Day"}]}]}]),
)

# -- all together --

_T = TypeVar("_T")


def _weighted(strategies: dict[st.SearchStrategy[_T], int]) -> st.SearchStrategy[_T]:
    """Hypothesis would take what is named twice for one."""
    return _one_of([each for each, weight in strategies.items() for _ in range(weight)]).flatmap(lambda each: each)


documents: st.SearchStrategy[Manifest] = _weighted(
    {
        _security(): 12,
        _limits(): 5,
        _plans: 4,
        _routes(): 6,
        _grpc_routes(): 3,
        _stream_routes(): 4,
        _listener_sets(): 2,
        _gateways(): 2,
        _config_maps: 3,
        _keys: 3,
        _many_keys: 2,
        _certificates: 2,
        _grants: 2,
        _backends: 2,
        _slices: 2,
        _services: 1,
        _both_transports: 1,
        _namespaces: 1,
        _bad_routes: 1,
        st.just(m.gateway_class("example.com/other")): 1,
        st.just(m.gateway_class()): 6,
    }
)
_edit: st.SearchStrategy[Edit] = _weighted(
    {
        st.builds(Put, documents): 16,
        st.builds(Drop, st.integers(0, 40)): 3,
        st.builds(Resolve, _one_of(HOSTS), _one_of([None, (), ("192.0.2.11",), ("192.0.2.12",)])): 2,
        st.builds(Fetch, _one_of(URIS), _one_of([*JWKS, '{"keys": []}'])): 2,
        st.builds(Wait, _one_of([1.0, 61.0])): 1,
        st.builds(Serve, _one_of([(), ("unix:/run/authz.sock",), ("127.0.0.1:9000",)])): 1,
        st.builds(Project, st.booleans()): 1,
    }
)
batches: st.SearchStrategy[list[list[Edit]]] = st.lists(
    st.lists(_edit, min_size=1, max_size=5), min_size=4, max_size=12
)


def beginning() -> list[Manifest]:
    """What is there before the edits: something of everything, so that each edit meets it."""
    labelled = {"tier": "gold"}
    listeners = [
        _listener("l0", 80, None, "All", {}),
        _listener("l1", 443, "*.example.com", "Selector", {"name": "cert-1"}),
    ]
    key_auth = {"credentialRefs": [{"name": "keys-1"}], "extractFrom": [{"headers": ["x-key"]}]}
    rule = {"limit": {"requests": 5, "unit": "Minute"}}
    return [
        m.gateway_class(),
        m.gateway(listeners=[*listeners, *(_STREAM_LISTENERS[index] for index in (0, 3, 4))]),
        CERTIFICATES[0].secret("demo", "cert-1"),
        m.manifest("v1", "Namespace", "demo", None, namespace=None, metadata={"labels": {"team": "x"}}),
        m.service("one"),
        m.endpoint_slice("one", "192.0.2.1"),
        m.manifest(OURS, "Backend", "by-name", {"endpoints": [{"fqdn": {"hostname": HOSTS[0], "port": 80}}]}),
        m.route("r1", [{**m.rule("/a", "one"), "name": "rule-0"}, m.rule("/b", "one")], hostnames=["a.example.com"]),
        _made(m.route("r2", [m.rule("/", "far", namespace="other"), m.to_backend("/n", "by-name")]), None, labelled),
        m.service("far", namespace="other"),
        _grant(_GRANTED[0], "g1", "demo"),
        m.manifest("v1", "Secret", "keys-1", None, stringData={"ann": "key-of-ann"}),
        m.manifest(OURS, "SecurityPolicy", "s1", {**_TARGETS[5], "apiKeyAuth": key_auth}),
        m.manifest(OURS, "SecurityPolicy", "s2", {**_TARGETS[2], "jwt": {"providers": [_provider(_KEY_SETS[2])]}}),
        m.manifest(OURS, "BackendTrafficPolicy", "t1", {**_TARGETS[0], "rateLimit": {"global": {"rules": [rule]}}}),
        m.manifest(OURS, "Plan", "free", {"limits": [{"requests": 5, "unit": "Minute"}]}),
        m.manifest("v1", "ConfigMap", "text", None, data={"jwks": JWKS[0]}),
    ]
