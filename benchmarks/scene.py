"""The scene of a measurement: manifests in a folder, `dragoman serve` on them, a real Envoy, and a backend."""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.cpu import cpu_s
from benchmarks.manifests import GATEWAY, Folder
from controlplane.provision.address import TcpAddress, UnixAddress
from controlplane.provision.bootstrap import bootstrap
from tests.support.envoy import Envoy
from tests.support.http import Connection, fetch
from tests.support.ports import free_ports
from tests.support.process import ChildProcess

POLL_S = 0.002
_QUIET_S = 0.1


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything is running, and every route answers."""

    folder: Folder
    control_plane: ChildProcess
    envoy: Envoy
    cold_start_s: float
    http_port: int = 0

    async def answers(self, index: int, path: str, *, status: int = 200, within_s: float = 60.0) -> float:
        """Polls a route through Envoy until it answers with this status; returns the moment (perf_counter)."""
        deadline = time.perf_counter() + within_s
        connection = await Connection.to(self.folder.port)
        try:
            while True:
                if not connection.open:
                    connection = await Connection.to(self.folder.port)
                if (await connection.request(path, host=self.folder.host(index))).status == status:
                    return time.perf_counter()
                if time.perf_counter() > deadline:
                    raise TimeoutError(
                        f"{self.folder.host(index)}{path} still does not answer\n{self.control_plane.tail()}"
                    )
                await asyncio.sleep(POLL_S)
        finally:
            connection.close()

    async def metrics(self) -> dict[str, float]:
        """Returns what the control plane has counted, by name with labels."""
        lines = (await fetch(self.http_port, "/metrics")).text.splitlines()
        pairs = (line.rpartition(" ") for line in lines if not line.startswith("#"))
        return {name: float(value) for name, _, value in pairs}

    async def quiet(self, *, within_s: float = 10.0) -> None:
        """Returns once Envoy and the control plane have next to nothing to do."""
        deadline = time.perf_counter() + within_s
        pids = self.control_plane.pid, self.envoy.process.pid
        now = cpu_s(*pids)
        while time.perf_counter() < deadline:
            before = now
            await asyncio.sleep(_QUIET_S)
            now = cpu_s(*pids)
            if now - before < _QUIET_S / 50:
                return


@asynccontextmanager
async def scene(routes: int, *, routes_a_host: int = 10) -> AsyncIterator[Scene]:
    """Sets the scene for so many routes; the time of the cold start is from the start of the control plane's process
    until the last route answers through an Envoy that was already waiting."""
    with tempfile.TemporaryDirectory(prefix="dgb-") as home:
        port, upstream_port, xds_port, http_port = free_ports(4)
        folder = Folder(Path(home) / "config", routes, port, upstream_port, routes_a_host)
        folder.write()
        admin = UnixAddress(f"{home}/admin.sock")
        document = impatient(bootstrap(GATEWAY, xds=TcpAddress("127.0.0.1", xds_port), admin=admin))
        async with Envoy(upstream(upstream_port), log_level="warning"):
            envoy = Envoy(document, log_level="warning")
            process: ChildProcess | None = None
            try:
                await envoy.start(ready=False)
                began_at = time.perf_counter()
                process = serve_process(folder.path, xds_port, http_port, Path(home))
                set_up = Scene(folder, process, envoy, 0.0, http_port)
                await _listens(port, process)
                ended_at = await set_up.answers(routes - 1, folder.first_path(routes - 1))
                yield replace(set_up, cold_start_s=ended_at - began_at)
            finally:
                if process is not None:
                    await process.stop()
                await envoy.stop()


def serve_process(config: Path, xds_port: int, http_port: int, home: Path, *more: str) -> ChildProcess:
    """Starts `dragoman serve` on a folder."""
    listen = ("--xds", f"127.0.0.1:{xds_port}", "--http", f"127.0.0.1:{http_port}")
    return dragoman("serve", "--config", str(config), *listen, *more, home=home)


def dragoman(command: str, *arguments: str, home: Path) -> ChildProcess:
    """Starts a command of the product."""
    script = str(Path(sys.executable).parent / "dragoman")
    # A home of its own, so that neither settings nor what is kept of this machine's user have a say.
    return ChildProcess((script, command, *arguments), log=home / f"{command}.log", cwd=home, env={"HOME": str(home)})


async def _listens(port: int, process: ChildProcess, *, within_s: float = 120.0) -> None:
    deadline = time.perf_counter() + within_s
    while True:
        if process.exit_code is not None:
            raise RuntimeError(f"the control plane has ended\n{process.tail()}")
        try:
            (await Connection.to(port)).close()
            return
        except OSError:
            if time.perf_counter() > deadline:
                raise TimeoutError(f"Envoy has no listener\n{process.tail()}") from None
            await asyncio.sleep(POLL_S)


def impatient(document: dict[str, Any]) -> dict[str, Any]:
    """Returns a bootstrap whose Envoy tries again at once where it finds no control plane."""
    # The cold start is the control plane's: not the moment at which an Envoy that backs off tries again.
    (service,) = document["dynamic_resources"]["ads_config"]["grpc_services"]
    service["envoy_grpc"]["retry_policy"]["retry_back_off"] = {"base_interval": "0.02s", "max_interval": "0.05s"}
    return document


def upstream(port: int) -> dict[str, Any]:
    """An Envoy that answers every request itself: a backend that costs next to nothing."""
    prefix = "type.googleapis.com/envoy.extensions.filters"
    router = {
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": f"{prefix}.http.router.v3.Router", "suppress_envoy_headers": True},
    }
    answer = {"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": "ok"}}}
    manager = {
        "@type": f"{prefix}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "upstream",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [answer]}]},
        "http_filters": [router],
    }
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    return {"static_resources": {"listeners": [{"name": "upstream", "address": address, "filter_chains": [chain]}]}}
