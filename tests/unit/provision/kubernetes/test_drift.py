"""What an object says in the fields that were applied."""

from __future__ import annotations

from typing import Any

import pytest

from controlplane.provision.kubernetes.drift import projected
from controlplane.provision.kubernetes.quantities import parse_quantity

APPLIED: dict[str, Any] = {
    "spec": {
        "replicas": 2,
        "containers": [{"name": "envoy", "cpu": "0.5"}],
        "args": ["-c"],
        "items": [{"path": "token"}],
    }
}
SEEN: dict[str, Any] = {
    "spec": {
        "replicas": 2,
        "added": True,
        "containers": [{"name": "more"}, {"name": "envoy", "cpu": "500m", "pull": "Always"}],
        "args": ["-c"],
        "items": [{"path": "token", "mode": 1}],
    },
    "status": {"ready": 1},
}


def changed(**spec: Any) -> dict[str, Any]:
    return {**SEEN, "spec": {**SEEN["spec"], **spec}}


@pytest.mark.parametrize(
    "other", [changed(added=False), {**SEEN, "status": {}}, changed(containers=SEEN["spec"]["containers"][1:])]
)
def test_what_others_add_is_no_change(other: dict[str, Any]) -> None:
    assert projected(other, APPLIED) == projected(SEEN, APPLIED)


@pytest.mark.parametrize(
    "other",
    [changed(replicas=3), changed(containers=[]), changed(args=["-c", "x"]), changed(items=[]), {"spec": None}, {}],
)
def test_a_change_of_what_was_applied_is_seen(other: dict[str, Any]) -> None:
    assert projected(other, APPLIED) != projected(SEEN, APPLIED)


@pytest.mark.parametrize(
    ("text", "value"),
    [("2", 2), ("500m", 0.5), ("1Gi", 2**30), ("1.5k", 1500), ("1e3", 1000), (2, 2), ("1E", 10**18), ("128Mi", 2**27)],
)
def test_quantities_are_read_as_kubernetes_writes_them(text: object, value: float) -> None:
    found = parse_quantity(text)
    assert found is not None
    assert float(found) == value


@pytest.mark.parametrize("text", ["", "lots", "-1", "1 Gi", "1.2.3", "1Q"])
def test_what_is_no_quantity_is_none(text: str) -> None:
    assert parse_quantity(text) is None
