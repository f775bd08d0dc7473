"""Which policies are in force on a route: the most specific of each target, merged by field from the Gateway down.

The field of the more specific policy wins, but for authentication: what a Gateway or listener asks for stays in force
unless its policy lets routes drop it and the route's says that it does. Of authorization, both then have to admit.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar

from controlplane import ir
from controlplane.api.meta import ObjectKey
from controlplane.compile import limit_merge
from controlplane.compile.ratelimit import Limits
from controlplane.compile.security import AUTHENTICATION, Security
from controlplane.conditions import Condition, false

_FIELDS = {
    "cors": "spec.cors",
    "jwt": "spec.jwt",
    "api_keys": "spec.apiKeyAuth",
    "keys": "spec.consumers",
    "authorization": "spec.authorization",
}
Compiled = Security | Limits
Note = tuple[ObjectKey, Condition]
_P = TypeVar("_P", Security, Limits)


@dataclass(frozen=True, slots=True)
class Level:
    """All policies of one target: a Gateway, a listener, a route or a rule."""

    policies: tuple[Compiled, ...] = ()
    of_route: bool = False
    scope: str = ""  # whose requests count together towards its limits; those of the whole route where empty


class FieldSource(NamedTuple):
    """The policy that a field of `ir.Policies` in force is from, and the path of the field there."""

    field: str
    policy: ObjectKey
    path: str


@dataclass(frozen=True, slots=True)
class Merged:
    """What is in force, what is to be said about the policies that it was made from, and what is from which."""

    policies: ir.Policies
    notes: tuple[Note, ...] = ()
    sources: tuple[FieldSource, ...] = ()


NOTHING = Merged(ir.Policies())


def merge(levels: Sequence[Level], *, scope: str) -> Merged:
    """Merges the policies of the targets that a rule belongs to, the most general first.

    `scope` is whose requests count together towards limits that are not shared: those of the route.
    """
    if not any(level.policies for level in levels):
        return NOTHING
    notes: list[Note] = []
    holding = limit_merge.held(
        [limit_merge.Part(_winners(level, Limits, notes), level.of_route, level.scope) for level in levels]
    )
    winners = [_winners(level, Security, notes) for level in levels]
    security, sources, tokens_of_route = _merge_security(winners, levels, notes, holding)
    limits = holding.bound(security.jwt, security.keys, of_route=tokens_of_route)
    global_limit = limits.global_limit()
    keys = [policy.key for level in levels for policy in level.policies]
    policies = replace(
        security,
        local_limit=limits.local_limit(),
        global_limit=global_limit,
        limit_scope=limits.scope(global_limit, scope),
        origins=tuple(dict.fromkeys(str(key) for key in keys)),
    )
    return Merged(policies, (*notes, *limits.notes), (*sources, *(FieldSource(*each) for each in limits.sources())))


def _winners(level: Level, kind: type[_P], notes: list[Note]) -> _P | None:
    """Returns the policy of a kind that counts for a target: the oldest, then by name; the others are told."""
    ranked = sorted((each for each in level.policies if isinstance(each, kind)), key=_age)
    for other in ranked[1:]:
        message = f"{ranked[0].key} has the same target and is older, or comes first by name"
        notes.append((other.key, false("Accepted", "Conflicted", message)))
    if not ranked:
        return None
    winner = ranked[0]
    if isinstance(winner, Security):
        denied = next((each.deny for each in ranked if isinstance(each, Security) and each.deny is not None), None)
        return replace(winner, deny=denied) if denied is not winner.deny else winner
    return winner


def _age(policy: Compiled) -> tuple[float, str, str, str]:
    return (policy.created_s, policy.key.namespace, policy.key.name, policy.key.group)


class _Owned(NamedTuple):
    """A field that is in force, and whose it is."""

    value: Any
    policy: Security
    of_route: bool


def _merge_security(
    winners: Sequence[Security | None], levels: Sequence[Level], notes: list[Note], limits: limit_merge.Holding
) -> tuple[ir.Policies, tuple[FieldSource, ...], bool]:
    """Merges security policies; says, too, whether whose tokens are accepted is a route's own."""
    fields: dict[str, _Owned] = {}
    deny: ir.Deny | None = None
    denied: list[FieldSource] = []
    for policy, level in zip(winners, levels, strict=True):
        if policy is None:
            continue
        if deny is None and policy.deny is not None:
            deny = policy.deny
            denied.append(FieldSource("deny", policy.key, ""))
        _drop(fields, policy, level, notes)
        for name, path in _FIELDS.items():
            value = getattr(policy, name)
            if value is None:
                continue
            owned = fields.get(name)
            if name == "authorization" and owned is not None and level.of_route and _guards(name, owned):
                fields["own_authorization"] = _Owned(value, policy, True)
            elif owned is not None and level.of_route and _guards(name, owned):
                message = f"{owned.policy.key} asks for it too, and stays in force; it does not let routes drop it"
                notes.append((policy.key, Condition("Overridden", "True", "Overridden", message, path)))
            else:
                fields[name] = _Owned(value, policy, level.of_route)
    values = {name: owned.value for name, owned in fields.items()}
    sources = {name: _source(name, owned) for name, owned in fields.items()}
    if "api_keys" in fields and "keys" not in fields and fields["api_keys"].policy.hashed_keys is not None:
        values |= {"api_keys": None, "keys": fields["api_keys"].policy.hashed_keys}
        sources["keys"] = sources.pop("api_keys")._replace(field="keys")
    of_route = "jwt" in fields and fields["jwt"].of_route
    policies = ir.Policies(**values, deny=deny)
    read = limits.read_providers(policies.jwt, of_route=of_route)
    return _bound(policies, fields, notes, denied, read), (*sources.values(), *denied), of_route


def _source(name: str, owned: _Owned) -> FieldSource:
    return FieldSource(name, owned.policy.key, _FIELDS[name.removeprefix("own_")])


def _drop(fields: dict[str, _Owned], policy: Security, level: Level, notes: list[Note]) -> None:
    """Takes out what a more specific policy does without."""
    if policy.stands_alone:
        for name in [name for name, owned in fields.items() if not (level.of_route and _guards(name, owned))]:
            del fields[name]
    if not (policy.drops_parent and level.of_route):
        return
    for name, owned in list(fields.items()):
        if not _guards(name, owned):
            continue
        if owned.policy.may_be_dropped:
            del fields[name]
        elif getattr(policy, name) is None:
            message = f"{_FIELDS[name]} of {owned.policy.key} stays in force: it does not let routes drop it"
            field = "spec.dropParentAuthentication"
            notes.append((policy.key, Condition("Overridden", "True", "Overridden", message, field)))


def _guards(name: str, owned: _Owned) -> bool:
    """Says whether a field is authentication that a Gateway or listener asks for."""
    return name in AUTHENTICATION and not owned.of_route


def _bound(
    policies: ir.Policies,
    fields: dict[str, _Owned],
    notes: list[Note],
    denied: list[FieldSource],
    read: Set[str],
) -> ir.Policies:
    """Binds the rules of authorizations to the providers whose tokens they are about; limits `read` claims too."""
    wanted = {name: getattr(policies, name) for name in ("authorization", "own_authorization") if name in fields}
    policies = _reading_claims(policies, {rule.provider for each in wanted.values() for rule in each.rules} | read)
    for name, authorization in wanted.items():
        owned_by = fields[name]
        bound = _bind(authorization, policies.jwt, owned_by, fields.get("jwt"), notes)
        if isinstance(bound, ir.Deny):
            policies = replace(policies, deny=policies.deny or bound)
            denied.append(FieldSource("deny", owned_by.policy.key, notes[-1][1].field))
        else:
            policies = replace(policies, **{name: bound})
    return policies


def _bind(
    authorization: ir.Authorization, jwt: ir.Jwt | None, owned: _Owned, tokens: _Owned | None, notes: list[Note]
) -> ir.Authorization | ir.Deny:
    """Binds rules to providers of their own level or a more general one.

    A Gateway's rule never takes a route's provider for its own, whatever its name: else whoever writes the route would
    say whose tokens the Gateway trusts.
    """
    trusted = jwt is not None and tokens is not None and (owned.of_route or not tokens.of_route)
    ids = {each.name: each.id for each in jwt.providers} if jwt is not None and trusted else {}
    rules: list[ir.AuthorizationRule] = []
    for index, rule in enumerate(authorization.rules):
        if rule.provider is None:
            rules.append(rule)
        elif rule.provider in ids:
            rules.append(replace(rule, provider=ids[rule.provider]))
        else:
            effect = "lets nobody in" if rule.allow else "cannot tell whom it refuses, so nobody is let in"
            message = f"there is no JWT provider {rule.provider} at this level or above; the rule {effect}"
            field = f"spec.authorization.rules[{index}].principal.jwt.provider"
            notes.append((owned.policy.key, false("Accepted", "Invalid", message, field)))
            if not rule.allow:
                return ir.Deny(500, f"there is no JWT provider {rule.provider}")
    return replace(authorization, rules=tuple(rules))


def _reading_claims(policies: ir.Policies, providers: Set[str | None]) -> ir.Policies:
    """Marks the JWT providers whose tokens' claims decide: to hand claims on costs each request, so others do not."""
    jwt = policies.jwt
    if jwt is None:
        return policies
    marked = tuple(replace(each, claims_read=each.name in providers) for each in jwt.providers)
    return replace(policies, jwt=replace(jwt, providers=marked))
