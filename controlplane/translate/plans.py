# pyright: standard, reportAttributeAccessIssue=false
"""Limits of plans as descriptors: what Envoy says of who calls, and what the rate limit service has for whom.

A plan's limits are told apart by *slots*: the first limit per consumer of every plan is in one slot, the second in
another. Envoy says slot, plan and caller, so that neither a Plan that is edited nor a caller that has another plan
changes a route. What Envoy says is worked out by expressions that fail where they do not apply; then the descriptor is
not sent.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from controlplane import ir
from controlplane.translate import claims
from controlplane.translate.counting import UNITS, counting_of
from controlplane.translate.descriptors import RateLimit, expression, generic
from controlplane.translate.requests import until_done
from dragoman.protos.ratelimit.config.ratelimit.v3 import rls_conf_pb2 as rls

PLANS_KEY: Final = "plans"
_PLAN_KEY: Final = "plan"
_CONSUMER_KEY: Final = "consumer"
_TENANT_KEY: Final = "tenant"
_ANONYMOUS_KEY: Final = "anonymous"
_ADDRESS_KEY: Final = "masked_remote_address"
# Whoever has one address of IPv6 has all of its network: they would be as many callers.
_NETWORK_BITS: Final = 64
# Where ext_authz puts what a key proves.
_KEY_METADATA: Final = "envoy.filters.http.ext_authz"
_ALWAYS, _NEVER = "true", "false"


class _Slot(NamedTuple):
    """A place for one limit of every plan; `running` are limits of requests that run at a time."""

    per: ir.Per | None  # None: per address, of anonymous callers
    running: bool
    position: int

    @property
    def value(self) -> str:
        kind = (self.per or "Anonymous").lower()
        return f"{kind}.running.{self.position}" if self.running else f"{kind}.{self.position}"

    def limit(self, limits: Iterable[ir.CallerLimit]) -> ir.CallerLimit | None:
        """Returns the limit that is in this slot."""
        alike = [each for each in limits if each.counting.until_done is self.running]
        return alike[self.position] if self.position < len(alike) else None


class _Value(NamedTuple):
    """Expressions (CEL): whether a request has a value, which never fails, and the value, which fails without one.

    `path` is where ext_authz has it, a text whenever it is there: that can be asked without expressions.
    """

    present: str
    text: str
    path: tuple[str, ...] = ()

    def entry(self, key: str) -> Any:
        """Returns the entry of requests that have the value."""
        return _of_key(key, self.path) if self.path else expression(key, self.text)


# -- what Envoy says --


def rate_limits(plans: ir.Plans, policies: ir.Policies, *, running: bool = True) -> Iterator[Any]:
    """Yields the descriptors of a request; `policies` say what proves who calls.

    Without `running` those of limits of running requests are left out.
    """
    who, tokens = plans.identity, policies.tokens
    plan = _value(who, who.plan if who.source != "Key" else f"metadata.{who.plan}", tokens)
    consumer = _value(who, who.consumer if who.source != "Key" else "consumer", tokens)
    tenant = _value(who, who.tenant if who.source != "Key" else "tenant", tokens)
    if who.source == "Key":
        # Where a key is asked for, nobody passes without one; elsewhere nobody is known by one.
        # Those of `apiKeyAuth` come from whoever writes a route, and so do not say who calls.
        asked = policies.keys is not None and not policies.keys.known
        consumer = consumer._replace(present=_ALWAYS if asked else _NEVER)
    for slot in _slots(plans):
        if slot.running and not running:
            continue
        for entries in _entries(plans, slot, plan, consumer, tenant):
            message = RateLimit(actions=[generic(_first_key(plans), slot.value), *entries])
            yield from until_done(message, running=slot.running)


def _entries(plans: ir.Plans, slot: _Slot, plan: _Value, consumer: _Value, tenant: _Value) -> Iterator[Sequence[Any]]:
    """Yields the entries behind the slot, each time for callers of another sort."""
    named = f"({plan.present} ? {plan.text} : {_quoted(plans.default)})"
    named_entry = _of_key(_PLAN_KEY, plan.path, plans.default) if plan.path else expression(_PLAN_KEY, named)
    if consumer.present == (_ALWAYS if slot.per is None else _NEVER) and slot.per != "Plan":
        return
    if slot.per == "Consumer":
        yield named_entry, consumer.entry(_CONSUMER_KEY)
    elif slot.per == "Tenant":
        yield named_entry, tenant.entry(_TENANT_KEY)
        yield named_entry, expression(_CONSUMER_KEY, f"{{false: {consumer.text}}}[{tenant.present}]")
    elif slot.per == "Plan":
        names = ", ".join(_quoted(each.name) for each in plans.plans)
        known = f"({named} in [{names}] ? {named} : {_quoted(plans.default)})"
        if consumer.present == _NEVER:
            yield (generic(_PLAN_KEY, plans.anonymous),)
        else:
            yield (expression(_PLAN_KEY, f"{consumer.present} ? {known} : {_quoted(plans.anonymous)}"),)
    else:
        nobody = expression(_ANONYMOUS_KEY, f"{{false: 'true'}}[{consumer.present}]")
        anonymous = generic(_ANONYMOUS_KEY, "true") if consumer.present == _NEVER else nobody
        masked = RateLimit.Action.MaskedRemoteAddress(v6_prefix_mask_len={"value": _NETWORK_BITS})
        yield anonymous, RateLimit.Action(masked_remote_address=masked)


def _value(who: ir.PlanIdentity, name: str, tokens: Mapping[str, str]) -> _Value:
    if who.source == "Headers":
        header = _quoted(name.lower())
        return _Value(f"({header} in request.headers)", f"request.headers[{header}]")
    if who.source == "Key":
        path = tuple(name.split(".", 1))
        return _in_metadata([(_KEY_METADATA, *path)])._replace(path=path)
    return _in_metadata([(claims.METADATA, id_, *name.split(".")) for id_ in claims.ids_of(who.provider, tokens)])


def _in_metadata(places: Sequence[Sequence[str]]) -> _Value:
    """Returns the value of the first place that there is."""
    found = [_Value(_presence(each), claims.path(each)) for each in places]
    if len(found) == 1:
        return found[0]
    if not found:
        return _Value(_NEVER, claims.path(("dragoman.nowhere", "")))
    text = "".join(f"{each.present} ? {each.text} : " for each in found[:-1]) + found[-1].text
    return _Value(f"({' || '.join(each.present for each in found)})", f"({text})")


def _of_key(key: str, path: Sequence[str], default: str = "") -> Any:
    metadata = {"key": _KEY_METADATA, "path": [{"key": step} for step in path]}
    return RateLimit.Action(metadata={"descriptor_key": key, "metadata_key": metadata, "default_value": default})


def _presence(steps: Sequence[str]) -> str:
    return f"({claims.presence(steps)})"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


# -- what the service has for whom --


def descriptors(
    plans: ir.Plans, on_error: rls.OnStoreError, *, unknown: bool = True
) -> Iterator[rls.RateLimitDescriptor]:
    """Yields the limits of all plans, a descriptor a slot; with `unknown` also those of callers whose plan is none."""
    for slot in _slots(plans):
        if slot.per is None:
            found = _anonymous(plans, slot, on_error)
        else:
            found = [_of_plan(each, slot, slot.per, on_error) for each in plans.plans]
            default = plans.find(plans.default)
            if unknown and default is not None and slot.per != "Plan":
                others = _of_plan(default, slot, slot.per, on_error)
                others.value = ""
                found.append(others)
        yield rls.RateLimitDescriptor(key=_first_key(plans), value=slot.value, descriptors=found)


def _of_plan(plan: ir.Plan, slot: _Slot, per: ir.Per, on_error: rls.OnStoreError) -> rls.RateLimitDescriptor:
    """Returns the plan's part of a slot; without a limit in it, a part that limits nobody."""
    found = rls.RateLimitDescriptor(key=_PLAN_KEY, value=plan.name)
    limit = slot.limit(plan.limits(per))
    if per == "Plan":
        _set(found, limit, on_error)
        return found
    for key in (_CONSUMER_KEY,) if per == "Consumer" else (_TENANT_KEY, _CONSUMER_KEY):
        if limit is not None:
            _set(found.descriptors.add(key=key), limit, on_error)
    key = _CONSUMER_KEY if per == "Consumer" else _TENANT_KEY
    for override in plan.overrides(per):
        own = slot.limit(override.limits)
        if own is not None or limit is not None:
            _set(found.descriptors.add(key=key, value=override.caller), own, on_error)
    return found


def _anonymous(plans: ir.Plans, slot: _Slot, on_error: rls.OnStoreError) -> list[rls.RateLimitDescriptor]:
    address = rls.RateLimitDescriptor(key=_ADDRESS_KEY)
    _set(address, slot.limit(plans.by_address), on_error)
    return [rls.RateLimitDescriptor(key=_ANONYMOUS_KEY, value="true", descriptors=[address])]


def _set(descriptor: rls.RateLimitDescriptor, limit: ir.CallerLimit | None, on_error: rls.OnStoreError) -> None:
    if limit is None:
        descriptor.rate_limit.unlimited = True
        return
    descriptor.shadow_mode = limit.shadow
    descriptor.rate_limit.unit = UNITS[limit.unit]
    descriptor.rate_limit.requests_per_unit = limit.requests
    descriptor.rate_limit.dragoman.CopyFrom(counting_of(limit.counting, on_error))
    # As of rules: who is told that nothing is left stops by himself.
    descriptor.rate_limit.dragoman.hidden = limit.shadow


def _first_key(plans: ir.Plans) -> str:
    """Returns the key of the slots: plans count together wherever they are in force, alone or merged with others."""
    return f"{plans.home}_{PLANS_KEY}"


# -- slots --


def _slots(plans: ir.Plans) -> Iterator[_Slot]:
    """Yields as many slots as any plan needs of each sort."""
    for per, running, count in plans.slots:
        yield from (_Slot(per, running, index) for index in range(count))
