"""The aggregated discovery service: gRPC streams, delta and state of the world, over bytes."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import os
import random
import stat
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import grpc
import grpc.aio

from controlplane.xds import wire
from controlplane.xds.authentication import Authenticated
from controlplane.xds.cache import Session, SnapshotCache
from controlplane.xds.events import Protocol
from controlplane.xds.identity import Node, Principal, Refusal, owner_of
from controlplane.xds.requests import DecodeError, Request, parse_delta, parse_sotw
from controlplane.xds.subscription import Outgoing

_log = logging.getLogger(__name__)

_SERVICE: Final = "/envoy.service.discovery.v3.AggregatedDiscoveryService"
DELTA_METHOD: Final = f"{_SERVICE}/DeltaAggregatedResources"
SOTW_METHOD: Final = f"{_SERVICE}/StreamAggregatedResources"

_PRUNE_INTERVAL_S: Final = 5.0

Admission = Principal | Authenticated
"""Who comes by an address: known by the address itself, or by what each shows."""

_Context = grpc.aio.ServicerContext[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on what clients can make the server hold."""

    max_clients: int = 10_000
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


@dataclass(slots=True)
class AdsServer:
    """A running discovery service; `addresses` are the bound ones, in the order of `listen`."""

    addresses: tuple[str, ...]
    _servers: list[grpc.aio.Server]
    _streams: _Streams
    _pruning: asyncio.Task[None]

    async def stop(self, grace_s: float = 0.0) -> None:
        """Ends all streams, so that clients turn to another replica, and closes the listeners."""
        self._pruning.cancel()
        self._streams.end_all()
        await asyncio.gather(*(server.stop(grace_s) for server in self._servers))


async def serve_ads(
    cache: SnapshotCache,
    *,
    listen: Mapping[str, Admission],
    limits: Limits | None = None,
    insecure_off_loopback: bool = False,
) -> AdsServer:
    """Serves the cache on each address (`unix:/path`, created with mode 0600, or `HOST:PORT`) to who comes by it.

    Raises ListenError for a busy address, and for plaintext off loopback unless that is asked for. TLS alone lets
    nobody in: a certificate comes with an authenticator.
    """
    limits = limits or Limits()
    streams = _Streams(cache, limits)
    servers: list[grpc.aio.Server] = []
    addresses: list[str] = []
    try:
        for address, admission in listen.items():
            tls = admission.tls if isinstance(admission, Authenticated) else None
            if not (tls or insecure_off_loopback or _is_local(address)):
                raise ListenError(f"{address}: plaintext xDS is served on loopback and Unix sockets only")
            server = grpc.aio.server(options=_options(limits))
            servers.append(server)
            server.add_generic_rpc_handlers((_Handler(streams, admission),))
            addresses.append(_bind(server, address, tls.credentials() if tls else None))
            await server.start()
    except BaseException:
        await asyncio.gather(*(server.stop(None) for server in servers))
        raise
    return AdsServer(tuple(addresses), servers, streams, asyncio.create_task(_prune(cache)))


async def _prune(cache: SnapshotCache) -> None:
    while True:
        await asyncio.sleep(_PRUNE_INTERVAL_S)
        cache.prune()


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
        ("grpc.max_connection_idle_ms", 300_000),
        ("grpc.max_allowed_incoming_connections", limits.max_connections),
        ("grpc.server_handshake_timeout_ms", int(limits.first_request_timeout_s * 1000)),
    ]


def _is_local(address: str) -> bool:
    if address.startswith("unix:"):
        return True
    host = address.rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False


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


class _Handler(grpc.GenericRpcHandler):
    def __init__(self, streams: _Streams, admission: Admission) -> None:
        self._handlers: dict[str, Any] = {
            DELTA_METHOD: grpc.stream_stream_rpc_method_handler(streams.handler(admission, _DELTA)),
            SOTW_METHOD: grpc.stream_stream_rpc_method_handler(streams.handler(admission, _SOTW)),
        }

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        return self._handlers.get(handler_call_details.method)


@dataclass(frozen=True, slots=True)
class _Dialect:
    protocol: Protocol
    parse: Callable[[bytes], tuple[Request, Node | None]]
    encode: Callable[[Outgoing], bytes]


def _encode_delta(out: Outgoing) -> bytes:
    entries = (part for resource in out.resources for part in (resource.delta_head, resource.body))
    return wire.delta_response(out.type_url, out.nonce, entries, out.removed)


def _encode_sotw(out: Outgoing) -> bytes:
    entries = (part for resource in out.resources for part in (resource.sotw_head, resource.body))
    return wire.sotw_response(out.type_url, out.nonce, out.version, entries)


_DELTA: Final = _Dialect("delta", parse_delta, _encode_delta)
_SOTW: Final = _Dialect("sotw", parse_sotw, _encode_sotw)


@dataclass(frozen=True, slots=True)
class _End:
    """Why a stream is ended by the server; with code OK, only so that the client comes back."""

    code: grpc.StatusCode
    message: str
    reason: str


class _Streams:
    """All open streams: each has a task that reads and one that writes, and at most one response a type unanswered."""

    def __init__(self, cache: SnapshotCache, limits: Limits) -> None:
        self._cache = cache
        self._limits = limits
        self._open: set[asyncio.Future[_End]] = set()
        self._authenticating = 0
        self._stopping = False

    def handler(self, admission: Admission, dialect: _Dialect) -> Callable[[Any, _Context], Awaitable[None]]:
        """Returns the gRPC method of one dialect for those who come by an address."""

        async def handle(_: object, context: _Context) -> None:
            end = await self._serve(context, admission, dialect)
            if end is not None and end.code != grpc.StatusCode.OK:
                self._cache.metrics.refused(end.reason)
                await context.abort(end.code, end.message)

        return handle

    def end_all(self) -> None:
        """Ends every stream."""
        self._stopping = True
        for ended in self._open:
            _end(ended, _STOPPING)

    async def _serve(self, context: _Context, admission: Admission, dialect: _Dialect) -> _End | None:
        principal = await self._principal(context, admission)
        if isinstance(principal, _End):
            return principal
        if self._stopping or len(self._open) >= self._limits.max_clients:
            return _End(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many clients", "max_clients")
        ended: asyncio.Future[_End] = asyncio.get_running_loop().create_future()
        self._open.add(ended)
        ageing = self._age(ended) if isinstance(admission, Authenticated) else None
        try:
            return await self._admit(context, principal, dialect, ended)
        finally:
            self._open.discard(ended)
            if ageing is not None:
                ageing.cancel()

    async def _principal(self, context: _Context, admission: Admission) -> Principal | _End:
        if isinstance(admission, Principal):
            return admission
        if self._authenticating >= self._limits.max_unauthenticated:
            return _End(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many clients", "max_clients")
        self._authenticating += 1
        try:
            principal = await admission.authenticator.authenticate(tuple(context.invocation_metadata() or ()))
        finally:
            self._authenticating -= 1
        if isinstance(principal, Principal):
            return principal
        _log.warning("refused a stream from %s: %s", context.peer(), principal.message)
        return _End(grpc.StatusCode.UNAUTHENTICATED, principal.message, "unauthenticated")

    def _age(self, ended: asyncio.Future[_End]) -> asyncio.TimerHandle | None:
        """Ends a stream some time: who has lost the right to it must not be served for as long as they stay."""
        longest_s = self._limits.max_stream_age_s
        if longest_s is None:
            return None
        # Spread, so that not everybody comes at once who came at once.
        age_s = longest_s * random.uniform(0.8, 1.0)  # noqa: S311
        return asyncio.get_running_loop().call_later(age_s, _end, ended, _AGED)

    async def _admit(
        self, context: _Context, principal: Principal, dialect: _Dialect, ended: asyncio.Future[_End]
    ) -> _End | None:
        try:
            raw = await asyncio.wait_for(_read(context), self._limits.first_request_timeout_s)
        except TimeoutError:
            return _End(grpc.StatusCode.DEADLINE_EXCEEDED, "no request came", "silent")
        if raw is None:
            return None
        try:
            request, node = dialect.parse(raw)
        except DecodeError:
            return _MALFORMED
        owner = owner_of(principal, node) if node is not None else Refusal("the first request must hold the node")
        if isinstance(owner, Refusal):
            _log.warning("refused a %s stream from %s: %s", dialect.protocol, context.peer(), owner.message)
            return _End(grpc.StatusCode.PERMISSION_DENIED, owner.message, "identity")
        node_id = node.id if node is not None else ""
        if principal.is_free:
            _log.info("%s is taken for %s by its own word (%s)", context.peer(), owner, node_id)
        stream = _Stream(context, self._cache, dialect)
        return await stream.run(owner, node_id, request, ended)


async def _read(context: _Context) -> bytes | None:
    """Returns the next message; None where the client has ended its side."""
    message = cast(object, await context.read())
    return message if isinstance(message, bytes) else None


def _end(ended: asyncio.Future[_End], why: _End) -> None:
    if not ended.done():
        ended.set_result(why)


_AGED: Final = _End(grpc.StatusCode.OK, "show a token anew", "aged")
_STOPPING: Final = _End(grpc.StatusCode.UNAVAILABLE, "the control plane is going away", "stopping")
_MALFORMED: Final = _End(grpc.StatusCode.INVALID_ARGUMENT, "malformed request", "malformed")


class _Stream:
    def __init__(self, context: _Context, cache: SnapshotCache, dialect: _Dialect) -> None:
        self._context = context
        self._cache = cache
        self._dialect = dialect
        self._due = asyncio.Event()

    async def run(self, owner: str, node_id: str, request: Request, ended: asyncio.Future[_End]) -> _End | None:
        """Serves the stream until the client, a violation or `ended` ends it; returns why, unless it was the client."""
        session = self._cache.attach(owner, node_id, self._dialect.protocol, self._due.set)
        reading = asyncio.create_task(self._read(session, request))
        writing = asyncio.create_task(self._write(session))
        tasks: tuple[asyncio.Future[Any], ...] = (reading, writing, ended)
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            reading.cancel()
            writing.cancel()
            self._cache.detach(session)
        if ended in done:
            return ended.result()
        if reading in done and reading.exception() is None:
            return reading.result()
        self._log_failure(node_id, writing if writing in done else reading)
        return None

    def _log_failure(self, node_id: str, task: asyncio.Task[Any]) -> None:
        error = task.exception() if not task.cancelled() else None
        if error is not None and not isinstance(error, (grpc.RpcError, grpc.aio.UsageError)):
            _log.error("the stream of %s failed", node_id, exc_info=error)

    async def _read(self, session: Session, request: Request) -> _End | None:
        while True:
            violation = self._cache.handle(session, request)
            if violation is not None:
                _log.warning("ending the stream of %s: %s", session.client.node_id, violation.message)
                return _End(grpc.StatusCode.RESOURCE_EXHAUSTED, violation.message, "violation")
            raw = await _read(self._context)
            if raw is None:
                return None
            try:
                request, _ = self._dialect.parse(raw)
            except DecodeError:
                return _MALFORMED

    async def _write(self, session: Session) -> None:
        loop = asyncio.get_running_loop()
        timer: asyncio.TimerHandle | None = None
        metrics = self._cache.metrics
        try:
            while True:
                self._due.clear()
                while (out := self._cache.next_response(session)) is not None:
                    payload = self._dialect.encode(out)
                    metrics.pushed(out.type_url, len(payload))
                    await self._context.write(payload)
                if timer is not None:
                    timer.cancel()
                wake_at = session.client.wake_at
                timer = None if wake_at is None else loop.call_later(self._cache.until(wake_at), self._due.set)
                await self._due.wait()
        finally:
            if timer is not None:
                timer.cancel()
