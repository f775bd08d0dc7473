"""One type at one client: what it asked for, what it has, what it is owed, and what it rejected."""

from __future__ import annotations

import re
from collections.abc import Iterable, Set
from dataclasses import dataclass, field
from typing import Final

from controlplane.xds.events import TypeSummary
from controlplane.xds.order import RANK, UNRANKED
from controlplane.xds.overlay import Have, Names, Versions
from controlplane.xds.requests import Request
from controlplane.xds.resources import Resource

WILDCARD: Final = "*"


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A response to be encoded: whole resources, names that are gone, and (state of the world) its version."""

    type_url: str
    nonce: str
    resources: tuple[Resource, ...]
    removed: tuple[str, ...] = ()
    version: str = ""


@dataclass(frozen=True, slots=True)
class InFlight:
    """A response that the client has not answered yet; of its names, `fresh` are new to it, `changed` or changed."""

    nonce: str
    resources: tuple[Resource, ...]
    names: frozenset[str]
    fresh: frozenset[str]
    changed: frozenset[str]
    sent_at: float


@dataclass(slots=True)
class Subscription:
    """The state of one type at one client; the subclasses say how their protocol subscribes and responds."""

    type_url: str
    rank: int = field(init=False)
    wildcard: bool = False
    names: Names = field(default_factory=Names)
    # Name → version as last sent. A rejected version stays here, so that it is not sent again until it changes.
    known: Versions = field(default_factory=Versions)
    adds: set[str] = field(default_factory=set[str])
    # To be sent even if the client is known to have them: it asked again.
    forced: set[str] = field(default_factory=set[str])
    # Parts of a rejected response, to be sent one by one until the culprit is alone.
    parts: list[list[str]] = field(default_factory=list[list[str]])
    # What the client has and the snapshot lacks → since when nothing at the client refers to it.
    removes: dict[str, float | None] = field(default_factory=dict[str, float | None])
    # Names of which the client may have, instead of what was sent last, what it had before.
    rejected: set[str] = field(default_factory=set[str])
    # Name → version of what it was rejected for.
    culprits: dict[str, str] = field(default_factory=dict[str, str])
    hold_until: float = 0.0
    answer_due: bool = False
    # What there is to send was kept from before a restart; until there is more, what it lacks stays open.
    kept: bool = False
    missing: set[str] = field(default_factory=set[str])
    unanswered: bool = False
    in_flight: InFlight | None = None
    last_nonce: str = ""

    def __post_init__(self) -> None:
        self.rank = RANK.get(self.type_url, UNRANKED)

    def subscribe(self, request: Request, have: Have | None, *, first: bool) -> None:
        """Applies what a request subscribes to; `have` is None before the first snapshot."""
        raise NotImplementedError

    def additions(self, have: Have, nonce: str, now: float) -> Outgoing | None:
        """Takes the next response that adds or changes; None where nothing is due after all."""
        raise NotImplementedError

    def removal(self, have: Have, due: list[str], nonce: str, now: float) -> Outgoing | None:
        """Takes the response that removes the names that are due; None where the protocol has none."""
        raise NotImplementedError

    @property
    def pending(self) -> bool:
        """Whether additions wait to be sent."""
        return self.answer_due or bool(self.adds or self.forced or self.parts)

    @property
    def idle(self) -> bool:
        """Whether the client has taken everything, so that it refers to nothing that the snapshot lacks."""
        return not (self.pending or self.in_flight or self.removes or self.rejected)

    def summary(self) -> TypeSummary:
        """Returns how far the client is with the type."""
        return TypeSummary(
            subscribed=len(self.names),
            wildcard=self.wildcard,
            known=len(self.known),
            pending=len(self.adds | self.forced) + len(self.removes),
            in_flight=self.in_flight is not None,
            rejected=tuple(sorted(self.culprits)),
        )

    def wants(self, name: str) -> bool:
        """Whether the client is subscribed to the name."""
        return self.wildcard or name in self.names

    def owes(self, name: str) -> bool:
        """Whether the name still has to be sent or acknowledged."""
        if name in self.adds or name in self.forced or (self.in_flight is not None and name in self.in_flight.names):
            return True
        return any(name in part for part in self.parts)

    def note(self, name: str, new: Resource | None) -> None:
        """Takes over what the snapshot now says of a name."""
        if not self.wants(name):
            return
        if self.kept and (new is None or name in self.known):
            self.adds.discard(name)
            return
        if new is None:
            self.adds.discard(name)
            if name in self.known:
                self.removes.setdefault(name, None)
                self.forced.discard(name)
            else:
                self.rejected.discard(name)
                self.culprits.pop(name, None)
            return
        self.removes.pop(name, None)
        if self.known.get(name) != new.version:
            self.adds.add(name)
        else:
            self.adds.discard(name)

    def refresh(self, have: Have) -> None:
        """Compares everything that the client wants with the snapshot."""
        for name in [*have, *(each for each in self.known if each not in have)] if self.wildcard else self.names:
            self.note(name, have.get(name))

    def share(self, have: Have) -> None:
        """Keeps nothing of its own of what is just as the snapshot has it; for one that is idle."""
        self.known.share(have)
        self.names.share(have)
        # Empty as they are, they hold the room that they once needed.
        for emptied in (self.adds, self.forced, self.rejected, self.removes):
            emptied.clear()

    def rebase(self, have: Have, changes: Set[str] | None = None) -> None:
        """Takes in that what is shared has another snapshot's mapping in its place (see `overlay`)."""
        self.known.rebase(have, changes)
        self.names.rebase(have, changes)

    def leave_open(self) -> None:
        """Leaves the answer to a later snapshot than the one that was kept."""
        self.unanswered = self.unanswered or self.answer_due
        self.answer_due = False

    def settle(self, have: Have) -> None:
        """Takes up what was left open: from now on the snapshot is all there is."""
        self.kept = False
        self.forced.update(filter(self.wants, self.missing))
        self.missing.clear()
        self.answer_due = self.answer_due or self.unanswered
        self.unanswered = False
        self.refresh(have)

    def mark_removable(self, now: float) -> None:
        """Records that from now on nothing at the client refers to the names that wait for removal."""
        for name, since in self.removes.items():
            if since is None:
                self.removes[name] = now

    def unmark(self) -> None:
        """Forgets when names became removable: what the client refers to is unknown again."""
        self.removes = dict.fromkeys(self.removes)

    def acknowledge(self) -> InFlight | None:
        """Takes the response in flight as accepted."""
        answered, self.in_flight = self.in_flight, None
        if answered is not None:
            self.rejected -= answered.names
            for name in answered.names & self.culprits.keys():
                del self.culprits[name]
        return answered

    def reject(self, named: frozenset[str], hold_until: float) -> tuple[InFlight, frozenset[str]] | None:
        """Takes the response in flight as rejected; returns it with the culprits, or None while they are unknown.

        `named` are the names that the client's message speaks of. What was sent along with the culprits may or may
        not have been applied, so it is sent again without them; if nobody is named, the halves are sent apart.
        """
        answered, self.in_flight = self.in_flight, None
        if answered is None:
            return None
        self.rejected |= answered.names
        culprits = named or self._blame(answered)
        if not culprits:
            return None
        self.hold_until = hold_until
        versions = {resource.name: resource.version for resource in answered.resources}
        self.culprits.update((name, versions[name]) for name in culprits)
        self._send_without(culprits, answered)
        return answered, culprits

    def review_culprits(self, have: Have, changes: Set[str], hold_until: float) -> None:
        """Lets later types go on once no culprit is left in the snapshot; holds them again if one comes back."""
        standing = [
            name
            for name, version in self.culprits.items()
            if (resource := have.get(name)) is not None and resource.version == version
        ]
        if not standing:
            self.hold_until = 0.0
        elif not changes.isdisjoint(standing):
            self.hold_until = hold_until

    def forget(self, names: Iterable[str]) -> None:
        """Drops all memory of names that the client no longer wants."""
        for name in names:
            self.known.discard(name)
            self.removes.pop(name, None)
            self.adds.discard(name)
            self.forced.discard(name)
            self.missing.discard(name)
            self.rejected.discard(name)
            self.culprits.pop(name, None)

    def _blame(self, answered: InFlight) -> frozenset[str]:
        """Returns the culprits of a rejection that names nobody; empty where the parts are now tried apart."""
        if len(answered.names) < 2:
            return answered.names
        self.parts += halves(sorted(answered.names))
        return frozenset()

    def _send_without(self, culprits: frozenset[str], answered: InFlight) -> None:
        if rest := sorted(answered.names - culprits):
            self.parts.append(rest)

    def _launch(self, out: Outgoing, now: float) -> Outgoing:
        names = frozenset(resource.name for resource in out.resources)
        fresh = frozenset(name for name in names if name not in self.known or name in self.culprits)
        changed = frozenset(each.name for each in out.resources if self.known.get(each.name) != each.version)
        self.in_flight = InFlight(out.nonce, out.resources, names, fresh, changed, now)
        self.last_nonce = out.nonce
        for resource in out.resources:
            self.known.set(resource.name, resource.version)
        self.answer_due = False
        return out


def speaks_of(message: str, name: str) -> bool:
    """Returns whether the name occurs in the message as a whole, not as a part of a longer one."""
    return name in message and re.search(rf"(?<![\w/-]){re.escape(name)}(?![\w/-])", message) is not None


def halves(names: list[str]) -> list[list[str]]:
    """Splits names in two; the first half comes last, where it is taken first."""
    middle = len(names) // 2
    return [names[middle:], names[:middle]]


class DeltaSubscription(Subscription):
    """Incremental xDS: responses hold what changed, and names what is gone."""

    __slots__ = ()

    def subscribe(self, request: Request, have: Have | None, *, first: bool) -> None:
        if first:
            self.answer_due = True
            self.wildcard = not request.subscribe
            if self.known.begin(request.initial_versions, have) and self._asks_for_all(request, have):
                return
        grown = self.wildcard if first else False
        for name in request.subscribe:
            if name == WILDCARD:
                grown = self.wildcard = self.answer_due = True
                continue
            self.names.add(name)
            if name in request.initial_versions:
                self.adds.add(name)
            else:
                self.forced.add(name)
        self._unsubscribe(request.unsubscribe)
        if first and not self.wildcard:
            self.forget([name for name in self.known if name not in self.names])
        if have is not None and (grown or first):
            self.refresh(have)

    def _asks_for_all(self, request: Request, have: Have | None) -> bool:
        """Whether a client that has all of the snapshot also asks for all of it: then there is nothing to compare."""
        names = request.subscribe
        if request.unsubscribe or WILDCARD in names:
            return False
        return not names or self.names.begin(dict.fromkeys(names, True), have)

    def _unsubscribe(self, names: Iterable[str]) -> None:
        for name in names:
            if name == WILDCARD:
                self.wildcard = False
                self.forget([known for known in (*self.known, *self.adds) if known not in self.names])
            elif name in self.names:
                self.names.discard(name)
                if self.wildcard:
                    self.forced.add(name)  # The wildcard still covers it, and the client may have dropped it.
                else:
                    self.forget((name,))

    def additions(self, have: Have, nonce: str, now: float) -> Outgoing | None:
        resources: list[Resource] = []
        missing: list[str] = []
        part = self._next_part()
        for name in part or sorted(self.adds | self.forced):
            resource = have.get(name)
            if resource is None:
                if name in self.forced:
                    missing.append(name)
            elif part or name in self.forced or self.known.get(name) != resource.version:
                resources.append(resource)
            self.forced.discard(name)
            self.adds.discard(name)
        if self.kept:
            self.missing.update(missing)
            missing = []
            if not resources:
                return self.leave_open()
        self.forget(missing)
        if not (resources or missing or self.answer_due):
            return None
        return self._launch(Outgoing(self.type_url, nonce, tuple(resources), tuple(missing)), now)

    def _next_part(self) -> list[str]:
        while self.parts:
            if wanted := [name for name in self.parts.pop() if self.wants(name)]:
                return wanted
        return []

    def removal(self, have: Have, due: list[str], nonce: str, now: float) -> Outgoing | None:
        self.forget(due)
        return self._launch(Outgoing(self.type_url, nonce, (), tuple(sorted(due))), now)
