"""JWT policies through a real Envoy: who has a good token gets in, and the backend is told who it is."""

from __future__ import annotations

import json
from typing import Any

from controlplane.api.meta import ObjectKey
from tests.e2e.policy_manifests import ENVOY_GATEWAY, OURS, provider, route, routes, security, target
from tests.support import manifests as m
from tests.support.gateway import Gateway
from tests.support.http import Connection
from tests.support.jwks_server import JwksServer
from tests.support.tokens import SigningKey, bearer, jwks
from tests.support.upstream import Upstream
from tests.support.waiting import until

KEY = SigningKey.make()


async def test_a_good_token_passes_and_every_other_request_is_told_why_not(upstream: Upstream) -> None:
    guard = provider(KEY, audiences=["shop"], claimToHeaders=[{"claim": "sub", "header": "x-user"}])
    files = {"a.yaml": [*routes(upstream, "open", "jwt"), security("jwt", jwt={"providers": [guard]})]}
    async with Gateway(files) as gateway:
        good = bearer(KEY.token(aud="shop"))
        response = await gateway.answers("/jwt", headers={**good, "x-user": "mallory", "x-dragoman-user": "mallory"})
        assert gateway.findings() == []
        assert response.status == 200
        assert upstream.requests[-1].header("x-user") == "alice"
        assert upstream.requests[-1].header("x-dragoman-user") is None
        assert upstream.requests[-1].header("authorization") == good["authorization"]

        missing = await gateway.get("/jwt")
        assert (missing.status, missing.header("content-type")) == (401, "application/json")
        assert (missing.header("www-authenticate") or "").startswith("Bearer")
        assert missing.json()["error"] == "missing_credentials"
        assert missing.json()["request_id"]

        expired = await gateway.get("/jwt", headers=bearer(KEY.token(aud="shop", expires_in_s=-3600)))
        assert (expired.status, expired.json()["error"]) == (401, "invalid_token")
        assert expired.json()["message"] == "Jwt is expired"
        assert 'error="invalid_token"' in (expired.header("www-authenticate") or "")

        stranger = await gateway.get("/jwt", headers=bearer(SigningKey.make().token(aud="shop")))
        assert (stranger.status, stranger.json()["error"]) == (401, "invalid_token")
        elsewhere = await gateway.get("/jwt", headers=bearer(KEY.token(aud="other")))
        assert (elsewhere.status, elsewhere.json()["error"]) == (403, "forbidden")
        garbage = await gateway.get("/jwt", headers=bearer("x.y.z"))
        assert (garbage.status, garbage.json()["error"]) == (401, "invalid_token")


async def test_no_client_can_claim_an_identity_on_an_open_route(upstream: Upstream) -> None:
    guard = provider(KEY, claimToHeaders=[{"claim": "sub", "header": "X-User"}])
    files = {"a.yaml": [*routes(upstream, "open", "jwt"), security("jwt", jwt={"providers": [guard]})]}
    async with Gateway(files) as gateway:
        await gateway.answers("/open", headers={"x-user": "mallory", "x-dragoman-tenant": "mallory", "x-other": "kept"})
        seen = upstream.requests[-1]
        assert [seen.header(name) for name in ("x-user", "x-dragoman-tenant", "x-other")] == [None, None, "kept"]


async def test_a_token_is_found_where_the_policy_looks_for_it_and_may_be_optional(upstream: Upstream) -> None:
    places = {"headers": [{"name": "x-token", "valuePrefix": "Token "}], "cookies": ["session"], "params": ["t"]}
    files = {
        "a.yaml": [
            *routes(upstream, "places", "optional"),
            security("places", jwt={"providers": [provider(KEY, extractFrom=places)]}, api=ENVOY_GATEWAY),
            security("optional", jwt={"optional": True, "providers": [provider(KEY)]}),
        ]
    }
    async with Gateway(files) as gateway:
        token = KEY.token()
        await gateway.answers("/places", headers={"x-token": f"Token {token}"})
        assert (await gateway.get("/places", headers={"cookie": f"session={token}"})).status == 200
        assert (await gateway.get(f"/places?t={token}")).status == 200
        assert (await gateway.get("/places", headers=bearer(token))).status == 401
        assert (await gateway.get("/optional")).status == 200
        assert (await gateway.get("/optional", headers=bearer("x.y.z"))).status == 401


async def test_any_of_several_issuers_may_have_signed_the_token(upstream: Upstream) -> None:
    other = SigningKey.make("key-2")
    config_map = m.manifest("v1", "ConfigMap", "keys", None, data={"jwks": json.dumps(jwks(other))})
    reference = {"type": "ValueRef", "valueRef": {"group": "", "kind": "ConfigMap", "name": "keys"}}
    second = {"name": "other", "issuer": "https://other.example", "localJWKS": reference}
    files = {
        "a.yaml": [*routes(upstream, "jwt"), security("jwt", jwt={"providers": [provider(KEY), second]})],
        "keys.yaml": [config_map],
    }
    async with Gateway(files) as gateway:
        await gateway.answers("/jwt", headers=bearer(KEY.token()))
        assert (await gateway.get("/jwt", headers=bearer(other.token(iss="https://other.example")))).status == 200
        assert (await gateway.get("/jwt", headers=bearer(other.token()))).status == 401
        gateway.remove("keys.yaml")
        await gateway.answers("/jwt", 401, headers=bearer(other.token(iss="https://other.example")))
        assert (await gateway.get("/jwt", headers=bearer(KEY.token()))).status == 200
        assert any("ConfigMap demo/keys does not exist" in each for each in gateway.findings())


async def test_a_fetched_key_set_is_waited_for_and_its_rotation_fails_no_request(upstream: Upstream) -> None:
    async with JwksServer(KEY) as issuer:
        issuer.fail()
        remote = {"uri": issuer.uri, "cacheDuration": "100ms"}
        guard = security("jwt", jwt={"providers": [{"name": "main", "remoteJWKS": remote}]})
        async with Gateway({"a.yaml": routes(upstream, "jwt"), "b.yaml": []}) as gateway:
            gateway.write("b.yaml", [guard])
            waiting = await gateway.answers("/jwt", 503, headers=bearer(KEY.token()))
            assert waiting.header("content-type") == "application/json"
            assert any("has not been fetched yet" in each for each in gateway.findings())
            issuer.rotate(KEY)
            await gateway.answers("/jwt", headers=bearer(KEY.token()))
            async with await Connection.to(gateway.port(80)) as kept:
                for number in range(5):
                    after = SigningKey.make(f"after-{number}")
                    issuer.rotate(KEY, after)
                    for _ in range(20):
                        assert (await kept.request("/jwt", headers=bearer(KEY.token()))).status == 200
                    await gateway.answers("/jwt", headers=bearer(after.token()))
            assert gateway.findings() == []


async def test_a_policy_that_names_another_issuer_takes_effect_when_its_keys_are_there(upstream: Upstream) -> None:
    def of(issuer: JwksServer) -> dict[str, Any]:
        return security("jwt", jwt={"providers": [{"name": "main", "remoteJWKS": {"uri": issuer.uri}}]})

    new = SigningKey.make("new")
    async with JwksServer(KEY) as first, JwksServer(new) as second:
        second.fail()
        files = {"a.yaml": routes(upstream, "jwt"), "policy.yaml": [of(first)]}
        async with Gateway(files) as gateway, await Connection.to(gateway.port(80)) as kept:
            await gateway.answers("/jwt", headers=bearer(KEY.token()))
            gateway.write("policy.yaml", [of(second)])
            assert gateway.plane is not None
            pipeline, policy = gateway.plane.engine.pipeline, ObjectKey("dragoman.dev", "SecurityPolicy", "demo", "jwt")
            await until(lambda: pipeline.is_waiting(policy), what="the policy to wait")
            assert (await kept.request("/jwt", headers=bearer(KEY.token()))).status == 200
            assert (await kept.request("/jwt")).status == 401
            second.rotate(new)
            await gateway.answers("/jwt", headers=bearer(new.token()))
            assert (await kept.request("/jwt", headers=bearer(KEY.token()))).status == 401
            assert gateway.findings() == []


async def test_on_a_kept_connection_a_policy_is_added_changed_and_removed_and_no_request_fails(
    upstream: Upstream,
) -> None:
    guard = security("jwt", jwt={"providers": [provider(KEY)]})
    changed = security("jwt", jwt={"providers": [provider(KEY, claimToHeaders=[{"claim": "sub", "header": "x-user"}])]})
    async with Gateway({"a.yaml": routes(upstream, "jwt")}) as gateway:
        await gateway.answers("/jwt")
        async with await Connection.to(gateway.port(80)) as kept:
            headers = bearer(KEY.token())
            for policy, seen in ((guard, None), (changed, "alice"), (guard, None)):
                gateway.write("policy.yaml", [policy])
                for _ in range(100):
                    assert (await kept.request("/jwt", headers=headers)).status == 200
                await gateway.answers("/jwt", 401)
                assert (await kept.request("/jwt", headers=headers)).status == 200
                assert upstream.requests[-1].header("x-user") == seen
            gateway.remove("policy.yaml")
            await gateway.answers("/jwt")
            assert (await kept.request("/jwt")).status == 200
        assert gateway.envoy is not None
        assert (await gateway.envoy.stats("listener_manager."))["listener_manager.listener_modified"] == 0


async def test_a_policy_that_never_was_good_lets_nobody_in_and_one_that_was_stays_in_force(upstream: Upstream) -> None:
    bad = security("jwt", jwt={"providers": [{"name": "main"}]})
    good = security("jwt", jwt={"providers": [provider(KEY)]})
    async with Gateway({"a.yaml": routes(upstream, "jwt", "open"), "policy.yaml": [bad]}) as gateway:
        refused = await gateway.answers("/jwt", 500)
        assert refused.header("content-type") == "application/json"
        assert (await gateway.get("/open")).status == 200
        gateway.write("policy.yaml", [good])
        await gateway.answers("/jwt", headers=bearer(KEY.token()))
        gateway.write("policy.yaml", [bad])
        await gateway.answers("/open")
        assert (await gateway.get("/jwt", headers=bearer(KEY.token()))).status == 200
        assert (await gateway.get("/jwt")).status == 401


async def test_a_gateways_authentication_holds_on_every_route_until_both_sides_let_it_go(upstream: Upstream) -> None:
    mine = SigningKey.make("route-key")
    of_gateway = security("edge", target("Gateway", "edge"), jwt={"providers": [provider(KEY)]})
    of_route = security("own", jwt={"providers": [provider(mine)]})
    base = [*routes(upstream, "plain", "own"), of_gateway]
    async with Gateway({"a.yaml": base, "own.yaml": [of_route]}) as gateway:
        await gateway.answers("/plain", 401)
        await gateway.answers("/own", headers=bearer(KEY.token()))
        assert (await gateway.get("/own", headers=bearer(mine.token()))).status == 401
        assert any("Overridden" in each or "stays in force" in each for each in gateway.findings())

        of_gateway["spec"]["allowRouteOverride"] = True
        of_route["spec"]["dropParentAuthentication"] = True
        gateway.write("own.yaml", [of_route])
        gateway.write("a.yaml", base)
        await gateway.answers("/own", headers=bearer(mine.token()))
        assert (await gateway.get("/own", headers=bearer(KEY.token()))).status == 401
        assert (await gateway.get("/plain")).status == 401
        assert gateway.findings() == []


async def test_a_policy_on_one_rule_of_a_route_leaves_the_others_alone(upstream: Upstream) -> None:
    guard = security("two", target("HTTPRoute", "two", "private"), jwt={"providers": [provider(KEY)]})
    files = {"a.yaml": [*routes(upstream), route("two", "/private", "/public"), guard]}
    async with Gateway(files) as gateway:
        await gateway.answers("/private", 401)
        assert (await gateway.get("/public")).status == 200
        assert (await gateway.get("/private", headers=bearer(KEY.token()))).status == 200


async def test_policies_select_routes_by_label(upstream: Upstream) -> None:
    guard = m.manifest(
        OURS,
        "SecurityPolicy",
        "labelled",
        {
            "targetSelectors": [{"kind": "HTTPRoute", "matchLabels": {"tier": "private"}}],
            "jwt": {"providers": [provider(KEY)]},
        },
    )
    labelled = route("one")
    labelled["metadata"]["labels"] = {"tier": "private"}
    async with Gateway({"a.yaml": [*routes(upstream, "two"), guard], "one.yaml": [labelled]}) as gateway:
        await gateway.answers("/one", 401)
        assert (await gateway.get("/two")).status == 200
        del labelled["metadata"]["labels"]
        gateway.write("one.yaml", [labelled])
        await gateway.answers("/one")
