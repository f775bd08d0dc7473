"""Runs the service: `run` for the command line, `worker` for one worker inside an event loop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Coroutine, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import uvloop

from dragoman import logs
from dragoman.batch import Batch
from dragoman.followed import keep_following
from dragoman.grpc_worker import Address, GrpcServer, Limits
from dragoman.grpc_worker import serve as serve_grpc
from dragoman.http_server import Health, HttpServer, serve_http
from dragoman.metrics import CallMetrics, new_registry
from dragoman.open_files import allow_many
from dragoman.signals import serve_until, stop_on_signals
from dragoman.steadiness import steady_loop
from dragoman.workers import WorkerPlace, run_workers
from ratelimit_service.answers import Answers
from ratelimit_service.grants import Granting
from ratelimit_service.handler import METHOD, RateLimiter
from ratelimit_service.health import ready_route
from ratelimit_service.http import routes as http_routes
from ratelimit_service.metrics import collector, metrics_route
from ratelimit_service.model import OnStoreError
from ratelimit_service.pool import pool_routes
from ratelimit_service.quota.main import Quota, serve_quota
from ratelimit_service.replicas import replicas_of
from ratelimit_service.service import PlanOptions, Service
from ratelimit_service.settings import DEFAULT_NODE_ID, RateLimitSettings
from ratelimit_service.sources import Source, file_source, xds_source
from ratelimit_service.statsd.main import of_the_service, telling
from ratelimit_service.stores.base import Store
from ratelimit_service.stores.leases import LeaseStore
from ratelimit_service.stores.local import Local
from ratelimit_service.stores.memory import MemoryStore
from ratelimit_service.stores.opened import open_store
from ratelimit_service.stores.redis_open import lacking

_log = logging.getLogger(__name__)

MAX_MESSAGE_BYTES = 256 * 1024
"""Nobody's descriptors are as large, unless somebody sends headers of many KiB to keep the service busy."""
HEALTH_NAME = "ratelimit"
"""What envoyproxy/ratelimit calls itself in grpc.health.v1: probes made for it go on working."""


def run(settings: RateLimitSettings, *, notes: Iterable[str] = ()) -> int:
    """Serves until SIGTERM or SIGINT, then drains; returns the exit code. `notes` on the settings go into the log."""
    logs.configure(level=settings.log_level, format=settings.log_format, fields={"service": "ratelimit"})
    for note in notes:
        _log.warning("%s", note)
    allow_many()
    try:
        return uvloop.run(_one(settings) if settings.workers == 1 else _several(settings))
    except (OSError, ValueError) as error:
        sys.stderr.write(f"dragoman ratelimit: {logs.in_words(error)}\n")
        return 1


async def _one(settings: RateLimitSettings) -> int:
    await serve_until(stop_on_signals(), worker(settings))
    return 0


async def _several(settings: RateLimitSettings) -> int:
    # The settings go by files that we alone can read: arguments are seen by everybody, and the URL may have a password.
    with tempfile.TemporaryDirectory(prefix="dragoman-ratelimit-") as folder:

        def command(place: WorkerPlace) -> list[str]:
            file = Path(folder) / f"{place.name}.json"
            own: dict[str, object] = {"listen": str(place.listen), "http": str(place.http), "workers": 1}
            # One process divides the limits of quota mode: what Envoys report must come together.
            own["quota_listen"] = settings.quota_listen if place.index == 0 else None
            if settings.node_id == DEFAULT_NODE_ID:
                own["node_id"] = f"{DEFAULT_NODE_ID}/{place.name}"
            own |= {"shared_memory": Path(folder) / "memory.sock", "shares_memory": place.index == 0}
            own["processes"] = settings.workers
            given = settings.model_copy(update=own)
            file.write_text(given.model_dump_json())
            # -P: what lies in the present folder must not hide installed packages.
            return ["-P", "-m", "ratelimit_service", str(file)]

        return await run_workers(
            command,
            python=sys.executable,
            listen=Address.parse(settings.listen),
            count=settings.workers,
            stop=stop_on_signals(),
            http=Address.parse(settings.http) if settings.http else None,
            grace_s=settings.drain_s,
            routes=pool_routes,
        )


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker that serves: where, and the parts that tests look into."""

    address: Address
    http: Address | None
    service: Service
    store: Store
    quota: Quota | None = None


@contextlib.asynccontextmanager
async def worker(settings: RateLimitSettings) -> AsyncGenerator[Worker]:
    """Serves on `settings.listen` while the context lasts, then drains; raises OSError when it cannot listen."""
    stats = settings.stats
    batch = Batch(asyncio.get_running_loop())
    store = await open_store(settings, batch=batch)
    answers = Answers(settings.answers)
    # What counts in this very process has no use for leases.
    leases = None if isinstance(store, MemoryStore) else LeaseStore(store, patience_s=settings.store_timeout_s)
    looks = settings.look_first
    limiter = RateLimiter(store, stats, clock=time.time, answers=answers, leases=leases, looks_first=looks)
    ahead = settings.response_quota
    handler = Granting(limiter, ahead=ahead, clock=time.time) if ahead else limiter
    local = Local(replicas=settings.replicas, processes=settings.processes)
    replicas = replicas_of(settings, local)
    options = PlanOptions(
        settings.key_prefix,
        settings.near_ratio,
        OnStoreError.ALLOW if settings.unknown_domain is None and settings.xds is None else settings.unknown_domain,
        answers,
        merge_domains=settings.merge_domains,
        local=local,
    )
    service = Service(limiter, stats, options)
    calls = CallMetrics()
    health = Health()
    health.watch("config", lambda: service.ready or "no configuration has come yet")
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(store.close)
        if leases is not None:
            stack.push_async_callback(leases.close)
        source = await _source(settings, service)
        await stack.enter_async_context(_background(keep_following(source.run)))
        if replicas is not None:
            await stack.enter_async_context(_background(replicas.run()))
        others = partial(of_the_service, stats, answers, service, store)
        statsd = await stack.enter_async_context(telling(settings, stats, others=others, calls=calls))
        registry = new_registry()
        registry.register(calls)
        registry.register(collector(stats, answers, service, store, local, leases))
        http: HttpServer | None = None
        if settings.http is not None:
            without = {"store": lambda: lacking(store), "config": source.without}
            if replicas is not None:
                without["replicas"] = lambda: replicas.without
            if statsd is not None:
                without["statsd"] = lambda: statsd.without
            http = await serve_http(
                health=health,
                registry=registry,
                listen=Address.parse(settings.http),
                routes=[
                    metrics_route(registry, stats),
                    ready_route(health, without),
                    *http_routes(handler, service, health),
                ],
            )
            # It ends last: while calls are drained it says so.
            stack.push_async_callback(http.close)
        server = await serve_grpc(
            {METHOD: handler},
            listen=Address.parse(settings.listen),
            engine=settings.engine,
            limits=Limits(
                max_message_bytes=MAX_MESSAGE_BYTES,
                too_large=limiter.too_large,
                connection_age_s=settings.max_connection_age_s,
                connection_age_grace_s=settings.max_connection_age_grace_s,
            ),
            tls=settings.tls,
            observe=calls,
            health_names=(HEALTH_NAME,),
            batch=batch,
        )
        server.set_serving(service.ready)
        service.on_ready = partial(server.set_serving, True)
        stack.push_async_callback(_drain, server, service, health, settings.drain_s)
        quota = await stack.enter_async_context(serve_quota(settings, service, stats))
        if quota is not None:
            registry.register(quota.metrics)
        stack.enter_context(steady_loop())
        health.started()
        where = "memory" if settings.redis is None else "Redis"
        _log.info("serving rate limits on %s, counted in %s", server.address, where)
        yield Worker(server.address, http.address if http else None, service, store, quota)


async def _source(settings: RateLimitSettings, service: Service) -> Source:
    state = settings.state
    if settings.config is not None:
        return await file_source(
            settings.config,
            service,
            last_good=state / "ratelimit-files.json" if state else None,
            merge_domains=settings.merge_domains,
        )
    assert settings.xds is not None
    return await xds_source(
        settings.xds,
        settings.node_id,
        service,
        last_good=state / "ratelimit-xds.pb" if state else None,
        credentials=settings.xds_credentials,
        protocol=settings.xds_protocol,
        node_metadata=settings.node_metadata,
    )


async def _drain(server: GrpcServer, service: Service, health: Health, drain_s: float) -> None:
    _log.info("draining")
    service.on_ready = None
    health.drain()
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
