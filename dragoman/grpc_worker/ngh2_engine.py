"""The engine of choice: libnghttp2 (through ngh2) as an asyncio protocol, no task and no future per call."""

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Mapping, Sequence

from dragoman.batch import Batch
from dragoman.grpc_worker import sockets
from dragoman.grpc_worker.api import Address, CallObserver, Handler, Limits, TlsFiles
from dragoman.grpc_worker.deadlines import Deadlines
from dragoman.grpc_worker.health import CHECK_METHOD, HealthCheck
from dragoman.grpc_worker.ngh2_connection import Connection, Method, Shared
from dragoman.grpc_worker.tls import ServerTls

log = logging.getLogger("dragoman.grpc_worker")

MAX_SWEEP_S, MIN_SWEEP_S = 1.0, 0.02
COMPLAINT_EVERY_S = 1.0
LAST_WORDS_S = 1.0


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
        self._connections: set[Connection] = set()
        self._all_closed = asyncio.Event()
        self._all_closed.set()
        self._listener: asyncio.Server | None = None
        self._address = Address()
        self._inode = 0
        self._tls: ServerTls | None = None
        self._sweeping: asyncio.TimerHandle | None = None
        self._sweep_s = _sweep_interval_s(limits)
        self._complained_at = 0.0
        self._complaints = 0

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
        self._listener = await create(
            lambda: Connection(self._shared), sock=listener, ssl=self._tls and self._tls.context
        )
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
        for connection in list(self._connections):
            connection.abort()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._all_closed.wait(), LAST_WORDS_S)
        if self._sweeping is not None:
            self._sweeping.cancel()

    # What connections tell.

    def opened(self, connection: Connection) -> bool:
        self._connections.add(connection)
        self._all_closed.clear()
        return len(self._connections) <= self._limits.max_connections

    def closed(self, connection: Connection) -> None:
        self._connections.discard(connection)
        if not self._connections:
            self._all_closed.set()

    def misbehaved(self, peer: str, error: Exception) -> None:
        # A peer that reconnects to send garbage must not fill the log.
        self._complaints += 1
        now = self._loop.time()
        if now - self._complained_at >= COMPLAINT_EVERY_S:
            # Not the error itself: whoever keeps the record would keep the connection, by its traceback.
            log.warning(
                "closed the connection of %s: %s (%d such since the last report)", peer, str(error), self._complaints
            )
            self._complained_at, self._complaints = now, 0

    def _stop_listening(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None
            if self._address.is_unix:
                sockets.unlink_own(self._address.path, self._inode)

    def _sweep(self) -> None:
        now = self._loop.time()
        for connection in list(self._connections):
            connection.sweep(now)
        if self._tls is not None:
            self._tls.refresh()
        self._sweeping = self._loop.call_later(self._sweep_s, self._sweep)


def _sweep_interval_s(limits: Limits) -> float:
    """A quarter of the shortest time that is watched, so that none is overshot by much."""
    times = (limits.connection_idle_s, limits.handshake_s, limits.request_s)
    shortest = min(*times, limits.keepalive_time_s, limits.keepalive_timeout_s)
    return min(MAX_SWEEP_S, max(MIN_SWEEP_S, shortest / 4))
