"""Many Envoys at once: what a change, a restart, silence and slow readers cost one control plane."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.cpu import cpu_s, memory_bytes
from benchmarks.manifests import GATEWAY, Folder
from benchmarks.rows import Row
from benchmarks.scene import serve_process
from benchmarks.swarm_clients import Envoy, Swarm
from controlplane.xds.resources import ROUTE
from tests.support.http import Connection
from tests.support.ports import free_ports
from tests.support.process import ChildProcess

_WITHIN_S = 180.0
_SLOW = 10


async def measure(
    *, envoys: int = 1_000, routes: Iterable[int] = (1_000, 10_000), changes: int = 5, slow_changes: int = 20
) -> list[Row]:
    """Connects so many clients at each number of routes; times are wall time, CPU is the control plane's alone."""
    rows: list[Row] = []
    for number in routes:
        async with _scene(envoys, number) as scene:
            rows += [
                *await _start(scene),
                *await _change(scene, changes),
                *await _slow_readers(scene, slow_changes),
                *await _restart(scene),
            ]
    return rows


@dataclass(slots=True)
class _Scene:
    """A folder, the control plane that serves it, and clients; `process` is another after `restart`."""

    folder: Folder
    home: Path
    swarm: Swarm
    clients: list[Envoy]
    http_port: int
    process: ChildProcess
    changed: int = 0
    stopping: bool = False

    @property
    def name(self) -> str:
        return f"{len(self.clients)} connected Envoys, {self.folder.routes} routes"

    def change(self) -> None:
        """Changes one route."""
        self.changed += 1
        self.folder.change(self.changed, f"/changed-{self.changed}")

    async def restart(self) -> None:
        """Replaces the control plane by another, with nobody connected."""
        self.stopping = True
        await self.process.stop()
        await self.until(lambda: not any(each.open for each in self.clients), "all to lose their connection")
        self.stopping = False
        self.process = serve_process(self.folder.path, self.swarm.port, self.http_port, self.home)
        await self.ready()

    async def ready(self) -> None:
        """Waits until the control plane has read everything."""
        deadline = time.perf_counter() + _WITHIN_S
        while True:
            try:
                connection = await Connection.to(self.http_port)
                status = (await connection.request("/health/ready")).status
                connection.close()
                if status == 200:
                    return
            except OSError:
                pass
            if time.perf_counter() > deadline:
                raise TimeoutError(f"the control plane does not become ready\n{self.process.tail()}")
            await asyncio.sleep(0.02)

    async def connect(self, clients: Iterable[Envoy]) -> None:
        """Connects clients at once, and waits until every type has been answered to each."""
        clients = list(clients)
        self.swarm.lost = 0
        await asyncio.gather(*(each.connect() for each in clients))
        await self.until(lambda: all(each.whole for each in clients), "all to be served")

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        """Waits for something that clients hear of."""
        async with asyncio.timeout(_WITHIN_S):
            while not condition():
                if self.swarm.lost and self.process.exit_code is None and not self.stopping:
                    raise RuntimeError(f"{self.swarm.lost} connections were lost while waiting for {what}")
                self.swarm.moved.clear()
                try:
                    await asyncio.wait_for(self.swarm.moved.wait(), 0.5)
                except TimeoutError:
                    if self.process.exit_code is not None:
                        raise RuntimeError(f"waiting for {what}\n{self.process.tail()}") from None
                # Looked for at a pace, or looking would cost more than what is looked for.
                await asyncio.sleep(0.005)

    def cpu_s(self) -> float:
        return cpu_s(self.process.pid)


@asynccontextmanager
async def _scene(envoys: int, routes: int) -> AsyncIterator[_Scene]:
    with tempfile.TemporaryDirectory(prefix="dgb-") as home:
        port, upstream_port, xds_port, http_port = free_ports(4)
        folder = Folder(Path(home) / "config", routes, port, upstream_port)
        folder.write()
        swarm = Swarm(xds_port, GATEWAY, f"{GATEWAY}/{port}")
        clients = [Envoy(swarm, f"{GATEWAY}/{number}") for number in range(envoys)]
        process = serve_process(folder.path, xds_port, http_port, Path(home))
        scene = _Scene(folder, Path(home), swarm, clients, http_port, process)
        try:
            await scene.ready()
            yield scene
        finally:
            for each in clients:
                each.close()
            await scene.process.stop()


async def _start(scene: _Scene) -> list[Row]:
    # The first client makes the control plane encode what is encoded once, which is nobody's share.
    await scene.connect(scene.clients[:1])
    memory, cpu, began_at = memory_bytes(scene.process.pid), scene.cpu_s(), time.perf_counter()
    await scene.connect(scene.clients[1:])
    took_s, cpu_used_s = time.perf_counter() - began_at, scene.cpu_s() - cpu
    await asyncio.sleep(1.0)
    others = len(scene.clients) - 1
    per_client_kib = (memory_bytes(scene.process.pid) - memory) / others / 1024
    return [
        Row(f"{scene.name}: start until all have everything", took_s, "s"),
        Row(f"{scene.name}: the same, CPU a client", cpu_used_s / others * 1000, "ms"),
        Row(f"{scene.name}: memory of an idle client", per_client_kib, "KiB", 100.0),
    ]


async def _change(scene: _Scene, changes: int) -> list[Row]:
    times_s: list[float] = []
    cpu = scene.cpu_s()
    for _ in range(changes):
        times_s.append(await _reaches(scene, scene.clients))
    cpu_ms = (scene.cpu_s() - cpu) / changes / len(scene.clients) * 1000
    limit = 1.0 if scene.folder.routes <= 1_000 else None
    return [
        Row(f"{scene.name}: one change until all have it, the slowest of {changes}", max(times_s), "s", limit),
        Row(f"{scene.name}: the same, CPU a client", cpu_ms, "ms"),
        Row(f"{scene.name}: control plane memory, at most", _peak_mib(scene.process.pid), "MiB"),
    ]


def _peak_mib(pid: int) -> float:
    (line,) = (each for each in Path(f"/proc/{pid}/status").read_text().splitlines() if each.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


async def _reaches(scene: _Scene, clients: list[Envoy]) -> float:
    before = {id(each): each.updates[ROUTE] for each in clients}
    began_at = time.perf_counter()
    scene.change()
    await scene.until(lambda: all(each.updates[ROUTE] > before[id(each)] for each in clients), "a change to be seen")
    return time.perf_counter() - began_at


async def _slow_readers(scene: _Scene, changes: int) -> list[Row]:
    slow, others = scene.clients[:_SLOW], scene.clients[_SLOW:]
    memory = memory_bytes(scene.process.pid)
    for each in slow:
        each.stop_reading()
    times_s = [await _reaches(scene, others) for _ in range(changes)]
    growth_kib = (memory_bytes(scene.process.pid) - memory) / _SLOW / 1024
    before = {id(each): each.updates[ROUTE] for each in slow}
    for each in slow:
        each.read_on()
    await asyncio.sleep(0.5)
    sent = max(each.updates[ROUTE] - before[id(each)] for each in slow)
    name = f"{scene.name}, {_SLOW} do not read {changes} changes"
    return [
        Row(f"{name}: until the others have one, the slowest", max(times_s), "s"),
        Row(f"{name}: memory, each of them", growth_kib, "KiB"),
        Row(f"{name}: what each is sent when it reads again", float(sent), "responses"),
    ]


async def _restart(scene: _Scene) -> list[Row]:
    await scene.restart()
    scene.swarm.clear_counts()
    cpu, began_at = scene.cpu_s(), time.perf_counter()
    await scene.connect(scene.clients)
    took_s, cpu_used_s = time.perf_counter() - began_at, scene.cpu_s() - cpu
    name = f"{scene.name}, all back at once after a restart"
    return [
        Row(f"{name}: until all are served", took_s, "s", 10.0),
        Row(f"{name}: CPU a client", cpu_used_s / len(scene.clients) * 1000, "ms"),
        Row(f"{name}: resources sent that they had", float(sum(scene.swarm.resources.values())), "resources", 0.0),
        Row(f"{name}: bytes sent to each", scene.swarm.received_bytes / len(scene.clients), "bytes"),
    ]
