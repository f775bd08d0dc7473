"""Limits through a real Envoy: local ones, and global ones by the real rate limit service."""

from __future__ import annotations

from typing import Any

from tests.e2e.policy_limits import exhaust, limit, shared, statuses
from tests.e2e.policy_manifests import limits, route, routes, target
from tests.e2e.policy_services import ratelimit
from tests.support.gateway import Gateway
from tests.support.upstream import Upstream


async def test_a_local_limit_lets_so_many_through_and_says_when_to_come_back(upstream: Upstream) -> None:
    gold = {"headers": [{"name": "x-plan", "value": "gold"}]}
    each_user = {"headers": [{"name": "x-user", "type": "Distinct"}]}
    writes = {"methods": [{"value": "POST"}, {"value": "PUT"}], "sourceCIDR": {"value": "127.0.0.0/8"}}
    files = {
        "a.yaml": [
            *routes(upstream, "plain", "users", "writes", "free"),
            limits("plain", {"type": "Local", "local": {"rules": [limit(3, "Hour"), limit(5, "Hour", gold)]}}),
            limits("users", {"local": {"rules": [limit(2, "Hour", each_user)]}}),
            limits("writes", {"local": {"rules": [limit(1, "Hour", writes)]}}),
        ]
    }
    async with Gateway(files) as gateway:
        await gateway.answers("/free")
        assert gateway.findings() == []
        assert await statuses(gateway, "/plain", 4) == [200, 200, 200, 429]
        refused = await gateway.get("/plain")
        assert (refused.json()["error"], refused.header("content-type")) == ("rate_limited", "application/json")
        assert refused.header("retry-after") == "1200"
        assert (refused.header("x-ratelimit-limit"), refused.header("x-ratelimit-remaining")) == ("3", "0")
        assert await statuses(gateway, "/plain", 6, x_plan="gold") == [200] * 5 + [429]

        assert await statuses(gateway, "/users", 3, x_user="ada") == [200, 200, 429]
        assert await statuses(gateway, "/users", 3, x_user="grace") == [200, 200, 429]
        assert await statuses(gateway, "/users", 5) == [200] * 5
        posts = [(await gateway.get("/writes", method=method)).status for method in ("POST", "PUT", "GET", "GET")]
        assert posts == [200, 429, 200, 200]


async def test_while_the_service_cannot_be_reached_the_policys_fail_mode_decides(upstream: Upstream) -> None:
    files = {
        "a.yaml": [
            *routes(upstream, "open", "closed"),
            limits("open", shared(limit(1))),
            limits("closed", shared(limit(1), failureMode="Closed")),
        ]
    }
    async with Gateway(files) as gateway:
        await gateway.answers("/open")
        refused = await gateway.answers("/closed", 503)
        assert refused.json()["error"] == "unavailable"


async def test_a_global_limit_counts_over_the_rules_of_a_route_and_apart_for_each_client(upstream: Upstream) -> None:
    each_user = {"headers": [{"name": "x-user", "type": "Distinct"}]}
    not_admin = {"headers": [{"name": "x-role", "value": "admin", "invert": True}], "methods": [{"value": "GET"}]}
    local_clients = {"sourceCIDR": {"type": "Distinct", "value": "127.0.0.0/8"}}
    far_clients = {"sourceCIDR": {"value": "192.0.2.0/24"}}
    search = {"path": {"value": "/search"}, "queryParams": [{"name": "q", "type": "Distinct"}]}
    files = {
        "a.yaml": [
            *routes(upstream, "users", "roles", "near", "search", "token", "free"),
            route("both", "/one", "/two"),
            limits("both", shared(limit(3))),
            limits("users", shared(limit(2, "Day", each_user))),
            limits("roles", shared(limit(1, "Day", not_admin))),
            limits("near", shared(limit(2, "Day", local_clients), limit(0, "Day", far_clients))),
            limits("search", shared(limit(1, "Day", search))),
            limits("token", shared(limit(24, "Day", algorithm="TokenBucket", burst=2))),
        ]
    }
    async with Gateway(files) as gateway, ratelimit(gateway):
        await gateway.answers("/free")
        assert gateway.findings() == []
        await exhaust(gateway, "/one", 3)
        refused = await exhaust(gateway, "/two", 0)
        assert (refused.json()["error"], refused.header("content-type")) == ("rate_limited", "application/json")
        assert int(refused.header("retry-after") or 0) > 0
        assert refused.all("x-ratelimit-remaining") == ["0"]

        await exhaust(gateway, "/users", 2, x_user="ada")
        await exhaust(gateway, "/users", 2, x_user="grace")
        assert await statuses(gateway, "/users", 3) == [200] * 3
        assert await statuses(gateway, "/roles", 3, x_role="admin") == [200] * 3
        await exhaust(gateway, "/roles", 1, x_role="guest")
        await exhaust(gateway, "/near", 2)
        await exhaust(gateway, "/search/x?q=a", 1)
        await exhaust(gateway, "/search?q=b", 1)
        assert await statuses(gateway, "/search", 2) == [200, 200]
        await exhaust(gateway, "/token", 2)


async def test_a_gateways_limit_counts_each_route_for_itself_unless_it_is_shared(upstream: Upstream) -> None:
    of_gateway = target("Gateway", "edge")
    files = {"a.yaml": routes(upstream, "one", "two"), "b.yaml": [limits("edge", shared(limit(2)), of_gateway)]}
    async with Gateway(files) as gateway, ratelimit(gateway):
        await exhaust(gateway, "/one", 2)
        await exhaust(gateway, "/two", 2)
        own = limits("two", shared(limit(4)))
        gateway.write("b.yaml", [limits("edge", shared(limit(3, shared=True)), of_gateway), own])
        await gateway.answers("/one")
        await gateway.answers("/one", 429)
        await exhaust(gateway, "/two", 4)


async def test_a_changed_limit_takes_effect_and_no_request_fails_meanwhile(upstream: Upstream) -> None:
    files = {"a.yaml": routes(upstream, "busy"), "b.yaml": [limits("busy", shared(limit(100_000)))]}
    async with Gateway(files) as gateway, ratelimit(gateway) as service:
        for number in range(5):
            allowed = 200_000 + number
            gateway.write("b.yaml", [limits("busy", shared(limit(allowed)))])
            while True:
                response = await gateway.get("/busy")
                assert response.status == 200
                if (response.header("x-ratelimit-limit") or "").startswith(str(allowed)):
                    break
        assert service.service.rejected is None


async def test_an_edited_limit_goes_on_counting_and_so_do_the_rules_beside_a_new_one(upstream: Upstream) -> None:
    each_user = {"headers": [{"name": "x-user", "type": "Distinct"}]}

    def of(*rules: Any) -> list[Any]:
        return [limits("busy", shared(*rules))]

    files = {"a.yaml": routes(upstream, "busy", "free"), "b.yaml": of(limit(3))}
    async with Gateway(files) as gateway, ratelimit(gateway):
        await gateway.answers("/free")
        await exhaust(gateway, "/busy", 3)
        # Four have been counted, the refused one too, as in any fixed window.
        gateway.write("b.yaml", of(limit(2, "Day", each_user), limit(6)))
        await gateway.answers("/busy", 200)
        assert (await gateway.get("/busy")).status == 200
        assert await statuses(gateway, "/busy", 1, x_user="ada") == [429]
        gateway.write("b.yaml", of(limit(9), limit(2, "Day", each_user)))
        await gateway.answers("/busy", 200)
        assert await statuses(gateway, "/busy", 2, x_user="ada") == [200, 429]
