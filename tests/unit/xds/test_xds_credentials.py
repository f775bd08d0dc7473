"""The services' client between machines: it knows the control plane by TLS, and shows its token."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from controlplane.xds.authentication import Authenticated
from controlplane.xds.cache import SnapshotCache
from controlplane.xds.credentials import KeyPair, ServerTls
from controlplane.xds.identity import AUTHZ_OWNER
from controlplane.xds.resources import AUTHZ_POLICY
from controlplane.xds.server import serve_ads
from controlplane.xds.tokens import ServiceAccountTokens
from dragoman.xds_client import Backoff, XdsClient
from dragoman.xds_credentials import XdsCredentials
from ext_authz.settings import AuthzSettings
from ratelimit_service.settings import RateLimitSettings
from tests.support.certificates import Authority
from tests.support.ports import free_port
from tests.support.tokens import SigningKey
from tests.support.waiting import until
from tests.unit.xds.accounts import Issuer
from tests.unit.xds.made import plain, snapshot

pytestmark = pytest.mark.usefixtures("engine")

NAME = "dragoman.system.svc"


class Scene:
    """A control plane on TLS, and a service's files."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority()
        self.issuer = Issuer()
        self.cache = SnapshotCache()
        self.address = f"127.0.0.1:{free_port()}"
        self.credentials = XdsCredentials(folder / "ca.crt", NAME, folder / "token")
        self.held: dict[str, bytes] = {}
        (folder / "ca.crt").write_text(self.authority.cert_pem)
        (folder / "token").write_text(self.issuer.token("system", "authz") + "\n")

    @contextlib.asynccontextmanager
    async def serving(self, **policies: str) -> AsyncIterator[None]:
        leaf = self.authority.leaf(NAME)
        tls = ServerTls(KeyPair(leaf.cert_pem.encode(), leaf.key_pem.encode()))
        tokens = ServiceAccountTokens(self.issuer.fetch, services={("system", "authz"): "authz"})
        cache = SnapshotCache()
        cache.publish({AUTHZ_OWNER: snapshot(*(plain(AUTHZ_POLICY, *each) for each in policies.items()))})
        server = await serve_ads(cache, listen={self.address: Authenticated(tokens, tls)})
        try:
            yield
        finally:
            await server.stop()

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator[XdsClient]:
        def update(changed: Mapping[str, bytes], removed: set[str]) -> None:
            self.held.update(changed)

        client = XdsClient(
            self.address,
            "worker-0",
            AUTHZ_OWNER,
            AUTHZ_POLICY,
            update,
            credentials=self.credentials,
            backoff=Backoff(0.01, 0.05),
        )
        task = asyncio.create_task(client.run())
        try:
            yield client
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


async def test_a_service_is_let_in_by_its_token_and_by_the_next_when_that_is_replaced(
    scene: Scene, tmp_path: Path
) -> None:
    async with scene.client() as client:
        async with scene.serving(a="1"):
            await until(lambda: "a" in scene.held, what="the first policies")
        await until(lambda: not client.status.connected, what="the end of the stream")
        scene.issuer.keys[0] = SigningKey.make("k2")
        scene.authority = Authority("another")
        async with scene.serving(a="1", b="1"):
            await until(lambda: "CERTIFICATE_VERIFY" in (client.status.error or ""), what="distrust")
            (tmp_path / "ca.crt").write_text(scene.authority.cert_pem)
            await until(lambda: "unknown key" in (client.status.error or ""), what="a refusal of the old token")
            (tmp_path / "token").write_text(scene.issuer.token("system", "authz"))
            await until(lambda: "b" in scene.held, what="the policies of the next control plane")
            assert client.status.connected


async def test_files_that_are_not_there_yet_are_waited_for(scene: Scene, tmp_path: Path) -> None:
    token, ca = (tmp_path / "token").read_text(), (tmp_path / "ca.crt").read_text()
    (tmp_path / "token").unlink()
    (tmp_path / "ca.crt").write_text("")
    async with scene.serving(a="1"), scene.client() as client:
        await until(lambda: "token" in (client.status.error or ""), what="the lack of a token to be told")
        (tmp_path / "token").write_text(token)
        await until(lambda: "no certificate" in (client.status.error or ""), what="the lack of a CA to be told")
        (tmp_path / "ca.crt").write_text(ca)
        await until(lambda: "a" in scene.held, what="the policies")


async def test_a_control_plane_of_another_name_is_not_told_the_token(scene: Scene) -> None:
    scene.credentials = XdsCredentials(scene.credentials.ca, "other.svc", scene.credentials.token)
    async with scene.serving(a="1"), scene.client() as client:
        await until(lambda: client.status.error, what="an error")
        assert not client.status.connected
    assert not scene.issuer.fetched


@pytest.mark.parametrize("model", [AuthzSettings, RateLimitSettings])
@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ({"xds": "control.example:18000"}, "xds_ca"),
        ({"xds": "10.0.0.1:18000", "xds_token": "t"}, "xds_ca"),
        ({"xds": "127.0.0.1:18000", "xds_server_name": "n"}, "xds_server_name"),
        ({"config": "c.yaml", "xds_token": "t"}, "need xds"),
        ({"xds": "127.0.0.1:18000", "tls_certificate": "c"}, "go together"),
    ],
)
def test_settings_that_would_be_unsafe_or_idle_are_refused(
    model: type[AuthzSettings] | type[RateLimitSettings], given: dict[str, Any], fault: str
) -> None:
    with pytest.raises(ValidationError, match=fault):
        model.model_validate({"listen": "127.0.0.1:0", **given})


@pytest.mark.parametrize("model", [AuthzSettings, RateLimitSettings])
@pytest.mark.parametrize(
    "given",
    [
        {"xds": "unix:/run/xds.sock"},
        {"xds": "[::1]:18000"},
        {"xds": "control.example:18000", "xds_insecure": True},
        {"xds": "control.example:18000", "xds_ca": "ca.crt", "xds_token": "token"},
    ],
)
def test_plain_text_stays_on_the_machine_unless_asked(
    model: type[AuthzSettings] | type[RateLimitSettings], given: dict[str, Any]
) -> None:
    model.model_validate({"listen": "127.0.0.1:0", **given})
