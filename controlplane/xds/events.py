"""What happens on the streams, told to those who observe: acknowledgements, rejections, connections."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from controlplane.xds.diff import Diff
from controlplane.xds.resources import Snapshot

Protocol = Literal["delta", "sotw"]

_MANY: Final = 8


@dataclass(frozen=True, slots=True)
class Violation:
    """What a client did that ends its stream."""

    message: str


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
    had: bool = True  # whether the client had something before its stream began

    @property
    def made_from(self) -> str:
        """The objects that the culprits were made from, in words: not all of them, where they are many."""
        more = len(self.origins) - _MANY
        return ", ".join(self.origins[:_MANY]) + (f" and {more} more" if more > 0 else "")


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


class Deliveries:
    """Hears of every response, by owner and number of the stream; does nothing itself. Its calls must be cheap."""

    def attached(self, owner: str, number: int, node_id: str) -> None:
        """A client has come."""

    def detached(self, owner: str, number: int) -> None:
        """A client has gone."""

    def offered(self, owner: str, served: Snapshot, changes: Diff, behind: Collection[int]) -> None:
        """The owner's clients are to have this snapshot; those that are `behind` have something to answer."""

    def pushed(self, owner: str, number: int, type_url: str) -> None:
        """A client is being sent the newest of a type."""

    def acked(self, owner: str, number: int, type_url: str) -> None:
        """A client has accepted what it was sent last of a type."""

    def refused(self, owner: str, number: int, type_url: str) -> None:
        """A client has rejected what it was sent last of a type; what of it, may be yet to be found."""

    def rejected(self, owner: str, number: int, nack: Nack) -> None:
        """What a client rejects is known."""

    def settled(self, owner: str, number: int) -> None:
        """A client has answered everything."""
