"""Where a request comes in: the port, the filter chain, and the virtual host, chosen as Envoy chooses them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from controlplane import ir
from controlplane.api.meta import ObjectKey
from controlplane.compile import hosts
from controlplane.explain.request import Request, address_of
from controlplane.pipeline import Pipeline
from controlplane.pipeline.policies import Place

_MOST_NAMES = 8


class Port(NamedTuple):
    """A port of a Gateway, and how the request's port is it."""

    gateway: ObjectKey
    listener: ir.PortListener
    why: str


class At(NamedTuple):
    """A virtual host of a RouteConfiguration: whose listener its domain is (None: another connection's), and why."""

    domain: str | None
    place: Place | None
    why: str


def ports(
    pipeline: Pipeline, request: Request, *, gateway: str | None, listener: str | None
) -> tuple[Sequence[Port], str]:
    """Returns the ports that the request may mean, and what there is where it can mean none."""
    everything = [
        (key, port)
        for key in sorted(pipeline.parts.attachments.our_gateways())
        for port in pipeline.parts.listeners.ports(key)
        if gateway in (None, _name(key)) and port.transport == "TCP"
    ]
    if listener is not None:
        everything = [(key, port) for key, port in everything if _has_listener(pipeline, key, port, listener)]
        return [Port(key, port, f"listener {listener} was asked for") for key, port in everything], _known(
            pipeline, everything
        )
    bound = [
        Port(key, port, f"port {port.port} is bound to {_shown(found)}")
        for key, port in everything
        if (found := _bound_to(pipeline, key, port, request)) is not None
    ]
    own = [Port(key, port, f"port {port.port}") for key, port in everything if port.port == request.port]
    found = bound or own
    fitting = [each for each in found if each.listener.tls == (request.scheme == "https")]
    return fitting or found, _known(pipeline, everything)


def chain(port: ir.PortListener, request: Request) -> ir.FilterChain | ir.StreamChain | None:
    """Returns the filter chain that has the connection; None where it is closed."""
    if not port.tls:
        return next(iter(port.chains), None)
    name = request.server_name
    for pattern in hosts.candidates(name) if name is not None else (hosts.ANY,):
        for each in port.chains:
            if pattern in _names(each):
                return each
    return None


def virtual_host(pipeline: Pipeline, gateway: ObjectKey, configuration: str, host: str) -> At:
    """Returns the virtual host for a host: the exact domain, else the longest wildcard, else `*`."""
    domains = dict(pipeline.parts.http.domains(gateway, configuration))
    for pattern in hosts.candidates(host):
        if pattern in domains:
            return At(pattern, domains[pattern], _why(pattern, host))
    known = ", ".join(list(domains)[:_MOST_NAMES]) or "none"
    return At(None, None, f"no hostname here is {host}; there are: {known}")


def names(port: ir.PortListener) -> str:
    """Names the host names that a port has listeners for."""
    found = dict.fromkeys(name for each in port.chains for name in _names(each))
    return f"there are: {', '.join(list(found)[:_MOST_NAMES]) or 'none'}" + (" …" if len(found) > _MOST_NAMES else "")


def listener_field(pipeline: Pipeline, place: Place) -> str:
    """Returns the path of a listener in the object that has it."""
    owner = pipeline.parts.objects.get(place.owner)
    names = [each.name for each in owner.spec.listeners] if owner is not None else []
    return f"spec.listeners[{names.index(place.name)}]" if place.name in names else "spec.listeners"


def _why(pattern: str, host: str) -> str:
    if pattern == host:
        return f"it is {host} itself"
    if pattern == hosts.ANY:
        return f"no domain is {host} or a wildcard of it"
    return f"no domain is {host}, and no longer wildcard has it"


def _names(each: ir.FilterChain | ir.StreamChain) -> Iterable[str]:
    if isinstance(each, ir.FilterChain):
        return ((each.hostname or hosts.ANY).lower(),)
    return tuple(name.lower() for name in each.hostnames) or (hosts.ANY,)


def _has_listener(pipeline: Pipeline, key: ObjectKey, port: ir.PortListener, listener: str) -> bool:
    judged = pipeline.parts.attachments.judged.get(key) or ()
    return any(
        listener in (each.name, each.id) and each.port == port.port and each.transport == port.transport
        for each in judged
        if each.serves
    )


def _bound_to(pipeline: Pipeline, key: ObjectKey, port: ir.PortListener, request: Request) -> tuple[str, int] | None:
    for host, number in pipeline.bindings.peek((_name(key), port.port)) or ():
        here = not address_of(request.host) or request.host.strip("[]") == host or host in ("0.0.0.0", "::")
        if number == request.port and here:
            return host, number
    return None


def _known(pipeline: Pipeline, everything: Iterable[tuple[ObjectKey, ir.PortListener]]) -> str:
    """Names ports, with where they are bound if that is another port."""
    found: list[str] = []
    for key, port in everything:
        bound = [each for each in pipeline.bindings.peek((_name(key), port.port)) or () if each[1] != port.port]
        more = [*(["TLS"] if port.tls else []), *(f"bound to {_shown(each)}" for each in bound)]
        found.append(f"{port.port} of {_name(key)}" + (f" ({', '.join(more)})" if more else ""))
    return ", ".join(found)


def _shown(endpoint: tuple[str, int]) -> str:
    host, port = endpoint
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _name(key: ObjectKey) -> str:
    return f"{key.namespace}/{key.name}"
