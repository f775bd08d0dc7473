"""What `dragoman serve` does, in this order: serve what was kept, say how it is, load the rest, and serve that.

Until Envoys are served nothing is loaded that takes long: who waits for a control plane that starts again is to wait no
longer than half a second.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

import uvloop
from prometheus_client import CollectorRegistry

from controlplane.kube.errors import ApiError, CertificatesError, KubeconfigError
from controlplane.xds.listening import ListenError
from dragoman.cli.errors import CommandError
from dragoman.cli.memory import spare_the_collector
from dragoman.metrics import new_registry
from dragoman.open_files import allow_many
from dragoman.signals import stop_on_signals

if TYPE_CHECKING:
    from controlplane.cluster.controlplane import ClusterControlPlane
    from controlplane.cluster.doorway import Doorway
    from controlplane.kept.front import Front
    from controlplane.server import ControlPlane
    from controlplane.sources.reading import Reading
    from dragoman.cli.settings import ServeSettings
    from dragoman.http_server import Health

_log = logging.getLogger(__name__)

# While modules are loaded on a thread, the event loop is to get the interpreter as soon as it has something to do.
_SWITCH_INTERVAL_S = 0.0005
_COME_WITHIN_S = 0.05
_ASK_MORE_WITHIN_S = 0.01
_WAITING_WITHIN_S = 0.3


def run(settings: ServeSettings, begun: Reading | None) -> None:
    """Serves until a signal; raises CommandError where that cannot be."""
    allow_many()
    try:
        uvloop.run(_serve(settings, begun))
    except (ListenError, KubeconfigError, CertificatesError, ApiError) as error:
        raise CommandError(str(error)) from None
    except OSError as error:
        raise CommandError(error.strerror or str(error)) from None


@dataclass(slots=True)
class _Serving:
    """What there is so far."""

    settings: ServeSettings
    registry: CollectorRegistry
    stop: asyncio.Event
    front: Front | None = None
    door: Doorway | None = None
    plane: ControlPlane | None = None
    running: ControlPlane | ClusterControlPlane | None = None
    trouble: Callable[[], str | None] = lambda: None
    failure: Callable[[], str | None] = lambda: None

    @property
    def serves_kept(self) -> bool:
        """Whether Envoys are served what was kept."""
        return self.front is not None and bool(self.front.words)

    def find(self) -> ControlPlane | None:
        """Returns the control plane, once it may be asked."""
        return None if self.plane is None or self.plane.busy else self.plane


async def _serve(settings: ServeSettings, begun: Reading | None) -> None:
    async with AsyncExitStack() as stack:
        serving = _Serving(settings, new_registry(), stop_on_signals())
        interval_s = sys.getswitchinterval()
        sys.setswitchinterval(_SWITCH_INTERVAL_S)
        await _serve_kept(serving, stack)
        await _serve_those_who_wait(serving)
        health = await _say(serving, stack)
        await _load(serving, stack, begun)
        if not await _begun(serving, stack):
            return
        sys.setswitchinterval(interval_s)
        spare_the_collector()
        health.started()
        _log.info("serving xDS on %s", settings.xds)
        await serving.stop.wait()
        _log.info("stopping")
        health.drain()
        if (failure := serving.failure()) is not None:
            raise CommandError(failure)


async def _serve_kept(serving: _Serving, stack: AsyncExitStack) -> None:
    """Serves what was kept, where a state is, to who can be let in already."""
    settings = serving.settings
    if settings.state is None:
        return
    from controlplane.kept.front import open_front
    from controlplane.xds.identity import Principal
    from controlplane.xds.metrics import XdsMetrics

    metrics, insecure = XdsMetrics(serving.registry), settings.xds_insecure
    source = f"folder {settings.config.absolute()}" if settings.config is not None else _cluster_name(settings)
    front = serving.front = open_front(state=settings.state, source=source, key=_key(settings), metrics=metrics)
    if settings.config is not None:
        if not front.kept.snapshots and not settings.config.is_dir():
            raise CommandError(f"{settings.config} is not a folder, and nothing was kept of it")
        await front.serve(stack, listen={settings.xds: Principal("any")}, insecure_off_loopback=insecure)
        return
    from controlplane.cluster.doorway import doorway
    from controlplane.replicas import METHOD
    from dragoman.cli.options import cluster_settings

    door = serving.door = doorway(cluster_settings(settings), state=settings.state)
    admission = Principal("any") if insecure else door.admission
    if front.kept.snapshots and admission is not None:
        methods = {METHOD: door.share}
        await front.serve(stack, listen={settings.xds: admission}, methods=methods, insecure_off_loopback=insecure)


def _cluster_name(settings: ServeSettings) -> str:
    where = settings.kubeconfig.absolute() if settings.kubeconfig is not None else "this"
    return f"cluster {where} {settings.context or ''} {' '.join(settings.namespace)}".rstrip()


async def _serve_those_who_wait(serving: _Serving) -> None:
    """Leaves clients that come at once the interpreter to themselves, for a moment: what loads would slow them down."""
    if serving.front is None or not serving.serves_kept:
        return
    cache, loop = serving.front.cache, asyncio.get_running_loop()
    latest = loop.time() + _WAITING_WITHIN_S
    await asyncio.sleep(_COME_WITHIN_S)
    while loop.time() < latest and not cache.settled():
        await cache.wait_settled(timeout_s=latest - loop.time())
        await asyncio.sleep(_ASK_MORE_WITHIN_S)


def _key(settings: ServeSettings) -> bytes | None:
    if settings.state_key is None:
        return None
    from controlplane.kept.sealing import KeyFileError, read_key

    try:
        return read_key(settings.state_key)
    except KeyFileError as error:
        raise CommandError(f"--state-key {error}") from None


async def _say(serving: _Serving, stack: AsyncExitStack) -> Health:
    """Serves health, metrics and status."""
    await asyncio.to_thread(import_module, "dragoman.cli.status")
    from dragoman.cli.changes import changes_route
    from dragoman.cli.inspection import inspection_routes
    from dragoman.cli.status import status_route
    from dragoman.grpc_worker.api import Address
    from dragoman.http_server import Health, Remark, serve_http

    def config() -> bool | str:
        plane = serving.plane
        if plane is not None and plane.ready:
            return True
        why = serving.trouble() or (plane.awaits if plane is not None else "it is being read")
        if serving.front is not None and serving.front.words:
            return Remark(f"{serving.front.words}: the source is not read yet ({why})")
        return serving.trouble() or "the first snapshot is not built yet"

    health, settings = Health(), serving.settings
    health.watch("config", config)
    if serving.serves_kept:
        health.started()
    if settings.http is not None:
        # In a cluster the port is open for probes and scrapers, and not all who reach it may read all namespaces.
        status = status_route(serving.find, to_all=not settings.kubernetes)
        inspection = inspection_routes(lambda: plane.engine if (plane := serving.find()) else None)
        routes = [status, changes_route(serving.find), *inspection]
        listen = Address.parse(settings.http)
        server = await serve_http(health=health, registry=serving.registry, listen=listen, routes=routes)
        stack.push_async_callback(server.close)
    return health


async def _load(serving: _Serving, stack: AsyncExitStack, begun: Reading | None) -> None:
    """Loads the control plane: on a thread, for Envoys may be served already."""
    settings, registry = serving.settings, serving.registry
    if settings.kubernetes:
        # Only here: a folder needs neither the client nor the time that it takes to load.
        await asyncio.to_thread(import_module, "dragoman.cli.cluster")
        from dragoman.cli.cluster import cluster_of

        cluster = await cluster_of(settings, registry, stack, serving.front, serving.door, on_failure=serving.stop.set)
        serving.plane, serving.running = cluster.plane, cluster
        serving.trouble, serving.failure = cluster.trouble, lambda: cluster.failure
        return
    if begun is None and serving.front is not None:
        begun = await asyncio.to_thread(_begin_reading, settings)
    await asyncio.to_thread(import_module, "dragoman.cli.planes")
    from dragoman.cli.planes import plane_of_folder

    serving.plane = serving.running = plane_of_folder(settings, registry, serving.front, begun)


def _begin_reading(settings: ServeSettings) -> Reading | None:
    from controlplane.sources.reading import begin

    assert settings.config is not None
    return begin(settings.config)


async def _begun(serving: _Serving, stack: AsyncExitStack) -> bool:
    """Starts it; returns False if it was told to stop before that was done: in a cluster it may wait for others."""
    assert serving.running is not None
    starting = asyncio.ensure_future(serving.running.__aenter__())
    stopped = asyncio.ensure_future(serving.stop.wait())
    try:
        await asyncio.wait({starting, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            return False
        starting.result()
        stack.push_async_exit(serving.running)
        return True
    finally:
        stopped.cancel()
        if not starting.done():
            starting.cancel()
            await asyncio.wait({starting})
