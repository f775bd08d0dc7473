"""The API server and Dragoman agree on what is good, whatever one puts into a field."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from controlplane.api.crds import definitions
from controlplane.api.load import load
from tests.cluster.definitions import dry_run, install
from tests.support.cluster import Cluster
from tests.support.cluster_api import ApiError

DOCUMENTS = list(yaml.safe_load_all((Path(__file__).parent / "crd_full.yaml").read_text("utf-8")))
VALUES: tuple[Any, ...] = (
    "",
    "A B",
    "a",
    "10s",
    "10.0.0.0/8",
    "x" * 300,
    "/a//b",
    -1,
    0,
    70_000,
    1.5,
    True,
    [],
    {},
    ["a"],
)
Path_ = tuple[str | int, ...]

# The server cannot look into the members of a principal whose shape nobody has described yet, and counts its fields.
KNOWN = {
    "SecurityPolicy spec.authorization.rules.principal.clientCIDRs",
    "SecurityPolicy spec.authorization.rules.principal.headers",
}


@pytest.fixture(scope="module")
def server(cluster: Cluster) -> Cluster:
    """The cluster with our definitions."""
    install(cluster)
    return cluster


def test_there_is_an_object_of_each_kind_to_start_from() -> None:
    assert {each["kind"] for each in DOCUMENTS} == {made["spec"]["names"]["kind"] for _, made in definitions()}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document["kind"])
def test_both_take_or_both_refuse_every_change_of_a_field(server: Cluster, document: dict[str, Any]) -> None:
    assert load(document).faults == ()
    dry_run(server, document)
    changes = list(_changes(document["spec"]))
    with ThreadPoolExecutor(8) as threads:
        judged = threads.map(lambda change: _judge(server, {**document, "spec": change[2]}), changes)
        apart = {
            f"{document['kind']} {_name(path)} = {what!r}: {verdict}"
            for (path, what, _), verdict in zip(changes, judged, strict=True)
            if verdict and f"{document['kind']} {_name(path)}" not in KNOWN
        }
    assert sorted(apart) == []


def _judge(server: Cluster, document: dict[str, Any]) -> str:
    """Who refuses it, if not both or neither."""
    faults = load(document).faults
    try:
        dry_run(server, document)
    except ApiError as refused:
        return "" if faults else f"only the server refuses: {refused.message}"
    return f"only Dragoman refuses: {faults[0]}" if faults else ""


def _changes(spec: dict[str, Any]) -> Iterator[tuple[Path_, Any, dict[str, Any]]]:
    seen: set[str] = set()
    for path in _paths(spec, ()):
        # One item of a list stands for all that have the same fields.
        if _name(path) in seen:
            continue
        seen.add(_name(path))
        for value in VALUES:
            yield path, value, _changed(spec, path, lambda at, step, value=value: at.__setitem__(step, value))
        yield path, "nothing", _changed(spec, path, lambda at, step: at.__delitem__(step))
        if isinstance(path[-1], int):
            yield path, "it twice", _changed(spec, path, lambda at, step: at.append(copy.deepcopy(at[step])))


def _paths(node: Any, here: Path_) -> Iterator[Path_]:
    steps = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for step, below in steps:
        yield (*here, step)
        yield from _paths(below, (*here, step))


def _changed(spec: dict[str, Any], path: Path_, change: Callable[[Any, Any], None]) -> dict[str, Any]:
    changed = copy.deepcopy(spec)
    at: Any = changed
    for step in path[:-1]:
        at = at[step]
    change(at, path[-1])
    return changed


def _name(path: Path_) -> str:
    return ".".join(["spec", *(step for step in path if isinstance(step, str))])
