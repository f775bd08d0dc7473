"""Serves streams through grpcio, where ngh2 cannot be loaded.

Who reads no more is cut off only when it leaves pings unanswered: a write of grpcio's cannot be taken back. Until it
has read what was under way when its stream was ended, it counts among the clients.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import stat
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final, cast

import grpc
import grpc.aio

from controlplane.xds.authentication import Authenticated
from controlplane.xds.cache import SnapshotCache
from controlplane.xds.identity import Principal
from controlplane.xds.listening import Limits, ListenError
from controlplane.xds.streams import (
    HEAR_OUT_S,
    SILENT,
    Admission,
    Dialect,
    Discovery,
    End,
    Gate,
    Method,
    Visit,
)
from dragoman.grpc_worker.api import StatusCode

_log = logging.getLogger(__name__)

_Context = grpc.aio.ServicerContext[bytes, bytes]
_Work = Callable[[_Context, Principal, "asyncio.Future[End]"], Awaitable[End | None]]
"""Serves a stream until it is over, or until the future says why it is ended; returns why, unless it was the client."""


class GrpcioServer:
    """The streams at one address: each has a task that reads and one that writes."""

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
        self._gate = gate
        self._admission = admission
        self._limits = limits
        self._server = grpc.aio.server(options=_options(limits))
        served: dict[str, _Work] = {path: self._discovery(dialect) for path, dialect in dialects.items()}
        served |= {path: _conversation(method) for path, method in methods.items()}
        self._server.add_generic_rpc_handlers(
            (_Handler({path: grpc.stream_stream_rpc_method_handler(self._method(w)) for path, w in served.items()}),)
        )

    async def listen(self, text: str) -> str:
        """Listens at an address, and returns it with its port; raises ListenError."""
        tls = self._admission.tls if isinstance(self._admission, Authenticated) else None
        bound = _bind(self._server, text, tls.credentials() if tls else None)
        await self._server.start()
        return bound

    async def stop(self, grace_s: float) -> None:
        """Closes everything."""
        await self._server.stop(grace_s)

    def _method(self, work: _Work) -> Callable[[Any, _Context], Awaitable[None]]:
        async def handle(_: object, context: _Context) -> None:
            end = await self._serve(context, work)
            if end is not None and end.code != StatusCode.OK:
                self._cache.metrics.refused(end.reason)
                await context.abort(_CODES[end.code], end.message)

        return handle

    async def _serve(self, context: _Context, work: _Work) -> End | None:
        admission = self._admission
        principal = admission if isinstance(admission, Principal) else None
        if isinstance(admission, Authenticated):
            found = await self._gate.authenticate(
                admission, tuple(context.invocation_metadata() or ()), str(context.peer())
            )
            if isinstance(found, End):
                return await _heard_out(context, found)
            principal = found
        assert principal is not None
        ended: asyncio.Future[End] = asyncio.get_running_loop().create_future()

        def end(why: End) -> None:
            if not ended.done():
                ended.set_result(why)

        visit = self._gate.enter(principal, end, ages=isinstance(admission, Authenticated))
        if not isinstance(visit, Visit):
            return await _heard_out(context, visit)
        try:
            return await work(context, principal, ended)
        finally:
            self._gate.leave(visit)

    def _discovery(self, dialect: Dialect) -> _Work:
        async def work(context: _Context, principal: Principal, ended: asyncio.Future[End]) -> End | None:
            due = asyncio.Event()
            discovery = Discovery(self._cache, dialect, principal, str(context.peer()), due.set)
            reading = asyncio.create_task(self._read(context, discovery))
            async with _WholeWrites(context) as out:
                writing = asyncio.create_task(self._write(out, discovery, due))
                try:
                    await asyncio.wait((reading, writing, ended), return_when=asyncio.FIRST_COMPLETED)
                finally:
                    reading.cancel()
                    writing.cancel()
                    discovery.close()
            for over in (ended, reading, writing):
                if over.done() and not over.cancelled():
                    return _result(over, str(context.peer()))
            return None

        return work

    async def _read(self, context: _Context, discovery: Discovery) -> End | None:
        try:
            raw = await asyncio.wait_for(_next(context), self._limits.first_request_timeout_s)
        except TimeoutError:
            return SILENT
        while raw is not None:
            end = discovery.take(raw)
            if end is not None:
                return end
            raw = await _next(context)
        return None

    async def _write(self, out: _WholeWrites, discovery: Discovery, due: asyncio.Event) -> End | None:
        while True:
            due.clear()
            while (message := discovery.next_message()) is not None:
                # Joined in the call, so that nothing here holds a message that is sent while the client is silent.
                sending = out.write(b"".join(message))
                del message
                await sending
            await due.wait()


class _Handler(grpc.GenericRpcHandler):
    def __init__(self, handlers: Mapping[str, Any]) -> None:
        self._handlers = handlers

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        return self._handlers.get(handler_call_details.method)


class _WholeWrites:
    """A call whose writes go on when who awaits them is cancelled; left only when the last one is over.

    grpcio sends no status ahead of what is not read yet, nor together with it: a stream that is ended while a write is
    under way would stay open for ever.
    """

    def __init__(self, context: _Context) -> None:
        self._context = context
        self._under_way: asyncio.Future[None] | None = None

    async def __aenter__(self) -> _WholeWrites:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._under_way is None:
            return
        try:
            if kind is None:
                await asyncio.wait((self._under_way,))
        finally:
            self._under_way.cancel()

    def peer(self) -> str:
        return str(self._context.peer())

    async def read(self) -> bytes | None:
        return await _next(self._context)

    def write(self, message: bytes) -> asyncio.Future[None]:
        self._under_way = asyncio.ensure_future(self._context.write(message))
        return asyncio.shield(self._under_way)


def _conversation(method: Method) -> _Work:
    async def work(context: _Context, principal: Principal, ended: asyncio.Future[End]) -> End | None:
        async with _WholeWrites(context) as whole:
            call = asyncio.ensure_future(method(whole, principal))
            try:
                await asyncio.wait((call, ended), return_when=asyncio.FIRST_COMPLETED)
            finally:
                call.cancel()
                await asyncio.wait((call,))
        return ended.result() if call.cancelled() else call.result()

    return work


async def _next(context: _Context) -> bytes | None:
    """Returns the next message; None where the client has ended its side."""
    message = cast(object, await context.read())
    return message if isinstance(message, bytes) else None


async def _heard_out(context: _Context, end: End) -> End:
    """Waits a moment for a request: told before it, a client of grpcio's takes its own failing write for the reason."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(_next(context), HEAR_OUT_S)
    return end


def _result(over: asyncio.Future[Any], peer: str) -> End | None:
    error = over.exception()
    if error is None:
        return over.result()
    if not isinstance(error, (grpc.RpcError, grpc.aio.UsageError)):
        _log.error("the stream of %s failed", peer, exc_info=error)
    return None


def _options(limits: Limits) -> list[tuple[str, Any]]:
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
        ("grpc.max_connection_idle_ms", int(limits.connection_idle_s * 1000)),
        ("grpc.max_allowed_incoming_connections", limits.max_connections),
        ("grpc.server_handshake_timeout_ms", int(limits.first_request_timeout_s * 1000)),
    ]


def _bind(server: grpc.aio.Server, address: str, credentials: grpc.ServerCredentials | None) -> str:
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


_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}
