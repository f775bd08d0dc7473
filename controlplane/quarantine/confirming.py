"""When what is in force is confirmed: its Envoys have answered everything, and rejected nothing for a moment."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from controlplane.api.meta import ObjectKey, Resource
from controlplane.engine import Step
from controlplane.quarantine.unconfirmed import Unconfirmed
from controlplane.xds.census import Census
from controlplane.xds.events import Ack, Nack
from controlplane.xds.resources import LISTENER, ROUTE, Snapshot

Later = Callable[[float, Callable[[], None]], object]
"""Calls after some seconds, when nobody else uses the engine."""


class Envoys(Protocol):
    """What is needed of the snapshot cache."""

    def published(self, owner: str) -> Snapshot | None: ...
    def settled(self, owner: str | None = None) -> bool: ...
    def census(self, owner: str) -> Census: ...


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a version is watched before it is confirmed."""

    settle_s: float = 0.5
    """For this long after the last answer nothing may be rejected."""
    confirm_s: float = 30.0
    """After this long it is confirmed although not all Envoys have answered, if none has rejected it."""


class Confirming:
    """`hindered` says whether something is being searched for; `doubted` names what is made into something rejected.

    `on_settled` hears what the Envoys of an owner have, `on_confirmed` which objects are confirmed.
    """

    def __init__(
        self,
        envoys: Envoys,
        unconfirmed: Unconfirmed,
        *,
        accepted: Callable[[ObjectKey], Resource | None],
        hindered: Callable[[], bool],
        doubted: Callable[[str], Collection[str]],
        on_settled: Callable[[str, Snapshot | None], None],
        on_confirmed: Callable[[Collection[ObjectKey]], None],
        clock: Callable[[], float],
        later: Later,
        patience: Patience,
    ) -> None:
        self._envoys = envoys
        self._unconfirmed = unconfirmed
        self._accepted = accepted
        self._hindered = hindered
        self._doubted = doubted
        self._on_settled = on_settled
        self._on_confirmed = on_confirmed
        self._clock = clock
        self._later = later
        self._patience = patience
        self._settling: dict[str, tuple[float, Snapshot | None]] = {}
        # Owner → (type, name) of listeners and routes that its Envoys have acknowledged → when they were sent.
        self._acked: dict[str, dict[tuple[str, str], float]] = {}

    def took(self, step: Step, held: Collection[ObjectKey], *, known: bool) -> None:
        """Takes in a step, but for objects that are `held` back; `known`: whether what was before is known from it."""
        superseded = {key: before for key, before in step.superseded.items() if key not in held}
        now = self._clock()
        self._on_confirmed(self._unconfirmed.took(superseded, step.snapshots, now, current=self._accepted, known=known))
        for owner in step.snapshots:
            self.settled(owner)

    def acked(self, ack: Ack) -> None:
        """Takes in an acknowledgement."""
        if ack.type_url == ROUTE or ack.type_url == LISTENER:
            sent_at = self._clock() - ack.latency_s
            self._acked.setdefault(ack.owner, {}).update({(ack.type_url, name): sent_at for name in ack.names})

    def acked_at(self, nack: Nack) -> float:
        """Returns until when what was sent of what is rejected now is known to have been acknowledged."""
        acked = self._acked.get(nack.owner, {})
        return min((acked.get((nack.type_url, name), 0.0) for name in nack.names), default=0.0)

    def gone(self, owner: str) -> None:
        """Takes in that an owner has no Envoy any more."""
        self._acked.pop(owner, None)

    def settled(self, owner: str) -> None:
        """Takes in that an Envoy of an owner has answered, or is to be sent something."""
        if self._hindered() or not self._answered(owner):
            return
        snapshot = self._envoys.published(owner)
        if self._all_asked(owner, snapshot):
            self._confirm_until(owner, self._clock(), snapshot)
        elif owner not in self._settling:
            # An Envoy that starts has answered everything before it asks for what it has just learned of.
            self._settling[owner] = (self._clock(), snapshot)
            self._later(self._patience.settle_s, partial(self._has_settled, owner))

    def _all_asked(self, owner: str, snapshot: Snapshot | None) -> bool:
        asked = self._acked.get(owner)
        if asked is None or snapshot is None:
            return False
        return all((type_url, name) in asked for type_url in (LISTENER, ROUTE) for name in snapshot.of_type(type_url))

    def grow_old(self) -> None:
        """Confirms what has been in force for long; for every few seconds."""
        for owner in self._unconfirmed.owners():
            if self.is_connected(owner):
                self._confirm(owner, self._doubted(owner), self._clock() - self._patience.confirm_s)

    def is_connected(self, owner: str) -> bool:
        """Says whether an owner has any Envoy."""
        return self._envoys.census(owner).clients > 0

    def _has_settled(self, owner: str) -> None:
        since, snapshot = self._settling.pop(owner)
        if self._hindered():
            return
        self._confirm_until(owner, since, snapshot)
        if any(self._unconfirmed.waiting[key].since > since for key in self._unconfirmed.of_owner(owner)):
            self.settled(owner)

    def _confirm_until(self, owner: str, moment: float, snapshot: Snapshot | None) -> None:
        doubted = self._doubted(owner)
        if not doubted:
            self._on_settled(owner, snapshot)
        self._confirm(owner, doubted, moment)

    def _answered(self, owner: str) -> bool:
        return self._envoys.settled(owner) and self.is_connected(owner)

    def _confirm(self, owner: str, doubted: Collection[str], until: float) -> None:
        self._on_confirmed(
            self._unconfirmed.confirm(
                owner, connected=self.is_connected, doubted=lambda key: str(key) in doubted, until=until
            )
        )
