"""ext_authz under a control plane: policies by delta ADS, what is refused is told, and a restart without it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from controlplane.xds.cache import Observers, SnapshotCache
from controlplane.xds.events import Nack
from controlplane.xds.identity import AUTHZ_OWNER, Principal
from controlplane.xds.resources import AUTHZ_POLICY, Resource, Snapshot
from controlplane.xds.server import serve_ads
from dragoman.grpc_worker import Address
from dragoman.protos.dragoman.authz.v1.policy_pb2 import Policy
from ext_authz.check import METHOD
from ext_authz.settings import AuthzSettings
from ext_authz.worker import Worker, worker
from tests.support.authz import Answer, check_request, jwt_provider, message
from tests.support.authz_envoy import bootstrap
from tests.support.certificates import Authority
from tests.support.envoy import Envoy
from tests.support.http import fetch
from tests.support.ports import free_port
from tests.support.tokens import SigningKey, bearer
from tests.support.upstream import Upstream
from tests.support.waiting import until


class Plane:
    """The control plane's ADS server, with what it publishes to ext_authz."""

    def __init__(self, path: Path) -> None:
        self.address = f"unix:{path}"
        self.nacks: list[Nack] = []
        self.cache = SnapshotCache(observers=Observers(on_nack=self.nacks.append))

    def publish(self, *policies: Policy) -> None:
        made = {
            policy.id: Resource.of(AUTHZ_POLICY, policy.id, policy.SerializeToString(deterministic=True))
            for policy in policies
        }
        self.cache.publish({AUTHZ_OWNER: Snapshot({AUTHZ_POLICY: made})})


@asynccontextmanager
async def plane(path: Path) -> AsyncIterator[Plane]:
    made = Plane(path)
    server = await serve_ads(made.cache, listen={made.address: Principal("service", "authz")})
    try:
        yield made
    finally:
        await server.stop()


def settings(folder: Path, **more: Any) -> AuthzSettings:
    paths = {"xds": f"unix:{folder}/xds.sock", "listen": f"unix:{folder}/a.sock", "http": f"unix:{folder}/http.sock"}
    return AuthzSettings(**{**paths, "state": folder / "state", "keys": folder / "keys.db", **more})


async def ready(running: Worker) -> int:
    assert running.http is not None
    return (await fetch(0, "/health/ready", unix_path=running.http.path)).status


async def test_policies_come_over_xds_one_that_is_replaced_stays_and_a_bad_one_is_rejected_by_name(
    stack: AsyncExitStack, upstream: Upstream, signing_key: SigningKey, tmp_path: Path
) -> None:
    control = await stack.enter_async_context(plane(tmp_path / "xds.sock"))
    running = await stack.enter_async_context(worker(settings(tmp_path)))
    assert running.address == Address.parse(f"unix:{tmp_path}/a.sock")
    port = free_port()
    ids = ["shop/orders/h1", "shop/orders/h2", "shop/bad/h1"]
    await stack.enter_async_context(Envoy(bootstrap(port, upstream, f"{tmp_path}/a.sock", ids), log_level="warning"))
    token = bearer(signing_key.token({"scope": "read"}))

    async def status(policy: str) -> int:
        return (await fetch(port, f"/{policy}/x", headers=token)).status

    async def becomes(policy: str, expected: int) -> None:
        async def reached() -> bool:
            return await status(policy) == expected

        await until(reached, what=f"{policy} to answer {expected}")

    assert await ready(running) == 503, "there is no configuration yet"
    assert await status("shop/orders/h1") == 503
    first = message("shop/orders/h1", jwt_providers=[jwt_provider(signing_key)])
    second = message("shop/orders/h2", jwt_providers=[jwt_provider(signing_key, required_scopes=["write"])])
    control.publish(first)
    await becomes("shop/orders/h1", 200)
    assert await ready(running) == 200
    control.publish(second)
    await becomes("shop/orders/h2", 403)
    assert await status("shop/orders/h1") == 200, "Envoys may still name the old content"
    control.publish(second, message("shop/bad/h1", jwt_providers=[jwt_provider(inline_jwks="x")]))
    await until(lambda: control.nacks, what="the rejection")
    assert "shop/bad/h1: jwt_providers[0].inline_jwks: the JWKS is not JSON" in str(control.nacks[0])
    assert (await status("shop/bad/h1"), await status("shop/orders/h2")) == (503, 403)


async def test_a_worker_starts_from_its_last_good_policies_without_a_control_plane(
    upstream: Upstream, signing_key: SigningKey, tmp_path: Path
) -> None:
    port = free_port()
    policy = message("shop/orders/h1", jwt_providers=[jwt_provider(signing_key)])
    async with Envoy(bootstrap(port, upstream, f"{tmp_path}/a.sock", [policy.id]), log_level="warning"):

        async def passes() -> bool:
            return (await fetch(port, f"/{policy.id}/x", headers=bearer(signing_key.token()))).status == 200

        async with plane(tmp_path / "xds.sock") as control:
            control.publish(policy)
            async with worker(settings(tmp_path)):
                await until(passes, what="the policy to be in force")
                kept = tmp_path / "state" / "authz-xds.pb"
                await until(kept.exists, what="the last good policies to be kept")
                assert kept.stat().st_mode & 0o777 == 0o600
        async with worker(settings(tmp_path)) as running:
            await until(passes, what="Envoy to find the worker again")
            assert await ready(running) == 200


async def test_a_worker_serves_tls_to_clients_that_its_authority_vouches_for(
    authority: Authority, signing_key: SigningKey, tmp_path: Path
) -> None:
    certificate, private_key = authority.leaf("localhost").write(tmp_path)
    (tmp_path / "ca.pem").write_text(authority.cert_pem)
    (tmp_path / "authz.yaml").write_text("policies:\n- {id: shop/keys, apiKeys: {store: true}}\n")
    files = {"tls_certificate": certificate, "tls_private_key": private_key, "tls_client_ca": tmp_path / "ca.pem"}
    own = settings(tmp_path, listen="127.0.0.1:0", xds=None, config=tmp_path / "authz.yaml", **files)
    client = authority.leaf("envoy")
    async with worker(own) as running:

        async def ask(*shown: bytes) -> Answer:
            credentials = grpc.ssl_channel_credentials(authority.cert_pem.encode(), *shown)
            async with grpc.aio.secure_channel(f"localhost:{running.address.port}", credentials) as channel:
                return Answer.read(await channel.unary_unary(METHOD)(check_request(policy="shop/keys"), timeout=5))

        assert (await ask(client.key_pem.encode(), client.cert_pem.encode())).status == 401
        with pytest.raises(grpc.aio.AioRpcError):
            await ask()


def test_settings_for_tls_must_be_whole(tmp_path: Path) -> None:
    for some in ({"tls_certificate": tmp_path}, {"tls_private_key": tmp_path}, {"tls_client_ca": tmp_path}):
        with pytest.raises(ValueError, match="tls_"):
            settings(tmp_path, **some)
