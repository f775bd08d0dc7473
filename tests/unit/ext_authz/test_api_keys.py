"""API keys: which pass, what the upstream and the limiter are told, and how fast a revocation bites."""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from ext_authz.keys import CreatedKey, NewKey, StoreLocation, add_key, open_store
from ext_authz.stores.records import KeyRecord, KeyStore, StoreUnavailableError
from tests.support.authz import following, jwt_provider, message, service
from tests.support.redis import RedisServer
from tests.support.tokens import SigningKey, bearer
from tests.support.waiting import soon, until

Connect = Callable[[], KeyStore]


class MemoryStore:
    """A store whose outage the test decides on."""

    def __init__(self) -> None:
        self.records: dict[str, KeyRecord] = {}
        self.down = False
        self.asked = 0

    async def find(self, key_id: str) -> KeyRecord | None:
        self.asked += 1
        if self.down:
            raise StoreUnavailableError("down")
        return self.records.get(key_id)

    async def add(self, record: KeyRecord) -> None:
        self.records[record.id] = record

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(name)


async def made(store: Any, **wanted: Any) -> CreatedKey:
    return await add_key(store, NewKey(**{"consumer": "acme", **wanted}), time.time())


async def test_a_key_of_the_store_passes_and_tells_who_calls() -> None:
    store = MemoryStore()
    key = await made(store, scopes=["b", "a"], metadata={"plan": "gold", "evil": "x"}, tenant="t1")
    rules = {
        "use_store": True,
        "metadata_to_headers": [{"key": "plan", "header": "X-Plan"}, {"key": "absent", "header": "x-absent"}],
        "forward_client_id_header": "x-client",
    }
    asked = service(message(api_keys=rules), store=store)  # pyright: ignore[reportArgumentType]
    answer = await asked.check({"x-api-key": key.key})
    assert answer.headers == {"x-client": "acme", "x-plan": "gold"}
    assert answer.removed == {"x-absent"}
    assert answer.metadata == {
        "kind": "api_key",
        "consumer": "acme",
        "tenant": "t1",
        "key_id": key.record.id,
        "scopes": ["a", "b"],
        "metadata": {"plan": "gold", "evil": "x"},
    }
    assert (await asked.check({"x-api-key": f"Bearer {key.key}"})).status == 200


@pytest.mark.parametrize(
    ("rules", "status", "error"),
    [
        ({"tenant": "t1", "consumers": ["acme"], "required_scopes": ["read"]}, 200, ""),
        ({"tenant": "t2"}, 403, "forbidden"),
        ({"consumers": ["other"]}, 403, "forbidden"),
        ({"required_scopes": ["read", "write"]}, 403, "insufficient_scope"),
    ],
)
async def test_a_policy_narrows_which_keys_pass(rules: dict[str, Any], status: int, error: str) -> None:
    store = MemoryStore()
    key = await made(store, scopes=["read"], tenant="t1")
    asked = service(message(api_keys={"use_store": True, **rules}), store=store)  # pyright: ignore[reportArgumentType]
    answer = await asked.check({"x-api-key": key.key})
    assert answer.status == status
    assert not error or answer.body["error"] == error
    if error == "insufficient_scope":
        assert answer.headers["www-authenticate"].startswith('ApiKey error="insufficient_scope"')


async def test_wrong_expired_and_revoked_keys_get_the_same_answer() -> None:
    store = MemoryStore()
    good, brief, gone = await made(store), await made(store, expires_in_s=50), await made(store)
    wrong_secret = f"dgm_{good.record.id}_{'0' * 40}"
    store.records[gone.record.id] = KeyRecord(gone.record.id, gone.record.sha256, "acme", 1.0, revoked_at=2.0)
    asked = service(message(api_keys={"use_store": True}), store=store)  # pyright: ignore[reportArgumentType]
    assert (await asked.check({"x-api-key": brief.key})).status == 200
    asked.offset_s[0] = 60.0
    answers = [
        await asked.check({"x-api-key": value})
        for value in (
            wrong_secret,
            brief.key,
            gone.key,
            "dgm_nosuchkey000_" + "a" * 40,
            "nonsense",
            "ü" * 400,
            "x" * 5000,
        )
    ]
    assert {(answer.status, answer.raw.SerializeToString(deterministic=True)) for answer in answers} == {
        (401, answers[0].raw.SerializeToString(deterministic=True))
    }
    assert answers[0].headers["www-authenticate"].startswith('ApiKey error="invalid_api_key"')
    assert (await asked.check({"x-api-key": good.key})).status == 200


async def test_what_can_be_no_key_of_the_store_does_not_reach_it() -> None:
    store = MemoryStore()
    asked = service(message(api_keys={"use_store": True}), store=store)  # pyright: ignore[reportArgumentType]
    for value in ("nonsense", "dgm_", "dgm_short_x", "dgm_nosuchkey000_" + "a" * 41, "DGM_nosuchkey000_" + "a" * 40):
        assert (await asked.check({"x-api-key": value})).status == 401
    assert store.asked == 0
    for _ in range(20):
        assert (await asked.check({"x-api-key": "dgm_nosuchkey000_" + "a" * 40})).status == 401
    assert store.asked == 1


async def test_keys_that_came_with_the_policy_need_no_store() -> None:
    keys = [
        {"id": f"k{n}", "client": f"client-{n}", "sha256": _base64(hashlib.sha256(f"secret-{n}".encode()).digest())}
        for n in range(150)
    ]
    rules = {"inline_keys": keys, "forward_client_id_header": "x-client", "sanitize": True}
    asked = service(message(api_keys=rules))
    answer = await asked.check({"x-api-key": "secret-77", "x-client": "mallory"})
    assert (answer.status, answer.headers, answer.removed) == (200, {"x-client": "client-77"}, {"x-api-key"})
    assert (await asked.check({"x-api-key": "secret-150"})).status == 401


async def test_without_a_store_cached_verdicts_stand_and_other_keys_get_503() -> None:
    store = MemoryStore()
    known, other = await made(store), await made(store)
    asked = service(message(api_keys={"use_store": True}), store=store)  # pyright: ignore[reportArgumentType]
    assert (await asked.check({"x-api-key": known.key})).status == 200
    store.down = True
    assert (await asked.check({"x-api-key": known.key})).status == 200
    answer = await asked.check({"x-api-key": other.key})
    assert (answer.status, answer.body["error"], answer.body["request_id"]) == (503, "unavailable", "req-1")
    assert "www-authenticate" not in answer.headers
    asked_before = store.asked
    assert (await asked.check({"x-api-key": other.key})).status == 503
    assert store.asked == asked_before, "a store that just failed is left alone"
    store.down = False

    async def passes() -> bool:
        return (await asked.check({"x-api-key": other.key})).status == 200

    await until(passes, what="the other key to pass")


async def test_either_a_token_or_a_key_is_enough_or_both_are_needed(signing_key: SigningKey) -> None:
    store = MemoryStore()
    key = await made(store)
    fields: dict[str, Any] = {
        "jwt_providers": [jwt_provider(signing_key, claim_to_headers=[{"claim": "sub", "header": "x-sub"}])],
        "api_keys": {"use_store": True, "forward_client_id_header": "x-client"},
    }
    either = message("shop/either/h", **fields)
    both = message("shop/both/h", combination="ALL_OF", **fields)
    asked = service(either, both, store=store)  # pyright: ignore[reportArgumentType]
    token, api_key = bearer(signing_key.token()), {"x-api-key": key.key}
    bad_token, bad_key = bearer("x.y.z"), {"x-api-key": "nonsense"}

    async def statuses(policy: str) -> list[int]:
        tried = ({}, token, api_key, token | api_key, bad_token | api_key, token | bad_key, bad_token | bad_key)
        return [(await asked.check(headers, policy=policy)).status for headers in tried]

    assert await statuses("shop/either/h") == [401, 200, 200, 200, 200, 200, 401]
    assert await statuses("shop/both/h") == [401, 401, 401, 200, 401, 401, 401]
    nothing = await asked.check({}, policy="shop/both/h")
    assert nothing.headers["www-authenticate"] == "Bearer, ApiKey"
    answer = await asked.check(token | api_key, policy="shop/both/h")
    assert answer.headers == {"x-sub": "alice", "x-client": "acme"}
    by_key = await asked.check(bad_token | api_key, policy="shop/either/h")
    assert (by_key.headers, by_key.removed) == ({"x-client": "acme"}, {"x-sub"})


async def test_a_key_may_come_as_a_bearer_token_beside_jwts(signing_key: SigningKey) -> None:
    store = MemoryStore()
    key = await made(store)
    places = {"headers": [{"name": "authorization", "value_prefix": "Bearer "}]}
    rules = {"use_store": True, "extract_from": places}
    asked = service(message(jwt_providers=[jwt_provider(signing_key)], api_keys=rules), store=store)  # pyright: ignore[reportArgumentType]
    assert (await asked.check(bearer(key.key))).status == 200
    assert (await asked.check(bearer(signing_key.token()))).status == 200
    expired = await asked.check(bearer(signing_key.token(expires_in_s=-100)))
    assert expired.body["message"] == "The token has expired"


async def test_a_revocation_bites_within_a_second_and_a_new_key_works_at_once(
    connect: Connect, stack: AsyncExitStack
) -> None:
    writer = connect()
    asked = service(message(api_keys={"use_store": True}), store=connect())
    await stack.enter_async_context(following(asked))

    async def bites() -> float:
        key = await made(writer)
        assert (await asked.check({"x-api-key": key.key})).status == 200
        revoked_at = time.monotonic()
        await writer.revoke(key.record.id, time.time())

        async def refused() -> bool:
            return (await asked.check({"x-api-key": key.key})).status == 401

        await until(refused, what="the refusal", every_s=0.002)
        return time.monotonic() - revoked_at

    await soon(bites, within_s=1.0)
    new = await made(writer)
    assert (await asked.check({"x-api-key": new.key})).status == 200


async def test_what_was_revoked_while_redis_was_out_of_sight_is_refused_when_it_is_back(
    redis_server: RedisServer, stack: AsyncExitStack
) -> None:
    writer = open_store(StoreLocation(redis_server.folder, redis_server.url), timeout_s=5)
    stack.push_async_callback(writer.close)
    key, other = await made(writer), await made(writer)
    asked = service(
        message(api_keys={"use_store": True}), store=open_store(StoreLocation(redis_server.folder, redis_server.url))
    )
    await stack.enter_async_context(following(asked))
    assert (await asked.check({"x-api-key": key.key})).status == 200
    assert asked.lookup is not None
    redis_server.pause()
    await until(lambda: asked.lookup and not asked.lookup.reachable, what="the outage to be noticed")
    assert (await asked.check({"x-api-key": key.key})).status == 200
    assert (await asked.check({"x-api-key": other.key})).status == 503
    redis_server.resume()
    await writer.revoke(key.record.id, time.time())

    async def refused() -> bool:
        return (await asked.check({"x-api-key": key.key})).status == 401

    await until(refused, what="the refusal")


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
