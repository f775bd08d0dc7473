# pyright: standard, reportAttributeAccessIssue=false
"""State-of-the-world xDS as go-control-plane serves it, and as envoyproxy/ratelimit asks for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from types import TracebackType
from typing import Any

import grpc
import grpc.aio
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf.message import Message

_SERVICE = "envoy.service.discovery.v3.AggregatedDiscoveryService"
_METHOD = f"/{_SERVICE}/StreamAggregatedResources"


class SotwServer:
    """`async with SotwServer(type_url, node_id="envoy-ratelimit") as server`: no delta, versions counted from 1.

    A client is sent what its node is to have, all of it, whenever that is of another version than the client says that
    it has; so one that rejects it is sent it again at once.
    """

    def __init__(
        self,
        type_url: str,
        *,
        node_id: str,
        listen: str = "127.0.0.1:0",
        credentials: grpc.ServerCredentials | None = None,
    ) -> None:
        self.requests: list[discovery_pb2.DiscoveryRequest] = []
        self.headers: dict[str, str] = {}
        """Those of the last stream."""
        self.address = listen
        self._type_url = type_url
        self._node_id = node_id
        self._credentials = credentials
        self._version = 0
        self._resources: list[Any] | None = None
        self._changed = asyncio.Condition()
        self._server: grpc.aio.Server | None = None

    async def __aenter__(self) -> SotwServer:
        self._server = grpc.aio.server()
        handler = grpc.stream_stream_rpc_method_handler(
            self._stream,
            request_deserializer=discovery_pb2.DiscoveryRequest.FromString,
            response_serializer=discovery_pb2.DiscoveryResponse.SerializeToString,
        )
        handlers = {"StreamAggregatedResources": handler}
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, handlers),))
        if self._credentials is None:
            port = self._server.add_insecure_port(self.address)
        else:
            port = self._server.add_secure_port(self.address, self._credentials)
        self.address = f"127.0.0.1:{port}"
        await self._server.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        await self._server.stop(0)

    async def publish(self, *resources: Message | bytes) -> None:
        """Sends these, and nothing else, from now on; bytes are what a resource of the type would be encoded as."""
        async with self._changed:
            self._version += 1
            self._resources = [each if isinstance(each, bytes) else each.SerializeToString() for each in resources]
            self._changed.notify_all()

    @property
    def rejections(self) -> list[str]:
        """What clients said of what they rejected."""
        return [each.error_detail.message for each in self.requests if each.HasField("error_detail")]

    async def _stream(
        self, requests: AsyncIterator[discovery_pb2.DiscoveryRequest], context: grpc.aio.ServicerContext
    ) -> AsyncIterator[discovery_pb2.DiscoveryResponse]:
        nonce = 0
        self.headers = {str(name): str(value) for name, value in context.invocation_metadata() or ()}
        async for request in requests:
            self.requests.append(request)
            assert request.type_url == self._type_url
            if request.response_nonce and request.response_nonce != str(nonce):
                continue
            async with self._changed:
                await self._changed.wait_for(lambda: self._is_news(request))  # noqa: B023  (called before the next)
            nonce += 1
            response = discovery_pb2.DiscoveryResponse(
                type_url=self._type_url, version_info=str(self._version), nonce=str(nonce)
            )
            for body in self._resources or ():
                response.resources.add(type_url=self._type_url, value=body)
            yield response

    def _is_news(self, request: discovery_pb2.DiscoveryRequest) -> bool:
        known = request.node.id == self._node_id and self._resources is not None
        return known and request.version_info != str(self._version)


class SotwClient:
    """`async with SotwClient(address, type_url, node_id="default") as client`: a node of nothing but an id, and no
    names, in every request; what comes is acknowledged.
    """

    def __init__(self, address: str, type_url: str, *, node_id: str, metadata: Iterable[tuple[str, str]] = ()) -> None:
        self._address = address
        self._type_url = type_url
        self._node_id = node_id
        self._metadata = tuple(metadata)

    async def __aenter__(self) -> SotwClient:
        self._channel = grpc.aio.insecure_channel(self._address)
        self._call: Any = self._channel.stream_stream(
            _METHOD,
            request_serializer=discovery_pb2.DiscoveryRequest.SerializeToString,
            response_deserializer=discovery_pb2.DiscoveryResponse.FromString,
        )(metadata=self._metadata)
        await self._call.write(self._request())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._call.cancel()
        await self._channel.close()

    async def fetch(self, *, within_s: float = 30.0) -> list[Any]:
        """Waits for a response and acknowledges it; returns its resources (Any). Raises grpc.aio.AioRpcError."""
        response = await asyncio.wait_for(self._call.read(), within_s)
        assert response is not grpc.aio.EOF, "the stream ended"
        await self._call.write(self._request(response))
        return list(response.resources)

    def _request(self, response: Any = None) -> discovery_pb2.DiscoveryRequest:
        request = discovery_pb2.DiscoveryRequest(type_url=self._type_url)
        request.node.id = self._node_id
        if response is not None:
            request.version_info = response.version_info
            request.response_nonce = response.nonce
        return request
