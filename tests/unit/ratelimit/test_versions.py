# pyright: standard, reportAttributeAccessIssue=false
"""Requests that name another version of a policy than the service knows: an edit reaches Envoys and it apart."""

from __future__ import annotations

import pytest

from controlplane import ir
from ratelimit_service.model import OnStoreError
from tests.support.ratelimit_policies import PolicyService, limits

OK, OVER = 1, 2
EACH_USER = (ir.ValueSelector("x-user", "Distinct"),)
ALL, USERS = ir.LimitRule(2, "Day", shared=True), ir.LimitRule(1, "Day", headers=EACH_USER)
KNOWN = limits("demo/shop", ALL, USERS)


def edited(*rules: ir.LimitRule, policy: str = "demo/shop") -> ir.GlobalLimit:
    found = limits(policy, *rules)
    assert found.domain != KNOWN.domain
    return found


def test_what_an_edit_left_as_it_is_counts_on_by_the_numbers_that_are_known() -> None:
    service = PolicyService(KNOWN)
    raised = edited(ir.LimitRule(0, "Hour", shared=True), USERS, ir.LimitRule(100, "Day", shared=True))
    assert [service.ask(each, at).overall_code for each, at in ((KNOWN, 0), (raised, 2), (raised, 2))] == [OK, OK, OVER]
    # Of a rule that is new nothing is known, and it keeps no other from being asked about.
    assert [service.ask(raised, 0, 1, values="ada").overall_code for _ in range(2)] == [OK, OVER]
    assert service.stats.other_version == 4
    assert service.stats.unknown_domain == 0


def test_the_version_that_a_request_names_counts_as_soon_as_it_is_known() -> None:
    raised = edited(ir.LimitRule(5, "Day", shared=True))
    service = PolicyService(KNOWN)
    assert [service.ask(raised, 0).overall_code for _ in range(3)] == [OK, OK, OVER]
    service.use(KNOWN, raised)
    assert [service.ask(raised, 0).statuses[0].limit_remaining for _ in range(2)] == [1, 0]


def test_of_several_versions_the_newest_counts_that_knows_most_of_what_is_asked() -> None:
    service = PolicyService(KNOWN, edited(ir.LimitRule(7, "Day", shared=True)))
    gone = edited(ALL, USERS, ir.LimitRule(1, "Year", shared=True))
    assert service.ask(gone, 0).statuses[0].current_limit.requests_per_unit == 7
    assert service.ask(gone, 0, 1, values="ada").statuses[0].current_limit.requests_per_unit == 2


@pytest.mark.parametrize(
    "asked",
    [
        edited(ir.LimitRule(2, "Hour", shared=True)),
        edited(ALL, policy="demo/other"),
        edited(ALL, policy="demo/shop/more"),
        edited(ALL, policy="shop"),
    ],
    ids=["other-rules", "other-policy", "below", "without-namespace"],
)
def test_without_any_rule_in_common_envoy_decides_by_its_failure_mode(asked: ir.GlobalLimit) -> None:
    service = PolicyService(KNOWN, unknown_domain=None)
    assert service.failure(asked, 0) == "UNAVAILABLE"
    assert service.stats.unknown_domain == 1
    assert service.stats.malformed == 0


def test_with_shadow_mode_for_all_nothing_is_refused_that_is_not_known() -> None:
    service = PolicyService(unknown_domain=None, shadow_mode=True)
    assert service.ask(KNOWN, 0).overall_code == OK


def test_what_is_set_for_unknown_domains_holds() -> None:
    assert PolicyService(unknown_domain=OnStoreError.DENY).ask(KNOWN, 0).overall_code == OVER
    assert PolicyService(unknown_domain=OnStoreError.ALLOW).ask(KNOWN, 0).overall_code == OK
