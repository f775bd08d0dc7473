"""What the connections of a server of the ngh2 engine have in common, and what they ask of it."""

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from dragoman.batch import Batch
from dragoman.grpc_worker.api import CallObserver, Handler, Limits
from dragoman.grpc_worker.deadlines import Deadlines

if TYPE_CHECKING:
    from dragoman.grpc_worker.ngh2_connection import Connection


@dataclass(frozen=True, slots=True)
class Method:
    """A gRPC method that is served."""

    name: str
    handler: Handler


class Owner(Protocol):
    """What a connection asks of its server."""

    def admits(self, client: ssl.SSLObject, peer: str) -> bool: ...
    def opened(self, connection: "Connection") -> bool: ...
    def leaving(self, connection: "Connection") -> None: ...
    def closed(self, connection: "Connection") -> None: ...
    def buffered(self, more_bytes: int) -> None: ...
    def misbehaved(self, peer: str, error: Exception) -> None: ...


@dataclass(frozen=True, slots=True)
class Shared:
    """What all connections of a server have in common."""

    owner: Owner
    loop: asyncio.AbstractEventLoop
    methods: Mapping[bytes, Method]
    limits: Limits
    observe: CallObserver | None
    deadlines: Deadlines
    batch: Batch


def peer_of(transport: asyncio.BaseTransport) -> str:
    """Says who the other side is."""
    return str(transport.get_extra_info("peername") or "unix")
