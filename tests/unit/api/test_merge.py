"""Patches merge into documents as Kubernetes merges them."""

from __future__ import annotations

from typing import Any

from controlplane.api.merge import json_merge, strategic_merge

POD: dict[str, Any] = {
    "containers": [{"name": "a", "image": "one", "ports": [{"containerPort": 1, "name": "x"}]}, {"name": "b"}],
    "tolerations": [{"key": "t"}],
    "nodeSelector": {"disk": "ssd", "zone": "1"},
}


def test_a_json_merge_patch_replaces_lists_and_removes_by_null() -> None:
    patch = {"containers": [{"name": "c"}], "nodeSelector": {"disk": None}, "new": {"a": {"b": None, "c": 1}}}
    assert json_merge(POD, patch) == {
        "containers": [{"name": "c"}],
        "tolerations": [{"key": "t"}],
        "nodeSelector": {"zone": "1"},
        "new": {"a": {"c": 1}},
    }


def test_a_strategic_merge_joins_named_things_and_replaces_other_lists() -> None:
    patch = {
        "containers": [{"name": "b", "image": "two"}, {"name": "c"}, {"name": "a", "ports": [{"containerPort": 2}]}],
        "tolerations": [{"key": "u"}],
    }
    merged = strategic_merge(POD, patch)
    assert merged["containers"] == [
        {"name": "a", "image": "one", "ports": [{"containerPort": 1, "name": "x"}, {"containerPort": 2}]},
        {"name": "b", "image": "two"},
        {"name": "c"},
    ]
    assert merged["tolerations"] == [{"key": "u"}]
    assert POD["containers"][1] == {"name": "b"}


def test_a_strategic_merge_deletes_and_replaces_where_it_says_so() -> None:
    patch = {"containers": [{"name": "a", "$patch": "delete"}], "nodeSelector": {"$patch": "replace", "new": "1"}}
    merged = strategic_merge(POD, patch)
    assert merged["containers"] == [{"name": "b"}]
    assert merged["nodeSelector"] == {"new": "1"}
    assert strategic_merge(POD, {"containers": [{"$patch": "replace"}, {"name": "z"}]})["containers"] == [{"name": "z"}]
    assert strategic_merge(POD, {"nodeSelector": {"$patch": "delete"}})["nodeSelector"] == {}
