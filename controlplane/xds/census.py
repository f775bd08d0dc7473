"""How far the clients of one owner are, all together: counted as they answer, and not anew for each who asks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Set
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from controlplane.xds.events import ClientSummary
from controlplane.xds.resources import LISTENER

_Key = TypeVar("_Key", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Census:
    """What is to be said of an owner's clients; `unsettled_s` is how long the slowest has not been settled."""

    clients: int = 0
    unsettled: int = 0
    lacking: int = 0
    unsettled_s: float = 0.0
    rejected: Set[str] = frozenset()
    """Types of which a client rejects what it was sent last."""

    @property
    def answered(self) -> bool:
        """Whether there is nothing that any of them has yet to ask or to answer."""
        return not (self.unsettled or self.lacking)

    def __add__(self, other: Census) -> Census:
        return Census(
            self.clients + other.clients,
            self.unsettled + other.unsettled,
            self.lacking + other.lacking,
            max(self.unsettled_s, other.unsettled_s),
            self.rejected | other.rejected,
        )


@dataclass(frozen=True, slots=True)
class Standing:
    """How far one client is; it is `lacking` until it has asked for listeners and has had an answer, or one of them."""

    settled: bool
    lacking: bool
    rejected: tuple[str, ...] = ()

    @staticmethod
    def of(client: ClientSummary) -> Standing:
        """Returns that of a client as it is told of."""
        listeners = client.types.get(LISTENER)
        known = listeners is not None and listeners.known > 0
        lacking = (not client.settled or listeners is None) and not known
        return Standing(client.settled, lacking, tuple(name for name, each in client.types.items() if each.rejected))


def census_of(clients: Iterable[ClientSummary]) -> Census:
    """Returns the census of clients that are known one by one."""
    tally = Tally[int]()
    for number, client in enumerate(clients):
        tally.note(number, Standing.of(client), -client.unsettled_s)
    return tally.census(0.0)


@dataclass(slots=True)
class Tally(Generic[_Key]):
    """A census that follows clients as they come, change and go; `since` is from when on one has not been settled."""

    _standing: dict[_Key, Standing] = field(default_factory=dict[_Key, Standing])
    _unsettled_since: dict[_Key, float] = field(default_factory=dict[_Key, float])
    _lacking: set[_Key] = field(default_factory=set[_Key])
    _rejecting: Counter[str] = field(default_factory=Counter[str])
    _rejected: frozenset[str] = frozenset()

    def note(self, client: _Key, standing: Standing, since: float) -> bool:
        """Takes in how far a client is; returns whether something else is to be said of all together."""
        before = self._standing.get(client)
        if before == standing and (standing.settled or self._unsettled_since[client] == since):
            return False
        said = self._said()
        self._standing[client] = standing
        if standing.settled:
            self._unsettled_since.pop(client, None)
        else:
            self._unsettled_since[client] = since
        (self._lacking.add if standing.lacking else self._lacking.discard)(client)
        self._count(standing.rejected, () if before is None else before.rejected)
        return said != self._said()

    def drop(self, client: _Key) -> bool:
        """Forgets a client; returns whether something else is to be said of all together."""
        before = self._standing.get(client)
        if before is None:
            return False
        said = self._said()
        del self._standing[client]
        self._unsettled_since.pop(client, None)
        self._lacking.discard(client)
        self._count((), before.rejected)
        return said != self._said()

    @property
    def unsettled(self) -> Set[_Key]:
        """Those that are not settled."""
        return self._unsettled_since.keys()

    def __len__(self) -> int:
        return len(self._standing)

    def census(self, now: float) -> Census:
        """Returns how far all are."""
        since = self._unsettled_since
        longest_s = now - min(since.values()) if since else 0.0
        return Census(len(self._standing), len(since), len(self._lacking), longest_s, self._rejected)

    def _count(self, added: tuple[str, ...], dropped: tuple[str, ...]) -> None:
        if added == dropped:
            return
        self._rejecting.update(added)
        self._rejecting.subtract(dropped)
        self._rejecting += Counter()  # Without those of which there are none.
        self._rejected = frozenset(self._rejecting)

    def _said(self) -> tuple[bool, bool, bool, frozenset[str]]:
        return bool(self._standing), bool(self._unsettled_since), bool(self._lacking), self._rejected
