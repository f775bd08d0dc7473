# pyright: standard, reportAttributeAccessIssue=false
"""The two forms of ADS, as a client of one type of resource speaks them: requests out, changes in."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol

from envoy.config.core.v3 import base_pb2
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf.message import DecodeError
from google.rpc import code_pb2, status_pb2

XdsProtocol = Literal["auto", "delta", "sotw"]
"""`auto` begins with delta, and tries the other whenever the server does not know the one."""

NameOf = Callable[[bytes], str]
"""Reads a resource's name from the resource; raises ValueError. State of the world sends no names of its own."""

_SERVICE: Final = "/envoy.service.discovery.v3.AggregatedDiscoveryService"
_RESOURCE: Final = "type.googleapis.com/envoy.service.discovery.v3.Resource"
_USER_AGENT: Final = "dragoman"
_MAX_ERROR: Final = 4096


@dataclass(frozen=True, slots=True)
class ClientNode:
    """What a client says of itself."""

    id: str
    cluster: str
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class Received:
    """A response: what is new or changed, as name → version and body, and the names that are gone."""

    changed: Mapping[str, tuple[str, bytes]]
    removed: frozenset[str]
    nonce: str
    version: str = ""
    """What tells it from others; two that are alike have the same."""
    fault: str | None = None
    """Why not all of it can be used; `changed` and `removed` are what can."""
    is_state: bool = False
    """Whether `removed` is what is not in it: that counts only of a response that is accepted as a whole."""


class Dialect(Protocol):
    """One stream's conversation."""

    @property
    def method(self) -> str:
        """The gRPC method."""
        ...

    def first(self, node: ClientNode, versions: Mapping[str, str]) -> bytes:
        """Returns the request that opens a stream; `versions` are those of the resources that are held."""
        ...

    def received(self, raw: bytes, versions: Mapping[str, str]) -> Received | None:
        """Reads a response, None for one of another type, which nobody asked for; raises DecodeError."""
        ...

    def answer(self, received: Received, rejected: str | None) -> bytes:
        """Returns the acknowledgement, or with a reason the rejection."""
        ...


class Delta:
    """Incremental: the server sends what changed, and is told what is held."""

    method = f"{_SERVICE}/DeltaAggregatedResources"

    def __init__(self, type_url: str) -> None:
        self._type_url = type_url

    def first(self, node: ClientNode, versions: Mapping[str, str]) -> bytes:
        message = discovery_pb2.DeltaDiscoveryRequest(
            type_url=self._type_url, resource_names_subscribe=["*"], initial_resource_versions=versions
        )
        _introduce(message.node, node)
        return message.SerializeToString()

    def received(self, raw: bytes, versions: Mapping[str, str]) -> Received | None:
        response = discovery_pb2.DeltaDiscoveryResponse.FromString(raw)
        return self.of(response, versions) if response.type_url == self._type_url else None

    def of(self, response: discovery_pb2.DeltaDiscoveryResponse, versions: Mapping[str, str]) -> Received:
        """Reads a response that is decoded already.

        As Envoy does, it takes no response for good that names a resource twice, be it among those that are removed.
        """
        changed: dict[str, tuple[str, bytes]] = {}
        named: set[str] = set()
        removed = frozenset(response.removed_resources)
        fault: str | None = None
        for entry in response.resources:
            name = entry.name
            if name in named or name in removed:
                fault = f"{name!r} is named twice"
                changed.pop(name, None)
            elif not entry.HasField("resource"):
                # With the version that is held, it says that the resource is still there.
                if versions.get(name) != entry.version:
                    fault = f"{name!r} has no resource"
            elif entry.resource.type_url != self._type_url:
                fault = f"{name!r} is not a {self._type_url}"
            else:
                body = entry.resource.value
                changed[name] = entry.version or hashlib.sha256(body).hexdigest(), body
            named.add(name)
        gone = frozenset(name for name in removed - named if name in versions)
        alike = hash((frozenset((name, version) for name, (version, _) in changed.items()), removed, fault))
        return Received(changed, gone, response.nonce, version=str(alike), fault=fault)

    def answer(self, received: Received, rejected: str | None) -> bytes:
        message = discovery_pb2.DeltaDiscoveryRequest(type_url=self._type_url, response_nonce=received.nonce)
        if rejected is not None:
            message.error_detail.CopyFrom(_error(rejected))
        return message.SerializeToString()


class Sotw:
    """State of the world: each response has all resources, and what is not in it is gone."""

    method = f"{_SERVICE}/StreamAggregatedResources"

    def __init__(self, type_url: str, name_of: NameOf) -> None:
        self._type_url = type_url
        self._name_of = name_of
        self._node = ClientNode("", "")
        self._accepted = ""

    def first(self, node: ClientNode, versions: Mapping[str, str]) -> bytes:
        # No version: a server that counts its versions from 1 may be at the same number with other resources.
        self._node, self._accepted = node, ""
        return self._request().SerializeToString()

    def received(self, raw: bytes, versions: Mapping[str, str]) -> Received | None:
        response = discovery_pb2.DiscoveryResponse.FromString(raw)
        if response.type_url != self._type_url:
            return None
        changed: dict[str, tuple[str, bytes]] = {}
        present: set[str] = set()
        fault: str | None = None
        for resource in response.resources:
            try:
                name, type_url, body = self._unwrapped(resource)
            except (ValueError, DecodeError) as error:
                fault = f"a resource cannot be read: {error}"
                continue
            version = hashlib.sha256(body).hexdigest()
            if name in present:
                fault = f"two resources are called {name!r}"
            elif type_url != self._type_url:
                fault = f"{name!r} is not a {self._type_url}"
            elif versions.get(name) != version:
                changed[name] = version, body
            present.add(name)
        if fault is not None:
            # It is not known what else there is, or is gone.
            changed, present = {}, set(versions)
        removed = frozenset(versions) - present
        version = response.version_info
        return Received(changed, removed, response.nonce, version=version, fault=fault, is_state=True)

    def answer(self, received: Received, rejected: str | None) -> bytes:
        if rejected is None:
            self._accepted = received.version
        message = self._request()
        message.response_nonce = received.nonce
        if rejected is not None:
            message.error_detail.CopyFrom(_error(rejected))
        return message.SerializeToString()

    def _unwrapped(self, resource: discovery_pb2.Resource) -> tuple[str, str, bytes]:
        if resource.type_url == _RESOURCE:
            wrapper = discovery_pb2.Resource.FromString(resource.value)
            return wrapper.name, wrapper.resource.type_url, wrapper.resource.value
        return self._name_of(resource.value), resource.type_url, resource.value

    def _request(self) -> discovery_pb2.DiscoveryRequest:
        # Some servers know a client by the node of each request, not of the first alone.
        message = discovery_pb2.DiscoveryRequest(type_url=self._type_url, version_info=self._accepted)
        _introduce(message.node, self._node)
        return message


def _introduce(message: base_pb2.Node, node: ClientNode) -> None:
    message.id, message.cluster, message.user_agent_name = node.id, node.cluster, _USER_AGENT
    if node.metadata:
        message.metadata.update(node.metadata)


def _error(rejected: str) -> status_pb2.Status:
    return status_pb2.Status(code=code_pb2.INVALID_ARGUMENT, message=rejected[:_MAX_ERROR])
