"""Limits in a cluster that are counted in a Redis of their own, by TLS and with a password, both from Secrets."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.certificates import Authority
from tests.support.cluster import NAMESPACE, Cluster
from tests.support.cluster_scene import Scene, manifest, pods, ready, rule
from tests.support.http import Response
from tests.support.redis_tls import redis_speaks_tls
from tests.support.waiting import until

PASSWORD = "of-the-counters"
LIMITER = "dragoman-ratelimit"


@pytest.fixture
def by_tls(product: Cluster) -> bool:
    """Whether the Redis of the cluster can speak TLS."""
    return redis_speaks_tls() if product.ours else True


@pytest.fixture
def counted(product: Cluster, namespace: str, authority: Authority, by_tls: bool) -> Iterator[Cluster]:
    """The product whose limits are counted in a Redis of the test's namespace."""
    host = f"store.{namespace}.svc.cluster.local"
    product.apply(redis(namespace, authority.leaf(host).secret(namespace, "store-tls"), by_tls=by_tls))
    product.wait_rollout(namespace, "store")
    texts = {"store-password": {"password": PASSWORD}, "store-ca": {"ca.crt": authority.cert_pem}}
    secrets = [{**manifest("Secret", NAMESPACE, name, None, api="v1"), "stringData": texts[name]} for name in texts]
    product.apply(secrets)
    store: dict[str, Any] = {"passwordSecret": {"name": "store-password"}}
    store["url"] = f"{'rediss' if by_tls else 'redis'}://{host}:6379/0"
    if by_tls:
        store["tlsSecret"] = {"name": "store-ca"}
    product.install({"ratelimit": {"redis": store}})
    product.wait_rollout(NAMESPACE, LIMITER)
    yield product
    # Helm does not touch what somebody else has set to another number.
    scale(product, NAMESPACE, LIMITER, 1)
    product.install()
    product.delete(*secrets)


def scale(cluster: Cluster, namespace: str, name: str, replicas: int) -> None:
    """Says how many pods there are to be, as an autoscaler would."""
    cluster.kubectl("-n", namespace, "scale", f"deployment/{name}", f"--replicas={replicas}")


def redis(namespace: str, certificate: dict[str, Any], *, by_tls: bool) -> list[dict[str, Any]]:
    """A Redis that keeps nothing."""
    files = ["--tls-cert-file", "/certs/tls.crt", "--tls-key-file", "/certs/tls.key", "--tls-auth-clients", "no"]
    ports = ["--port", "0", "--tls-port", "6379", *files] if by_tls else ["--port", "6379"]
    container = {
        "name": "redis",
        "image": "redis:7-alpine",
        "args": [*ports, "--requirepass", PASSWORD, "--save", "", "--dir", "/data", "--protected-mode", "no"],
        "readinessProbe": {"tcpSocket": {"port": 6379}},
        "volumeMounts": [{"name": "certs", "mountPath": "/certs"}, {"name": "data", "mountPath": "/data"}],
    }
    volumes = [{"name": "certs", "secret": {"secretName": "store-tls"}}, {"name": "data", "emptyDir": {}}]
    labels = {"app": "store"}
    pod = {"containers": [container], "volumes": volumes, "terminationGracePeriodSeconds": 0}
    template = {"metadata": {"labels": labels}, "spec": pod}
    spec = {"replicas": 1, "selector": {"matchLabels": labels}, "template": template}
    return [
        certificate,
        manifest("Deployment", namespace, "store", spec, api="apps/v1"),
        manifest("Service", namespace, "store", {"selector": labels, "ports": [{"port": 6379}]}, api="v1"),
    ]


async def test_limits_are_counted_in_their_own_store_and_outlive_the_limiter(counted: Cluster, namespace: str) -> None:
    scene = await Scene.make(counted, namespace)
    counted.apply([_policy(namespace, 3), scene.route("limited", rule("/limited", "echo"))])
    await scene.answers("/limited", 200)
    await scene.answers("/limited", 429)
    assert await _told(counted, "store_up") == [1]

    counted.kubectl("-n", NAMESPACE, "rollout", "restart", f"deployment/{LIMITER}")
    counted.wait_rollout(NAMESPACE, LIMITER)
    assert (await decided(scene, {})).status == 429


async def test_limiters_without_their_store_divide_a_limit_among_as_many_as_there_are(
    counted: Cluster, namespace: str
) -> None:
    scene = await Scene.make(counted, namespace)
    each_user = {"clientSelectors": [{"headers": [{"name": "x-user", "type": "Distinct"}]}], "onStoreError": "Local"}
    counted.apply([_policy(namespace, 12, **each_user), scene.route("limited", rule("/limited", "echo"))])
    await scene.answers("/limited", headers={"x-user": "eve"})
    scale(counted, NAMESPACE, LIMITER, 3)
    await until(lambda: _all_tell(counted, "local_parts", 3, 3, 3), what="three limiters", within_s=60)
    scale(counted, namespace, "store", 0)
    await until(lambda: _all_tell(counted, "store_up", 0, 0, 0), what="the store to be missed", within_s=60)

    async def all_are_asked() -> bool:
        await scene.fetch("/limited", headers={"x-user": "eve"})
        return all(await _told(counted, "local_checks_total"))

    await until(all_are_asked, what="all limiters to be asked", within_s=30)
    codes = [(await decided(scene, {"x-user": "ann"})).status for _ in range(60)]
    # What was not decided in time may have counted.
    assert 10 <= codes.count(200) <= 12
    assert codes.count(200) + codes.count(429) == 60

    scale(counted, NAMESPACE, LIMITER, 1)
    await until(lambda: _all_tell(counted, "local_parts", 1), what="one limiter", within_s=60)


async def decided(scene: Scene, headers: dict[str, str]) -> Response:
    """Returns the first answer that a limiter decided on: Envoy waits 100 ms for one, then a request passes without."""

    async def answer() -> Response | None:
        response = await scene.fetch("/limited", headers=headers)
        return response if response.header("x-ratelimit-limit") is not None else None

    response = await until(answer, what="a decision", within_s=20)
    assert response is not None
    return response


def _policy(namespace: str, requests: int, **more: Any) -> dict[str, Any]:
    target = {"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": "limited"}
    rate = {"limit": {"requests": requests, "unit": "Day"}, **more}
    limits = {"targetRefs": [target], "rateLimit": {"type": "Global", "global": {"rules": [rate]}}}
    return manifest("BackendTrafficPolicy", namespace, "limited", limits, api="dragoman.dev/v1alpha1")


async def _all_tell(cluster: Cluster, metric: str, *values: float) -> bool:
    """Says whether the limiters tell these values of a metric, one each."""
    return await _told(cluster, metric) == [*values]


async def _told(cluster: Cluster, metric: str) -> list[float | None]:
    """Returns what each limiter that is ready tells of a metric, None where it does not yet."""
    found: list[float | None] = []
    for pod in filter(ready, pods(cluster, NAMESPACE, "app.kubernetes.io/component=ratelimit")):
        text = (await cluster.network.fetch(18001, "/metrics", address=pod["status"]["podIP"])).text
        value = re.search(rf"^dragoman_ratelimit_{metric}(?:\{{.*\}})? (\S+)$", text, flags=re.MULTILINE)
        found.append(float(value[1]) if value is not None else None)
    return found
