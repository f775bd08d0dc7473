"""What the chart's roles grant: all that is needed, and nothing besides."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from controlplane.api import KINDS, ObjectKey
from controlplane.provision.kubernetes.watching import KINDS as PROVISIONED
from controlplane.provision.kubernetes.watching import Kind as Provisioned
from controlplane.sources.kubernetes.resources import INGRESS_GROUP
from controlplane.status.encode import shape_of
from tests.unit.chart.helm import VARIANTS, Document, arguments, find, pods, render


def rules(documents: list[Document], *kinds: str) -> Iterator[tuple[Document, Document]]:
    for document in documents:
        if document["kind"] in kinds:
            for rule in document["rules"]:
                yield document, rule


@pytest.mark.parametrize("values", VARIANTS.values(), ids=VARIANTS)
def test_no_role_grants_more_than_it_names(values: Document) -> None:
    for document, rule in rules(render(values), "ClusterRole", "Role"):
        assert "*" not in [*rule["verbs"], *rule.get("resources", []), *rule.get("apiGroups", [])]
        assert not {"impersonate", "bind", "escalate"} & set(rule["verbs"])
        resources = set(rule.get("resources", []))
        assert not {"pods", "pods/exec", "serviceaccounts/token", "roles", "clusterroles"} & resources
        if "secrets" in resources and document["kind"] == "ClusterRole":
            assert set(rule["verbs"]) <= {"get", "list", "watch"}
        if {"update", "patch"} & set(rule["verbs"]) and resources & {"secrets", "leases"}:
            assert rule["resourceNames"]


def test_statuses_are_all_that_is_written_of_objects_of_users() -> None:
    groups = {"gateway.networking.k8s.io", "dragoman.dev", "gateway.envoyproxy.io", "networking.k8s.io"}
    for _, rule in rules(render(), "ClusterRole"):
        if groups & set(rule.get("apiGroups", [])) and set(rule["verbs"]) - {"list", "watch"}:
            assert all("/" in resource for resource in rule["resources"]), rule


def may(documents: list[Document], verb: str, group: str, resource: str) -> bool:
    return any(
        verb in rule["verbs"] and group in rule.get("apiGroups", []) and resource in rule["resources"]
        for _, rule in rules(documents, "ClusterRole")
        if "resources" in rule
    )


def plural(kind: str) -> str:
    name = kind.lower()
    if name.endswith(("s", "x")):
        return f"{name}es"
    return f"{name[:-1]}ies" if name.endswith("y") and not name.endswith("ay") else f"{name}s"


READ = {*KINDS, (INGRESS_GROUP, "Ingress"), (INGRESS_GROUP, "IngressClass")}


@pytest.mark.parametrize(("group", "kind"), sorted(READ))
def test_every_kind_that_is_read_can_be_read_and_its_status_written(group: str, kind: str) -> None:
    documents = render()
    assert may(documents, "list", group, plural(kind))
    assert may(documents, "watch", group, plural(kind))
    has_status = shape_of(ObjectKey(group, kind, "", "")) is not None
    assert may(documents, "patch", group, f"{plural(kind)}/status") == has_status


@pytest.mark.parametrize("kind", PROVISIONED, ids=lambda kind: kind.kind)
def test_every_kind_that_is_made_for_a_gateway_can_be_made_and_removed(kind: Provisioned) -> None:
    group = kind.api_version.rpartition("/")[0]
    documents = render()
    for verb in ("get", "list", "watch", "create", "patch", "delete"):
        assert may(documents, verb, group, kind.plural), verb


def test_with_some_namespaces_nothing_in_others_can_be_read() -> None:
    documents = render({"watchNamespaces": ["shop", "bank"]})
    everywhere = {resource for _, rule in rules(documents, "ClusterRole") for resource in rule.get("resources", [])}
    assert everywhere == {
        "customresourcedefinitions",
        "gatewayclasses",
        "gatewayclasses/status",
        "ingressclasses",
        "namespaces",
        "nodes",
    }
    watching = [each for each in documents if each["kind"] == "Role" and each["metadata"]["name"].endswith("-watch")]
    assert [each["metadata"]["namespace"] for each in watching] == ["shop", "bank"]
    assert {"secrets", "httproutes", "deployments"} <= {r for rule in watching[0]["rules"] for r in rule["resources"]}
    assert [each for each in arguments(documents, "controlplane") if each.startswith("--namespace")] == [
        "--namespace=shop",
        "--namespace=bank",
    ]


def test_without_provisioning_nothing_can_be_created_elsewhere() -> None:
    documents = render({"controlPlane": {"provisioning": False}})
    made = [rule for _, rule in rules(documents, "ClusterRole") if {"create", "delete"} & set(rule["verbs"])]
    assert [rule["resources"] for rule in made] == [["events"]]
    assert "--no-provisioning" in arguments(documents, "controlplane")


def test_the_services_have_no_rights_and_no_token_for_the_api_server() -> None:
    documents = render()
    subjects = [
        subject["name"]
        for each in documents
        if each["kind"] in ("RoleBinding", "ClusterRoleBinding")
        for subject in each["subjects"]
    ]
    assert set(subjects) == {"dragoman-controlplane"}
    for component in ("authz", "ratelimit"):
        pod = dict(pods(documents))[f"dragoman-{component}"]
        assert pod["automountServiceAccountToken"] is False
        assert find(documents, "ServiceAccount", f"dragoman-{component}")["automountServiceAccountToken"] is False
        token, authority = next(v["projected"]["sources"] for v in pod["volumes"] if v["name"] == "identity")
        assert token["serviceAccountToken"]["audience"] == "dragoman"
        # The key of the certificate stays with the control plane.
        assert authority["secret"]["items"] == [{"key": "ca.crt", "path": "ca.crt"}]
        account = f"--service-account={component}=dragoman-system/dragoman-{component}"
        assert account in arguments(documents, "controlplane")
