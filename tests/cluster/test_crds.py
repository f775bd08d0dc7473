"""Our CustomResourceDefinitions on a real API server: what is good is taken, what is bad is refused, by its field."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from controlplane.api.load import load
from tests.cluster.definitions import DEFINITIONS, GROUP, ROOT, dry_run, install
from tests.support.cluster import Cluster
from tests.support.cluster_api import ApiError

CASES = yaml.safe_load((Path(__file__).parent / "crd_cases.yaml").read_text("utf-8"))
TARGET = {"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": "open"}
GATEWAY = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "edge"}


@pytest.fixture(scope="module")
def server(cluster: Cluster) -> Cluster:
    """The cluster with our definitions."""
    install(cluster)
    return cluster


def _manifests() -> Iterator[Any]:
    """Every object of our group in the examples and in what the golden tests read."""
    for path in [*ROOT.glob("examples/**/*.yaml"), *ROOT.glob("tests/unit/golden/*.in.yaml")]:
        for number, document in enumerate(yaml.safe_load_all(path.read_text("utf-8"))):
            if isinstance(document, dict) and str(document.get("apiVersion", "")).startswith(f"{GROUP}/"):
                yield pytest.param(document, id=f"{path.relative_to(ROOT)}:{number}")


def _bad(case: dict[str, Any]) -> dict[str, Any]:
    targets = {"targetRefs": [TARGET]} if case.get("target") else {}
    return {
        "apiVersion": f"{GROUP}/v1alpha1",
        "kind": case["kind"],
        "metadata": {"name": "bad"},
        "spec": {**targets, **case["spec"]},
    }


@pytest.mark.parametrize("document", list(_manifests()))
def test_the_server_takes_what_a_folder_takes(server: Cluster, document: dict[str, Any]) -> None:
    if load(document).faults:
        pytest.skip("made to be refused")
    taken = dry_run(server, document)
    # With what the server adds it still means something to us, and nothing of it went missing.
    assert load(taken).faults == ()
    assert _within(document["spec"], taken["spec"])


def _within(part: Any, whole: Any) -> bool:
    if isinstance(part, dict) and isinstance(whole, dict):
        return all(value is None or _within(value, whole.get(name)) for name, value in part.items())
    if isinstance(part, list) and isinstance(whole, list):
        return len(part) == len(whole) and all(map(_within, part, whole))
    return bool(part == whole)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['kind']}:{case['field']}")
def test_the_server_refuses_what_is_bad_and_names_the_field(server: Cluster, case: dict[str, Any]) -> None:
    with pytest.raises(ApiError) as refused:
        dry_run(server, _bad(case))
    assert refused.value.status == 422
    field, star, _ = case["field"].partition("*")
    assert field in refused.value.message if star else f"{field}: " in refused.value.message


def test_every_rule_refuses_something(server: Cluster) -> None:
    said = ""
    for case in CASES:
        with pytest.raises(ApiError) as refused:
            dry_run(server, _bad(case))
        said += refused.value.message
    rules = {rule["message"] for rule in _rules(DEFINITIONS)}
    assert sorted(message for message in rules if message not in said) == []


def _rules(node: Any) -> Iterator[dict[str, str]]:
    if isinstance(node, dict):
        yield from node.get("x-kubernetes-validations", [])
        for below in node.values():
            yield from _rules(below)
    elif isinstance(node, list):
        for below in node:
            yield from _rules(below)


ONLY_OURS: list[tuple[str, str, dict[str, Any], str]] = [
    (
        "lists that are there but empty, where the server counts fields",
        "SecurityPolicy",
        {"authorization": {"rules": [{"action": "Allow", "principal": {"headers": []}}]}},
        "spec.authorization.rules[0].principal",
    ),
]


@pytest.mark.parametrize(("why", "kind", "spec", "field"), ONLY_OURS, ids=[each[0] for each in ONLY_OURS])
def test_some_faults_are_seen_by_dragoman_alone(
    server: Cluster, why: str, kind: str, spec: dict[str, Any], field: str
) -> None:
    taken = dry_run(server, _bad({"kind": kind, "spec": spec, "target": True}))
    assert [fault.path for fault in load(taken).faults] == [field], why


def test_a_field_that_nobody_knows_is_refused_by_both(server: Cluster) -> None:
    document = _bad({"kind": "SecurityPolicy", "spec": {"jwt": {"provider": []}}, "target": True})
    with pytest.raises(ApiError, match=r'unknown field "spec\.jwt\.provider"'):
        dry_run(server, document)
    assert "spec.jwt.provider" in [fault.path for fault in load(document).faults]


def test_defaults_are_written_where_they_have_an_effect_and_nowhere_else(server: Cluster) -> None:
    document = _bad({"kind": "SecurityPolicy", "spec": {"consumers": {}}, "target": True})
    spec = dry_run(server, document)["spec"]
    assert spec["consumers"] == {"extractFrom": [{"headers": ["x-api-key"]}], "sanitize": True}
    assert {"oidc", "extAuth", "basicAuth"}.isdisjoint(spec)


def test_the_status_of_a_policy_is_a_subresource_that_takes_what_gateway_api_says(
    server: Cluster, namespace: str
) -> None:
    document = _bad({"kind": "SecurityPolicy", "spec": {}, "target": True})
    document["metadata"] = {"name": "good", "namespace": namespace}
    server.apply([document])
    condition = {
        "type": "Accepted",
        "status": "True",
        "reason": "Accepted",
        "message": "",
        "observedGeneration": 1,
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    ancestor = {
        "ancestorRef": {**GATEWAY, "sectionName": "http"},
        "controllerName": "dragoman.dev/gateway-controller",
        "conditions": [condition],
    }
    kept = server.api.patch(document, {"status": {"ancestors": [ancestor]}}, subresource="status")
    assert kept["status"]["ancestors"] == [ancestor]
    assert kept["metadata"]["generation"] == 1
    assert "True" in server.kubectl("-n", namespace, "get", "sp", "good", "--no-headers")
    broken = {**ancestor, "conditions": []}
    with pytest.raises(ApiError, match=r"status\.ancestors\[0\]\.conditions"):
        server.api.patch(document, {"status": {"ancestors": [broken]}}, subresource="status")


def test_a_backend_has_conditions_of_its_own(server: Cluster, namespace: str) -> None:
    document = _bad({"kind": "Backend", "spec": {"endpoints": [{"ip": {"address": "10.0.0.1", "port": 80}}]}})
    document["metadata"] = {"name": "good", "namespace": namespace}
    server.apply([document])
    condition = {
        "type": "Accepted",
        "status": "False",
        "reason": "Invalid",
        "message": "why",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    kept = server.api.patch(document, {"status": {"conditions": [condition]}}, subresource="status")
    assert kept["status"]["conditions"] == [condition]
    assert "False" in server.kubectl("-n", namespace, "get", "backends.dragoman.dev", "good", "--no-headers")
