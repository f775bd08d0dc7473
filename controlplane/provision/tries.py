"""Ready-to-paste `curl` lines that try the routes of a folder.

Every HTTPRoute has one for its first path. The annotation `dragoman.dev/curl` gives others, one a line: arguments of
curl, then perhaps a path, then perhaps `# what is to be expected`. On a TCPRoute or TLSRoute it says that curl is
understood there; without it these have none.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from controlplane.api.gateway import Gateway, Listener
from controlplane.api.httproute import HTTPRoute
from controlplane.api.meta import ObjectKey, ParentReference
from controlplane.api.tcproute import TCPRoute
from controlplane.api.tlsroute import TLSRoute
from controlplane.compile.hosts import intersect
from controlplane.provision.binding import Endpoint, PortOf

ANNOTATION: Final = "dragoman.dev/curl"
TriedRoute = HTTPRoute | TCPRoute | TLSRoute

_PROTOCOLS: Final = {"HTTPRoute": ("HTTP", "HTTPS"), "TCPRoute": ("TCP",), "TLSRoute": ("TLS",)}

_COMMENT = re.compile(r"(?:^|\s)#\s?(.*)$")
# Options whose value may look like a path.
_FILE_OPTIONS = frozenset({"-o", "--output", "-D", "--dump-header", "-d", "--data", "--cacert", "--cert", "--key"})


@dataclass(frozen=True, slots=True)
class Try:
    """One way to try a route: the arguments of curl, the URL last, and what is to be expected."""

    route: ObjectKey
    arguments: tuple[str, ...]
    expect: str = ""

    @property
    def command(self) -> str:
        """The line to paste; every argument is quoted, so that a manifest cannot put a command of its own into it."""
        return " ".join(["curl", *(_quote(argument) for argument in self.arguments)])


def tries(
    routes: Iterable[TriedRoute],
    gateways: Mapping[ObjectKey, Gateway],
    bound: Mapping[PortOf, tuple[Endpoint, ...]],
) -> tuple[Try, ...]:
    """Returns the lines for all routes that are reachable by a listener that is bound, in the order of the routes."""
    found: list[Try] = []
    for route in routes:
        place = _place(route, gateways, bound)
        if place is not None:
            found += _of_route(route, *place)
    return tuple(found)


def _place(
    route: TriedRoute, gateways: Mapping[ObjectKey, Gateway], bound: Mapping[PortOf, tuple[Endpoint, ...]]
) -> tuple[Listener, str, Endpoint] | None:
    for parent in route.spec.parent_refs:
        namespace = parent.namespace or route.metadata.namespace
        gateway = gateways.get(ObjectKey(parent.group, parent.kind, namespace, parent.name))
        for listener in gateway.spec.listeners if gateway is not None else ():
            domains = intersect(listener.hostname, () if isinstance(route, TCPRoute) else route.spec.hostnames)
            endpoints = bound.get((f"{namespace}/{parent.name}", listener.port))
            fits = listener.protocol.upper() in _PROTOCOLS[route.kind]
            if fits and _selects(parent, listener) and domains and endpoints:
                return listener, domains[0], endpoints[0]
    return None


def _selects(parent: ParentReference, listener: Listener) -> bool:
    return parent.section_name in (None, listener.name) and parent.port in (None, listener.port)


def _of_route(route: TriedRoute, listener: Listener, domain: str, endpoint: Endpoint) -> list[Try]:
    lines = route.metadata.annotations.get(ANNOTATION, "").splitlines()
    parsed = [_parse(line) for line in lines if line.strip()]
    if not parsed and isinstance(route, HTTPRoute):
        parsed = [((), None, "")]
    out: list[Try] = []
    for arguments, path, expect in parsed:
        way, url = _url(listener, domain, endpoint, path or _first_path(route))
        out.append(Try(route.key, (*way, *arguments, url), expect))
    return out


def _parse(line: str) -> tuple[tuple[str, ...], str | None, str]:
    comment = _COMMENT.search(line)
    expect = comment.group(1).strip() if comment is not None else ""
    text = line[: comment.start()] if comment is not None else line
    try:
        words = shlex.split(text)
    except ValueError:
        # A quote that never ends: only the plain line can be offered.
        return (), None, expect
    if words and words[-1].startswith("/") and (len(words) < 2 or words[-2] not in _FILE_OPTIONS):
        return tuple(words[:-1]), words[-1], expect
    return tuple(words), None, expect


def _first_path(route: TriedRoute) -> str:
    if not isinstance(route, HTTPRoute):
        return "/"
    path = route.spec.rules[0].matches[0].path
    return path.value if path.type != "RegularExpression" else "/"


def _url(listener: Listener, domain: str, endpoint: Endpoint, path: str) -> tuple[tuple[str, ...], str]:
    address, port = endpoint
    # An address that stands for all is reached by loopback.
    address = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)
    shown = f"[{address}]" if ":" in address else address
    name = domain.replace("*", "www") if domain != "*" else ""
    if listener.protocol.upper() in ("HTTPS", "TLS"):
        # The name is also what TLS asks for, so curl is told where it is.
        host = name or "localhost"
        return ("--resolve", f"{host}:{port}:{address}"), f"https://{host}:{port}{path}"
    way = ("-H", f"Host: {name}") if name else ()
    return way, f"http://{shown}:{port}{path}"


def _quote(argument: str) -> str:
    quoted = shlex.quote(argument)
    # Easier on the eye, and the same: double quotes, where nothing in them means anything to a shell.
    return f'"{argument}"' if quoted.startswith("'") and not re.search(r'["$`\\!\n\']', argument) else quoted
