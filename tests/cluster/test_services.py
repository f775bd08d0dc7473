"""ext_authz and the rate limit service in a cluster: Envoys ask them by TLS, and go on while pods are replaced."""

from __future__ import annotations

from typing import Any

from tests.support.cluster import NAMESPACE, Cluster
from tests.support.cluster_scene import Scene, manifest, rule
from tests.support.traffic import Target
from tests.support.waiting import until

POLICIES = "dragoman.dev/v1alpha1"
KEY = "the-key-of-client-7"


def on_route(kind: str, namespace: str, name: str, **spec: Any) -> dict[str, Any]:
    ref = {"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": name}
    return manifest(kind, namespace, name, {"targetRefs": [ref], **spec}, api=POLICIES)


def guarded(scene: Scene) -> list[dict[str, Any]]:
    """A route whose keys are too many for Envoy itself, and one with a limit that all Envoys share."""
    keys = {f"client-{number}": f"the-key-of-client-{number}" for number in range(120)}
    rate = {"limit": {"requests": 3, "unit": "Hour"}}
    return [
        {**manifest("Secret", scene.namespace, "keys", None, api="v1"), "stringData": keys},
        scene.route("guarded", rule("/guarded", "echo")),
        on_route(
            "SecurityPolicy",
            scene.namespace,
            "guarded",
            apiKeyAuth={"credentialRefs": [{"name": "keys"}], "extractFrom": [{"headers": ["x-api-key"]}]},
        ),
        scene.route("limited", rule("/limited", "echo")),
        on_route(
            "BackendTrafficPolicy",
            scene.namespace,
            "limited",
            rateLimit={"type": "Global", "global": {"rules": [rate]}},
        ),
    ]


async def test_keys_and_limits_hold_and_the_services_are_replaced_without_a_failed_request(scene: Scene) -> None:
    scene.cluster.apply(guarded(scene))
    with_key = {"x-api-key": KEY}
    await scene.answers("/guarded", 401)
    await scene.answers("/guarded", 200, headers=with_key)
    assert (await scene.fetch("/guarded", headers={"x-api-key": "another"})).status == 401
    await scene.answers("/limited", 429)
    asks = Target("/guarded", headers=tuple(with_key.items()))
    async with scene.traffic(asks) as traffic:
        before = _pods(scene.cluster)
        scene.cluster.kubectl("-n", NAMESPACE, "rollout", "restart", "deployment/dragoman-authz")
        scene.cluster.wait_rollout(NAMESPACE, "dragoman-authz")
        await until(lambda: before.isdisjoint(_pods(scene.cluster)), what="new pods of ext_authz", within_s=60)
        await traffic.goes_on(200)
        await traffic.stop()
    traffic.assert_none_failed()


def _pods(cluster: Cluster) -> set[str]:
    selector = "app.kubernetes.io/component=authz"
    found = cluster.api.get(f"/api/v1/namespaces/{NAMESPACE}/pods", labelSelector=selector)["items"]
    return {each["metadata"]["name"] for each in found}
