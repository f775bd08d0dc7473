"""Rules with `mode: Quota`: which of them Envoys can enforce by shares; of the others the service is asked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from controlplane.api.ratelimit import GlobalRateLimitRule


def hindrances(rules: Sequence[GlobalRateLimitRule], *, enabled: bool) -> Iterator[tuple[int, str]]:
    """Yields the position of each rule with `mode: Quota` that cannot have it, and why.

    Envoy counts a request into one bucket: that of the first rule with `mode: Quota` that matches it.
    """
    general: int | None = None
    for index, rule in enumerate(rules):
        if rule.mode != "Quota":
            continue
        reason = _reason(rule) if enabled else "no quota service is known (--ratelimit-quota)"
        if reason is None and general is not None:
            reason = f"rules[{general}] with mode Quota is about all requests, and only one rule can count a request so"
        if reason is not None:
            yield index, reason
        elif not rule.client_selectors:
            general = index


def _reason(rule: GlobalRateLimitRule) -> str | None:
    for condition in rule.client_selectors:
        for name, given in (("headers", condition.headers), ("queryParams", condition.query_params)):
            if any(each.type == "Distinct" for each in given):
                return f"{name} of type Distinct need a bucket for each value, which Envoy never forgets by itself"
        if condition.source_cidr is not None and condition.source_cidr.type == "Distinct":
            return "sourceCIDR of type Distinct needs a bucket for each address, which Envoy never forgets by itself"
        if condition.claims:
            return "Envoy cannot choose a bucket by claims"
    if rule.limit.from_metadata is not None:
        return "a limit that comes with requests cannot be divided"
    cost = rule.cost
    if cost is not None and cost.response is not None:
        return "Envoy counts requests, not responses"
    if cost is not None and cost.request is not None and cost.request.number != 1:
        return "Envoy counts each request as one"
    if rule.precision == "Lease":
        return "leases are for limits that are asked about"
    return None
