"""At which addresses a Gateway is reached, and what is wrong with them."""

from __future__ import annotations

from typing import Any

from controlplane.api.meta import GATEWAY_GROUP, ObjectKey
from controlplane.provision.kubernetes.addresses import (
    address_trouble,
    is_serving,
    node_addresses,
    service_addresses,
    workload_trouble,
)
from controlplane.provision.kubernetes.wanted import ListenerPort, WantedGateway


def wanted(*addresses: tuple[str, str], ports: tuple[ListenerPort, ...] = (ListenerPort(80),)) -> WantedGateway:
    key = ObjectKey(GATEWAY_GROUP, "Gateway", "demo", "edge")
    return WantedGateway(key=key, uid="u", ports=ports, addresses=addresses)


def service(type_: str = "LoadBalancer", *ingress: dict[str, str]) -> dict[str, Any]:
    spec = {"type": type_, "clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9", "fd00::9"]}
    return {"metadata": {}, "spec": spec, "status": {"loadBalancer": {"ingress": list(ingress)} if ingress else {}}}


def reason(gateway: WantedGateway, found: dict[str, Any] | None) -> str | None:
    addresses = service_addresses(found) if found is not None else ()
    trouble = address_trouble(gateway, found, addresses)
    return None if trouble is None else trouble.reason


def test_a_load_balancer_gives_addresses_or_names() -> None:
    found = service_addresses(
        service("LoadBalancer", {"ip": "192.0.2.1"}, {"hostname": "lb.example"}, {"ip": "192.0.2.1"})
    )
    assert found == (("IPAddress", "192.0.2.1"), ("Hostname", "lb.example"))


def test_other_services_have_their_own_addresses_or_those_of_nodes() -> None:
    own = (("IPAddress", "10.96.0.9"), ("IPAddress", "fd00::9"))
    assert service_addresses(service("ClusterIP")) == own
    assert service_addresses(service("NodePort")) == own
    assert service_addresses(service("NodePort"), nodes=["192.0.2.7"]) == (("IPAddress", "192.0.2.7"),)


def test_external_addresses_of_nodes_go_before_internal_ones() -> None:
    internal = {"status": {"addresses": [{"type": "InternalIP", "address": "10.0.0.1"}]}}
    external = {"status": {"addresses": [{"type": "ExternalIP", "address": "192.0.2.1"}]}}
    assert node_addresses({"items": [internal]}) == ("10.0.0.1",)
    assert node_addresses({"items": [internal, external]}) == ("192.0.2.1",)


def test_an_address_is_awaited_and_one_that_is_asked_for_must_be_it() -> None:
    one = service("LoadBalancer", {"ip": "192.0.2.1"})
    assert reason(wanted(), None) == "AddressNotAssigned"
    assert reason(wanted(), service()) == "AddressNotAssigned"
    assert reason(wanted(), one) is None
    assert reason(wanted(("IPAddress", "")), one) is None
    assert reason(wanted(("IPAddress", "192.0.2.1")), one) is None
    assert reason(wanted(("IPAddress", "192.0.2.2")), one) == "AddressNotUsable"
    assert reason(wanted(("IPAddress", "192.0.2.1"), ("IPAddress", "192.0.2.2")), one) == "AddressNotUsable"
    assert reason(wanted(ports=()), one) == "Invalid"


def test_the_address_that_is_not_usable_is_named_with_its_field() -> None:
    found = service("ClusterIP")
    trouble = address_trouble(wanted(("IPAddress", "192.0.2.2")), found, service_addresses(found))
    assert trouble is not None
    assert trouble.field == "spec.addresses[0]"
    assert "192.0.2.2" in trouble.message
    assert "only a Service of type LoadBalancer" in trouble.message


def test_pods_that_cannot_be_made_are_told_of() -> None:
    failure = {"type": "ReplicaFailure", "status": "True", "message": "exceeded quota"}
    trouble = workload_trouble({"status": {"conditions": [failure]}})
    assert trouble is not None
    assert (trouble.reason, "exceeded quota" in trouble.message) == ("NoResources", True)
    assert workload_trouble({"status": {"conditions": [{**failure, "status": "False"}]}}) is None
    assert workload_trouble(None) is None


def test_a_workload_serves_when_all_that_it_wants_is_available() -> None:
    metadata = {"generation": 2}
    deployment = {"metadata": metadata, "spec": {"replicas": 2}}
    assert not is_serving(None)
    assert not is_serving({**deployment, "status": {"observedGeneration": 1, "availableReplicas": 2}})
    assert not is_serving({**deployment, "status": {"observedGeneration": 2, "availableReplicas": 1}})
    assert is_serving({**deployment, "status": {"observedGeneration": 2, "availableReplicas": 2}})
    daemons = {"observedGeneration": 2, "desiredNumberScheduled": 0, "numberAvailable": 0}
    assert not is_serving({"metadata": metadata, "kind": "DaemonSet", "status": daemons})
    assert is_serving({"metadata": metadata, "status": {**daemons, "desiredNumberScheduled": 1, "numberAvailable": 1}})
