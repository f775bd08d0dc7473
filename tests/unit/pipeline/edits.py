"""Random edits of every kind: few names, so that what is written meets what refers to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from hypothesis import strategies as st

from tests.support import manifests as m
from tests.unit.pipeline.edited_backends import (
    CERTIFICATES,
    GRANTED,
    backends,
    both_transports,
    certificates,
    config_maps,
    grant,
    grants,
    keys,
    many_keys,
    namespaces,
    services,
    slices,
)
from tests.unit.pipeline.edited_names import HOSTS, JWKS, OURS, URIS, Manifest, one_of, stamped
from tests.unit.pipeline.edited_policies import KEY_SETS, TARGETS, limits, plans, provider, security
from tests.unit.pipeline.edited_routes import (
    STREAM_LISTENERS,
    bad_routes,
    gateways,
    grpc_routes,
    listener,
    listener_sets,
    routes,
    stream_routes,
)


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

_T = TypeVar("_T")


def _weighted(strategies: dict[st.SearchStrategy[_T], int]) -> st.SearchStrategy[_T]:
    """Hypothesis would take what is named twice for one."""
    return one_of([each for each, weight in strategies.items() for _ in range(weight)]).flatmap(lambda each: each)


documents: st.SearchStrategy[Manifest] = _weighted(
    {
        security(): 12,
        limits(): 5,
        plans: 4,
        routes(): 6,
        grpc_routes(): 3,
        stream_routes(): 4,
        listener_sets(): 2,
        gateways(): 2,
        config_maps: 3,
        keys: 3,
        many_keys: 2,
        certificates: 2,
        grants: 2,
        backends: 2,
        slices: 2,
        services: 1,
        both_transports: 1,
        namespaces: 1,
        bad_routes: 1,
        st.just(m.gateway_class("example.com/other")): 1,
        st.just(m.gateway_class()): 6,
    }
)
_edit: st.SearchStrategy[Edit] = _weighted(
    {
        st.builds(Put, documents): 16,
        st.builds(Drop, st.integers(0, 40)): 3,
        st.builds(Resolve, one_of(HOSTS), one_of([None, (), ("192.0.2.11",), ("192.0.2.12",)])): 2,
        st.builds(Fetch, one_of(URIS), one_of([*JWKS, '{"keys": []}'])): 2,
        st.builds(Wait, one_of([1.0, 61.0])): 1,
        st.builds(Serve, one_of([(), ("unix:/run/authz.sock",), ("127.0.0.1:9000",)])): 1,
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
        listener("l0", 80, None, "All", {}),
        listener("l1", 443, "*.example.com", "Selector", {"name": "cert-1"}),
    ]
    key_auth = {"credentialRefs": [{"name": "keys-1"}], "extractFrom": [{"headers": ["x-key"]}]}
    rule = {"limit": {"requests": 5, "unit": "Minute"}}
    return [
        m.gateway_class(),
        m.gateway(listeners=[*listeners, *(STREAM_LISTENERS[index] for index in (0, 3, 4))]),
        CERTIFICATES[0].secret("demo", "cert-1"),
        m.manifest("v1", "Namespace", "demo", None, namespace=None, metadata={"labels": {"team": "x"}}),
        m.service("one"),
        m.endpoint_slice("one", "192.0.2.1"),
        m.manifest(OURS, "Backend", "by-name", {"endpoints": [{"fqdn": {"hostname": HOSTS[0], "port": 80}}]}),
        m.route("r1", [{**m.rule("/a", "one"), "name": "rule-0"}, m.rule("/b", "one")], hostnames=["a.example.com"]),
        stamped(m.route("r2", [m.rule("/", "far", namespace="other"), m.to_backend("/n", "by-name")]), None, labelled),
        m.service("far", namespace="other"),
        grant(GRANTED[0], "g1", "demo"),
        m.manifest("v1", "Secret", "keys-1", None, stringData={"ann": "key-of-ann"}),
        m.manifest(OURS, "SecurityPolicy", "s1", {**TARGETS[5], "apiKeyAuth": key_auth}),
        m.manifest(OURS, "SecurityPolicy", "s2", {**TARGETS[2], "jwt": {"providers": [provider(KEY_SETS[2])]}}),
        m.manifest(OURS, "BackendTrafficPolicy", "t1", {**TARGETS[0], "rateLimit": {"global": {"rules": [rule]}}}),
        m.manifest(OURS, "Plan", "free", {"limits": [{"requests": 5, "unit": "Minute"}]}),
        m.manifest("v1", "ConfigMap", "text", None, data={"jwks": JWKS[0]}),
    ]
