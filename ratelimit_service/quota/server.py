# pyright: standard, reportAttributeAccessIssue=false
"""Serves RateLimitQuotaService: a stream an Envoy, on a port of its own, in one process that divides all limits."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import random
import time
from collections.abc import AsyncGenerator, Iterable
from dataclasses import dataclass

import grpc
import grpc.aio

from dragoman.grpc_worker import Address, Limits, TlsFiles
from dragoman.grpc_worker.grpcio_engine import bind, options
from ratelimit_service.quota.division import REPORT_S
from ratelimit_service.quota.ledger import Action, BucketKey, Ledger
from ratelimit_service.quota.messages import METHOD, read_reports, write_actions

_log = logging.getLogger(__name__)

_TICK_S = 0.25
_AT_A_TIME = 200
_SILENT_S = 3 * REPORT_S


@dataclass(frozen=True, slots=True)
class StreamBounds:
    """What streams may use. Each is ended at some time, so that Envoys find their way to where they now should go."""

    streams: int = 1024
    message_bytes: int = 4 * 1024 * 1024
    silent_s: float = _SILENT_S
    """One that says nothing for so long is ended: an Envoy with any bucket reports every five seconds."""
    write_s: float = 10.0
    """One that takes nothing for so long is ended."""
    age_s: float = 600.0


class QuotaServer:
    """The streams that are open, and the ledger that they are about."""

    address: Address
    """Where it listens, once it does."""

    def __init__(self, ledger: Ledger, bounds: StreamBounds) -> None:
        self._ledger = ledger
        self._bounds = bounds
        self._streams: dict[int, _Stream] = {}
        self.unread = 0
        """How many are over, but for what their clients have not read yet."""
        self._numbers = itertools.count(1)

    @property
    def streams(self) -> int:
        """How many are open."""
        return len(self._streams)

    async def serve(self, requests: object, context: grpc.aio.ServicerContext) -> None:
        """Serves one stream until its end."""
        if len(self._streams) + self.unread >= self._bounds.streams:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many streams")
        stream = _Stream(next(self._numbers), context, self._bounds)
        self._streams[stream.number] = stream
        self._ledger.open(stream.number)
        writer = asyncio.create_task(self._write(stream))
        reader = asyncio.create_task(self._read(stream))
        try:
            await asyncio.wait({reader, writer}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            del self._streams[stream.number]
            self.unread += 1
            self._ledger.close(stream.number)
            try:
                ended = await _ended(reader, writer)
                # gRPC sends no status ahead of what is not read yet, nor together with it.
                await asyncio.gather(stream.writing, return_exceptions=True)
            finally:
                self.unread -= 1
                stream.writing.cancel()
        if ended is not None:
            await context.abort(*ended)

    async def tick(self) -> None:
        """Tells, for ever, what falls due."""
        while True:
            await asyncio.sleep(_TICK_S)
            try:
                await self._tell(self._ledger.due(all_of_it=True))
            except Exception:
                _log.exception("dividing limits failed")

    async def _read(self, stream: _Stream) -> tuple[grpc.StatusCode, str] | None:
        domain = ""
        until = time.monotonic() + self._bounds.age_s * random.uniform(0.75, 1.0)  # noqa: S311  (spreads reconnects)
        while (left_s := until - time.monotonic()) > 0:
            try:
                # Not wait_for, in which a cancellation is lost that comes with a message.
                async with asyncio.timeout(min(self._bounds.silent_s, left_s)):
                    body = await stream.context.read()
            except TimeoutError:
                return None
            if body is grpc.aio.EOF:
                return None
            found = read_reports(body)
            if found is None:
                return grpc.StatusCode.INVALID_ARGUMENT, "not RateLimitQuotaUsageReports"
            domain = found[0] or domain
            if not domain:
                return grpc.StatusCode.INVALID_ARGUMENT, "the first message must have a domain"
            for count, usage in enumerate(found[1], start=1):
                self._ledger.report(stream.number, domain, usage)
                if count % _AT_A_TIME == 0:
                    await asyncio.sleep(0)
            await self._tell(self._ledger.due())
        return None

    async def _write(self, stream: _Stream) -> tuple[grpc.StatusCode, str] | None:
        while True:
            actions = await stream.taken()
            stream.writing = asyncio.ensure_future(stream.context.write(write_actions(actions)))
            await asyncio.wait({stream.writing}, timeout=self._bounds.write_s)
            if not stream.writing.done():
                return grpc.StatusCode.RESOURCE_EXHAUSTED, "the stream is not read"
            await stream.writing
            for action in actions:
                self._ledger.sent(action)
            if self._ledger.urgent:
                await self._tell(self._ledger.due())

    async def _tell(self, due: Iterable[list[Action]]) -> None:
        # The process answers requests too: they have their turn.
        for count, actions in enumerate(due, start=1):
            for action in actions:
                stream = self._streams.get(action.stream)
                if stream is not None:
                    stream.put(action)
            if count % _AT_A_TIME == 0:
                await asyncio.sleep(0)


class _Stream:
    """A stream and what it is yet to be told: the last word on each bucket alone, however slowly it reads."""

    def __init__(self, number: int, context: grpc.aio.ServicerContext, bounds: StreamBounds) -> None:
        self.number = number
        self.context = context
        self.writing: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """What is being written, or was last."""
        self.writing.set_result(None)
        self._waiting: dict[BucketKey, Action] = {}
        self._wake = asyncio.Event()

    def put(self, action: Action) -> None:
        self._waiting[action.key] = action
        self._wake.set()

    async def taken(self) -> list[Action]:
        """Waits for something to tell; returns as much of it as goes into a message."""
        await self._wake.wait()
        taken = [self._waiting.pop(key) for key in list(itertools.islice(self._waiting, _AT_A_TIME))]
        if not self._waiting:
            self._wake.clear()
        return taken


async def _ended(*tasks: asyncio.Task[tuple[grpc.StatusCode, str] | None]) -> tuple[grpc.StatusCode, str] | None:
    """Cancels what goes on; returns the status to end with, None for the usual one."""
    for task in tasks:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    for result in results:
        if isinstance(result, tuple):
            return result
        if isinstance(result, Exception) and not isinstance(result, grpc.aio.UsageError):
            _log.debug("a quota stream ended: %s", result)
    return None


@contextlib.asynccontextmanager
async def serving(
    ledger: Ledger, *, listen: Address, tls: TlsFiles | None, bounds: StreamBounds | None = None
) -> AsyncGenerator[QuotaServer]:
    """Serves while the context lasts; raises OSError when it cannot listen."""
    bounds = bounds or StreamBounds()
    quota = QuotaServer(ledger, bounds)
    limits = Limits(
        max_message_bytes=bounds.message_bytes,
        max_concurrent_streams=bounds.streams,
        keepalive_time_s=REPORT_S,
        keepalive_timeout_s=2 * REPORT_S,
    )
    # What a client never reads goes with its connection alone. No stream that is served lasts as long as this.
    age_ms = int(bounds.age_s * 1000)
    ages = [("grpc.max_connection_age_ms", age_ms), ("grpc.max_connection_age_grace_ms", age_ms)]
    server = grpc.aio.server(options=[*options(limits), *ages])
    service, _, method = METHOD.removeprefix("/").partition("/")
    handler = grpc.stream_stream_rpc_method_handler(quota.serve)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
    quota.address = bind(server, listen, tls, 0o600)
    await server.start()
    ticking = asyncio.create_task(quota.tick())
    try:
        yield quota
    finally:
        ticking.cancel()
        await asyncio.gather(ticking, return_exceptions=True)
        await server.stop(None)
