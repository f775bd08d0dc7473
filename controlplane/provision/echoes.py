"""Which addresses of a folder want an echo backend: those of Backends and EndpointSlices that are annotated so."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Final, NamedTuple

from controlplane.api.backend import Backend
from controlplane.api.endpointslice import EndpointSlice
from controlplane.provision.address import Address, TcpAddress, UnixAddress

ANNOTATION: Final = "dragoman.dev/echo"


class Echo(NamedTuple):
    """An echo backend to run: the name that it signs with, and where it listens."""

    name: str
    address: Address


def echoes(objects: Iterable[object]) -> tuple[Echo, ...]:
    """Returns the echo backends that objects ask for with the annotation `dragoman.dev/echo: "true"`.

    Only loopback addresses and Unix sockets count: a folder cannot open a port to others. An address that several
    objects name is served once, under the first name.
    """
    found: dict[Address, Echo] = {}
    for item in objects:
        if isinstance(item, (Backend, EndpointSlice)) and item.metadata.annotations.get(ANNOTATION) == "true":
            name = item.service_name if isinstance(item, EndpointSlice) else item.metadata.name
            for address in _slice_addresses(item) if isinstance(item, EndpointSlice) else _backend_addresses(item):
                found.setdefault(address, Echo(name or item.metadata.name, address))
    return tuple(found.values())


def _backend_addresses(backend: Backend) -> Iterable[Address]:
    for endpoint in backend.spec.endpoints:
        if endpoint.ip is not None and _is_loopback(endpoint.ip.address):
            yield TcpAddress(endpoint.ip.address, endpoint.ip.port)
        elif endpoint.unix is not None:
            yield UnixAddress(endpoint.unix.path)


def _slice_addresses(slice_: EndpointSlice) -> Iterable[Address]:
    for endpoint in slice_.endpoints:
        for port in slice_.ports:
            if port.port is not None and port.protocol == "TCP" and _is_loopback(endpoint.addresses[0]):
                yield TcpAddress(endpoint.addresses[0], port.port)


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False
