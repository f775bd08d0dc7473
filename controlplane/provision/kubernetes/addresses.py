"""At which addresses a Gateway is reached, and what is wrong with them: pure, from its Service as it is now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from controlplane.conditions import Condition, false
from controlplane.provision.kubernetes.wanted import StatusAddress, WantedGateway

_MOST = 16
"""As many addresses as a Gateway's status may have."""


def service_addresses(service: Mapping[str, Any], *, nodes: Sequence[str] = ()) -> tuple[StatusAddress, ...]:
    """Returns the addresses of a Service: the load balancer's, the nodes' (of NodePort, if known), else its own."""
    spec = _part(service, "spec")
    if spec.get("type") == "LoadBalancer":
        found = tuple(_of_ingress(each) for each in _ingress(service))
        return tuple(dict.fromkeys(each for each in found if each is not None))[:_MOST]
    if spec.get("type") == "NodePort" and nodes:
        return tuple(StatusAddress("IPAddress", each) for each in nodes)[:_MOST]
    own = cast("list[str]", spec.get("clusterIPs") or [spec.get("clusterIP") or "None"])
    return tuple(StatusAddress("IPAddress", each) for each in own if each != "None")


def address_trouble(
    wanted: WantedGateway, service: Mapping[str, Any] | None, addresses: Sequence[StatusAddress]
) -> Condition | None:
    """Returns why a Gateway is not reached where it should be (Gateway API: AddressNotAssigned, AddressNotUsable)."""
    if not wanted.ports:
        return false("Programmed", "Invalid", "no listener has a port that could be served", "spec.listeners")
    given = {each.value for each in addresses}
    for index, (type_, value) in enumerate(wanted.addresses):
        if value and value not in given:
            message = f"the Service was not given {value}" + (f", but {', '.join(sorted(given))}" if given else "")
            field = f"spec.addresses[{index}]"
            return false("Programmed", "AddressNotUsable", _with_hint(message, type_, service), field)
    if given:
        return None
    if service is None:
        return false("Programmed", "AddressNotAssigned", "the Service is not there yet")
    message = "no load balancer has given the Service an address yet"
    return false("Programmed", "AddressNotAssigned", message)


def workload_trouble(workload: Mapping[str, Any] | None) -> Condition | None:
    """Returns why pods cannot even be made, as the Deployment says it (a quota, a policy)."""
    status = _part(workload, "status")
    for each in cast("list[Mapping[str, Any]]", status.get("conditions") or []):
        if each.get("type") == "ReplicaFailure" and each.get("status") == "True":
            return false("Programmed", "NoResources", f"pods cannot be made: {each.get('message', '')}"[:1000])
    return None


def is_serving(workload: Mapping[str, Any] | None) -> bool:
    """Says whether a Deployment or DaemonSet has all the pods that it wants, and they are available."""
    if workload is None:
        return False
    status = _part(workload, "status")
    if status.get("observedGeneration") != workload["metadata"].get("generation"):
        return False
    if workload.get("kind") == "DaemonSet" or "desiredNumberScheduled" in status:
        return 0 < int(status.get("desiredNumberScheduled", 0)) <= int(status.get("numberAvailable", 0))
    return 0 < int(_part(workload, "spec").get("replicas", 1)) <= int(status.get("availableReplicas", 0))


def node_addresses(nodes: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the addresses of the nodes of a list: external ones where there are any, else internal ones."""
    by_type: dict[str, list[str]] = {}
    for node in cast("list[Mapping[str, Any]]", nodes.get("items") or []):
        for each in cast("list[Mapping[str, Any]]", _part(node, "status").get("addresses") or []):
            by_type.setdefault(str(each.get("type")), []).append(str(each.get("address")))
    return tuple(sorted(by_type.get("ExternalIP") or by_type.get("InternalIP") or []))[:_MOST]


def _ingress(service: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return _part(_part(service, "status"), "loadBalancer").get("ingress") or []


def _part(document: Mapping[str, Any] | None, name: str) -> Mapping[str, Any]:
    return (document or {}).get(name) or {}


def _of_ingress(entry: Mapping[str, Any]) -> StatusAddress | None:
    if entry.get("ip"):
        return StatusAddress("IPAddress", str(entry["ip"]))
    return StatusAddress("Hostname", str(entry["hostname"])) if entry.get("hostname") else None


def _with_hint(message: str, type_: str, service: Mapping[str, Any] | None) -> str:
    kind = _part(service, "spec").get("type")
    if service is not None and kind != "LoadBalancer" and type_ == "IPAddress":
        return f"{message}; only a Service of type LoadBalancer can ask for addresses, and this is a {kind}"
    return message
