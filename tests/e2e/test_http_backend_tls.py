"""TLS to backends, seen through a real Envoy: whom a Backend trusts, and under which name it asks."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.support import manifests as m
from tests.support.certificates import Authority
from tests.support.gateway import GATEWAY_CLASS, Gateway
from tests.support.traffic import Probe, Target
from tests.support.upstream import Upstream
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

CA = [{"group": "", "kind": "ConfigMap", "name": "ca"}]
OTHER_CA = [{"group": "", "kind": "Secret", "name": "other-ca"}]
BACKENDS: dict[str, dict[str, Any]] = {
    "by-config-map": {"caCertificateRefs": CA, "sni": "api.example.net"},
    "by-secret": {"caCertificateRefs": OTHER_CA, "sni": "api.example.net"},
    "by-both": {"caCertificateRefs": [*OTHER_CA, *CA], "sni": "api.example.net"},
    "by-wildcard": {"caCertificateRefs": CA, "sni": "x.wild.example.net"},
    "wrong-name": {"caCertificateRefs": CA, "sni": "other.example.net"},
    "by-host": {"caCertificateRefs": CA},
    "by-system": {"wellKnownCACertificates": "System", "sni": "api.example.net"},
    "unchecked": {"insecureSkipVerify": True},
    "missing-ca": {"caCertificateRefs": [{"group": "", "kind": "ConfigMap", "name": "nowhere"}]},
    "odd-ca": {"caCertificateRefs": [{"group": "", "kind": "Service", "name": "ca"}]},
}


def config_map(authority: Authority) -> m.Manifest:
    return m.manifest("v1", "ConfigMap", "ca", None, data={"ca.crt": authority.cert_pem})


@dataclass(frozen=True, slots=True)
class Scene:
    gateway: Gateway
    upstream: Upstream
    authority: Authority
    asked_for: list[str | None]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    authority, other = Authority(), Authority("somebody else")
    asked_for: list[str | None] = []
    context = server_context(authority, tmp_path_factory.mktemp("tls"), asked_for)
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(Upstream("tls", tls=context))
        endpoints = [{"ip": {"address": "127.0.0.1", "port": upstream.port}}]
        base = [
            GATEWAY_CLASS,
            m.gateway(),
            *(
                m.manifest("dragoman.dev/v1alpha1", "Backend", name, {"endpoints": endpoints, "tls": tls})
                for name, tls in BACKENDS.items()
            ),
            m.route("backends", [m.to_backend(f"/{name}", name) for name in BACKENDS]),
            m.manifest("v1", "Secret", "other-ca", None, stringData={"ca.crt": other.cert_pem}),
        ]
        files = {"base.yaml": base, "ca.yaml": [config_map(authority)]}
        gateway = await stack.enter_async_context(Gateway(files))
        yield Scene(gateway, upstream, authority, asked_for)


def server_context(authority: Authority, folder: Path, asked_for: list[str | None]) -> ssl.SSLContext:
    context = authority.leaf("api.example.net", "*.wild.example.net", "host.example.net").server_context(folder)

    def note(socket: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        asked_for.append(name)

    context.sni_callback = note
    return context


@pytest.mark.parametrize(
    ("name", "sni"),
    [
        ("by-config-map", "api.example.net"),
        ("by-both", "api.example.net"),
        ("by-wildcard", "x.wild.example.net"),
        ("unchecked", "host.example.net"),
        ("by-host", "host.example.net"),
    ],
)
async def test_a_backend_that_shows_a_trusted_certificate_is_asked_by_name(scene: Scene, name: str, sni: str) -> None:
    response = await scene.gateway.get(f"/{name}", host="host.example.net")
    assert response.status == 200
    assert scene.asked_for[-1] == sni


@pytest.mark.parametrize("name", ["by-secret", "wrong-name", "by-system"])
async def test_a_backend_that_shows_another_certificate_gets_no_request(scene: Scene, name: str) -> None:
    before = scene.upstream.count
    response = await scene.gateway.get(f"/{name}", host="host.example.net")
    assert response.status == 503
    assert scene.upstream.count == before


async def test_without_a_name_of_its_own_the_certificate_must_be_for_the_host(scene: Scene) -> None:
    assert (await scene.gateway.get("/by-host", host="other.example.net")).status == 503


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("missing-ca", "ConfigMap demo/nowhere does not exist"),
        ("odd-ca", "expected a ConfigMap or a Secret"),
    ],
)
async def test_a_backend_whose_authorities_cannot_be_had_fails_closed(scene: Scene, name: str, words: str) -> None:
    before = scene.upstream.count
    assert (await scene.gateway.get(f"/{name}", host="host.example.net")).status == 500
    assert scene.upstream.count == before
    await scene.gateway.found(f"Backend demo/{name}", "spec.tls.caCertificateRefs[0]", words)
    await scene.gateway.found("HTTPRoute demo/backends", words)


async def test_authorities_change_without_a_failed_request(scene: Scene) -> None:
    gateway, target = scene.gateway, Target("/by-config-map", host="host.example.net")
    new = Authority("the next one")
    both = m.manifest("v1", "ConfigMap", "ca", None, data={"ca.crt": new.cert_pem + scene.authority.cert_pem})
    async with Probe(gateway.port(80), [target], rate_per_s=60) as probe:
        gateway.write("ca.yaml", [both])
        await until(lambda: len(probe.results) >= 20, what="requests")
        gateway.write("ca.yaml", [m.manifest("v1", "ConfigMap", "ca", None, data={"ca.crt": "-----BEGIN nothing"})])
        await gateway.found("ConfigMap demo/ca", "data['ca.crt']", "the last good version stays in force")
        await until(lambda: len(probe.results) >= 40, what="requests")
        gateway.write("ca.yaml", [config_map(scene.authority)])
        await until(lambda: len(probe.results) >= 60, what="requests")
    probe.assert_none_failed(at_least_per_s=1)
    gateway.write("ca.yaml", [config_map(new)])
    await until(lambda: _refused_anew(scene), what="new connections to be refused")
    gateway.write("ca.yaml", [config_map(scene.authority)])
    await gateway.answers("/by-config-map", host="host.example.net")


async def test_trust_that_is_taken_away_is_gone(scene: Scene) -> None:
    gateway = scene.gateway
    gateway.remove("ca.yaml")
    await gateway.answers("/by-config-map", 500, host="host.example.net")
    gateway.write("ca.yaml", [config_map(scene.authority)])
    await gateway.answers("/by-config-map", host="host.example.net")


async def _refused_anew(scene: Scene) -> bool:
    """Whether a connection that is new gets no answer: what is open has been trusted when it was opened."""
    scene.upstream.stop()
    await scene.upstream.start()
    return (await scene.gateway.get("/by-config-map", host="host.example.net")).status == 503
