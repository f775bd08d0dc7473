"""Runs a service as N worker processes, each on a socket of its own; starts dead ones again and ends all in order.

The workers' own HTTP ports are Unix sockets in a private folder; the supervising process answers for all of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from dragoman import metrics
from dragoman.grpc_worker import Address
from dragoman.http_server import Health, json_response, serve_http
from dragoman.processes import BackOff, ChildError, ChildEvent, ChildSpec, Supervisor
from dragoman.unix_http import get

log = logging.getLogger(__name__)

ASK_WITHIN_S = 1.0
KILL_MARGIN_S = 2.0


@dataclass(frozen=True, slots=True)
class WorkerPlace:
    """Which worker it is, where it serves gRPC, and where it serves health and metrics."""

    index: int
    listen: Address
    http: Address

    @property
    def name(self) -> str:
        return str(self.index)


Command = Callable[[WorkerPlace], Sequence[str]]
"""Returns the arguments after `python` of one worker: `["-m", "dragoman.cli", "authz", "--listen", ...]`."""


def listen_addresses(listen: Address, count: int) -> tuple[Address, ...]:
    """Returns where each worker listens: PATH for one; PATH.0, PATH.1, … or PORT, PORT + 1, … for more.

    Raises ValueError when there are no such addresses.
    """
    if count < 1:
        raise ValueError("there must be at least one worker")
    if count == 1:
        return (listen,)
    if listen.is_unix:
        return tuple(Address(path=f"{listen.path}.{index}") for index in range(count))
    if listen.port == 0:
        raise ValueError(f"{listen}: {count} workers need a port that is known, from which theirs are counted")
    if listen.port + count - 1 > 65535:
        raise ValueError(f"{listen}: {count} workers need ports up to {listen.port + count - 1}, and 65535 is the last")
    return tuple(Address(host=listen.host, port=listen.port + index) for index in range(count))


async def run_workers(
    command: Command,
    *,
    python: str,
    listen: Address,
    count: int,
    stop: asyncio.Event,
    http: Address | None = None,
    grace_s: float = 10.0,
    start_within_s: float = 30.0,
    back_off: BackOff | None = None,
    on_running: Callable[[tuple[WorkerPlace, ...]], None] = lambda places: None,
    routes: Callable[[Sequence[WorkerPlace]], Sequence[BaseRoute]] = lambda places: (),
) -> int:
    """Runs the workers until `stop` is set; returns the exit code of the whole.

    It is 0 when all ended by themselves within `grace_s` of SIGTERM, the worker's own when one cannot be started, else
    1. A worker counts as started once its `/health/startup` says so. Raises OSError when `http` cannot be had, which
    answers for all workers, by `routes` too.
    """
    addresses = listen_addresses(listen, count)
    with tempfile.TemporaryDirectory(prefix="dragoman-") as folder:
        places = tuple(
            WorkerPlace(index, address, Address(path=str(Path(folder) / f"{index}.sock")))
            for index, address in enumerate(addresses)
        )
        async with contextlib.AsyncExitStack() as stack:
            supervisor = await stack.enter_async_context(Supervisor(on_event=_report))
            health = Health()
            if http is not None:
                own = [*_routes(places, supervisor, health), *routes(places)]
                stack.push_async_callback((await serve_http(health=health, listen=http, routes=own)).close)
            specs = [
                ChildSpec(
                    place.name,
                    (python, *command(place)),
                    ready=_startup_of(place),
                    ready_within_s=start_within_s,
                    stop_grace_s=grace_s + KILL_MARGIN_S,
                    captured=False,
                    back_off=back_off or BackOff(),
                )
                for place in places
            ]
            failed = await _start_all(supervisor, specs, stop)
            if failed is not None:
                return failed
            health.started()
            on_running(places)
            await stop.wait()
            health.drain()
            codes = await supervisor.stop()
            return 0 if all(code in (0, None) for code in codes.values()) else 1


async def _start_all(supervisor: Supervisor, specs: Sequence[ChildSpec], stop: asyncio.Event) -> int | None:
    """Starts all; returns an exit code when that is the end of it."""
    starting = [asyncio.create_task(supervisor.start(spec)) for spec in specs]
    stopped = asyncio.create_task(stop.wait())
    try:
        pending: set[asyncio.Task[None]] = set(starting)
        while pending and not stopped.done():
            done, _ = await asyncio.wait({*pending, stopped}, return_when=asyncio.FIRST_COMPLETED)
            pending -= {task for task in starting if task in done}
            for task in starting:
                if task in done:
                    task.result()
    except ChildError as error:
        log.error("worker %s", error)
        return error.exit_code or 1
    finally:
        stopped.cancel()
        for task in starting:
            task.cancel()
        await asyncio.gather(*starting, return_exceptions=True)
    return 0 if stop.is_set() else None


def _startup_of(place: WorkerPlace) -> Callable[[], Awaitable[bool]]:
    async def started() -> bool:
        return (await get(place.http.path, "/health/startup", within_s=ASK_WITHIN_S))[0] == 200

    return started


def _routes(places: Sequence[WorkerPlace], supervisor: Supervisor, health: Health) -> list[Route]:
    registry = metrics.new_registry()
    registry.register(
        metrics.Collected(
            lambda: [
                metrics.counter(
                    "dragoman_worker_restarts",
                    "Times that a worker was started again.",
                    ("restarted",),
                    (((name,), supervisor.restarts(name)) for name in sorted(supervisor.names)),
                )
            ]
        )
    )

    async def expose(request: Request) -> Response:
        answers = await _ask_all(places, "/metrics")
        texts = {name: body for name, (status, body) in answers.items() if status == 200}
        own = metrics.exposition(registry).decode()
        return Response(metrics.merge_expositions({"supervisor": own, **texts}), media_type=CONTENT_TYPE_LATEST)

    async def ready(request: Request) -> Response:
        answers = await _ask_all(places, "/health/ready")
        failing = [name for name, (status, _) in answers.items() if status != 200]
        state = "draining" if health.body()["status"] == "draining" else "not ready" if failing else "ready"
        body = {
            "status": state,
            "failing": failing,
            "workers": {name: _json_or_text(body) for name, (_, body) in answers.items()},
        }
        return json_response(body, 200 if state == "ready" and health.is_ready else 503)

    return [Route("/metrics", expose), Route("/health/ready", ready)]


async def _ask_all(places: Sequence[WorkerPlace], path: str) -> Mapping[str, tuple[int, str]]:
    async def ask(place: WorkerPlace) -> tuple[int, str]:
        try:
            return await get(place.http.path, path, within_s=ASK_WITHIN_S)
        except OSError as error:
            return 0, f"the worker does not answer: {error.strerror or type(error).__name__}"

    answers = await asyncio.gather(*map(ask, places))
    return {place.name: answer for place, answer in zip(places, answers, strict=True)}


def _json_or_text(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _report(event: ChildEvent) -> None:
    extra = {"worker": event.name, "pid": event.pid}
    if event.next_start_s is not None:
        log.error("worker %s ended with exit code %s", event.name, event.exit_code, extra=extra)
    else:
        log.info("worker %s is %s", event.name, event.state, extra=extra)
