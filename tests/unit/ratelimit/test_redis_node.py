"""One server: what its errors are called, that no address ends the search for it, and no error its connection."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from dragoman.grpc_worker import StatusCode
from ratelimit_service.stores.base import Flight
from ratelimit_service.stores.redis_connection import lose
from ratelimit_service.stores.redis_dial import error_kind
from ratelimit_service.stores.redis_store import RedisStore
from ratelimit_service.stores.redis_url import RedisTarget
from tests.support.ratelimit import Clock, Limiter, request
from tests.support.redis import RedisServer
from tests.support.waiting import until

LIMITS = "{domain: d, descriptors: [{key: k, rate_limit: {unit: hour, requests_per_unit: 5}}]}"


@pytest_asyncio.fixture
async def store(redis_server: RedisServer) -> AsyncIterator[RedisStore]:
    """A store that is connected."""
    # Time enough for a machine that is busy with other tests.
    connected = RedisStore(RedisTarget.parse(redis_server.unix_url), timeout_s=5.0)
    connected.start()
    try:
        await until(lambda: connected.available, what="the connection to Redis")
        yield connected
    finally:
        await connected.close()


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


@pytest.mark.parametrize("own_hits", [(1, 1), (-1, 1)], ids=["taken", "given back"])
@pytest.mark.parametrize("looks_first", [False, True])
async def test_an_error_with_replies_to_several_questions_fails_the_request(
    looks_first: bool, own_hits: tuple[int, int], store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*given: object) -> bytes:
        raise KeyError(given)

    limiter = Limiter(LIMITS, store, clock=Clock(), looks_first=looks_first)
    monkeypatch.setattr(limiter.answers, "several", fail)
    call = limiter.ask(request("d", [("k", "a")], [("k", "b")], own_hits=own_hits))
    await until(lambda: call.failure, what="the failure")
    assert call.failure == (StatusCode.INTERNAL, "internal error")


def test_an_error_with_what_one_request_lost_keeps_none_from_knowing_that_it_lost_as_much() -> None:
    settled: list[str] = []

    class Lost(Flight):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.left = 1
            self.name = name

        def settle(self) -> None:
            if self.name == "first":
                raise KeyError(self.name)
            settled.append(self.name)

        def fail(self) -> None:
            settled.append(f"{self.name} failed")

    for flight in (Lost("first"), Lost("second")):
        lose(flight)
    assert settled == ["first failed", "second"]


async def test_an_error_with_one_reply_fails_its_request_and_no_other(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*given: object) -> bytes:
        raise KeyError(given)

    connection = store.nodes[0].connection
    limiter = Limiter(LIMITS, store, clock=Clock())
    with monkeypatch.context() as patched:
        patched.setattr(limiter.answers, "one", fail)
        wrong = [limiter.ask(request("d", [("k", value)])) for value in ("a", "b")]
        await until(lambda: all(call.failure for call in wrong), what="the failures")
    right = await limiter.response(request("d", [("k", "a")]))
    assert [call.failure for call in wrong] == [(StatusCode.INTERNAL, "internal error")] * 2
    assert right.statuses[0].limit_remaining == 3
    assert store.nodes[0].connection is connection
    assert [record.message for record in caplog.records].count("a reply of the store could not be put to use") == 2
