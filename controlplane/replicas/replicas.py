"""The replicas of the control plane as one of them sees them: whom it follows, or who follows it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from itertools import chain
from typing import Final

from controlplane.engine import Step
from controlplane.replicas.following import Following, Leader, Trusted
from controlplane.replicas.leading import Leading
from controlplane.replicas.messages import Hello, KeySets, Message, StandIns, Workers
from controlplane.replicas.presence import Member, Presence
from controlplane.replicas.report import Report
from controlplane.replicas.standins import Agreement
from controlplane.replicas.telling import Telling
from controlplane.replicas.versions import Versions
from controlplane.server import ControlPlane
from controlplane.xds.census import Census
from controlplane.xds.events import ClientSummary, Nack, StreamEvent
from controlplane.xds.identity import SERVICE_OWNERS, Principal
from controlplane.xds.server import Context, End

_log = logging.getLogger(__name__)

GATHER_S: Final = 4.0
"""For how long who has come to lead waits for what the other replicas know."""
PATIENCE_S: Final = 3.0
"""For how long a replica that starts waits for what the leader has decided, if it needs that."""
ALONE_S: Final = 10.0
"""After how long without a leader a replica fetches key sets itself."""
_POLICIES_WITHIN_S: Final = 1.0
_LOOK_AGAIN_S: Final = 0.25

Others = Callable[[], Awaitable[frozenset[str] | None]]
"""Returns the addresses of the other replicas that there should be; None where that cannot be told."""
Metadata = Callable[[], tuple[tuple[str, str], ...]]
"""Returns what a stream to the leader shows; raises OSError or ValueError."""


class Replicas:
    """`run` until cancelled; everything else is called on the event loop as it happens.

    Without `metadata` this replica has nothing to show to the one that leads, and nothing is shared.
    """

    def __init__(
        self,
        plane: ControlPlane,
        election: Leader,
        *,
        identity: str,
        address: str,
        reached_at: str,
        metadata: Metadata | None,
        others: Others,
        on_change: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`address` is this host's, `reached_at` (HOST:PORT) where others find it when it leads.

        `on_change` hears the owner of which clients, or what they have rejected, may be others than before."""
        self._plane = plane
        self._hello = Hello(replica=identity, address=address)
        self._clock = clock
        self._others = others
        self._agreement = Agreement(plane.engine, plane.quarantine)
        self._versions = Versions(plane.cache.published, clock)
        self._told_of = on_change
        self._workers: Mapping[str, str | None] = {}
        self._presence = Presence(
            own=plane.cache.clients,
            own_census=plane.cache.census,
            versions=self._versions,
            on_change=self._told,
            later=_later,
            clock=clock,
        )
        self._leading = Leading(
            self._presence, identity=identity, telling=self._tell_follower, offered=self._remembered
        )
        self._following: Following | None = None
        if metadata is not None:
            self._following = Following(
                election,
                identity=identity,
                address=reached_at,
                trusted=lambda: self._trusted,
                metadata=metadata,
                telling=self._tell_leader,
                on_message=self._heard,
                on_whole=self._heard_all,
                on_lost=self._lost,
                on_nobody=self._found_nobody,
            )
        self._trusted = Trusted("", "")
        self._may_begin = metadata is None
        self._leads = False
        self._led_at = 0.0
        self._expected: frozenset[str] | None = None
        self._alone: asyncio.TimerHandle | None = None
        self._asking: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Follows whoever leads."""
        if self._following is None:
            self._plane.key_sets.fetch(True)
            return
        impatience = asyncio.get_running_loop().call_later(PATIENCE_S, self._begin_alone)
        try:
            await self._following.run()
        finally:
            impatience.cancel()
            self._stop_timers()

    async def attend(self, context: Context, principal: Principal) -> End | None:
        """Serves the stream of a replica that follows."""
        return await self._leading.attend(context, principal)

    # What is known

    def clients(self, owner: str) -> list[ClientSummary]:
        """Returns how far the clients of an owner are, whichever replica they are connected to."""
        return self._presence.clients(owner)

    def census(self, owner: str) -> Census:
        """Returns how far the clients of an owner are, all together."""
        return self._presence.census(owner)

    def nacks(self, owner: str) -> Iterable[Nack]:
        """Returns what clients of an owner have rejected, whichever replica they are connected to."""
        own = (nack for nack in self._plane.nacks.values() if nack.owner == owner)
        return chain(own, self._presence.nacks(owner))

    def withheld_s(self, owner: str) -> float:
        """Returns for how long nothing is to be said of an owner's clients, for not all of them are known yet.

        Who has just come to lead knows its own clients alone, and those of the one before may be on their way.
        """
        left_s = self._led_at + GATHER_S - self._clock()
        if not self._leads or left_s <= 0:
            return 0.0
        if self._everybody_here() and self._presence.census(owner).clients:
            return 0.0
        return min(left_s, _LOOK_AGAIN_S)

    @property
    def members(self) -> Iterable[Member]:
        """The replicas that follow this one."""
        return self._presence.members

    @property
    def follows(self) -> bool:
        """Whether this one follows another, and has been told everything."""
        return self._following is not None and self._following.whole

    def may_begin(self) -> bool:
        """Says whether what stands in for refused objects is known, as far as another replica can tell."""
        if self._may_begin:
            return True
        engine = self._plane.engine
        entries = self._plane.quarantine.entries
        accepted = engine.pipeline.objects.accepted
        return all(key in entries or accepted.peek(key) is not None for key in engine.refused)

    def _everybody_here(self) -> bool:
        here = {member.address for member in self._presence.members if member.whole}
        return self._expected is not None and self._expected <= here

    def policies_settled(self) -> bool:
        """Says whether the workers that other replicas serve have the policies that are published here.

        For a while after these have changed: where replicas of two versions differ, there is nothing to wait for.
        """
        return all(
            self.workers_elsewhere(owner) in ("", self._versions.of(owner))
            for owner in SERVICE_OWNERS
            if self._versions.age_s(owner) < _POLICIES_WITHIN_S
        )

    def workers_elsewhere(self, owner: str) -> str | None:
        """Returns which policies the workers have that other replicas serve: as `Workers` says."""
        if self._leads:
            return self._presence.workers_have(owner, own=False)
        return self._workers.get(owner, "")

    # What happens

    def trust(self, authorities: str, server_name: str) -> None:
        """Takes in how the replica that leads is known, for streams from then on."""
        self._trusted = Trusted(authorities, server_name)

    def stepped(self, step: Step) -> None:
        """Takes in what a step has changed."""
        self._versions.published(step.snapshots)
        self._leading.each(lambda telling: telling.touch_objects(step.changed))
        if not SERVICE_OWNERS.isdisjoint(step.snapshots):
            self._leading.each(Telling.touch_workers)
        if (telling := self._to_leader) is not None:
            telling.touch_objects(step.changed)
            telling.touch_owners(step.snapshots)

    def moved(self, owner: str) -> None:
        """Takes in that something else is to be said of an owner's clients, taken together."""
        if (telling := self._to_leader) is not None:
            telling.touch_owners((owner,))
        if owner in SERVICE_OWNERS:
            self._leading.each(Telling.touch_workers)

    def came_or_went(self, event: StreamEvent) -> None:
        """Takes in that a client has come or gone."""
        if event.last is not None:
            self._presence.went(event.last)
        else:
            self._presence.came(event)
        self.moved(event.owner)

    def fetched(self, uri: str) -> None:
        """Takes in that a key set is new."""
        self._leading.each(lambda telling: telling.touch_key_set(uri))

    def lead(self, leads: bool) -> None:
        """Leads from now on, or does no more."""
        self._leads = leads
        self._presence.clear()
        self._leading.lead(leads)
        self._stop_timers()
        if leads:
            self._led_at, self._expected = self._clock(), None
            self._agreement.forget_decisions()
            self._plane.key_sets.fetch(True)
            self._asking = asyncio.create_task(self._ask(), name="other replicas")
        else:
            self._agreement.forget_offers()
            self._lost()

    @property
    def _to_leader(self) -> Telling | None:
        return self._following.current if self._following is not None else None

    async def _ask(self) -> None:
        self._expected = await self._others()

    def _told(self, owner: str) -> None:
        if owner in SERVICE_OWNERS:
            self._plane.cache.policies_moved()
            self._leading.each(Telling.touch_workers)
        self._told_of(owner)

    def _tell_follower(self, follower: Callable[[], Member | None]) -> Telling:
        def workers() -> Mapping[str, str | None]:
            return {owner: self._presence.workers_have(owner, but=follower()) for owner in SERVICE_OWNERS}

        return Telling(self._hello, self._agreement, key_sets=lambda: self._plane.key_sets.known, workers=workers)

    def _tell_leader(self) -> Telling:
        report = Report(self._plane.cache.feed(), self._plane.nacks.values, self._versions)
        return Telling(self._hello, self._agreement, report=report)

    def _remembered(self, message: StandIns) -> None:
        self._plane.when_free(lambda: self._publish(self._agreement.offered(message)))

    # Following

    def _heard(self, message: Message) -> None:
        if isinstance(message, StandIns):
            self._plane.when_free(lambda: self._publish(self._agreement.decided(message)))
        elif isinstance(message, KeySets):
            self._plane.key_sets.take(message.documents)
        elif isinstance(message, Workers):
            self._workers = message.have
            self._plane.cache.policies_moved()

    def _heard_all(self) -> None:
        if self._alone is not None:
            self._alone.cancel()
            self._alone = None
        self._plane.key_sets.fetch(False)
        self._begin()

    def _lost(self) -> None:
        self._workers = {}
        self._agreement.forget_decisions()
        if self._following is not None and self._alone is None and not self._leads:
            fetch = self._plane.key_sets.fetch
            self._alone = asyncio.get_running_loop().call_later(ALONE_S, fetch, True)

    def _found_nobody(self) -> None:
        if not self._may_begin:
            self._begin_alone()

    def _begin_alone(self) -> None:
        if not self._may_begin:
            self._plane.key_sets.fetch(True)
            self._begin()

    def _begin(self) -> None:
        if not self._may_begin:
            self._may_begin = True
            self._plane.reconsider()

    def _publish(self, step: Step | None) -> None:
        if step is not None:
            self._plane.reconsider(step)

    def _stop_timers(self) -> None:
        if self._alone is not None:
            self._alone.cancel()
            self._alone = None
        if self._asking is not None:
            self._asking.cancel()
            self._asking = None


def _later(delay_s: float, call: Callable[[], None]) -> object:
    return asyncio.get_running_loop().call_later(delay_s, call)
