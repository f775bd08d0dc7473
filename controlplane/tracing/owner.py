"""How far the clients of one owner are with what was published for it: a number each, not a set for every change."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final, NamedTuple

from controlplane.tracing.change import MOST_CLIENTS, Delivery, Rejection, ms, short
from controlplane.xds.events import Nack

MOST_OPEN: Final = 128
"""How many deliveries of an owner are followed at once: a client that never answers must not hold more."""
_MOST_REJECTIONS: Final = 4
_MOST_WORDS: Final = 2000


class _Push(NamedTuple):
    at: float
    seq: int
    """The newest delivery when it was sent: it holds everything of its type up to there."""


@dataclass(slots=True)
class _Client:
    """One stream. While it has something to answer, it has everything up to the delivery `reached`."""

    node_id: str
    reached: int = 0
    acked: dict[str, int] = field(default_factory=dict[str, int])
    in_flight: dict[str, _Push] = field(default_factory=dict[str, _Push])
    doubtful: set[str] = field(default_factory=set[str])
    """Types of which something was rejected: what is sent of them then is sent in parts."""


class Owner:
    """Follows the deliveries of one owner; `on_done` hears each that all clients have, or have refused."""

    def __init__(self, name: str, on_done: Callable[[Delivery], None]) -> None:
        self.name = name
        self.seq = 0
        self._on_done = on_done
        self._open: dict[int, Delivery] = {}
        self._clients: dict[int, _Client] = {}
        self._behind: dict[int, _Client] = {}

    @property
    def behind(self) -> int:
        """How many clients have something to answer."""
        return len(self._behind)

    @property
    def unused(self) -> bool:
        """Whether there is nobody and nothing to follow."""
        return not self._clients and not self._open

    def attached(self, number: int, node_id: str) -> None:
        """Takes in a client, by its number."""
        self._clients[number] = _Client(node_id)

    def detached(self, number: int, now: float) -> None:
        """Takes in that a client has gone; what it has not answered, it is not asked for any more."""
        self._clients.pop(number, None)
        client = self._behind.pop(number, None)
        for delivery in self._missed(client) if client is not None else ():
            delivery.left += 1
            self._count(delivery, now)

    def offered(self, delivery: Delivery, behind: Collection[int], now: float) -> None:
        """Takes in what the clients are to be sent, and which of them have something to answer now."""
        self.seq = delivery.seq
        for number in behind:
            if number not in self._behind and (client := self._clients.get(number)) is not None:
                client.reached = delivery.seq - 1
                self._behind[number] = client
        delivery.clients = delivery.remaining = len(self._behind)
        if delivery.remaining:
            self._open[delivery.seq] = delivery
        if len(self._open) > MOST_OPEN:
            oldest = self._open.pop(next(iter(self._open)))
            oldest.overtaken = True
            self._on_done(oldest)

    def pushed(self, number: int, type_url: str, now: float) -> None:
        """Takes in that a client is sent the newest of one type."""
        client = self._behind.get(number)
        if client is not None:
            client.in_flight[type_url] = _Push(now, self.seq)

    def acked(self, number: int, type_url: str, now: float) -> None:
        """Takes in that a client has taken what it was sent last of one type."""
        client = self._behind.get(number)
        push = client.in_flight.pop(type_url, None) if client is not None else None
        if client is None or push is None or type_url in client.doubtful:
            return
        for seq in range(max(client.reached, client.acked.get(type_url, 0)) + 1, push.seq + 1):
            delivery = self._open.get(seq)
            if delivery is not None and type_url in delivery.types:
                delivery.types[type_url].answered(client.node_id, push.at, now)
        client.acked[type_url] = push.seq
        self._advance(client, now)

    def refused(self, number: int, type_url: str) -> None:
        """Takes in that a client has rejected what it was sent last of one type, or a part of it."""
        client = self._behind.get(number)
        if client is not None:
            client.in_flight.pop(type_url, None)
            client.doubtful.add(type_url)

    def rejected(self, number: int, nack: Nack) -> None:
        """Takes in what exactly a client has rejected."""
        client = self._behind.get(number)
        found = Rejection(nack.node_id, nack.type_url, nack.names[:MOST_CLIENTS], nack.message[:_MOST_WORDS])
        for delivery in self._missed(client) if client is not None else ():
            sent = delivery.types.get(nack.type_url)
            if sent is not None and sent.resources and len(delivery.rejections) < _MOST_REJECTIONS:
                delivery.rejections.append(found)

    def settled(self, number: int, now: float) -> None:
        """Takes in that a client has answered everything."""
        client = self._behind.pop(number, None)
        if client is None:
            return
        for delivery in self._missed(client) if client.reached < self.seq else ():
            delivery.last_client = client.node_id
            self._count(delivery, now)
        client.in_flight.clear()
        client.acked.clear()
        client.doubtful.clear()

    def waiting(self, now: float) -> Iterator[tuple[Delivery, dict[str, Any]]]:
        """Yields who is behind with which delivery, and for how long what was sent has not been answered."""
        for delivery in self._open.values():
            found = (each for each in self._behind.values() if each.reached < delivery.seq)
            for client in islice(found, MOST_CLIENTS):
                sent = {short(of): ms(now - push.at) for of, push in client.in_flight.items() if of in delivery.types}
                yield delivery, {"client": client.node_id, "unanswered_ms": sent}

    def _advance(self, client: _Client, now: float) -> None:
        while client.reached < self.seq:
            delivery = self._open.get(client.reached + 1)
            if delivery is not None:
                for of, sent in delivery.types.items():
                    if sent.resources and client.acked.get(of, 0) < delivery.seq:
                        return
                delivery.last_client = client.node_id
                self._count(delivery, now)
            client.reached += 1

    def _missed(self, client: _Client) -> list[Delivery]:
        found = (self._open.get(seq) for seq in range(client.reached + 1, self.seq + 1))
        return [each for each in found if each is not None]

    def _count(self, delivery: Delivery, now: float) -> None:
        delivery.remaining -= 1
        if delivery.remaining == 0:
            delivery.settled = now
            del self._open[delivery.seq]
            self._on_done(delivery)
