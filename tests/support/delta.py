# pyright: standard, reportAttributeAccessIssue=false
"""Incremental xDS of one type of resource, with responses that are encoded before they are sent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from types import TracebackType

import grpc
import grpc.aio
from envoy.service.discovery.v3 import discovery_pb2

_SERVICE = "envoy.service.discovery.v3.AggregatedDiscoveryService"


class DeltaServer:
    """`async with DeltaServer(type_url) as server`: a server for one client, which is sent what is published."""

    def __init__(self, type_url: str) -> None:
        self.address = ""
        self.answers: list[discovery_pb2.DeltaDiscoveryRequest] = []
        """What the client said, the opening of its stream first."""
        self._type_url = type_url
        self._version = 0
        self._waiting: asyncio.Queue[bytes] = asyncio.Queue()
        self._server: grpc.aio.Server | None = None

    async def __aenter__(self) -> DeltaServer:
        self._server = grpc.aio.server()
        handlers = {"DeltaAggregatedResources": grpc.stream_stream_rpc_method_handler(self._stream)}
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, handlers),))
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        await self._server.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        await self._server.stop(0)

    def encoded(self, changed: Mapping[str, bytes], removed: Collection[str] = ()) -> bytes:
        """Returns a response, to be sent later; each is of another version."""
        self._version += 1
        response = discovery_pb2.DeltaDiscoveryResponse(
            type_url=self._type_url, nonce=str(self._version), removed_resources=removed
        )
        for name, body in changed.items():
            entry = response.resources.add(name=name, version=str(self._version))
            entry.resource.type_url, entry.resource.value = self._type_url, body
        return response.SerializeToString()

    def send(self, response: bytes) -> None:
        """Sends a response, when those before it are sent."""
        self._waiting.put_nowait(response)

    @property
    def rejections(self) -> list[str]:
        """What the client said of what it rejected."""
        return [each.error_detail.message for each in self.answers if each.HasField("error_detail")]

    @property
    def acknowledged(self) -> int:
        """How many responses the client has accepted."""
        return sum(1 for each in self.answers if each.response_nonce and not each.HasField("error_detail"))

    async def _stream(self, requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext) -> None:
        listening = asyncio.create_task(self._listen(requests))
        try:
            while True:
                await context.write(await self._waiting.get())
        finally:
            listening.cancel()

    async def _listen(self, requests: AsyncIterator[bytes]) -> None:
        async for raw in requests:
            self.answers.append(discovery_pb2.DeltaDiscoveryRequest.FromString(raw))
