"""The source `kubernetes` with a real API server: what it tells, loses, forgets and refuses."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from controlplane.api.kinds import SERVED
from controlplane.kube.access import find_access, fixed_access
from controlplane.sources.changes import Changes, RawObject
from tests.support.cluster import Cluster
from tests.support.cluster_faults import Faults
from tests.support.kube_source import GATEWAY_API, Reading, gateway, key, reading, route, secret
from tests.support.waiting import until

ENVOY_GATEWAY = "gateway.envoyproxy.io"


class Wire:
    """The connections of a source, which can be cut, and kept from being made again."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._sockets: list[socket.socket] = []
        self.cut = False

    def new_socket(self, address: Any) -> socket.socket:
        if self.cut:
            raise OSError("cut by the test")
        made = self._cluster.network.socket()
        self._sockets.append(made)
        return made

    def break_all(self) -> None:
        self.cut = True
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


Start = Callable[..., contextlib.AbstractAsyncContextManager[Reading]]


@pytest.fixture
def wire(cluster: Cluster) -> Wire:
    return Wire(cluster)


@pytest.fixture
def source(cluster: Cluster, wire: Wire) -> Start:
    @asynccontextmanager
    async def start(**arguments: Any) -> AsyncGenerator[Reading]:
        access = arguments.pop("access", None) or await find_access(cluster.kubeconfig)
        async with reading(access, new_socket=wire.new_socket, **arguments) as found:
            yield found

    return start


def _of(changes: Changes, namespace: str) -> list[RawObject]:
    return [raw for raw in changes.upserted if raw.key.namespace == namespace]


def _names(found: Reading, kind: str, namespace: str) -> set[str]:
    return {each.name for each in found.objects if each.kind == kind and each.namespace == namespace}


async def _until_names(found: Reading, kind: str, namespace: str, *names: str, within_s: float = 30.0) -> None:
    await until(
        lambda: _names(found, kind, namespace) == set(names),
        what=f"{kind} {', '.join(names)}",
        within_s=within_s,
        detail=lambda: f"{sorted(_names(found, kind, namespace))[:5]}, trouble: {found.source.trouble}",
    )


async def test_every_kind_that_an_api_server_has_is_read_and_understood(
    cluster: Cluster, source: Start, namespace: str
) -> None:
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"namespace": namespace, "name": "full", "finalizers": ["example.com/none"]},
        "spec": {
            "type": "LoadBalancer",
            "selector": {"app": "a"},
            "sessionAffinity": "ClientIP",
            "externalTrafficPolicy": "Local",
            "internalTrafficPolicy": "Local",
            "trafficDistribution": "PreferClose",
            "allocateLoadBalancerNodePorts": True,
            "loadBalancerSourceRanges": ["10.0.0.0/8"],
            "ports": [{"name": "a", "port": 80, "targetPort": "http", "appProtocol": "kubernetes.io/h2c"}],
        },
    }
    external = {"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": namespace, "name": "external"}}
    external["spec"] = {"type": "ExternalName", "externalName": "example.com"}
    endpoint = {
        "addresses": ["10.1.2.3"],
        "conditions": {"ready": True, "serving": True, "terminating": False},
        "hostname": "h",
        "nodeName": "n",
        "zone": "z",
        "hints": {"forZones": [{"name": "z"}]},
        "targetRef": {"kind": "Pod", "name": "p", "namespace": namespace, "uid": "u"},
    }
    pieces = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"namespace": namespace, "name": "full", "labels": {"kubernetes.io/service-name": "full"}},
        "addressType": "IPv4",
        "ports": [{"name": "a", "port": 8080, "protocol": "TCP", "appProtocol": "http"}],
        "endpoints": [endpoint],
    }
    cluster.apply([service, external, pieces, gateway("gw", namespace=namespace), route("a", namespace=namespace)])
    cluster.apply([secret("s", "b25l", namespace=namespace), gateway("tls", "s", namespace=namespace)])
    try:
        async with source() as found:
            for kind, names in (
                ("Service", {"full", "external"}),
                ("EndpointSlice", {"full"}),
                ("Gateway", {"gw", "tls"}),
                ("HTTPRoute", {"a"}),
                ("Secret", {"s"}),
            ):
                assert names <= _names(found, kind, namespace), kind
            assert namespace in found.names("Namespace")
            assert "kube-system" in found.names("Namespace")
            assert not found.refusals()
            assert found.source.trouble is None
            # What a controller wrote into the status of a Gateway is not in the way.
            cluster.api.patch(gateway("gw", namespace=namespace), {"status": {"addresses": []}}, subresource="status")
            where = key("Gateway", namespace, "gw")
            await until(lambda: found.source.observed(where).status.get("addresses") == [], what="the status")  # type: ignore[union-attr]
    finally:
        cluster.api.patch(service, {"metadata": {"finalizers": None}})


async def test_changes_arrive_and_a_secret_comes_with_the_gateway_that_names_it(
    cluster: Cluster, source: Start, namespace: str
) -> None:
    cluster.apply([secret("s", "b25l", namespace=namespace), secret("unused", "b25l", namespace=namespace)])
    async with source() as found:
        assert not _names(found, "Secret", namespace)
        cluster.apply([gateway("gw", "s", namespace=namespace)])
        await _until_names(found, "Gateway", namespace, "gw")
        # Beside what goes on in other namespaces.
        together = next(each for each in found.changes if any(raw.key.name == "gw" for raw in _of(each, namespace)))
        assert {raw.key.kind for raw in _of(together, namespace)} == {"Gateway", "Secret"}
        where = key("Secret", namespace, "s", "")
        cluster.apply([secret("s", "dHdv", namespace=namespace)])
        await until(lambda: found.objects[where]["data"] == {"value": "dHdv"}, what="the new value")
        cluster.delete(gateway("gw", namespace=namespace))
        await _until_names(found, "Gateway", namespace)
        assert not _names(found, "Secret", namespace)


async def test_a_killed_api_server_takes_nothing_away_and_what_follows_is_seen(
    cluster: Cluster, faults: Faults, source: Start, namespace: str
) -> None:
    cluster.apply([route("a", namespace=namespace), route("b", namespace=namespace)])
    async with source() as found:
        count = len(found.changes)
        with faults.no_api_server():
            await until(lambda: found.source.trouble, what="trouble")
            assert not [key for each in found.changes[count:] for key in each.removed if key.namespace == namespace]
            assert _names(found, "HTTPRoute", namespace) == {"a", "b"}
        cluster.delete(route("a", namespace=namespace))
        cluster.apply([route("c", namespace=namespace)])
        await _until_names(found, "HTTPRoute", namespace, "b", "c")
        await until(lambda: found.source.trouble is None, what="no trouble", within_s=30)


async def test_deletions_that_happened_behind_a_compacted_history_are_seen(
    cluster: Cluster, faults: Faults, source: Start, wire: Wire, namespace: str
) -> None:
    names = [f"r{i}" for i in range(20)]
    cluster.apply([route(name, namespace=namespace) for name in names])
    cluster.apply([secret("s", "b25l", namespace=namespace), gateway("gw", "s", namespace=namespace)])
    async with source() as found:
        await _until_names(found, "HTTPRoute", namespace, *names)
        wire.break_all()
        await until(lambda: found.source.trouble, what="trouble")
        cluster.delete(*(route(name, namespace=namespace) for name in names[:10]))
        cluster.apply([route("r10", "changed.example", namespace=namespace)])
        cluster.delete(secret("s", namespace=namespace))
        faults.compact()
        # What the API server had in memory goes with it.
        with faults.no_api_server():
            pass
        assert _names(found, "HTTPRoute", namespace) == set(names)
        count = len(found.changes)
        wire.cut = False
        await _until_names(found, "HTTPRoute", namespace, *names[10:])
        await _until_names(found, "Secret", namespace)
        handed = [raw.key.name for changes in found.changes[count:] for raw in _of(changes, namespace)]
        assert [name for name in handed if name in names] == ["r10"]


async def test_kinds_are_read_when_they_are_installed_and_gone_when_they_are_removed(
    cluster: Cluster, source: Start, namespace: str
) -> None:
    plural, kind = "httproutefilters", "HTTPRouteFilter"
    version = SERVED[ENVOY_GATEWAY, kind].versions[0]
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    definition = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{ENVOY_GATEWAY}"},
        "spec": {
            "group": ENVOY_GATEWAY,
            "names": {"kind": kind, "listKind": f"{kind}List", "plural": plural, "singular": kind.lower()},
            "scope": "Namespaced",
            "versions": [{"name": version, "served": True, "storage": True, "schema": schema}],
        },
    }
    made = {"apiVersion": f"{ENVOY_GATEWAY}/{version}", "kind": kind, "spec": {}}
    made["metadata"] = {"namespace": namespace, "name": "f"}
    async with source() as found:
        for _ in range(2):
            cluster.apply([definition])
            cluster.wait(lambda: cluster.api.apply(made), what="the kind")
            await _until_names(found, kind, namespace, "f")
            cluster.delete(definition)
            await _until_names(found, kind, namespace)
        await until(lambda: found.source.trouble is None, what="no trouble", within_s=30)


async def test_a_thousand_routes_created_at_once_arrive_in_few_steps(
    cluster: Cluster, source: Start, namespace: str
) -> None:
    routes = [route(f"r{i}", f"r{i}.example.com", namespace=namespace) for i in range(1000)]
    async with source() as found:
        cluster.api.create_all(routes)
        await until(lambda: len(_names(found, "HTTPRoute", namespace)) == 1000, what="all routes", within_s=60)
        handed = [raw.key for changes in found.changes for raw in changes.upserted if raw.key.kind == "HTTPRoute"]
        assert len(handed) == len(set(handed))
    async with source() as found:
        assert len(_names(found, "HTTPRoute", namespace)) == 1000
        assert sum(raw.key.kind == "HTTPRoute" for raw in _of(found.changes[0], namespace)) == 1000


async def test_a_role_in_one_namespace_suffices_where_namespaces_are_limited(
    cluster: Cluster, source: Start, namespace: str
) -> None:
    cluster.apply([route("a", namespace=namespace), secret("s", "b25l", namespace=namespace)])
    cluster.apply([gateway("gw", "s", namespace=namespace)])
    subject = {"kind": "ServiceAccount", "name": "reader", "namespace": namespace}
    groups = sorted({group for group, _ in SERVED})
    rules = [{"apiGroups": groups, "resources": ["*"], "verbs": ["get", "list", "watch"]}]
    rbac = {"apiVersion": "rbac.authorization.k8s.io/v1"}
    to = {"apiGroup": "rbac.authorization.k8s.io", "name": namespace}
    here = {"namespace": namespace, "name": namespace}
    whole = [{"apiGroups": [GATEWAY_API], "resources": ["gatewayclasses"], "verbs": ["get", "list", "watch"]}]
    cluster.apply(
        [
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"namespace": namespace, "name": "reader"}},
            {**rbac, "kind": "Role", "metadata": here, "rules": rules},
            {**rbac, "kind": "RoleBinding", "metadata": here, "roleRef": {**to, "kind": "Role"}, "subjects": [subject]},
        ]
    )
    token = cluster.kubectl("-n", namespace, "create", "token", "reader").strip()
    admin = await find_access(cluster.kubeconfig)
    access = fixed_access(admin.url, token=token, tls=_without_client_certificate(cluster))
    granted = [
        {**rbac, "kind": "ClusterRole", "metadata": {"name": namespace}, "rules": whole},
        {
            **rbac,
            "kind": "ClusterRoleBinding",
            "metadata": {"name": namespace},
            "roleRef": {**to, "kind": "ClusterRole"},
            "subjects": [subject],
        },
    ]
    try:
        async with source(access=access, namespaces=[namespace], whole=False) as found:
            # A class that cannot be read is told of, with what is missing; nothing is handed over half.
            await until(
                lambda: 'cannot list resource "gatewayclasses"' in (found.source.trouble or ""),
                what="words",
                within_s=30,
            )
            assert not found.changes
            cluster.apply(granted)
            await until(lambda: found.changes, what="all objects", within_s=30)
            await _until_names(found, "HTTPRoute", namespace, "a")
            await _until_names(found, "Secret", namespace, "s")
            assert {each.namespace for each in found.objects} <= {namespace, ""}
            said = " ".join(fault.message for fault in found.changes[0].faults)
            assert 'cannot list resource "namespaces"' in said
            cluster.delete(route("a", namespace=namespace))
            await _until_names(found, "HTTPRoute", namespace)
    finally:
        for each in granted:
            cluster.api.delete(each)


def _without_client_certificate(cluster: Cluster) -> Any:
    import base64
    import ssl

    import yaml

    document = yaml.safe_load(cluster.kubeconfig.read_text())["clusters"][0]["cluster"]
    if "certificate-authority-data" in document:
        return ssl.create_default_context(cadata=base64.b64decode(document["certificate-authority-data"]).decode())
    return ssl.create_default_context(cafile=str(cluster.kubeconfig.parent / document["certificate-authority"]))
