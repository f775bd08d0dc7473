"""Workers of the services are found by the EndpointSlices of their Services."""

from __future__ import annotations

from controlplane.api.meta import DISCOVERY_GROUP, ObjectKey
from controlplane.cluster.services import ServiceWorkers, parse_service
from tests.unit.compile.view import PlainView

SERVICE = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "authz", "namespace": "system"},
    "spec": {"ports": [{"name": "grpc", "port": 9001}]},
}
SLICE = {
    "apiVersion": "discovery.k8s.io/v1",
    "kind": "EndpointSlice",
    "metadata": {"name": "authz-1", "namespace": "system", "labels": {"kubernetes.io/service-name": "authz"}},
    "addressType": "IPv4",
    "ports": [{"name": "grpc", "port": 19001}],
    "endpoints": [
        {"addresses": ["10.0.0.1"], "conditions": {"ready": True}},
        {"addresses": ["10.0.0.2"], "conditions": {"ready": False}},
    ],
}
NAME = "authz.system.svc.cluster.local:9001"


def test_a_name_of_a_service_becomes_its_ready_endpoints() -> None:
    workers = ServiceWorkers({"dragoman-authz": [NAME]})
    assert workers.addresses(PlainView(SERVICE, SLICE)) == {"dragoman-authz": ("10.0.0.1:19001",)}


def test_what_is_no_service_of_the_cluster_stays_as_it_is() -> None:
    given = ["unix:/run/authz", "authz.example.com:9001", NAME]
    workers = ServiceWorkers({"dragoman-authz": given})
    assert workers.addresses(PlainView()) == {"dragoman-authz": tuple(given)}
    assert parse_service("a.b.svc:80") is not None
    assert parse_service("a.b.svc.cluster.local:http") is None


def test_only_objects_of_the_services_concern_them() -> None:
    workers = ServiceWorkers({"dragoman-authz": [NAME]})
    assert workers.concerned([ObjectKey(DISCOVERY_GROUP, "EndpointSlice", "system", "authz-1")])
    assert workers.concerned([ObjectKey("", "Service", "system", "authz")])
    assert not workers.concerned([ObjectKey(DISCOVERY_GROUP, "EndpointSlice", "shop", "authz-1")])
    assert not ServiceWorkers({"dragoman-authz": ["127.0.0.1:9001"]}).concerned(
        [ObjectKey(DISCOVERY_GROUP, "EndpointSlice", "system", "authz-1")]
    )
