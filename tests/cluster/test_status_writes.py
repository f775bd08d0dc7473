"""What is written of objects, to a real API server: it takes all of it, and no more than it needs to."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from controlplane.api.meta import GATEWAY_GROUP, POLICY_GROUP, ObjectKey
from controlplane.conditions import Condition, ListenerStatus, ObjectStatus, ParentRef, ParentStatus, false, true
from controlplane.status.features import FEATURES
from controlplane.status.merge import OURS as OURS_BY_TYPE
from controlplane.status.writer import Desired
from tests.cluster.definitions import install
from tests.cluster.status_world import StatusWorld, api_of
from tests.support.cluster import Cluster
from tests.support.cluster_faults import Faults
from tests.support.waiting import until

OURS = "ours.example.com/controller"
THEIRS = "theirs.example.com/controller"
GATEWAY_API = f"{GATEWAY_GROUP}/v1"
POLICIES = f"{POLICY_GROUP}/v1alpha1"
LISTENER = {"name": "web", "port": 80, "protocol": "HTTP"}
LONG = false("ResolvedRefs", "BackendNotFound", "x" * 40000, "spec.rules[0].backendRefs[0].name")
MANY = tuple(Condition(name, "True", "Reason") for name in sorted(OURS_BY_TYPE - {"Accepted", "ResolvedRefs"}))


@pytest.fixture(scope="module")
def crds(cluster: Cluster) -> None:
    """Our own kinds, as the chart has them."""
    install(cluster)


def route(namespace: str, name: str, kind: str = "HTTPRoute", parent: str = "edge") -> dict[str, Any]:
    rules = {"rules": [{"backendRefs": [{"name": "echo", "port": 80}]}]}
    hosts = {"hostnames": ["a.example.com"]} if kind == "TLSRoute" else {}
    return made(GATEWAY_API, kind, namespace, name, {"parentRefs": [{"name": parent}], **hosts, **rules})


def made(api_version: str, kind: str, namespace: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": spec}


def key_of(document: dict[str, Any]) -> ObjectKey:
    metadata = document["metadata"]
    group = document["apiVersion"].rpartition("/")[0]
    return ObjectKey(group, document["kind"], metadata.get("namespace", ""), metadata["name"])


def status_of(cluster: Cluster, document: dict[str, Any]) -> dict[str, Any]:
    found = cluster.api.read(document)
    assert found is not None
    return found["status"]


def attached(*conditions: Condition, parent: str = "edge") -> Desired:
    said = conditions or (true("Accepted"), true("ResolvedRefs"))
    return Desired(ObjectStatus(parents=(ParentStatus("", said, ParentRef("Gateway", parent)),)))


def every_kind(namespace: str) -> list[tuple[dict[str, Any], ObjectStatus]]:
    """An object of each kind that has a status, with as much to say of it as there can be."""
    listener = ListenerStatus("web", 7, ("HTTPRoute", "GRPCRoute"), (true("Accepted"), LONG, *MANY))
    listeners = ObjectStatus(
        (true("Accepted"), Condition("Programmed", "Unknown", "Pending"), *MANY),
        listeners=(listener,),
        addresses=(("IPAddress", "10.1.2.3"), ("IPAddress", "fd00::1"), ("Hostname", "edge.example.com")),
        attached_listener_sets=2,
    )
    refs = [ParentRef("Gateway", f"g{n}", namespace="infra", section="web", port=80) for n in range(40)]
    entries = ObjectStatus(parents=tuple(ParentStatus("", (true("Accepted"), LONG, *MANY), ref) for ref in refs))
    small = ObjectStatus((false("Accepted", "Invalid", "no"),), targets=(ParentRef("Gateway", "gone"),))
    plain = ObjectStatus((true("Accepted"), LONG, *MANY))
    target = {"targetRefs": [{"group": GATEWAY_GROUP, "kind": "Gateway", "name": "edge"}]}
    tls = {
        "targetRefs": [{"group": "", "kind": "Service", "name": "echo"}],
        "validation": {"hostname": "a.example.com", "wellKnownCACertificates": "System"},
    }
    patch = {
        "targetRef": target["targetRefs"][0],
        "type": "JSONPatch",
        "jsonPatches": [
            {
                "type": "type.googleapis.com/envoy.config.listener.v3.Listener",
                "name": "x",
                "operation": {"op": "remove", "path": "/name"},
            }
        ],
    }
    security = {**target, "cors": {"allowOrigins": ["https://a.example.com"]}}
    ingress = {"defaultBackend": {"service": {"name": "echo", "port": {"number": 80}}}}
    addresses = ObjectStatus((true("Accepted"),), addresses=listeners.addresses)
    class_ = {"controllerName": OURS}
    gateway = {"gatewayClassName": "status-ours", "listeners": [LISTENER]}
    return [
        (made(GATEWAY_API, "GatewayClass", "", "status-ours", class_), plain),
        (made(GATEWAY_API, "Gateway", namespace, "edge", gateway), listeners),
        (
            made(
                GATEWAY_API,
                "ListenerSet",
                namespace,
                "more",
                {"parentRef": {"name": "edge"}, "listeners": [{**LISTENER, "name": "web"}]},
            ),
            listeners,
        ),
        *((route(namespace, "r", kind), entries) for kind in ("HTTPRoute", "GRPCRoute", "TLSRoute")),
        *((route(namespace, "r", kind), entries) for kind in ("TCPRoute", "UDPRoute")),
        (made(GATEWAY_API, "BackendTLSPolicy", namespace, "p", tls), entries),
        (made(POLICIES, "SecurityPolicy", namespace, "p", security), entries),
        (made(POLICIES, "ClientTrafficPolicy", namespace, "p", target), small),
        (made(POLICIES, "BackendTrafficPolicy", namespace, "p", target), small),
        (made(POLICIES, "ExtensionPolicy", namespace, "p", target), entries),
        (made(POLICIES, "PatchPolicy", namespace, "p", patch), entries),
        (
            made(
                POLICIES,
                "Backend",
                namespace,
                "p",
                {"endpoints": [{"fqdn": {"hostname": "a.example.com", "port": 80}}]},
            ),
            plain,
        ),
        (made(POLICIES, "ProxyConfig", namespace, "p", {}), plain),
        (made(POLICIES, "HTTPRouteFilter", namespace, "p", {}), plain),
        (made("networking.k8s.io/v1", "Ingress", namespace, "p", ingress), addresses),
    ]


async def test_the_api_server_takes_all_that_is_said_of_every_kind(
    cluster: Cluster, namespace: str, crds: None
) -> None:
    kinds = every_kind(namespace)
    cluster.apply(document for document, _ in kinds)
    collections = {
        cluster.api.path_of(each["apiVersion"], each["kind"], each["metadata"].get("namespace", "")): each["kind"]
        for each, _ in kinds
    }
    async with api_of(cluster) as api, StatusWorld(api, collections, controller=OURS, features=FEATURES) as world:
        desired = {key_of(document): Desired(status) for document, status in kinds}
        world.tell(desired)
        await world.converge()
        await world.quiet()
        metrics = world.writer.metrics
        assert (metrics.errors, sum(metrics.writes.values())) == (0, len(kinds))
        bare = [(key, Desired(ObjectStatus((true("Accepted"),)))) for key in desired]
        world.tell(dict(bare))
        await world.converge()
        assert metrics.errors == 0
        found = status_of(cluster, kinds[1][0])
        assert "addresses" not in found
        assert {each["observedGeneration"] for each in found["conditions"]} == {1}
        cluster.delete(kinds[0][0])


async def test_each_of_many_routes_is_written_once_for_each_change(cluster: Cluster, namespace: str) -> None:
    count = 250
    routes = [route(namespace, f"r{n:03}") for n in range(count)]
    path = cluster.api.path_of(GATEWAY_API, "HTTPRoute", namespace)
    async with api_of(cluster) as api, StatusWorld(api, {path: "HTTPRoute"}, controller=OURS) as world:
        keys = [key_of(each) for each in routes]
        world.desired = dict.fromkeys(keys, attached())
        await asyncio.to_thread(cluster.api.create_all, routes)
        await world.converge()
        await world.quiet()
        metrics = world.writer.metrics
        assert (metrics.writes["HTTPRoute"], metrics.errors) == (count, 0)
        # One, where what was created was first seen after it was written.
        assert set(world.events.values()) <= {1, 2}, "each was created, and written once"

        for status in (attached(LONG), attached()):
            world.tell(dict.fromkeys(keys, status))
        await world.converge()
        await world.quiet()
        before = metrics.writes["HTTPRoute"]
        world.tell(dict.fromkeys(keys, attached(false("Accepted", "NoMatchingParent", ""))))
        await world.converge()
        await world.quiet()
        assert metrics.writes["HTTPRoute"] == before + count

        # An edit that changes nothing of what is said is written for the generation alone.
        before = metrics.writes["HTTPRoute"]
        cluster.api.patch(routes[0], {"spec": {"hostnames": ["b.example.com"]}})
        await until(lambda: metrics.writes["HTTPRoute"] > before, what="a write", within_s=30)
        await world.quiet()
        await world.converge()
        assert metrics.writes["HTTPRoute"] == before + 1
        events = world.events[keys[0]]
        cluster.api.patch(routes[0], {"metadata": {"labels": {"a": "b"}}})
        await until(lambda: world.events[keys[0]] > events, what="the edit", within_s=30)
        await world.quiet()
        assert metrics.writes["HTTPRoute"] == before + 1


async def test_controllers_that_share_routes_leave_one_another_alone(cluster: Cluster, namespace: str) -> None:
    routes = [route(namespace, f"r{n:02}") for n in range(60)]
    keys = [key_of(each) for each in routes]
    path = cluster.api.path_of(GATEWAY_API, "HTTPRoute", namespace)
    async with (
        api_of(cluster) as api,
        StatusWorld(api, {path: "HTTPRoute"}, controller=OURS) as ours,
        StatusWorld(api, {path: "HTTPRoute"}, controller=THEIRS) as theirs,
    ):
        for world in (ours, theirs):
            world.desired = dict.fromkeys(keys, attached())
        await asyncio.to_thread(cluster.api.create_all, routes)
        verdicts = [false("Accepted", "NoMatchingParent", str(n)) for n in range(4)]

        for verdict in verdicts:
            ours.tell(dict.fromkeys(keys, attached(verdict)))
            theirs.tell(dict.fromkeys(keys, attached(verdict)))
            await ours.converge()
            await theirs.converge()
        for each in routes:
            parents = status_of(cluster, each)["parents"]
            assert sorted(entry["controllerName"] for entry in parents) == [OURS, THEIRS]
            assert {entry["conditions"][0]["message"] for entry in parents} == {"3"}
        assert ours.writer.metrics.writes["HTTPRoute"] <= len(keys) * 5
        ours.tell(dict.fromkeys(keys, Desired(None)))
        await ours.converge()
        assert {entry["controllerName"] for each in routes for entry in status_of(cluster, each)["parents"]} == {THEIRS}


async def test_an_outage_of_the_api_server_is_made_good_afterwards(
    cluster: Cluster, namespace: str, faults: Faults
) -> None:
    routes = [route(namespace, f"r{n:02}") for n in range(30)]
    keys = [key_of(each) for each in routes]
    path = cluster.api.path_of(GATEWAY_API, "HTTPRoute", namespace)
    async with api_of(cluster) as api, StatusWorld(api, {path: "HTTPRoute"}, controller=OURS) as world:
        world.desired = dict.fromkeys(keys, attached())
        await asyncio.to_thread(cluster.api.create_all, routes)
        await world.converge()
        with faults.no_api_server():
            world.tell(dict.fromkeys(keys, attached(LONG)))
            await until(lambda: world.writer.metrics.errors > 0, what="a write that fails", within_s=30)
        await world.converge()
        assert world.writer.metrics.writes["HTTPRoute"] <= 2 * len(keys)
