"""Faults of one object that its schema cannot see: what Envoy would refuse, and with it what stands beside it."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from datetime import datetime

from controlplane.api.backendtrafficpolicy import BackendTrafficPolicy
from controlplane.api.core import ConfigMap, Secret
from controlplane.api.endpointslice import EndpointSlice
from controlplane.api.faults import Fault
from controlplane.api.gateway import Gateway
from controlplane.api.grpcroute import GRPCRoute
from controlplane.api.httproute import HTTPRoute
from controlplane.api.httproutefilter import HTTPRouteFilter
from controlplane.api.plan import Plan
from controlplane.api.securitypolicy import SecurityPolicy
from controlplane.compile.check_policies import check_limits, check_security
from controlplane.compile.check_routes import check_route, check_route_filter
from controlplane.compile.listener_conflicts import conflicts, members_of
from controlplane.compile.plans import check_plan


def check(object_: object, *, now: datetime) -> tuple[Fault, ...]:
    """Returns what is wrong with an object that its schema accepts."""
    if isinstance(object_, HTTPRoute | GRPCRoute):
        return tuple(check_route(object_))
    if isinstance(object_, SecurityPolicy):
        return tuple(check_security(object_))
    if isinstance(object_, BackendTrafficPolicy):
        return tuple(check_limits(object_))
    if isinstance(object_, Plan):
        return tuple(check_plan(object_))
    if isinstance(object_, HTTPRouteFilter):
        return tuple(check_route_filter(object_))
    if isinstance(object_, Gateway):
        return tuple(_gateway(object_))
    if isinstance(object_, EndpointSlice):
        return tuple(_endpoints(object_))
    if isinstance(object_, (ConfigMap, Secret)):
        return tuple(_certificates(object_, now))
    return ()


def _certificates(object_: ConfigMap | Secret, now: datetime) -> Iterator[Fault]:
    # Only here: what reads certificates takes a while to load.
    from controlplane.compile.check_certificates import check_authorities, check_certificate

    if isinstance(object_, Secret) and object_.type == "kubernetes.io/tls":
        yield from check_certificate(object_, now)
    yield from check_authorities(object_)


def _gateway(gateway: Gateway) -> Iterator[Fault]:
    for listener in conflicts([members_of(gateway)]).values():
        yield Fault(listener.field, listener.message)
    for index, address in enumerate(gateway.spec.addresses):
        if address.type == "IPAddress" and address.value and _family(address.value) is None:
            yield Fault(f"spec.addresses[{index}].value", f"expected an IP address; got {address.value!r}")


def _endpoints(piece: EndpointSlice) -> Iterator[Fault]:
    if piece.address_type == "FQDN":
        message = "addresses of type FQDN are not supported; use a Backend with an fqdn endpoint"
        yield Fault("addressType", message)
        return
    for index, endpoint in enumerate(piece.endpoints):
        for position, address in enumerate(endpoint.addresses):
            if _family(address) != piece.address_type:
                where = f"endpoints[{index}].addresses[{position}]"
                yield Fault(where, f"expected an address of type {piece.address_type}; got {address!r}")


def _family(address: str) -> str | None:
    try:
        return f"IPv{ipaddress.ip_address(address).version}"
    except ValueError:
        return None
