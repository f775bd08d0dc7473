"""The service as it runs: processes, configuration from a file and from a control plane, keys, revocations, signals."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from ext_authz.keys import NewKey, StoreLocation, add_key, open_store
from tests.support.authz import jwt_provider
from tests.support.authz_envoy import bootstrap
from tests.support.envoy import Envoy
from tests.support.http import Response, fetch
from tests.support.jwks_server import JwksServer
from tests.support.ports import free_port
from tests.support.process import ChildProcess
from tests.support.redis import RedisServer
from tests.support.tokens import SigningKey, bearer
from tests.support.upstream import Upstream
from tests.support.waiting import until

KEY_POLICY: dict[str, Any] = {"id": "shop/keys", "apiKeys": {"store": True}}


class Running:
    """`python -m ext_authz` in a folder of its own."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder = folder
        self.config = folder / "authz.yaml"
        self.settings = {
            "listen": f"unix:{folder}/a.sock",
            "http": f"unix:{folder}/http.sock",
            "keys": str(folder / "keys.db"),
            "state": str(folder / "state"),
            **settings,
        }
        if "xds" not in settings:
            self.settings["config"] = str(self.config)
        self.process: ChildProcess | None = None

    def write(self, *policies: dict[str, Any]) -> None:
        """Puts this configuration in place, as an editor does."""
        fresh = self.config.with_suffix(".tmp")
        fresh.write_text(yaml.safe_dump({"policies": list(policies)}))
        fresh.replace(self.config)

    async def start(self, *, within_s: float = 60.0) -> None:
        file = self.folder / "settings.json"
        file.write_text(json.dumps(self.settings))
        self.process = ChildProcess([sys.executable, "-m", "ext_authz", str(file)], log=self.folder / "log")
        await until(self._started, what="the service to start", within_s=within_s, detail=self.process.tail)

    async def _started(self) -> bool:
        return (await self.http("/health/startup")).status == 200

    async def http(self, path: str) -> Response:
        return await fetch(0, path, unix_path=f"{self.folder}/http.sock")

    async def stop(self) -> int:
        assert self.process is not None
        return await self.process.stop(within_s=15)

    def log(self) -> str:
        return (self.folder / "log").read_text()


@asynccontextmanager
async def running(folder: Path, *policies: dict[str, Any], **settings: Any) -> AsyncIterator[Running]:
    service = Running(folder, **settings)
    if "xds" not in settings:
        service.write(*policies)
    try:
        await service.start()
        yield service
    finally:
        if service.process is not None:
            await service.stop()


async def envoy_before(stack: AsyncExitStack, sockets: list[str], upstream: Upstream, *policies: str) -> int:
    port = free_port()
    await stack.enter_async_context(Envoy(bootstrap(port, upstream, sockets, policies), log_level="warning"))
    return port


@pytest.fixture(params=["sqlite", "redis"])
async def redis_url(request: pytest.FixtureRequest, stack: AsyncExitStack) -> str | None:
    return None if request.param == "sqlite" else (await stack.enter_async_context(RedisServer())).url


async def test_a_revoked_key_is_refused_by_every_worker_within_a_second_under_load(
    redis_url: str | None, stack: AsyncExitStack, upstream: Upstream, tmp_path: Path
) -> None:
    store = open_store(StoreLocation(tmp_path / "keys.db", redis_url or ""), timeout_s=5)
    stack.push_async_callback(store.close)
    made = await add_key(store, NewKey("acme"), time.time())
    other = await add_key(store, NewKey("other"), time.time())
    await stack.enter_async_context(running(tmp_path, KEY_POLICY, workers=2, redis=redis_url, store_timeout_s=5))
    sockets = [f"{tmp_path}/a.sock.{index}" for index in range(2)]
    # An Envoy for each worker, so that it is known which of them answered.
    ports = [await envoy_before(stack, [path], upstream, "shop/keys") for path in sockets]
    answers: dict[int, list[tuple[float, float, int]]] = {port: [] for port in ports}
    stop = asyncio.Event()

    async def load(port: int, key: str, keep: bool) -> None:
        while not stop.is_set():
            sent = time.monotonic()
            response = await fetch(port, "/shop/keys/x", headers={"x-api-key": key})
            if keep:
                answers[port].append((sent, time.monotonic(), response.status))
            else:
                assert response.status == 200

    tasks = [asyncio.create_task(load(port, made.key, True)) for port in ports for _ in range(4)]
    tasks += [asyncio.create_task(load(port, other.key, False)) for port in ports]
    await until(lambda: all(len(each) > 50 for each in answers.values()), what="load on both workers")
    assert all(status == 200 for each in answers.values() for _, _, status in each)
    revoked_at = time.monotonic()
    await store.revoke(made.record.id, time.time())
    await until(lambda: time.monotonic() > revoked_at + 1.3, what="the second to pass")
    stop.set()
    await asyncio.gather(*tasks)
    for each in answers.values():
        late = {status for sent, _, status in each if sent > revoked_at + 1.0}
        assert late == {401}
        assert any(status == 200 for sent, _, status in each if sent < revoked_at)


async def test_a_token_passes_through_envoy_with_keys_fetched_from_the_issuer_and_rotated(
    stack: AsyncExitStack, upstream: Upstream, issuer: JwksServer, signing_key: SigningKey, tmp_path: Path
) -> None:
    policy = {
        "id": "shop/orders",
        "jwt": {
            "providers": [
                {
                    "name": "issuer",
                    "issuer": "https://issuer.example",
                    "jwks": {"uri": issuer.uri},
                    "claimToHeaders": [{"claim": "sub", "header": "x-sub"}],
                }
            ]
        },
    }
    service = await stack.enter_async_context(running(tmp_path, policy))
    port = await envoy_before(stack, [f"{tmp_path}/a.sock"], upstream, "shop/orders")

    async def status(key: SigningKey) -> int:
        return (await fetch(port, "/shop/orders/x", headers=bearer(key.token()))).status

    async def passes() -> bool:
        return await status(signing_key) == 200

    await until(passes, what="the keys to be there")
    assert upstream.requests[-1].header("x-sub") == "alice"
    second = SigningKey.make("key-2", "EdDSA")
    issuer.rotate(second)
    assert await status(second) == 200, "an unknown key makes the service fetch the keys, and wait for them"
    assert await status(signing_key) == 401, "the old key is gone, and with it what it vouched for"
    issuer.fail()
    await service.stop()
    await service.start()
    assert await status(second) == 200, "the last good keys are read from the state folder"


async def test_the_file_takes_effect_when_it_changes_and_a_fault_leaves_the_rest_in_force(
    stack: AsyncExitStack, upstream: Upstream, signing_key: SigningKey, tmp_path: Path
) -> None:
    def orders(**fields: Any) -> dict[str, Any]:
        provider = jwt_provider(signing_key)
        jwks = {"inline": provider.pop("inline_jwks")}
        return {"id": "shop/orders", "jwt": {"providers": [{**provider, "jwks": jwks, **fields}]}}

    service = await stack.enter_async_context(running(tmp_path, orders()))
    port = await envoy_before(stack, [f"{tmp_path}/a.sock"], upstream, "shop/orders", "shop/till")
    token = bearer(signing_key.token())

    async def status(policy: str) -> int:
        return (await fetch(port, f"/{policy}/x", headers=token)).status

    assert (await status("shop/orders"), await status("shop/till")) == (200, 503)
    service.write(orders(requiredScopes=["read"]))

    async def forbidden() -> bool:
        return await status("shop/orders") == 403

    await until(forbidden, what="the change to take effect")
    service.write(orders(audience="x"), {**orders(), "id": "shop/till"})

    async def till() -> bool:
        return await status("shop/till") == 200

    await until(till, what="the sound policy to be in force")
    assert await status("shop/orders") == 403, "the last good content stays"
    assert re.search(
        r"authz\.yaml:\d+: policies\[0\]\.jwt\.providers\[0\]\.audience: there is no such field", service.log()
    )
    assert (await service.http("/health/ready")).status == 200
    assert "there is no such field" in (await service.http("/health/ready")).text
    service.config.write_text("policies: [")
    await until(lambda: "not YAML" in service.log(), what="the fault to be logged")
    await service.stop()
    await service.start()
    assert (await status("shop/orders"), await status("shop/till")) == (403, 200), "after a restart, too"


async def test_metrics_health_and_logs_tell_what_happens_and_no_secret(
    stack: AsyncExitStack, upstream: Upstream, tmp_path: Path
) -> None:
    location = StoreLocation(tmp_path / "keys.db")
    store = open_store(location)
    stack.push_async_callback(store.close)
    made = await add_key(store, NewKey("acme"), time.time())
    service = await stack.enter_async_context(running(tmp_path, KEY_POLICY, workers=2, log_level="DEBUG"))
    port = await envoy_before(stack, [f"{tmp_path}/a.sock.{n}" for n in range(2)], upstream, "shop/keys")
    for key in (made.key, made.key, made.key, "dgm_nosuchkey000_" + "x" * 40):
        await fetch(port, "/shop/keys/x", headers={"x-api-key": key, "x-request-id": "req-77"})
    text = (await service.http("/metrics")).text

    def total(name: str) -> float:
        return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name))

    assert total('dragoman_authz_verdicts_total{policy="shop/keys",reason="ok"') == 3
    assert total('dragoman_authz_verdicts_total{policy="shop/keys",reason="key_unknown"') == 1
    assert total("dragoman_authz_passes_total") == 3
    assert total("dragoman_authz_verdict_seconds_count") == 4
    assert total("dragoman_authz_store_up") == 2
    ready = await service.http("/health/ready")
    assert (ready.status, ready.json()["status"]) == (200, "ready")
    assert (await service.http("/health/live")).status == 200
    assert await service.stop() == 0
    lines = [json.loads(line) for line in service.log().splitlines()]
    refused = [line for line in lines if line["message"] == "refused"]
    assert len(refused) == 1
    assert refused[0]["reason"] == "key_unknown"
    assert refused[0]["request_id"]
    for secret in (made.key, made.key.rpartition("_")[2], "x" * 40):
        assert secret not in service.log()


async def test_sigterm_drains_and_removes_the_sockets(
    stack: AsyncExitStack, upstream: Upstream, tmp_path: Path
) -> None:
    service = await stack.enter_async_context(running(tmp_path, KEY_POLICY))
    port = await envoy_before(stack, [f"{tmp_path}/a.sock"], upstream, "shop/keys")
    assert (await fetch(port, "/shop/keys/x", headers={"x-api-key": "x"})).status == 401
    assert service.process is not None
    service.process.signal(signal.SIGTERM)
    assert await service.process.ended(within_s=10) == 0
    assert not (tmp_path / "a.sock").exists()


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"listen": "nowhere"}, "neither HOST:PORT nor unix:PATH"),
        ({"workers": 0}, "greater than 0"),
        ({"redis": "http://:hunter2@x"}, "must begin with redis://"),
        ({"colour": 1}, "colour"),
        ({"config": None}, "give either xds or config"),
        ({"listen": "127.0.0.1:0", "workers": 2}, "need a port that is known"),
    ],
)
async def test_settings_that_cannot_be_are_refused_before_anything_starts(
    wrong: dict[str, Any], says: str, tmp_path: Path
) -> None:
    file = tmp_path / "settings.json"
    file.write_text(json.dumps({"listen": f"unix:{tmp_path}/a.sock", "config": "x.yaml", **wrong}))
    process = ChildProcess([sys.executable, "-m", "ext_authz", str(file)], log=tmp_path / "log")
    assert await process.ended(within_s=20) in (1, 2)
    assert says in (tmp_path / "log").read_text()
    assert "hunter2" not in (tmp_path / "log").read_text()
