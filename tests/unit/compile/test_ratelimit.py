"""What the limits of a policy count by: which edits have clients count anew, and which do not."""

from __future__ import annotations

from typing import Any

import pytest

from controlplane.api.meta import ObjectKey
from controlplane.compile.ratelimit import Limits, compile_limits
from tests.support import manifests as m
from tests.unit.compile.view import PlainView

OURS = "dragoman.dev/v1alpha1"
USER = {"headers": [{"name": "x-user", "type": "Distinct"}]}


def rule(requests: int = 5, unit: str = "Day", *selectors: Any, **more: Any) -> dict[str, Any]:
    return {"limit": {"requests": requests, "unit": unit}, "clientSelectors": list(selectors), **more}


def compiled(*rules: Any, name: str = "p", api: str = OURS, **more: Any) -> Limits:
    target = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "edge"}
    spec = {"targetRefs": [target], "rateLimit": {"global": {"rules": list(rules), **more}}}
    view = PlainView(m.manifest(api, "BackendTrafficPolicy", name, spec))
    return compile_limits(view.get(ObjectKey(api.partition("/")[0], "BackendTrafficPolicy", "demo", name)), view)


def counters(*rules: Any, name: str = "p", api: str = OURS, **more: Any) -> list[tuple[str, str]]:
    """What stands before the counters of each rule."""
    limit = compiled(*rules, name=name, api=api, **more).global_limit
    assert limit is not None
    return [(each.home, each.name) for each in limit.rules]


ONE, OTHER = rule(), rule(7, "Day", USER)


def test_rules_go_on_counting_where_others_are_added_before_them_or_they_change_places() -> None:
    one, other = counters(ONE, OTHER)
    assert counters(OTHER, ONE) == [other, one]
    assert counters(rule(1, "Second"), ONE, OTHER)[1:] == [one, other]
    assert counters(OTHER) == [other]


@pytest.mark.parametrize(
    "edited",
    [
        rule(500),
        rule(shadowMode=True),
        rule(onStoreError="Deny"),
        rule(precision="Lease", leaseSize=10),
        rule(xRateLimitHeaders="Off"),
    ],
)
def test_an_edit_of_what_a_rule_admits_has_nobody_count_anew(edited: Any) -> None:
    assert counters(edited) == counters(ONE) == counters(ONE, failureMode="Closed", localShield=True)


@pytest.mark.parametrize(
    "edited",
    [
        rule(5, "Hour"),
        rule(5, "Day", USER),
        rule(shared=True),
        rule(algorithm="SlidingWindow"),
        rule(cost={"request": {"from": "Number", "number": 2}}),
    ],
)
def test_a_rule_that_counts_something_else_begins_anew(edited: Any) -> None:
    assert counters(edited) != counters(ONE)


@pytest.mark.parametrize(("mode", "told"), [("Open", "no request is refused"), ("Closed", "with 503")])
def test_a_limit_that_nobody_counts_says_so(mode: str, told: str) -> None:
    target = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "edge"}
    limits = {"global": {"rules": [ONE], "failureMode": mode}, "local": {"rules": [ONE]}}
    made = m.manifest(OURS, "BackendTrafficPolicy", "p", {"targetRefs": [target], "rateLimit": limits})
    key = ObjectKey("dragoman.dev", "BackendTrafficPolicy", "demo", "p")
    view = PlainView(made, rate_limit_service=False)
    (found,) = compile_limits(view.get(key), view).conditions
    assert (found.type, found.field) == ("NotSupported", "spec.rateLimit.global")
    assert told in found.message
    view = PlainView(made)
    assert compile_limits(view.get(key), view).conditions == ()


def test_a_local_limit_that_is_tried_out_says_what_it_takes_from_the_rule_for_all_others() -> None:
    target = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "edge"}
    tried = rule(5, "Day", USER, shadowMode=True)
    key = ObjectKey("dragoman.dev", "BackendTrafficPolicy", "demo", "p")
    told: list[list[str]] = []
    for rules in ([ONE, tried], [tried], [ONE, OTHER]):
        limits = {"local": {"rules": rules}}
        view = PlainView(m.manifest(OURS, "BackendTrafficPolicy", "p", {"targetRefs": [target], "rateLimit": limits}))
        told.append([each.field for each in compile_limits(view.get(key), view).conditions])
    assert told == [["spec.rateLimit.local.rules[1].shadowMode"], [], []]


def test_a_rule_that_never_counts_anything_says_so() -> None:
    nothing, tokens = {"from": "Number", "number": 0}, {"from": "Metadata", "metadata": {"namespace": "a", "key": "b"}}
    looks = rule(cost={"request": nothing})
    found = compiled(ONE, rule(cost={"request": nothing, "response": tokens}), looks).conditions
    assert [each.field for each in found] == ["spec.rateLimit.global.rules[2].cost.request.number"]
    assert compiled(rule(cost={"request": nothing, "response": nothing})).conditions != ()


def test_clients_are_not_told_of_a_limit_that_is_tried_out_unless_it_says_so() -> None:
    told = rule(1, shadowMode=True, xRateLimitHeaders="DraftVersion03")
    limit = compiled(ONE, rule(2, shadowMode=True), told, rule(4, xRateLimitHeaders="Off")).global_limit
    assert limit is not None
    assert [each.headers_shown for each in limit.rules] == [True, False, True, False]


def test_rules_about_the_same_requests_and_policies_of_one_name_count_apart() -> None:
    first, second = counters(ONE, rule(3, shadowMode=True))
    theirs = counters(ONE, api="gateway.envoyproxy.io/v1alpha1")
    assert len({first, second, *theirs, *counters(ONE, name="q")}) == 4
