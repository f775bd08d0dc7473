"""Plans through a real Envoy, the real ext_authz and the real rate limit service, all following one control plane."""

from __future__ import annotations

import asyncio
import re
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import yaml

from controlplane.api.load import load
from controlplane.provision.address import TcpAddress
from controlplane.provision.echoes import echoes
from ext_authz.keys import NewKey, add_key
from ext_authz.stores.sqlite import SqliteKeyStore
from tests.e2e.policy_manifests import OURS, Manifest, limits, provider, routes, security, target
from tests.e2e.policy_services import authz, ratelimit
from tests.e2e.test_examples import EXAMPLES, moved
from tests.support import manifests as m
from tests.support.gateway import Gateway
from tests.support.tokens import SigningKey, bearer
from tests.support.upstream import Upstream
from tests.support.waiting import until


def plan(name: str, *given: Manifest, **spec: Any) -> Manifest:
    return m.manifest(OURS, "Plan", name, {"limits": list(given), **spec})


def day(requests: int, **more: Any) -> Manifest:
    return {"requests": requests, "unit": "Day", **more}


async def refused_after(gateway: Gateway, path: str, headers: dict[str, str], most: int = 20) -> int:
    """How many requests pass before one is refused."""
    for passed in range(most):
        answer = await gateway.get(path, headers=headers)
        if answer.status == 429:
            return passed
        assert answer.status == 200, answer
    return most


async def test_the_plan_of_a_key_says_how_much_its_consumer_may_ask_for(upstream: Upstream) -> None:
    files = {
        "a.yaml": [
            *routes(upstream, "api"),
            security("api", consumers={}),
            limits("api", {"global": {"plans": {"default": "free"}}}),
            plan("free", day(2)),
            plan("paid", day(4), overrides=[{"consumers": ["hooli"], "limits": [day(6)]}]),
            plan("unlimited"),
        ]
    }
    async with Gateway(files) as gateway, authz(gateway), ratelimit(gateway):
        store = SqliteKeyStore(gateway.home / "keys.db")

        async def key(consumer: str, **metadata: str) -> str:
            return (await add_key(store, NewKey(consumer, metadata=metadata), time.time())).key

        assert gateway.findings() == []
        acme, again = await key("acme", plan="free"), await key("acme", plan="free")
        await gateway.answers("/api", headers={"x-api-key": acme})
        # Two keys of one consumer share what it may ask for.
        assert await refused_after(gateway, "/api", {"x-api-key": again}) == 1
        refused = await gateway.get("/api", headers={"x-api-key": acme})
        assert (refused.status, refused.json()["error"]) == (429, "rate_limited")
        assert refused.header("x-ratelimit-limit") is not None
        paid = await key("paid", plan="paid")
        assert await refused_after(gateway, "/api", {"x-api-key": paid}) == 4
        hooli = await key("hooli", plan="paid")
        assert await refused_after(gateway, "/api", {"x-api-key": hooli}) == 6
        planless, lost = await key("planless"), await key("lost", plan="gold")
        assert await refused_after(gateway, "/api", {"x-api-key": planless}) == 2
        assert await refused_after(gateway, "/api", {"x-api-key": lost}) == 2
        free_of_limits = await key("boss", plan="unlimited")
        assert await refused_after(gateway, "/api", {"x-api-key": free_of_limits}) == 20
        await store.close()


async def test_another_plan_of_a_key_and_other_limits_of_a_plan_hold_within_a_second(upstream: Upstream) -> None:
    files = {
        "a.yaml": [
            *routes(upstream, "api"),
            security("api", consumers={}),
            limits("api", {"global": {"plans": {"default": "free"}}}),
        ],
        "free.yaml": [plan("free", day(2))],
        "paid.yaml": [plan("paid", day(5))],
    }
    async with Gateway(files) as gateway, authz(gateway), ratelimit(gateway):
        store = SqliteKeyStore(gateway.home / "keys.db")
        made = await add_key(store, NewKey("acme", metadata={"plan": "free"}), time.time())
        headers = {"x-api-key": made.key}
        await gateway.answers("/api", headers=headers)
        assert await refused_after(gateway, "/api", headers) == 1
        assert await store.change(made.record.id, {"plan": "paid"})
        await gateway.answers("/api", headers=headers)
        assert await refused_after(gateway, "/api", headers) == 4

        # What was counted stays counted: of 8 a day it has had 5, and one was refused.
        gateway.write("paid.yaml", [plan("paid", day(8))])
        await gateway.answers("/api", headers=headers)
        assert await refused_after(gateway, "/api", headers) == 1
        gateway.remove("paid.yaml")

        async def has_the_default_plan() -> bool:
            another = NewKey(f"caller{time.monotonic_ns()}", metadata={"plan": "paid"})
            key = (await add_key(store, another, time.time())).key
            return await refused_after(gateway, "/api", {"x-api-key": key}) == 2

        await until(has_the_default_plan, what="the default plan")
        await store.close()


async def test_tenants_count_together_and_who_has_none_counts_alone(upstream: Upstream) -> None:
    files = {
        "a.yaml": [
            *routes(upstream, "api"),
            security("api", consumers={}),
            limits("api", {"global": {"plans": {"default": "free"}}}),
            plan("free", day(3, per="Tenant"), overrides=[{"tenants": ["big"], "limits": [day(5)]}]),
        ]
    }
    async with Gateway(files) as gateway, authz(gateway), ratelimit(gateway):
        store = SqliteKeyStore(gateway.home / "keys.db")

        async def key(consumer: str, tenant: str = "") -> str:
            return (await add_key(store, NewKey(consumer, tenant=tenant), time.time())).key

        one, other = await key("one", "acme"), await key("other", "acme")
        await gateway.answers("/api", headers={"x-api-key": one})
        assert await refused_after(gateway, "/api", {"x-api-key": other}) == 2
        assert (await gateway.get("/api", headers={"x-api-key": one})).status == 429
        assert await refused_after(gateway, "/api", {"x-api-key": await key("big-one", "big")}) == 5
        # Not by the name of a tenant.
        assert await refused_after(gateway, "/api", {"x-api-key": await key("acme")}) == 3
        await store.close()


async def test_plans_of_a_gateway_count_over_its_routes_also_where_a_route_adds_rules(upstream: Upstream) -> None:
    own = m.manifest(
        OURS,
        "BackendTrafficPolicy",
        "added",
        {
            "targetRefs": [target("HTTPRoute", "added")],
            "mergeType": "StrategicMerge",
            "rateLimit": {"global": {"rules": [{"limit": {"requests": 1, "unit": "Day"}}], "localShield": True}},
        },
    )
    # Closed, so that no request passes uncounted while the service is not known yet.
    of_gateway = {"plans": {"default": "free"}, "localShield": True, "failureMode": "Closed"}
    files = {
        "a.yaml": [
            *routes(upstream, "plain", "added"),
            security("edge", target("Gateway", "edge"), consumers={}),
            limits("edge", {"global": of_gateway}, target("Gateway", "edge")),
            own,
            plan("free", day(4)),
        ]
    }
    async with Gateway(files) as gateway, authz(gateway), ratelimit(gateway):
        store = SqliteKeyStore(gateway.home / "keys.db")
        headers = {"x-api-key": (await add_key(store, NewKey("acme"), time.time())).key}
        await gateway.answers("/added", headers=headers)
        assert await refused_after(gateway, "/plain", headers, 2) == 2
        # Its own rule refuses the second; the plan has counted it, as each limit counts what another refuses.
        assert await refused_after(gateway, "/added", headers) == 0
        assert await refused_after(gateway, "/plain", headers) == 0
        await store.close()


async def test_claims_of_a_token_tell_the_plan_and_callers_without_one_count_by_address(upstream: Upstream) -> None:
    key = SigningKey.make()
    plans = {"identity": {"from": "Token"}, "default": "free", "anonymous": "anonymous"}
    files = {
        "a.yaml": [
            *routes(upstream, "api"),
            security("api", jwt={"optional": True, "providers": [provider(key)]}),
            limits("api", {"global": {"plans": plans, "failureMode": "Closed"}}),
            plan("anonymous", day(1)),
            plan("free", day(2)),
            plan("paid", day(4), day(5, per="Plan")),
        ]
    }
    async with Gateway(files) as gateway, ratelimit(gateway):
        await gateway.answers("/api")
        assert (await gateway.get("/api")).status == 429
        assert await refused_after(gateway, "/api", bearer(key.token(sub="ann"))) == 2
        assert await refused_after(gateway, "/api", bearer(key.token({"plan": "paid"}, sub="bob")), 3) == 3
        assert await refused_after(gateway, "/api", bearer(key.token({"plan": "paid"}, sub="cat"))) == 2
        assert await refused_after(gateway, "/api", bearer(key.token({"plan": 7}, sub="dan"))) == 2


async def test_headers_that_policies_set_tell_the_plan_and_those_of_clients_do_not(upstream: Upstream) -> None:
    consumers = {"metadataToHeaders": [{"key": "tier", "header": "x-tier"}], "forwardClientIDHeader": "x-client"}
    plans = {"identity": {"from": "Headers", "plan": "x-tier", "consumer": "x-client"}, "default": "free"}
    files = {
        "a.yaml": [
            *routes(upstream, "api"),
            security("api", consumers=consumers),
            limits("api", {"global": {"plans": plans}}),
            plan("free", day(1)),
            plan("paid", day(3)),
        ]
    }
    async with Gateway(files) as gateway, authz(gateway), ratelimit(gateway):
        store = SqliteKeyStore(gateway.home / "keys.db")
        paid = (await add_key(store, NewKey("acme", metadata={"tier": "paid"}), time.time())).key
        free = (await add_key(store, NewKey("mallory"), time.time())).key
        await gateway.answers("/api", headers={"x-api-key": paid})
        assert await refused_after(gateway, "/api", {"x-api-key": paid}) == 2
        assert await refused_after(gateway, "/api", {"x-api-key": free, "x-tier": "paid", "x-client": "x"}) == 1
        await store.close()


async def test_who_is_far_above_a_limit_is_refused_by_envoy_without_a_question(upstream: Upstream) -> None:
    each_user = {"headers": [{"name": "x-user", "type": "Distinct"}]}
    rule = {"clientSelectors": [each_user], "limit": {"requests": 10, "unit": "Day"}}
    files = {
        "a.yaml": [
            *routes(upstream, "rule", "plan"),
            limits("rule", {"global": {"rules": [rule], "localShield": True, "failureMode": "Closed"}}),
            security("plan", consumers={}),
            limits("plan", {"global": {"plans": {"default": "free"}, "localShield": True}}),
            plan("free", day(4), overrides=[{"consumers": ["boss"]}]),
        ]
    }
    async with Gateway(files) as gateway, authz(gateway), ratelimit(gateway) as serving:
        assert gateway.findings() == []

        def asked(route: str) -> int:
            found = serving.service._stats.items()
            return sum(each.total for (domain, _), each in found if domain.startswith(f"demo/{route}/"))

        await gateway.answers("/rule", headers={"x-user": "calm"})
        before = asked("rule")
        answers = [await gateway.get("/rule", headers={"x-user": "hot"}) for _ in range(100)]
        assert [each.status for each in answers] == [200] * 10 + [429] * 90
        assert asked("rule") - before <= 21
        by_service, by_envoy = answers[10], answers[99]
        assert by_service.header("x-ratelimit-limit") is not None
        assert by_envoy.json().keys() == by_service.json().keys()
        assert by_envoy.json()["error"] == by_service.json()["error"] == "rate_limited"
        assert by_envoy.json()["retry_after"] == int(by_envoy.header("retry-after") or 0) > 0
        assert by_envoy.header("content-type") == by_service.header("content-type")
        assert await refused_after(gateway, "/rule", {"x-user": "calm"}) == 9

        store = SqliteKeyStore(gateway.home / "keys.db")
        free = (await add_key(store, NewKey("acme"), time.time())).key
        boss = (await add_key(store, NewKey("boss"), time.time())).key
        await gateway.answers("/plan", headers={"x-api-key": free})
        rest = [(await gateway.get("/plan", headers={"x-api-key": free})).status for _ in range(60)]
        assert rest == [200] * 3 + [429] * 57
        assert asked("plan") <= 9
        assert await refused_after(gateway, "/plan", {"x-api-key": boss}, 60) == 60
        await store.close()


async def test_a_leaky_bucket_holds_requests_until_it_is_their_turn(upstream: Upstream) -> None:
    rule = {"limit": {"requests": 5, "unit": "Second"}, "algorithm": "LeakyBucket", "delay": "1s"}
    files = {
        "a.yaml": [
            *routes(upstream, "paced"),
            limits("paced", {"global": {"rules": [rule], "failureMode": "Closed"}}),
        ]
    }
    async with Gateway(files) as gateway, ratelimit(gateway):
        await gateway.answers("/paced")
        assert gateway.findings() == []
        started = time.monotonic()
        answers = await asyncio.gather(*(gateway.get("/paced") for _ in range(4)))
        assert [each.status for each in answers] == [200] * 4
        # One each 200 ms: at the least the last three have waited for each other.
        assert time.monotonic() - started >= 0.6
        started = time.monotonic()
        crowd = await asyncio.gather(*(gateway.get("/paced") for _ in range(30)))
        assert {each.status for each in crowd} == {200, 429}
        # Those whose turn came meanwhile, and who waits longest.
        assert sum(each.status == 200 for each in crowd) <= 5 * (time.monotonic() - started) + 2


async def test_requests_that_run_at_a_time_are_limited_and_make_room_when_they_end(upstream: Upstream) -> None:
    rule = {"limit": {"requests": 2, "unit": "Hour"}, "algorithm": "Concurrency"}
    files = {
        "a.yaml": [
            *routes(upstream, "rule", "plan"),
            limits("rule", {"global": {"rules": [rule], "failureMode": "Closed"}}),
            security("plan", consumers={}),
            limits("plan", {"global": {"plans": {"default": "free"}}}),
            plan("free", {"requests": 2, "unit": "Hour", "algorithm": "Concurrency"}, day(100)),
        ]
    }
    async with Gateway(files) as gateway, authz(gateway), ratelimit(gateway):
        store = SqliteKeyStore(gateway.home / "keys.db")
        free = {"x-api-key": (await add_key(store, NewKey("acme"), time.time())).key}
        assert gateway.findings() == []
        for path, headers in (("/rule", {}), ("/plan", free)):
            # The name of a request is not for the client to choose.
            headers = {**headers, "x-request-id": "00000000-0000-4000-8000-000000000000", "dragoman.request": "a"}
            await gateway.answers(path, headers=headers)
            upstream.be_slow(2.5)
            running = [asyncio.create_task(gateway.get(path, headers=headers)) for _ in range(2)]
            begun = len(upstream.requests)
            await until(lambda count=begun: len(upstream.requests) == count + 2, what="two requests that run")
            assert (await gateway.get(path, headers=headers)).status == 429
            assert [each.status for each in await asyncio.gather(*running)] == [200, 200]
            upstream.be_slow(0.0)
            await gateway.answers(path, headers=headers)
        await store.close()


async def test_what_runs_while_a_limit_is_edited_counts_and_makes_room_when_it_ends(upstream: Upstream) -> None:
    rule = {"limit": {"requests": 1, "unit": "Hour"}, "algorithm": "Concurrency"}

    def of(*rules: Manifest) -> list[Manifest]:
        return [limits("rule", {"global": {"rules": list(rules), "failureMode": "Closed"}})]

    files = {"a.yaml": routes(upstream, "rule"), "b.yaml": of(rule)}
    async with Gateway(files) as gateway, ratelimit(gateway):
        await gateway.answers("/rule")
        upstream.be_slow(3.0)
        begun = len(upstream.requests)
        running = asyncio.create_task(gateway.get("/rule"))
        await until(lambda: len(upstream.requests) == begun + 1, what="a request that runs")
        # The header tells that the edit is in force.
        gateway.write("b.yaml", of({"limit": {"requests": 100_000, "unit": "Day"}}, rule))
        await until(lambda: edited(gateway), what="the edit")
        assert not running.done()
        assert (await running).status == 200
        upstream.be_slow(0.0)
        await gateway.answers("/rule")


async def edited(gateway: Gateway) -> bool:
    """Says whether a request is refused by limits of which one is per day."""
    refused = await gateway.get("/rule")
    return refused.status == 429 and "w=86400" in (refused.header("x-ratelimit-limit") or "")


async def test_the_example_does_what_its_lines_say(tmp_path: Path) -> None:
    documents = moved(list(yaml.safe_load_all((EXAMPLES / "plans" / "plans.yaml").read_text("utf-8"))), tmp_path)
    objects = [loaded.object for loaded in map(load, documents)]
    lines = [
        line for each in objects if each for line in each.metadata.annotations.get("dragoman.dev/curl", "").splitlines()
    ]
    token = bearer(next(word for line in lines for word in re.findall(r"Bearer ([^ \"]+)", line)))
    async with AsyncExitStack() as stack:
        for echo in echoes(objects):
            assert isinstance(echo.address, TcpAddress)
            await stack.enter_async_context(Upstream(echo.name, port=echo.address.port))
        gateway = await stack.enter_async_context(Gateway({"all.yaml": documents}))
        await stack.enter_async_context(authz(gateway))
        await stack.enter_async_context(ratelimit(gateway))
        ((_, port),) = gateway.ports
        gateway.ports[gateway.name, 80] = gateway.port(port)
        assert gateway.findings() == []
        await gateway.answers("/tokens")
        assert await refused_after(gateway, "/tokens", {}) == 1
        assert await refused_after(gateway, "/tokens", token) == 4
        store = SqliteKeyStore(gateway.home / "keys.db")
        made = await add_key(store, NewKey("acme", metadata={"plan": "free"}), time.time())
        await gateway.answers("/keys", 401)
        assert await refused_after(gateway, "/keys", {"x-api-key": made.key}) == 4
        hooli = await add_key(store, NewKey("hooli", metadata={"plan": "free"}), time.time())
        assert await refused_after(gateway, "/keys", {"x-api-key": hooli.key}) == 20
        assert await store.change(made.record.id, {"plan": "paid"})
        await gateway.answers("/keys", headers={"x-api-key": made.key})
        await store.close()


async def test_nobody_passes_while_plans_get_limits_of_other_sorts(upstream: Upstream) -> None:
    none, running = day(0), {"requests": 1, "unit": "Day", "algorithm": "Concurrency"}
    variants = ([none], [day(0, per="Plan")], [day(0, per="Tenant")], [none, running], [day(0, per="Plan"), none, none])
    files = {
        "a.yaml": [
            *routes(upstream, "api"),
            security("api", consumers={}),
            limits("api", {"global": {"plans": {"default": "free"}, "failureMode": "Closed"}}),
        ],
        "free.yaml": [plan("free", none)],
    }
    async with Gateway(files) as gateway, authz(gateway), ratelimit(gateway):
        store = SqliteKeyStore(gateway.home / "keys.db")
        headers = {"x-api-key": (await add_key(store, NewKey("acme", tenant="t"), time.time())).key}
        await gateway.answers("/api", 429, headers=headers)
        for turn in range(15):
            gateway.write("free.yaml", [plan("free", *variants[turn % len(variants)])])
            over = time.monotonic() + 0.2
            while time.monotonic() < over:
                answers = await asyncio.gather(*(gateway.get("/api", headers=headers) for _ in range(4)))
                assert {each.status for each in answers} == {429}, turn
        await store.close()
