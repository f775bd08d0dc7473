# pyright: standard, reportAttributeAccessIssue=false
"""A worker begins, follows its configuration and ends: what the settings say reaches the parts that they are about."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from envoy.service.discovery.v3 import discovery_pb2
from pydantic import ValidationError

from dragoman.protos.ratelimit.config.ratelimit.v3 import rls_conf_pb2
from ratelimit_service.config_xds import TYPE_URL, Resources
from ratelimit_service.main import worker
from ratelimit_service.settings import RateLimitSettings
from tests.support.ports import free_port
from tests.support.sotw import SotwServer
from tests.support.waiting import until


def kept(folder: Path, *keys: str) -> None:
    """Leaves a last good state of one domain that several resources give parts of."""
    state = discovery_pb2.DeltaDiscoveryResponse(type_url=TYPE_URL)
    for key in keys:
        config = rls_conf_pb2.RateLimitConfig(name=key, domain="shop")
        limit = config.descriptors.add(key=key).rate_limit
        limit.unit, limit.requests_per_unit = rls_conf_pb2.MINUTE, 5
        entry = state.resources.add(name=key, version="1")
        entry.resource.type_url = TYPE_URL
        entry.resource.value = config.SerializeToString()
    (folder / "ratelimit-xds.pb").write_bytes(state.SerializeToString())


async def test_resources_may_give_parts_of_one_domain_where_domains_are_merged(tmp_path: Path) -> None:
    kept(tmp_path, "a", "b")
    settings = RateLimitSettings(
        listen=f"unix:{tmp_path}/grpc", xds=f"127.0.0.1:{free_port()}", merge_domains=True, state=tmp_path
    )
    async with worker(settings) as running:
        assert {rule.path for rule in running.service.config.rules()} == {"a", "b"}


def resource(limits: int) -> bytes:
    config = rls_conf_pb2.RateLimitConfig(name="d", domain="d")
    for index in range(limits):
        limit = config.descriptors.add(key=str(index)).rate_limit
        limit.unit, limit.requests_per_unit = rls_conf_pb2.MINUTE, 5
    return config.SerializeToString()


class Turnstile:
    """Lets what is sent over xDS be read only when it is open; `reading` is set when something waits there."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open = threading.Event()
        self.reading = threading.Event()
        updated = Resources.updated

        def wait(resources: Resources, changed: Mapping[str, bytes], removed: set[str]) -> Any:
            self.reading.set()
            assert self.open.wait(10)
            return updated(resources, changed, removed)

        monkeypatch.setattr(Resources, "updated", wait)


def over_xds(folder: Path, server: SotwServer) -> RateLimitSettings:
    return RateLimitSettings(
        listen=f"unix:{folder}/grpc", xds=server.address, xds_protocol="sotw", node_id="limiter", state=folder
    )


async def test_a_worker_is_ready_once_its_control_plane_says_that_there_are_no_limits(tmp_path: Path) -> None:
    async with SotwServer(TYPE_URL, node_id="limiter") as server, worker(over_xds(tmp_path, server)) as running:
        await until(lambda: server.requests, what="the worker to ask")
        assert not running.service.ready
        await server.publish()
        await until(lambda: running.service.ready, what="the empty configuration")
        await server.publish(resource(1))
        await until(lambda: running.service.config.domains, what="the first limit")
        assert running.service.loads == 2


async def test_a_control_plane_is_told_of_the_node_and_shown_headers(tmp_path: Path) -> None:
    async with SotwServer(TYPE_URL, node_id="limiter") as server:
        told = {"xds_node_metadata": ("zone=eu", "team=edge=1"), "xds_headers": ("Authorization:Bearer abc", "x-a: b")}
        async with worker(over_xds(tmp_path, server).model_copy(update=told)):
            await until(lambda: server.requests, what="the worker to ask")
        assert dict(server.requests[0].node.metadata) == {"zone": "eu", "team": "edge=1"}
        assert (server.headers["authorization"], server.headers["x-a"]) == ("Bearer abc", "b")


@pytest.mark.parametrize(
    "headers",
    [("secret",), ("a b:secret",), ("a:secret\n",), ("grpc-timeout:secret",), ("a-BIN:secret",), (":path:secret",)],
)
def test_headers_that_cannot_be_sent_are_refused_without_their_values(headers: tuple[str, ...]) -> None:
    with pytest.raises(ValidationError) as refused:
        RateLimitSettings(listen="unix:/x", xds="127.0.0.1:1", xds_headers=headers)
    assert "secret" not in str(refused.value.errors(include_input=False))
    assert "secret" not in repr(RateLimitSettings(listen="unix:/x", xds="127.0.0.1:1", xds_headers=("a:secret",)))


def test_a_token_and_an_authorization_exclude_one_another() -> None:
    with pytest.raises(ValidationError, match="exclude one another"):
        RateLimitSettings(
            listen="unix:/x", xds="127.0.0.1:1", xds_headers=("authorization:x",), xds_token=Path("/token")
        )


def test_metadata_of_the_node_has_names() -> None:
    with pytest.raises(ValidationError, match="expected name=value"):
        RateLimitSettings(listen="unix:/x", xds="127.0.0.1:1", xds_node_metadata=("=x",))


async def test_a_worker_is_not_ready_while_its_first_limits_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    turnstile = Turnstile(monkeypatch)
    async with SotwServer(TYPE_URL, node_id="limiter") as server, worker(over_xds(tmp_path, server)) as running:
        await server.publish(resource(1))
        await until(turnstile.reading.is_set, what="the limits to be read")
        assert not running.service.ready
        turnstile.open.set()
        await until(lambda: running.service.ready, what="the first limits")
        # Not that of an empty configuration, for lack of limits so far, before it.
        assert running.service.loads == 1


async def test_an_update_that_is_read_when_the_worker_ends_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with SotwServer(TYPE_URL, node_id="limiter") as server:
        async with worker(over_xds(tmp_path, server)) as running:
            await server.publish(resource(1))
            await until((tmp_path / "ratelimit-xds.pb").exists, what="the first limits to be kept")
            turnstile = Turnstile(monkeypatch)
            await server.publish(resource(2))
            await until(turnstile.reading.is_set, what="the second to be read")
        turnstile.open.set()
        async with worker(over_xds(tmp_path, server)) as again:
            assert len([*running.service.config.rules()]) == 1
            assert len([*again.service.config.rules()]) == 1
            await until(lambda: len([*again.service.config.rules()]) == 2, what="the second limits, after all")


async def test_others_have_their_turn_while_a_worker_reads_a_large_file_at_its_start(tmp_path: Path) -> None:
    lines = (f"- {{key: k{n}, rate_limit: {{unit: hour, requests_per_unit: 5}}}}" for n in range(3_000))
    (tmp_path / "limits.yaml").write_text("\n".join(["domain: d", "descriptors:", *lines]))
    settings = RateLimitSettings(listen=f"unix:{tmp_path}/grpc", config=tmp_path / "limits.yaml")
    loaded = asyncio.Event()

    async def run() -> None:
        async with worker(settings) as running:
            assert len([*running.service.config.rules()]) == 3_000
            loaded.set()

    running = asyncio.create_task(run())
    turns = 0
    while not loaded.is_set() and not running.done():
        await asyncio.sleep(0.001)
        turns += 1
    await running
    assert turns >= 10
