"""A request as a client sends it, and as Envoy sees it when it chooses a route."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from urllib.parse import quote, urlsplit

from controlplane.ir import RESERVED_PREFIX

_PORTS = {"http": 80, "https": 443}
_ESCAPED_SLASH = re.compile(r"%(2f|5c)", re.IGNORECASE)
_ESCAPED = re.compile(r"%([0-9a-fA-F]{2})")
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


@dataclass(frozen=True, slots=True)
class Request:
    """What a client sends: `host` is that of the URL, where it connects to; `authority` is what it asks for."""

    scheme: str
    host: str
    port: int
    authority: str
    target: str
    method: str = "GET"
    headers: tuple[tuple[str, str], ...] = ()

    @staticmethod
    def of(url: str, *, method: str = "GET", headers: Iterable[str] = ()) -> Request:
        """Reads a URL and headers as curl takes them (`name: value`); raises ValueError with what is wrong."""
        parts = urlsplit(url if "://" in url else f"http://{url}")
        scheme = parts.scheme.lower()
        if scheme not in _PORTS or not parts.hostname:
            raise ValueError(f"{url}: expected http://HOST/PATH or https://HOST/PATH")
        if not _TOKEN.fullmatch(method):
            raise ValueError(f"{method!r} is not a method")
        pairs = [_header(each) for each in headers]
        host = next((value for name, value in pairs if name == "host"), parts.netloc.rpartition("@")[2])
        path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._\\|^[]{}<>\"`")
        return Request(
            scheme=scheme,
            host=parts.hostname,
            port=parts.port or _PORTS[scheme],
            authority=host,
            target=f"{path}?{parts.query}" if parts.query else path,
            method=method,
            headers=tuple(pair for pair in pairs if pair[0] != "host"),
        )

    @property
    def server_name(self) -> str | None:
        """The name that TLS asks for (SNI); None where the URL has an address, which is no name."""
        return None if address_of(self.host) else self.host.lower()

    @property
    def url(self) -> str:
        """The URL that was asked for, with the port where it is not the usual one."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == _PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{host}{port}{self.target}"


@dataclass(frozen=True, slots=True)
class Seen:
    """A request when routes are chosen: its path in normal form, of each header all values.

    `refused` says why Envoy answers before it looks at routes, and with which status.
    """

    host: str
    path: str
    query: Mapping[str, str]
    method: str
    headers: Mapping[str, tuple[str, ...]]
    refused: tuple[int, str] | None = None
    notes: tuple[str, ...] = field(default=())
    query_string: str = ""

    @property
    def target(self) -> str:
        """The path with the query as it was sent: what `:path` is."""
        return f"{self.path}?{self.query_string}" if self.query_string else self.path


def seen(request: Request) -> Seen:
    """Returns what Envoy sees of a request: the connection manager's settings are in `translate.listeners`."""
    path, mark, query = request.target.partition("?")
    unescaped = _ESCAPED_SLASH.sub(lambda found: "/" if found[1].lower() == "2f" else "\\", path)
    normal = normal_path(unescaped)
    notes: list[str] = []
    refused: tuple[int, str] | None = None
    if unescaped != path:
        refused = (307, f"the path has an escaped slash, and the client is sent to {normal}{mark}{query}")
    elif normal != path:
        notes.append(f"the path {path} is {normal} in normal form, which routes are chosen by")
    headers: dict[str, tuple[str, ...]] = {}
    for name, value in request.headers:
        if name.startswith(RESERVED_PREFIX):
            notes.append(f"the header {name} is dropped: names under {RESERVED_PREFIX} are the gateway's own")
        elif "_" in name:
            refused = refused or (400, f"the name of the header {name} has an underscore")
        else:
            headers[name] = (*headers.get(name, ()), value)
    own = {"host": request.authority, "x-forwarded-proto": request.scheme}
    headers |= {name: (value,) for name, value in own.items()}
    return Seen(
        host=host_of(request.authority),
        path=normal,
        query=_first_values(query),
        method=request.method,
        headers=headers,
        refused=refused,
        notes=tuple(notes),
        query_string=query,
    )


def host_of(authority: str) -> str:
    """Returns the host of `HOST` or `HOST:PORT`, in lower case."""
    if authority.startswith("["):
        return authority.partition("]")[0].lower() + "]"
    host, _, port = authority.rpartition(":")
    return (host if host and port.isdecimal() else authority).lower()


def address_of(host: str) -> bool:
    """Says whether a host is an IP address."""
    try:
        ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


def normal_path(path: str) -> str:
    """Returns a path in normal form (RFC 3986 §6.2.2, slashes merged)."""
    decoded = _ESCAPED.sub(_unescape, path).replace("\\", "/")
    segments = decoded.split("/")
    out: list[str] = []
    for index, segment in enumerate(segments[1:], 1):
        last = index == len(segments) - 1
        if segment == "..":
            del out[-1:]
        elif segment != ".":
            out.append(segment)
            continue
        if last:
            out.append("")
    return re.sub("/{2,}", "/", "/" + "/".join(out))


def _unescape(found: re.Match[str]) -> str:
    char = chr(int(found[1], 16))
    return char if char in _UNRESERVED else found[0]


def _first_values(query: str) -> dict[str, str]:
    """Returns the first value of each parameter, as it is written: Envoy compares it so, without decoding."""
    values: dict[str, str] = {}
    for part in query.split("&"):
        name, _, value = part.partition("=")
        if name:
            values.setdefault(name, value)
    return values


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not _TOKEN.fullmatch(name.strip()):
        raise ValueError(f"{text!r} is not a header: expected 'name: value'")
    return name.strip().lower(), value.strip()
