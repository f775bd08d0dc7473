"""What an expansion depends on outside its Ingress: other Ingresses of the namespace, a Gateway, Services."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import cast

from controlplane.api.ingress import DEFAULT_CLASS_ANNOTATION, Ingress, IngressClass
from controlplane.api.meta import GATEWAY_GROUP, INGRESS_GROUP, ObjectKey
from controlplane.compile.hosts import ANY, candidates
from controlplane.compile.ingress_hosts import hosts_of, tls_secrets

Token = tuple[str, str, str]
"""What one Ingress has and others depend on: namespace; `tls`, `main` or `canary`; host."""
Ports = Mapping[str, int]
"""Numbers of a Service's ports, by name."""
Sections = tuple[tuple[str, str], ...]
"""Name and protocol of each listener of a Gateway."""


def tokens(ingress: Ingress, canary: bool) -> tuple[frozenset[Token], frozenset[Token]]:
    """Returns what an Ingress has that others depend on, and what it depends on that others have."""
    namespace = ingress.metadata.namespace
    hosts = {(rule.host or ANY).lower() for rule in ingress.spec.rules}
    secrets = {} if canary else tls_secrets(ingress)
    named = {host.lower() for each in ingress.spec.tls for host in each.hosts}
    has = {(namespace, "tls", host) for host in secrets}
    has |= {(namespace, "canary" if canary else "main", host) for host in hosts}
    heeds = {(namespace, "tls", each) for host in hosts | named | {ANY} for each in candidates(host)}
    heeds |= {(namespace, "main" if canary else "canary", host) for host in hosts}
    return frozenset(has), frozenset(heeds)


def named_ports(ingress: Ingress) -> frozenset[str]:
    """Returns the Services of which an Ingress names ports that have no number."""
    backends = [path.backend for _, _, path in hosts_of(ingress)]
    services = [each.service for each in (*backends, ingress.spec.default_backend) if each is not None]
    return frozenset(each.name for each in services if each is not None and each.port.name)


def in_order(ingresses: Iterable[Ingress]) -> list[Ingress]:
    """Returns Ingresses of one namespace without repeats, the older first, then by name."""
    unique = {each.key: each for each in ingresses}
    return sorted(unique.values(), key=_age)


def _age(ingress: Ingress) -> tuple[float, str]:
    created = ingress.metadata.creation_timestamp
    return (created.timestamp() if created else 0.0, ingress.metadata.name)


def class_key(name: str) -> ObjectKey:
    """Returns the key of an IngressClass."""
    return ObjectKey(INGRESS_GROUP, "IngressClass", "", name)


def is_default(found: IngressClass) -> bool:
    """Says whether Ingresses that name no class are of this one."""
    return found.metadata.annotations.get(DEFAULT_CLASS_ANNOTATION) == "true"


def gateway_of(found: IngressClass) -> ObjectKey | None:
    """Returns the Gateway that a class names."""
    ref = found.spec.parameters
    if ref is None or (ref.api_group, ref.kind, ref.scope) != (GATEWAY_GROUP, "Gateway", "Namespace"):
        return None
    return ObjectKey(GATEWAY_GROUP, "Gateway", ref.namespace, ref.name) if ref.namespace else None


def sections(document: Mapping[str, object]) -> Sections:
    """Returns name and protocol of each listener, of Gateways that have faults too."""
    listeners = _mappings(_mapping(document.get("spec")).get("listeners"))
    return tuple((str(each.get("name")), str(each.get("protocol")).upper()) for each in listeners)


def ports(document: Mapping[str, object]) -> Ports:
    """Returns the numbers of a Service's ports by name."""
    found = _mappings(_mapping(document.get("spec")).get("ports"))
    named = ((each.get("name"), each.get("port")) for each in found)
    return {name: port for name, port in named if isinstance(name, str) and isinstance(port, int)}


def _mapping(value: object) -> Mapping[str, object]:
    return cast("Mapping[str, object]", value) if isinstance(value, Mapping) else {}


def _mappings(value: object) -> list[Mapping[str, object]]:
    return [_mapping(each) for each in cast("list[object]", value)] if isinstance(value, list) else []
