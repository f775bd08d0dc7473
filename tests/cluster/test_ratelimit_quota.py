"""Limits with `mode: Quota` in a cluster: two Envoys of a Gateway enforce them, one pod divides them."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Sequence

import pytest

from controlplane.provision.kubernetes.ports import container_port
from tests.support.cluster import NAMESPACE, Cluster
from tests.support.cluster_scene import Scene, gateway, manifest, pods, ready, rule
from tests.support.cluster_traffic import Traffic
from tests.support.traffic import Target
from tests.support.waiting import until

OURS = "dragoman.dev/v1alpha1"
QUOTA = "dragoman-quota"
LIMIT = 40
OFFERED = 60.0
BURST = 0.2 * LIMIT
ASKS = Target("/divided", expect=frozenset({200, 429}))


@pytest.fixture(scope="module")
def divided(product: Cluster) -> Iterator[Cluster]:
    """The product with a pod that divides limits."""
    product.install({"ratelimit": {"quota": {"enabled": True}}})
    product.wait_rollout(NAMESPACE, QUOTA)
    yield product
    product.install()


def objects(namespace: str) -> list[dict[str, object]]:
    """Two Envoys for the Gateway, and a route with a limit in quota mode."""
    deployment = {"kubernetes": {"envoyDeployment": {"replicas": 2}}}
    parameters = {"group": "dragoman.dev", "kind": "ProxyConfig", "name": "two"}
    of_class = gateway(namespace)
    of_class["spec"]["infrastructure"] = {"parametersRef": parameters}
    rate = {"limit": {"requests": LIMIT, "unit": "Second"}, "mode": "Quota"}
    target = {"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": "divided"}
    limits = {"targetRefs": [target], "rateLimit": {"type": "Global", "global": {"rules": [rate]}}}
    return [
        manifest("ProxyConfig", namespace, "two", {"provider": {"type": "Kubernetes", **deployment}}, api=OURS),
        of_class,
        manifest("BackendTrafficPolicy", namespace, "divided", limits, api=OURS),
    ]


async def test_two_envoys_let_no_more_through_than_the_limit_also_while_the_pod_that_divides_is_replaced(
    divided: Cluster, namespace: str
) -> None:
    scene = await Scene.make(divided, namespace)
    divided.apply([*objects(namespace), scene.route("divided", rule("/divided", "echo"))])
    divided.wait_rollout(namespace, scene.deployment)
    divided.wait(lambda: len(_addresses(scene)) == 2, what="two Envoys")
    one, two = _addresses(scene)
    for address in (one, two):
        await until(lambda each=address: _is_served(divided, each), what="the route", within_s=180, every_s=0.1)
    policy = manifest("BackendTrafficPolicy", namespace, "divided", None, api=OURS)
    found = divided.wait_for(policy, lambda found: bool(found.get("status", {}).get("ancestors")))
    assert "quota" not in json.dumps(found["status"]).lower()

    async with _traffic(divided, one) as first, _traffic(divided, two) as second:
        loads = (first, second)
        await until(lambda: all(_refused(each) > OFFERED for each in loads), what="shares", within_s=30)
        rate = 0.0
        for _ in range(3):
            rate = await _rate(loads, [_seen(each) for each in loads], seconds=8.0)
            print(f"shared: {rate:.1f} a second")
            assert rate <= 1.05 * LIMIT + BURST / 8.0
            # A machine that was busy for a second or two has sent too little to use the limit up.
            if rate > 0.85 * LIMIT:
                break
        assert rate > 0.85 * LIMIT

        before, began = [_seen(each) for each in loads], time.monotonic()
        divided.kubectl("-n", NAMESPACE, "rollout", "restart", f"deployment/{QUOTA}")
        divided.wait_rollout(NAMESPACE, QUOTA)
        seconds = time.monotonic() - began + 15.0
        rate = await _rate(loads, before, seconds=seconds)
        print(f"while the pod is replaced: {rate:.1f} a second in {seconds:.1f} s")
        assert 0.7 * LIMIT < rate <= 1.05 * LIMIT + BURST / seconds
        await until(lambda: _divides(divided, 2), what="two parts", within_s=30, every_s=0.1)
    first.assert_none_failed(at_least_per_s=1)
    second.assert_none_failed(at_least_per_s=1)


def _addresses(scene: Scene) -> list[str]:
    return sorted(each["status"]["podIP"] for each in scene.envoys() if ready(each))


async def _is_served(cluster: Cluster, address: str) -> bool:
    answer = await cluster.network.fetch(container_port(80), ASKS.path, address=address)
    return answer.status in ASKS.expect


async def _divides(cluster: Cluster, parts: int) -> bool:
    """Says whether the one pod that is there divides the limit into so many parts."""
    (pod,) = pods(cluster, NAMESPACE, "app.kubernetes.io/component=quota")
    text = (await cluster.network.fetch(18001, "/metrics", address=pod["status"]["podIP"])).text
    found = re.search(r"^dragoman_ratelimit_quota_shares\{.*\} (\S+)$", text, flags=re.MULTILINE)
    return found is not None and float(found[1]) == parts


def _traffic(cluster: Cluster, address: str) -> Traffic:
    return Traffic(cluster.network, address, container_port(80), [ASKS], rate_per_s=OFFERED)


def _refused(load: Traffic) -> int:
    return load.tally().statuses.get("429", 0)


def _seen(load: Traffic) -> tuple[float, int]:
    """How long requests have been sent, by the sender's clock, and how many were let through."""
    tally = load.tally()
    return tally.sent / tally.per_s, tally.statuses.get("200", 0)


async def _rate(loads: Sequence[Traffic], before: Sequence[tuple[float, int]], *, seconds: float) -> float:
    """Returns how many a second are let through, by all together, from `before` on and for so long."""

    def done() -> list[tuple[float, int]] | None:
        now = [_seen(each) for each in loads]
        over = [after - began for (began, _), (after, _) in zip(before, now, strict=True)]
        return now if min(over) >= seconds else None

    now = await until(done, what=f"{seconds:.0f} s of requests", within_s=seconds + 15, every_s=0.1)
    assert now is not None
    pairs = zip(before, now, strict=True)
    return sum((passed - passed_before) / (after - began) for (began, passed_before), (after, passed) in pairs)
