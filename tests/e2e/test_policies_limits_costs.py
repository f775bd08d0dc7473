"""What requests and responses cost, and limits that requests bring, through a real Envoy and the rate limit service."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf.json_format import MessageToDict

from controlplane import ir
from controlplane.translate import newer
from controlplane.translate.filters import ratelimit as filters
from ratelimit_service.main import worker
from ratelimit_service.settings import RateLimitSettings
from tests.e2e.policy_limits import exhaust, limit, shared, statuses
from tests.e2e.policy_manifests import limits, provider, routes, security, target
from tests.e2e.policy_services import ratelimit
from tests.e2e.test_ratelimit_envoy import FILTERS, bootstrap
from tests.support.envoy import Envoy
from tests.support.gateway import Gateway
from tests.support.http import fetch
from tests.support.ports import free_port
from tests.support.tokens import SigningKey, bearer
from tests.support.upstream import Upstream

KEY = SigningKey.make()
CLAIMS = "envoy.filters.http.jwt_authn"
ONCE_DONE = {"request": {"from": "Number", "number": 0}}


def token(**claims: Any) -> dict[str, str]:
    return bearer(KEY.token(claims))


def of_claim(key: str) -> dict[str, Any]:
    return {"from": "Metadata", "metadata": {"namespace": CLAIMS, "key": key}}


async def passes(gateway: Gateway, path: str, most: int, **headers: str) -> int:
    """Sends requests one by one until one is refused, and returns how many passed: what they cost is counted later."""
    passed = 0
    while (await gateway.get(path, headers=headers)).status == 200:
        passed += 1
        assert passed <= most, path
    return passed


async def test_a_request_may_cost_what_its_token_says_and_bring_a_limit(upstream: Upstream) -> None:
    guard = {"providers": [provider(KEY)], "optional": True}
    priced = limit(10, "Day", cost={"request": of_claim("main:cost")})
    each_user = {"claims": [{"name": "sub", "type": "Distinct"}]}
    brought = limit(3, "Day", each_user)
    brought["limit"]["fromMetadata"] = {"namespace": CLAIMS, "key": "main:limits:day"}
    names = ("priced", "brought", "local")
    files = {
        "a.yaml": [
            *routes(upstream, *names, "free"),
            security("guard", *(target("HTTPRoute", name) for name in names), jwt=guard),
            limits("priced", shared(priced)),
            limits("brought", shared(brought)),
            limits("local", {"local": {"rules": [limit(10, "Hour", cost={"request": of_claim("main:cost")})]}}),
        ]
    }
    async with Gateway(files) as gateway, ratelimit(gateway):
        await gateway.answers("/free")
        assert gateway.findings() == []
        await exhaust(gateway, "/priced", 2, **token(cost=4))
        # The request that was refused cost something too, as in envoyproxy/ratelimit.
        assert (await gateway.get("/priced", headers=token(cost=1))).status == 429
        assert await statuses(gateway, "/priced", 1, **token(cost="much")) == [429]
        assert await statuses(gateway, "/priced", 1) == [429]

        mine = {"limits": {"day": {"requests_per_unit": 1, "unit": "DAY"}}}
        refused = await exhaust(gateway, "/brought", 1, **token(sub="ada", **mine))
        assert (refused.header("x-ratelimit-limit") or "").startswith("1, 1;w=86400")
        await exhaust(gateway, "/brought", 3, **token(sub="bob"))
        await exhaust(gateway, "/brought", 3, **token(sub="eve", limits={"day": {"unit": "DAY"}}))

        assert await statuses(gateway, "/local", 3, **token(cost=4)) == [200, 200, 429]


async def test_a_request_whose_cost_is_no_number_costs_one(upstream: Upstream) -> None:
    guard = {"providers": [provider(KEY)], "optional": True}
    kinds = {"type": "Distinct", "name": "x-kind"}
    priced = limit(3, "Day", {"headers": [kinds]}, cost={"request": of_claim("main:usage:cost")})
    files = {
        "a.yaml": [
            *routes(upstream, "priced", "free"),
            security("guard", target("HTTPRoute", "priced"), jwt=guard),
            limits("priced", shared(priced)),
        ]
    }
    odd = [{}, {"usage": 2}, {"usage": {}}, {"usage": "2"}, {"usage": ["cost"]}, {"usage": None}]
    odd += [{"usage": {"cost": each}} for each in ("", "much", "-2", "2e9", -2, True, None, [2], {"cost": 2})]
    priced_so = {"2": 1, "3": 1, "0": 3, "2.0": 1}
    async with Gateway(files) as gateway, ratelimit(gateway):
        await gateway.answers("/free")
        assert gateway.findings() == []
        for number, claims in enumerate(odd):
            await exhaust(gateway, "/priced", 3, **token(**claims), **{"x-kind": f"odd-{number}"})
        for cost, passed in priced_so.items():
            kind = {"x-kind": f"text-{cost}"}
            found = await statuses(gateway, "/priced", 3, **token(usage={"cost": cost}), **kind)
            assert found.count(200) == passed, cost
        assert await statuses(gateway, "/priced", 2, **token(usage={"cost": 10**12}), **{"x-kind": "much"}) == [429] * 2
        await exhaust(gateway, "/priced", 3, **{"x-kind": "nobody"})


async def test_what_responses_cost_is_counted_when_they_are_done(upstream: Upstream) -> None:
    guard = {"providers": [provider(KEY)], "optional": True}
    fixed = {**ONCE_DONE, "response": {"from": "Number", "number": 3}}
    told = {**ONCE_DONE, "response": of_claim("main:tokens")}
    each_user = {"claims": [{"name": "sub", "type": "Distinct"}]}
    files = {
        "a.yaml": [
            *routes(upstream, "fixed", "told", "shadow", "free"),
            security("guard", target("HTTPRoute", "told"), jwt=guard),
            limits("fixed", shared(limit(5, "Day", cost=fixed))),
            limits("told", shared(limit(100, "Day", each_user, cost=told))),
            limits("shadow", shared(limit(0, "Day", cost=fixed, shadowMode=True))),
        ]
    }
    async with Gateway(files) as gateway, ratelimit(gateway):
        await gateway.answers("/free")
        assert gateway.findings() == []
        assert await passes(gateway, "/fixed", 20) >= 2
        assert (await gateway.get("/fixed")).status == 429
        assert await passes(gateway, "/told", 20, **token(sub="ada", tokens=40)) >= 3
        assert await passes(gateway, "/told", 20, **token(sub="bob", tokens=101)) >= 1
        assert await statuses(gateway, "/told", 4, **token(sub="eve")) == [200] * 4
        assert await statuses(gateway, "/shadow", 4) == [200] * 4


async def test_a_budget_of_tokens_is_spent_by_what_a_filter_finds_in_responses(
    upstream: Upstream, tmp_path: Path
) -> None:
    spent = ir.MetadataSource("llm", "usage:total")
    rule = ir.LimitRule(
        100,
        "Day",
        headers=(ir.ValueSelector("x-user", "Distinct"),),
        cost=0,
        response_cost=spent,
        limit_from=ir.MetadataSource("llm", "budget"),
    )
    found = ir.GlobalLimit("demo/llm", (rule,))
    config = tmp_path / "limits.yaml"
    config.write_text(
        f"domain: {found.domain}\ndescriptors: [{{key: rule, value: '0', descriptors: [{{key: route, descriptors: ["
        "{key: header_x-user, rate_limit: {unit: day, requests_per_unit: 100}}]}]}]\n"
    )
    settings = RateLimitSettings(listen=f"unix:{tmp_path}/rl.sock", config=config, drain_s=0.1)
    async with worker(settings) as serving:
        port = free_port()
        given = bootstrap(port=port, upstream=upstream, service_socket=serving.address.path)
        _with_lua(
            given,
            filters.OPEN.route_config(
                ir.Rule("", (), ir.Respond(500)), ir.Policies(global_limit=found, limit_scope="r")
            ),
        )
        async with Envoy(given):
            for user, budget, most in (("ada", 100, 3), ("bob", 1000, 26)):
                headers = {"x-user": user, "x-budget": str(budget)}
                passed = 0
                while (await fetch(port, headers=headers)).status == 200:
                    passed += 1
                    assert passed < most + 20
                assert passed >= most


def _with_lua(given: dict[str, Any], config: Any) -> None:
    """Puts a filter before the limits that leaves the budget of a request and what its response cost."""
    (manager,) = (
        each["typed_config"] for each in given["static_resources"]["listeners"][0]["filter_chains"][0]["filters"]
    )
    code = """
    function envoy_on_request(handle)
      local budget = tonumber(handle:headers():get("x-budget"))
      handle:streamInfo():dynamicMetadata():set("llm", "budget", {requests_per_unit = budget, unit = "DAY"})
    end
    function envoy_on_response(handle)
      handle:streamInfo():dynamicMetadata():set("llm", "usage", {total = 40})
    end
    """
    lua = {"@type": f"{FILTERS}.http.lua.v3.Lua", "default_source_code": {"inline_string": code}}
    manager["http_filters"].insert(0, {"name": "lua", "typed_config": lua})
    (route,) = manager["route_config"]["virtual_hosts"][0]["routes"]
    del route["route"]["rate_limits"]
    made = newer.message("envoy.extensions.filters.http.ratelimit.v3.RateLimitPerRoute").FromString(config.value)
    plain = MessageToDict(made, descriptor_pool=newer.pool())
    per_route = {"@type": config.type_url, **plain}
    route["typed_per_filter_config"] = {"envoy.filters.http.ratelimit": per_route}


async def test_a_limit_in_shadow_counts_and_refuses_nobody(upstream: Upstream) -> None:
    gold = {"headers": [{"name": "x-plan", "value": "gold"}]}
    files = {
        "a.yaml": [
            *routes(upstream, "global", "local", "all", "free"),
            limits("global", shared(limit(1, "Day", shadowMode=True), limit(3, "Day"))),
            limits("local", {"local": {"rules": [limit(1, "Hour", gold, shadowMode=True), limit(2, "Hour")]}}),
            limits(
                "all",
                {
                    "local": {
                        "rules": [limit(1, "Hour", shadowMode=True, cost={"request": {"from": "Number", "number": 2}})]
                    }
                },
            ),
        ]
    }
    async with Gateway(files) as gateway, ratelimit(gateway):
        await gateway.answers("/free")
        await exhaust(gateway, "/global", 3)
        assert await statuses(gateway, "/local", 4, x_plan="gold") == [200] * 4
        assert await statuses(gateway, "/local", 3) == [200, 200, 429]
        assert await statuses(gateway, "/all", 4) == [200] * 4


async def test_clients_are_told_of_the_limits_that_may_be_shown(upstream: Upstream) -> None:
    gold = {"headers": [{"name": "x-plan", "value": "gold"}]}
    hidden = limit(1, "Day", xRateLimitHeaders="Off")
    both = [limit(2, "Hour", gold), limit(3, "Hour", xRateLimitHeaders="Off")]
    files = {
        "a.yaml": [
            *routes(upstream, "hidden", "mixed", "local", "both", "free"),
            limits("hidden", shared(hidden)),
            limits("mixed", shared({**hidden, "limit": {"requests": 2, "unit": "Day"}}, limit(9, "Hour"))),
            limits("local", {"local": {"rules": both}}),
            limits("both", {"local": {"rules": [limit(8, "Hour")]}, "global": {"rules": [limit(9, "Hour")]}}),
        ]
    }
    async with Gateway(files) as gateway, ratelimit(gateway):
        await gateway.answers("/free")
        assert await passes(gateway, "/hidden", 20) >= 1
        refused = await gateway.get("/hidden")
        assert (refused.status, refused.header("x-ratelimit-limit")) == (429, None)
        assert int(refused.header("retry-after") or 0) > 0
        assert await passes(gateway, "/mixed", 20) >= 2
        assert (await gateway.get("/mixed")).header("x-ratelimit-limit") == "9, 9;w=3600"

        shown = await gateway.get("/local", headers={"x-plan": "gold"})
        assert (shown.header("x-ratelimit-limit"), shown.header("x-ratelimit-remaining")) == ("2", "1")
        unseen = await gateway.get("/local")
        assert (unseen.status, unseen.header("x-ratelimit-limit")) == (200, None)
        assert await statuses(gateway, "/local", 3) == [200, 200, 429]
        last = await gateway.get("/local")
        assert (last.header("x-ratelimit-limit"), last.header("retry-after")) == (None, "1200")

        answers = [await gateway.get("/both") for _ in range(3)]
        told = [answer.all("x-ratelimit-limit") for answer in answers]
        assert ["9, 9;w=3600"] in told
        assert all(each in (["9, 9;w=3600"], []) for each in told)
