"""Which hosts and paths an Ingress names, and which certificates it has for them."""

from __future__ import annotations

from collections.abc import Iterator

from controlplane.api.ingress import HTTPIngressPath, Ingress
from controlplane.compile.hosts import ANY
from controlplane.compile.ingress_annotations import PREFIX, settings


def hosts_of(ingress: Ingress) -> Iterator[tuple[str, str, HTTPIngressPath]]:
    """Yields every path with its host (ANY where none is named) and its field."""
    for index, rule in enumerate(ingress.spec.rules):
        for position, path in enumerate(rule.http.paths if rule.http is not None else ()):
            yield (rule.host or ANY).lower(), f"spec.rules[{index}].http.paths[{position}]", path


def tls_of(ingress: Ingress) -> Iterator[tuple[str, str, str, str]]:
    """Yields each host of `spec.tls` (ANY where none is named), with field, Secret, and the field of the host."""
    for index, each in enumerate(ingress.spec.tls):
        field = f"spec.tls[{index}]"
        for position, host in enumerate(each.hosts):
            yield host.lower(), field, each.secret_name, f"{field}.hosts[{position}]"
        if not each.hosts:
            yield ANY, field, each.secret_name, field


def tls_secrets(ingress: Ingress) -> dict[str, str]:
    """Returns the hosts (ANY for every one) that an Ingress has a certificate for, and the Secrets."""
    found: dict[str, str] = {}
    for host, _, secret_name, _ in tls_of(ingress):
        if secret_name:
            found.setdefault(host, secret_name)
    return found


def is_canary(ingress: Ingress) -> bool:
    """Says whether an Ingress only takes a share of what another has."""
    annotations = ingress.metadata.annotations
    return f"{PREFIX}canary" in annotations and settings(annotations).canary is not None
