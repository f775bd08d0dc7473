"""No request fails while routes, backends, endpoints, listeners and the control plane come, change and go."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest
import pytest_asyncio

from tests.support import manifests as m
from tests.support.certificates import Authority
from tests.support.dns import DnsServer
from tests.support.gateway import GATEWAY_CLASS, Gateway
from tests.support.jwks_server import JwksServer
from tests.support.tokens import SigningKey, bearer
from tests.support.traffic import Probe, Result, Target
from tests.support.upstream import Upstream
from tests.support.waiting import until

pytestmark = pytest.mark.serial

STEADY = Target("/steady")
MOVING = Target("/moving")
ENOUGH = 400


@dataclass(frozen=True, slots=True)
class Scene:
    gateway: Gateway
    one: Upstream
    two: Upstream
    dns: DnsServer

    @asynccontextmanager
    async def traffic(self, *targets: Target, **more: Any) -> AsyncGenerator[Probe]:
        """Sends requests while the block runs, at least so many that their rate means something; none may fail."""
        async with Probe(self.gateway.port(80), targets or (STEADY, MOVING), rate_per_s=280, **more) as probe:
            yield probe
            await until(lambda: len(probe.results) >= ENOUGH, what="requests")
        probe.assert_none_failed()


@pytest_asyncio.fixture
async def scene() -> AsyncIterator[Scene]:
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(Upstream("one"))
        two = await stack.enter_async_context(Upstream("two"))
        dns = await stack.enter_async_context(DnsServer())
        files = {
            "base.yaml": [GATEWAY_CLASS, m.backend("one", one.port), m.backend("two", two.port)],
            "gateway.yaml": [m.gateway()],
            "steady.yaml": [m.route("steady", [m.to_backend("/steady", "one")])],
            "moving.yaml": [m.route("moving", [m.to_backend("/moving", "one")])],
        }
        gateway = Gateway(files, nameservers=[("127.0.0.1", dns.port)])
        yield Scene(await stack.enter_async_context(gateway), one, two, dns)


def served_by(name: str, path: str = MOVING.path) -> Any:
    """Says whether a result came from this backend."""

    def came(result: Result) -> bool:
        return result.target.path == path and result.ok and result.response is not None and named(result) == name

    return came


def named(result: Result) -> str:
    assert result.response is not None
    return result.response.json()["name"]


async def test_while_routes_are_added_changed_and_removed(scene: Scene) -> None:
    gateway = scene.gateway
    async with scene.traffic() as probe:
        for round_ in range(4):
            others = [m.route(f"r{n}", [m.to_backend(f"/r{n}", "one")]) for n in range(20)]
            gateway.write("others.yaml", others)
            await gateway.answers("/r19")
            changed = [m.route(f"r{n}", [m.to_backend(f"/changed{n}", "two")]) for n in range(15)]
            gateway.write("others.yaml", changed)
            await gateway.answers("/changed14")
            gateway.remove("others.yaml")
            await gateway.answers("/changed14", 404)
            await switch(scene, probe, "two" if round_ % 2 == 0 else "one")


async def switch(scene: Scene, probe: Probe, name: str) -> None:
    """Sends `/moving` to another backend, and waits until a request has come there."""
    scene.gateway.write("moving.yaml", [m.route("moving", [m.to_backend("/moving", name)])])
    await probe.sees(served_by(name), what=f"requests at {name}")


async def test_while_a_route_moves_between_backends_that_come_and_go(scene: Scene) -> None:
    gateway = scene.gateway
    async with scene.traffic() as probe:
        for number in range(6):
            name = f"new-{number}"
            backend = m.backend(name, (scene.two if number % 2 == 0 else scene.one).port)
            gateway.write("moving.yaml", [m.route("moving", [m.to_backend("/moving", name)]), backend])
            await probe.sees(served_by("two" if number % 2 == 0 else "one"), what=f"requests at {name}")


async def test_while_a_route_moves_to_a_name_behind_a_slow_dns_server(scene: Scene) -> None:
    gateway, dns = scene.gateway, scene.dns
    dns.set("api.example.net", "127.0.0.1")
    dns.set("other.example.net", "127.0.0.1")
    dns.be_slow(0.7)
    async with scene.traffic() as probe:
        gateway.write("moving.yaml", [m.route("moving", [m.to_backend("/moving", "named")]), by_name(scene.two, "api")])
        await gateway.found_pending("HTTPRoute demo/moving", "waiting for the addresses of api.example.net")
        await probe.sees(served_by("two"), what="requests at the name")
        # The same Backend, by another name that is not known yet.
        gateway.write(
            "moving.yaml", [m.route("moving", [m.to_backend("/moving", "named")]), by_name(scene.one, "other")]
        )
        await probe.sees(served_by("one"), what="requests at the other name")
        dns.fail()
        await scene_settles(scene)
        dns.fail(False)


def by_name(upstream: Upstream, host: str) -> m.Manifest:
    endpoints = [{"fqdn": {"hostname": f"{host}.example.net", "port": upstream.port}}]
    return m.manifest("dragoman.dev/v1alpha1", "Backend", "named", {"endpoints": endpoints})


async def scene_settles(scene: Scene) -> None:
    """Waits until the name has been asked for again, and in vain."""
    asked = len(scene.dns.queries)
    await until(lambda: len(scene.dns.queries) >= asked + 2, what="another query")


async def test_while_a_name_that_nobody_knows_is_waited_for(scene: Scene) -> None:
    gateway = scene.gateway
    scene.dns.be_silent()
    async with scene.traffic() as probe:
        gateway.write("moving.yaml", [m.route("moving", [m.to_backend("/moving", "named")]), by_name(scene.two, "api")])
        await gateway.found_pending("HTTPRoute demo/moving", "waiting for the addresses of api.example.net")
        scene.dns.set("api.example.net", "127.0.0.1")
        scene.dns.be_silent(False)
        await probe.sees(served_by("two"), what="requests at the name", within_s=20)


def pods(*ports: int) -> list[m.Manifest]:
    return [
        {**m.endpoint_slice("pods", "127.0.0.1", suffix=str(number)), "ports": [{"port": port}]}
        for number, port in enumerate(ports)
    ]


async def test_while_endpoints_change(scene: Scene) -> None:
    gateway = scene.gateway
    gateway.write("pods.yaml", [m.service("pods"), *pods(scene.one.port)])
    gateway.write("moving.yaml", [m.route("moving", [m.rule("/moving", "pods")])])
    await gateway.answers("/moving")
    async with scene.traffic() as probe:
        for _ in range(3):
            gateway.write("pods.yaml", [m.service("pods"), *pods(scene.one.port, scene.two.port)])
            await probe.sees(served_by("two"), what="requests at the second endpoint")
            gateway.write("pods.yaml", [m.service("pods"), *pods(scene.two.port)])
            await only(scene, probe, "two")
            gateway.write("pods.yaml", [m.service("pods"), *pods(scene.one.port)])
            await only(scene, probe, "one")


async def only(scene: Scene, probe: Probe, name: str) -> None:
    """Waits until ten requests in a row have come to one backend."""

    def found() -> bool:
        last = [result for result in probe.results if result.target is MOVING][-10:]
        return len(last) == 10 and all(result.ok and named(result) == name for result in last)

    await until(found, what=f"requests at {name} alone")


def listener(name: str, port: int, hostname: str | None = None) -> dict[str, Any]:
    return {"name": name, "port": port, "protocol": "HTTP", **({"hostname": hostname} if hostname else {})}


async def test_while_listeners_come_and_go(scene: Scene) -> None:
    gateway = scene.gateway
    async with scene.traffic():
        for _ in range(3):
            both = [listener("http", 80), listener("more", 8080)]
            gateway.write("gateway.yaml", [m.gateway(listeners=both)])
            await gateway.answers("/steady", port=8080)
            with_host = [listener("http", 80), listener("host", 80, "other.example.com")]
            only_there = m.manifest(
                m.GATEWAY_API,
                "HTTPRoute",
                "there",
                {"parentRefs": [{"name": "edge", "sectionName": "host"}], "rules": [m.to_backend("/there", "one")]},
            )
            gateway.write("gateway.yaml", [m.gateway(listeners=with_host), only_there])
            await gateway.answers("/there", host="other.example.com")
            await gateway.refuses(8080)
            gateway.write("gateway.yaml", [m.gateway()])
            await gateway.answers("/there", 404, host="other.example.com")


async def test_while_https_listeners_and_certificates_come_and_go(scene: Scene, authority: Authority) -> None:
    gateway, tls = scene.gateway, authority.client_context()

    def https(*hosts: str) -> list[m.Manifest]:
        listeners = [
            {**listener(host.partition(".")[0], 443, host), "protocol": "HTTPS", "tls": secret(host)} for host in hosts
        ]
        return [m.gateway(listeners=[listener("http", 80), *listeners])]

    def secret(host: str) -> dict[str, Any]:
        return {"certificateRefs": [{"name": host.partition(".")[0]}]}

    def certificates(*hosts: str) -> list[m.Manifest]:
        return [authority.leaf(host).secret("demo", host.partition(".")[0]) for host in hosts]

    first, second = "first.example.com", "second.example.com"
    gateway.write("secrets.yaml", certificates(first, second))
    gateway.write("gateway.yaml", https(first))
    await gateway.answers("/steady", port=443, host=first, tls=tls, sni=first)
    target = Target("/steady", host=first)
    async with (
        scene.traffic(STEADY),
        Probe(gateway.port(443), [target], rate_per_s=100, fresh_every=10, tls=tls) as probe,
    ):
        for _ in range(3):
            gateway.write("gateway.yaml", https(first, second))
            await gateway.answers("/steady", port=443, host=second, tls=tls, sni=second)
            gateway.write("secrets.yaml", certificates(first, second))
            await probe.sees(lambda result: result.fresh and result.ok, what="a request over a new connection")
            gateway.write("gateway.yaml", https(first))
            await gateway.answers("/steady", 421, port=443, host=second, tls=tls, sni=first)
            await gateway.cannot_connect(443, tls=tls, sni=second)
    probe.assert_none_failed(at_least_per_s=90)


async def test_while_the_control_plane_restarts(scene: Scene) -> None:
    gateway = scene.gateway
    async with scene.traffic() as probe:
        for name in ("two", "one"):
            await gateway.stop_plane()
            # What changes while nobody looks is in force as soon as somebody does.
            gateway.write("moving.yaml", [m.route("moving", [m.to_backend("/moving", name)])])
            await probe.sees(lambda result: result.ok, what="a request while there is no control plane")
            await gateway.start_plane()
            await probe.sees(served_by(name), what=f"requests at {name}")
        await gateway.stop_plane()
        await gateway.start_plane()
        await switch(scene, probe, "two")


async def test_while_the_control_plane_restarts_and_the_dns_is_slow(scene: Scene) -> None:
    gateway = scene.gateway
    scene.dns.set("api.example.net", "127.0.0.1")
    gateway.write("moving.yaml", [m.route("moving", [m.to_backend("/moving", "named")]), by_name(scene.two, "api")])
    await until(lambda: came_to(gateway, "two"), what="the name to be served")
    scene.dns.be_slow(1.0)
    async with scene.traffic() as probe:
        await gateway.stop_plane()
        await gateway.start_plane()
        gateway.write("late.yaml", [m.route("late", [m.to_backend("/late", "one")])])
        await gateway.answers("/late")
        await probe.sees(served_by("two"), what="requests at the name")


async def came_to(gateway: Gateway, name: str) -> bool:
    response = await gateway.get("/moving")
    return response.status == 200 and response.json()["name"] == name


def guard(issuer: JwksServer, **more: Any) -> m.Manifest:
    remote = {"uri": issuer.uri, "cacheDuration": "100ms"}
    provider = {"name": "main", "issuer": "https://issuer.example", "remoteJWKS": remote, **more}
    target = {"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": "moving"}
    spec = {"targetRefs": [target], "jwt": {"providers": [provider]}}
    return m.manifest("dragoman.dev/v1alpha1", "SecurityPolicy", "guard", spec)


async def test_while_a_token_policy_is_added_changed_and_its_keys_rotated(scene: Scene) -> None:
    gateway = scene.gateway
    first, second = SigningKey.make("first"), SigningKey.make("second")
    moving = replace(MOVING, headers=bearer(first.token(aud="shop")))
    # Two kept-alive connections and none that is new: filters of old connections meet the routes of now.
    async with (
        JwksServer(first) as issuer,
        scene.traffic(STEADY, moving, connections=2, fresh_every=0) as probe,
    ):
        for _ in range(3):
            gateway.write("guard.yaml", [guard(issuer)])
            await gateway.answers("/moving", 401)
            gateway.write("guard.yaml", [guard(issuer, claimToHeaders=[{"claim": "sub", "header": "x-user"}])])
            await probe.sees(told_of_user, what="the user in a header")
            gateway.write("guard.yaml", [guard(issuer, audiences=["shop"])])
            await gateway.answers("/moving", 403, headers=bearer(first.token()))
            gateway.write("guard.yaml", [guard(issuer)])
            await gateway.answers("/moving", headers=bearer(first.token()))
            issuer.rotate(first, second)
            await gateway.answers("/moving", headers=bearer(second.token()))
            issuer.rotate(first)
            await gateway.answers("/moving", 401, headers=bearer(second.token()))
            gateway.remove("guard.yaml")
            await gateway.answers("/moving")


def told_of_user(result: Result) -> bool:
    return result.ok and result.response is not None and result.response.json()["headers"].get("x-user") == "alice"
