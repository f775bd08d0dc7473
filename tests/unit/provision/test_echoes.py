from __future__ import annotations

from typing import Any

from controlplane.api.backend import Backend
from controlplane.api.endpointslice import EndpointSlice
from controlplane.provision.address import TcpAddress, UnixAddress
from controlplane.provision.echoes import Echo, echoes


def backend(name: str, *endpoints: dict[str, Any], asks: bool = True) -> Backend:
    annotations = {"dragoman.dev/echo": "true"} if asks else {}
    return Backend.model_validate(
        {
            "apiVersion": "dragoman.dev/v1alpha1",
            "kind": "Backend",
            "metadata": {"namespace": "demo", "name": name, "annotations": annotations},
            "spec": {"endpoints": list(endpoints)},
        }
    )


def test_only_annotated_backends_on_this_machine_are_run() -> None:
    found = echoes(
        [
            backend("a", {"ip": {"address": "127.0.0.1", "port": 1}}, {"ip": {"address": "192.0.2.1", "port": 1}}),
            backend("b", {"unix": {"path": "/tmp/b.sock"}}),
            backend("c", {"ip": {"address": "127.0.0.1", "port": 2}}, asks=False),
            backend("d", {"ip": {"address": "127.0.0.1", "port": 1}}),
            "something else",
        ]
    )
    assert found == (Echo("a", TcpAddress("127.0.0.1", 1)), Echo("b", UnixAddress("/tmp/b.sock")))


def test_the_endpoints_of_a_service_are_run_under_its_name() -> None:
    document = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "namespace": "demo",
            "name": "shop-1",
            "labels": {"kubernetes.io/service-name": "shop"},
            "annotations": {"dragoman.dev/echo": "true"},
        },
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 18080}],
        "endpoints": [{"addresses": ["127.0.0.1"]}, {"addresses": ["192.0.2.1"]}],
    }
    assert echoes([EndpointSlice.model_validate(document)]) == (Echo("shop", TcpAddress("127.0.0.1", 18080)),)
