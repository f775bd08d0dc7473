"""How the limits of several policies, from that of a Gateway to that of a rule, become those of one rule.

Envoy Gateway's semantics: by StrategicMerge the rules of both hold, by JSONMerge a list of rules takes the place of the
other. A rule keeps counting with those of its own policy, wherever it is merged into another.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

from controlplane import ir
from controlplane.api.meta import ObjectKey
from controlplane.compile.counting import not_by_quota
from controlplane.compile.ratelimit import Limits
from controlplane.conditions import Condition, false

Section = Literal["local", "global"]


class Held(NamedTuple):
    """A rule, and whose it is: its policy, the place there, whether routes have that, and whose requests it counts."""

    rule: ir.LimitRule
    policy: Limits
    position: int
    of_route: bool
    scope: str


class Planned(NamedTuple):
    """Plans, whose they are, and whether routes have that policy."""

    plans: ir.Plans
    policy: Limits
    of_route: bool


class Part(NamedTuple):
    """A policy that counts for its target, and that target: whether it is a route, and whose requests count."""

    policy: Limits | None
    of_route: bool
    scope: str


@dataclass(frozen=True, slots=True)
class Holding:
    """What is in force of all the policies on a rule of a route."""

    local: tuple[Held, ...] = ()
    shared: tuple[Held, ...] = ()
    planned: Planned | None = None
    fail_open: bool = True
    notes: tuple[tuple[ObjectKey, Condition], ...] = field(default=())

    def read_providers(self, jwt: ir.Jwt | None, *, of_route: bool) -> frozenset[str]:
        """Returns the names of the JWT providers whose tokens' claims are read; `of_route` says whose `jwt` is."""
        known = {each.name for each in jwt.providers} if jwt is not None else set[str]()
        wanted = {
            name
            for held in (*self.local, *self.shared)
            if _may_read(held, of_route=of_route)
            for name in held.rule.read_providers
        }
        if self.planned is not None and (self.planned.of_route or not of_route):
            wanted |= self.planned.plans.identity.read_providers
        return frozenset(known if None in wanted else known & wanted)

    def bound(self, jwt: ir.Jwt | None, keys: ir.KeyPolicy | None = None, *, of_route: bool) -> Holding:
        """Leaves out, and tells, what reads claims of tokens that there are not, or that a Gateway cannot trust.

        A Gateway's rule never takes a route's provider for its own: else whoever writes the route would say by what
        clients are told apart.
        """
        known = {each.name for each in jwt.providers} if jwt is not None else set[str]()
        notes = list(self.notes)
        kept: dict[Section, tuple[Held, ...]] = {}
        sections: tuple[tuple[Section, tuple[Held, ...]], ...] = (("local", self.local), ("global", self.shared))
        for section, all_ in sections:
            found: list[Held] = []
            for held in all_:
                missing = _missing(held, known, of_route=of_route)
                if missing is None:
                    found.append(held)
                else:
                    at = f"spec.rateLimit.{section}.rules[{held.position}]"
                    message = f"{missing} at this level or above, so that the rule counts no request"
                    notes.append((held.policy.key, false("Accepted", "Invalid", message, at)))
            kept[section] = tuple(found)
        planned = self.planned
        if planned is not None:
            reason = _without_tokens(planned, known, of_route=of_route)
            if reason is not None:
                message = f"{reason} at this level or above, so that all callers are anonymous"
                at = "spec.rateLimit.global.plans.identity"
                notes.append((planned.policy.key, false("Accepted", "Invalid", message, at)))
                nobody = replace(planned.plans.identity, provider="")
                planned = planned._replace(plans=replace(planned.plans, identity=nobody))
        bound = replace(self, local=kept["local"], shared=kept["global"], planned=planned)
        return replace(bound, notes=(*notes, *_without_keys(planned, keys), *bound._without_quotas()))

    def without(self, policy: ObjectKey) -> Holding:
        """Leaves out what is of a policy."""
        local, shared = (
            tuple(each for each in all_ if each.policy.key != policy) for all_ in (self.local, self.shared)
        )
        planned = self.planned if self.planned is not None and self.planned.policy.key != policy else None
        return replace(self, local=local, shared=shared, planned=planned)

    def _without_quotas(self) -> Iterator[tuple[ObjectKey, Condition]]:
        """Yields what is to be said of rules with mode Quota of which the service is asked, since they were merged."""
        if self._is_whole():
            return
        reason = (
            "it is merged with others, or some of its policy are left out, and Envoy counts a request into one bucket"
        )
        last = self.shared[-1].policy.key if self.shared else None
        for each in self.shared:
            if not each.rule.counting.quota:
                continue
            at = f"spec.rateLimit.global.rules[{each.position}]"
            yield each.policy.key, not_by_quota(reason, at)
            if last is not None and each.policy.key != last:
                message = f"{at} of {each.policy.key} is asked about here, though its mode is Quota: it is merged"
                yield last, Condition("NotSupported", "True", "UnsupportedField", message, "spec.mergeType")

    def _is_whole(self) -> bool:
        """Says whether the limits of the service are those of one policy, and all of them."""
        policies = {held.policy.key for held in self.shared}
        if self.planned is not None:
            policies.add(self.planned.policy.key)
        first = self._first()
        whole = first.global_limit if first is not None else None
        if whole is None:
            return True
        return len(policies) == 1 and len(self.shared) == len(whole.rules) and whole.fail_open is self.fail_open

    def _first(self) -> Limits | None:
        """Returns the most specific policy with limits of the service."""
        return self.shared[-1].policy if self.shared else self.planned.policy if self.planned is not None else None

    def local_limit(self) -> ir.LocalLimit | None:
        """Returns what each Envoy enforces."""
        return ir.LocalLimit(tuple(held.rule for held in self.local)) if self.local else None

    def global_limit(self) -> ir.GlobalLimit | None:
        """Returns what the service enforces: the limits of one policy as they are, or some rules of several."""
        first = self._first()
        if first is None:
            return None
        whole = first.global_limit
        assert whole is not None
        plans = self.planned.plans if self.planned is not None else None
        if self._is_whole():
            return replace(whole, plans=plans)
        # Envoy counts a request into one bucket, and what was merged may have several rules about it.
        rules = (
            replace(each.rule, scope=each.scope, counting=replace(each.rule.counting, quota=False))
            for each in self.shared
        )
        return ir.GlobalLimit(whole.policy, tuple(rules), self.fail_open, plans)

    def scope(self, limit: ir.GlobalLimit | None, inherited: str) -> str:
        """Returns whose requests count together towards `limit`; what was merged says it rule by rule."""
        if limit is None or not limit.counts_apart:
            return ""
        return (self.shared[-1].scope if self._is_whole() else "") or inherited

    def sources(self) -> Iterable[tuple[str, ObjectKey, str]]:
        """Yields the fields in force, the policies that they are from, and where they are there."""
        for section, all_ in (("local", self.local), ("global", self.shared)):
            for key in dict.fromkeys(held.policy.key for held in reversed(all_)):
                yield f"{section}_limit", key, f"spec.rateLimit.{section}"
        if self.planned is not None:
            yield "global_limit", self.planned.policy.key, "spec.rateLimit.global.plans"


def held(parts: Sequence[Part]) -> Holding:
    """Merges policies, that of the most general target first."""
    found = Holding()
    for part in parts:
        if part.policy is not None:
            found = _merged(found, part.policy, part)
    return found


def _merged(above: Holding, policy: Limits, part: Part) -> Holding:
    if policy.stands_alone:
        above = Holding()
    if policy.local_limit is None and policy.global_limit is None:
        return above
    # A policy may be about a route and about its Gateway, too; then it holds once, as that of the route.
    above = above.without(policy.key)
    plans = policy.global_limit.plans if policy.global_limit is not None else None
    planned = Planned(plans, policy, part.of_route) if plans is not None else None
    local = _holding(policy.local_limit, policy, part)
    shared = _holding(policy.global_limit, policy, part)
    fail_open = above.fail_open if policy.fail_open is None else policy.fail_open
    parents = dict.fromkeys(each.policy.key for each in (*above.local, *above.shared))
    if above.planned is not None:
        parents[above.planned.policy.key] = None
    if policy.merge_type is None or not parents:
        return Holding(local, shared, planned, policy.fail_open is not False, above.notes)
    message = f"rateLimit is merged with that of {', '.join(map(str, parents))}"
    notes = (*above.notes, (policy.key, Condition("Merged", "True", "Merged", message, "spec.mergeType")))
    if policy.merge_type == "JSONMerge":
        return Holding(local or above.local, shared or above.shared, planned or above.planned, fail_open, notes)
    # There can be one for all requests that no other is about: the more specific one.
    own_general = any(not each.rule.told_apart for each in local)
    inherited = tuple(each for each in above.local if each.rule.told_apart or not own_general)
    return Holding((*inherited, *local), (*above.shared, *shared), planned or above.planned, fail_open, notes)


def _holding(limit: ir.LocalLimit | ir.GlobalLimit | None, policy: Limits, part: Part) -> tuple[Held, ...]:
    rules = limit.rules if limit is not None else ()
    return tuple(Held(rule, policy, index, part.of_route, part.scope) for index, rule in enumerate(rules))


def _may_read(held: Held, *, of_route: bool) -> bool:
    return held.of_route or not of_route


def _missing(held: Held, known: set[str], *, of_route: bool) -> str | None:
    wanted = held.rule.read_providers
    if not wanted:
        return None
    if not known or not _may_read(held, of_route=of_route):
        return "there is no JWT provider"
    unknown = sorted(name for name in wanted if name is not None and name not in known)
    return f"there is no JWT provider {unknown[0]}" if unknown else None


def _without_keys(planned: Planned | None, keys: ir.KeyPolicy | None) -> Iterator[tuple[ObjectKey, Condition]]:
    """Yields what is to be said where nobody has a key that tells the plan; routes of a Gateway differ in that."""
    if planned is None or planned.plans.identity.source != "Key" or not planned.of_route:
        return
    if keys is None or keys.known:
        message = "has no effect: no SecurityPolicy asks for consumers here, so that all callers are anonymous"
        at = "spec.rateLimit.global.plans.identity"
        yield planned.policy.key, Condition("NotSupported", "True", "UnsupportedField", message, at)


def _without_tokens(planned: Planned, known: set[str], *, of_route: bool) -> str | None:
    identity = planned.plans.identity
    if identity.source != "Token":
        return None
    if not known or (of_route and not planned.of_route):
        return "there is no JWT provider"
    missing = identity.provider is not None and identity.provider not in known
    return f"there is no JWT provider {identity.provider}" if missing else None
