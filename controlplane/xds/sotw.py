"""One type at one client of state-of-the-world xDS: every response holds all that the client is to have."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

from controlplane.xds.order import FULL_STATE, WILDCARD_BY_DEFAULT
from controlplane.xds.overlay import Have, Names, Versions
from controlplane.xds.requests import Request
from controlplane.xds.resources import Resource
from controlplane.xds.subscription import WILDCARD, InFlight, Outgoing, Subscription, halves


@dataclass(slots=True)
class SotwSubscription(Subscription):
    """State of the world; what is to be removed later is carried along in the meantime, as it was sent.

    A client that comes back says only which version it has, not of what: clusters that vanished while it was away are
    removed with the first response, before its routes are changed. Delta has no such gap.
    """

    sent: Have = field(default_factory=dict[str, Resource])
    accepted: Have = field(default_factory=dict[str, Resource])
    # Name → version that is not to be sent (yet): in its place goes what the client has accepted, or nothing.
    held_back: dict[str, str] = field(default_factory=dict[str, str])
    legacy_wildcard: bool = False
    # What the client says, in its first request, that it has; equal to what it would be sent, it needs no answer.
    claimed_version: str = ""

    def subscribe(self, request: Request, have: Have | None, *, first: bool) -> None:
        names = Names()
        names.begin(dict.fromkeys(request.subscribe, True), have)
        if first:
            self.legacy_wildcard = not names and self.type_url in WILDCARD_BY_DEFAULT
            self.claimed_version = request.version
        self.legacy_wildcard = self.legacy_wildcard and not names
        wildcard = self.legacy_wildcard or WILDCARD in names
        names.discard(WILDCARD)
        grown = any(name not in self.names for name in names) or (wildcard and not self.wildcard)
        self.wildcard, self.names = wildcard, names
        self.answer_due = self.answer_due or grown
        if not wildcard:
            self.forget([name for name in (*self.known, *self.adds, *self.accepted) if name not in names])
        if grown and have is not None:
            self.refresh(have)

    def note(self, name: str, new: Resource | None) -> None:
        Subscription.note(self, name, new)
        held = self.held_back.get(name)
        if held is not None and (new is None or new.version != held):
            # The version that was rejected is not wanted any more, and the client never took it.
            del self.held_back[name]
            self.rejected.discard(name)
            self.culprits.pop(name, None)

    def forget(self, names: Iterable[str]) -> None:
        names = list(names)
        Subscription.forget(self, names)
        if not self.accepted.keys().isdisjoint(names):
            # Lest it comes back, with what it refers to, in place of a bad successor.
            gone = frozenset(names)
            self.accepted = {name: each for name, each in self.accepted.items() if name not in gone}
        for name in names:
            self.held_back.pop(name, None)

    def share(self, have: Have) -> None:
        Subscription.share(self, have)
        if not self.held_back and self.known.share(have) and len(self.accepted) == len(have):
            self.sent = self.accepted = have

    def additions(self, have: Have, nonce: str, now: float) -> Outgoing | None:
        stale = any((resource := have.get(name)) and self.known.get(name) != resource.version for name in self.adds)
        trial = self.parts.pop() if self.parts else None
        self.adds.clear()
        if not (stale or self.forced or self.answer_due or trial is not None):
            return None
        self.forced.clear()
        if self.kept and self._is_open(have):
            return self.leave_open()
        for name in trial or ():
            self.held_back.pop(name, None)
        return self._respond(have, nonce, now)

    def acknowledge(self) -> InFlight | None:
        answered = Subscription.acknowledge(self)
        if answered is not None:
            self.accepted = {each.name: each for each in answered.resources if self.wants(each.name)}
            # A whole response leaves nothing uncertain: only what is held back is not as the snapshot has it.
            self.rejected = set(self.accepted.keys() & self.held_back.keys())
        return answered

    def removal(self, have: Have, due: list[str], nonce: str, now: float) -> Outgoing | None:
        self.forget(due)
        return self._respond(have, nonce, now) if self.type_url in FULL_STATE else None

    def _is_open(self, have: Have) -> bool:
        """Whether what was kept must not be sent: to who has something, or where absence would be taken for removal."""
        if self.claimed_version:
            return True
        if self.wildcard:
            return not have
        found = sum(name in have for name in self.names)
        return not found or (self.type_url in FULL_STATE and found != len(self.names))

    def _respond(self, have: Have, nonce: str, now: float) -> Outgoing | None:
        resources = self._full_state(have)
        version = self._version(resources)
        claimed, self.claimed_version = self.claimed_version, ""
        if version == claimed:
            self.known.update((resource.name, resource.version) for resource in resources)
            self.answer_due = False
            return None
        out = self._launch(Outgoing(self.type_url, nonce, resources, version=version), now)
        self.known = Versions()
        self.known.update((resource.name, resource.version) for resource in resources)
        self.sent = {resource.name: resource for resource in resources}
        return out

    def _full_state(self, have: Have) -> tuple[Resource, ...]:
        kept = {name: self.sent[name] for name in self.removes if name in self.sent}
        self.held_back = {
            name: version
            for name, version in self.held_back.items()
            if (resource := have.get(name) or kept.get(name)) is not None and resource.version == version
        }
        names = (*have, *kept) if self.wildcard else sorted(self.names)
        shown = (
            self.accepted.get(name) if name in self.held_back else have.get(name) or kept.get(name) for name in names
        )
        return tuple(resource for resource in shown if resource is not None)

    def _version(self, resources: tuple[Resource, ...]) -> str:
        """Returns a hash of what is sent and of what was asked for: a name that does not exist is an answer too."""
        digest = hashlib.blake2b(digest_size=8)
        lines = {resource.name: resource.version for resource in resources}
        for name in sorted({*lines, *self.names}):
            digest.update(f"{name}\0{lines.get(name, '-')}\n".encode())
        return digest.hexdigest()

    def _blame(self, answered: InFlight) -> frozenset[str]:
        """Like delta's, but a part is tried with the rest as it was accepted: every response is whole."""
        changed = self._unaccepted(answered)
        if len(changed) < 2:
            return frozenset(changed) or answered.names
        self.held_back.update(changed)
        self.parts += halves(sorted(changed))
        return frozenset()

    def _send_without(self, culprits: frozenset[str], answered: InFlight) -> None:
        # A client that rejects what it has accepted before is not asked again: it would go on for ever.
        if guilty := {name: version for name, version in self._unaccepted(answered).items() if name in culprits}:
            self.held_back.update(guilty)
            self.parts.append([])

    def _unaccepted(self, answered: InFlight) -> dict[str, str]:
        return {
            resource.name: resource.version
            for resource in answered.resources
            if (before := self.accepted.get(resource.name)) is None or before.version != resource.version
        }
