"""The rig does what the other tests of this folder take for granted."""

from __future__ import annotations

import pytest

from tests.support.cluster import Cluster
from tests.support.cluster_api import ApiError
from tests.support.cluster_faults import Faults
from tests.support.cluster_scene import echo
from tests.support.cluster_traffic import Traffic
from tests.support.traffic import Target
from tests.support.waiting import until

SETTINGS = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": "default", "name": "smoke"}}


def test_objects_are_applied_read_changed_and_deleted(cluster: Cluster) -> None:
    cluster.apply([{**SETTINGS, "data": {"color": "red"}}])
    cluster.api.patch(SETTINGS, {"data": {"color": "blue"}})
    found = cluster.wait_for(SETTINGS, lambda found: found["data"]["color"] == "blue")
    assert found["metadata"]["managedFields"]
    cluster.delete(SETTINGS)
    assert cluster.api.read(SETTINGS) is None


def test_the_gateway_api_is_installed_with_its_experimental_kinds(cluster: Cluster) -> None:
    for kind in ("Gateway", "HTTPRoute", "GRPCRoute", "TLSRoute", "ListenerSet", "BackendTLSPolicy"):
        assert cluster.api.path_of("gateway.networking.k8s.io/v1", kind)
    assert "gateways" in cluster.kubectl("api-resources", "-o", "name")


async def test_a_pod_answers_behind_its_service_without_a_failed_request(cluster: Cluster, namespace: str) -> None:
    cluster.apply(echo(namespace))
    cluster.wait_rollout(namespace, "echo")
    address = cluster.api.get(cluster.api.path(echo(namespace)[1]))["spec"]["clusterIP"]
    answer = await until(lambda: cluster.network.fetch(80, "/hello", address=address), what="the pod", within_s=30)
    assert answer.json()["path"] == "/hello"
    async with Traffic(cluster.network, address, 80, [Target("/one"), Target("/two")]) as traffic:
        await traffic.goes_on(400)
        tally = await traffic.stop()
    traffic.assert_none_failed()
    assert tally.statuses == {"200": tally.sent}


async def test_traffic_sees_what_fails(cluster: Cluster, namespace: str) -> None:
    cluster.apply(echo(namespace))
    cluster.wait_rollout(namespace, "echo")
    address = cluster.api.get(cluster.api.path(echo(namespace)[1]))["spec"]["clusterIP"]
    await until(lambda: cluster.network.fetch(80, address=address), what="the pod", within_s=30)
    async with Traffic(cluster.network, address, 80) as traffic:
        cluster.api.patch(echo(namespace)[0], {"spec": {"replicas": 0}})
        cluster.wait(lambda: traffic.tally().failed > 10, what="failed requests")
        await traffic.stop()
    with pytest.raises(AssertionError, match="requests failed"):
        traffic.assert_none_failed()


def test_the_api_server_is_killed_and_comes_back(cluster: Cluster, faults: Faults) -> None:
    cluster.apply([{**SETTINGS, "data": {"kept": "yes"}}])
    with faults.no_api_server(), pytest.raises((OSError, ApiError)):
        cluster.api.get("/readyz")
    assert cluster.api.get(cluster.api.path(SETTINGS))["data"] == {"kept": "yes"}
    assert cluster.running()
    cluster.delete(SETTINGS)


def test_a_frozen_etcd_leaves_requests_without_an_answer(cluster: Cluster, faults: Faults) -> None:
    with faults.frozen("etcd"), pytest.raises((OSError, ApiError)):
        cluster.api.request("POST", "/api/v1/namespaces/default/configmaps", SETTINGS, within_s=1)
    cluster.wait(lambda: cluster.api.get("/readyz") == "ok", what="the API server", within_s=60)
    cluster.delete(SETTINGS)


def test_a_watch_cannot_resume_from_history_that_was_compacted(cluster: Cluster, faults: Faults) -> None:
    configs = cluster.api.path_of("v1", "ConfigMap")
    before = cluster.api.get(configs)["metadata"]["resourceVersion"]
    cluster.apply([{**SETTINGS, "data": {"color": "red"}}])
    cluster.delete(SETTINGS)
    with faults.no_api_server():
        assert faults.compact() > int(before)
    # Refused at once, or within the answer: a client must be ready for both. And told to come later, at first.
    code = cluster.wait(lambda: told_code(cluster, configs, before), what="an answer that is none of a server's start")
    assert code == 410


def told_code(cluster: Cluster, path: str, version: str) -> int:
    code = first_code(cluster, path, version)
    return 0 if code in (429, 503) else code


def first_code(cluster: Cluster, path: str, version: str) -> int:
    try:
        return next(cluster.api.watch(path, resource_version=version))["object"]["code"]
    except ApiError as fault:
        return fault.status
