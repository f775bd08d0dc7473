"""The HTTP port of each process: `/metrics`, `/health/{live,ready,startup}`, and what the owner adds."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import Awaitable, Callable, Generator, Sequence

import uvicorn
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from dragoman import metrics
from dragoman.grpc_worker import Address
from dragoman.grpc_worker.sockets import bind, bound_address, unlink_own
from dragoman.http_connections import KEEP_ALIVE_S, MAX_CONNECTIONS, HttpConnection

LOOPBACK = Address(host="127.0.0.1", port=0)

Check = Callable[[], bool | str]
"""True when all is well; False, or words that say what is not (a `Remark` says what is well, though)."""


class Remark(str):
    """What a check that holds has to say."""

    __slots__ = ()


class Health:
    """Named checks. A process is ready when all of them hold and it is not draining; started once it was told so."""

    def __init__(self) -> None:
        self._checks: dict[str, Check] = {}
        self._facts: dict[str, bool | str] = {}
        self._started = False
        self._draining = False

    def watch(self, name: str, check: Check) -> None:
        """Adds a check that is asked at every request; it must answer at once."""
        self._checks[name] = check

    def set(self, name: str, state: bool | str) -> None:
        """Sets a check: True when all is well; False, or words that say what is not."""
        self._facts[name] = state

    def started(self) -> None:
        self._started = True

    def drain(self) -> None:
        """From now on the process is not ready, so that no new work is sent to it."""
        self._draining = True

    @property
    def is_started(self) -> bool:
        return self._started

    @property
    def is_ready(self) -> bool:
        return self._started and not self._draining and all(map(_holds, self.states().values()))

    def states(self) -> dict[str, bool | str]:
        """Returns the state of each check."""
        return {**self._facts, **{name: _asked(check) for name, check in self._checks.items()}}

    def body(self) -> dict[str, object]:
        """Returns what `/health/ready` answers: the checks, and those that do not hold by name."""
        states = self.states()
        checks = {name: "ok" if state is True else str(state or "not yet") for name, state in states.items()}
        failing = [name for name, state in states.items() if not _holds(state)]
        status = "draining" if self._draining else "ready" if self.is_ready else "not ready"
        return {"status": status, "failing": failing, "checks": checks}


class HttpServer:
    """A server that is listening on `address`; `close` ends it."""

    def __init__(self, server: uvicorn.Server, task: asyncio.Task[None], address: Address, inode: int) -> None:
        self.address = address
        self._server = server
        self._task = task
        self._inode = inode

    async def close(self, grace_s: float = 1.0) -> None:
        """Stops listening, lets requests in flight end for up to `grace_s`, and cuts the rest."""
        self._server.should_exit = True
        await asyncio.wait({self._task}, timeout=grace_s)
        self._server.force_exit = True
        await asyncio.wait({self._task}, timeout=1.0)
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        if self.address.is_unix:
            unlink_own(self.address.path, self._inode)


async def serve_http(
    *,
    health: Health,
    registry: CollectorRegistry | None = None,
    listen: Address = LOOPBACK,
    routes: Sequence[BaseRoute] = (),
) -> HttpServer:
    """Serves in this event loop, on loopback unless told otherwise; raises OSError, naming the address, when it can't.

    Without a `registry` there is no `/metrics`, unless one is among `routes`.
    """

    async def expose(request: Request) -> Response:
        assert registry is not None
        return Response(metrics.exposition(registry), media_type=CONTENT_TYPE_LATEST)

    # The owner's routes come first, so that it can answer in another way.
    own = [*routes, *_health_routes(health), *([Route("/metrics", expose)] if registry is not None else [])]
    return await _listen(Starlette(routes=own), listen)


def json_response(body: object, status: int = 200) -> Response:
    """Returns a JSON body."""
    return Response(json.dumps(body) + "\n", status, media_type="application/json")


def _health_routes(health: Health) -> list[Route]:
    async def live(request: Request) -> Response:
        return json_response({"status": "live"})

    async def ready(request: Request) -> Response:
        return json_response(health.body(), 200 if health.is_ready else 503)

    async def startup(request: Request) -> Response:
        return json_response(
            {"status": "started" if health.is_started else "starting"}, 200 if health.is_started else 503
        )

    named: list[tuple[str, Callable[[Request], Awaitable[Response]]]] = [
        ("/health/live", live),
        ("/health/ready", ready),
        ("/health/startup", startup),
    ]
    return [Route(path, endpoint) for path, endpoint in named]


async def _listen(app: Starlette, listen: Address) -> HttpServer:
    listener = bind(listen)
    address = bound_address(listener, listen)
    inode = os.lstat(address.path).st_ino if address.is_unix else 0
    config = uvicorn.Config(
        app,
        log_config=None,
        log_level="warning",
        access_log=False,
        lifespan="off",
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        # Connections are bounded by themselves: who has one is answered.
        limit_concurrency=2 * MAX_CONNECTIONS,
        http=HttpConnection,
        h11_max_incomplete_event_size=64 * 1024,
    )
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]), name=f"http server of {address}")
    listening = asyncio.create_task(server.listening.wait())
    await asyncio.wait({task, listening}, return_when=asyncio.FIRST_COMPLETED)
    if not listening.done():
        listening.cancel()
        task.result()
        raise OSError(f"cannot serve HTTP on {address}")
    return HttpServer(server, task, address, inode)


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        # Signals are the process' own affair.
        yield


def _holds(state: bool | str) -> bool:
    return state is True or isinstance(state, Remark)


def _asked(check: Check) -> bool | str:
    try:
        return check()
    except Exception as error:
        return f"the check failed: {type(error).__name__}"
