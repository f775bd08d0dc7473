# pyright: standard, reportAttributeAccessIssue=false
"""The two forms of ADS, as a client of one type of resource speaks them: requests out, changes in."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from envoy.service.discovery.v3 import discovery_pb2
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


@dataclass(frozen=True, slots=True)
class Received:
    """A response: what is new or changed, as name → version and body, and the names that are gone."""

    changed: Mapping[str, tuple[str, bytes]]
    removed: frozenset[str]
    nonce: str
    version: str = ""
    fault: str | None = None
    """Why none of it can be used."""
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

    def received(self, raw: bytes, versions: Mapping[str, str]) -> Received:
        """Reads a response; raises DecodeError."""
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
        message.node.id = node.id
        message.node.cluster = node.cluster
        message.node.user_agent_name = _USER_AGENT
        return message.SerializeToString()

    def received(self, raw: bytes, versions: Mapping[str, str]) -> Received:
        return self.of(discovery_pb2.DeltaDiscoveryResponse.FromString(raw), versions)

    def of(self, response: discovery_pb2.DeltaDiscoveryResponse, versions: Mapping[str, str]) -> Received:
        """Reads a response that is decoded already."""
        changed = {entry.name: (entry.version, entry.resource.value) for entry in response.resources}
        removed = frozenset(name for name in response.removed_resources if name in versions)
        strange = any(entry.resource.type_url != self._type_url for entry in response.resources)
        fault = f"a resource is not a {self._type_url}" if strange else None
        return Received(changed, removed, response.nonce, fault=fault)

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

    def received(self, raw: bytes, versions: Mapping[str, str]) -> Received:
        response = discovery_pb2.DiscoveryResponse.FromString(raw)
        changed: dict[str, tuple[str, bytes]] = {}
        present: set[str] = set()
        fault: str | None = None
        for resource in response.resources:
            try:
                name, type_url, body = self._unwrapped(resource)
            except ValueError as error:
                fault = f"a resource cannot be read: {error}"
                continue
            if type_url != self._type_url:
                fault = f"a resource is not a {self._type_url}"
            elif name in present:
                fault = f"two resources are called {name!r}"
            version = hashlib.sha256(body).hexdigest()
            present.add(name)
            if versions.get(name) != version:
                changed[name] = version, body
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
        message.node.id = self._node.id
        message.node.cluster = self._node.cluster
        message.node.user_agent_name = _USER_AGENT
        return message


def _error(rejected: str) -> status_pb2.Status:
    return status_pb2.Status(code=code_pb2.INVALID_ARGUMENT, message=rejected[:_MAX_ERROR])
