"""What the discovery service listens on, and the bounds on those who come by it."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio


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
    max_connections: int = 10_000
    """On each address; Envoys and services need one."""
    max_unauthenticated: int = 1_000
    """Streams whose token is being verified."""
    max_stream_age_s: float | None = 3600.0
    """How long who has shown a token is served without showing one anew (less up to a fifth)."""


class ListenError(ValueError):
    """An address that cannot or must not be listened on."""


def options(limits: Limits) -> list[tuple[str, Any]]:
    """Returns the options of a server."""
    return [
        ("grpc.so_reuseport", 0),  # A port that is taken is to be an error, not shared.
        ("grpc.max_receive_message_length", limits.max_request_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.keepalive_time_ms", int(limits.keepalive_s * 1000)),
        ("grpc.keepalive_timeout_ms", int(limits.keepalive_s * 1000 / 3)),
        ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
        ("grpc.keepalive_permit_without_calls", 1),
        # Of one client: more than Envoy and our own clients ever open.
        ("grpc.max_concurrent_streams", 100),
        ("grpc.max_connection_idle_ms", 300_000),
        ("grpc.max_allowed_incoming_connections", limits.max_connections),
        ("grpc.server_handshake_timeout_ms", int(limits.first_request_timeout_s * 1000)),
    ]


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


def bind(server: grpc.aio.Server, address: str, credentials: grpc.ServerCredentials | None) -> str:
    """Has a server listen on an address, and returns that with its port; raises ListenError."""
    try:
        if not address.startswith("unix:"):
            port = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
            return f"{address.rpartition(':')[0]}:{port}"
        path = Path(address.removeprefix("unix:"))
        _clear_stale(path)
        # The mask, and not only chmod afterwards: there is to be no moment in which others could connect.
        previous = os.umask(0o177)
        try:
            server.add_insecure_port(address)
        finally:
            os.umask(previous)
        path.chmod(0o600)
    except RuntimeError as error:
        raise ListenError(f"{address}: cannot listen: {error}") from error
    return address


def _clear_stale(path: Path) -> None:
    if path.exists() and not stat.S_ISSOCK(path.stat().st_mode):
        raise ListenError(f"unix:{path}: exists and is not a socket")
