"""Where requests go, seen through a real Envoy: weights, references, endpoints, timeouts and retries."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from tests.support import manifests as m
from tests.support.dns import DnsServer
from tests.support.envoy import Envoy
from tests.support.gateway import GATEWAY_CLASS, Gateway
from tests.support.ports import free_port
from tests.support.upstream import Upstream
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")


def to_service(path: str, name: str, *, namespace: str | None = None, **more: Any) -> dict[str, Any]:
    return {**m.rule(path, name, namespace=namespace), **more}


def ref(name: str, weight: int = 1, **more: Any) -> dict[str, Any]:
    return {"group": "dragoman.dev", "kind": "Backend", "name": name, "weight": weight, **more}


def split(path: str, *refs: dict[str, Any]) -> dict[str, Any]:
    return {"matches": [{"path": {"value": path}}], "backendRefs": list(refs)}


def endpoints(service: str, *ports: int, namespace: str = "demo", ready: bool = True) -> list[m.Manifest]:
    """An EndpointSlice for each port on loopback, as the pods of a Service."""
    return [
        {
            **m.endpoint_slice(service, "127.0.0.1", namespace=namespace, suffix=str(number)),
            "ports": [{"port": port}],
            "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": ready}}],
        }
        for number, port in enumerate(ports)
    ]


def canary() -> dict[str, Any]:
    edit = {"set": [{"name": "x-canary", "value": "yes"}]}
    return {
        "filters": [
            {"type": "RequestHeaderModifier", "requestHeaderModifier": edit},
            {"type": "ResponseHeaderModifier", "responseHeaderModifier": edit},
        ]
    }


RULES = [
    split("/weights", ref("one", 3), ref("two", 1)),
    split("/zero", ref("one", 0), ref("two", 1)),
    split("/all-zero", ref("one", 0), ref("two", 0)),
    split("/filtered", ref("one", 1), ref("two", 1, **canary())),
    split("/partly-invalid", ref("one", 1), ref("missing", 1)),
    split("/invalid", ref("missing")),
    split("/no-backends"),
    to_service("/no-endpoints", "empty"),
    to_service("/far", "far", namespace="other"),
    m.to_backend("/socket", "socket"),
    m.to_backend("/named", "named"),
    m.to_backend("/nowhere", "nowhere"),
]
LIMITED = [
    m.to_backend("/request-timeout", "one", timeouts={"request": "100ms"}),
    m.to_backend("/backend-timeout", "one", timeouts={"backendRequest": "100ms"}),
    m.to_backend("/no-timeout", "one", timeouts={"request": "0s"}),
    m.to_backend("/retry", "one", retry={"codes": [503], "attempts": 2, "backoff": "5ms"}),
    m.to_backend("/retry-default", "one", retry={"codes": [503]}),
    m.to_backend("/retry-none", "one", retry={"codes": [503], "attempts": 0}),
    m.to_backend(
        "/retry-slow",
        "one",
        timeouts={"request": "3s", "backendRequest": "150ms"},
        retry={"attempts": 1, "backoff": "5ms"},
    ),
    m.to_backend("/plain", "one"),
]


@dataclass(frozen=True, slots=True)
class Scene:
    gateway: Gateway
    one: Upstream
    two: Upstream
    dns: DnsServer


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    socket = str(tmp_path_factory.mktemp("s") / "echo.sock")
    async with (
        Upstream("one") as one,
        Upstream("two") as two,
        Upstream("socket", unix_path=socket),
        DnsServer({"api.example.net": ["127.0.0.1"]}) as dns,
    ):
        base = [
            GATEWAY_CLASS,
            m.gateway(),
            m.backend("one", one.port),
            m.backend("two", two.port),
            _backend("socket", {"unix": {"path": socket}}),
            _backend("named", {"fqdn": {"hostname": "api.example.net", "port": two.port}}),
            _backend("nowhere", {"fqdn": {"hostname": "nowhere.example.net", "port": two.port}}),
            m.service("empty"),
            m.service("far", namespace="other"),
            *endpoints("far", two.port, namespace="other"),
            m.route("backends", RULES),
            m.route("limited", LIMITED, hostnames=["limited.example.com"]),
        ]
        async with Gateway({"base.yaml": base}, nameservers=[("127.0.0.1", dns.port)]) as gateway:
            yield Scene(gateway, one, two, dns)


def _backend(name: str, *endpoints: dict[str, Any], **spec: Any) -> m.Manifest:
    return m.manifest("dragoman.dev/v1alpha1", "Backend", name, {"endpoints": list(endpoints), **spec})


async def served_by(gateway: Gateway, path: str, times: int) -> Counter[str | int]:
    answers = [await gateway.get(path) for _ in range(times)]
    return Counter(answer.json()["name"] if answer.status == 200 else answer.status for answer in answers)


async def test_backends_get_their_share_by_weight(scene: Scene) -> None:
    found = await served_by(scene.gateway, "/weights", 400)
    assert found["one"] + found["two"] == 400
    assert 250 <= found["one"] <= 350


async def test_a_backend_of_weight_zero_gets_nothing(scene: Scene) -> None:
    assert await served_by(scene.gateway, "/zero", 50) == {"two": 50}
    assert await served_by(scene.gateway, "/all-zero", 1) == {500: 1}


async def test_filters_of_a_backend_apply_to_its_share_alone(scene: Scene) -> None:
    seen: dict[str, set[tuple[str | None, str | None]]] = {}
    for _ in range(40):
        answer = await scene.gateway.get("/filtered")
        told = answer.json()
        seen.setdefault(told["name"], set()).add((told["headers"].get("x-canary"), answer.header("x-canary")))
    assert seen == {"one": {(None, None)}, "two": {("yes", "yes")}}


async def test_the_share_of_an_invalid_backend_is_answered_with_500(scene: Scene) -> None:
    found = await served_by(scene.gateway, "/partly-invalid", 200)
    assert found["one"] + found[500] == 200
    assert 60 <= found[500] <= 140
    assert await served_by(scene.gateway, "/invalid", 1) == {500: 1}
    assert await served_by(scene.gateway, "/no-backends", 1) == {500: 1}
    assert any("missing does not exist" in finding for finding in scene.gateway.findings())


async def test_a_service_without_endpoints_is_answered_with_503(scene: Scene) -> None:
    assert (await scene.gateway.get("/no-endpoints")).status == 503


async def test_a_service_follows_its_endpoint_slices(scene: Scene) -> None:
    gateway = scene.gateway
    service = [m.service("pods"), m.route("pods", [to_service("/pods", "pods")])]
    gateway.write("pods.yaml", [*service, *endpoints("pods", scene.one.port)])
    await gateway.answers("/pods")
    assert await served_by(gateway, "/pods", 10) == {"one": 10}
    gateway.write("pods.yaml", [*service, *endpoints("pods", scene.one.port, scene.two.port)])
    await until(lambda: _both(gateway, "/pods"), what="requests to reach both endpoints")
    gateway.write("pods.yaml", [*service, *endpoints("pods", scene.two.port)])
    await until(lambda: _only(gateway, "/pods", "two"), what="requests to leave the endpoint that is gone")
    gateway.write("pods.yaml", [*service, *endpoints("pods", scene.two.port, ready=False)])
    await gateway.answers("/pods", 503)
    gateway.remove("pods.yaml")
    await gateway.answers("/pods", 404)


async def _both(gateway: Gateway, path: str) -> bool:
    return set(await served_by(gateway, path, 10)) == {"one", "two"}


async def _only(gateway: Gateway, path: str, name: str) -> bool:
    return await served_by(gateway, path, 10) == {name: 10}


async def test_a_grant_lets_a_route_reach_another_namespace_until_it_is_revoked(scene: Scene) -> None:
    gateway = scene.gateway
    assert (await gateway.get("/far")).status == 500
    assert any("no ReferenceGrant in namespace other" in finding for finding in gateway.findings())
    gateway.write("grant.yaml", [m.grant("other")])
    assert (await gateway.answers("/far")).json()["name"] == "two"
    gateway.write("grant.yaml", [m.grant("other", source="elsewhere")])
    await gateway.answers("/far", 500)
    gateway.write("grant.yaml", [m.grant("other")])
    await gateway.answers("/far")
    gateway.remove("grant.yaml")
    await gateway.answers("/far", 500)


async def test_a_backend_may_be_a_unix_socket(scene: Scene) -> None:
    assert await served_by(scene.gateway, "/socket", 3) == {"socket": 3}


async def test_a_backend_may_be_a_name_and_follows_its_addresses(scene: Scene) -> None:
    gateway = scene.gateway
    assert await served_by(gateway, "/named", 3) == {"two": 3}
    scene.dns.set("api.example.net")
    await gateway.answers("/named", 503)
    scene.dns.set("api.example.net", "127.0.0.1")
    await gateway.answers("/named")


async def test_a_name_without_addresses_is_answered_with_503(scene: Scene) -> None:
    assert (await scene.gateway.get("/nowhere")).status == 503


async def test_a_service_may_speak_http2(scene: Scene) -> None:
    port = free_port()
    service = m.service("h2", protocol="kubernetes.io/h2c")
    async with Envoy(h2c_server(port)):
        scene.gateway.write("h2.yaml", [service, *endpoints("h2", port), m.route("h2", [to_service("/h2", "h2")])])
        assert (await scene.gateway.answers("/h2")).text == "HTTP/2"
    scene.gateway.remove("h2.yaml")
    await scene.gateway.answers("/h2", 404)


def h2c_server(port: int) -> dict[str, Any]:
    """Another Envoy as the backend: it speaks HTTP/2 alone and answers with the protocol of the request."""
    extensions = "type.googleapis.com/envoy.extensions"
    manager = {
        "@type": f"{extensions}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "codec_type": "HTTP2",
        "stat_prefix": "h2c",
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [
                        {
                            "match": {"prefix": "/"},
                            "direct_response": {
                                "status": 200,
                                "body_format": {"text_format_source": {"inline_string": "%PROTOCOL%"}},
                            },
                        }
                    ],
                }
            ]
        },
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{extensions}.filters.http.router.v3.Router"},
            }
        ],
    }
    listener = {
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }
    return {"static_resources": {"listeners": [listener]}}


async def status_of(scene: Scene, path: str, **request: Any) -> int:
    return (await scene.gateway.get(path, host="limited.example.com", **request)).status


@pytest.mark.parametrize("path", ["/request-timeout", "/backend-timeout"])
async def test_an_answer_that_takes_too_long_is_answered_with_504(scene: Scene, path: str) -> None:
    scene.one.be_slow(1.0)
    try:
        assert await status_of(scene, path) == 504
    finally:
        scene.one.be_slow(0.0)
    assert await status_of(scene, path) == 200


async def test_a_timeout_of_zero_is_none(scene: Scene) -> None:
    scene.one.be_slow(0.3)
    try:
        assert await status_of(scene, "/no-timeout") == 200
    finally:
        scene.one.be_slow(0.0)


@pytest.mark.parametrize(
    ("path", "failures", "status", "tries"),
    [
        ("/retry", 2, 200, 3),
        ("/retry", 5, 503, 3),
        ("/retry-default", 1, 200, 2),
        ("/retry-none", 1, 503, 1),
        ("/plain", 1, 503, 1),
    ],
)
async def test_a_request_is_sent_again_as_often_as_allowed(
    scene: Scene, path: str, failures: int, status: int, tries: int
) -> None:
    before = scene.one.count
    scene.one.fail(failures, 503)
    try:
        assert await status_of(scene, path) == status
        assert scene.one.count - before == tries
    finally:
        await _drain(scene)


async def test_a_code_that_is_not_named_is_not_retried(scene: Scene) -> None:
    before = scene.one.count
    scene.one.fail(1, 502)
    assert await status_of(scene, "/retry") == 502
    assert scene.one.count - before == 1


async def test_a_cut_connection_is_retried_where_retries_are_asked_for(scene: Scene) -> None:
    scene.one.reset(1)
    assert await status_of(scene, "/retry", method="POST", body=b"x") == 200
    scene.one.reset(1)
    assert await status_of(scene, "/plain", method="POST", body=b"x") == 503


async def test_a_slow_try_is_given_up_and_retried(scene: Scene) -> None:
    before = scene.one.count
    scene.one.stall(1, 1.0)
    assert await status_of(scene, "/retry-slow") == 200
    assert scene.one.count - before == 2


async def _drain(scene: Scene) -> None:
    """Uses up the failures that were ordered and not met."""

    async def healthy() -> bool:
        return await status_of(scene, "/plain") == 200

    await until(healthy, what="the backend to answer again")
