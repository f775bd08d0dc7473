# pyright: standard, reportAttributeAccessIssue=false
"""Many Envoys at once, as far as the control plane can tell: delta ADS streams that subscribe and acknowledge."""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path

import grpc
import grpc.aio
from envoy.config.core.v3.base_pb2 import Node
from envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryRequest, DeltaDiscoveryResponse

from benchmarks.manifests import GATEWAY, Folder
from benchmarks.rows import Row
from benchmarks.scene import serve_process
from controlplane.xds.resources import CLUSTER, LISTENER, ROUTE
from tests.support.ports import free_ports

_METHOD = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
_OPTIONS = (
    # A connection each, as Envoys have; and no limit on the size of a message.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", -1),
)


async def measure(*, envoys: int = 1_000, routes: int = 1_000, changes: int = 5) -> list[Row]:
    """Connects so many clients, then changes a route and waits until the last of them has been sent it."""
    with tempfile.TemporaryDirectory(prefix="dgb-") as home:
        port, upstream_port, xds_port, http_port = free_ports(4)
        folder = Folder(Path(home) / "config", routes, port, upstream_port)
        folder.write()
        process = serve_process(folder.path, xds_port, http_port, Path(home))
        clients = [_Client(f"{GATEWAY}/{number}", xds_port, f"{GATEWAY}/{port}") for number in range(envoys)]
        try:
            began_at = time.perf_counter()
            await _all_have(clients, more_than=0)
            connected_s = time.perf_counter() - began_at
            times = [await _change(folder, clients, number) for number in range(changes)]
            memory_mib = process.memory_bytes() / 1024 / 1024
        except TimeoutError as fault:
            raise TimeoutError(f"not every client was served\n{process.tail()}") from fault
        finally:
            await asyncio.gather(*(client.stop() for client in clients))
            await process.stop()
    name = f"{envoys} connected Envoys, {routes} routes"
    return [
        Row(f"{name}: start until all have everything", connected_s, "s"),
        Row(f"{name}: one change until all have it, the slowest of {changes}", max(times), "s", 1.0),
        Row(f"{name}: control plane memory", memory_mib, "MiB"),
    ]


async def _change(folder: Folder, clients: list[_Client], number: int) -> float:
    before = clients[0].route_updates
    began_at = time.perf_counter()
    folder.change(number, f"/changed-{number}")
    await _all_have(clients, more_than=before)
    return time.perf_counter() - began_at


async def _all_have(clients: list[_Client], *, more_than: int) -> None:
    async with asyncio.timeout(120):
        await asyncio.gather(*(client.has(more_than) for client in clients))


class _Client:
    """One delta ADS stream: clusters and listeners by wildcard, one RouteConfiguration by name; acknowledges all."""

    def __init__(self, node_id: str, port: int, route_config: str) -> None:
        self.route_updates = 0
        self._node = Node(id=node_id, cluster=GATEWAY)
        self._port = port
        self._route_config = route_config
        self._news = asyncio.Condition()
        self._task = asyncio.create_task(self._run())

    async def has(self, more_than: int) -> None:
        """Waits until more than so many updates of the routes have come."""
        async with self._news:
            await self._news.wait_for(lambda: self.route_updates > more_than or self._task.done())
        if self._task.done():
            self._task.result()

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{self._port}", _OPTIONS) as channel:
            call = channel.stream_stream(_METHOD)(wait_for_ready=True)
            await self._send(call, DeltaDiscoveryRequest(node=self._node, type_url=CLUSTER))
            await self._send(call, DeltaDiscoveryRequest(type_url=LISTENER))
            await self._send(call, DeltaDiscoveryRequest(type_url=ROUTE, resource_names_subscribe=[self._route_config]))
            async for data in call:
                response = DeltaDiscoveryResponse.FromString(data)
                acknowledged = DeltaDiscoveryRequest(type_url=response.type_url, response_nonce=response.nonce)
                await self._send(call, acknowledged)
                if response.type_url == ROUTE and response.resources:
                    async with self._news:
                        self.route_updates += 1
                        self._news.notify_all()

    async def _send(self, call: grpc.aio.StreamStreamCall, request: DeltaDiscoveryRequest) -> None:
        await call.write(request.SerializeToString())
