"""One connected client: which response it may be sent next, so that it never refers to what it doesn't have."""

from __future__ import annotations

import logging
from collections import ChainMap
from collections.abc import Callable, Set
from dataclasses import dataclass, field
from typing import Any, Final, cast

from controlplane.xds.census import Standing
from controlplane.xds.diff import Diff
from controlplane.xds.events import Ack, ClientSummary, Nack, Protocol, Violation
from controlplane.xds.order import IMMEDIATE, RANK, REMOVAL_ORDER, SERVICE_POLICIES, UNRANKED, Timing
from controlplane.xds.overlay import Have
from controlplane.xds.requests import Request
from controlplane.xds.resources import CLUSTER, ENDPOINT, EXTENSION_CONFIG, LISTENER, ROUTE, Snapshot
from controlplane.xds.sotw import SotwSubscription
from controlplane.xds.subscription import DeltaSubscription, InFlight, Outgoing, Subscription, speaks_of
from controlplane.xds.warming import Warming

_log = logging.getLogger(__name__)

_MAX_TYPES: Final = 16


@dataclass(slots=True)
class Client:
    """The state machine of one stream, free of I/O: requests and snapshots in, responses out.

    `goal` is the snapshot that is being pushed. Additions travel in ORDER, each type after the earlier ones are
    acknowledged; removals in REMOVAL_ORDER, each after all that may refer to it. A newer snapshot replaces the goal at
    once, unless newer ones have kept a push from finishing for `patience_s`: then its changes wait in the backlog.
    """

    owner: str
    node_id: str
    protocol: Protocol
    timing: Timing
    policies_settled: Callable[[], bool]
    workers_due: Callable[[], float]
    on_overdue: Callable[[str], None]
    max_names: int
    wake_at: float | None = None
    lagging: bool = False
    _subscriptions: dict[str, Subscription] = field(default_factory=dict[str, Subscription])
    _by_rank: list[Subscription] = field(default_factory=list[Subscription])
    _newest: Snapshot | None = None
    _goal: Snapshot | None = None
    _backlog: dict[str, set[str]] = field(default_factory=dict[str, set[str]])
    _busy_since: float | None = None
    _warming: Warming = field(default_factory=Warming)
    _routes_held_since: float | None = None
    _routes_held_until: float = 0.0
    _no_removal_before: float = 0.0
    # The nonce of the clusters whose answer is no longer waited for.
    _given_up: str = ""
    _nonce: int = 0

    def handle(self, request: Request, now: float) -> Ack | Nack | Violation | None:
        """Takes a request; returns what it says about an earlier response, if anything."""
        subscription = self._subscriptions.get(request.type_url)
        first = subscription is None
        if subscription is None:
            if not request.type_url or len(self._subscriptions) >= _MAX_TYPES:
                return Violation(f"a request must name a type, and a stream at most {_MAX_TYPES} of them")
            subscription = self._open(request, now)
        answer = self._answered(subscription, request, now)
        if self.protocol == "sotw" and subscription.last_nonce and request.nonce != subscription.last_nonce:
            return None  # Stale: the client has yet to see the response in flight, and will repeat itself then.
        subscription.subscribe(request, self._have_if_any(request.type_url), first=first)
        total = sum(len(each.names) for each in self._subscriptions.values())
        if max(total, len(request.initial_versions)) > self.max_names:
            return Violation(f"more than {self.max_names} names subscribed to")
        return answer

    def offer(self, newest: Snapshot, diff: Diff, now: float) -> None:
        """Takes over a newer snapshot; `diff` is what changed since the one before."""
        if self._newest is None or self._goal is None or self._newest.kept:
            self._begin(newest, now)
            return
        self._newest = newest
        for type_url, changes in diff.items():
            self._backlog.setdefault(type_url, set()).update(changes)
            if type_url in IMMEDIATE:
                self._merge(type_url, changes, now)
        self._adopt(now)

    def _begin(self, newest: Snapshot, now: float) -> None:
        self._newest = self._goal = newest
        self._busy_since = now
        for subscription in self._by_rank:
            have = newest.of_type(subscription.type_url)
            subscription.rebase(have)
            subscription.kept = newest.kept
            if newest.kept:
                subscription.refresh(have)
            else:
                subscription.review_culprits(have, frozenset(), subscription.hold_until)
                subscription.settle(have)

    def next_response(self, now: float) -> Outgoing | None:
        """Takes the next response that may be sent; where None, `wake_at` says when to ask again at the latest."""
        self.wake_at = None
        if self._goal is None:
            return None
        self._adopt(now)
        return self._next_addition(now) or self._next_removal(now)

    @property
    def settled(self) -> bool:
        """Whether the client has answered, by ACK or NACK, all that it is to be sent (what is unused may remain)."""
        if self._goal is None or self._goal is not self._newest:
            return not self._by_rank
        return not any(
            each.pending or each.in_flight or (each.removes and each.type_url == LISTENER) for each in self._by_rank
        )

    @property
    def is_current(self) -> bool:
        """Whether what it is being sent is of the newest snapshot."""
        return self._goal is self._newest

    @property
    def standing(self) -> Standing:
        """Returns how far the client is, as far as it counts among all of its owner's."""
        settled, listeners = self.settled, self._subscriptions.get(LISTENER)
        lacking = (not settled or listeners is None) and not (listeners is not None and listeners.known)
        return Standing(settled, lacking, tuple(each.type_url for each in self._by_rank if each.culprits))

    @property
    def holds_routes(self) -> bool:
        """Whether its routes wait for the services' policies."""
        return self._routes_held_since is not None

    def summary(self) -> ClientSummary:
        """Returns how far the client is."""
        types = {each.type_url: each.summary() for each in self._by_rank}
        return ClientSummary(self.owner, self.node_id, self.protocol, self.settled, types)

    # Requests

    def _open(self, request: Request, now: float) -> Subscription:
        kind = DeltaSubscription if self.protocol == "delta" else SotwSubscription
        subscription = kind(request.type_url)
        subscription.kept = self._goal is not None and self._goal.kept
        self._subscriptions[request.type_url] = subscription
        self._by_rank = sorted(self._subscriptions.values(), key=lambda each: each.rank)
        if request.initial_versions or request.version:
            # A client with a past may refer to anything until it has said all that it has; and routes that are out
            # there to a policy of a service.
            service = request.type_url in SERVICE_POLICIES
            grace_s = self.timing.linger_s if service else self.timing.subscribe_grace_s
            self._no_removal_before = max(self._no_removal_before, now + grace_s)
            for other in self._by_rank:
                other.unmark()
        return subscription

    def _answered(self, subscription: Subscription, request: Request, now: float) -> Ack | Nack | None:
        in_flight = subscription.in_flight
        if in_flight is None or request.nonce != in_flight.nonce:
            return None
        names = tuple(sorted(in_flight.names))
        if request.error is None:
            subscription.acknowledge()
            if subscription.idle:
                subscription.share(self._shared(subscription.type_url))
            self._await_endpoints_of(subscription, in_flight.fresh, now)
            return Ack(self.owner, self.node_id, subscription.type_url, names, now - in_flight.sent_at)
        return self._rejected(subscription, names, request.error, now)

    def _rejected(self, subscription: Subscription, names: tuple[str, ...], error: str, now: float) -> Nack | None:
        named = frozenset(name for name in names if speaks_of(error, name)) if len(names) > 1 else frozenset[str]()
        _log.warning("%s (%s) rejects %s %s: %s", self.node_id, self.owner, subscription.type_url, names[:8], error)
        fresh = subscription.in_flight.fresh if subscription.in_flight is not None else frozenset[str]()
        verdict = subscription.reject(named, now + self.timing.nack_hold_s)
        # What a rejected response held beside the culprits has probably been taken, and warms.
        self._await_endpoints_of(subscription, fresh - (verdict[1] if verdict is not None else frozenset()), now)
        if verdict is None:
            return None
        response, culprits = verdict
        guilty = [resource for resource in response.resources if resource.name in culprits]
        subscription.review_culprits(self._have(subscription.type_url), frozenset(), subscription.hold_until)
        return Nack(
            owner=self.owner,
            node_id=self.node_id,
            type_url=subscription.type_url,
            names=tuple(resource.name for resource in guilty),
            origins=tuple(dict.fromkeys(origin for resource in guilty for origin in resource.origins)),
            message=error,
            versions={resource.name: resource.version for resource in guilty},
            had=self._no_removal_before > 0.0,
        )

    def _await_endpoints_of(self, subscription: Subscription, fresh: frozenset[str], now: float) -> None:
        if subscription.type_url == CLUSTER:
            having = self._have(ENDPOINT)
            self._warming.begin((name for name in fresh if name in having), now)

    # Snapshots

    def _have(self, type_url: str) -> Have:
        if self._goal is None or self._newest is None:
            return {}
        having = self._goal.of_type(type_url)
        if type_url in IMMEDIATE and self._goal is not self._newest:
            return ChainMap(cast(Any, self._newest.of_type(type_url)), cast(Any, having))
        return having

    def _shared(self, type_url: str) -> Have:
        """Returns the mapping that the next changes of a type will be told of by: never a view of two."""
        snapshot = self._newest if type_url in IMMEDIATE else self._goal
        return {} if snapshot is None else snapshot.of_type(type_url)

    def _have_if_any(self, type_url: str) -> Have | None:
        return None if self._goal is None else self._have(type_url)

    def _adopt(self, now: float) -> None:
        """Makes the newest snapshot the goal, unless the push under way has been put off for too long."""
        if not any(self._adding(each, now) for each in self._by_rank):
            self._busy_since = None
        if self._newest is None or self._goal is self._newest:
            return
        held = any(now < each.hold_until for each in self._by_rank)  # Perhaps by what the newest puts right.
        if self._busy_since is not None and now - self._busy_since >= self.timing.patience_s and not held:
            return
        self._busy_since = self._busy_since if self._busy_since is not None else now
        self._goal = self._newest
        for type_url, changes in self._backlog.items():
            self._merge(type_url, changes, now)
        if ROUTE in self._backlog and self._routes_held_since is not None:
            longest = self._routes_held_since + self.timing.patience_s
            self._routes_held_until = min(now + self.timing.policy_wait_s, longest)
        self._backlog.clear()

    def _adding(self, subscription: Subscription, now: float) -> bool:
        if subscription.type_url in IMMEDIATE:
            return False
        sent = subscription.in_flight
        return subscription.pending or (sent is not None and not self._overlong(subscription, sent, now))

    def _merge(self, type_url: str, changes: Set[str], now: float) -> None:
        subscription = self._subscriptions.get(type_url)
        if subscription is None:
            return
        have = self._have(type_url)
        subscription.review_culprits(have, changes, now + self.timing.nack_hold_s)
        subscription.rebase(self._shared(type_url), changes)
        for name in changes:
            subscription.note(name, have.get(name))

    # Additions

    def _next_addition(self, now: float) -> Outgoing | None:
        blocked = False
        warm = False
        for subscription in self._by_rank:
            if subscription.rank > RANK[ENDPOINT] and not warm:
                blocked = self._awaits_endpoints(now) or blocked
                warm = True
            if subscription.pending and self._may_send(subscription, blocked, now):
                out = subscription.additions(self._have(subscription.type_url), self._take_nonce(), now)
                if out is not None:
                    self._repeat_endpoints(subscription)
                    return out
            blocked = self._blocks_later(subscription, now) or blocked
        return None

    def _may_send(self, subscription: Subscription, blocked: bool, now: float) -> bool:
        if subscription.in_flight is not None and self._unanswered(subscription, subscription.in_flight, now):
            return False
        if subscription.type_url == EXTENSION_CONFIG and self._before(self.workers_due(), now):
            return False  # What routes of before name is gone from it, perhaps: together with those of now, then.
        if subscription.rank == UNRANKED or (subscription.type_url in IMMEDIATE and not subscription.wildcard):
            return True
        return not blocked and not (subscription.type_url == ROUTE and self._awaits_policies(now))

    def _blocks_later(self, subscription: Subscription, now: float) -> bool:
        if subscription.rank == UNRANKED or subscription.type_url == ENDPOINT:
            return False
        if subscription.pending:
            return True
        if subscription.in_flight is not None and self._unanswered(subscription, subscription.in_flight, now):
            return True
        return self._before(subscription.hold_until, now)

    def _unanswered(self, subscription: Subscription, response: InFlight, now: float) -> bool:
        """Whether an answer is still waited for: Envoy gives one for clusters only when all of them are warm."""
        if not self._overlong(subscription, response, now):
            return True
        if response.nonce != self._given_up:
            self._given_up = response.nonce
            self._overdue("warm", "clusters are not acknowledged in time; what follows them is sent all the same")
        return False

    def _overlong(self, subscription: Subscription, response: InFlight, now: float) -> bool:
        return subscription.type_url == CLUSTER and not self._before(response.sent_at + self.timing.warm_wait_s, now)

    def _repeat_endpoints(self, subscription: Subscription) -> None:
        """Envoy warms a changed cluster only when its endpoints come once more, though they are the same."""
        endpoints = self._subscriptions.get(ENDPOINT)
        sent = subscription.in_flight
        if subscription.type_url == CLUSTER and endpoints is not None and sent is not None:
            having = self._have(ENDPOINT)
            endpoints.forced.update(name for name in sent.changed if name in endpoints.known and name in having)

    def _awaits_endpoints(self, now: float) -> bool:
        """Whether new clusters are not warm yet: their endpoints are acknowledged, or have been awaited enough."""
        return self._warming.awaits(
            self._subscriptions.get(ENDPOINT),
            self._have(CLUSTER),
            timing=self.timing,
            before=lambda moment: self._before(moment, now),
            overdue=lambda message: self._overdue("warm", message),
        )

    def _awaits_policies(self, now: float) -> bool:
        if self.policies_settled():
            self._routes_held_since = None
            return False
        if self._routes_held_since is None:
            self._routes_held_since = now
            self._routes_held_until = now + self.timing.policy_wait_s
        due = self.workers_due()
        if now < due:
            # Once a worker has come, its answer is waited for.
            self._routes_held_until = now + self.timing.policy_wait_s
        if self._before(max(self._routes_held_until, due), now):
            return True
        self._routes_held_since = None
        self._overdue("policy", "services have not acknowledged their policies in time; routes follow all the same")
        return False

    def _overdue(self, what: str, message: str) -> None:
        _log.warning("%s (%s): %s", self.node_id, self.owner, message)
        self.on_overdue(what)

    # Removals

    def _next_removal(self, now: float) -> Outgoing | None:
        if self._goal is not self._newest or self._before(self._no_removal_before, now):
            return None
        if any(each.pending and each.rank != UNRANKED and each.type_url not in IMMEDIATE for each in self._by_rank):
            return None  # What is to be added, and only waits for an answer, goes first.
        unreferenced = True
        for type_url in REMOVAL_ORDER:
            subscription = self._subscriptions.get(type_url)
            if subscription is None:
                continue
            if subscription.removes:
                if unreferenced:
                    subscription.mark_removable(now)
                due = self._due(subscription, now)
                if due and not subscription.pending and subscription.in_flight is None:
                    out = subscription.removal(self._have(type_url), due, self._take_nonce(), now)
                    if out is not None:
                        return out
            unreferenced = unreferenced and subscription.idle
        return self._unranked_removal(now)

    def _unranked_removal(self, now: float) -> Outgoing | None:
        for subscription in self._by_rank:
            if (
                subscription.rank == UNRANKED
                and subscription.removes
                and not (subscription.pending or subscription.in_flight)
            ):
                due = list(subscription.removes)
                return subscription.removal(self._have(subscription.type_url), due, self._take_nonce(), now)
        return None

    def _due(self, subscription: Subscription, now: float) -> list[str]:
        drain_s = self.timing.drain_s if subscription.type_url == CLUSTER else 0.0
        return [
            name
            for name, since in subscription.removes.items()
            if since is not None and not self._before(since + drain_s, now)
        ]

    # Time

    def _before(self, moment: float, now: float) -> bool:
        """Whether the moment is yet to come; then the client is to be asked again at it."""
        if now >= moment:
            return False
        self.wake_at = moment if self.wake_at is None else min(self.wake_at, moment)
        return True

    def _take_nonce(self) -> str:
        self._nonce += 1
        return format(self._nonce, "x")
