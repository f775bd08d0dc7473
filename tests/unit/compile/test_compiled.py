"""What the faults of its rules make of a route (Gateway API: PartiallyInvalid)."""

from __future__ import annotations

from controlplane.compile.compiled import weighed
from controlplane.conditions import Condition, false


def _unsupported(rule: int, field: str = "filters[0].type") -> Condition:
    return false("Accepted", "UnsupportedValue", "not supported", f"spec.rules[{rule}].{field}")


UNRESOLVED = false("ResolvedRefs", "BackendNotFound", "is not there", "spec.rules[0].backendRefs[0].name")


def _seen(*faults: Condition, rules: int) -> list[tuple[str, str]]:
    return [(each.type, each.status) for each in weighed(faults, rules=rules)]


def test_a_route_with_some_valid_rules_is_partially_invalid() -> None:
    faults = (UNRESOLVED, _unsupported(1), _unsupported(1, "filters[1].type"))
    assert _seen(*faults, rules=2) == [("ResolvedRefs", "False"), *[("PartiallyInvalid", "True")] * 2]


def test_a_route_without_a_valid_rule_is_not_accepted() -> None:
    assert _seen(_unsupported(0), _unsupported(1), rules=2) == [("Accepted", "False")] * 2


def test_the_message_begins_as_the_specification_wants_it() -> None:
    (dropped,) = weighed([false("Accepted", "UnsupportedValue", "not supported", "spec.rules[1].x")], rules=2)
    assert dropped.message == "Dropped Rule: spec.rules[1].x: not supported"
    assert dropped.reason == "UnsupportedValue"
