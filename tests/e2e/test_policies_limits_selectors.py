"""Which requests a limit counts, and which apart, through a real Envoy: headers, paths, addresses, claims of tokens."""

from __future__ import annotations

from typing import Any

from tests.e2e.policy_limits import exhaust, limit, shared, statuses
from tests.e2e.policy_manifests import OURS, limits, provider, routes, security, target
from tests.e2e.policy_services import ratelimit
from tests.support import manifests as m
from tests.support.gateway import Gateway
from tests.support.tokens import SigningKey, bearer
from tests.support.upstream import Upstream

KEY, OTHER = SigningKey.make(), SigningKey.make("key-2")


def token(key: SigningKey = KEY, **claims: Any) -> dict[str, str]:
    return bearer(key.token(claims))


async def test_clients_are_told_apart_and_chosen_by_the_claims_of_their_tokens(upstream: Upstream) -> None:
    each_tenant = {"claims": [{"name": "org.id", "type": "Distinct"}]}
    free = {"claims": [{"name": "plan", "values": ["free", "7", "true"]}]}
    no_staff = {"claims": [{"name": "groups", "valueType": "StringArray", "values": ["staff"], "invert": True}]}
    guard = {"providers": [provider(KEY)], "optional": True}
    names = ("tenants", "plans", "groups", "local")
    files = {
        "a.yaml": [
            *routes(upstream, *names, "free"),
            security("guard", *(target("HTTPRoute", name) for name in names), jwt=guard),
            limits("tenants", shared(limit(2, "Day", each_tenant))),
            limits("plans", shared(limit(2, "Day", free))),
            limits("groups", shared(limit(1, "Day", no_staff))),
            limits("local", {"local": {"rules": [limit(2, "Hour", each_tenant)]}}),
        ]
    }
    async with Gateway(files) as gateway, ratelimit(gateway):
        await gateway.answers("/free")
        assert gateway.findings() == []
        await exhaust(gateway, "/tenants", 2, **token(org={"id": "acme"}))
        await exhaust(gateway, "/tenants", 2, **token(org={"id": 42}))
        assert await statuses(gateway, "/tenants", 3, **token(org="acme")) == [200] * 3
        assert await statuses(gateway, "/tenants", 3) == [200] * 3

        await exhaust(gateway, "/plans", 2, **token(plan="free"))
        assert (await gateway.get("/plans", headers=token(plan=7))).status == 429
        assert (await gateway.get("/plans", headers=token(plan=True))).status == 429
        assert await statuses(gateway, "/plans", 3, **token(plan="gold")) == [200] * 3
        assert await statuses(gateway, "/plans", 3, **token(plan=["free"])) == [200] * 3

        assert await statuses(gateway, "/groups", 3, **token(groups=["beta", "staff"])) == [200] * 3
        await exhaust(gateway, "/groups", 1, **token(groups=["beta"]))
        assert (await gateway.get("/groups", headers=token())).status == 429
        assert (await gateway.get("/groups")).status == 429

        for tenant in ("a", "b"):
            found = await statuses(gateway, "/local", 3, **token(org={"id": tenant}))
            assert found == [200, 200, 429]
        assert await statuses(gateway, "/local", 3, **token()) == [200] * 3


async def test_a_claim_is_of_the_provider_that_is_named_and_a_gateway_trusts_no_routes_provider(
    upstream: Upstream,
) -> None:
    each_user: dict[str, Any] = {"name": "sub", "type": "Distinct"}
    gold = {"claims": [{"name": "plan", "values": ["gold"]}]}
    second = provider(OTHER, "second", issuer="https://second.example")
    of_second = {"claims": [{**each_user, "provider": "second"}]}
    files = {
        "a.yaml": [
            *routes(upstream, "named", "any", "free"),
            security("named", target("HTTPRoute", "named"), jwt={"providers": [provider(KEY), second]}),
            security("any", target("HTTPRoute", "any"), jwt={"providers": [provider(KEY), second]}),
            limits("named", shared(limit(1, "Day", of_second))),
            limits("any", shared(limit(1, "Day", {"claims": [each_user]}), limit(2, "Day", gold))),
            limits("edge", {"local": {"rules": [limit(1, "Hour", of_second)]}}, target("Gateway", "edge")),
        ]
    }
    theirs = bearer(OTHER.token(iss="https://second.example"))
    async with Gateway(files) as gateway, ratelimit(gateway):
        await gateway.answers("/free")
        (found,) = gateway.findings()
        assert "spec.rateLimit.local.rules[0]" in str(found)
        assert "no JWT provider" in str(found)
        assert await statuses(gateway, "/named", 3, **token()) == [200] * 3
        await exhaust(gateway, "/named", 1, **theirs)
        await exhaust(gateway, "/any", 1, **token(sub="alice"))
        await exhaust(gateway, "/any", 1, **token(sub="bob"))
        assert (await gateway.get("/any", headers=theirs)).status == 429
        users = (token(sub=name, plan="gold") for name in ("eve", "mallory"))
        assert [(await gateway.get("/any", headers=each)).status for each in users] == [200, 200]
        claims = {"sub": "trent", "plan": "gold"}
        assert (
            await gateway.get("/any", headers=bearer(OTHER.token(claims, iss="https://second.example")))
        ).status == 429


async def test_whoever_leaves_a_header_away_does_not_escape_a_limit_of_all_others(upstream: Upstream) -> None:
    others = {"headers": [{"name": "x-role", "value": "admin", "invert": True}]}
    no_page = {"queryParams": [{"name": "page", "type": "RegularExpression", "value": "[0-9]+", "invert": True}]}
    files = {
        "a.yaml": [
            *routes(upstream, "headers", "query", "local", "free"),
            limits("headers", shared(limit(1, "Day", others))),
            limits("query", shared(limit(1, "Day", no_page))),
            limits("local", {"local": {"rules": [limit(1, "Hour", others)]}}),
        ]
    }
    async with Gateway(files) as gateway, ratelimit(gateway):
        await gateway.answers("/free")
        assert await statuses(gateway, "/headers", 3, x_role="admin") == [200] * 3
        await exhaust(gateway, "/headers", 1)
        assert await statuses(gateway, "/headers", 1, x_role="guest") == [429]
        assert await statuses(gateway, "/query?page=3", 3) == [200] * 3
        await exhaust(gateway, "/query?page=all", 1)
        assert await statuses(gateway, "/query", 1) == [429]
        assert await statuses(gateway, "/local", 3, x_role="admin") == [200] * 3
        assert await statuses(gateway, "/local", 2) == [200, 429]


async def test_clients_outside_of_a_range_are_counted_together_or_each_for_itself(upstream: Upstream) -> None:
    def source(value: str, **more: Any) -> dict[str, Any]:
        return {"sourceCIDR": {"value": value, **more}}

    both = [source("127.0.0.0/8"), source("127.0.0.1/32", type="Distinct")]
    files = {
        "a.yaml": [
            *routes(upstream, "far", "near", "both", "local", "free"),
            limits("far", shared(limit(1, "Day", source("192.0.2.0/24", invert=True, type="Distinct")))),
            limits("near", shared(limit(0, "Day", source("127.0.0.0/8", invert=True)))),
            limits("both", shared(limit(1, "Day", *both), limit(0, "Day", source("::/0")))),
            limits("local", {"local": {"rules": [limit(1, "Hour", source("10.0.0.0/8", invert=True))]}}),
        ]
    }
    async with Gateway(files) as gateway, ratelimit(gateway):
        await gateway.answers("/free")
        await exhaust(gateway, "/far", 1)
        assert await statuses(gateway, "/near", 3) == [200] * 3
        await exhaust(gateway, "/both", 1)
        assert await statuses(gateway, "/local", 2) == [200, 429]


async def test_paths_and_methods_choose_as_a_route_does(upstream: Upstream) -> None:
    exact = {"path": {"type": "Exact", "value": "/paths/a"}, "methods": [{"value": "POST", "invert": True}]}
    regex = {"path": {"type": "RegularExpression", "value": "^/paths/[0-9]+$"}}
    no_health = {"path": {"type": "RegularExpression", "value": ".*/health", "invert": True}}
    other = {"path": {"value": "/others/a", "invert": True}}
    both = [{"methods": [{"value": "GET"}, {"value": "PUT"}]}, {"methods": [{"value": "GET", "invert": True}]}]
    files = {
        "a.yaml": [
            *routes(upstream, "paths", "others", "methods", "most", "free"),
            limits("methods", shared(limit(0, "Day", *both))),
            limits("most", shared(limit(0, "Day", no_health))),
            limits("paths", shared(limit(0, "Day", exact), limit(0, "Day", regex))),
            limits("others", shared(limit(0, "Day", other))),
        ]
    }
    async with Gateway(files) as gateway, ratelimit(gateway):
        await gateway.answers("/free")
        asked = ("/paths/a", "/paths/a?b", "/paths/ab", "/paths/12?x=1", "/paths/1a", "/others/b", "/others/a/b?c")
        await gateway.answers("/others", 429)
        assert [(await gateway.get(path)).status for path in asked] == [429, 429, 200, 429, 200, 429, 200]
        assert (await gateway.get("/paths/a", method="POST")).status == 200
        asked = ("/most/health", "/most/health?x", "/most/orders", "/most/orders?/health")
        assert [(await gateway.get(path)).status for path in asked] == [200, 200, 429, 429]
        asked = [(await gateway.get("/methods", method=method)).status for method in ("GET", "PUT", "POST")]
        assert asked == [200, 429, 200]


async def test_a_claim_of_another_form_than_the_policy_names_escapes_no_limit(upstream: Upstream) -> None:
    key = SigningKey.make()
    others = {"clientSelectors": [{"claims": [{"name": "role.name", "values": ["admin"], "invert": True}]}]}
    none_of = {"name": "roles", "values": ["admin"], "invert": True, "valueType": "StringArray"}
    who = {"from": "Token", "consumer": "user.id", "plan": "app.plan"}
    files = {
        "a.yaml": [
            *routes(upstream, "nested", "array", "plan"),
            security("edge", target("Gateway", "edge"), jwt={"providers": [provider(key)]}),
            limits("nested", {"global": {"rules": [{"limit": {"requests": 1, "unit": "Day"}, **others}]}}),
            limits(
                "array",
                {
                    "global": {
                        "rules": [{"limit": {"requests": 1, "unit": "Day"}, "clientSelectors": [{"claims": [none_of]}]}]
                    }
                },
            ),
            limits("plan", {"global": {"plans": {"identity": who, "default": "free"}}}),
            m.manifest(OURS, "Plan", "free", {"limits": [{"requests": 1, "unit": "Day"}]}),
        ]
    }
    async with Gateway(files) as gateway, ratelimit(gateway):
        for path, claim in (("/nested", "role"), ("/array", "roles"), ("/plan", "user")):
            await gateway.answers(path, 429, headers=bearer(key.token({claim: "x"}, sub="x")))
            for odd in (5, None, ["name", "id"], {}, "text"):
                answer = await gateway.get(path, headers=bearer(key.token({claim: odd}, sub="x")))
                assert answer.status == 429, (path, odd)
        for number, odd in enumerate((5, None, ["plan"], "text")):
            token = bearer(key.token({"app": odd, "user": {"id": f"u{number}"}}, sub="x"))
            assert [(await gateway.get("/plan", headers=token)).status for _ in range(2)] == [200, 429], odd
