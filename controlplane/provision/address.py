"""Where something listens or is reached: a TCP address, or a Unix socket."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """`host` is an IP address (v6 without brackets) or a name."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """The absolute path of a Unix socket."""

    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"


Address = TcpAddress | UnixAddress

# What sockaddr_un holds, with its final zero.
_UNIX_PATH_LIMIT = 108


def parse_address(text: str) -> Address:
    """Reads `HOST:PORT`, `[IPV6]:PORT` or `unix:PATH`; raises ValueError that says what is wrong."""
    if text.startswith("unix:"):
        return _unix(text.removeprefix("unix:"))
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(f"{text!r} is not HOST:PORT (a port from 1 to 65535) nor unix:PATH")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not bare or (":" in bare and bare == host):
        raise ValueError(f"{text!r} has no host (an IPv6 address stands in brackets: [::1]:18000)")
    return TcpAddress(bare, int(port))


def is_ip(host: str) -> bool:
    """Says whether a host is an IP address, not a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def envoy_address(address: Address) -> dict[str, Any]:
    """Returns the address as Envoy's `core.v3.Address`; a Unix socket is made for its owner alone."""
    if isinstance(address, UnixAddress):
        return {"pipe": {"path": address.path, "mode": 0o600}}
    return {"socket_address": {"address": address.host, "port_value": address.port}}


def _unix(path: str) -> UnixAddress:
    if not path.startswith("/"):
        raise ValueError(f"the path of a Unix socket is absolute: {path!r} is not")
    if len(path.encode()) >= _UNIX_PATH_LIMIT:
        raise ValueError(f"the path of a Unix socket is shorter than {_UNIX_PATH_LIMIT} bytes: {path!r} is not")
    return UnixAddress(path)
