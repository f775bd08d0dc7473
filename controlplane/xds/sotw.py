"""One type at one client of state-of-the-world xDS: every response holds all that the client is to have."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from controlplane.xds.order import FULL_STATE, WILDCARD_BY_DEFAULT
from controlplane.xds.requests import Request
from controlplane.xds.resources import Resource
from controlplane.xds.subscription import WILDCARD, Have, Outgoing, Subscription


@dataclass(slots=True)
class SotwSubscription(Subscription):
    """State of the world; what is to be removed later is carried along in the meantime, with the bytes it had."""

    kept: dict[str, Resource] = field(default_factory=dict[str, Resource])
    legacy_wildcard: bool = False
    # What the client says, in its first request, that it has; equal to what it would be sent, it needs no answer.
    claimed_version: str = ""

    def subscribe(self, request: Request, have: Have | None, *, first: bool) -> None:
        names = set(request.subscribe)
        if first:
            self.legacy_wildcard = not names and self.type_url in WILDCARD_BY_DEFAULT
            self.claimed_version = request.version
        self.legacy_wildcard = self.legacy_wildcard and not names
        wildcard = self.legacy_wildcard or WILDCARD in names
        names.discard(WILDCARD)
        grown = bool(names - self.names) or (wildcard and not self.wildcard)
        self.wildcard, self.names = wildcard, names
        self.answer_due = self.answer_due or grown
        if not wildcard:
            self.forget([name for name in (*self.known, *self.adds, *self.removes) if name not in names])
        if grown and have is not None:
            self.refresh(have)

    def keep(self, name: str, resource: Resource) -> None:
        self.kept[name] = resource

    def additions(self, have: Have, nonce: str, now: float) -> Outgoing | None:
        stale = any((resource := have.get(name)) and self.known.get(name) != resource.version for name in self.adds)
        if not (stale or self.forced or self.answer_due):
            self.adds.clear()
            return None
        self.adds.clear()
        self.forced.clear()
        return self._respond(have, nonce, now)

    def removal(self, have: Have, due: list[str], nonce: str, now: float) -> Outgoing | None:
        self.forget(due)
        return self._respond(have, nonce, now) if self.type_url in FULL_STATE else None

    def _respond(self, have: Have, nonce: str, now: float) -> Outgoing | None:
        resources = self._full_state(have)
        version = self._version(resources)
        claimed, self.claimed_version = self.claimed_version, ""
        if version == claimed:
            self.known.update((resource.name, resource.version) for resource in resources)
            self.answer_due = False
            return None
        return self._launch(Outgoing(self.type_url, nonce, resources, version=version), now)

    def _full_state(self, have: Have) -> tuple[Resource, ...]:
        self.kept = {name: resource for name, resource in self.kept.items() if name in self.removes}
        if self.wildcard:
            return (*have.values(), *self.kept.values())
        found = ((have.get(name) or self.kept.get(name)) for name in sorted(self.names))
        return tuple(resource for resource in found if resource is not None)

    def _version(self, resources: tuple[Resource, ...]) -> str:
        """Returns a hash of what is sent and of what was asked for: a name that does not exist is an answer too."""
        digest = hashlib.blake2b(digest_size=8)
        lines = {resource.name: resource.version for resource in resources}
        for name in sorted(lines.keys() | self.names):
            digest.update(f"{name}\0{lines.get(name, '-')}\n".encode())
        return digest.hexdigest()

    def _single_out(self, names: list[str]) -> bool:
        return False

    def _resend(self, names: object) -> None:
        """A response of this protocol is always whole: there is nothing to be sent apart."""
