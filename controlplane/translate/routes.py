# pyright: standard, reportAttributeAccessIssue=false
"""Routes, virtual hosts and route configurations, assembled from bytes that were encoded once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from envoy.config.route.v3.route_components_pb2 import DirectResponseAction, Route, VirtualHost
from envoy.config.route.v3.route_pb2 import RouteConfiguration

from controlplane import ir
from controlplane.translate import tree
from controlplane.translate.actions import default_retry_policy
from controlplane.translate.overlays import base, overlay
from controlplane.translate.wire import embed, encode, field_numbers

_ROUTES = field_numbers(VirtualHost)["routes"]
_VIRTUAL_HOSTS = field_numbers(RouteConfiguration)["virtual_hosts"]
_RETRIES = encode(VirtualHost(retry_policy=default_retry_policy()))


def branch(source: ir.Route, *, port: int, https: bool) -> tree.Branch:
    """Returns one route as it stands in a matcher tree on a listener of this port."""
    by_path = replace(source, match=ir.Match(source.match.path))
    return tree.branch(source.match, route(by_path, port=port, https=https))


def route(source: ir.Route, *, port: int, https: bool) -> bytes:
    """Encodes one route as it stands on a listener of this port."""
    made = base(source.name, source.match, source.rule, port=port, https=https)
    return overlay(source.policies).over(made)


def virtual_host(domain: str, routes: Iterable[bytes]) -> bytes:
    """Encodes a virtual host: its routes in the order given."""
    return virtual_host_of_list(domain, map(listed, routes))


def virtual_host_of_list(domain: str, routes: Iterable[bytes]) -> bytes:
    """Encodes a virtual host out of its routes in order, each as `listed` returns it."""
    return b"".join((_head(domain), *routes))


def listed(route: bytes) -> bytes:
    """Returns an encoded route as it stands in the list of a virtual host."""
    return embed(_ROUTES, route)


def virtual_host_of_tree(domain: str, stages: Sequence[Sequence[tree.Branch]]) -> bytes:
    """Encodes a virtual host whose routes stand in a matcher tree; a stage holds the branches of one hostname."""
    return _head(domain) + tree.matcher(stages)


def virtual_host_of_parts(domain: str, parts: Iterable[bytes]) -> bytes:
    """Encodes a virtual host, as a part of a RouteConfiguration, out of matchers that are tried in this order."""
    return part(_head(domain) + tree.joined(parts))


def misdirected(domain: str) -> bytes:
    """Encodes a virtual host that answers 421: the request belongs on another connection (RFC 9110 §15.5.20)."""
    answer = Route(match={"prefix": "/"}, direct_response=DirectResponseAction(status=421))
    return virtual_host(domain, [encode(answer)])


def part(virtual_host: bytes) -> bytes:
    """Returns an encoded virtual host as it stands in a RouteConfiguration."""
    return embed(_VIRTUAL_HOSTS, virtual_host)


def route_configuration(name: str, parts: Iterable[bytes]) -> bytes:
    """Encodes a RouteConfiguration out of its virtual hosts, each as `part` returns it."""
    return b"".join((head(name), *parts))


def head(name: str) -> bytes:
    """Encodes what a RouteConfiguration begins with; its virtual hosts follow, each as `part` returns it."""
    return encode(RouteConfiguration(name=name, ignore_port_in_host_matching=True))


def _head(domain: str) -> bytes:
    return encode(VirtualHost(name=domain, domains=[domain])) + _RETRIES
