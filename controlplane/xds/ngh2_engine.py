"""Serves streams through libnghttp2 (ngh2): what a client costs is little more than its connection."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Mapping
from functools import partial
from itertools import chain, islice
from typing import Final

from controlplane.xds.cache import SnapshotCache
from controlplane.xds.identity import Principal
from controlplane.xds.listening import Limits, ListenError
from controlplane.xds.ngh2_connection import Connection, Serve, Shared
from controlplane.xds.ngh2_stream import Conversation, Sink, Stream
from controlplane.xds.streams import Admission, Dialect, Discovery, End, Gate, Method
from dragoman.grpc_worker import sockets
from dragoman.grpc_worker.api import Address
from dragoman.grpc_worker.complaints import Complaints

_log = logging.getLogger(__name__)

_AT_A_TIME: Final = 16
"""Of so many connections pieces are written at once; then whatever else there is to do has its turn."""
_BACKLOG: Final = 4_096
"""So many may come in the moment in which the loop is busy; who finds no room tries again only after a second."""
_SWEEP_S: Final = 1.0
_LAST_WORDS_S: Final = 0.5


class Ngh2Server:
    """The connections at one address."""

    def __init__(
        self,
        cache: SnapshotCache,
        gate: Gate,
        admission: Admission,
        *,
        dialects: Mapping[str, Dialect],
        methods: Mapping[str, Method],
        limits: Limits,
    ) -> None:
        self._cache = cache
        self._loop = asyncio.get_running_loop()
        self._limits = limits
        served: dict[str, Serve] = {path: partial(self._discovery, dialect) for path, dialect in dialects.items()}
        served |= {path: partial(_conversation, method) for path, method in methods.items()}
        self._shared = Shared(self, gate, admission, {path.encode(): each for path, each in served.items()}, limits)
        self._connections: dict[Connection, None] = {}
        self._due: dict[Connection, None] = {}
        self._under_way: dict[Connection, None] = {}
        self._writing = False
        self._all_closed = asyncio.Event()
        self._all_closed.set()
        self._listener: asyncio.Server | None = None
        self._sweeping: asyncio.TimerHandle | None = None
        self._path, self._inode = "", 0
        self._misbehaviour = Complaints(_log, self._loop)

    async def listen(self, text: str) -> str:
        """Listens at an address, and returns it with its port; raises ListenError."""
        try:
            address = Address.parse(text)
            bound = sockets.bind(address)
        except (OSError, ValueError) as error:
            raise ListenError(f"{text}: cannot listen: {error}") from error
        if address.is_unix:
            self._path, self._inode = address.path, os.lstat(address.path).st_ino
        create = self._loop.create_unix_server if bound.family == socket.AF_UNIX else self._loop.create_server
        self._listener = await create(partial(Connection, self._shared), sock=bound, backlog=_BACKLOG)
        self._sweep()
        return text if address.is_unix else f"{text.rpartition(':')[0]}:{sockets.bound_address(bound, address).port}"

    async def stop(self, grace_s: float) -> None:
        """Closes everything; who does not take what is left to say is not waited for."""
        if self._listener is not None:
            self._listener.close()
            if self._path:
                sockets.unlink_own(self._path, self._inode)
        if self._sweeping is not None:
            self._sweeping.cancel()
        for connection in list(self._connections):
            connection.shut()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._all_closed.wait(), max(grace_s, _LAST_WORDS_S))
        for connection in list(self._connections):
            connection.abort()

    # What connections tell

    def opened(self, connection: Connection) -> bool:
        most = self._limits.max_connections
        full = len(self._connections) >= most
        # The oldest: a new one is about to open a stream.
        idle = next((each for each in self._connections if each.is_idle), None) if full else None
        self._connections[connection] = None
        self._all_closed.clear()
        if idle is not None:
            idle.shut()
        return not full or (idle is not None and len(self._connections) <= 2 * most)

    def closed(self, connection: Connection) -> None:
        self._connections.pop(connection, None)
        self._due.pop(connection, None)
        self._under_way.pop(connection, None)
        if not self._connections:
            self._all_closed.set()

    def due(self, connection: Connection, *, first: bool = False) -> None:
        (self._under_way if first else self._due)[connection] = None
        if not self._writing:
            self._writing = True
            self._loop.call_soon(self._write)

    def refused(self, end: End) -> None:
        self._cache.metrics.refused(end.reason)

    def misbehaved(self, peer: str, error: Exception) -> None:
        # A peer that reconnects to send garbage must not fill the log.
        self._misbehaviour.note("closed the connection of %s: %s", peer, str(error))

    # Within

    def _write(self) -> None:
        batch = list(islice(chain(self._under_way, self._due), _AT_A_TIME))
        for connection in batch:
            self._due.pop(connection, None)
            # What has begun goes on first, so that most have everything early, and few are in between.
            if connection.flush():
                self._under_way[connection] = None
            else:
                self._under_way.pop(connection, None)
        self._writing = bool(self._due or self._under_way)
        if self._writing:
            self._loop.call_soon(self._write)

    def _discovery(self, dialect: Dialect, stream: Stream, principal: Principal, peer: str) -> Sink:
        return Discovery(self._cache, dialect, principal, peer, stream.wake)

    def _sweep(self) -> None:
        now = self._loop.time()
        for connection in list(self._connections):
            connection.sweep(now)
        self._sweeping = self._loop.call_later(_SWEEP_S, self._sweep)


def _conversation(method: Method, stream: Stream, principal: Principal, peer: str) -> Sink:
    return Conversation(stream, peer, method, principal)
