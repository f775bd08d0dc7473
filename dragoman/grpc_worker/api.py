"""What a gRPC worker is to those who use it: calls, handlers, limits, and the server that an engine provides."""

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Protocol

MIB = 1024 * 1024


class StatusCode(IntEnum):
    """gRPC's status codes (https://grpc.io/docs/guides/status-codes)."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class Call(Protocol):
    """One request, from its last byte until `done` or `fail`; both may be called later, from the same event loop."""

    @property
    def deadline(self) -> float | None:
        """The instant (`loop.time()`) by which the client wants its answer; None when it set none."""
        ...

    @property
    def cancelled(self) -> bool:
        """True once nobody waits: the peer reset the stream, the deadline passed, or the connection ended."""
        ...

    def done(self, body: bytes) -> None:
        """Sends the reply. Calls after the first `done` or `fail` are ignored."""
        ...

    def fail(self, code: StatusCode, message: str) -> None:
        """Sends a status other than OK. Calls after the first `done` or `fail` are ignored."""
        ...


Handler = Callable[[bytes, Call], None]
"""Takes the request's bytes. It may keep the call and finish it later; raising answers INTERNAL and is logged."""

CallObserver = Callable[[str, StatusCode, float], None]
"""Told of every call that ended: its method, its status (CANCELLED when the peer left), and the seconds it took."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one peer, and all of them together, may use. The defaults suit a few Envoys that are trusted to be sane."""

    max_message_bytes: int = 4 * MIB
    too_large: Callable[[], bytes] | None = None
    """Returns the reply to a message that is larger, or that there is no room for; without it, RESOURCE_EXHAUSTED."""
    max_concurrent_streams: int = 1024
    max_connections: int = 1024
    """When there are so many, the one that has been idle longest gives way to a new one."""
    max_buffered_bytes: int = 64 * MIB
    """Request bytes of incomplete messages that one connection may have us hold ..."""
    max_total_buffered_bytes: int = 256 * MIB
    """... and all together: beyond it, the one that has us hold the most has its incomplete requests refused."""
    max_incomplete: int = 16_384
    """Requests that have not come whole, of all connections: beyond it, so do those of the one that has the most."""
    max_unread_bytes: int = 256 * MIB
    """What replies hold that peers do not take, of all connections: beyond it, the one that holds the most is cut."""
    max_header_list_bytes: int = 64 * 1024
    connection_idle_s: float = 3600.0
    """A connection without calls for so long is closed with GOAWAY."""
    connection_age_s: float = 0.0
    """After so long, give or take a tenth, a connection is closed with GOAWAY: the next may go elsewhere ..."""
    connection_age_grace_s: float = 3600.0
    """... and cut when its calls have not ended after this. An age of 0 is none."""
    handshake_s: float = 10.0
    """A connection that has not finished its TLS handshake, its HTTP/2 preface and SETTINGS by then is cut."""
    request_s: float = 30.0
    """A request whose message has not arrived whole by then is refused."""
    unread_s: float = 60.0
    """A connection whose peer has not taken all replies for so long is cut."""
    keepalive_time_s: float = 60.0
    """A connection that has been silent for so long is sent a PING ..."""
    keepalive_timeout_s: float = 20.0
    """... and is cut when nothing comes back within this."""
    stream_resets: tuple[int, int] = (1_000_000, 100_000)
    """(burst, per second). Envoy resets a stream for each of its timeouts: a slow store means a reset a request."""
    glitches: tuple[int, int] = (1_000_000, 100_000)
    """(burst, per second) of frames that are legal but odd, such as a WINDOW_UPDATE for a stream just closed."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files for serving TLS with ALPN h2; with `client_ca` clients must show a certificate that it signed."""

    certificate: Path
    private_key: Path
    client_ca: Path | None = None
    client_san: str = ""
    """If given, the certificate must be for this name besides: a DNS name, an IP address or a URI."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens: a host (an IP literal or a name) and port, or the path of a Unix socket."""

    host: str = ""
    port: int = 0
    path: str = ""

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Reads `127.0.0.1:0`, `[::1]:0`, `localhost:9001` or `unix:/path`; raises ValueError saying what is wrong."""
        if text.startswith("unix:"):
            path = text.removeprefix("unix:").removeprefix("//")
            if not path:
                raise ValueError(f"{text!r} names no path after 'unix:'")
            return cls(path=path)
        host, colon, port = text.rpartition(":")
        if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
            raise ValueError(f"{text!r} is neither HOST:PORT nor unix:PATH")
        if host.startswith("[") and host.endswith("]"):
            return cls(host=str(ipaddress.IPv6Address(host[1:-1])), port=int(port))
        if not host or ":" in host:
            raise ValueError(f"{text!r} needs a host before the port; an IPv6 address goes in brackets")
        return cls(host=host, port=int(port))

    @property
    def is_unix(self) -> bool:
        return bool(self.path)

    @property
    def is_loopback(self) -> bool:
        """True when nobody off this machine can reach it."""
        if self.path or self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class GrpcServer(Protocol):
    """A server that is listening."""

    @property
    def address(self) -> Address:
        """Where it listens; the real port when 0 was asked for."""
        ...

    def set_serving(self, serving: bool) -> None:
        """Sets what grpc.health.v1 answers from now on (SERVING at first). Calls are answered either way."""
        ...

    async def drain(self, grace_s: float) -> None:
        """Takes no new connections, lets calls in flight finish for up to `grace_s`, then closes."""
        ...

    async def close(self) -> None:
        """Closes at once; calls in flight are cancelled."""
        ...
