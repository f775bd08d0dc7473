# pyright: standard, reportAttributeAccessIssue=false
"""Envoys as far as the control plane can tell, at a few microseconds a message: delta ADS over HTTP/2, no tasks."""

from __future__ import annotations

import asyncio
import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

import ngh2
from envoy.config.core.v3.base_pb2 import Node
from envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryRequest, DeltaDiscoveryResponse
from ngh2 import DataReceived, StreamClosed

from controlplane.xds.resources import CLUSTER, ENDPOINT, LISTENER, ROUTE

_HEADERS = (
    (b":method", b"POST"),
    (b":path", b"/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"),
    (b":authority", b"xds"),
    (b":scheme", b"http"),
    (b"te", b"trailers"),
    (b"content-type", b"application/grpc"),
)
# What Envoy asks for when a response has told it to: clusters, their endpoints, listeners, their routes.
_ORDER = (CLUSTER, ENDPOINT, LISTENER, ROUTE)
# Envoy's own default for its upstreams.
_WINDOW_BYTES = 16 << 20
_prefix = struct.Struct(">BI")

Versions = Mapping[str, str]


@dataclass(slots=True)
class Swarm:
    """What all clients share: where they connect to, what they ask for, and what was counted of what came."""

    port: int
    owner: str
    route_config: str
    responses: Counter[str] = field(default_factory=Counter[str])
    resources: Counter[str] = field(default_factory=Counter[str])
    received_bytes: int = 0
    lost: int = 0
    """Connections that the control plane has ended."""
    moved: asyncio.Event = field(default_factory=asyncio.Event)
    # The same response makes the same set of versions: one mapping for a thousand clients.
    _merged: dict[tuple[int, int, int], tuple[Versions, Versions]] = field(
        default_factory=dict[tuple[int, int, int], "tuple[Versions, Versions]"]
    )
    _requests: dict[tuple[str, int, int], tuple[Versions, Versions, bytes]] = field(
        default_factory=dict[tuple[str, int, int], "tuple[Versions, Versions, bytes]"]
    )

    def clear_counts(self) -> None:
        """Counts anew."""
        self.responses.clear()
        self.resources.clear()
        self.received_bytes = 0

    def merge(self, held: Versions, response: DeltaDiscoveryResponse) -> Versions:
        """Returns what a client has after a response."""
        key = (id(held), len(response.resources), hash(tuple(each.version for each in response.resources)))
        known = self._merged.get(key)
        if known is None or known[0] is not held:
            after = {**held, **{each.name: each.version for each in response.resources}}
            for name in response.removed_resources:
                after.pop(name, None)
            known = self._merged[key] = (held, after)
            if len(self._merged) > 1_000:
                del self._merged[next(iter(self._merged))]
        return known[1]

    def subscription(self, type_url: str, held: Versions, names: Versions) -> bytes:
        """Returns the first request for a type, encoded, but for the node: by whom is added in front of it."""
        key = (type_url, id(held), id(names))
        known = self._requests.get(key)
        if known is None:
            wanted = () if type_url in (CLUSTER, LISTENER) else (self.route_config,) if type_url == ROUTE else names
            request = DeltaDiscoveryRequest(
                type_url=type_url, resource_names_subscribe=sorted(wanted), initial_resource_versions=dict(held)
            )
            # Kept with what it was made from, so that no other object takes their ids.
            known = self._requests[key] = (held, names, request.SerializeToString())
        return known[2]


_NOTHING: Versions = {}


class Envoy(asyncio.Protocol):
    """One connection with one stream, which acknowledges all that comes; `held` outlives the connection."""

    def __init__(self, swarm: Swarm, node_id: str) -> None:
        self._swarm = swarm
        node = Node(id=node_id, cluster=swarm.owner)
        self._node = DeltaDiscoveryRequest(node=node).SerializeToString()
        self.held: dict[str, Versions] = {}
        self.answered: dict[str, int] = {}
        self.updates: Counter[str] = Counter()
        self.open = False
        self._closed = False
        self._session = cast("ngh2.Connection", None)
        self._transport = cast("asyncio.Transport", None)
        self._buffer = bytearray()
        self._stream = 0

    async def connect(self) -> None:
        """Connects and says what it has; raises OSError."""
        self.answered = {}
        self._closed = False
        self._buffer.clear()
        await asyncio.get_running_loop().create_connection(lambda: self, "127.0.0.1", self._swarm.port)

    @property
    def whole(self) -> bool:
        """Whether every type has been answered."""
        return len(self.answered) == len(_ORDER)

    def stop_reading(self) -> None:
        self._transport.pause_reading()

    def read_on(self) -> None:
        self._transport.resume_reading()

    def close(self) -> None:
        self._closed = True
        if self.open:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.open = True
        self._transport = cast("asyncio.Transport", transport)
        self._session = session = ngh2.Connection(ngh2.Role.CLIENT, ngh2.Configuration())
        session.initiate_connection({ngh2.Setting.INITIAL_WINDOW_SIZE: _WINDOW_BYTES, ngh2.Setting.ENABLE_PUSH: 0})
        session.set_local_window_size(_WINDOW_BYTES)
        self._stream = session.send_request(_HEADERS)
        again = [each for each in _ORDER if each in self.held]
        for number, type_url in enumerate(again or _ORDER[:1]):
            self._subscribe(type_url, self._node if number == 0 else b"")
        self._flush()

    def data_received(self, data: bytes) -> None:
        session = self._session
        self._swarm.received_bytes += len(data)
        session.receive_data(data)
        for event in session.events():
            if type(event) is DataReceived:
                self._buffer += event.data
                while len(self._buffer) >= 5 and len(self._buffer) >= 5 + _prefix.unpack_from(self._buffer)[1]:
                    end = 5 + _prefix.unpack_from(self._buffer)[1]
                    message = bytes(memoryview(self._buffer)[5:end])
                    del self._buffer[:end]
                    self._take(message)
            elif type(event) is StreamClosed:
                self._transport.abort()
                return
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self.open = False
        self._swarm.moved.set()
        if not self._closed:
            self._swarm.lost += 1

    def _take(self, message: bytes) -> None:
        response = DeltaDiscoveryResponse.FromString(message)
        swarm, type_url = self._swarm, response.type_url
        swarm.responses[type_url] += 1
        swarm.resources[type_url] += len(response.resources)
        self._send(DeltaDiscoveryRequest(type_url=type_url, response_nonce=response.nonce).SerializeToString())
        held = self.held.get(type_url, _NOTHING)
        if response.resources or response.removed_resources:
            self.updates[type_url] += 1
            held = swarm.merge(held, response)
        self.held[type_url] = held
        first = type_url not in self.answered
        self.answered[type_url] = self.answered.get(type_url, 0) + 1
        following = _ORDER.index(type_url) + 1
        if first and following < len(_ORDER) and _ORDER[following] not in self.held:
            self._subscribe(_ORDER[following])
        swarm.moved.set()

    def _subscribe(self, type_url: str, node: bytes = b"") -> None:
        held = self.held.get(type_url, _NOTHING)
        names = self.held.get(CLUSTER, _NOTHING)
        # Fields of one message may come in any order, so that two encodings in a row are the message of both.
        self._send(node + self._swarm.subscription(type_url, held, names))

    def _send(self, message: bytes) -> None:
        self._session.send_data(self._stream, _prefix.pack(0, len(message)) + message)

    def _flush(self) -> None:
        if out := self._session.data_to_send():
            self._transport.write(out)
