"""The aggregated discovery service: gRPC streams, delta and state of the world, over bytes."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, cast

import grpc
import grpc.aio

from controlplane.xds import wire
from controlplane.xds.authentication import Authenticated
from controlplane.xds.cache import Session, SnapshotCache
from controlplane.xds.events import Protocol
from controlplane.xds.identity import Node, Principal, Refusal, owner_of
from controlplane.xds.listening import Limits, ListenError, bind, is_local, options
from controlplane.xds.requests import DecodeError, Request, parse_delta, parse_sotw
from controlplane.xds.subscription import Outgoing

_log = logging.getLogger(__name__)

_SERVICE: Final = "/envoy.service.discovery.v3.AggregatedDiscoveryService"
DELTA_METHOD: Final = f"{_SERVICE}/DeltaAggregatedResources"
SOTW_METHOD: Final = f"{_SERVICE}/StreamAggregatedResources"

_PRUNE_INTERVAL_S: Final = 5.0

Admission = Principal | Authenticated
"""Who comes by an address: known by the address itself, or by what each shows."""

Context = grpc.aio.ServicerContext[bytes, bytes]


@dataclass(frozen=True, slots=True)
class End:
    """Why a stream is ended by the server; with code OK, only so that the client comes back."""

    code: grpc.StatusCode
    message: str
    reason: str


Method = Callable[[Context, Principal], Awaitable[End | None]]
"""A method of two streams beside discovery: serves one call of whoever has been let in, until cancelled."""


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
    methods: Mapping[str, Method] | None = None,
    limits: Limits | None = None,
    insecure_off_loopback: bool = False,
) -> AdsServer:
    """Serves the cache on each address (`unix:/path`, created with mode 0600, or `HOST:PORT`) to who comes by it.

    Raises ListenError for a busy address, and for plaintext off loopback unless that is asked for. TLS alone lets
    nobody in: a certificate comes with an authenticator. `methods` (`/SERVICE/METHOD`) are served beside it, to
    those who are let in.
    """
    limits = limits or Limits()
    streams = _Streams(cache, limits)
    servers: list[grpc.aio.Server] = []
    addresses: list[str] = []
    try:
        for address, admission in listen.items():
            tls = admission.tls if isinstance(admission, Authenticated) else None
            if not (tls or insecure_off_loopback or is_local(address)):
                raise ListenError(f"{address}: plaintext xDS is served on loopback and Unix sockets only")
            server = grpc.aio.server(options=options(limits))
            servers.append(server)
            server.add_generic_rpc_handlers((_Handler(streams, admission, methods or {}),))
            addresses.append(bind(server, address, tls.credentials() if tls else None))
            await server.start()
    except BaseException:
        await asyncio.gather(*(server.stop(None) for server in servers))
        raise
    return AdsServer(tuple(addresses), servers, streams, asyncio.create_task(_prune(cache)))


async def _prune(cache: SnapshotCache) -> None:
    while True:
        await asyncio.sleep(_PRUNE_INTERVAL_S)
        cache.prune()


class _Handler(grpc.GenericRpcHandler):
    def __init__(self, streams: _Streams, admission: Admission, methods: Mapping[str, Method]) -> None:
        served = {DELTA_METHOD: streams.discovery(_DELTA), SOTW_METHOD: streams.discovery(_SOTW)}
        served |= {path: streams.other(method) for path, method in methods.items()}
        self._handlers: dict[str, Any] = {
            path: grpc.stream_stream_rpc_method_handler(streams.handler(admission, work))
            for path, work in served.items()
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


_Work = Callable[[Context, Principal, "asyncio.Future[End]"], Awaitable[End | None]]
"""Serves a stream until it is over, or until the future says why it is ended; returns why, unless it was the client."""


class _Streams:
    """All open streams: each has a task that reads and one that writes, and at most one response a type unanswered."""

    def __init__(self, cache: SnapshotCache, limits: Limits) -> None:
        self._cache = cache
        self._limits = limits
        self._open: set[asyncio.Future[End]] = set()
        self._of_namespace: Counter[str] = Counter()
        self._authenticating = 0
        self._stopping = False

    def handler(self, admission: Admission, work: _Work) -> Callable[[Any, Context], Awaitable[None]]:
        """Returns the gRPC method that does this work for those who come by an address."""

        async def handle(_: object, context: Context) -> None:
            end = await self._serve(context, admission, work)
            if end is not None and end.code != grpc.StatusCode.OK:
                self._cache.metrics.refused(end.reason)
                await context.abort(end.code, end.message)

        return handle

    def discovery(self, dialect: _Dialect) -> _Work:
        """Returns the work of a discovery stream."""
        return partial(self._admit, dialect)

    def other(self, method: Method) -> _Work:
        """Returns the work of another method."""

        async def work(context: Context, principal: Principal, ended: asyncio.Future[End]) -> End | None:
            call = asyncio.ensure_future(method(context, principal))
            try:
                await asyncio.wait((call, ended), return_when=asyncio.FIRST_COMPLETED)
            finally:
                call.cancel()
                await asyncio.wait((call,))
            return ended.result() if call.cancelled() else call.result()

        return work

    def end_all(self) -> None:
        """Ends every stream."""
        self._stopping = True
        for ended in self._open:
            _end(ended, _STOPPING)

    async def _serve(self, context: Context, admission: Admission, work: _Work) -> End | None:
        principal = await self._principal(context, admission)
        if isinstance(principal, End):
            return principal
        namespace = principal.service_account[0] if principal.service_account is not None else ""
        if self._is_full(namespace):
            return End(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many clients", "max_clients")
        ended: asyncio.Future[End] = asyncio.get_running_loop().create_future()
        self._open.add(ended)
        self._of_namespace[namespace] += 1
        ageing = self._age(ended) if isinstance(admission, Authenticated) else None
        try:
            return await work(context, principal, ended)
        finally:
            self._open.discard(ended)
            self._of_namespace[namespace] -= 1
            if not self._of_namespace[namespace]:
                del self._of_namespace[namespace]
            if ageing is not None:
                ageing.cancel()

    def _is_full(self, namespace: str) -> bool:
        """Whether no more are let in: no more at all, or none of a namespace ("" for who is of none)."""
        full = bool(namespace) and self._of_namespace[namespace] >= self._limits.max_clients_of_namespace
        return full or self._stopping or len(self._open) >= self._limits.max_clients

    async def _principal(self, context: Context, admission: Admission) -> Principal | End:
        if isinstance(admission, Principal):
            return admission
        if self._authenticating >= self._limits.max_unauthenticated:
            return End(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many clients", "max_clients")
        self._authenticating += 1
        try:
            principal = await admission.authenticator.authenticate(tuple(context.invocation_metadata() or ()))
        finally:
            self._authenticating -= 1
        if isinstance(principal, Principal):
            return principal
        _log.warning("refused a stream from %s: %s", context.peer(), principal.message)
        return End(grpc.StatusCode.UNAUTHENTICATED, principal.message, "unauthenticated")

    def _age(self, ended: asyncio.Future[End]) -> asyncio.TimerHandle | None:
        """Ends a stream some time: who has lost the right to it must not be served for as long as they stay."""
        longest_s = self._limits.max_stream_age_s
        if longest_s is None:
            return None
        # Spread, so that not everybody comes at once who came at once.
        age_s = longest_s * random.uniform(0.8, 1.0)  # noqa: S311
        return asyncio.get_running_loop().call_later(age_s, _end, ended, _AGED)

    async def _admit(
        self, dialect: _Dialect, context: Context, principal: Principal, ended: asyncio.Future[End]
    ) -> End | None:
        try:
            raw = await asyncio.wait_for(_read(context), self._limits.first_request_timeout_s)
        except TimeoutError:
            return End(grpc.StatusCode.DEADLINE_EXCEEDED, "no request came", "silent")
        if raw is None:
            return None
        try:
            request, node = dialect.parse(raw)
        except DecodeError:
            return _MALFORMED
        owner = owner_of(principal, node) if node is not None else Refusal("the first request must hold the node")
        if isinstance(owner, Refusal):
            _log.warning("refused a %s stream from %s: %s", dialect.protocol, context.peer(), owner.message)
            return End(grpc.StatusCode.PERMISSION_DENIED, owner.message, "identity")
        node_id = node.id if node is not None else ""
        if principal.is_free:
            _log.info("%s is taken for %s by its own word (%s)", context.peer(), owner, node_id)
        stream = _Stream(context, self._cache, dialect)
        return await stream.run(owner, node_id, request, ended)


async def _read(context: Context) -> bytes | None:
    """Returns the next message; None where the client has ended its side."""
    message = cast(object, await context.read())
    return message if isinstance(message, bytes) else None


def _end(ended: asyncio.Future[End], why: End) -> None:
    if not ended.done():
        ended.set_result(why)


_AGED: Final = End(grpc.StatusCode.OK, "show a token anew", "aged")
_STOPPING: Final = End(grpc.StatusCode.UNAVAILABLE, "the control plane is going away", "stopping")
_MALFORMED: Final = End(grpc.StatusCode.INVALID_ARGUMENT, "malformed request", "malformed")


class _Stream:
    def __init__(self, context: Context, cache: SnapshotCache, dialect: _Dialect) -> None:
        self._context = context
        self._cache = cache
        self._dialect = dialect
        self._due = asyncio.Event()

    async def run(self, owner: str, node_id: str, request: Request, ended: asyncio.Future[End]) -> End | None:
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

    async def _read(self, session: Session, request: Request) -> End | None:
        while True:
            violation = self._cache.handle(session, request)
            if violation is not None:
                _log.warning("ending the stream of %s: %s", session.client.node_id, violation.message)
                return End(grpc.StatusCode.RESOURCE_EXHAUSTED, violation.message, "violation")
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
