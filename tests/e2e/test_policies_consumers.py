"""Consumers' keys through a real Envoy and the real ext_authz, both following one control plane."""

from __future__ import annotations

import time

from ext_authz.keys import NewKey, add_key
from ext_authz.stores.sqlite import SqliteKeyStore
from tests.e2e.policy_manifests import limits, provider, routes, secret, security
from tests.e2e.policy_services import authz, ratelimit
from tests.support.gateway import Gateway
from tests.support.tokens import SigningKey, bearer
from tests.support.upstream import Upstream


async def test_a_key_that_was_made_passes_with_its_identity_until_it_is_revoked(upstream: Upstream) -> None:
    consumers = {
        "extractFrom": [{"headers": ["x-api-key"]}, {"params": ["key"]}],
        "requiredScopes": ["read"],
        "metadataToHeaders": [{"key": "plan", "header": "x-plan"}],
        "forwardClientIDHeader": "x-client",
    }
    tin_plan = {"headers": [{"name": "x-plan", "value": "tin"}]}
    per_plan = {"clientSelectors": [tin_plan], "limit": {"requests": 2, "unit": "Day"}}
    files = {
        "a.yaml": [
            *routes(upstream, "made", "open"),
            security("made", consumers=consumers),
            limits("made", {"global": {"rules": [per_plan]}}),
        ]
    }
    async with Gateway(files) as gateway, authz(gateway), ratelimit(gateway):
        store = SqliteKeyStore(gateway.home / "keys.db")
        gold = await add_key(store, NewKey("acme", scopes=["read"], metadata={"plan": "gold"}), time.time())
        tin = await add_key(store, NewKey("tinny", scopes=["read"], metadata={"plan": "tin"}), time.time())
        poor = await add_key(store, NewKey("poor"), time.time())
        assert gateway.findings() == []
        await gateway.answers("/made", headers={"x-api-key": gold.key, "x-client": "mallory", "x-plan": "tin"})
        seen = upstream.requests[-1]
        assert (seen.header("x-client"), seen.header("x-plan"), seen.header("x-api-key")) == ("acme", "gold", None)

        missing = await gateway.get("/made")
        assert (missing.status, missing.json()["error"]) == (401, "missing_credentials")
        assert missing.header("www-authenticate") == "ApiKey"
        weak = await gateway.get("/made", headers={"x-api-key": poor.key})
        assert (weak.status, weak.json()["error"]) == (403, "insufficient_scope")
        assert (await gateway.get("/open", headers={"x-client": "mallory"})).status == 200
        assert upstream.requests[-1].header("x-client") is None

        assert (await gateway.get("/made", headers={"x-api-key": tin.key})).status == 200
        await gateway.answers("/made", 429, headers={"x-api-key": tin.key})
        assert (await gateway.get("/made", headers={"x-api-key": gold.key})).status == 200
        assert await store.revoke(gold.record.id, time.time())
        await gateway.answers("/made", 401, headers={"x-api-key": gold.key})
        await store.close()


async def test_many_keys_of_a_secret_are_checked_by_ext_authz(upstream: Upstream) -> None:
    keys = secret("keys", **{f"client{number}": f"key-number-{number}" for number in range(150)})
    auth = {
        "credentialRefs": [{"name": "keys"}],
        "extractFrom": [{"headers": ["x-api-key"]}],
        "forwardClientIDHeader": "x-client",
    }
    files = {"a.yaml": [*routes(upstream, "keys"), keys, security("keys", apiKeyAuth=auth)]}
    async with Gateway(files) as gateway, authz(gateway):
        await gateway.answers("/keys", headers={"x-api-key": "key-number-149"})
        assert upstream.requests[-1].header("x-client") == "client149"
        assert upstream.requests[-1].header("x-api-key") == "key-number-149"
        assert (await gateway.get("/keys", headers={"x-api-key": "key-number-150"})).status == 401


async def test_a_token_and_a_key_are_both_asked_for_where_both_are_set(upstream: Upstream) -> None:
    key = SigningKey.make()
    guard = security("both", jwt={"providers": [provider(key)]}, consumers={})
    async with Gateway({"a.yaml": [*routes(upstream, "both"), guard]}) as gateway, authz(gateway):
        store = SqliteKeyStore(gateway.home / "keys.db")
        made = await add_key(store, NewKey("acme"), time.time())
        await gateway.answers("/both", headers={**bearer(key.token()), "x-api-key": made.key})
        assert (await gateway.get("/both", headers=bearer(key.token()))).status == 401
        assert (await gateway.get("/both", headers={"x-api-key": made.key})).status == 401
        await store.close()


async def test_without_the_service_nobody_is_let_in(upstream: Upstream) -> None:
    async with Gateway({"a.yaml": [*routes(upstream, "made"), security("made", consumers={})]}) as gateway:
        refused = await gateway.answers("/made", 503, headers={"x-api-key": "whatever"})
        assert refused.json()["error"] == "unavailable"
