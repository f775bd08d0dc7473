"""Listeners of ListenerSets in what Envoys are sent."""

from __future__ import annotations

from typing import Any

import pytest

from controlplane.api.meta import GATEWAY_GROUP, ObjectKey
from controlplane.pipeline import Pipeline
from controlplane.translate.dump import to_dict
from controlplane.xds import resources as xds
from tests.support.certificates import Authority
from tests.unit.pipeline.driver import put, stabilise

EDGE = ObjectKey(GATEWAY_GROUP, "Gateway", "demo", "edge")
V1 = f"{GATEWAY_GROUP}/v1"


def manifest(api_version: str, kind: str, name: str, **fields: Any) -> dict[str, Any]:
    return {"apiVersion": api_version, "kind": kind, "metadata": {"namespace": "demo", "name": name}, **fields}


def https(name: str, port: int) -> dict[str, Any]:
    return {"name": name, "port": port, "protocol": "HTTPS", "tls": {"certificateRefs": [{"name": "server"}]}}


def documents(frontend: dict[str, Any]) -> list[dict[str, Any]]:
    authority = Authority()
    return [
        manifest(V1, "GatewayClass", "dragoman", spec={"controllerName": "dragoman.dev/gateway-controller"}),
        manifest("v1", "ConfigMap", "clients", data={"ca.crt": authority.cert_pem}),
        authority.leaf("shop.example.com").secret("demo", "server"),
        manifest(
            V1,
            "Gateway",
            "edge",
            spec={
                "gatewayClassName": "dragoman",
                "allowedListeners": {"namespaces": {"from": "Same"}},
                "tls": {"frontend": frontend},
                "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}],
            },
        ),
        manifest(V1, "ListenerSet", "more", spec={"parentRef": {"name": "edge"}, "listeners": [https("own", 8443)]}),
    ]


VALIDATION = {"validation": {"caCertificateRefs": [{"group": "", "kind": "ConfigMap", "name": "clients"}]}}


@pytest.mark.parametrize(
    "frontend",
    [{"default": VALIDATION}, {"default": {}, "perPort": [{"port": 8443, "tls": VALIDATION}]}],
    ids=["default", "of the port"],
)
def test_whom_a_port_of_a_listener_set_alone_trusts_is_sent_with_its_listener(frontend: dict[str, Any]) -> None:
    pipeline = Pipeline()
    for document in documents(frontend):
        put(pipeline, document)
    stabilise(pipeline)
    sent = pipeline.snapshots.current()[EDGE].resources
    (body,) = [each.body for name, each in sent[xds.LISTENER].items() if name.endswith("/8443")]
    (chain,) = to_dict(xds.LISTENER, body)["filterChains"]
    tls = chain["transportSocket"]["typedConfig"]["commonTlsContext"]
    assert tls["validationContextSdsSecretConfig"]["name"] in sent[xds.SECRET]


def test_a_listener_that_joins_many_recomputes_nothing_of_theirs() -> None:
    pipeline = Pipeline()
    for document in documents({"default": {}}):
        put(pipeline, document)
    for number in range(20):
        put(pipeline, listener_set(number))
        put(pipeline, route_of(number))
    stabilise(pipeline)
    pipeline.graph.recomputed.clear()
    put(pipeline, listener_set(20))
    put(pipeline, route_of(20))
    stabilise(pipeline)
    counted = pipeline.graph.recomputed
    once = ("attachment", "filter chain", "pieces", "route configuration")
    assert {name: counted[name] for name in once} == dict.fromkeys(once, 1)


def listener_set(number: int) -> dict[str, Any]:
    listener = {**https("own", 443), "hostname": f"h{number}.example.com"}
    return manifest(V1, "ListenerSet", f"set-{number}", spec={"parentRef": {"name": "edge"}, "listeners": [listener]})


def route_of(number: int) -> dict[str, Any]:
    parent = {"kind": "ListenerSet", "name": f"set-{number}"}
    return manifest(V1, "HTTPRoute", f"route-{number}", spec={"parentRefs": [parent], "rules": [{"name": "all"}]})
