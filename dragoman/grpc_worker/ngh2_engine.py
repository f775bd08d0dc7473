"""The engine of choice: libnghttp2 (through ngh2) as an asyncio protocol, no task and no future per call."""

import asyncio
import contextlib
import logging
import math
import os
import socket
import ssl
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from dragoman.batch import Batch
from dragoman.grpc_worker import sockets
from dragoman.grpc_worker.api import Address, CallObserver, Handler, Limits, TlsFiles
from dragoman.grpc_worker.complaints import Complaints
from dragoman.grpc_worker.deadlines import Deadlines
from dragoman.grpc_worker.health import CHECK_METHOD, HealthCheck
from dragoman.grpc_worker.ngh2_connection import LAST_WORDS_S, Connection
from dragoman.grpc_worker.ngh2_shared import Method, Shared
from dragoman.grpc_worker.tls import ServerTls

log = logging.getLogger("dragoman.grpc_worker")

MAX_SWEEP_S, MIN_SWEEP_S = 1.0, 0.02


async def start(
    methods: Mapping[str, Handler],
    *,
    listen: Address,
    limits: Limits,
    tls: TlsFiles | None,
    observe: CallObserver | None,
    unix_mode: int,
    health_names: Sequence[str] = (),
    batch: Batch | None = None,
) -> "Ngh2Server":
    """Listens and serves; raises OSError when it cannot."""
    server = Ngh2Server(methods, limits=limits, observe=observe, health_names=health_names, batch=batch)
    await server.listen(listen, tls=tls, unix_mode=unix_mode)
    return server


class Ngh2Server:
    """A `GrpcServer` whose connections are `ngh2_connection.Connection`."""

    def __init__(
        self,
        methods: Mapping[str, Handler],
        *,
        limits: Limits,
        observe: CallObserver | None,
        health_names: Sequence[str],
        batch: Batch | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._health = HealthCheck(methods, health_names)
        self._limits = limits
        served = {**methods, CHECK_METHOD: self._health.check}
        self._shared = Shared(
            owner=self,
            loop=self._loop,
            methods={name.encode(): Method(name, handler) for name, handler in served.items()},
            limits=limits,
            observe=observe,
            deadlines=Deadlines(self._loop),
            batch=batch or Batch(self._loop),
        )
        # In the order in which they came.
        self._connections: dict[Connection, None] = {}
        self._leaving: set[Connection] = set()
        self._buffered_bytes = 0
        self._all_closed = asyncio.Event()
        self._all_closed.set()
        self._listener: asyncio.Server | None = None
        self._address = Address()
        self._inode = 0
        self._tls: ServerTls | None = None
        self._sweeping: asyncio.TimerHandle | None = None
        self._sweep_s = _sweep_interval_s(limits)
        self._misbehaviour, self._crowding = Complaints(log, self._loop), Complaints(log, self._loop)

    @property
    def address(self) -> Address:
        return self._address

    def set_serving(self, serving: bool) -> None:
        self._health.serving = serving

    async def listen(self, address: Address, *, tls: TlsFiles | None, unix_mode: int) -> None:
        self._tls = ServerTls(tls) if tls is not None else None
        listener = sockets.bind(address, unix_mode=unix_mode)
        self._address = sockets.bound_address(listener, address)
        if address.is_unix:
            self._inode = os.lstat(address.path).st_ino
        create = self._loop.create_unix_server if listener.family == socket.AF_UNIX else self._loop.create_server
        # Who does not finish a handshake is not among the connections yet, and who does not answer the end no more.
        bounds = {"ssl_handshake_timeout": self._limits.handshake_s, "ssl_shutdown_timeout": LAST_WORDS_S}
        secured: dict[str, Any] = {"ssl": self._tls.context, **bounds} if self._tls is not None else {}
        self._listener = await create(lambda: Connection(self._shared), sock=listener, **secured)
        self._sweep()

    async def drain(self, grace_s: float) -> None:
        self.set_serving(False)
        self._stop_listening()
        for connection in list(self._connections):
            connection.drain()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._all_closed.wait(), grace_s)
        await self.close()

    async def close(self) -> None:
        self._stop_listening()
        for connection in (*self._connections, *self._leaving):
            connection.abort()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._all_closed.wait(), LAST_WORDS_S)
        if self._sweeping is not None:
            self._sweeping.cancel()

    # What connections tell.

    def opened(self, connection: Connection) -> bool:
        self._connections[connection] = None
        self._all_closed.clear()
        most = self._limits.max_connections
        if len(self._connections) <= most:
            return True
        idlest = self._idlest(but=connection) if len(self._connections) + len(self._leaving) <= 2 * most else None
        if idlest is not None:
            idlest.give_way()
        self._crowding.note("there are %d connections: %s", most, "idle ones give way" if idlest else "no more come in")
        return idlest is not None

    def leaving(self, connection: Connection) -> None:
        if connection in self._connections:
            del self._connections[connection]
            self._leaving.add(connection)

    def closed(self, connection: Connection) -> None:
        self._connections.pop(connection, None)
        self._leaving.discard(connection)
        if not self._connections and not self._leaving:
            self._all_closed.set()

    def buffered(self, more_bytes: int) -> None:
        self._buffered_bytes += more_bytes
        if self._buffered_bytes > self._limits.max_total_buffered_bytes and more_bytes > 0:
            max((*self._connections, *self._leaving), key=lambda each: each.buffered_bytes).shed()

    def admits(self, client: ssl.SSLObject, peer: str) -> bool:
        fault = self._tls.fault_of(client) if self._tls is not None else None
        if fault is not None:
            self._misbehaviour.note("closed the connection of %s: %s", peer, fault)
        return fault is None

    def misbehaved(self, peer: str, error: Exception) -> None:
        # Not the error itself: whoever keeps the record would keep the connection, by its traceback.
        self._misbehaviour.note("closed the connection of %s: %s", peer, str(error))

    def _idlest(self, *, but: Connection) -> Connection | None:
        """The one that may go first: the oldest that never had a request, else the one without for longest."""
        found: Connection | None = None
        longest = math.inf
        for each in self._connections:
            since = each.idle_since if each is not but else None
            if since is None:
                continue
            if not each.has_called:
                return each
            if since < longest:
                found, longest = each, since
        return found

    def _stop_listening(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None
            if self._address.is_unix:
                sockets.unlink_own(self._address.path, self._inode)

    def _sweep(self) -> None:
        now = self._loop.time()
        for connection in (*self._connections, *self._leaving):
            connection.sweep(now)
        for connection in _heaviest(self._connections, lambda each: each.incomplete, self._limits.max_incomplete):
            connection.shed()
        for connection in _heaviest(self._connections, lambda each: each.unread_bytes, self._limits.max_unread_bytes):
            connection.abort()
        if self._tls is not None:
            self._tls.refresh()
        self._sweeping = self._loop.call_later(self._sweep_s, self._sweep)


def _heaviest(connections: Iterable[Connection], weigh: Callable[[Connection], int], most: int) -> Iterator[Connection]:
    """As many of the heaviest as it takes for the others to weigh no more than `most` together."""
    weights = [(weigh(each), each) for each in connections]
    surplus = sum(weight for weight, _ in weights) - most
    if surplus <= 0:
        return
    weights.sort(key=lambda pair: pair[0])
    while surplus > 0:
        weight, connection = weights.pop()
        surplus -= weight
        yield connection


def _sweep_interval_s(limits: Limits) -> float:
    """A quarter of the shortest time that is watched, so that none is overshot by much."""
    times = (limits.connection_age_s or MAX_SWEEP_S, limits.connection_idle_s, limits.handshake_s, limits.request_s)
    shortest = min(*times, limits.unread_s, limits.keepalive_time_s, limits.keepalive_timeout_s)
    return min(MAX_SWEEP_S, max(MIN_SWEEP_S, shortest / 4))
