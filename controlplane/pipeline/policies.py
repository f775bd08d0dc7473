"""Which policies concern which route: the indexes, the merge per route, and what the services are to be told."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from controlplane.api.backendtrafficpolicy import BackendTrafficPolicy
from controlplane.api.meta import ENVOY_GATEWAY_GROUP, GATEWAY_GROUP, POLICY_GROUP, ObjectKey
from controlplane.api.scalars import parse_duration
from controlplane.api.securitypolicy import SecurityPolicy
from controlplane.compile import policies, ratelimit, security, targets
from controlplane.compile.policies import NOTHING, Compiled, Level, Merged
from controlplane.graph import Derived, Graph, Index, Table
from controlplane.pipeline.objects import Objects

_KINDS = frozenset({"SecurityPolicy", "BackendTrafficPolicy"})
_GROUPS = frozenset({POLICY_GROUP, ENVOY_GATEWAY_GROUP})


class Place(NamedTuple):
    """A listener of a Gateway, by its id there."""

    gateway: ObjectKey
    listener: str

    @property
    def owner(self) -> ObjectKey:
        """The Gateway or ListenerSet that has the listener."""
        namespace, slash, rest = self.listener.partition("/")
        if not slash:
            return self.gateway
        return ObjectKey(GATEWAY_GROUP, "ListenerSet", namespace, rest.partition("/")[0])

    @property
    def name(self) -> str:
        """The listener's name there."""
        return self.listener.rpartition("/")[2]


class Member(NamedTuple):
    """A policy, and the section of the target that it is about."""

    policy: ObjectKey
    section: str | None


@dataclass(frozen=True, slots=True)
class RoutePolicies:
    """What is in force on the rules of a route; `rules` has those that policies name."""

    default: Merged = NOTHING
    rules: Mapping[str, Merged] | None = None

    def of(self, rule: str) -> Merged:
        """Returns what is in force on a rule."""
        return self.rules.get(rule, self.default) if self.rules is not None else self.default

    def all(self) -> Iterable[Merged]:
        """Yields what is in force on any rule."""
        yield self.default
        if self.rules is not None:
            yield from self.rules.values()


def is_policy(key: ObjectKey) -> bool:
    """Says whether an object is a policy that is compiled here."""
    return key.kind in _KINDS and key.group in _GROUPS


class PolicyIndex:
    """Derived collections of policies. `set` and `delete` tell it which there are."""

    def __init__(self, graph: Graph, objects: Objects) -> None:
        self._objects = objects
        self.keys: Table[ObjectKey, None] = graph.table("policy keys")
        self.compiled: Derived[ObjectKey, Compiled | None] = graph.derive("compiled policy", self._compute_compiled)
        self._targeted: Index[ObjectKey, Member] = graph.group("targeted", self.keys, self._targeting)
        self._selecting: Index[tuple[str, str], ObjectKey] = graph.group(
            "selecting", self.keys, lambda key: [((key.namespace, s.kind), key) for s in self.targets(key).selectors]
        )
        self.labels: Derived[ObjectKey, dict[str, str]] = graph.derive("labels", self._compute_labels)
        self.inherited: Derived[Place, RoutePolicies] = graph.derive("policies of a listener", self._compute_place)
        self._own: Derived[tuple[Place, ObjectKey], RoutePolicies] = graph.derive("own policies", self._compute_own)

    def set(self, key: ObjectKey) -> None:
        """Takes note of a policy."""
        if is_policy(key):
            self.keys.set(key, None)

    def delete(self, key: ObjectKey) -> None:
        """Forgets a policy."""
        self.keys.delete(key)

    def targets(self, key: ObjectKey) -> targets.Targets:
        """Returns what a policy applies to; of one that never was good, what it is said to."""
        found = self._objects.get(key)
        if found is not None:
            return targets.of_spec(found.spec, key.namespace)
        candidate = self._objects.candidate(key)
        if candidate is None:
            return targets.Targets(key.namespace)
        if candidate.object is not None:
            return targets.of_spec(candidate.object.spec, key.namespace)
        return candidate.targets or targets.Targets(key.namespace)

    def on(self, target: ObjectKey) -> dict[str | None, list[Compiled]]:
        """Returns the policies on an object, by the section that they are about (None: the whole)."""
        found: dict[str | None, list[Compiled]] = {}
        # A policy may name a target that it selects, too.
        for member in sorted(set(self._members(target)), key=lambda each: (each.policy, each.section or "")):
            compiled = self.compiled.get(member.policy)
            if compiled is not None:
                found.setdefault(member.section, []).append(compiled)
        return found

    def has_own(self, route: ObjectKey) -> bool:
        """Says whether a route has policies of its own, some of which may not be in force."""
        return next(iter(self._members(route)), None) is not None

    def merged(self, place: Place, route: ObjectKey) -> RoutePolicies:
        """Returns what is in force on a route: that of its listener as it is, unless the route has policies of its own.

        Many routes share what they inherit, as one object, but for limits that count for each route apart.
        """
        if self.has_own(route):
            return self._own.get((place, route))
        inherited = self.inherited.get(place)
        return _counting_for(_scope(route), inherited)

    def wanted_key_sets(self) -> Mapping[str, float]:
        """Returns the URIs of the key sets that policies name, in force or about to be, and how often to fetch them."""
        wanted: dict[str, float] = {}
        for key, _ in self.keys.items():
            admitted = self._objects.peek(key)
            newest = admitted.object if admitted is not None and admitted.good else None
            for policy in (newest, self._objects.accepted.peek(key)):
                for uri, interval_s in key_sets_of(policy):
                    wanted[uri] = min(interval_s, wanted.get(uri, interval_s))
        return wanted

    def awaited_key_sets(self, key: ObjectKey, newest: SecurityPolicy) -> tuple[str, ...]:
        """Returns the URIs that the newest version of a policy waits for while an older one can stand in for it."""
        if self._objects.accepted.get(key) in (None, newest):
            return ()
        return tuple(uri for uri, _ in key_sets_of(newest) if self._objects.key_set(uri) is None)

    def _targeting(self, key: ObjectKey) -> list[tuple[ObjectKey, Member]]:
        return [(each.key, Member(key, each.section)) for each in self.targets(key).named]

    def _members(self, target: ObjectKey) -> Iterable[Member]:
        yield from self._targeted.get(target)
        selecting = self._selecting.get((target.namespace, target.kind))
        if not selecting:
            return
        labels = self.labels.get(target)
        for key in selecting:
            selectors = self.targets(key).selectors
            if any(s.kind == target.kind and s.group == target.group and s.matches(labels) for s in selectors):
                yield Member(key, None)

    def _compute_labels(self, key: ObjectKey) -> dict[str, str]:
        found = self._objects.get(key)
        return found.metadata.labels if found is not None else dict[str, str]()

    def _compute_compiled(self, key: ObjectKey) -> Compiled | None:
        found = self._objects.get(key)
        if isinstance(found, SecurityPolicy):
            return security.compile_security(self._objects, found)
        if isinstance(found, BackendTrafficPolicy):
            return ratelimit.compile_limits(found, self._objects)
        if key.kind != "SecurityPolicy":
            return None
        candidate = self._objects.candidate(key)
        waits = candidate is not None and candidate.verdict is not None and candidate.verdict.absent
        return None if waits else security.broken(key)

    def _levels(self, place: Place) -> tuple[Level, ...]:
        """Returns the policies above a route: of the Gateway, of a ListenerSet, of the listener."""
        of_gateway = self.on(place.gateway)
        owner = place.owner
        of_owner = of_gateway if owner == place.gateway else self.on(owner)
        groups = [of_gateway.get(None, ()), of_owner.get(None, ()), of_owner.get(place.name, ())]
        return tuple(Level(tuple(group)) for group in (groups[1:] if owner == place.gateway else groups))

    def _compute_place(self, place: Place) -> RoutePolicies:
        return RoutePolicies(policies.merge(self._levels(place), scope=""))

    def _compute_own(self, key: tuple[Place, ObjectKey]) -> RoutePolicies:
        place, route = key
        own, scope = self.on(route), _scope(route)
        if not own:
            return _counting_for(scope, self.inherited.get(place))
        above = (*self._levels(place), Level(tuple(own.get(None, ())), of_route=True))
        rules: dict[str, Merged] = {}
        for section, found in own.items():
            if section is not None:
                level = Level(tuple(found), of_route=True, scope=f"{scope}/{section}")
                rules[section] = policies.merge((*above, level), scope=scope)
        return RoutePolicies(policies.merge(above, scope=scope), rules or None)


def _scope(route: ObjectKey) -> str:
    return f"{route.kind}/{route.namespace}/{route.name}"


def _counting_for(scope: str, inherited: RoutePolicies) -> RoutePolicies:
    """Returns what a route inherits, with its limits that are not shared counting for the route."""
    whole = inherited.default
    limit = whole.policies.global_limit
    if limit is None or not limit.counts_apart:
        return inherited
    return RoutePolicies(replace(whole, policies=replace(whole.policies, limit_scope=scope)))


def key_sets_of(policy: object) -> Sequence[tuple[str, float]]:
    """Returns the URIs of the key sets that a policy names, and how often to fetch each, in seconds."""
    if not isinstance(policy, SecurityPolicy) or policy.spec.jwt is None:
        return ()
    remote = (each.remote_jwks for each in policy.spec.jwt.providers)
    return [(each.uri, parse_duration(each.cache_duration).total_seconds()) for each in remote if each is not None]
