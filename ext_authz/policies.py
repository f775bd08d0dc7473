"""The policies that are in force, by id; one that is removed stays for a while, for Envoys that still name it."""

import time
from collections.abc import Callable, Iterable, Mapping

from google.protobuf.message import DecodeError

from dragoman.protos.dragoman.authz.v1 import policy_pb2 as pb
from ext_authz.policy import InvalidPolicy, Policy
from ext_authz.read_policy import JwksOf, read_policy

KEPT_S = 60.0


class Policies:
    """Takes updates as the xDS client and the config file bring them."""

    def __init__(
        self, *, jwks_of: JwksOf = lambda uri: None, kept_s: float = KEPT_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.by_id: dict[str, Policy] = {}
        self._jwks_of = jwks_of
        self._kept_s = kept_s
        self._clock = clock
        self._leaves_at: dict[str, float] = {}
        self._bodies: dict[str, bytes] = {}
        self._fetching: dict[str, pb.Policy] = {}
        """Those with keys that the service fetches itself, to be read anew when the keys change."""

    def update(self, changed: Mapping[str, bytes], removed: Iterable[str]) -> tuple[InvalidPolicy, ...]:
        """Puts the sound ones in force and returns the others; an id that has a sound content keeps it."""
        invalid: list[InvalidPolicy] = []
        for name, body in changed.items():
            if self._bodies.get(name) == body:
                # Verdicts that were reached by it still hold.
                self._leaves_at.pop(name, None)
                continue
            read = self._read(name, body)
            if isinstance(read, InvalidPolicy):
                invalid.append(read)
            else:
                self._put(*read)
                self._bodies[name] = body
        for name in removed:
            if name in self.by_id:
                self._leaves_at.setdefault(name, self._clock() + self._kept_s)
        return tuple(invalid)

    def replace(self, wanted: Mapping[str, bytes]) -> tuple[InvalidPolicy, ...]:
        """Puts exactly these in force, as a config file names them; others leave after the usual while."""
        return self.update(wanted, set(self.by_id) - wanted.keys())

    def sweep(self) -> bool:
        """Lets go of what was removed long enough ago; returns whether there was any."""
        now = self._clock()
        gone = [name for name, leaves_at in self._leaves_at.items() if now >= leaves_at]
        for name in gone:
            del self._leaves_at[name], self._bodies[name], self.by_id[name]
            self._fetching.pop(name, None)
        return bool(gone)

    def refetched(self, uri: str) -> None:
        """Reads the policies anew whose keys come from this URI; verdicts of the old keys are then never found."""
        for message in tuple(self._fetching.values()):
            if any(provider.remote_jwks.uri == uri for provider in message.jwt_providers):
                policy = read_policy(message, jwks_of=self._jwks_of)
                if isinstance(policy, Policy):
                    self.by_id[policy.id] = policy

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

    def _read(self, name: str, body: bytes) -> tuple[pb.Policy, Policy] | InvalidPolicy:
        try:
            message = pb.Policy.FromString(body)
        except DecodeError as error:
            return InvalidPolicy(name, (f"is no dragoman.authz.v1.Policy: {error}",))
        if message.id != name:
            return InvalidPolicy(name, (f"id: {message.id!r} is not the resource's name",))
        policy = read_policy(message, jwks_of=self._jwks_of)
        return policy if isinstance(policy, InvalidPolicy) else (message, policy)

    def _put(self, message: pb.Policy, policy: Policy) -> None:
        self.by_id[policy.id] = policy
        self._leaves_at.pop(policy.id, None)
        self._fetching.pop(policy.id, None)
        if any(provider.jwks_uri for provider in policy.providers):
            self._fetching[policy.id] = message
