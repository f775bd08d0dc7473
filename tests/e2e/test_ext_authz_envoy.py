"""A real Envoy asks ext_authz: who passes reaches the upstream with an identity, who does not reads why."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from dragoman.grpc_worker import Address, Engine, serve
from ext_authz.check import METHOD
from ext_authz.keys import NewKey, add_key
from ext_authz.stores.redis import RedisKeyStore
from ext_authz.stores.sqlite import SqliteKeyStore
from tests.support.authz import Service, following, jwt_provider, message, service
from tests.support.authz_envoy import bootstrap
from tests.support.envoy import Envoy
from tests.support.http import Response, fetch
from tests.support.ports import free_port
from tests.support.redis import RedisServer
from tests.support.tokens import SigningKey, bearer
from tests.support.upstream import Upstream
from tests.support.waiting import soon, until

StartEnvoy = Callable[..., Awaitable[Envoy]]


async def start(
    stack: AsyncExitStack, start_envoy: StartEnvoy, upstream: Upstream, asked: Service, folder: Path, engine: Engine
) -> int:
    """Serves the checker, puts an Envoy before it, and returns Envoy's port."""
    server = await serve({METHOD: asked.checker}, listen=Address.parse(f"unix:{folder}/a.sock"), engine=engine)
    stack.push_async_callback(server.close)
    port = free_port()
    await start_envoy(
        bootstrap(port, upstream, f"{folder}/a.sock", [*asked.policies.by_id, "shop/gone/h1"]), log_level="warning"
    )
    return port


@pytest.mark.parametrize("engine", ["ngh2", "grpcio"])
async def test_a_verified_token_reaches_the_upstream_as_headers_and_a_bad_one_does_not(
    engine: Engine,
    stack: AsyncExitStack,
    start_envoy: StartEnvoy,
    upstream: Upstream,
    signing_key: SigningKey,
    tmp_path: Path,
) -> None:
    provider = jwt_provider(
        signing_key,
        claim_to_headers=[{"claim": "sub", "header": "x-sub"}, {"claim": "plan", "header": "x-plan"}],
        required_scopes=["read"],
        sanitize=True,
    )
    asked = service(message(jwt_providers=[provider], remove_headers=["x-internal"]))
    port = await start(stack, start_envoy, upstream, asked, tmp_path, engine)
    path = "/shop/orders/h1/x"

    token = signing_key.token({"scope": "read"})
    forged = {"x-sub": "mallory", "x-plan": "gold", "x-internal": "1"}
    for _ in range(2):
        passed = await fetch(port, f"{path}?a=1&access_token=leak", headers={**bearer(token), **forged})
        assert passed.status == 200
        seen = upstream.requests[-1]
        assert seen.header("x-sub") == "alice"
        assert [seen.header(name) for name in ("x-plan", "x-internal", "authorization")] == [None, None, None]
        assert seen.path.partition("?")[2] == "a=1"
    assert (asked.stats.decided, asked.stats.cached) == (1, 1)

    missing = await fetch(port, path)
    assert (missing.status, missing.header("www-authenticate")) == (401, "Bearer")
    assert missing.header("content-type") == "application/json"
    assert missing.json()["error"] == "missing_credentials"
    assert missing.json()["request_id"]

    bad = await fetch(port, path, headers=bearer(signing_key.token({"scope": "read"}, expires_in_s=-100)))
    assert (bad.status, bad.json()["message"]) == (401, "The token has expired")
    assert 'error="invalid_token"' in (bad.header("www-authenticate") or "")

    narrow = await fetch(port, path, headers=bearer(signing_key.token({"scope": "write"})))
    assert (narrow.status, narrow.json()["error"]) == (403, "insufficient_scope")

    twice = await fetch(port, path, headers=[*bearer(token).items(), ("authorization", f"Bearer {token}")])
    assert twice.status == 401

    unknown = await fetch(port, "/shop/gone/h1/x", headers=bearer(token))
    assert (unknown.status, unknown.json()["error"]) == (503, "unavailable")


async def test_keys_of_the_store_pass_by_header_query_and_cookie_until_they_are_revoked(
    stack: AsyncExitStack, start_envoy: StartEnvoy, upstream: Upstream, tmp_path: Path
) -> None:
    store = SqliteKeyStore(tmp_path / "keys.db")
    wanted = NewKey("acme", scopes=["read"], metadata={"plan": "gold"}, tenant="t1")
    made = await add_key(store, wanted, time.time())
    rules: dict[str, Any] = {
        "extract_from": {"headers": [{"name": "x-api-key"}], "params": ["key"], "cookies": ["key"]},
        "use_store": True,
        "required_scopes": ["read"],
        "metadata_to_headers": [{"key": "plan", "header": "x-plan"}],
        "forward_client_id_header": "x-client",
        "sanitize": True,
    }
    asked = service(message(api_keys=rules), store=SqliteKeyStore(tmp_path / "keys.db"))
    await stack.enter_async_context(following(asked))
    port = await start(stack, start_envoy, upstream, asked, tmp_path, "ngh2")
    path = "/shop/orders/h1/x"
    ways: list[tuple[str, dict[str, str]]] = [
        (path, {"x-api-key": made.key}),
        (f"{path}?b=2&key={made.key}", {}),
        (path, {"cookie": f"a=1; key={made.key}"}),
    ]
    for where, headers in ways:
        assert (await fetch(port, where, headers={**headers, "x-client": "mallory"})).status == 200
        seen = upstream.requests[-1]
        assert (seen.header("x-client"), seen.header("x-plan")) == ("acme", "gold")
        assert made.key not in repr(seen)
    wrong = await fetch(port, path, headers={"x-api-key": made.key[:-1] + ("A" if made.key[-1] != "A" else "B")})
    assert (wrong.status, wrong.json()["error"]) == (401, "invalid_api_key")
    assert (
        wrong.header("www-authenticate")
        == 'ApiKey error="invalid_api_key", error_description="The API key is not valid"'
    )

    async def refuses(key: str) -> bool:
        return (await fetch(port, path, headers={"x-api-key": key})).status != 200

    async def is_refused() -> float:
        another = await add_key(store, wanted, time.time())
        assert not await refuses(another.key)
        revoked_at = time.monotonic()
        assert await store.revoke(another.record.id, time.time())
        await until(lambda: refuses(another.key), what="the refusal")
        return time.monotonic() - revoked_at

    await soon(is_refused, within_s=1.0)
    assert await store.revoke(made.record.id, time.time())
    await until(lambda: refuses(made.key), what="the refusal")
    for where, headers in ways:
        assert (await fetch(port, where, headers=headers)).status == 401
    await store.close()


def told(response: Response) -> dict[str, Any]:
    """The dynamic metadata of ext_authz, without what Envoy adds to it."""
    metadata = json.loads(response.header("x-metadata") or "{}")
    metadata.pop("ext_authz_duration", None)
    return metadata


async def test_the_limiter_and_the_access_log_can_read_who_calls(
    stack: AsyncExitStack, start_envoy: StartEnvoy, upstream: Upstream, signing_key: SigningKey, tmp_path: Path
) -> None:
    provider = jwt_provider(
        signing_key,
        claim_to_metadata=[{"claim": "plan", "key": "plan"}],
        claim_to_headers=[{"claim": "name", "header": "x-name"}],
    )
    asked = service(message(jwt_providers=[provider], allow_anonymous=True))
    port = await start(stack, start_envoy, upstream, asked, tmp_path, "ngh2")
    token = signing_key.token({"plan": "gold", "scope": "read", "name": "Zoë ✓"})
    passed = await fetch(port, "/shop/orders/h1/x", headers=bearer(token))
    assert told(passed) == {
        "kind": "jwt",
        "consumer": "alice",
        "scopes": ["read"],
        "metadata": {"plan": "gold"},
    }
    assert (upstream.requests[-1].header("x-name") or "").encode("latin-1").decode() == "Zoë ✓"
    anonymous = await fetch(port, "/shop/orders/h1/x", headers={"x-name": "mallory"})
    assert (anonymous.status, told(anonymous)) == (200, {"kind": "anonymous"})
    assert upstream.requests[-1].header("x-name") is None


async def test_with_redis_gone_cached_keys_pass_others_get_503_and_it_recovers_by_itself(
    stack: AsyncExitStack, start_envoy: StartEnvoy, upstream: Upstream, redis_server: RedisServer, tmp_path: Path
) -> None:
    store = RedisKeyStore(redis_server.url)
    stack.push_async_callback(store.close)
    known, other = [await add_key(store, NewKey(name), time.time()) for name in ("known", "other")]
    asked = service(message(api_keys={"use_store": True}), store=RedisKeyStore(redis_server.url))
    await stack.enter_async_context(following(asked))
    port = await start(stack, start_envoy, upstream, asked, tmp_path, "ngh2")

    async def ask(key: str) -> Response:
        return await fetch(port, "/shop/orders/h1/x", headers={"x-api-key": key})

    assert (await ask(known.key)).status == 200
    redis_server.pause()
    refused = await ask(other.key)
    assert (refused.status, refused.json()["error"]) == (503, "unavailable")
    assert (await ask(known.key)).status == 200
    redis_server.resume()

    async def recovered() -> bool:
        return (await ask(other.key)).status == 200

    await until(recovered, what="the other key to pass")
    await redis_server.restart()

    async def forgotten() -> bool:
        return (await ask(known.key)).status == 401

    await until(forgotten, what="an empty Redis to count")
