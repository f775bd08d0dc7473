from __future__ import annotations

import pytest

from controlplane.api.meta import ENVOY_GATEWAY_GROUP, POLICY_GROUP
from controlplane.conditions import ObjectStatus, ParentRef, ParentStatus, false, true
from tests.unit.status.seen import CONTROLLER, Seen, again, key, written


def test_a_policy_tells_of_each_ancestor() -> None:
    status = ObjectStatus(
        parents=(ParentStatus("", (true("Accepted"),), ParentRef("Gateway", "edge", namespace="demo")),)
    )
    for policy in (key("BackendTLSPolicy"), key("SecurityPolicy", group=POLICY_GROUP)):
        found = written(policy, status)
        (ancestor,) = found["ancestors"]
        assert ancestor["ancestorRef"]["name"] == "edge"
        assert ancestor["controllerName"] == CONTROLLER
        assert again(policy, status, found) is None


def test_a_policy_whose_target_is_missing_says_so_under_the_target() -> None:
    target = ParentRef("HTTPRoute", "gone", namespace="demo")
    missing = false("Accepted", "TargetNotFound", "HTTPRoute demo/gone does not exist", "spec.targetRefs[0].name")
    found = written(key("SecurityPolicy", group=POLICY_GROUP), ObjectStatus((missing,), targets=(target,)))
    assert found["ancestors"][0]["ancestorRef"] == {
        "group": "gateway.networking.k8s.io",
        "kind": "HTTPRoute",
        "namespace": "demo",
        "name": "gone",
    }


@pytest.mark.parametrize("group", [POLICY_GROUP, ENVOY_GATEWAY_GROUP])
def test_a_policy_whose_targets_cannot_be_read_says_so_under_itself(group: str) -> None:
    bad = ObjectStatus((false("Accepted", "Invalid", "expected a list", "spec.targetRefs"),))
    found = written(key("SecurityPolicy", group=group), bad)
    assert found["ancestors"][0]["ancestorRef"]["kind"] == "SecurityPolicy"


def test_a_policy_that_reaches_nothing_of_ours_says_nothing() -> None:
    fine = ObjectStatus((true("Accepted"),))
    assert again(key("SecurityPolicy", group=ENVOY_GATEWAY_GROUP), fine, {}) is None
    assert again(key("BackendTLSPolicy"), ObjectStatus((false("Accepted", "Invalid", ""),)), {}) is None


def test_to_a_full_list_of_ancestors_none_is_added() -> None:
    refs = [ParentRef("Gateway", f"g{n:02}", namespace="demo") for n in range(20)]
    status = ObjectStatus(parents=tuple(ParentStatus("", (true("Accepted"),), ref) for ref in refs))
    policy = key("SecurityPolicy", group=POLICY_GROUP)
    theirs = {"ancestorRef": {"name": "x"}, "controllerName": "example.com/c", "conditions": []}
    found = written(policy, status, Seen({"ancestors": [theirs]}))
    assert [each["ancestorRef"]["name"] for each in found["ancestors"]] == ["x", *(ref.name for ref in refs[:15])]
    assert again(policy, status, found) is None
