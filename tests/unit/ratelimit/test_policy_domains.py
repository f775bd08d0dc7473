# pyright: standard, reportAttributeAccessIssue=false
"""What our control plane asks of the service beyond envoyproxy/ratelimit's format: limits of policies that were merged,
limits that requests bring, and limits that clients are not told of.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from controlplane import ir
from ratelimit_service.headers import ResponseHeaders
from tests.support.ratelimit_policies import PolicyService, limits

OK, OVER = 1, 2
LONG = "x" * 600


def header(response: Any, name: str) -> str | None:
    return next((each.value for each in response.response_headers_to_add if each.key.lower() == name), None)


GATEWAYS = limits(
    "demo/edge",
    ir.LimitRule(3, "Day", shared=True),
    ir.LimitRule(2, "Day", headers=(ir.ValueSelector("x-user", "Distinct"),)),
)
OWN = limits("demo/own", ir.LimitRule(10, "Day", shared=True))


@pytest.mark.parametrize("user", ["ada", LONG])
def test_a_rule_that_was_merged_into_another_policy_counts_with_those_of_its_own(user: str) -> None:
    both = ir.GlobalLimit("demo/own", (*GATEWAYS.rules, *OWN.rules))
    service = PolicyService(GATEWAYS, both)
    assert [service.ask(each, 0).overall_code for each in (GATEWAYS, both, GATEWAYS, both)] == [OK, OK, OK, OVER]
    assert service.ask(GATEWAYS, 0).overall_code == OVER
    codes = [service.ask(each, 1, values=user).overall_code for each in (both, GATEWAYS, both, GATEWAYS)]
    assert codes == [OK, OK, OVER, OVER]
    assert service.ask(both, 1, values="grace").overall_code == OK
    assert service.ask(both, 2).statuses[0].limit_remaining == 9


def test_a_limit_that_a_request_brings_leaves_all_else_of_the_rule_as_it_is() -> None:
    rule = ir.LimitRule(
        5,
        "Hour",
        headers=(ir.ValueSelector("x-user", "Distinct"),),
        limit_from=ir.MetadataSource("a", "b"),
        shadow=True,
        headers_shown=False,
    )
    limit = ir.GlobalLimit("demo/brought", (rule, replace(rule, shadow=False, headers_shown=True)))
    service = PolicyService(limit)
    for _ in range(2):
        shadowed = service.ask(limit, 0, values="ada", brought=(1, 3))
        assert shadowed.overall_code == OK
        assert (shadowed.statuses[0].current_limit.requests_per_unit, shadowed.statuses[0].current_limit.unit) == (1, 3)
        assert header(shadowed, "x-ratelimit-limit") is None
    codes = [service.ask(limit, 1, values="ada", brought=(1, 4)).overall_code for _ in range(2)]
    assert codes == [OK, OVER]
    assert service.ask(limit, 1, values="bob", brought=(1, 4)).overall_code == OK
    assert service.ask(limit, 1, values="eve").statuses[0].current_limit.requests_per_unit == 5


def test_a_number_too_large_for_a_bucket_is_counted_in_windows() -> None:
    counting = ir.Counting("TokenBucket", burst=3)
    limit = ir.GlobalLimit(
        "demo/b", (ir.LimitRule(5, "Hour", shared=True, limit_from=ir.MetadataSource("a", "b"), counting=counting),)
    )
    service = PolicyService(limit)
    response = service.ask(limit, 0, brought=(2**32 - 1, 6))
    assert (response.overall_code, response.statuses[0].limit_remaining) == (OK, 2**32 - 2)
    assert [service.ask(limit, 0, brought=(2, 3)).overall_code for _ in range(3)] == [OK, OK, OVER]


@pytest.mark.parametrize("headers", [ResponseHeaders.DRAFT_03, ResponseHeaders.IETF, ResponseHeaders.BOTH])
def test_clients_are_not_told_of_a_hidden_limit_but_when_to_come_back(headers: ResponseHeaders) -> None:
    hidden, shown = ir.LimitRule(1, "Day", shared=True, headers_shown=False), ir.LimitRule(7, "Hour", shared=True)
    limit = ir.GlobalLimit("demo/h", (hidden, shown))
    service = PolicyService(limit, headers=headers)
    both = service.ask(limit, 0, 1)
    assert both.overall_code == OK
    told = " ".join(f"{each.key}={each.value}" for each in both.response_headers_to_add)
    assert "7" in told
    assert "day" not in told
    assert "86400" not in told
    for positions in ((0,), (0, 1)):
        refused = service.ask(limit, *positions)
        assert refused.overall_code == OVER
        assert int(header(refused, "retry-after") or 0) > 0
        names = {each.key.lower() for each in refused.response_headers_to_add}
        assert ("x-ratelimit-limit" in names or "ratelimit" in names) is (len(positions) == 2)
        assert "86400" not in " ".join(each.value for each in refused.response_headers_to_add)
