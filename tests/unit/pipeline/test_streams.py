"""What a change of a stream's route, backend or endpoint touches, and what it leaves alone."""

from __future__ import annotations

from typing import Any

import pytest

from controlplane.pipeline import Pipeline
from controlplane.xds import resources as xds
from tests.support import manifests as m
from tests.unit.pipeline.driver import drop, put, stabilise

LISTENERS = [
    {"name": "tls", "port": 443, "protocol": "TLS", "tls": {"mode": "Passthrough"}},
    {"name": "tcp", "port": 9300, "protocol": "TCP"},
    {"name": "udp", "port": 53, "protocol": "UDP"},
    {"name": "idle", "port": 9301, "protocol": "TCP"},
]


def service(name: str) -> dict[str, Any]:
    ports = [{"name": "tcp", "port": 80}, {"name": "udp", "port": 80, "protocol": "UDP"}]
    return m.manifest("v1", "Service", name, {"ports": ports})


def slice_of(name: str, *addresses: str) -> dict[str, Any]:
    made = m.endpoint_slice(name, *addresses)
    made["ports"] = [{"name": "tcp", "port": 3000}, {"name": "udp", "port": 3001, "protocol": "UDP"}]
    return made


def route(kind: str, name: str, *backends: tuple[str, int], hostnames: list[str] | None = None) -> dict[str, Any]:
    refs = [{"name": backend, "port": 80, "weight": weight} for backend, weight in backends]
    section = {"TLSRoute": "tls", "TCPRoute": "tcp", "UDPRoute": "udp"}[kind]
    spec = {"parentRefs": [{"name": "edge", "sectionName": section}], "rules": [{"backendRefs": refs}]}
    return m.manifest(m.GATEWAY_API, kind, name, {**spec, **({"hostnames": hostnames} if hostnames else {})})


@pytest.fixture
def pipeline() -> Pipeline:
    made = Pipeline()
    for document in (
        m.gateway_class(),
        m.gateway(listeners=LISTENERS),
        *(service(name) for name in ("one", "two")),
        *(slice_of(name, "192.0.2.1") for name in ("one", "two")),
        route("TCPRoute", "tcp", ("one", 1)),
        route("UDPRoute", "udp", ("one", 1)),
    ):
        put(made, document)
    for index in range(50):
        put(made, route("TLSRoute", f"tls-{index}", ("one", 1), hostnames=[f"h{index}.example.com"]))
    stabilise(made)
    made.graph.recomputed.clear()
    return made


def changed(pipeline: Pipeline, *documents: dict[str, Any], gone: bool = False) -> set[tuple[str, str]]:
    """Writes documents (or deletes them); returns the type and name of each resource that is new, other, or gone."""
    (before,) = pipeline.snapshots.current().values()
    for document in documents:
        (drop if gone else put)(pipeline, document)
    stabilise(pipeline)
    (after,) = pipeline.snapshots.current().values()
    return {
        (type_url, name)
        for type_url in after.resources
        for name in {*before.of_type(type_url), *after.of_type(type_url)}
        if before.of_type(type_url).get(name) != after.of_type(type_url).get(name)
    }


def test_a_change_of_endpoints_touches_no_listener_and_no_cluster(pipeline: Pipeline) -> None:
    found = changed(pipeline, slice_of("one", "192.0.2.1", "192.0.2.2"))
    assert {type_url for type_url, _ in found} == {xds.ENDPOINT}
    assert len(found) == 3  # for bytes, for TLS that goes through, and for the UDPRoute


def test_new_weights_and_backends_of_a_udp_route_touch_nothing_but_its_endpoints(pipeline: Pipeline) -> None:
    found = changed(pipeline, route("UDPRoute", "udp", ("one", 3), ("two", 2), ("gone", 1)))
    assert [type_url for type_url, _ in found] == [xds.ENDPOINT]


def test_a_change_of_one_tls_route_among_many_encodes_its_chain_alone(pipeline: Pipeline) -> None:
    found = changed(pipeline, route("TLSRoute", "tls-7", ("one", 1), ("two", 1), hostnames=["h7.example.com"]))
    assert (xds.LISTENER, "demo/edge/443") in found
    assert pipeline.graph.recomputed["filter chain"] == 1


def test_a_listener_without_a_route_is_not_sent_and_all_the_same_waits_to_be_programmed(pipeline: Pipeline) -> None:
    (snapshot,) = pipeline.snapshots.current().values()
    assert set(snapshot.of_type(xds.LISTENER)) == {"demo/edge/443", "demo/edge/9300", "demo/edge/53/UDP"}
    statuses = {str(key): status for key, status in pipeline.statuses.current().items()}
    conditions = {
        each.name: {c.type: c.status for c in each.conditions} for each in statuses["Gateway demo/edge"].listeners
    }
    assert (
        conditions["idle"] == conditions["tcp"] == {"Accepted": "True", "ResolvedRefs": "True", "Programmed": "Unknown"}
    )


def test_the_last_route_takes_the_listener_and_the_cluster_with_it(pipeline: Pipeline) -> None:
    found = changed(pipeline, route("UDPRoute", "udp", ("one", 1)), gone=True)
    assert {type_url for type_url, _ in found} == {xds.LISTENER, xds.CLUSTER, xds.ENDPOINT}
    (snapshot,) = pipeline.snapshots.current().values()
    assert "demo/edge/53/UDP" not in snapshot.of_type(xds.LISTENER)
