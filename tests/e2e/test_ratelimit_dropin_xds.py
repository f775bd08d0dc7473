# pyright: standard, reportAttributeAccessIssue=false
"""The rate limiter and the control plane, each where envoyproxy/ratelimit and Envoy Gateway have the other half."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import yaml

from controlplane.xds.identity import Principal
from dragoman.protos.ratelimit.config.ratelimit.v3 import rls_conf_pb2
from ratelimit_service.config_xds import TYPE_URL
from ratelimit_service.main import Worker, worker
from ratelimit_service.settings import RateLimitSettings
from tests.e2e.policy_limits import exhaust, limit, shared
from tests.e2e.policy_manifests import limits, routes
from tests.e2e.policy_services import announce
from tests.support import manifests as m
from tests.support.certificates import Authority
from tests.support.dragoman import Serve
from tests.support.gateway import Gateway
from tests.support.ports import free_ports
from tests.support.process import ChildProcess
from tests.support.redis import RedisServer
from tests.support.sotw import SotwClient, SotwServer
from tests.support.upstream import Upstream
from tests.support.waiting import until

# What Envoy Gateway publishes for, and what its rate limiter calls itself.
NODE_ID = "envoy-ratelimit"


def config(name: str, limit: int, *, key: str = "k") -> rls_conf_pb2.RateLimitConfig:
    made = rls_conf_pb2.RateLimitConfig(name=name, domain=name)
    descriptor = made.descriptors.add(key=key)
    descriptor.rate_limit.unit = rls_conf_pb2.HOUR
    descriptor.rate_limit.requests_per_unit = limit
    return made


def in_force(running: Worker) -> dict[str, int]:
    return {rule.domain: rule.requests_per_unit for rule in running.service.config.rules()}


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as opened:
        yield opened


async def test_a_server_of_the_state_of_the_world_drives_the_limiter(tmp_path: Path, stack: AsyncExitStack) -> None:
    server = await stack.enter_async_context(SotwServer(TYPE_URL, node_id=NODE_ID))
    await server.publish(config("a", 1), config("b", 2))
    settings = RateLimitSettings(
        listen=f"unix:{tmp_path}/rl.sock", xds=server.address, node_id=NODE_ID, state=tmp_path, drain_s=0.1
    )
    running = await stack.enter_async_context(worker(settings))
    await until(lambda: in_force(running) == {"a": 1, "b": 2}, what="the first limits")
    await server.publish(config("a", 1), config("c", 3))
    await until(lambda: in_force(running) == {"a": 1, "c": 3}, what="an addition and a removal")
    await server.publish()
    await until(lambda: in_force(running) == {}, what="the end of all limits")
    assert server.rejections == []


async def test_of_a_rejected_state_of_the_world_what_is_good_is_in_force(tmp_path: Path, stack: AsyncExitStack) -> None:
    server = await stack.enter_async_context(SotwServer(TYPE_URL, node_id=NODE_ID))
    await server.publish(config("a", 1), config("b", 2))
    settings = RateLimitSettings(
        listen=f"unix:{tmp_path}/rl.sock", xds=server.address, node_id=NODE_ID, xds_protocol="sotw", drain_s=0.1
    )
    running = await stack.enter_async_context(worker(settings))
    await until(lambda: in_force(running) == {"a": 1, "b": 2}, what="the first limits")
    bad = config("a", 5)
    bad.descriptors.add(key="k")
    await server.publish(bad, config("b", 7), config("c", 3), b"\xff\xff")
    await until(lambda: server.rejections, what="the rejection")
    # One of them cannot even be read, so nothing is known of what else is gone or there.
    assert in_force(running) == {"a": 1, "b": 2}
    await server.publish(bad, config("b", 7), config("c", 3))
    await until(lambda: in_force(running) == {"a": 1, "b": 7, "c": 3}, what="what is good of it")
    await until(lambda: "descriptor 'k' is there twice" in server.rejections[-1], what="the reason")
    # It is sent again at once for as long as it is rejected: that must not keep both of them busy.
    assert len(server.rejections) < 10
    await server.publish(config("a", 5), config("b", 7))
    await until(lambda: in_force(running) == {"a": 5, "b": 7}, what="the repair")


async def test_a_server_that_counts_its_versions_anew_is_believed_after_its_restart(
    tmp_path: Path, stack: AsyncExitStack
) -> None:
    async with SotwServer(TYPE_URL, node_id=NODE_ID) as first:
        await first.publish(config("a", 1))
        settings = RateLimitSettings(listen=f"unix:{tmp_path}/rl.sock", xds=first.address, node_id=NODE_ID, drain_s=0.1)
        running = await stack.enter_async_context(worker(settings))
        await until(lambda: in_force(running) == {"a": 1}, what="the first limits")
    second = await stack.enter_async_context(SotwServer(TYPE_URL, node_id=NODE_ID, listen=first.address))
    await second.publish(config("a", 2))
    await until(lambda: in_force(running) == {"a": 2}, what="the limits of the same version number")


async def test_a_server_that_asks_for_a_certificate_is_shown_one(tmp_path: Path, stack: AsyncExitStack) -> None:
    authority = Authority()
    served = authority.leaf("envoy-gateway")
    own, key = authority.leaf("envoy-rate-limit").write(tmp_path, "client")
    (tmp_path / "ca.crt").write_text(authority.cert_pem)
    credentials = grpc.ssl_server_credentials(
        [(served.key_pem.encode(), served.cert_pem.encode())], authority.cert_pem.encode(), require_client_auth=True
    )
    server = SotwServer(TYPE_URL, node_id=NODE_ID, credentials=credentials)
    await stack.enter_async_context(server)
    await server.publish(config("a", 1))
    settings = RateLimitSettings(
        listen=f"unix:{tmp_path}/rl.sock",
        xds=server.address,
        xds_ca=tmp_path / "ca.crt",
        xds_server_name="envoy-gateway",
        xds_client_certificate=own,
        xds_client_key=key,
        node_id=NODE_ID,
        drain_s=0.1,
    )
    running = await stack.enter_async_context(worker(settings))
    await until(lambda: in_force(running) == {"a": 1}, what="the limits", detail=lambda: str(running.service.rejected))


def manifests(limit: int) -> str:
    policy: dict[str, Any] = {
        "apiVersion": "gateway.envoyproxy.io/v1alpha1",
        "kind": "BackendTrafficPolicy",
        "metadata": {"namespace": "demo", "name": "limits"},
        "spec": {
            "targetRefs": [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": "shop"}],
            "rateLimit": {
                "type": "Global",
                "global": {"rules": [{"limit": {"requests": limit, "unit": "Hour"}}]},
            },
        },
    }
    shop = m.route("shop", [m.to_backend("/", "echo")])
    return yaml.safe_dump_all([m.gateway_class(), m.gateway(), m.backend("echo", 80), shop, policy])


async def test_the_control_plane_drives_envoyproxy_ratelimit(tmp_path: Path) -> None:
    folder = tmp_path / "config"
    folder.mkdir()
    (folder / "all.yaml").write_text(manifests(5))
    async with Serve(folder, "--ratelimit", "unix:/nowhere", home=tmp_path) as serve:
        address = f"127.0.0.1:{serve.xds_port}"
        async with SotwClient(address, TYPE_URL, node_id="dragoman.services/ratelimit") as client:
            (first,) = await client.fetch()
            sent = rls_conf_pb2.RateLimitConfig.FromString(first.value)
            assert (first.type_url, sent.name, sent.domain) == (TYPE_URL, sent.domain, sent.domain)
            (folder / "all.yaml").write_text(manifests(6))
            changed = await client.fetch()
        numbers = {rule.requests_per_unit for each in changed for rule in _rules(each.value)}
        assert [rule.requests_per_unit for rule in _rules(first.value)] == [5]
        assert 6 in numbers
        async with SotwClient(address, TYPE_URL, node_id="default") as stranger:
            with pytest.raises(grpc.aio.AioRpcError, match=r"node\.cluster must name"):
                await stranger.fetch()


@pytest.mark.skipif("PEER_RATELIMIT" not in os.environ, reason="PEER_RATELIMIT names no envoyproxy/ratelimit")
async def test_envoyproxy_ratelimit_itself_enforces_what_the_control_plane_sends(stack: AsyncExitStack) -> None:
    upstream = await stack.enter_async_context(Upstream())
    redis = await stack.enter_async_context(RedisServer())
    files = {"a.yaml": [*routes(upstream, "limited"), limits("limited", shared(limit(3, "Day")))]}
    gateway = await stack.enter_async_context(Gateway(files))
    assert gateway.plane is not None
    await gateway.plane.listen(f"unix:{gateway.home}/xds-any.sock", Principal("any"))
    http, debug, port = map(str, free_ports(3))
    env = {
        "CONFIG_TYPE": "GRPC_XDS_SOTW",
        "CONFIG_GRPC_XDS_SERVER_URL": f"unix:{gateway.home}/xds-any.sock",
        "CONFIG_GRPC_XDS_NODE_ID": "dragoman.services/ratelimit",
        "REDIS_SOCKET_TYPE": "unix",
        "REDIS_URL": redis.unix_path,
        "USE_STATSD": "false",
        "PORT": http,
        "DEBUG_PORT": debug,
        "GRPC_PORT": port,
        "GRPC_UDS": f"{gateway.home}/ratelimit.sock",
        "LIMIT_RESPONSE_HEADERS_ENABLED": "true",
        "LIMIT_LIMIT_HEADER": "x-ratelimit-limit",
        **dict.fromkeys(("HOST", "DEBUG_HOST", "GRPC_HOST"), "127.0.0.1"),
    }
    log = gateway.home / "peer.log"
    peer = ChildProcess([os.environ["PEER_RATELIMIT"]], log=log, cwd=gateway.home, env=env)
    stack.push_async_callback(peer.stop)
    await until(lambda: (gateway.home / "ratelimit.sock").exists(), what="its socket", detail=peer.tail)
    announce(gateway, "ratelimit")
    await exhaust(gateway, "/limited", 3)


def _rules(content: bytes) -> list[rls_conf_pb2.RateLimitPolicy]:
    found: list[rls_conf_pb2.RateLimitPolicy] = []
    waiting = list(rls_conf_pb2.RateLimitConfig.FromString(content).descriptors)
    while waiting:
        each = waiting.pop()
        if each.HasField("rate_limit"):
            found.append(each.rate_limit)
        waiting += each.descriptors
    return found
