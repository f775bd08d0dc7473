"""Certificates of clients, seen through a real Envoy: who is let in, by port, and what a missing authority costs."""

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
from tests.support.certificates import Authority, Certificate
from tests.support.gateway import GATEWAY_CLASS, Gateway
from tests.support.http import Connection
from tests.support.upstream import Upstream
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

HOST = "shop.example.com"


def validation(config_map: str, **more: Any) -> dict[str, Any]:
    return {"validation": {"caCertificateRefs": [{"group": "", "kind": "ConfigMap", "name": config_map}], **more}}


def config_map(name: str, pem: str) -> m.Manifest:
    return m.manifest("v1", "ConfigMap", name, None, data={"ca.crt": pem})


LISTENERS = [
    *(
        {"name": f"https-{port}", "port": port, "protocol": "HTTPS", "tls": {"certificateRefs": [{"name": "server"}]}}
        for port in (443, 8443, 9443)
    ),
    {"name": "plain", "port": 80, "protocol": "HTTP"},
]
FRONTEND = {
    "default": validation("clients"),
    "perPort": [
        {"port": 8443, "tls": validation("clients", mode="AllowInsecureFallback")},
        {"port": 9443, "tls": validation("nowhere")},
    ],
}


@dataclass(frozen=True, slots=True)
class Scene:
    gateway: Gateway
    authority: Authority
    clients: Authority
    folder: Path

    async def status(self, port: int, show: Certificate | None = None) -> int | None:
        """Returns the status of an answer; None where the connection is refused."""
        context = self.authority.client_context(show=show, folder=self.folder)
        try:
            async with await Connection.to(self.gateway.port(port), tls=context, sni=HOST) as connection:
                return (await connection.request("/", host=HOST)).status
        except (ssl.SSLError, OSError, EOFError, ValueError):
            return None


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    authority, clients = Authority(), Authority("clients")
    edge = m.gateway(listeners=LISTENERS)
    edge["spec"]["tls"] = {"frontend": FRONTEND}
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(Upstream("shop"))
        documents = [
            GATEWAY_CLASS,
            edge,
            authority.leaf(HOST).secret("demo", "server"),
            m.backend("shop", upstream.port),
            m.route("shop", [m.to_backend("/", "shop")]),
        ]
        files = {"base.yaml": documents, "clients.yaml": [config_map("clients", clients.cert_pem)]}
        gateway = await stack.enter_async_context(Gateway(files))
        yield Scene(gateway, authority, clients, tmp_path_factory.mktemp("clients"))


async def test_only_who_shows_a_trusted_certificate_is_let_in(scene: Scene) -> None:
    await until(lambda: _is(scene, 443, scene.clients.leaf("me.example.com"), 200), what="an answer")
    assert await scene.status(443) is None
    assert await scene.status(443, Authority("others").leaf("me.example.com")) is None


async def test_a_port_may_let_in_who_has_none_and_says_that_it_does(scene: Scene) -> None:
    await until(lambda: _is(scene, 8443, None, 200), what="an answer")
    assert await scene.status(8443, scene.clients.leaf("me.example.com")) == 200
    assert await scene.status(8443, Authority("others").leaf("me.example.com")) == 200
    plane = scene.gateway.plane
    assert plane is not None
    (status,) = [status for key, status in plane.report().statuses if key.kind == "Gateway"]
    assert "InsecureFrontendValidationMode" in {each.type for each in status.conditions if each.status == "True"}


async def test_without_authorities_a_port_serves_nobody_and_the_others_go_on(scene: Scene) -> None:
    field = "spec.tls.frontend.perPort[1].tls.validation.caCertificateRefs"
    await scene.gateway.found("Gateway demo/edge", field, "none of the references")
    assert await scene.status(9443, scene.clients.leaf("me.example.com")) is None
    await scene.gateway.answers("/")


async def test_authorities_change_for_connections_from_then_on(scene: Scene) -> None:
    new = Authority("the next one")
    old_leaf, new_leaf = scene.clients.leaf("me.example.com"), new.leaf("me.example.com")
    scene.gateway.write("clients.yaml", [config_map("clients", new.cert_pem)])
    await until(lambda: _is(scene, 443, new_leaf, 200), what="the new authority")
    assert await scene.status(443, old_leaf) is None
    scene.gateway.write("clients.yaml", [config_map("clients", scene.clients.cert_pem)])
    await until(lambda: _is(scene, 443, old_leaf, 200), what="the old authority")


async def _is(scene: Scene, port: int, show: Certificate | None, status: int) -> bool:
    return await scene.status(port, show) == status
