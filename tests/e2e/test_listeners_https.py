"""HTTPS listeners, seen through a real Envoy: SNI, hostnames, certificates that change under open connections."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import pytest_asyncio

from tests.support import manifests as m
from tests.support.certificates import Authority
from tests.support.gateway import GATEWAY_CLASS, Gateway
from tests.support.http import Connection
from tests.support.traffic import Probe, Target
from tests.support.upstream import Upstream
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")


def listener(name: str, port: int, secret: str, hostname: str | None = None, **ref: str) -> dict[str, Any]:
    host = {"hostname": hostname} if hostname else {}
    tls = {"certificateRefs": [{"name": secret, **ref}]}
    return {"name": name, "port": port, "protocol": "HTTPS", **host, "tls": tls}


def routed(name: str, section: str, path: str = "/", **more: Any) -> m.Manifest:
    """A route on one listener whose answers say its name."""
    edit = {"set": [{"name": "x-route", "value": name}]}
    rule = m.to_backend(path, "echo", filters=[{"type": "RequestHeaderModifier", "requestHeaderModifier": edit}])
    spec = {"parentRefs": [{"name": "edge", "sectionName": section}], "rules": [rule], **more}
    return m.manifest(m.GATEWAY_API, "HTTPRoute", name, spec)


LISTENERS = [
    listener("a", 443, "a", "a.example.com"),
    listener("wildcard", 443, "wildcard", "*.example.com"),
    listener("org", 443, "org", "www.example.org"),
    listener("any", 8443, "any"),
    listener("any-but", 8443, "a", "a.example.com"),
    listener("rotating", 9443, "rotating", "rotating.example.com"),
    listener("far", 9444, "far", "far.example.com", namespace="other"),
    {"name": "plain", "port": 80, "protocol": "HTTP"},
]
MOVED = {"matches": [{"path": {"value": "/moved"}}], "filters": [{"type": "RequestRedirect", "requestRedirect": {}}]}
ROUTES = [
    *(routed(name, name) for name in ("a", "wildcard", "org", "any", "any-but", "rotating", "far")),
    routed("hidden", "wildcard", "/hidden", hostnames=["b.example.com"]),
    m.manifest(m.GATEWAY_API, "HTTPRoute", "moved", {"parentRefs": [{"name": "edge"}], "rules": [MOVED]}),
]


@dataclass
class Scene:
    gateway: Gateway
    authority: Authority
    tls: ssl.SSLContext = field(init=False)

    def __post_init__(self) -> None:
        self.tls = self.authority.client_context()

    async def connect(self, sni: str, port: int = 443) -> Connection:
        return await Connection.to(self.gateway.port(port), tls=self.tls, sni=sni)

    async def serial(self, sni: str, port: int) -> str:
        """Returns the serial number of the certificate that new connections see."""
        async with await self.connect(sni, port) as connection:
            assert connection.certificate is not None
            return connection.certificate["serialNumber"]

    def secret(self, name: str, *names: str, namespace: str = "demo") -> m.Manifest:
        return self.authority.leaf(*names).secret(namespace, name)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene() -> AsyncIterator[Scene]:
    authority = Authority()
    async with Upstream("echo") as upstream:
        gateway = Gateway(
            {
                "base.yaml": [GATEWAY_CLASS, m.gateway(listeners=LISTENERS), m.backend("echo", upstream.port)],
                "routes.yaml": ROUTES,
            }
        )
        scene = Scene(gateway, authority)
        secrets = [
            scene.secret("a", "a.example.com"),
            scene.secret("wildcard", "*.example.com"),
            scene.secret("org", "www.example.org"),
            scene.secret("any", "any.test", "other.test"),
        ]
        gateway.write("secrets.yaml", secrets)
        gateway.write("rotating.yaml", [scene.secret("rotating", "rotating.example.com")])
        gateway.write("far.yaml", [scene.secret("far", "far.example.com", namespace="other")])
        async with gateway:
            yield scene


@pytest.mark.parametrize(
    ("sni", "port", "names", "route"),
    [
        ("a.example.com", 443, {"a.example.com"}, "a"),
        ("b.example.com", 443, {"*.example.com"}, "wildcard"),
        ("www.example.org", 443, {"www.example.org"}, "org"),
        ("any.test", 8443, {"any.test", "other.test"}, "any"),
        ("other.test", 8443, {"any.test", "other.test"}, "any"),
        ("a.example.com", 8443, {"a.example.com"}, "any-but"),
    ],
)
async def test_a_connection_has_the_certificate_and_the_routes_of_the_listener_that_it_names(
    scene: Scene, sni: str, port: int, names: set[str], route: str
) -> None:
    async with await scene.connect(sni, port) as connection:
        assert connection.certificate is not None
        assert {name for _, name in connection.certificate["subjectAltName"]} == names
        response = await connection.request("/x", host=sni)
        assert response.json()["headers"]["x-route"] == route
        assert response.json()["headers"]["x-forwarded-proto"] == "https"


async def test_a_name_that_no_listener_has_gets_no_connection(scene: Scene) -> None:
    with pytest.raises((ConnectionError, ssl.SSLError)):
        await scene.connect("www.example.net")


async def test_plain_http_gets_no_answer_on_an_https_port(scene: Scene) -> None:
    with pytest.raises((ConnectionError, AssertionError, ValueError)):
        await scene.gateway.get("/", port=443, host="a.example.com")


@pytest.mark.parametrize(
    ("sni", "port", "host", "status"),
    [
        ("a.example.com", 443, "a.example.com", 200),
        ("a.example.com", 443, "A.EXAMPLE.COM:443", 200),
        ("a.example.com", 443, "b.example.com", 421),
        ("a.example.com", 443, "www.example.org", 421),
        ("a.example.com", 443, "unknown.test", 421),
        ("b.example.com", 443, "a.example.com", 421),
        ("b.example.com", 443, "c.example.com", 200),
        ("b.example.com", 443, "www.example.org", 421),
        ("any.test", 8443, "unknown.test", 200),
        ("any.test", 8443, "a.example.com", 421),
    ],
)
async def test_a_request_for_a_host_of_another_listener_is_sent_to_another_connection(
    scene: Scene, sni: str, port: int, host: str, status: int
) -> None:
    async with await scene.connect(sni, port) as connection:
        assert (await connection.request("/x", host=host)).status == status
        assert (await connection.request("/x", host=sni)).status == 200


async def test_a_route_of_one_host_is_not_seen_by_others_of_its_listener(scene: Scene) -> None:
    async with await scene.connect("b.example.com") as connection:
        hidden = await connection.request("/hidden", host="b.example.com")
        assert hidden.json()["headers"]["x-route"] == "hidden"
        other = await connection.request("/hidden", host="c.example.com")
        assert other.json()["headers"]["x-route"] == "wildcard"


@pytest.mark.parametrize(
    ("sni", "port", "location"),
    [
        ("a.example.com", 443, "https://a.example.com/moved"),
        ("any.test", 8443, "https://any.test:8443/moved"),
    ],
)
async def test_a_redirect_keeps_scheme_and_port_of_the_listener(
    scene: Scene, sni: str, port: int, location: str
) -> None:
    async with await scene.connect(sni, port) as connection:
        assert (await connection.request("/moved", host=sni)).header("location") == location


async def test_http2_is_offered(scene: Scene) -> None:
    context = scene.authority.client_context()
    context.set_alpn_protocols(["h2"])
    offered: list[str | None] = []
    async with await Connection.to(scene.gateway.port(443), tls=context, sni="a.example.com") as connection:
        offered.append(connection.protocol)
    assert offered == ["h2"]


async def test_a_new_certificate_is_used_at_once_and_open_connections_go_on(scene: Scene) -> None:
    name = "rotating.example.com"
    target = Target("/x", host=name)
    before = await scene.serial(name, 9443)
    async with await scene.connect(name, 9443) as kept:
        async with Probe(scene.gateway.port(9443), [target], tls=scene.tls, rate_per_s=60) as probe:
            for _ in range(3):
                assert (await kept.request("/x", host=name)).status == 200
                old = await scene.serial(name, 9443)
                scene.gateway.write("rotating.yaml", [scene.secret("rotating", name)])

                async def changed(old: str = old) -> bool:
                    return await scene.serial(name, 9443) != old

                await until(changed, what="the new certificate")
        assert (await kept.request("/x", host=name)).status == 200
        probe.assert_none_failed(at_least_per_s=1)
    assert await scene.serial(name, 9443) != before


async def test_a_secret_that_is_removed_closes_its_listener_alone(scene: Scene) -> None:
    gateway = scene.gateway
    certificate = scene.secret("rotating", "rotating.example.com")
    gateway.remove("rotating.yaml")
    finding = await gateway.found("Secret demo/rotating does not exist")
    assert "spec.listeners[5].tls.certificateRefs[0]" in finding
    await gateway.refuses(9443)
    async with await scene.connect("a.example.com") as connection:
        assert (await connection.request("/x", host="a.example.com")).status == 200
    gateway.write("rotating.yaml", [certificate])
    await until(lambda: scene.serial("rotating.example.com", 9443), what="the listener to be back")


async def test_a_secret_of_another_namespace_needs_a_grant(scene: Scene) -> None:
    gateway = scene.gateway
    await gateway.found("no ReferenceGrant in namespace other lets this Gateway refer to Secret other/far")
    gateway.write("grant.yaml", [m.grant("other", to="Secret", source_kind="Gateway")])
    await gateway.answers("/x", port=9444, host="far.example.com", tls=scene.tls, sni="far.example.com")
    gateway.remove("grant.yaml")
    await gateway.refuses(9444)
