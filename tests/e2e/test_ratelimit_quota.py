"""Three real Envoys enforce their shares of one limit; the service divides it by what they report."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from controlplane.explain import Request, explain, locator
from controlplane.explain.model import Quota
from controlplane.translate.counting import SECONDS
from controlplane.xds.identity import Principal
from ratelimit_service.main import Worker, worker
from ratelimit_service.quota.division import SETTLE_S
from ratelimit_service.settings import RateLimitSettings
from tests.e2e.policy_limits import exhaust, limit, shared
from tests.e2e.policy_manifests import limits, routes
from tests.e2e.policy_services import announce, ratelimit
from tests.support.envoy import Envoy
from tests.support.gateway import Gateway
from tests.support.ports import free_port
from tests.support.upstream import Upstream
from tests.support.waiting import until

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
LIMIT = 150
WITHIN = 0.05
FILTERS = "type.googleapis.com/envoy.extensions.filters"
SETTINGS = f"{FILTERS}.http.rate_limit_quota.v3.RateLimitQuotaBucketSettings"
HTTP2 = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
CONFIG = f"""
domain: shop
descriptors:
  - key: plan
    value: gold
    rate_limit: {{unit: second, requests_per_unit: {LIMIT}, mode: quota}}
"""


def bootstrap(*, port: int, service_socket: str) -> dict[str, Any]:
    """A listener that answers by itself, and counts all requests into one bucket."""
    bucket: dict[str, Any] = {"@type": SETTINGS, "reporting_interval": "5s"}
    bucket["bucket_id_builder"] = {"bucket_id_builder": {"plan": {"string_value": "gold"}}}
    quota = {
        "@type": f"{FILTERS}.http.rate_limit_quota.v3.RateLimitQuotaFilterConfig",
        "rlqs_server": {"envoy_grpc": {"cluster_name": "quota"}},
        "domain": "shop",
        "bucket_matchers": {"on_no_match": {"action": {"name": "bucket", "typed_config": bucket}}},
    }
    route = {"match": {"prefix": "/"}, "direct_response": {"status": 200}}
    manager = {
        "@type": f"{FILTERS}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [
            {"name": "quota", "typed_config": quota},
            {"name": "router", "typed_config": {"@type": f"{FILTERS}.http.router.v3.Router"}},
        ],
    }
    listener = {
        "name": "in",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": {"pipe": {"path": service_socket}}}}]}]
    cluster = {
        "name": "quota",
        "type": "STATIC",
        "load_assignment": {"cluster_name": "quota", "endpoints": endpoints},
        "typed_extension_protocol_options": {
            HTTP2: {"@type": f"type.googleapis.com/{HTTP2}", "explicit_http_config": {"http2_protocol_options": {}}}
        },
    }
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}


class Load:
    """Requests at an even rate, whatever they are answered, on one connection; counts those that were let through."""

    def __init__(self, port: int, rate: float) -> None:
        self.rate = rate
        self.passed = 0
        self.refused = 0
        self._port = port

    async def run(self) -> None:
        """Sends until cancelled, or until the connection ends."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError), contextlib.closing(writer):
            due, at = 0.0, time.monotonic()
            while True:
                await asyncio.sleep(0.02)
                now = time.monotonic()
                due, at = min(due + self.rate * (now - at), self.rate), now
                count = int(due)
                due -= count
                for _ in range(count):
                    writer.write(b"GET / HTTP/1.1\r\nhost: shop\r\n\r\n")
                    head = await reader.readuntil(b"\r\n\r\n")
                    if head.startswith(b"HTTP/1.1 200"):
                        self.passed += 1
                    else:
                        assert head.startswith(b"HTTP/1.1 429"), head
                        self.refused += 1


class Watch:
    """Notes how many requests were let through, and when."""

    def __init__(self, loads: Sequence[Load]) -> None:
        self._loads = loads
        self._seen: list[tuple[float, int]] = []
        self._began = time.monotonic()

    async def run(self) -> None:
        """Notes until cancelled."""
        while True:
            self._seen.append((time.monotonic(), self.passed))
            await asyncio.sleep(0.1)

    @property
    def passed(self) -> int:
        """How many, up to now."""
        return sum(load.passed for load in self._loads)

    def rate(self, seconds: float) -> float:
        """Returns how many a second passed in the last seconds."""
        now, passed = time.monotonic(), self.passed
        then, before = next((each for each in reversed(self._seen) if now - each[0] >= seconds), self._seen[0])
        return (passed - before) / (now - then)

    async def over(self, seconds: float) -> float:
        """Waits for so long; returns how many a second passed in it."""
        began, before = time.monotonic(), self.passed
        await until(lambda: time.monotonic() - began >= seconds, what="the interval to end", within_s=seconds + 10)
        return (self.passed - before) / (time.monotonic() - began)

    async def uses_it_up(self, seconds: float) -> float:
        """As `over`, until nearly all of the limit passes, and never more: a busy machine may send too little."""
        rate = 0.0
        for _ in range(3):
            rate = await self.over(seconds)
            if rate > LIMIT * (1 - WITHIN):
                break
        return rate

    async def divides(self, *, within_s: float, seconds: float = 4.0) -> float:
        """Waits until the limit, no more and no less, passes; returns after how many seconds."""
        began = time.monotonic()

        def so() -> bool:
            return time.monotonic() - began >= seconds and abs(self.rate(seconds) / LIMIT - 1) <= WITHIN

        await until(so, what=f"{LIMIT} a second", within_s=within_s, detail=lambda: f"{self.rate(seconds):.1f}")
        return time.monotonic() - began

    def say(self, words: str) -> None:
        """Prints it with the time, for the report of a failure."""
        print(f"{time.monotonic() - self._began:6.1f} s  {words}")


class Scene:
    """Three Envoys under load, and the service."""

    def __init__(self, folder: Path) -> None:
        self.socket = str(folder / "quota.sock")
        config = folder / "shop.yaml"
        config.write_text(CONFIG)
        self.settings = RateLimitSettings(
            listen=f"unix:{folder}/rl.sock", quota_listen=f"unix:{self.socket}", config=config, drain_s=0.1
        )
        self.envoys: list[Envoy] = []
        self.loads: list[Load] = []


@contextlib.asynccontextmanager
async def running(*what: Callable[[], Any]) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(each()) for each in what]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        faults = [each for each in ended if isinstance(each, Exception)]
        assert not faults, faults


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    made = Scene(tmp_path)
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(3):
            port = free_port()
            envoy = await stack.enter_async_context(Envoy(bootstrap(port=port, service_socket=made.socket)))
            made.envoys.append(envoy)
            made.loads.append(Load(port, LIMIT * 0.7))
        yield made


def near(rate: float) -> bool:
    return abs(rate / LIMIT - 1) <= WITHIN


@pytest.mark.serial
async def test_three_envoys_share_a_limit_when_the_load_moves_and_when_one_dies(scene: Scene) -> None:
    a, b, c = scene.loads
    watch = Watch(scene.loads)
    async with worker(scene.settings), running(watch.run, *(load.run for load in scene.loads)):
        await watch.over(SETTLE_S + 1)
        rate = await watch.uses_it_up(5)
        watch.say(f"shared: {rate:.1f} a second")
        assert near(rate)

        a.rate, c.rate = LIMIT * 1.4, 0
        took = await watch.divides(within_s=25)
        rate = await watch.uses_it_up(4)
        watch.say(f"the load moved: {took:.1f} s until all of the limit is used again, then {rate:.1f} a second")
        assert near(rate)

        # The share of the dead one is a third at first, and the living have less than the limit until they get it.
        c.rate = LIMIT * 0.7
        await scene.envoys[1].process.kill()
        before = b.passed
        took = await watch.divides(within_s=25)
        rate = await watch.uses_it_up(4)
        watch.say(f"one died: {took:.1f} s until the others have its share, then {rate:.1f} a second")
        assert near(rate)
        assert b.passed == before


@pytest.mark.serial
async def test_envoys_go_on_with_their_shares_while_the_service_restarts(scene: Scene) -> None:
    watch = Watch(scene.loads)
    async with running(watch.run, *(load.run for load in scene.loads)):
        async with worker(scene.settings):
            await watch.over(SETTLE_S + 1)
        rate = await watch.uses_it_up(5)
        watch.say(f"without the service: {rate:.1f} a second")
        assert near(rate)
        async with worker(scene.settings) as service:
            rate = await watch.over(SETTLE_S + 1)
            watch.say(f"with the service back: {rate:.1f} a second")
            assert near(rate)
            assert service.quota is not None
            assert service.quota.ledger.shares() == {("shop", "plan_gold"): (3, pytest.approx(LIMIT, rel=0.02))}


async def test_a_policys_rules_in_quota_mode_are_enforced_by_envoy_and_the_others_as_ever(upstream: Upstream) -> None:
    gold = {"headers": [{"name": "x-plan", "value": "gold"}]}
    search = {"path": {"value": "/many/search"}, "queryParams": [{"name": "q", "value": "x"}]}
    rules = [
        limit(20, "Hour", gold, mode="Quota", algorithm="TokenBucket", burst=8),
        limit(0, "Hour", search, mode="Quota"),
        limit(0, "Hour", {"headers": [{"name": "x-asked", "value": "1"}]}),
    ]
    files = {
        "a.yaml": [
            *routes(upstream, "free", "many", "other"),
            limits("many", shared(*rules)),
            limits("other", shared(limit(10, "Hour", mode="Quota", algorithm="TokenBucket", burst=4, shared=True))),
        ]
    }
    async with Gateway(files, ratelimit_quota=("unix:/nowhere",)) as gateway, quotas(gateway) as service:
        await gateway.answers("/free")
        assert gateway.findings() == []
        # The first request lets the bucket be known; then a share of it holds, of which half is kept for a moment.
        assert (await gateway.get("/many", headers={"x-plan": "gold"})).status == 200
        refused = await gateway.answers("/many", 429, headers={"x-plan": "gold"})
        assert (refused.json()["error"], refused.header("content-type")) == ("rate_limited", "application/json")
        assert refused.header("retry-after") == "180"
        assert (await gateway.get("/many")).status == 200

        await gateway.answers("/many/search?q=x", 429)
        assert (await gateway.get("/many/search?q=y")).status == 200
        assert (await gateway.get("/many/search2?q=x")).status == 200
        assert (await gateway.get("/many", headers={"x-asked": "1"})).status == 429

        await gateway.answers("/other", 429)
        assert (await gateway.get("/free")).status == 200
        assert service.quota is not None
        assert service.quota.ledger.buckets == 3

        gateway.write("a.yaml", [*routes(upstream, "free", "many", "other"), limits("many", shared(limit(1000)))])
        await gateway.answers("/many", headers={"x-plan": "gold"})
        await gateway.answers("/other")


async def test_without_a_quota_service_a_rule_in_quota_mode_is_asked_about_and_says_so(upstream: Upstream) -> None:
    files = {"a.yaml": [*routes(upstream, "free", "one"), limits("one", shared(limit(2, mode="Quota")))]}
    async with Gateway(files) as gateway, ratelimit(gateway):
        await gateway.answers("/free")
        await gateway.found("spec.rateLimit.global.rules[0].mode", "no quota service is known (--ratelimit-quota)")
        await exhaust(gateway, "/one", 2)


async def test_explain_names_the_rule_and_the_bucket_that_envoy_counts_a_request_into(upstream: Upstream) -> None:
    """Of a limit of nothing the refusal says how long its unit is: each rule has another."""
    selectors: list[Any] = [
        {"headers": [{"name": "x-plan", "value": "gold"}]},
        {"headers": [{"name": "x-a", "value": "b+", "type": "RegularExpression"}]},
        {"methods": [{"value": "POST"}]},
        {"path": {"value": "/many/search"}, "queryParams": [{"name": "q", "value": "x y"}]},
        {
            "headers": [{"name": "x-skip", "value": "1", "invert": True}],
            "queryParams": [{"name": "all", "value": "1"}],
        },
        {
            "path": {"type": "RegularExpression", "value": "/many/[0-9]+"},
            "methods": [{"value": "HEAD", "invert": True}],
        },
    ]
    units = list(SECONDS)[: len(selectors)]
    rules = [limit(0, unit, each, mode="Quota") for unit, each in zip(units, selectors, strict=True)]
    files = {"a.yaml": [*routes(upstream, "free", "many"), limits("many", shared(*rules))]}
    random_ = random.Random(20261121)
    counted: set[tuple[tuple[str, str], ...]] = set()
    async with Gateway(files, ratelimit_quota=("unix:/nowhere",)) as gateway, quotas(gateway) as service:
        await gateway.answers("/free")
        for _ in range(80):
            path = random_.choice(["/many", "/many", "/many/search", "/many/search2", "/many/./12", "/many/12a"])
            path += random_.choice(["", "", "?q=x%20y", "?q=x+y", "?q=2&q=x%20y", "?all=1", "?q=x%20y&all=1", "?"])
            method = random_.choice(["GET", "GET", "GET", "HEAD", "POST"])
            given = [("x-plan", "gold"), ("x-plan", "silver"), ("x-a", "bb"), ("x-a", "abb"), ("x-skip", "1")]
            headers = [each for each in given if random_.random() < 0.15]
            found = explained(gateway, path, method, headers)
            chosen = [(index, each) for index, each in enumerate(found) if each.counts]
            asked = (method, path, headers, found)
            if not chosen:
                assert (await gateway.get(path, method=method, headers=headers)).status == 200, asked
                continue
            ((index, quota),) = chosen
            counted.add(tuple(sorted(quota.bucket.items())))
            refused = await gateway.answers(path, 429, method=method, headers=headers)
            assert refused.header("retry-after") == str(SECONDS[units[index]]), asked
        assert service.quota is not None
        assert len(counted) == len(rules)
        assert {entries for _, entries in service.quota.ledger._buckets} == counted


def explained(gateway: Gateway, path: str, method: str, headers: Sequence[tuple[str, str]]) -> tuple[Quota, ...]:
    """What is said of the limits with mode Quota that a request meets."""
    assert gateway.plane is not None
    engine = gateway.plane.engine
    url, told = f"http://127.0.0.1:{gateway.port(80)}{path}", [f"{name}: {value}" for name, value in headers]
    return explain(engine.pipeline, Request.of(url, method=method, headers=told), locate=locator(engine)).quotas


async def test_the_example_does_what_it_says(upstream: Upstream) -> None:
    documents = list(yaml.safe_load_all((EXAMPLES / "rate-limit-quota" / "quota.yaml").read_text("utf-8")))
    for each in documents:
        if each["kind"] == "Backend":
            each["spec"]["endpoints"] = [{"ip": {"address": "127.0.0.1", "port": upstream.port}}]
    async with Gateway({"a.yaml": documents}, ratelimit_quota=("unix:/nowhere",)) as gateway, quotas(gateway):
        await gateway.answers("/reports", port=8080)
        assert gateway.findings() == []
        await gateway.answers("/reports", 429, port=8080)
        gold = [(await gateway.get("/reports", port=8080, headers={"x-plan": "gold"})).status for _ in range(20)]
        assert gold == [200] * 20


@contextlib.asynccontextmanager
async def quotas(gateway: Gateway) -> AsyncIterator[Worker]:
    """The rate limit service, which divides limits too."""
    assert gateway.plane is not None
    await gateway.plane.listen(f"unix:{gateway.home}/xds-ratelimit.sock", Principal("service", "ratelimit"))
    settings = RateLimitSettings(
        listen=f"unix:{gateway.home}/ratelimit.sock",
        quota_listen=f"unix:{gateway.home}/ratelimit-quota.sock",
        xds=f"unix:{gateway.home}/xds-ratelimit.sock",
        drain_s=0.1,
    )
    async with worker(settings) as serving:
        for service in ("ratelimit", "ratelimit-quota"):
            announce(gateway, service)
        yield serving
