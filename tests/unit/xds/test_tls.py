"""xDS between machines: TLS whose certificate is replaced while streams are open, and clients that show tokens."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from controlplane.provision.address import TcpAddress
from controlplane.provision.bootstrap import XdsTls, bootstrap, bootstrap_yaml, secret_files
from controlplane.xds.authentication import Authenticated
from controlplane.xds.cache import Observers, SnapshotCache
from controlplane.xds.credentials import CertificateError, KeyPair, ServerTls
from controlplane.xds.identity import AUTHZ_OWNER
from controlplane.xds.resources import CLUSTER
from controlplane.xds.server import AdsServer, Limits, ListenError, serve_ads
from controlplane.xds.tokens import ServiceAccountTokens
from tests.support.certificates import Authority, Certificate
from tests.support.envoy import Envoy
from tests.support.http import fetch
from tests.support.ports import free_port
from tests.support.tokens import SigningKey
from tests.support.upstream import Upstream
from tests.support.waiting import until
from tests.unit.xds import made
from tests.unit.xds.accounts import Issuer, shown
from tests.unit.xds.made import cluster, endpoints, listener, route, snapshot
from tests.unit.xds.wire_clients import DeltaClient

pytestmark = pytest.mark.usefixtures("engine")

StartAds = Callable[..., Awaitable[AdsServer]]
StartEnvoy = Callable[..., Awaitable[Envoy]]
OWNER = "demo/edge"
NAME = "dragoman.system.svc"


def pair(certificate: Certificate) -> KeyPair:
    return KeyPair(certificate.cert_pem.encode(), certificate.key_pem.encode())


class SecureClient(DeltaClient):
    """Comes by TLS, and shows a token where it has one."""

    def __init__(self, address: str, cluster: str, *, ca: str, token: str | None = None, **options: Any) -> None:
        super().__init__(address, cluster, **options)
        self._ca = ca
        self._token = token

    async def __aenter__(self) -> Any:
        options = [("grpc.ssl_target_name_override", NAME), ("grpc.use_local_subchannel_pool", 1)]
        credentials = grpc.ssl_channel_credentials(self._ca.encode())
        self._channel = grpc.aio.secure_channel(self._address, credentials, options=options)
        self._call = self._channel.stream_stream(self.method)(metadata=shown(self._token) if self._token else None)
        return self


async def refused(client: DeltaClient) -> grpc.StatusCode:
    """Asks for something; returns how the stream ends, which may be before there is anything asked."""
    with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
        await client.subscribe(CLUSTER)
    return (await client.ended())[0]


class Scene:
    """A server on TLS for an issuer's tokens."""

    def __init__(self, authority: Authority) -> None:
        self.authority = authority
        self.issuer = Issuer()
        self.cache = SnapshotCache()
        self.tls = ServerTls(pair(authority.leaf(NAME)))
        tokens = ServiceAccountTokens(self.issuer.fetch, services={("system", "authz"): "authz"})
        self.admission = Authenticated(tokens, self.tls)
        self.address = ""

    def client(self, claim: str = OWNER, token: str | None = None, authority: Authority | None = None) -> SecureClient:
        return SecureClient(self.address, claim, ca=(authority or self.authority).cert_pem, token=token)


@pytest.fixture
def scene(authority: Authority) -> Scene:
    return Scene(authority)


@pytest.fixture
def serve(scene: Scene, start_ads: StartAds) -> Callable[..., Awaitable[Scene]]:
    """`await serve(**limits)` → the scene, served on loopback."""

    async def start(address: str = "127.0.0.1:0", **limits: Any) -> Scene:
        server = await start_ads(scene.cache, listen={address: scene.admission}, limits=Limits(**limits))
        scene.address = server.addresses[0]
        return scene

    return start


async def test_an_envoy_is_sent_what_is_its_gateways(serve: Callable[..., Awaitable[Scene]]) -> None:
    scene = await serve()
    scene.cache.publish({OWNER: snapshot(cluster("a")), "demo/other": snapshot(cluster("b"))})
    async with scene.client(token=scene.issuer.token("demo", "dragoman-edge")) as client:
        assert [each.name for each in (await client.fetch(CLUSTER)).resources] == ["a"]


async def test_who_runs_pods_in_one_namespace_does_not_keep_others_out(serve: Callable[..., Awaitable[Scene]]) -> None:
    scene = await serve(max_clients=10, max_clients_of_namespace=1)
    scene.cache.publish({OWNER: snapshot(cluster("a")), "other/edge": snapshot(cluster("b"))})
    one, another = (scene.issuer.token("demo", name) for name in ("dragoman-edge", "default"))
    async with scene.client(token=one) as client:
        await client.fetch(CLUSTER)
        for token in (one, another):
            async with scene.client(token=token) as more:
                assert await refused(more) == grpc.StatusCode.RESOURCE_EXHAUSTED
        async with scene.client("other/edge", scene.issuer.token("other", "dragoman-edge")) as other:
            assert [each.name for each in (await other.fetch(CLUSTER)).resources] == ["b"]
    await until(lambda: not scene.cache.clients(), what="the streams to end")
    async with scene.client(token=one) as client:
        await client.fetch(CLUSTER)


async def test_a_service_is_let_in_by_its_service_account(serve: Callable[..., Awaitable[Scene]]) -> None:
    scene = await serve()
    scene.cache.publish({AUTHZ_OWNER: snapshot(made.plain("type.example/t", "p"))})
    async with scene.client(AUTHZ_OWNER, scene.issuer.token("system", "authz")) as client:
        assert len((await client.fetch("type.example/t", ["*"])).resources) == 1


@pytest.mark.parametrize(
    ("namespace", "name", "claim"),
    [
        ("demo", "dragoman-other", OWNER),
        ("other", "dragoman-edge", OWNER),
        ("demo", "dragoman-edge", AUTHZ_OWNER),
        ("demo", "authz", AUTHZ_OWNER),
        ("demo", "default", OWNER),
    ],
)
async def test_a_claim_beyond_the_service_account_is_refused_and_the_token_is_not_logged(
    serve: Callable[..., Awaitable[Scene]], caplog: pytest.LogCaptureFixture, namespace: str, name: str, claim: str
) -> None:
    scene = await serve()
    token = scene.issuer.token(namespace, name)
    async with scene.client(claim, token) as client:
        assert await refused(client) == grpc.StatusCode.PERMISSION_DENIED
    assert "refused" in caplog.text
    assert token not in caplog.text
    assert token.rpartition(".")[2] not in caplog.text


async def test_who_shows_no_token_or_one_of_somebody_elses_is_not_let_in(
    serve: Callable[..., Awaitable[Scene]],
) -> None:
    scene = await serve()
    for token in (None, "nonsense", Issuer().token("demo", "dragoman-edge")):
        async with scene.client(token=token) as client:
            assert await refused(client) == grpc.StatusCode.UNAUTHENTICATED


async def test_a_token_is_longer_than_headers_may_be(serve: Callable[..., Awaitable[Scene]]) -> None:
    scene = await serve()
    async with scene.client(token="a" * 100_000) as client:
        with pytest.raises((grpc.aio.AioRpcError, grpc.aio.UsageError, EOFError)):
            await client.fetch(CLUSTER)


async def test_plaintext_does_not_reach_a_server_of_tls(serve: Callable[..., Awaitable[Scene]]) -> None:
    scene = await serve()
    async with DeltaClient(scene.address, OWNER) as client:
        with pytest.raises((grpc.aio.AioRpcError, grpc.aio.UsageError, EOFError)):
            await client.fetch(CLUSTER)


async def test_tls_is_served_off_loopback_and_tokens_in_plaintext_are_not(scene: Scene, start_ads: StartAds) -> None:
    address = f"0.0.0.0:{free_port()}"
    with pytest.raises(ListenError, match="plaintext"):
        await serve_ads(scene.cache, listen={address: Authenticated(scene.admission.authenticator)})
    await start_ads(scene.cache, listen={address: scene.admission})


async def test_a_certificate_is_replaced_while_streams_go_on(serve: Callable[..., Awaitable[Scene]]) -> None:
    scene = await serve()
    scene.cache.publish({OWNER: snapshot(cluster("a"))})
    token = scene.issuer.token("demo", "dragoman-edge")
    later = Authority("another")
    async with scene.client(token=token) as open_before:
        await open_before.fetch(CLUSTER)
        scene.tls.replace(pair(later.leaf(NAME)))
        async with scene.client(token=token, authority=later) as new:
            await new.fetch(CLUSTER)
        async with scene.client(token=token) as distrustful:
            with pytest.raises((grpc.aio.AioRpcError, grpc.aio.UsageError, EOFError)):
                await distrustful.fetch(CLUSTER)
        scene.cache.publish({OWNER: snapshot(cluster("a"), cluster("b"))})
        assert [each.name for each in (await open_before.take()).resources] == ["b"]


def test_a_pair_that_does_not_fit_is_refused_and_what_is_served_stays(authority: Authority) -> None:
    good, other = pair(authority.leaf(NAME)), pair(authority.leaf(NAME))
    tls = ServerTls(good)
    for bad in (KeyPair(good.chain, other.key), KeyPair(b"", good.key), KeyPair(good.chain, b"no key")):
        with pytest.raises(CertificateError):
            tls.replace(bad)
    assert other.key.decode() not in repr(other)


async def test_a_token_is_asked_for_anew_after_a_time(serve: Callable[..., Awaitable[Scene]]) -> None:
    scene = await serve(max_stream_age_s=0.1)
    scene.cache.publish({OWNER: snapshot(cluster("a"))})
    async with scene.client(token=scene.issuer.token("demo", "dragoman-edge")) as client:
        await client.fetch(CLUSTER)
        assert (await client.ended())[0] == grpc.StatusCode.OK


async def test_those_whose_token_is_looked_at_are_bounded(
    serve: Callable[..., Awaitable[Scene]], start_ads: StartAds
) -> None:
    scene = await serve(max_unauthenticated=0)
    async with scene.client(token=scene.issuer.token("demo", "dragoman-edge")) as client:
        assert await refused(client) == grpc.StatusCode.RESOURCE_EXHAUSTED


class Volume:
    """Files that are replaced all at once, as in a volume of Kubernetes: `..data` leads to the newest."""

    def __init__(self, folder: Path, **files: str) -> None:
        self.folder = folder
        self._version = 0
        folder.mkdir()
        self.put(**files)

    def put(self, **files: str) -> None:
        self._version += 1
        made = self.folder / f"..{self._version}"
        made.mkdir()
        for name, text in files.items():
            (made / name).write_text(text)
            link = self.folder / name
            if not link.is_symlink():
                link.symlink_to(f"..data/{name}")
        staged = self.folder / "..data_tmp"
        staged.symlink_to(made.name)
        os.replace(staged, self.folder / "..data")


def files_of(tls: XdsTls, authorities: str) -> dict[str, str]:
    return {name: bootstrap_yaml(document) for name, document in secret_files(tls, authorities).items()}


def inotify_instances(envoy: Envoy) -> int:
    folder = Path(f"/proc/{envoy.process.pid}/fd")
    return sum("inotify" in str(each.readlink()) for each in folder.iterdir())


async def test_envoy_shows_the_token_and_trusts_the_authority_that_its_volumes_hold_by_then(
    authority: Authority, start_envoy: StartEnvoy, stack: AsyncExitStack, tmp_path: Path
) -> None:
    scene = Scene(authority)
    upstream = await stack.enter_async_context(Upstream("one"))
    port = free_port()
    whole = (cluster("a"), endpoints("a", [upstream.port]), route("r", {"/": "a"}), listener("l", port, "r"))
    scene.cache.publish({OWNER: snapshot(*whole)})
    address = f"127.0.0.1:{free_port()}"
    server = await serve_ads(scene.cache, listen={address: scene.admission})
    token = Volume(tmp_path / "token", token=scene.issuer.token("demo", "dragoman-edge"))
    tls = XdsTls("unused", NAME, token_file=f"{token.folder}/token", secrets_folder=f"{tmp_path}/etc")
    etc = Volume(tmp_path / "etc", **files_of(tls, authority.cert_pem))
    where = TcpAddress("127.0.0.1", int(address.rpartition(":")[2]))
    try:
        document = bootstrap(OWNER, xds=where, xds_tls=tls, admin=None)
        del document["stats_config"]
        envoy = await start_envoy(document)
        assert (await fetch(port, "/")).status == 200
        assert inotify_instances(envoy) == 1
        # The next server trusts only a new key for tokens, and shows a certificate of another authority.
        later = Authority("another")
        scene.issuer.keys[0] = SigningKey.make("k2")
        token.put(token=scene.issuer.token("demo", "dragoman-edge"))
        etc.put(**files_of(tls, authority.cert_pem + later.cert_pem))
        await envoy.stat_reaches("cluster.dragoman-xds.client_ssl_socket_factory.ssl_context_update_by_sds", 2)
        await server.stop()
        tokens = ServiceAccountTokens(scene.issuer.fetch)
        tls_later = ServerTls(pair(later.leaf(NAME)))
        cache = SnapshotCache()
        cache.publish({OWNER: snapshot(*whole, cluster("b"))})
        server = await serve_ads(cache, listen={address: Authenticated(tokens, tls_later)})
        await until(lambda: bool(cache.clients()) and cache.clients()[0].settled, what="Envoy to come back")
        assert (await fetch(port, "/")).status == 200
    finally:
        await server.stop()


async def test_an_envoy_that_must_show_its_token_anew_comes_back_and_serves_on(
    scene: Scene, start_envoy: StartEnvoy, stack: AsyncExitStack, tmp_path: Path
) -> None:
    upstream = await stack.enter_async_context(Upstream("one"))
    port = free_port()
    came: list[bool] = []
    cache = SnapshotCache(observers=Observers(on_stream=lambda event: came.append(event.open)))
    cache.publish(
        {
            OWNER: snapshot(
                cluster("a"), endpoints("a", [upstream.port]), route("r", {"/": "a"}), listener("l", port, "r")
            )
        }
    )
    server = await serve_ads(cache, listen={"127.0.0.1:0": scene.admission}, limits=Limits(max_stream_age_s=0.5))
    stack.push_async_callback(server.stop)
    (tmp_path / "token").write_text(scene.issuer.token("demo", "dragoman-edge"))
    (tmp_path / "ca.crt").write_text(scene.authority.cert_pem)
    tls = XdsTls(f"{tmp_path}/ca.crt", NAME, token_file=f"{tmp_path}/token")
    where = TcpAddress("127.0.0.1", int(server.addresses[0].rpartition(":")[2]))
    envoy = await start_envoy(bootstrap(OWNER, xds=where, xds_tls=tls, admin=None))
    statuses: set[int] = set()
    while came.count(True) < 4:
        statuses.add((await fetch(port, "/")).status)
    assert statuses == {200}
    assert "[warning][config]" not in envoy.process.output()
