"""Which listeners of a Gateway serve which names: by port and hostname, and by the RouteConfiguration they share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from controlplane.api.meta import ObjectKey
from controlplane.compile.gateway import GatewayListener, route_config_name
from controlplane.compile.hosts import ANY
from controlplane.compile.protocols import HTTP_ROUTES, Transport


@dataclass(frozen=True, slots=True)
class Serving:
    """Ids of listeners that serve. `hostnames` has those of a port, `*` for none; there may be thousands."""

    hostnames: Mapping[tuple[int, Transport], Mapping[str, str]]
    configurations: Mapping[str, tuple[str, ...]]


def serving(gateway: ObjectKey, judged: Iterable[GatewayListener]) -> Serving:
    """Returns what serves of a Gateway."""
    identity = f"{gateway.namespace}/{gateway.name}"
    hostnames: dict[tuple[int, Transport], dict[str, str]] = {}
    configurations: dict[str, list[str]] = {}
    for each in judged:
        if each.serves:
            hostnames.setdefault((each.port, each.transport), {})[(each.hostname or ANY).lower()] = each.id
            if set(each.kinds) & set(HTTP_ROUTES):
                configurations.setdefault(route_config_name(identity, each), []).append(each.id)
    return Serving(hostnames, {name: tuple(ids) for name, ids in configurations.items()})
