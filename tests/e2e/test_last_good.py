"""The last good version outlives the control plane, for what its source still has."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest_asyncio

from tests.support import manifests as m
from tests.support.dns import DnsServer
from tests.support.gateway import GATEWAY_CLASS, Gateway
from tests.support.traffic import Probe, Target
from tests.support.upstream import Upstream

GOOD = m.route("edited", [m.to_backend("/edited", "echo")])
BAD = m.route("edited", [m.rule("/(", "echo", kind="RegularExpression")])
TOLD = ("HTTPRoute demo/edited", "the last good version stays in force")


@dataclass(frozen=True, slots=True)
class Scene:
    gateway: Gateway
    upstream: Upstream
    dns: DnsServer

    def probe(self, *paths: str) -> Probe:
        return Probe(self.gateway.port(80), [Target(path) for path in paths], rate_per_s=60)


@pytest_asyncio.fixture
async def scene() -> AsyncIterator[Scene]:
    async with Upstream("echo") as upstream, DnsServer({"api.example.net": ["127.0.0.1"]}) as dns:
        files = {
            "base.yaml": [GATEWAY_CLASS, m.gateway(), m.backend("echo", upstream.port)],
            "edited.yaml": [GOOD],
            "other.yaml": [m.route("other", [m.to_backend("/other", "echo")])],
        }
        async with Gateway(files, nameservers=[("127.0.0.1", dns.port)], keeps_state=True) as gateway:
            await gateway.answers("/edited")
            yield Scene(gateway, upstream, dns)


async def test_a_route_that_was_broken_while_nobody_looked_serves_as_it_was(scene: Scene) -> None:
    gateway = scene.gateway
    async with scene.probe("/edited", "/other") as probe:
        await gateway.stop_plane()
        gateway.write("edited.yaml", [BAD])
        await gateway.start_plane()
        await gateway.found(*TOLD)
        await gateway.stop_plane()
        await gateway.start_plane()
        await gateway.found(*TOLD)
        gateway.write("more.yaml", [m.route("more", [m.to_backend("/more", "echo")])])
        await gateway.answers("/more")
    probe.assert_none_failed(at_least_per_s=1)


async def test_a_new_envoy_gets_it_too(scene: Scene) -> None:
    gateway = scene.gateway
    gateway.write("edited.yaml", [BAD])
    await gateway.found(*TOLD)
    await gateway.stop_plane()
    await gateway.start_plane()
    await gateway.restart_envoy()
    await gateway.answers("/edited")


async def test_a_route_that_is_gone_is_not_brought_back(scene: Scene) -> None:
    gateway = scene.gateway
    await gateway.stop_plane()
    gateway.remove("edited.yaml")
    await gateway.start_plane()
    await gateway.answers("/edited", 404)
    await gateway.stop_plane()
    gateway.write("edited.yaml", [BAD])
    await gateway.start_plane()
    await gateway.found("HTTPRoute demo/edited", "RE2")
    assert not [each for each in gateway.findings() if "last good" in each]
    assert (await gateway.get("/edited")).status == 404


async def test_a_file_that_cannot_be_read_keeps_what_it_had_until_it_can(scene: Scene) -> None:
    gateway = scene.gateway
    async with scene.probe("/edited", "/other") as probe:
        await gateway.stop_plane()
        gateway.write("edited.yaml", "kind: [unclosed\n")
        await gateway.start_plane()
        await gateway.found("edited.yaml:")
        gateway.write("more.yaml", [m.route("more", [m.to_backend("/more", "echo")])])
        await gateway.answers("/more")
        gateway.write("edited.yaml", [GOOD])
        await gateway.answers("/edited")
        assert gateway.findings() == []
    probe.assert_none_failed(at_least_per_s=1)
    await gateway.stop_plane()
    gateway.write("edited.yaml", "kind: [unclosed\n")
    await gateway.start_plane()
    await gateway.answers("/edited")
    gateway.write("edited.yaml", [m.route("another", [m.to_backend("/another", "echo")])])
    await gateway.answers("/another")
    await gateway.answers("/edited", 404)


async def test_a_name_keeps_its_addresses_while_the_dns_is_silent(scene: Scene) -> None:
    gateway = scene.gateway
    endpoints = [{"fqdn": {"hostname": "api.example.net", "port": scene.upstream.port}}]
    named = m.manifest("dragoman.dev/v1alpha1", "Backend", "named", {"endpoints": endpoints})
    gateway.write("named.yaml", [named, m.route("named", [m.to_backend("/named", "named")])])
    await gateway.answers("/named")
    async with scene.probe("/named", "/other") as probe:
        await gateway.stop_plane()
        scene.dns.be_silent()
        await gateway.start_plane()
        gateway.write("more.yaml", [m.route("more", [m.to_backend("/more", "echo")])])
        await gateway.answers("/more")
    probe.assert_none_failed(at_least_per_s=1)


async def test_a_gateway_whose_listeners_conflict_serves_as_it_did(scene: Scene) -> None:
    gateway = scene.gateway
    listeners = [
        {"name": "http", "port": 80, "protocol": "HTTP"},
        {"name": "https", "port": 80, "protocol": "HTTPS", "tls": {"certificateRefs": [{"name": "x"}]}},
    ]
    async with scene.probe("/other") as probe:
        await gateway.stop_plane()
        base = (gateway.folder / "base.yaml").read_text()
        gateway.write("gateway.yaml", [m.gateway(listeners=listeners)])
        gateway.write("base.yaml", [GATEWAY_CLASS, m.backend("echo", scene.upstream.port)])
        await gateway.start_plane()
        await gateway.found("Gateway demo/edge", "the last good version stays in force")
        await gateway.answers("/other")
        gateway.remove("gateway.yaml")
        gateway.write("base.yaml", base)
    probe.assert_none_failed(at_least_per_s=1)
