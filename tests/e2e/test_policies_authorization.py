"""Authorization through a real Envoy: by address, claims, scopes, headers, methods and paths, in the order of rules."""

from __future__ import annotations

from typing import Any

from tests.e2e.policy_manifests import provider, routes, security, target
from tests.support.gateway import Gateway
from tests.support.tokens import SigningKey, bearer
from tests.support.upstream import Upstream

KEY = SigningKey.make()


def rule(action: str, *, operation: Any = None, **principal: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"action": action, "principal": principal}
    return {**found, "operation": operation} if operation else found


async def test_who_is_let_in_is_told_by_the_address_of_the_client(upstream: Upstream) -> None:
    files = {
        "a.yaml": [
            *routes(upstream, "near", "far", "six"),
            security("near", authorization={"rules": [rule("Allow", clientCIDRs=["127.0.0.0/8", "::1/128"])]}),
            security("far", authorization={"rules": [rule("Allow", clientCIDRs=["192.0.2.0/24"])]}),
            security(
                "six",
                authorization={"defaultAction": "Allow", "rules": [rule("Deny", clientCIDRs=["2001:db8::/32"])]},
            ),
        ]
    }
    async with Gateway(files) as gateway:
        await gateway.answers("/near")
        refused = await gateway.get("/far")
        assert (refused.status, refused.header("content-type")) == (403, "application/json")
        assert refused.json()["error"] == "forbidden"
        assert refused.json()["request_id"]
        assert (await gateway.get("/six")).status == 200


async def test_claims_and_scopes_of_a_token_decide(upstream: Upstream) -> None:
    claims = [
        {"name": "org.roles", "valueType": "StringArray", "values": ["admin", "owner"]},
        {"name": "plan", "values": ["gold"]},
    ]
    admins = rule("Allow", jwt={"provider": "main", "claims": claims})
    readers = rule("Allow", operation={"methods": ["GET"]}, jwt={"provider": "main", "scopes": ["read", "list"]})
    guard = security("guarded", jwt={"providers": [provider(KEY)]}, authorization={"rules": [admins, readers]})
    async with Gateway({"a.yaml": [*routes(upstream, "guarded"), guard]}) as gateway:

        async def status(method: str = "GET", **claims: Any) -> int:
            return (await gateway.get("/guarded", method=method, headers=bearer(KEY.token(claims)))).status

        await gateway.answers("/guarded", headers=bearer(KEY.token({"scope": "list read"})))
        assert await status("POST", scope="list read") == 403
        assert await status(scope="read") == 403
        assert await status(scope="reader listing") == 403
        assert await status("POST", org={"roles": ["owner"]}, plan="gold") == 200
        assert await status("POST", org={"roles": ["owner"]}, plan="tin") == 403
        assert await status("POST", org={"roles": "owner"}, plan="gold") == 403
        assert await status() == 403
        assert (await gateway.get("/guarded")).status == 401


async def test_the_first_rule_that_matches_decides(upstream: Upstream) -> None:
    headers = lambda value: [{"name": "x-team", "values": [value]}]  # noqa: E731
    ordered = [
        rule("Deny", headers=headers("banned")),
        rule("Allow", operation={"path": {"value": "/ordered/public"}}, clientCIDRs=["127.0.0.0/8"]),
        rule("Deny", operation={"methods": ["DELETE", "PUT"]}, clientCIDRs=["0.0.0.0/0"]),
        rule("Allow", headers=headers("blue")),
    ]
    open_ = [
        rule("Allow", headers=headers("red")),
        rule("Deny", operation={"methods": ["PUT"]}, headers=headers("blue")),
    ]
    files = {
        "a.yaml": [
            *routes(upstream, "ordered", "mostly"),
            security("ordered", authorization={"defaultAction": "Deny", "rules": ordered}),
            security("mostly", authorization={"defaultAction": "Allow", "rules": open_}),
        ]
    }
    async with Gateway(files) as gateway:

        async def status(path: str, method: str = "GET", team: str = "none") -> int:
            return (await gateway.get(path, method=method, headers={"x-team": team})).status

        await gateway.answers("/ordered", headers={"x-team": "blue"})
        assert await status("/ordered", "PUT", "blue") == 403
        assert await status("/ordered", "GET", "green") == 403
        assert await status("/ordered/public/x?y", "PUT", "green") == 200
        assert await status("/ordered/publicity", "GET", "green") == 403
        assert await status("/ordered/public", "GET", "banned") == 403
        assert await status("/mostly", "PUT", "red") == 200
        assert await status("/mostly", "PUT", "blue") == 403
        assert await status("/mostly", "GET", "blue") == 200


async def test_a_gateways_authorization_and_its_routes_must_both_admit(upstream: Upstream) -> None:
    scoped = rule("Allow", jwt={"provider": "main", "scopes": ["read"]})
    writers = rule("Allow", jwt={"provider": "main", "scopes": ["write"]})
    files = {
        "a.yaml": [
            *routes(upstream, "guarded", "plain"),
            security(
                "edge",
                target("Gateway", "edge"),
                jwt={"providers": [provider(KEY)]},
                authorization={"rules": [scoped]},
            ),
            security("guarded", authorization={"rules": [writers]}),
        ]
    }
    async with Gateway(files) as gateway:
        await gateway.answers("/guarded", headers=bearer(KEY.token({"scope": "read write"})))
        assert (await gateway.get("/guarded", headers=bearer(KEY.token({"scope": "write"})))).status == 403
        assert (await gateway.get("/guarded", headers=bearer(KEY.token({"scope": "read"})))).status == 403
        assert (await gateway.get("/plain", headers=bearer(KEY.token({"scope": "read"})))).status == 200


async def test_a_route_cannot_bring_the_issuer_that_its_gateways_rules_trust(upstream: Upstream) -> None:
    scoped = rule("Allow", jwt={"provider": "main", "scopes": ["read"]})
    files = {
        "a.yaml": [
            *routes(upstream, "guarded"),
            security("edge", target("Gateway", "edge"), authorization={"rules": [scoped]}),
            security("guarded", jwt={"providers": [provider(KEY)]}),
        ]
    }
    async with Gateway(files) as gateway:
        await gateway.answers("/guarded", 403, headers=bearer(KEY.token({"scope": "read"})))
        assert any("no JWT provider main at this level or above" in each for each in gateway.findings())


async def test_a_policy_with_a_guard_that_is_not_supported_lets_nobody_in(upstream: Upstream) -> None:
    policy = security("guarded", basicAuth={"users": {"name": "users"}})
    async with Gateway({"a.yaml": [*routes(upstream, "guarded"), policy]}) as gateway:
        await gateway.answers("/guarded", 500)
        assert any("spec.basicAuth" in each and "not supported" in each for each in gateway.findings())
