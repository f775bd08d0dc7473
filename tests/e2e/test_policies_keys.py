"""API keys from Secrets, and CORS, through a real Envoy."""

from __future__ import annotations

import json

from tests.e2e.policy_manifests import ENVOY_GATEWAY, routes, secret, security, target
from tests.support import manifests as m
from tests.support.gateway import Gateway
from tests.support.upstream import Upstream

SOURCES = [{"headers": ["x-api-key"]}, {"params": ["key"]}, {"cookies": ["key"]}]


async def test_a_key_of_any_secret_passes_and_the_backend_sees_the_client_but_not_the_key(upstream: Upstream) -> None:
    auth = {
        "credentialRefs": [{"name": "one"}, {"name": "two"}],
        "extractFrom": SOURCES,
        "forwardClientIDHeader": "x-client",
        "sanitize": True,
    }
    files = {
        "a.yaml": [*routes(upstream, "keys", "open"), security("keys", apiKeyAuth=auth, api=ENVOY_GATEWAY)],
        "one.yaml": [secret("one", acme="key-of-acme\n")],
        "two.yaml": [secret("two", globex="key-of-globex")],
    }
    async with Gateway(files) as gateway:
        await gateway.answers("/keys", headers={"x-api-key": "key-of-acme", "x-client": "mallory"})
        assert gateway.findings() == []
        assert upstream.requests[-1].header("x-client") == "acme"
        assert upstream.requests[-1].header("x-api-key") is None
        assert (await gateway.get("/keys?a=1&key=key-of-globex")).status == 200
        assert upstream.requests[-1].header("x-client") == "globex"
        assert "globex" not in upstream.requests[-1].path
        assert (await gateway.get("/keys", headers={"cookie": "key=key-of-globex"})).status == 200

        missing = await gateway.get("/keys")
        assert (missing.status, missing.json()["error"]) == (401, "missing_credentials")
        assert missing.header("www-authenticate") == "ApiKey"
        wrong = await gateway.get("/keys", headers={"x-api-key": "key-of-nobody"})
        assert (wrong.status, wrong.json()["error"]) == (401, "invalid_api_key")
        assert (wrong.header("content-type"), wrong.header("www-authenticate")) == ("application/json", "ApiKey")
        assert (await gateway.get("/open", headers={"x-client": "mallory"})).status == 200
        assert upstream.requests[-1].header("x-client") is None

        gateway.remove("two.yaml")
        await gateway.answers("/keys", 401, headers={"x-api-key": "key-of-globex"})
        assert (await gateway.get("/keys", headers={"x-api-key": "key-of-acme"})).status == 200
        assert any("Secret demo/two does not exist" in each for each in gateway.findings())


async def test_a_secret_of_another_namespace_needs_a_grant(upstream: Upstream) -> None:
    auth = {"credentialRefs": [{"name": "far", "namespace": "other"}], "extractFrom": SOURCES}
    far = m.manifest("v1", "Secret", "far", None, namespace="other", stringData={"acme": "key-of-acme"})
    spec = {
        "from": [{"group": "dragoman.dev", "kind": "SecurityPolicy", "namespace": "demo"}],
        "to": [{"group": "", "kind": "Secret"}],
    }
    grant = m.manifest(m.GATEWAY_API, "ReferenceGrant", "keys", spec, namespace="other")
    files = {"a.yaml": [*routes(upstream, "keys"), far, security("keys", apiKeyAuth=auth)], "grant.yaml": [grant]}
    async with Gateway(files) as gateway:
        await gateway.answers("/keys", headers={"x-api-key": "key-of-acme"})
        gateway.remove("grant.yaml")
        await gateway.answers("/keys", 401, headers={"x-api-key": "key-of-acme"})
        assert any("ReferenceGrant" in each for each in gateway.findings())


async def test_unusable_and_repeated_keys_are_named_without_being_shown_and_disturb_no_other(
    upstream: Upstream,
) -> None:
    keys = secret("keys", acme="one-key", blank="  \n".strip(), copycat="one-key", fine="other-key")
    auth = {"credentialRefs": [{"name": "keys"}], "extractFrom": SOURCES}
    async with Gateway({"a.yaml": [*routes(upstream, "keys"), keys, security("keys", apiKeyAuth=auth)]}) as gateway:
        await gateway.answers("/keys", headers={"x-api-key": "other-key"})
        assert (await gateway.get("/keys", headers={"x-api-key": "one-key"})).status == 200
        assert (await gateway.get("/keys", headers={"x-api-key": ""})).status == 401
        told = "\n".join(gateway.findings())
        assert "blank" in told
        assert "copycat" in told
        assert "one-key" not in told


async def test_keys_travel_to_ext_authz_as_hashes_where_they_are_many(upstream: Upstream) -> None:
    keys = secret("keys", **{f"client{number}": f"key-{number}" for number in range(101)})
    auth = {"credentialRefs": [{"name": "keys"}], "extractFrom": SOURCES}
    async with Gateway({"a.yaml": [*routes(upstream, "keys"), keys, security("keys", apiKeyAuth=auth)]}) as gateway:
        plane = gateway.plane
        assert plane is not None
        refused = await gateway.answers("/keys", 503, headers={"x-api-key": "key-1"})
        assert refused.json()["error"] == "unavailable"
        snapshot = plane.cache.snapshot("dragoman.services/authz")
        assert snapshot is not None
        ((name, policy),) = snapshot.of_type("type.googleapis.com/dragoman.authz.v1.Policy").items()
        assert name.startswith("demo/keys/")
        assert b"key-1" not in policy.body


async def test_preflight_requests_are_answered_before_anybody_is_asked_who_they_are(upstream: Upstream) -> None:
    cors = {
        "allowOrigins": ["https://*.example.com", "http://localhost:8080"],
        "allowMethods": ["GET", "PUT"],
        "allowHeaders": ["x-api-key"],
        "exposeHeaders": ["x-request-id"],
        "maxAge": "10m",
        "allowCredentials": True,
    }
    auth = {"credentialRefs": [{"name": "keys"}], "extractFrom": SOURCES}
    guard = security("keys", cors=cors, apiKeyAuth=auth)
    files = {"a.yaml": [*routes(upstream, "keys"), secret("keys", acme="k"), guard]}
    ask = {"origin": "https://app.example.com", "access-control-request-method": "PUT"}
    async with Gateway(files) as gateway:
        await gateway.answers("/keys", 401)
        preflight = await gateway.get("/keys", method="OPTIONS", headers=ask)
        assert preflight.status == 200
        assert preflight.header("access-control-allow-origin") == "https://app.example.com"
        assert preflight.header("access-control-allow-methods") == "GET,PUT"
        assert preflight.header("access-control-max-age") == "600"
        stranger = await gateway.get("/keys", method="OPTIONS", headers={**ask, "origin": "https://evil.invalid"})
        assert stranger.header("access-control-allow-origin") is None
        actual = await gateway.get("/keys", headers={"x-api-key": "k", "origin": "http://localhost:8080"})
        assert (actual.status, actual.header("access-control-allow-credentials")) == (200, "true")
        assert actual.header("access-control-expose-headers") == "x-request-id"


async def test_of_two_policies_with_one_target_the_older_counts_and_the_other_is_told(upstream: Upstream) -> None:
    auth = {"credentialRefs": [{"name": "keys"}], "extractFrom": SOURCES}
    older = security("zeta", target("HTTPRoute", "keys"), apiKeyAuth=auth)
    older["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z"
    newer = security("alpha", target("HTTPRoute", "keys"), authorization={"defaultAction": "Deny"})
    newer["metadata"]["creationTimestamp"] = "2026-02-01T00:00:00Z"
    lost = security("lost", target("HTTPRoute", "nowhere"), apiKeyAuth=auth)
    files = {"a.yaml": [*routes(upstream, "keys"), secret("keys", acme="k"), older, newer, lost]}
    async with Gateway(files) as gateway:
        await gateway.answers("/keys", headers={"x-api-key": "k"})
        told = json.dumps(gateway.findings())
        assert "SecurityPolicy demo/zeta has the same target and is older" in told
        assert "HTTPRoute demo/nowhere does not exist" in told
