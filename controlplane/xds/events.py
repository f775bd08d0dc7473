"""What happens on the streams, told to those who observe: acknowledgements, rejections, connections."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Protocol = Literal["delta", "sotw"]


@dataclass(frozen=True, slots=True)
class Ack:
    """A client has accepted a response."""

    owner: str
    node_id: str
    type_url: str
    names: tuple[str, ...]
    latency_s: float


@dataclass(frozen=True, slots=True)
class Nack:
    """A client has rejected resources; `origins` are the objects that they were made from.

    `names` holds the culprits alone where they are known: the client's message names them, or sending the parts of the
    response one by one has singled them out.
    """

    owner: str
    node_id: str
    type_url: str
    names: tuple[str, ...]
    origins: tuple[str, ...]
    message: str
    versions: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class StreamEvent:
    """A client has come, or has gone: then `last` is how far it was."""

    owner: str
    node_id: str
    protocol: Protocol
    open: bool
    last: ClientSummary | None = None


@dataclass(frozen=True, slots=True)
class TypeSummary:
    """How far a client is with one type."""

    subscribed: int
    wildcard: bool
    known: int
    pending: int
    in_flight: bool
    rejected: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ClientSummary:
    """How far a client is; replicas tell one another, so a later version may add fields that have a default."""

    owner: str
    node_id: str
    protocol: Protocol
    settled: bool
    types: Mapping[str, TypeSummary]
    unsettled_s: float = 0.0  # for how long it has not been settled; 0 while it is
    number: int = 0  # tells the streams of one replica apart
