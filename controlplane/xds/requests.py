# pyright: standard, reportAttributeAccessIssue=false
"""Discovery requests off the wire, in one shape for both protocols."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from envoy.config.core.v3 import base_pb2
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf.message import DecodeError

from controlplane.xds.identity import Node

# A client's message goes to the log and onto objects' status.
_MAX_ERROR: Final = 4096

__all__ = ["DecodeError", "Request", "parse_delta", "parse_sotw"]


@dataclass(frozen=True, slots=True)
class Request:
    """A discovery request of either protocol; `error` is the client's message if it rejects the response `nonce`.

    In state-of-the-world requests `subscribe` is the whole set of names and `version` what the client accepted last.
    """

    type_url: str
    nonce: str = ""
    error: str | None = None
    subscribe: Sequence[str] = ()
    unsubscribe: Sequence[str] = ()
    initial_versions: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    version: str = ""


def parse_delta(raw: bytes) -> tuple[Request, Node | None]:
    """Parses a DeltaDiscoveryRequest; the node comes with the first of a stream. Raises DecodeError."""
    message = discovery_pb2.DeltaDiscoveryRequest.FromString(raw)
    request = Request(
        type_url=message.type_url,
        nonce=message.response_nonce,
        error=message.error_detail.message[:_MAX_ERROR] if message.HasField("error_detail") else None,
        subscribe=tuple(message.resource_names_subscribe),
        unsubscribe=tuple(message.resource_names_unsubscribe),
        initial_versions=dict(message.initial_resource_versions),
    )
    return request, _node(message.node) if message.HasField("node") else None


def parse_sotw(raw: bytes) -> tuple[Request, Node | None]:
    """Parses a DiscoveryRequest; the node comes with the first of a stream. Raises DecodeError."""
    message = discovery_pb2.DiscoveryRequest.FromString(raw)
    request = Request(
        type_url=message.type_url,
        nonce=message.response_nonce,
        error=message.error_detail.message[:_MAX_ERROR] if message.HasField("error_detail") else None,
        subscribe=tuple(message.resource_names),
        version=message.version_info,
    )
    return request, _node(message.node) if message.HasField("node") else None


def _node(node: base_pb2.Node) -> Node:
    return Node(
        id=node.id,
        cluster=node.cluster,
        user_agent_name=node.user_agent_name,
        # Nothing else of it is looked at, and what could tell the rest takes long to load.
        metadata={name: value.string_value for name, value in node.metadata.fields.items()},
    )
