"""TLSRoutes, TCPRoutes and UDPRoutes with their references resolved, whatever they are attached to."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from controlplane.api.tcproute import TCPRoute
from controlplane.api.tlsroute import TLSRoute
from controlplane.api.udproute import UDPRoute
from controlplane.compile.backends import resolve
from controlplane.compile.compiled import CompiledRoute
from controlplane.compile.view import View
from controlplane.conditions import Condition
from controlplane.ir import Carried, ClusterId, WeightedBackend

_CARRIES: Final[Mapping[str, Carried]] = MappingProxyType(
    {"TLSRoute": "streams", "TCPRoute": "streams", "UDPRoute": "datagrams"}
)


def compile_route(view: View, route: TLSRoute | TCPRoute | UDPRoute) -> CompiledRoute:
    """Compiles a route's only rule; the share of a reference that cannot be resolved is refused, and a fault.

    What refers to one backend more than once has it once, with the sum of the weights.
    """
    faults: list[Condition] = []
    weights: dict[ClusterId | None, int] = {}
    for index, ref in enumerate(route.spec.rules[0].backend_refs):
        field = f"spec.rules[0].backendRefs[{index}]"
        resolved = resolve(view, ref, source=route.key, field=field, carries=_CARRIES[route.kind])
        if resolved.fault is not None:
            faults.append(resolved.fault)
        weights[resolved.cluster] = weights.get(resolved.cluster, 0) + ref.weight
    backends = tuple(WeightedBackend(cluster, weight) for cluster, weight in weights.items() if weight)
    return CompiledRoute(faults=tuple(faults), backends=backends)
