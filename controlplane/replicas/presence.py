"""The clients of all replicas, as who leads knows them: its own, those of the others, and those that just went."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import Final

from controlplane.replicas.messages import Clients
from controlplane.replicas.versions import Versions
from controlplane.status.programmed import PATIENCE_S
from controlplane.xds.census import Census, Standing, Tally, census_of
from controlplane.xds.events import ClientSummary, Nack, StreamEvent

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


@dataclass(slots=True)
class Nodes:
    """How many streams each node of an owner has."""

    _found: dict[str, Counter[str]] = field(default_factory=dict[str, "Counter[str]"])

    def came(self, client: ClientSummary | StreamEvent) -> None:
        """Takes in one more stream."""
        self._found.setdefault(client.owner, Counter())[client.node_id] += 1

    def went(self, client: ClientSummary | StreamEvent) -> None:
        """Takes in that a stream is no more."""
        of_owner = self._found.get(client.owner, Counter())
        of_owner[client.node_id] -= 1
        if of_owner[client.node_id] <= 0:
            del of_owner[client.node_id]
        if not of_owner:
            self._found.pop(client.owner, None)

    def has(self, owner: str, node_id: str) -> bool:
        """Whether a node has a stream."""
        return owner in self._found and node_id in self._found[owner]


@dataclass(eq=False, slots=True)
class Member:
    """A replica that is connected, and what it has told."""

    replica: str
    address: str = ""
    whole: bool = False
    """Whether it has told everything."""
    owners: dict[int, str] = field(default_factory=dict[int, str])
    clients: dict[str, dict[int, _Told]] = field(default_factory=dict[str, "dict[int, _Told]"])
    tallies: dict[str, Tally[int]] = field(default_factory=dict[str, "Tally[int]"])
    nodes: Nodes = field(default_factory=lambda: Nodes())
    nacks: dict[tuple[str, str], Nack] = field(default_factory=dict[tuple[str, str], Nack])
    versions: dict[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class _Gone:
    client: ClientSummary
    until: float


class Presence:
    """`census`, `clients` and `nacks` return what is known; `on_change` hears the owner of which that has changed."""

    def __init__(
        self,
        *,
        own: Callable[[str], Iterable[ClientSummary]],
        own_census: Callable[[str], Census],
        versions: Versions,
        on_change: Callable[[str], None],
        later: Later,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._own = own
        self._own_census = own_census
        self._own_nodes = Nodes()
        self._versions = versions
        self._on_change = on_change
        self._later = later
        self._clock = clock
        self._members: dict[Member, None] = {}
        self._gone: dict[str, dict[str, _Gone]] = {}
        self._letting_go: set[str] = set()

    @property
    def members(self) -> Iterable[Member]:
        """The replicas that are connected."""
        return tuple(self._members)

    def census(self, owner: str) -> Census:
        """Returns how far the clients of an owner are, all together.

        A replica may have yet to hear of what is published here. Its clients count as unsettled until it has told of
        this very snapshot, or would have had the time to.
        """
        now, age_s = self._clock(), self._versions.age_s(owner)
        whole = self._own_census(owner) + census_of(self._missed(owner))
        for member in self._members:
            tally = member.tallies.get(owner)
            if tally is None:
                continue
            found = tally.census(now)
            if self._is_behind(member, owner, age_s):
                found = replace(found, unsettled=found.clients, unsettled_s=max(age_s, found.unsettled_s))
            whole += found
        return whole

    def clients(self, owner: str) -> list[ClientSummary]:
        """Returns how far each client of an owner is: what `census` sums up."""
        return [*self._own(owner), *self._elsewhere(owner), *self._missed(owner)]

    def nacks(self, owner: str) -> Iterator[Nack]:
        """Returns what clients of other replicas have rejected of an owner's."""
        for member in self._members:
            yield from (nack for (of, _), nack in member.nacks.items() if of == owner)

    def _missed(self, owner: str) -> Iterator[ClientSummary]:
        """Yields those that went and are not back."""
        for node_id, gone in self._gone.get(owner, {}).items():
            back = self._own_nodes.has(owner, node_id) or any(m.nodes.has(owner, node_id) for m in self._members)
            if not back:
                yield gone.client

    def _is_behind(self, member: Member, owner: str, age_s: float) -> bool:
        return age_s < PATIENCE_S and member.versions.get(owner) != self._versions.of(owner)

    def _elsewhere(self, owner: str) -> Iterator[ClientSummary]:
        age_s = self._versions.age_s(owner)
        for member in self._members:
            told = member.clients.get(owner)
            if not told:
                continue
            behind = self._is_behind(member, owner, age_s)
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
        mine = self._own_census(owner) if own else Census()
        if mine.clients:
            have.add(None if mine.unsettled else self._versions.of(owner))
        for member in self._members:
            tally = member.tallies.get(owner)
            if tally and member is not but:
                have.add(None if tally.unsettled else member.versions.get(owner))
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
                went = member.clients[owner].pop(number)
                member.tallies[owner].drop(number)
                member.nodes.went(went.client)
                self._hold(self._now(went))
                touched[owner] = None
        left = list(touched)
        for client in message.changed:
            if client.number not in member.owners:
                member.nodes.came(client)
            member.owners[client.number] = client.owner
            member.clients.setdefault(client.owner, {})[client.number] = _Told(client, now)
            tally = member.tallies.setdefault(client.owner, Tally())
            tally.note(client.number, Standing.of(client), now - client.unsettled_s)
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

    def came(self, event: StreamEvent) -> None:
        """Takes in that a client of this replica came."""
        self._own_nodes.came(event)

    def went(self, client: ClientSummary) -> None:
        """Takes in that a client of this replica went."""
        self._own_nodes.went(client)
        self._hold(client)

    def clear(self) -> None:
        """Forgets everything but this replica's own clients."""
        self._members.clear()
        self._gone.clear()

    def _tidy(self, member: Member, owners: Iterable[str]) -> None:
        for owner in owners:
            if not member.clients.get(owner):
                member.clients.pop(owner, None)
                member.tallies.pop(owner, None)
                member.versions.pop(owner, None)
                for key in [key for key in member.nacks if key[0] == owner]:
                    del member.nacks[key]

    def _hold(self, client: ClientSummary) -> None:
        if not client.settled and client.unsettled_s >= PATIENCE_S:
            return
        held = self._gone.setdefault(client.owner, {})
        if len(held) < _MAX_CLIENTS:
            held.pop(client.node_id, None)  # Who went last stands last.
            held[client.node_id] = _Gone(client, self._clock() + HOLD_S)
            self._let_go_in(HOLD_S, client.owner)

    def _let_go_in(self, delay_s: float, owner: str) -> None:
        if owner not in self._letting_go:
            self._letting_go.add(owner)
            self._later(delay_s, lambda: self._let_go(owner))

    def _let_go(self, owner: str) -> None:
        self._letting_go.discard(owner)
        now = self._clock()
        held = self._gone.get(owner, {})
        over = list(takewhile(lambda node_id: held[node_id].until <= now, held))
        for node_id in over:
            del held[node_id]
        if held:
            self._let_go_in(next(iter(held.values())).until - now, owner)
        else:
            self._gone.pop(owner, None)
        if over:
            self._on_change(owner)
