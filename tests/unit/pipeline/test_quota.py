# pyright: standard, reportAttributeAccessIssue=false
"""What ECDS brings for limits in quota mode outlives the routes that name it, and is there for those who ask for it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from envoy.config.core.v3.extension_pb2 import TypedExtensionConfig
from envoy.extensions.filters.http.rate_limit_quota.v3.rate_limit_quota_pb2 import RateLimitQuotaFilterConfig

from controlplane.api.load import key_of
from controlplane.engine import LINGER_S, Engine
from controlplane.pipeline import Pipeline
from controlplane.provision.binding import bind
from controlplane.sources.changes import Changes, Origin, RawObject
from controlplane.translate.services import QUOTA_CLUSTER
from controlplane.xds import resources as xds
from tests.support import manifests as m
from tests.support.gateway import GATEWAY_CLASS

QUOTA = "dragoman/quota"


def policy(requests: int, mode: str = "Quota") -> dict[str, Any]:
    rules = [{"limit": {"requests": requests, "unit": "Second"}, "mode": mode}]
    target = {"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": "one"}
    spec = {"targetRefs": [target], "rateLimit": {"global": {"rules": rules}}}
    return m.manifest("dragoman.dev/v1alpha1", "BackendTrafficPolicy", "one", spec)


def documents(limit: dict[str, Any]) -> list[Any]:
    address = {"ip": {"address": "127.0.0.1", "port": 9}}
    backend = m.manifest("dragoman.dev/v1alpha1", "Backend", "echo", {"endpoints": [address]})
    ref = {"group": "dragoman.dev", "kind": "Backend", "name": "echo"}
    return [GATEWAY_CLASS, m.gateway(), backend, m.route("one", [{"backendRefs": [ref]}]), limit]


class Scene:
    """An engine, and the time."""

    def __init__(self, *, quota_mode: bool) -> None:
        self.now_s = 0.0
        self.engine = Engine(
            bind=bind,
            now=lambda: datetime.now(UTC),
            clock=lambda: self.now_s,
            pipeline=Pipeline(quota_mode=quota_mode),
        )

    def apply(self, *given: Any) -> None:
        raws: list[RawObject] = []
        for document in given:
            key = key_of(document)
            assert key is not None
            raws.append(RawObject(key, dict(document), Origin("a.yaml")))
        self.engine.apply(Changes(tuple(raws)))

    def found(self, type_url: str) -> Any:
        (snapshot,) = self.engine.pipeline.snapshots.current().values()
        return snapshot.of_type(type_url)

    def limits(self) -> set[str]:
        """The names that routes may have for their limits."""
        config = RateLimitQuotaFilterConfig()
        body = self.found(xds.EXTENSION_CONFIG)[QUOTA].body
        TypedExtensionConfig.FromString(body).typed_config.Unpack(config)
        return set(config.bucket_matchers.matcher_tree.exact_match_map.map)


def test_limits_are_known_by_the_name_before_an_edit_for_as_long_as_routes_may_have_it() -> None:
    scene = Scene(quota_mode=True)
    scene.apply(*documents(policy(10)))
    (first,) = scene.limits()
    scene.apply(policy(20))
    (second,) = scene.limits() - {first}
    assert scene.limits() == {first, second}
    scene.apply(policy(20, mode="Request"))
    assert scene.limits() == {first, second}
    scene.now_s += LINGER_S + 1
    scene.engine.age()
    assert scene.limits() == set()


def test_without_a_quota_service_nothing_of_it_is_sent() -> None:
    for quota_mode in (False, True):
        scene = Scene(quota_mode=quota_mode)
        scene.apply(*documents(policy(10)))
        found = [
            QUOTA in scene.found(xds.EXTENSION_CONFIG),
            QUOTA_CLUSTER in scene.found(xds.CLUSTER),
            QUOTA_CLUSTER in scene.found(xds.ENDPOINT),
            any(QUOTA.encode() in each.body for each in scene.found(xds.LISTENER).values()),
            any(QUOTA.encode() in each.body for each in scene.found(xds.ROUTE).values()),
        ]
        assert found == [quota_mode] * 5


def test_all_envoys_report_to_one_service() -> None:
    scene = Scene(quota_mode=True)
    scene.apply(*documents(policy(10)))
    scene.engine.serve_at({QUOTA_CLUSTER: ("10.0.0.2:1", "10.0.0.1:1")})
    body = scene.found(xds.ENDPOINT)[QUOTA_CLUSTER].body
    assert b"10.0.0.1" in body
    assert b"10.0.0.2" not in body
