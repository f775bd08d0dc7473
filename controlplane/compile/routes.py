"""Every kind of route: who compiles it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from controlplane.compile import grpcroute, httproute, streamroutes
from controlplane.compile.compiled import CompiledRoute
from controlplane.compile.view import View

_COMPILERS: Final[Mapping[str, Callable[[View, Any], CompiledRoute]]] = MappingProxyType(
    {
        "HTTPRoute": httproute.compile_route,
        "GRPCRoute": grpcroute.compile_route,
        "TLSRoute": streamroutes.compile_route,
        "TCPRoute": streamroutes.compile_route,
        "UDPRoute": streamroutes.compile_route,
    }
)


def compile_route(view: View, route: Any) -> CompiledRoute:
    """Compiles a route of any kind; one whose kind is not supported yet has no rules."""
    compiler = _COMPILERS.get(route.kind)
    return compiler(view, route) if compiler is not None else CompiledRoute()
