"""One server: what its errors are called, and that no address ends the search for it."""

from __future__ import annotations

import pytest

from ratelimit_service.stores.redis_dial import error_kind
from ratelimit_service.stores.redis_store import RedisStore
from ratelimit_service.stores.redis_url import RedisTarget
from tests.support.waiting import until


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("OOM command not allowed when used memory > 'maxmemory'.", "OOM"),
        ("OOM command not allowed when used memory > 'maxmemory'. script: ee2a, on @user_script:25.", "OOM"),
        (
            "ERR Error running script (call to f_ee2a): @user_script:25: @user_script: 25: -READONLY You can't write.",
            "READONLY",
        ),
        ("ERR Error running script (call to f_ee2a): @user_script:25: attempt to compare nil", "ERR"),
        ("ERR value is not an integer or out of range", "ERR"),
        ("what -OOM is this", "ERR"),
        ("A" * 40, "ERR"),
        ("", "ERR"),
    ],
)
def test_an_error_is_told_by_its_code(message: str, kind: str) -> None:
    assert error_kind(message) == kind


@pytest.mark.parametrize("target", [RedisTarget(host="a..b"), RedisTarget(host="127.0.0.1", port=99_999)], ids=str)
async def test_what_is_no_address_is_tried_again_like_any_other(target: RedisTarget) -> None:
    tries = 0

    async def find() -> RedisTarget:
        nonlocal tries
        tries += 1
        return target

    store = RedisStore(target, find=find)
    store.start()
    try:
        await until(lambda: tries > 2, what="another try")
        assert store.nodes[0].errors == {"unreachable": 1}
    finally:
        await store.close()
