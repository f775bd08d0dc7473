"""`dragoman serve`: the control plane alone."""

from __future__ import annotations

import asyncio
import gc
import logging
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
import uvloop
from prometheus_client import CollectorRegistry
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from controlplane.kube.errors import ApiError, CertificatesError, KubeconfigError
from controlplane.provision.binding import bind
from controlplane.server import ControlPlane
from controlplane.sources.files import FileSource
from controlplane.xds.identity import Principal
from controlplane.xds.metrics import XdsMetrics
from controlplane.xds.server import ListenError
from dragoman import logs
from dragoman.cli.errors import CommandError
from dragoman.cli.inspection import comes_by_loopback, inspection_routes
from dragoman.cli.memory import spare_the_collector
from dragoman.cli.options import nameserver, state_file
from dragoman.cli.settings import ServeSettings, SettingsFile, load
from dragoman.grpc_worker import Address
from dragoman.http_server import Health, json_response, serve_http
from dragoman.metrics import new_registry
from dragoman.workers import stop_on_signals

if TYPE_CHECKING:
    from controlplane.cluster.controlplane import ClusterControlPlane
    from controlplane.sources.reading import Reading

_log = logging.getLogger(__name__)


def serve(
    command: typer.Context,
    config: Annotated[Path | None, typer.Option(help="Folder of manifests.")] = None,
    kubernetes: Annotated[
        bool | None, typer.Option("--kubernetes", help="Serve the objects of a Kubernetes cluster instead.")
    ] = None,
    kubeconfig: Annotated[
        Path | None,
        typer.Option(help="How to reach the cluster. [default: the pod's account, else as kubectl]"),
    ] = None,
    context: Annotated[str | None, typer.Option(help="Context of the kubeconfig.")] = None,
    namespace: Annotated[
        list[str] | None, typer.Option(help="Watch this namespace alone; may be repeated. [default: all]")
    ] = None,
    xds: Annotated[
        str | None, typer.Option(help="Where Envoys are served (HOST:PORT or unix:PATH). [default: 127.0.0.1:18000]")
    ] = None,
    xds_address: Annotated[
        str | None, typer.Option(help="Where the Envoys of a cluster find the control plane (HOST:PORT).")
    ] = None,
    xds_secret: Annotated[
        str | None, typer.Option(help="Secret with the certificate of xDS in a cluster. [default: dragoman-xds]")
    ] = None,
    xds_certificate: Annotated[
        str | None, typer.Option(help="Who makes it: self-made, cert-manager or existing. [default: self-made]")
    ] = None,
    service_account: Annotated[
        list[str] | None, typer.Option(help="A service account: authz=, ratelimit= or controlplane=NAMESPACE/NAME.")
    ] = None,
    xds_token: Annotated[
        Path | None, typer.Option(help="File with the token that this replica shows to the one that leads.")
    ] = None,
    service_secret: Annotated[
        list[str] | None, typer.Option(help="Secret with the certificate of a service: authz=NAME; may be repeated.")
    ] = None,
    lease: Annotated[
        str | None, typer.Option(help="Lease by which replicas agree on who writes. [default: dragoman]")
    ] = None,
    provisioning: Annotated[
        bool | None, typer.Option(help="Start Envoys for the Gateways of a cluster. [default: yes]")
    ] = None,
    image: Annotated[str | None, typer.Option(help="Dragoman's own image, for what runs beside Envoys.")] = None,
    envoy_image: Annotated[str | None, typer.Option(help="Image of Envoys, unless a ProxyConfig names one.")] = None,
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
    """Run the control plane: watch a folder of manifests, or a cluster, and serve xDS to the Envoys of its Gateways."""
    flags: dict[str, object] = {"config": config, "xds": xds, "http": http, "xds_insecure": xds_insecure, "dns": dns}
    flags |= {"kubernetes": kubernetes, "kubeconfig": kubeconfig, "context": context, "namespace": namespace}
    flags |= {"xds_address": xds_address, "xds_secret": xds_secret, "xds_certificate": xds_certificate}
    flags |= {"service_account": service_account, "service_secret": service_secret, "lease": lease}
    flags |= {"provisioning": provisioning, "image": image, "envoy_image": envoy_image, "xds_token": xds_token}
    loaded = load(ServeSettings, settings, **flags, authz=authz, ratelimit=ratelimit, state=state)
    logs.configure(level=loaded.log_level, format=loaded.log_format, fields={"service": "controlplane"})
    # Building the first snapshot makes no garbage, but many objects: the collector would look at them over and over.
    gc.disable()
    try:
        uvloop.run(_serve(loaded, command.obj))
    except (ListenError, KubeconfigError, CertificatesError, ApiError) as error:
        raise CommandError(str(error)) from None
    except OSError as error:
        raise CommandError(error.strerror or str(error)) from None


async def _serve(settings: ServeSettings, begun: Reading | None) -> None:
    stop = stop_on_signals()
    registry = new_registry()
    health = Health()
    async with AsyncExitStack() as stack:
        cluster: ClusterControlPlane | None = None
        if settings.kubernetes:
            # Only here: a folder needs neither the client nor the time that it takes to load.
            from dragoman.cli.cluster import cluster_of

            cluster = await cluster_of(settings, registry, stack, on_failure=stop.set)
            plane, running, trouble = cluster.plane, cluster, cluster.trouble
        else:
            plane = running = _of_folder(settings, registry, begun)
            trouble = _no_trouble
        health.watch("config", lambda: plane.ready or trouble() or "the first snapshot is not built yet")
        if settings.http is not None:
            # In a cluster the port is open for probes and scrapers, and not all who reach it may read all namespaces.
            listen, status = Address.parse(settings.http), status_route(plane, to_all=not settings.kubernetes)
            routes = [status, *inspection_routes(lambda: plane.engine)]
            server = await serve_http(health=health, registry=registry, listen=listen, routes=routes)
            stack.push_async_callback(server.close)
        if not await _begun(running, stack, stop):
            return
        spare_the_collector()
        health.started()
        _log.info("serving xDS on %s", settings.xds)
        await stop.wait()
        _log.info("stopping")
        health.drain()
        if cluster is not None and cluster.failure is not None:
            raise CommandError(cluster.failure)


async def _begun(running: ClusterControlPlane | ControlPlane, stack: AsyncExitStack, stop: asyncio.Event) -> bool:
    """Starts it; returns False if it was told to stop before that was done: in a cluster it may wait for others."""
    starting, stopped = asyncio.ensure_future(running.__aenter__()), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({starting, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            return False
        starting.result()
        stack.push_async_exit(running)
        return True
    finally:
        stopped.cancel()
        if not starting.done():
            starting.cancel()
            await asyncio.wait({starting})


def _no_trouble() -> str | None:
    return None


def _of_folder(settings: ServeSettings, registry: CollectorRegistry, begun: Reading | None) -> ControlPlane:
    assert settings.config is not None
    plane = ControlPlane(
        FileSource(settings.config, reading=begun),
        bind=bind,
        listen={settings.xds: Principal("any")},
        nameservers=[nameserver(each) for each in settings.dns],
        insecure_off_loopback=settings.xds_insecure,
        metrics=XdsMetrics(registry),
        authz=settings.authz,
        ratelimit=settings.ratelimit,
        state=state_file(settings),
    )
    registry.register(plane.engine_metrics)
    return plane


def status_route(plane: ControlPlane, *, to_all: bool = True) -> Route:
    """Returns the route of `/status`: every object's conditions, and how far each client is.

    Unless it is there `to_all` who reach the port, they must come by loopback (as `kubectl port-forward` does).
    """

    async def status(request: Request) -> Response:
        if not to_all and not comes_by_loopback(request):
            return json_response({"error": "the status is for who comes by loopback: kubectl port-forward"}, 403)
        return json_response(plane.report().to_json())

    return Route("/status", status)
