# pyright: standard, reportAttributeAccessIssue=false
"""A client that waits for a control plane to come back, and asks as a new Envoy does."""

from __future__ import annotations

import asyncio
import time

import grpc.aio
from envoy.service.discovery.v3 import discovery_pb2

from controlplane.xds.resources import CLUSTER, ENDPOINT, LISTENER, ROUTE
from controlplane.xds.server import DELTA_METHOD

_POLL_S = 0.002
_OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]


class Waiting:
    """`served` connects as soon as that can be, and returns when the first response had come, and the last."""

    def __init__(self, port: int, owner: str, routes: str) -> None:
        self.first = asyncio.Event()
        self._port = port
        self._owner = owner
        self._routes = routes

    async def served(self) -> tuple[float, float]:
        """Returns the moments (perf_counter) of the first response and of the last; raises where the stream ends."""
        await self._until_it_listens()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{self._port}", options=_OPTIONS) as channel:
            call = channel.stream_stream(DELTA_METHOD)()
            first = discovery_pb2.DeltaDiscoveryRequest(type_url=CLUSTER)
            first.node.id, first.node.cluster = "restart", self._owner
            await call.write(first.SerializeToString())
            response = discovery_pb2.DeltaDiscoveryResponse.FromString(await call.read())
            first_at = time.perf_counter()
            self.first.set()
            names = [each.name for each in response.resources]
            await self._accept(call, response)
            for type_url, asked in ((ENDPOINT, names), (LISTENER, []), (ROUTE, [self._routes])):
                request = discovery_pb2.DeltaDiscoveryRequest(type_url=type_url, resource_names_subscribe=asked)
                await call.write(request.SerializeToString())
                response = discovery_pb2.DeltaDiscoveryResponse.FromString(await call.read())
                await self._accept(call, response)
            call.cancel()
            return first_at, time.perf_counter()

    async def _accept(self, call: grpc.aio.StreamStreamCall[bytes, bytes], response: object) -> None:
        assert isinstance(response, discovery_pb2.DeltaDiscoveryResponse)
        answer = discovery_pb2.DeltaDiscoveryRequest(type_url=response.type_url, response_nonce=response.nonce)
        await call.write(answer.SerializeToString())

    async def _until_it_listens(self) -> None:
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self._port)
            except OSError:
                await asyncio.sleep(_POLL_S)
            else:
                writer.close()
                return
