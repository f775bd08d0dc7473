"""The chart, really installed: all of it gets ready, with no more rights than it says, and leaves nothing behind."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from controlplane.provision.names import resource_name
from tests.support.cluster import CHART, NAMESPACE, VALUES, Cluster
from tests.support.cluster_scene import gateway, route, rule
from tests.unit.chart.helm import VARIANTS, template

OTHER = "other-system"
# Kinds of operators that the cluster does not have.
FOREIGN = {"Certificate", "Issuer", "ServiceMonitor", "PodMonitor"}
ACCOUNT = f"system:serviceaccount:{NAMESPACE}:dragoman-controlplane"

Document = dict[str, Any]


@pytest.fixture(scope="module")
def place(cluster: Cluster) -> Iterator[str]:
    """A namespace to render the chart for."""
    cluster.namespace("t-rendered")
    yield "t-rendered"
    cluster.api.delete({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "t-rendered"}})


@pytest.mark.parametrize("values", VARIANTS.values(), ids=VARIANTS)
def test_the_api_server_takes_all_that_the_chart_renders(
    cluster: Cluster, place: str, tmp_path: Path, values: Document
) -> None:
    given = {**values, "watchNamespaces": [place]} if "watchNamespaces" in values else values
    path = tmp_path / "rendered.yaml"
    documents = [each for each in yaml.safe_load_all(template(given, release="tried", namespace=place)) if each]
    path.write_text(yaml.safe_dump_all(each for each in documents if each["kind"] not in FOREIGN))
    command = ["apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict"]
    cluster.kubectl(*command, "-f", str(path))


def test_everything_gets_ready(product: Cluster) -> None:
    for component in ("controlplane", "authz", "ratelimit"):
        product.wait_rollout(NAMESPACE, f"dragoman-{component}")
    accepted = {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass", "metadata": {"name": "dragoman"}}
    product.wait_for(accepted, lambda found: _condition(found, "Accepted") == "True")


def _condition(found: Any, kind: str) -> str:
    conditions = {each["type"]: each["status"] for each in found.get("status", {}).get("conditions", [])}
    return conditions.get(kind, "")


def test_the_control_plane_is_refused_nothing_that_it_asks_for(product: Cluster, namespace: str) -> None:
    policy = {
        "apiVersion": "dragoman.dev/v1alpha1",
        "kind": "SecurityPolicy",
        "metadata": {"namespace": namespace, "name": "open"},
        "spec": {
            "targetRefs": [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": "steady"}],
            "cors": {"allowOrigins": ["*"]},
        },
    }
    product.apply([gateway(namespace), route(namespace, "steady", rule("/", "nowhere")), policy])
    envoys = {"namespace": namespace, "name": resource_name("edge")}
    product.wait_for({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": envoys}, bool)
    product.wait_rollout(namespace, resource_name("edge"))
    product.wait_for(policy, lambda found: bool(found.get("status", {}).get("ancestors")))
    where = f"/api/v1/namespaces/{NAMESPACE}/pods"
    pods = product.api.get(where, labelSelector="app.kubernetes.io/name=dragoman")["items"]
    assert pods
    for pod in pods:
        lines = str(product.api.get(f"{where}/{pod['metadata']['name']}/log")).splitlines()
        assert [line for line in lines if "forbidden" in line.lower()] == []


@pytest.mark.parametrize(
    ("verb", "resource", "namespace", "name"),
    [
        ("update", "gateways.gateway.networking.k8s.io", "default", ""),
        ("delete", "httproutes.gateway.networking.k8s.io", "default", ""),
        ("create", "secrets", "default", ""),
        ("update", "secrets", NAMESPACE, "another"),
        ("delete", "secrets", NAMESPACE, "dragoman-xds"),
        ("update", "leases.coordination.k8s.io", NAMESPACE, "another"),
        ("update", "leases.coordination.k8s.io", "kube-system", ""),
        ("create", "pods", "default", ""),
        ("get", "pods", "default", ""),
        ("create", "clusterroles.rbac.authorization.k8s.io", "", ""),
        ("create", "serviceaccounts/token", "default", ""),
        ("impersonate", "serviceaccounts", "default", ""),
        ("delete", "namespaces", "", ""),
    ],
)
def test_the_control_plane_may_not(product: Cluster, verb: str, resource: str, namespace: str, name: str) -> None:
    assert not _may(product, ACCOUNT, verb, resource, namespace, name)


@pytest.mark.parametrize(
    ("verb", "resource", "namespace", "name"),
    [
        ("watch", "httproutes.gateway.networking.k8s.io", "default", ""),
        ("patch", "httproutes.gateway.networking.k8s.io/status", "default", ""),
        ("patch", "securitypolicies.dragoman.dev/status", "default", ""),
        ("patch", "deployments.apps", "default", ""),
        ("get", "secrets", "default", ""),
        ("update", "secrets", NAMESPACE, "dragoman-xds"),
        ("update", "leases.coordination.k8s.io", NAMESPACE, "dragoman-controlplane"),
    ],
)
def test_the_control_plane_may(product: Cluster, verb: str, resource: str, namespace: str, name: str) -> None:
    assert _may(product, ACCOUNT, verb, resource, namespace, name)


def test_the_services_may_nothing(product: Cluster) -> None:
    for component in ("authz", "ratelimit"):
        account = f"system:serviceaccount:{NAMESPACE}:dragoman-{component}"
        assert not _may(product, account, "get", "secrets", NAMESPACE, "dragoman-xds")
        assert not _may(product, account, "list", "services", NAMESPACE, "")


def _may(cluster: Cluster, account: str, verb: str, resource: str, namespace: str, name: str) -> bool:
    whole, _, subresource = resource.partition("/")
    plural, _, group = whole.partition(".")
    asked = {"verb": verb, "group": group, "resource": plural, "namespace": namespace, "name": name}
    groups = ["system:serviceaccounts", f"system:serviceaccounts:{account.split(':')[2]}", "system:authenticated"]
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {"user": account, "groups": groups, "resourceAttributes": {**asked, "subresource": subresource}},
    }
    answer = cluster.api.request("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", review)
    return bool(answer["status"]["allowed"])


@pytest.fixture
def second(cluster: Cluster, namespace: str) -> Iterator[Document]:
    """Values of a second release, which does not get into the way of the first; it is gone after the test."""
    yield {
        "fullnameOverride": "second",
        "watchNamespaces": [namespace],
        "gatewayClass": {"create": False},
        "ingressClass": {"create": False},
        "controlPlane": {"replicas": 1},
        "redis": {"bundled": {"enabled": True}},
    }
    cluster.run(cluster.helm, "uninstall", "second", "--namespace", OTHER, "--ignore-not-found", "--wait")
    cluster.delete({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": OTHER}})


def _helm(cluster: Cluster, *arguments: str, values: Document | None = None) -> None:
    options: list[str] = []
    if values is not None:
        path = cluster.folder / "second.yaml"
        path.write_text(yaml.safe_dump(values))
        base = ["--values", str(VALUES)] if cluster.ours else []
        options = [*base, "--values", str(path), "--wait", "--timeout", "90s"]
    cluster.run(cluster.helm, *arguments, "--namespace", OTHER, *options, within_s=120)


def test_it_is_installed_upgraded_and_uninstalled_and_leaves_nothing(cluster: Cluster, second: Document) -> None:
    before = _cluster_wide(cluster)
    _helm(cluster, "install", "second", str(CHART), "--create-namespace", values=second)
    redis = {"apiVersion": "v1", "kind": "Secret", "metadata": {"namespace": OTHER, "name": "second-redis"}}
    made = {**redis, "metadata": {"namespace": OTHER, "name": "second-xds"}}
    password, certificate = cluster.api.read(redis), cluster.api.read(made)
    assert password is not None
    assert certificate is not None
    assert {"tls.crt", "tls.key", "ca.crt"} <= certificate["data"].keys()
    _helm(cluster, "upgrade", "second", str(CHART), values={**second, "authz": {"logLevel": "DEBUG"}})
    again, still = cluster.api.read(redis), cluster.api.read(made)
    assert again is not None
    assert again["data"] == password["data"], "an upgrade keeps the password"
    assert still is not None
    assert still["data"] == certificate["data"], "an upgrade keeps the certificate"
    _helm(cluster, "uninstall", "second", "--wait")
    cluster.wait(lambda: _left(cluster) == [], what="nothing left", detail=lambda: json.dumps(_left(cluster)))
    assert _cluster_wide(cluster) == before


def _left(cluster: Cluster) -> list[str]:
    kinds = "all,configmaps,secrets,leases,serviceaccounts,roles,rolebindings,networkpolicies,pdb,hpa,endpointslices"
    found = cluster.kubectl("-n", OTHER, "get", kinds, "-o", "name").split()
    return [each for each in found if each not in ("configmap/kube-root-ca.crt", "serviceaccount/default")]


def _cluster_wide(cluster: Cluster) -> list[str]:
    return cluster.kubectl(
        "get", "clusterroles,clusterrolebindings,gatewayclasses,ingressclasses", "-o", "name"
    ).split()
