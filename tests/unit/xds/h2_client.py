# pyright: standard, reportAttributeAccessIssue=false
"""A discovery client that decides what it reads: from its socket, and of what it lets the server send."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from types import TracebackType
from typing import Any, cast

import ngh2
from envoy.service.discovery.v3 import discovery_pb2
from ngh2 import DataReceived, ResponseReceived, StreamClosed, TrailersReceived

from controlplane.xds.server import DELTA_METHOD

_PREFIX = struct.Struct(">BI")


class H2Client(asyncio.Protocol):
    """`async with H2Client(address, "ns/gw") as client`; `responses` are those that came whole."""

    def __init__(
        self, address: str, cluster: str, *, node_id: str = "node", window: int = 1 << 24, path: str = DELTA_METHOD
    ) -> None:
        self._host, _, port = address.rpartition(":")
        self._port = int(port)
        self._node = {"id": node_id, "cluster": cluster}
        self._window = window
        self._path = path
        self._buffer = bytearray()
        self.responses: list[Any] = []
        self.answers = True
        self.read: Callable[[bytes], Any] = discovery_pb2.DeltaDiscoveryResponse.FromString
        self.status = ""
        self.closed = False
        self.received_bytes = 0

    async def __aenter__(self) -> H2Client:
        await asyncio.get_running_loop().create_connection(lambda: self, self._host, self._port)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        # A window that is not updated is soon full.
        self._session = ngh2.Connection(ngh2.Role.CLIENT, ngh2.Configuration(auto_window_update=self._window > 1 << 20))
        self._session.initiate_connection({ngh2.Setting.INITIAL_WINDOW_SIZE: self._window})
        self._session.set_local_window_size(max(self._window, 65_535))
        self._stream = self._session.send_request(
            [
                (b":method", b"POST"),
                (b":path", self._path.encode()),
                (b":authority", b"xds"),
                (b":scheme", b"http"),
                (b"te", b"trailers"),
                (b"content-type", b"application/grpc"),
            ]
        )
        self._flush()

    def send(self, **fields: Any) -> None:
        """Sends a request."""
        self.say(discovery_pb2.DeltaDiscoveryRequest(node=self._node, **fields).SerializeToString())

    def say(self, message: bytes) -> None:
        """Sends any message."""
        self._session.send_data(self._stream, _PREFIX.pack(0, len(message)) + message)
        self._flush()

    def half_close(self) -> None:
        """Says that nothing more will come."""
        self._session.end_stream(self._stream)
        self._flush()

    def reset(self) -> None:
        """Gives the stream up."""
        self._session.reset_stream(self._stream)
        self._flush()

    def read_on(self) -> None:
        """Lets the server send what it has."""
        for stream in (0, self._stream):
            self._session.set_local_window_size(1 << 24, stream_id=stream)
        self._flush()

    def data_received(self, data: bytes) -> None:
        self.received_bytes += len(data)
        self._session.receive_data(data)
        for event in self._session.events():
            if isinstance(event, DataReceived):
                self._buffer += event.data
                self._cut()
            elif isinstance(event, (ResponseReceived, TrailersReceived)):
                self.status = dict(event.headers).get(b"grpc-status", b"").decode()
            elif isinstance(event, StreamClosed):
                self.closed = True
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True

    def _cut(self) -> None:
        while len(self._buffer) >= _PREFIX.size:
            end = _PREFIX.size + _PREFIX.unpack_from(self._buffer)[1]
            if len(self._buffer) < end:
                return
            response = self.read(bytes(self._buffer[_PREFIX.size : end]))
            del self._buffer[:end]
            self.responses.append(response)
            if self.answers:
                self.send(type_url=response.type_url, response_nonce=response.nonce)

    def _flush(self) -> None:
        if out := self._session.data_to_send():
            self.transport.write(out)
