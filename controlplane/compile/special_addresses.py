"""Addresses that mean Envoy's own machine or its link alone: no backend of a cluster has one of these."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address


def is_special(address: str) -> bool:
    """Says whether an address is none that an EndpointSlice may have (Kubernetes: ValidateEndpointIP).

    In a pod they lead to Envoy's admin endpoint, and on many nodes to the keys of the machine.
    """
    found = ip_address(address)
    if isinstance(found, IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    return found.is_loopback or found.is_unspecified or found.is_link_local or found.is_multicast
