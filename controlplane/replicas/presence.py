"""The clients of all replicas, as who leads knows them: its own, those of the others, and those that just went."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from controlplane.replicas.messages import Clients
from controlplane.replicas.versions import Versions
from controlplane.status.programmed import PATIENCE_S
from controlplane.xds.events import ClientSummary, Nack

HOLD_S: Final = 10.0
"""For how long a client that went counts as it was: it will be back, perhaps at another replica."""
_MAX_CLIENTS: Final = 20_000
_MAX_NACKS: Final = 10_000

Later = Callable[[float, Callable[[], None]], object]
"""Calls a function in so many seconds."""


class TooManyError(ValueError):
    """A replica tells of more than is held for one."""


@dataclass(frozen=True, slots=True)
class _Told:
    client: ClientSummary
    at: float


@dataclass(eq=False, slots=True)
class Member:
    """A replica that is connected, and what it has told."""

    replica: str
    address: str = ""
    whole: bool = False
    """Whether it has told everything."""
    owners: dict[int, str] = field(default_factory=dict[int, str])
    clients: dict[str, dict[int, _Told]] = field(default_factory=dict[str, "dict[int, _Told]"])
    nacks: dict[tuple[str, str], Nack] = field(default_factory=dict[tuple[str, str], Nack])
    versions: dict[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class _Gone:
    client: ClientSummary
    until: float


class Presence:
    """`clients` and `nacks` return what is known; `on_change` hears the owner of which that has changed."""

    def __init__(
        self,
        *,
        own: Callable[[str], Iterable[ClientSummary]],
        versions: Versions,
        on_change: Callable[[str], None],
        later: Later,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._own = own
        self._versions = versions
        self._on_change = on_change
        self._later = later
        self._clock = clock
        self._members: dict[Member, None] = {}
        self._gone: dict[str, dict[str, _Gone]] = {}

    @property
    def members(self) -> Iterable[Member]:
        """The replicas that are connected."""
        return tuple(self._members)

    def clients(self, owner: str) -> list[ClientSummary]:
        """Returns how far each client of an owner is.

        A replica may have yet to hear of what is published here. Its clients count as unsettled until it has told of
        this very snapshot, or would have had the time to.
        """
        own = list(self._own(owner))
        found = [*own, *self._elsewhere(owner)]
        back = {client.node_id for client in found}
        held = self._gone.get(owner, {}).items()
        return [*found, *(gone.client for node_id, gone in held if node_id not in back)]

    def nacks(self, owner: str) -> Iterator[Nack]:
        """Returns what clients of other replicas have rejected of an owner's."""
        for member in self._members:
            yield from (nack for (of, _), nack in member.nacks.items() if of == owner)

    def _elsewhere(self, owner: str) -> Iterator[ClientSummary]:
        age_s = self._versions.age_s(owner)
        for member in self._members:
            told = member.clients.get(owner)
            if not told:
                continue
            behind = age_s < PATIENCE_S and member.versions.get(owner) != self._versions.of(owner)
            for each in told.values():
                if behind and each.client.settled:
                    yield replace(each.client, settled=False, unsettled_s=age_s)
                else:
                    yield self._now(each)

    def _now(self, told: _Told) -> ClientSummary:
        if told.client.settled:
            return told.client
        return replace(told.client, unsettled_s=told.client.unsettled_s + self._clock() - told.at)

    def workers_have(self, owner: str, *, but: Member | None = None, own: bool = True) -> str | None:
        """Returns the version that all clients of an owner have; empty where there are none, None where that differs.

        Those of one replica (`but`), or of this one, may be left out.
        """
        have: set[str | None] = set()
        mine = list(self._own(owner)) if own else []
        if mine:
            have.add(self._versions.of(owner) if all(client.settled for client in mine) else None)
        for member in self._members:
            told = member.clients.get(owner)
            if told and member is not but:
                settled = all(each.client.settled for each in told.values())
                have.add(member.versions.get(owner) if settled else None)
        if not have:
            return ""
        return have.pop() if len(have) == 1 else None

    # What happens

    def join(self, replica: str, address: str) -> Member:
        """Takes in a replica; one of the same name that was there before is another stream of it."""
        for member in [each for each in self._members if each.replica == replica]:
            self.leave(member)
        member = Member(replica, address)
        self._members[member] = None
        return member

    def take(self, member: Member, message: Clients) -> None:
        """Takes in what a replica tells of its clients; raises TooManyError."""
        if len(member.owners) + len(message.changed) > _MAX_CLIENTS + len(message.gone):
            raise TooManyError(f"more than {_MAX_CLIENTS} clients")
        if len(member.nacks) + len(message.nacks) > _MAX_NACKS:
            raise TooManyError(f"more than {_MAX_NACKS} rejections")
        now = self._clock()
        touched: dict[str, None] = {}
        for number in message.gone:
            owner = member.owners.pop(number, None)
            if owner is not None:
                self._hold(self._now(member.clients[owner].pop(number)))
                touched[owner] = None
        left = list(touched)
        for client in message.changed:
            member.owners[client.number] = client.owner
            member.clients.setdefault(client.owner, {})[client.number] = _Told(client, now)
            touched[client.owner] = None
        for nack in message.nacks:
            member.nacks[nack.owner, nack.type_url] = nack
            touched[nack.owner] = None
        member.versions |= message.versions
        self._tidy(member, left)
        for owner in touched | dict.fromkeys(message.versions):
            self._on_change(owner)

    def leave(self, member: Member) -> None:
        """Takes in that a replica's stream has ended: its clients count for a while as they were."""
        if member not in self._members:
            return
        del self._members[member]
        for told in member.clients.values():
            for each in told.values():
                self._hold(self._now(each))
        for owner in member.clients:
            self._on_change(owner)

    def went(self, client: ClientSummary) -> None:
        """Takes in that a client of this replica went."""
        self._hold(client)

    def clear(self) -> None:
        """Forgets everything."""
        self._members.clear()
        self._gone.clear()

    def _tidy(self, member: Member, owners: Iterable[str]) -> None:
        for owner in owners:
            if not member.clients.get(owner):
                member.clients.pop(owner, None)
                member.versions.pop(owner, None)
                for key in [key for key in member.nacks if key[0] == owner]:
                    del member.nacks[key]

    def _hold(self, client: ClientSummary) -> None:
        if not client.settled and client.unsettled_s >= PATIENCE_S:
            return
        held = self._gone.setdefault(client.owner, {})
        if len(held) < _MAX_CLIENTS:
            held[client.node_id] = _Gone(client, self._clock() + HOLD_S)
            self._later(HOLD_S, lambda: self._let_go(client.owner))

    def _let_go(self, owner: str) -> None:
        now = self._clock()
        held = self._gone.get(owner, {})
        over = [node_id for node_id, gone in held.items() if gone.until <= now]
        for node_id in over:
            del held[node_id]
        if not held:
            self._gone.pop(owner, None)
        if over:
            self._on_change(owner)
