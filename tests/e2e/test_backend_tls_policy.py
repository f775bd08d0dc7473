"""BackendTLSPolicy, seen through a real Envoy: whom a Service's backends are trusted as, and who they are shown."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from tests.support import manifests as m
from tests.support.certificates import Authority
from tests.support.gateway import GATEWAY_CLASS, Gateway
from tests.support.upstream import Upstream

pytestmark = pytest.mark.asyncio(loop_scope="module")

NAME, URI = "api.example.net", "spiffe://shop/api"
CA = [{"group": "", "kind": "ConfigMap", "name": "ca"}]
VALIDATIONS: dict[str, dict[str, Any]] = {
    "trusted": {"caCertificateRefs": CA, "hostname": NAME},
    "by-dns": {
        "caCertificateRefs": CA,
        "hostname": "sni.example.net",
        "subjectAltNames": [_dns := {"type": "Hostname", "hostname": NAME}],
    },
    "by-uri": {"caCertificateRefs": CA, "hostname": NAME, "subjectAltNames": [{"type": "URI", "uri": URI}]},
    "one-of-two": {
        "caCertificateRefs": [{"group": "", "kind": "ConfigMap", "name": "nowhere"}, *CA],
        "hostname": NAME,
        "subjectAltNames": [{"type": "URI", "uri": "spiffe://other"}, _dns],
    },
    "other-name": {"caCertificateRefs": CA, "hostname": "other.example.net"},
    "other-uri": {"caCertificateRefs": CA, "hostname": NAME, "subjectAltNames": [{"type": "URI", "uri": "spiffe://x"}]},
    "by-system": {"wellKnownCACertificates": "System", "hostname": NAME},
    "missing-ca": {"caCertificateRefs": [{"group": "", "kind": "ConfigMap", "name": "nowhere"}], "hostname": NAME},
    "odd-ca": {"caCertificateRefs": [{"group": "", "kind": "Service", "name": "ca"}], "hostname": NAME},
}


def policy(name: str, service: str, validation: dict[str, Any], **section: str) -> m.Manifest:
    target = {"group": "", "kind": "Service", "name": service, **section}
    return m.manifest(m.GATEWAY_API, "BackendTLSPolicy", name, {"targetRefs": [target], "validation": validation})


@dataclass(frozen=True, slots=True)
class Scene:
    gateway: Gateway
    upstream: Upstream
    asked_for: list[str | None]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    authority, clients = Authority(), Authority("clients")
    asked_for: list[str | None] = []
    context = authority.leaf(NAME, URI).server_context(tmp_path_factory.mktemp("tls"), client_ca=clients)

    def note(socket: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        asked_for.append(name)

    context.sni_callback = note
    edge = m.gateway()
    edge["spec"]["tls"] = {"backend": {"clientCertificateRef": {"name": "gateway"}}}
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(Upstream("tls", tls=context))
        documents = [
            GATEWAY_CLASS,
            edge,
            clients.leaf("edge.example.com").secret("demo", "gateway"),
            m.manifest("v1", "ConfigMap", "ca", None, data={"ca.crt": authority.cert_pem}),
            m.route("services", [m.rule(f"/{name}", name) for name in VALIDATIONS]),
        ]
        for name, validation in VALIDATIONS.items():
            endpoints = m.endpoint_slice(name, "127.0.0.1")
            endpoints["ports"][0]["port"] = upstream.port
            documents += [m.service(name), endpoints, policy(name, name, validation)]
        gateway = await stack.enter_async_context(Gateway({"base.yaml": documents}))
        yield Scene(gateway, upstream, asked_for)


@pytest.mark.parametrize("name", ["trusted", "by-dns", "by-uri", "one-of-two"])
async def test_a_backend_with_the_right_certificate_is_asked_and_shown_the_gateways_own(
    scene: Scene, name: str
) -> None:
    # The backend turns away who shows no certificate of the authority for clients.
    await scene.gateway.answers(f"/{name}")
    assert scene.asked_for[-1] == VALIDATIONS[name]["hostname"]


@pytest.mark.parametrize("name", ["other-name", "other-uri", "by-system", "missing-ca", "odd-ca"])
async def test_a_backend_that_cannot_be_trusted_gets_no_request(scene: Scene, name: str) -> None:
    await scene.gateway.answers("/trusted")
    before = scene.upstream.count
    assert (await scene.gateway.get(f"/{name}")).status == 503
    assert scene.upstream.count == before


@pytest.mark.parametrize(
    ("name", "reason"), [("missing-ca", "does not exist"), ("odd-ca", "expected a ConfigMap or a Secret")]
)
async def test_what_a_policy_cannot_trust_by_is_told_with_its_field(scene: Scene, name: str, reason: str) -> None:
    where = f"BackendTLSPolicy demo/{name}"
    await scene.gateway.found(where, "spec.validation.caCertificateRefs[0]", reason)
    await scene.gateway.found(where, "spec.validation.caCertificateRefs", "none of the references")


async def test_the_older_of_two_policies_has_the_service(scene: Scene) -> None:
    second = policy("later", "trusted", {"caCertificateRefs": CA, "hostname": "other.example.net"})
    second["metadata"]["creationTimestamp"] = "2030-01-01T00:00:00Z"
    scene.gateway.write("later.yaml", [second])
    await scene.gateway.found("BackendTLSPolicy demo/later", "spec.targetRefs", "demo/trusted has the same target")
    assert (await scene.gateway.get("/trusted")).status == 200
    scene.gateway.remove("later.yaml")
    await scene.gateway.answers("/trusted")


async def test_a_policy_that_is_removed_leaves_plain_text(scene: Scene) -> None:
    plain = [m.service("plain"), m.route("plain", [m.rule("/plain", "plain")])]
    endpoints = m.endpoint_slice("plain", "127.0.0.1")
    endpoints["ports"][0]["port"] = scene.upstream.port
    scene.gateway.write("plain.yaml", [*plain, endpoints, policy("plain", "plain", VALIDATIONS["trusted"])])
    await scene.gateway.answers("/plain")
    scene.gateway.write("plain.yaml", [*plain, endpoints])
    await scene.gateway.answers("/plain", 503)
    scene.gateway.write("plain.yaml", [*plain, endpoints, policy("plain", "plain", VALIDATIONS["trusted"])])
    await scene.gateway.answers("/plain")
    scene.gateway.remove("plain.yaml")
    await scene.gateway.answers("/plain", 404)
