"""`dragoman serve`: the control plane alone."""

from __future__ import annotations

import gc
import logging
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Annotated

import typer
import uvloop
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from controlplane.provision.binding import bind
from controlplane.server import ControlPlane
from controlplane.sources.files import FileSource
from controlplane.xds.identity import Principal
from controlplane.xds.metrics import XdsMetrics
from controlplane.xds.server import ListenError
from dragoman import logs
from dragoman.cli.errors import CommandError
from dragoman.cli.memory import spare_the_collector
from dragoman.cli.settings import ServeSettings, SettingsFile, load
from dragoman.grpc_worker import Address
from dragoman.http_server import Health, json_response, serve_http
from dragoman.metrics import new_registry
from dragoman.workers import stop_on_signals

_log = logging.getLogger(__name__)


def serve(
    config: Annotated[Path | None, typer.Option(help="Folder of manifests.")] = None,
    xds: Annotated[
        str | None, typer.Option(help="Where Envoys are served (HOST:PORT or unix:PATH). [default: 127.0.0.1:18000]")
    ] = None,
    http: Annotated[
        str | None, typer.Option(help="Where health, metrics and status are served. [default: 127.0.0.1:18001]")
    ] = None,
    xds_insecure: Annotated[
        bool | None, typer.Option("--xds-insecure", help="Allow xDS in plain text on addresses other than loopback.")
    ] = None,
    dns: Annotated[
        list[str] | None, typer.Option(help="A DNS server (HOST:PORT) instead of the system's; may be repeated.")
    ] = None,
    authz: Annotated[
        list[str] | None, typer.Option(help="Where a worker of `dragoman authz` listens; may be repeated.")
    ] = None,
    ratelimit: Annotated[
        list[str] | None, typer.Option(help="Where a worker of `dragoman ratelimit` listens; may be repeated.")
    ] = None,
    state: Annotated[
        Path | None, typer.Option(help="Folder that the last good version of each object is kept in.")
    ] = None,
    settings: SettingsFile = None,
) -> None:
    """Run the control plane: watch a folder of manifests and serve xDS to the Envoys of its Gateways."""
    flags = {"config": config, "xds": xds, "http": http, "xds_insecure": xds_insecure, "dns": dns}
    loaded = load(ServeSettings, settings, **flags, authz=authz, ratelimit=ratelimit, state=state)
    logs.configure(level=loaded.log_level, format=loaded.log_format, fields={"service": "controlplane"})
    # Building the first snapshot makes no garbage, but many objects: the collector would look at them over and over.
    gc.disable()
    try:
        uvloop.run(_serve(loaded))
    except ListenError as error:
        raise CommandError(str(error)) from None
    except OSError as error:
        raise CommandError(error.strerror or str(error)) from None


async def _serve(settings: ServeSettings) -> None:
    stop = stop_on_signals()
    registry = new_registry()
    health = Health()
    plane = ControlPlane(
        FileSource(settings.config),
        bind=bind,
        listen={settings.xds: Principal("any")},
        nameservers=[nameserver(each) for each in settings.dns],
        insecure_off_loopback=settings.xds_insecure,
        metrics=XdsMetrics(registry),
        authz=settings.authz,
        ratelimit=settings.ratelimit,
        state=None if settings.state is None else settings.state / "accepted.db",
    )
    registry.register(plane.engine_metrics)
    health.watch("config", lambda: plane.ready or "the first snapshot is not built yet")
    async with AsyncExitStack() as stack:
        if settings.http is not None:
            listen, routes = Address.parse(settings.http), [status_route(plane)]
            server = await serve_http(health=health, registry=registry, listen=listen, routes=routes)
            stack.push_async_callback(server.close)
        await stack.enter_async_context(plane)
        spare_the_collector()
        health.started()
        _log.info("serving xDS on %s", settings.xds)
        await stop.wait()
        _log.info("stopping")
        health.drain()


def status_route(plane: ControlPlane) -> Route:
    """Returns the route of `/status`: every object's conditions, and how far each client is."""

    async def status(request: Request) -> Response:
        return json_response(plane.report().to_json())

    return Route("/status", status)


def nameserver(text: str) -> tuple[str, int]:
    """Reads HOST or HOST:PORT of a DNS server."""
    host, colon, port = text.rpartition(":")
    if not colon:
        return text.strip("[]"), 53
    if not port.isdecimal():
        raise CommandError(f"--dns {text}: expected HOST:PORT")
    return host.strip("[]"), int(port)
