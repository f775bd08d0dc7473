"""The processes of a storm: the product as its users run it, two Envoys of one Gateway, and backends."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from controlplane.provision.address import TcpAddress, UnixAddress
from controlplane.provision.bootstrap import bootstrap
from ext_authz.keys import NewKey, StoreLocation, create_key
from tests.support.certificates import Authority
from tests.support.dragoman import Serve, dragoman_command
from tests.support.envoy import Envoy
from tests.support.ports import free_ports
from tests.support.process import ChildProcess
from tests.support.storm.doors import Doors
from tests.support.storm.envoys import Envoys
from tests.support.storm.events import Ring
from tests.support.storm.judge import Target
from tests.support.storm.traffic import Traffic
from tests.support.storm.world import BACKENDS, GATEWAY, World
from tests.support.waiting import until

_NAMES: Final = ("north", "south")
_FILTERS: Final = "type.googleapis.com/envoy.extensions.filters"


@dataclass(slots=True)
class Rig:
    """Everything runs, and every route of the base is in force."""

    world: World
    traffic: Traffic
    plane: Serve
    envoys: dict[str, Envoy]
    services: list[ChildProcess]
    service_addresses: dict[str, tuple[str, ...]]
    base: list[Target]
    key: str
    """A consumer's key that ext_authz knows."""


@asynccontextmanager
async def rig(routes: int, *, rate_per_s: float = 240.0, envoys: int = 2) -> AsyncIterator[Rig]:
    """Starts it all on so many routes. No traffic runs yet."""
    async with AsyncExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dgs-")))
        (home / "config").mkdir()
        ports = free_ports(BACKENDS + 2)
        http, https, *backend_ports = ports
        ring, authority = Ring(), Authority()
        await stack.enter_async_context(Envoy(_backends(backend_ports), log_level="warning"))
        names = _NAMES[:envoys]
        holders = Envoys({})
        stack.callback(holders.close)
        traffic = Traffic(Doors.of(http, https, authority), holders, ring, rate_per_s)
        world = World(home / "config", http, https, backend_ports, authority, ring, traffic)
        base = world.base(routes)
        made = await asyncio.to_thread(create_key, StoreLocation(path=home / "keys.db"), NewKey("storm"))
        asked = {f"dragoman-{name}": (f"unix:{home}/{name}.sock",) for name in ("authz", "ratelimit")}
        flags = [f"--{name.removeprefix('dragoman-')}={address}" for name, (address,) in asked.items()]
        plane = Serve(world.folder, *flags, "--state", str(home / "state"), home=home)
        stack.push_async_callback(plane.stop)
        services: list[ChildProcess] = []
        for name, more in (("authz", ("--keys", str(home / "keys.db"))), ("ratelimit", ())):
            listen = ("--listen", f"unix:{home}/{name}.sock", "--xds", f"127.0.0.1:{plane.xds_port}")
            services.append(_dragoman(name, *listen, *more, home=home))
            stack.push_async_callback(services[-1].stop)
        await plane.start(within_s=60.0)
        # That an extension is young is not worth a line at every change.
        quiet = "misc:error"
        started = {
            name: Envoy(_bootstrap(name, home, plane.xds_port), log_level="warning", component_log_level=quiet)
            for name in names
        }
        for envoy in started.values():
            await stack.enter_async_context(envoy)
        holders.pids = {name: envoy.process.pid for name, envoy in started.items()}
        traffic.watch(*base)
        made_rig = Rig(world, traffic, plane, started, services, asked, base, made.key)
        await _comes_up(made_rig, home)
        stack.push_async_exit(traffic)
        yield made_rig


async def _comes_up(rig: Rig, home: Path) -> None:
    for name in ("authz", "ratelimit"):
        await until(lambda name=name: _listens(home / f"{name}.sock"), what=name, within_s=30.0)
    ends = rig.base[:1] + rig.base[-1:]
    for target in ends:
        await rig.traffic.confirm([target])
    rig.traffic.answers.clear()
    # Before everything was there, anything might have been answered.
    rig.traffic.failures.clear()
    rig.traffic.failed = rig.traffic.sent = 0


async def _listens(path: Path) -> bool:
    _, writer = await asyncio.open_unix_connection(str(path))
    writer.close()
    return True


def _dragoman(command: str, *arguments: str, home: Path) -> ChildProcess:
    return ChildProcess(
        (dragoman_command(), command, *arguments), log=home / f"{command}.log", cwd=home, env={"HOME": str(home)}
    )


def _bootstrap(name: str, home: Path, xds_port: int) -> dict[str, Any]:
    xds, admin = TcpAddress("127.0.0.1", xds_port), UnixAddress(f"{home}/{name}.sock")
    return bootstrap(GATEWAY, xds=xds, admin=admin, node_id=name)


def _backends(ports: list[int]) -> dict[str, Any]:
    """An Envoy that answers as b0, b1, … and says which path it was asked for: it costs next to nothing."""
    return {"static_resources": {"listeners": [_backend(f"b{number}", port) for number, port in enumerate(ports)]}}


def _backend(name: str, port: int) -> dict[str, Any]:
    router = {"name": "envoy.filters.http.router", "typed_config": {"@type": f"{_FILTERS}.http.router.v3.Router"}}
    said = {"x-backend": name, "x-path": "%REQ(:path)%"}
    answer = {
        "match": {"prefix": "/"},
        "direct_response": {"status": 200, "body": {"inline_string": "ok"}},
        "response_headers_to_add": [{"header": {"key": key, "value": value}} for key, value in said.items()],
    }
    manager = {
        "@type": f"{_FILTERS}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [answer]}]},
        "http_filters": [router],
    }
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    return {"name": name, "address": address, "filter_chains": [chain]}
