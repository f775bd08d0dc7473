"""Runs the service: `run` for the command line; `serve` for one worker, until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
import time
from collections.abc import AsyncGenerator, Coroutine
from dataclasses import dataclass
from typing import Any

import uvloop

from dragoman.grpc_worker import Address, GrpcServer, Limits
from dragoman.grpc_worker import serve as serve_grpc
from dragoman.xds_client import XdsClient
from ratelimit_service.config_xds import TYPE_URL
from ratelimit_service.file_source import FileSource
from ratelimit_service.handler import METHOD, RateLimiter
from ratelimit_service.service import PlanOptions, Service
from ratelimit_service.settings import RateLimitSettings
from ratelimit_service.stats import StatsRegistry
from ratelimit_service.stores.base import Store
from ratelimit_service.stores.memory import MemoryStore
from ratelimit_service.stores.redis_store import RedisStore
from ratelimit_service.stores.redis_url import RedisTarget

_log = logging.getLogger(__name__)

MAX_MESSAGE_BYTES = 256 * 1024


def run(settings: RateLimitSettings) -> int:
    """Serves until SIGTERM or SIGINT; returns the exit code: 2 for settings that make no sense."""
    faults = settings.faults()
    if faults:
        for fault in faults:
            sys.stderr.write(f"dragoman ratelimit: {fault}\n")
        return 2
    try:
        uvloop.run(_until_told(settings))
    except OSError as error:
        sys.stderr.write(f"dragoman ratelimit: {error}\n")
        return 1
    return 0


async def _until_told(settings: RateLimitSettings) -> None:
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    async with worker(settings):
        await told.wait()


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker that serves, as tests and health checks see it."""

    address: Address
    service: Service
    store: Store


@contextlib.asynccontextmanager
async def worker(settings: RateLimitSettings) -> AsyncGenerator[Worker]:
    """Serves on `settings.listen` while the context lasts, then drains."""
    stats = StatsRegistry()
    store = _store(settings)
    limiter = RateLimiter(store, stats, clock=time.time, headers=settings.response_headers)
    options = PlanOptions(settings.key_prefix, settings.near_ratio, settings.unknown_domain)
    service = Service(limiter, stats, options)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(store.close)
        await stack.enter_async_context(_background(_source(settings, service)))
        server = await serve_grpc(
            {METHOD: limiter},
            listen=Address.parse(settings.listen),
            engine=settings.engine,
            limits=Limits(max_message_bytes=MAX_MESSAGE_BYTES),
        )
        stack.push_async_callback(_stop, server, settings.drain_s)
        _log.info("serving on %s", server.address)
        yield Worker(server.address, service, store)


def _store(settings: RateLimitSettings) -> Store:
    if settings.redis is None:
        return MemoryStore(max_keys=settings.max_keys)
    store = RedisStore(RedisTarget.parse(settings.redis), timeout_s=settings.store_timeout_s)
    store.start()
    return store


def _source(settings: RateLimitSettings, service: Service) -> Coroutine[Any, Any, None]:
    state = settings.state
    if settings.config is not None:
        source = FileSource(settings.config, service, last_good=state / "ratelimit-config.json" if state else None)
        source.load()
        return source.run()
    assert settings.xds is not None
    client = XdsClient(
        settings.xds,
        settings.node_id,
        settings.node_id,
        TYPE_URL,
        service.update,
        last_good=state / "ratelimit-xds.pb" if state else None,
    )
    client.load()
    return client.run()


async def _stop(server: GrpcServer, drain_s: float) -> None:
    server.set_serving(False)
    await server.drain(drain_s)


@contextlib.asynccontextmanager
async def _background(work: Coroutine[Any, Any, None]) -> AsyncGenerator[None]:
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
