"""Limits in a cluster that are counted in a Redis of their own, by TLS and with a password, both from Secrets."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.certificates import Authority
from tests.support.cluster import NAMESPACE, Cluster
from tests.support.cluster_scene import Scene, manifest, pods, rule
from tests.support.redis_tls import redis_speaks_tls

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
    product.install()
    product.delete(*secrets)


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
    rate = {"limit": {"requests": 3, "unit": "Day"}}
    target = {"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": "limited"}
    limits = {"targetRefs": [target], "rateLimit": {"type": "Global", "global": {"rules": [rate]}}}
    policy = manifest("BackendTrafficPolicy", namespace, "limited", limits, api="dragoman.dev/v1alpha1")
    counted.apply([policy, scene.route("limited", rule("/limited", "echo"))])
    await scene.answers("/limited", 200)
    await scene.answers("/limited", 429)
    assert await _store_up(counted) == 1

    counted.kubectl("-n", NAMESPACE, "rollout", "restart", f"deployment/{LIMITER}")
    counted.wait_rollout(NAMESPACE, LIMITER)
    assert (await scene.fetch("/limited")).status == 429


async def _store_up(cluster: Cluster) -> float:
    (pod,) = pods(cluster, NAMESPACE, "app.kubernetes.io/component=ratelimit")
    text = (await cluster.network.fetch(18001, "/metrics", address=pod["status"]["podIP"])).text
    found = re.search(r"^dragoman_ratelimit_store_up(?:\{.*\})? (\S+)$", text, flags=re.MULTILINE)
    assert found is not None, text
    return float(found[1])
