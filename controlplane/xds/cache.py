"""The snapshots of all owners, and the clients that are to have them; single-threaded, it lives on the event loop."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TypeVar
from weakref import WeakSet

from controlplane.xds.census import Census
from controlplane.xds.client import Client
from controlplane.xds.diff import diff
from controlplane.xds.events import Ack, ClientSummary, Deliveries, Nack, Protocol, StreamEvent, Violation
from controlplane.xds.feed import Feed
from controlplane.xds.identity import SERVICE_OWNERS
from controlplane.xds.metrics import XdsMetrics
from controlplane.xds.order import Timing
from controlplane.xds.requests import Request
from controlplane.xds.resources import Snapshot
from controlplane.xds.sessions import Observers, Owner, Session, Waiter
from controlplane.xds.subscription import Outgoing
from controlplane.xds.workers import FirstWorkers

__all__ = ["Observers", "Session", "SnapshotCache"]

_log = logging.getLogger(__name__)

_Event = TypeVar("_Event")


class SnapshotCache:
    """Owner → snapshot, pushed to every client of the owner as far as the order of types lets each go."""

    def __init__(
        self,
        *,
        observers: Observers | None = None,
        metrics: XdsMetrics | None = None,
        timing: Timing | None = None,
        clock: Callable[[], float] = time.monotonic,
        max_names_per_client: int = 100_000,
        policies_settled_elsewhere: Callable[[], bool] = lambda: True,
        deliveries: Deliveries | None = None,
    ) -> None:
        """`policies_settled_elsewhere` says whether the workers that other replicas serve have their policies."""
        self.metrics = metrics or XdsMetrics()
        self._observers = observers or Observers()
        self._timing = timing or Timing()
        self._clock = clock
        self._max_names = max_names_per_client
        self._owners: dict[str, Owner] = {}
        self._complete = False
        self._waiters: list[Waiter] = []
        self._unsettled_owners: set[str] = set()
        # Those whose routes wait for the services' policies.
        self._holding: set[Session] = set()
        self._feeds: WeakSet[Feed] = WeakSet()
        self._settled_elsewhere = policies_settled_elsewhere
        self._first_workers = FirstWorkers()
        self._deliveries = deliveries or Deliveries()
        self._numbers = itertools.count(1)

    def publish(self, snapshots: Mapping[str, Snapshot]) -> None:
        """Makes these the desired snapshots of the owners named; others are left as they are.

        The services' own come first: an Envoy that is sent routes is to find that its policies are under way.
        """
        for name in sorted(snapshots, key=lambda name: name not in SERVICE_OWNERS):
            owner = self._owner(name)
            owner.named = True
            self._serve(owner, snapshots[name])

    def complete(self) -> None:
        """Says that every owner that exists has been published: from now on an unknown one is served nothing."""
        if self._complete:
            return
        self._complete = True
        for owner in list(self._owners.values()):
            if owner.served is None:
                self._serve(owner, Snapshot())

    def remove(self, owner: str) -> None:
        """Takes the owner's snapshot away: its clients, if any are left, are told to drop everything."""
        if owner in self._owners:
            self._owners[owner].named = False
            self._serve(self._owners[owner], Snapshot())
            self._discard_if_unused(owner)

    def prune(self) -> None:
        """Drops the lingering policies whose time is over; to be called every few seconds."""
        now = self._clock()
        for owner in self._owners.values():
            if owner.lingering.expired(now):
                self._serve(owner, owner.published)

    def adopt(
        self, observers: Observers, deliveries: Deliveries, policies_settled_elsewhere: Callable[[], bool]
    ) -> None:
        """Has these be told and asked from now on; of the clients that are there, they are told at once."""
        self._observers = observers
        self._deliveries = deliveries
        self._settled_elsewhere = policies_settled_elsewhere
        for name, owner in list(self._owners.items()):
            for session in list(owner.sessions):
                client = session.client
                deliveries.attached(name, session.number, client.node_id)
                came = StreamEvent(name, client.node_id, client.protocol, open=True)
                self._tell(observers.on_stream, came)

    def kept(self) -> frozenset[str]:
        """Returns the owners of which nothing has been published but what was kept from before a restart."""
        return frozenset(name for name, owner in self._owners.items() if owner.served is not None and owner.served.kept)

    def snapshot(self, owner: str) -> Snapshot | None:
        """Returns what the owner's clients are sent; None before its first snapshot."""
        known = self._owners.get(owner)
        return known.served if known is not None else None

    def published(self, owner: str) -> Snapshot | None:
        """Returns what was last published for an owner: without what lingers."""
        known = self._owners.get(owner)
        return known.published if known is not None and known.named else None

    def standing(self) -> dict[str, Snapshot]:
        """Returns what was last published, by owner: without what lingers, and without what was only kept."""
        owners = ((name, owner.published) for name, owner in self._owners.items() if owner.named)
        return {name: snapshot for name, snapshot in owners if not snapshot.kept}

    def await_workers(self, services: Iterable[str]) -> None:
        """Lets routes wait, for a while, until a worker of each of these services has come that has policies."""
        self._first_workers = FirstWorkers(set(services), self._clock() + self._timing.workers_wait_s)

    def policies_moved(self) -> None:
        """Takes in that `policies_settled_elsewhere` may have come true."""
        if self._holding and self._policies_settled():
            for session in list(self._holding):
                session.wake()

    def clients(self, owner: str | None = None) -> tuple[ClientSummary, ...]:
        """Returns how far each connected client (of an owner) is."""
        now = self._clock()
        owners = self._owners.values() if owner is None else filter(None, (self._owners.get(owner),))
        return tuple(_summary(session, now) for each in owners for session in each.sessions)

    def census(self, owner: str) -> Census:
        """Returns how far the owner's clients are, all together."""
        known = self._owners.get(owner)
        return known.tally.census(self._clock()) if known is not None else Census()

    def feed(self) -> Feed:
        """Returns what gathers the clients that move, for as long as somebody holds it; at first all of them."""
        feed = Feed()
        for owner in self._owners.values():
            for session in owner.sessions:
                feed.note(owner.name, session.number, self._look(session))
        self._feeds.add(feed)
        return feed

    def settled(self, owner: str | None = None) -> bool:
        """Whether every connected client of the owner (None: of all) has answered everything it subscribed to.

        A rejection is an answer too; it is told to the observers, and `clients()` shows what is rejected.
        """
        return not self._unsettled_owners if owner is None else owner not in self._unsettled_owners

    async def wait_settled(self, owner: str | None = None, *, timeout_s: float | None = None) -> bool:
        """Waits until `settled`; returns False if that takes longer than the timeout."""
        if self.settled(owner):
            return True
        waiter = Waiter(owner, asyncio.get_running_loop().create_future())
        self._waiters.append(waiter)
        try:
            await asyncio.wait_for(waiter.future, timeout_s)
        except TimeoutError:
            return False
        finally:
            self._waiters.remove(waiter)
        return True

    # What the server calls

    def attach(self, owner: str, node_id: str, protocol: Protocol, wake: Callable[[], None]) -> Session:
        """Takes in a client; `wake` is called whenever `next_response` may have something for it."""
        client = Client(
            owner=owner,
            node_id=node_id,
            protocol=protocol,
            timing=self._timing,
            policies_settled=self._policies_settled,
            workers_due=self._workers_due,
            on_overdue=self._overdue,
            max_names=self._max_names,
        )
        session = Session(client, wake, next(self._numbers))
        state = self._owner(owner)
        state.sessions.add(session)
        if state.served is None and self._complete:
            state.served = Snapshot()
        if state.served is not None:
            client.offer(state.served, {}, self._clock())
        self._deliveries.attached(owner, session.number, node_id)
        self.metrics.streams.labels(protocol).inc()
        self._tell(self._observers.on_stream, StreamEvent(owner, node_id, protocol, open=True))
        self._update(session)
        return session

    def detach(self, session: Session) -> None:
        """Forgets a client whose stream has ended."""
        client = session.client
        last = _summary(session, self._clock())
        state = self._owners[client.owner]
        state.sessions.discard(session)
        self._holding.discard(session)
        moved = state.tally.drop(session)
        for feed in self._feeds:
            feed.note(client.owner, session.number, None)
        self._deliveries.detached(client.owner, session.number)
        self._discard_if_unused(client.owner)
        self.metrics.streams.labels(client.protocol).dec()
        gone = StreamEvent(client.owner, client.node_id, client.protocol, open=False, last=last)
        self._tell(self._observers.on_stream, gone)
        self._answered(state, moved)

    def handle(self, session: Session, request: Request) -> Violation | None:
        """Takes a client's request; returns what ends its stream, if the request does."""
        outcome = session.client.handle(request, self._clock())
        if isinstance(outcome, Violation):
            return outcome
        owner, number = session.client.owner, session.number
        self._first_workers.came(owner)
        if request.error is not None:
            self.metrics.nacked(request.type_url)
            self._deliveries.refused(owner, number, request.type_url)
        if isinstance(outcome, Ack):
            self._deliveries.acked(owner, number, outcome.type_url)
            self.metrics.acked(outcome.type_url, outcome.latency_s)
            self._tell(self._observers.on_ack, outcome)
        elif isinstance(outcome, Nack):
            self._deliveries.rejected(owner, number, outcome)
            self._tell(self._observers.on_nack, outcome)
        self._update(session)
        session.wake()
        return None

    def next_response(self, session: Session) -> Outgoing | None:
        """Takes the client's next response; where None, `session.client.wake_at` says when to ask again."""
        client = session.client
        out = client.next_response(self._clock())
        if out is not None and client.is_current:
            self._deliveries.pushed(client.owner, session.number, out.type_url)
        self._update(session)
        return out

    def until(self, moment: float) -> float:
        """Returns the seconds that are left until a moment such as `wake_at`."""
        return max(0.0, moment - self._clock())

    # Within

    def _look(self, session: Session) -> Callable[[], ClientSummary]:
        return lambda: _summary(session, self._clock())

    def _owner(self, name: str) -> Owner:
        return self._owners.setdefault(name, Owner(name))

    def _discard_if_unused(self, name: str) -> None:
        state = self._owners[name]
        if not (state.named or state.sessions):
            del self._owners[name]

    def _serve(self, owner: Owner, snapshot: Snapshot) -> None:
        now = self._clock()
        previous = owner.served or Snapshot()
        served = owner.lingering.extend(snapshot, owner.published, linger_s=self._timing.linger_s, now=now)
        first = owner.served is None
        changes = diff(previous, served)
        owner.published, owner.served = snapshot, served
        if not (changes or first or previous.kept):
            return
        for session in owner.sessions:
            session.client.offer(served, changes, now)
            self._update(session)
            session.wake()
        self._deliveries.offered(owner.name, served, changes, [each.number for each in owner.tally.unsettled])

    def _update(self, session: Session) -> None:
        client = session.client
        (self._holding.add if client.holds_routes else self._holding.discard)(session)
        standing = client.standing
        if standing == session.standing:
            return
        was_settled, session.standing = session.settled, standing
        owner = self._owners[client.owner]
        if was_settled and not standing.settled:
            session.unsettled_since = self._clock()
        moved = owner.tally.note(session, standing, session.unsettled_since)
        for feed in self._feeds:
            feed.note(client.owner, session.number, self._look(session))
        if standing.settled and not was_settled:
            self._deliveries.settled(client.owner, session.number)
            client.lagging = False
            self._answered(owner, moved)
        else:
            self._take_in(owner, moved)

    def _answered(self, owner: Owner, moved: bool) -> None:
        """Takes in that a client of the owner has answered everything, or is gone."""
        self._take_in(owner, moved)
        if owner.name in SERVICE_OWNERS:
            self.policies_moved()

    def _take_in(self, owner: Owner, moved: bool) -> None:
        """Tells, where it has, that the standing of the owner's clients has changed."""
        if not moved:
            return
        if owner.tally.unsettled:
            self._unsettled_owners.add(owner.name)
        else:
            self._unsettled_owners.discard(owner.name)
        self._tell(self._observers.on_settled, owner.name)
        for waiter in self._waiters:
            if not waiter.future.done() and self.settled(waiter.owner):
                waiter.future.set_result(None)

    def _policies_settled(self) -> bool:
        here = all(session.client.lagging for session in self._unsettled_services())
        return here and self._workers_due() <= self._clock() and self._settled_elsewhere()

    def _workers_due(self) -> float:
        return self._first_workers.due(
            name for name in SERVICE_OWNERS if (served := self.snapshot(name)) and served.resources
        )

    def _unsettled_services(self) -> Iterable[Session]:
        for owner in SERVICE_OWNERS:
            if owner in self._owners:
                yield from self._owners[owner].tally.unsettled

    def _overdue(self, awaited: str) -> None:
        self.metrics.overdue.labels(awaited).inc()
        if awaited == "policy":
            late = self._clock() - self._timing.policy_wait_s
            for session in self._unsettled_services():
                # One worker that hangs must not slow down every push: it is waited for again once it has answered.
                session.client.lagging = session.client.lagging or session.unsettled_since <= late

    def _tell(self, observer: Callable[[_Event], None] | None, event: _Event) -> None:
        if observer is None:
            return
        try:
            observer(event)
        except Exception:
            _log.exception("an observer failed on %s", event)


def _summary(session: Session, now: float) -> ClientSummary:
    unsettled_s = 0.0 if session.settled else now - session.unsettled_since
    return replace(session.client.summary(), unsettled_s=unsettled_s, number=session.number)
