# pyright: standard, reportAttributeAccessIssue=false
"""Raw discovery clients, delta and state of the world: a test decides every message that they send."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any

import grpc
import grpc.aio
from envoy.service.discovery.v3 import discovery_pb2
from google.rpc import status_pb2

from controlplane.xds.server import DELTA_METHOD, SOTW_METHOD

_WITHIN_S = 30.0


class RawClient:
    """`async with RawClient(address, "ns/gw") as client`; `client.ended` is the status once the server has ended it."""

    method = DELTA_METHOD
    response_class: Any = discovery_pb2.DeltaDiscoveryResponse

    def __init__(self, address: str, cluster: str, *, node_id: str = "node", agent: str = "envoy") -> None:
        self._address = address
        self._node: dict[str, Any] = {"id": node_id, "cluster": cluster, "user_agent_name": agent}
        self._sent_node = False

    async def __aenter__(self) -> Any:
        options = [("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
        self._channel = grpc.aio.insecure_channel(self._address, options=options)
        self._call = self._channel.stream_stream(self.method)()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._call.cancel()
        await self._channel.close()

    async def send_message(self, message: Any) -> None:
        if not self._sent_node:
            self._sent_node = True
            message.node.id = self._node["id"]
            message.node.cluster = self._node["cluster"]
            message.node.user_agent_name = self._node["user_agent_name"]
        await self._call.write(message.SerializeToString())

    async def receive(self, within_s: float = _WITHIN_S) -> Any:
        """Returns the next response; raises TimeoutError where none comes, EOFError at the end of the stream."""
        raw = await asyncio.wait_for(self._call.read(), within_s)
        if not isinstance(raw, bytes):
            raise EOFError(f"the stream has ended: {await self._call.code()} {await self._call.details()}")
        return self.response_class.FromString(raw)

    async def ended(self) -> tuple[grpc.StatusCode, str]:
        """Waits for the end of the stream."""
        try:
            while isinstance(await asyncio.wait_for(self._call.read(), _WITHIN_S), bytes):
                pass
        except grpc.aio.AioRpcError:
            pass
        return await self._call.code(), await self._call.details()


class DeltaClient(RawClient):
    """Speaks incremental xDS."""

    async def subscribe(
        self,
        type_url: str,
        names: Iterable[str] = (),
        *,
        unsubscribe: Iterable[str] = (),
        versions: Mapping[str, str] | None = None,
    ) -> None:
        await self.send_message(
            discovery_pb2.DeltaDiscoveryRequest(
                type_url=type_url,
                resource_names_subscribe=list(names),
                resource_names_unsubscribe=list(unsubscribe),
                initial_resource_versions=dict(versions or {}),
            )
        )

    async def ack(self, response: Any) -> None:
        await self.send_message(
            discovery_pb2.DeltaDiscoveryRequest(type_url=response.type_url, response_nonce=response.nonce)
        )

    async def nack(self, response: Any, message: str = "no") -> None:
        await self.send_message(
            discovery_pb2.DeltaDiscoveryRequest(
                type_url=response.type_url,
                response_nonce=response.nonce,
                error_detail=status_pb2.Status(code=3, message=message),
            )
        )

    async def fetch(self, type_url: str, names: Iterable[str] = (), **options: Any) -> Any:
        """Subscribes, receives the answer and accepts it."""
        await self.subscribe(type_url, names, **options)
        return await self.take()

    async def take(self) -> Any:
        """Receives a response and accepts it."""
        response = await self.receive()
        await self.ack(response)
        return response


class SotwClient(RawClient):
    """Speaks state-of-the-world xDS."""

    method = SOTW_METHOD
    response_class = discovery_pb2.DiscoveryResponse

    async def request(
        self,
        type_url: str,
        names: Iterable[str] = (),
        *,
        version: str = "",
        nonce: str = "",
        error: str | None = None,
    ) -> None:
        message = discovery_pb2.DiscoveryRequest(
            type_url=type_url, resource_names=list(names), version_info=version, response_nonce=nonce
        )
        if error is not None:
            message.error_detail.CopyFrom(status_pb2.Status(code=3, message=error))
        await self.send_message(message)

    async def ack(self, response: Any, names: Iterable[str] = ()) -> None:
        await self.request(response.type_url, names, version=response.version_info, nonce=response.nonce)


def names_of(response: Any) -> list[str]:
    """The names of a delta response's resources, in order."""
    return [resource.name for resource in response.resources]
