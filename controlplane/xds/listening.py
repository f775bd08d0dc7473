"""What the discovery service listens on, and the bounds on those who come by it."""

from __future__ import annotations

import contextlib
import ipaddress
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on what clients can make the server hold."""

    max_clients: int = 10_000
    max_clients_of_namespace: int = 5_000
    """Of the service accounts of one namespace: who may run pods there shall not keep all others out."""
    max_request_bytes: int = 16 << 20
    first_request_timeout_s: float = 10.0
    keepalive_s: float = 30.0
    """A peer that leaves a ping unanswered for a third of this is taken for dead."""
    connection_idle_s: float = 300.0
    """A connection without streams is closed after so long."""
    stall_s: float = 60.0
    """A client that takes nothing of what it is sent for so long is cut off."""
    max_connections: int = 10_000
    """On each address; Envoys and services need one."""
    max_unauthenticated: int = 1_000
    """Streams whose token is being verified."""
    max_stream_age_s: float | None = 3600.0
    """How long who has shown a token is served without showing one anew (less up to a fifth)."""


class ListenError(ValueError):
    """An address that cannot or must not be listened on."""


def is_local(address: str) -> bool:
    """Says whether only this machine reaches an address."""
    if address.startswith("unix:"):
        return True
    host = address.rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False
