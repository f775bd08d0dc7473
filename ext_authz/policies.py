"""The policies that are in force, by id; one that is removed stays for a while, for Envoys that still name it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from google.protobuf.message import DecodeError

from dragoman.beside import beside
from dragoman.garbage import collector_paused
from dragoman.protos.dragoman.authz.v1 import policy_pb2 as pb
from ext_authz.jwt_keys import KeySets
from ext_authz.let_go import let_go
from ext_authz.policy import InvalidPolicy, Policy
from ext_authz.read_policy import JwksOf, read_policy

KEPT_S = 60.0


@dataclass(slots=True)
class Change:
    """What takes the place of what is in force: read already, and not in force yet."""

    policies: dict[str, Policy] = field(default_factory=dict[str, Policy])
    bodies: dict[str, bytes] = field(default_factory=dict[str, bytes])
    """What these were read from."""
    fetching: dict[str, pb.Policy] = field(default_factory=dict[str, pb.Policy])
    """Those of them with keys that the service fetches itself."""
    documents: dict[str, str | None] = field(default_factory=dict[str, str | None])
    """The JWKS that they were read with, by their URIs; None for one that had not come yet."""
    same: dict[str, bytes] = field(default_factory=dict[str, bytes])
    """Those that are in force with this very content: verdicts that were reached by them still hold."""
    invalid: tuple[InvalidPolicy, ...] = ()
    """Those that are not sound; what is in force under their ids stays."""

    def amend(self, names: Iterable[str], again: Change) -> None:
        """Puts what these were read as again in the place of what they were read as before."""
        for name in names:
            for part in (self.policies, self.bodies, self.fetching, self.same):
                part.pop(name, None)
        self.policies |= again.policies
        self.bodies |= again.bodies
        self.fetching |= again.fetching
        self.documents |= again.documents
        self.same |= again.same
        self.invalid += again.invalid


class Policies:
    """Takes changes as the xDS client and the config file bring them: read beside the requests, in force in an instant.

    Changes come one after the other. Signing keys that are fetched meanwhile, and the sweep, do not wait for them.
    """

    def __init__(
        self, *, jwks_of: JwksOf = lambda uri: None, kept_s: float = KEPT_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.by_id: dict[str, Policy] = {}
        self._jwks_of = jwks_of
        self._kept_s = kept_s
        self._clock = clock
        self._key_sets = KeySets()
        self._leaves_at: dict[str, float] = {}
        self._bodies: dict[str, bytes] = {}
        self._fetching: dict[str, pb.Policy] = {}
        """Those with keys that the service fetches itself, to be read anew when the keys change."""

    async def take(self, changed: Mapping[str, bytes], removed: Iterable[str]) -> tuple[InvalidPolicy, ...]:
        """Puts the sound ones in force and returns the others; an id that has a sound content keeps it."""
        change = await beside(self.prepared, changed)
        await self.put(change, removed)
        return change.invalid

    def prepared(self, changed: Mapping[str, bytes]) -> Change:
        """Reads what is not in force as it is; for a thread."""
        change, invalid = Change(), list[InvalidPolicy]()
        with collector_paused():
            for name, body in changed.items():
                faults = self._read_body(change, name, body)
                if faults:
                    invalid.append(InvalidPolicy(name, faults))
        change.invalid = tuple(invalid)
        return change

    def read_into(self, change: Change, message: pb.Policy, body: bytes) -> tuple[str, ...]:
        """Reads one more policy, for a thread; returns what is wrong with it."""
        if self._bodies.get(message.id) == body:
            change.same[message.id] = body
            return ()
        faults = self._read_message(change, message)
        if not faults:
            change.bodies[message.id] = body
        return faults

    async def put(self, change: Change, removed: Iterable[str]) -> None:
        """Puts in force what is prepared."""
        while outdated := self._outdated(change):
            change.amend(outdated, await beside(self.prepared, outdated))
        # From here on nothing is waited for: it is in force whole, or, where the task was cancelled, not at all.
        self.use(change, removed)

    def use(self, change: Change, removed: Iterable[str]) -> None:
        """Puts in force what was prepared just now."""
        gone = [policy for name in change.policies if (policy := self.by_id.get(name)) is not None]
        self.by_id.update(change.policies)
        self._bodies.update(change.bodies)
        for name in self._fetching.keys() & change.policies.keys():
            del self._fetching[name]
        self._fetching.update(change.fetching)
        for name in self._leaves_at.keys() & (change.policies.keys() | change.same.keys()):
            del self._leaves_at[name]
        leaves_at = self._clock() + self._kept_s
        for name in removed:
            if name in self.by_id:
                self._leaves_at.setdefault(name, leaves_at)
        let_go(gone)

    def sweep(self) -> bool:
        """Lets go of what was removed long enough ago; returns whether there was any."""
        now = self._clock()
        leaving = [name for name, leaves_at in self._leaves_at.items() if now >= leaves_at]
        gone = [self.by_id[name] for name in leaving]
        for name in leaving:
            del self._leaves_at[name], self._bodies[name], self.by_id[name]
            self._fetching.pop(name, None)
        let_go(gone)
        return bool(leaving)

    async def refetched(self, uri: str) -> None:
        """Reads the policies anew whose keys come from this URI; verdicts of the old keys are then never found."""
        while True:
            messages, change = await beside(self._reread, uri, self._fetching.copy())
            if not self._stale(change):
                break
        # One that a change has put in force meanwhile was read with these keys.
        read = [name for name in change.policies if self._fetching.get(name) is messages[name]]
        gone = [self.by_id[name] for name in read]
        self.by_id.update({name: change.policies[name] for name in read})
        let_go(gone)

    def uris(self) -> dict[str, float]:
        """Returns the JWKS to fetch, each with the shortest refresh interval asked for, in seconds."""
        wanted: dict[str, float] = {}
        for name in self._fetching:
            for provider in self.by_id[name].providers:
                if provider.jwks_uri:
                    wanted[provider.jwks_uri] = min(
                        provider.jwks_refresh_s, wanted.get(provider.jwks_uri, float("inf"))
                    )
        return wanted

    def use_store(self) -> bool:
        """Whether any policy accepts keys of the store."""
        return any(policy.api_keys is not None and policy.api_keys.use_store for policy in self.by_id.values())

    def _outdated(self, change: Change) -> dict[str, bytes]:
        """Returns what must be read again: what left meanwhile, and what was read with keys that others replaced."""
        left = {name: change.same[name] for name in change.same.keys() - self.by_id.keys()}
        stale = self._stale(change)
        fetching = change.fetching if stale else ()
        return left | {name: change.bodies[name] for name in fetching if not stale.isdisjoint(_uris(change, name))}

    def _stale(self, change: Change) -> set[str]:
        return {uri for uri, document in change.documents.items() if self._jwks_of(uri) != document}

    def _reread(self, uri: str, fetching: Mapping[str, pb.Policy]) -> tuple[dict[str, pb.Policy], Change]:
        change, messages = Change(), dict[str, pb.Policy]()
        with collector_paused():
            for name, message in fetching.items():
                if any(provider.remote_jwks.uri == uri for provider in message.jwt_providers):
                    messages[name] = message
                    self._read_message(change, message)
        return messages, change

    def _read_body(self, change: Change, name: str, body: bytes) -> tuple[str, ...]:
        if self._bodies.get(name) == body:
            change.same[name] = body
            return ()
        try:
            message = pb.Policy.FromString(body)
        except DecodeError as error:
            return (f"is no dragoman.authz.v1.Policy: {error}",)
        if message.id != name:
            return (f"id: {message.id!r} is not the resource's name",)
        return self.read_into(change, message, body)

    def _read_message(self, change: Change, message: pb.Policy) -> tuple[str, ...]:
        def jwks_of(uri: str) -> str | None:
            # What is said of a URI is said of it to all.
            return change.documents.setdefault(uri, self._jwks_of(uri))

        policy = read_policy(message, jwks_of=jwks_of, key_sets=self._key_sets)
        if isinstance(policy, InvalidPolicy):
            return policy.faults
        change.policies[policy.id] = policy
        if any(provider.jwks_uri for provider in policy.providers):
            change.fetching[policy.id] = message
        return ()


def _uris(change: Change, name: str) -> set[str]:
    return {provider.jwks_uri for provider in change.policies[name].providers}
