"""Limits with mode Quota: which of them Envoys enforce, and into which bucket a request is counted.

The conditions are those of `translate.filters.rate_limit_quota`, judged as Envoy judges them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple
from urllib.parse import unquote

from controlplane import ir
from controlplane.api.backendtrafficpolicy import BackendTrafficPolicy
from controlplane.api.meta import ObjectKey
from controlplane.compile.policies import Merged
from controlplane.compile.ratelimit import Limits
from controlplane.conditions import Condition
from controlplane.explain import limits
from controlplane.explain.match import fullmatch
from controlplane.explain.model import Quota, Source
from controlplane.explain.request import Seen
from controlplane.explain.sources import Locate
from controlplane.pipeline import Pipeline
from controlplane.translate.filters.rate_limit_quota import bucket_id, passes_without_share
from controlplane.translate.paths import path_regex
from controlplane.translate.services import QUOTA_CLUSTER


class _Verdict(NamedTuple):
    """Whether a rule is about a request (None: that is not known), and why not, or what it takes."""

    holds: bool | None
    why: str = ""


def quotas(pipeline: Pipeline, request: Seen, policies: ir.Policies, merged: Merged, locate: Locate) -> Iterator[Quota]:
    """Yields the rules with mode Quota of all policies that have a part in the limits of a route."""
    if policies.deny is not None:
        return
    before: dict[str, bool | None] = {}
    for owner in dict.fromkeys(each.policy for each in merged.sources if each.field == "global_limit"):
        compiled = pipeline.parts.policies.compiled.get(owner)
        if not isinstance(compiled, Limits) or compiled.global_limit is None:
            continue
        for index in _with_mode_quota(pipeline, owner):
            field = f"spec.rateLimit.global.rules[{index}]"
            source = locate(owner, field)
            limit = policies.global_limit
            # Where Envoys enforce some rules, the limits are all those of one policy, and as it has them.
            if limit is None or not limit.has_quotas or not limit.rules[index].counting.quota:
                words = limits.in_words((compiled.global_limit.rules[index],))
                why = _hindrance([*_notes(merged, owner), *compiled.conditions], f"{field}.mode")
                yield _asked(pipeline, words, source, why)
                continue
            own = _judged(limit.rules[index], request, policies)
            yield _enforced(pipeline, limit, index, _in_order(own, before), source, policies.limit_scope)
            if own.holds is not False:
                before[field] = own.holds


def _asked(pipeline: Pipeline, words: str, source: Source, why: str) -> Quota:
    if pipeline.objects.rate_limit_service:
        return Quota(words, source, False, "the rate limit service is asked about each request", why=why)
    where = "there is no rate limit service that could be asked"
    return Quota(words, source, False, where, why=f"{why}, and there is none (--ratelimit)")


def _enforced(
    pipeline: Pipeline, limit: ir.GlobalLimit, index: int, verdict: _Verdict, source: Source, scope: str
) -> Quota:
    rule = limit.rules[index]
    bucket = {key: scope if value is None else value for key, value in bucket_id(limit, index, rule)}
    where = _where(pipeline, limit, rule)
    return Quota(limits.in_words((rule,)), source, True, where, verdict.holds, verdict.why, bucket)


def _with_mode_quota(pipeline: Pipeline, policy: ObjectKey) -> Iterator[int]:
    found = pipeline.parts.objects.get(policy)
    asked = found.spec.rate_limit if isinstance(found, BackendTrafficPolicy) else None
    rules = asked.global_.rules if asked is not None and asked.global_ is not None else ()
    return (index for index, rule in enumerate(rules) if rule.mode == "Quota")


def _notes(merged: Merged, policy: ObjectKey) -> Iterator[Condition]:
    return (condition for owner, condition in merged.notes if owner == policy)


def _hindrance(conditions: Iterable[Condition], field: str) -> str:
    return next((each.message for each in conditions if each.field == field), "")


def _where(pipeline: Pipeline, limit: ir.GlobalLimit, rule: ir.LimitRule) -> str:
    addresses = sorted(pipeline.guards.endpoints.get(QUOTA_CLUSTER) or ())
    at = f" at {addresses[0]}" if addresses else ""
    if rule.shadow:
        return f"each Envoy lets all pass, and reports how many to the rate limit service{at}"
    passing = "all pass" if passes_without_share(limit, rule) else "none passes"
    return f"each Envoy enforces the share that the rate limit service{at} assigns to it; until it has one, {passing}"


def _judged(rule: ir.LimitRule, request: Seen, policies: ir.Policies) -> _Verdict:
    """Returns whether all conditions of a rule hold."""
    found = list(_conditions(rule, request, policies))
    missing = next((each for each in found if each.holds is False), None)
    if missing is not None:
        return missing
    unknown = [each.why for each in found if each.holds is None]
    return _Verdict(None, "; ".join(unknown)) if unknown else _Verdict(True)


def _in_order(own: _Verdict, before: Mapping[str, bool | None]) -> _Verdict:
    """Returns the verdict where the first rule that is about a request counts it; `before` are those that (may) be."""
    if own.holds is False or not before:
        return own
    certain = next((field for field, holds in before.items() if holds), None)
    if certain is not None:
        return _Verdict(False, f"{certain} is about it, and comes first")
    earlier = f"if it is not counted by {' or '.join(before)}, which comes first"
    return _Verdict(None, "; ".join(filter(None, [own.why, earlier])))


def _conditions(rule: ir.LimitRule, request: Seen, policies: ir.Policies) -> Iterator[_Verdict]:
    for each in rule.headers:
        name = each.name.lower()
        if name in policies.identity_headers:
            yield _Verdict(None, f"the header {name} is set by what the caller proves to be")
            continue
        given = request.headers.get(name)
        yield _value("header", name, each, ",".join(given) if given is not None else None)
    for path in rule.paths:
        holds = fullmatch(path_regex(path), request.target) is not path.invert
        yield _Verdict(holds, f"the path is {request.path}")
    for methods in rule.methods:
        holds = any((request.method == method) is not invert for method, invert in methods)
        yield _Verdict(holds, f"the method is {request.method}")
    # Unlike routes, matchers of such inputs see parameters decoded.
    parameters = {unquote(name): unquote(value) for name, value in request.query.items()}
    for each in rule.query:
        yield _value("query parameter", each.name, each, parameters.get(each.name))
    for source in rule.sources:
        yield _Verdict(None, f"the client's address must {'not ' if source.invert else ''}be of {source.cidr}")


def _value(what: str, name: str, selector: ir.ValueSelector, given: str | None) -> _Verdict:
    """Judges a value; what is not there is no match, and so it is one of an inverted selector."""
    if given is None:
        matches = False
    elif selector.kind == "RegularExpression":
        matches = fullmatch(selector.value, given)
    else:
        matches = given == selector.value
    return _Verdict(matches is not selector.invert, f"{what} {name} is {'not given' if given is None else given}")
