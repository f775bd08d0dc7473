# pyright: standard, reportAttributeAccessIssue=false
"""A configuration is changed while requests are answered: they go on, and what did not change is not disturbed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from envoy.service.ratelimit.v3 import rls_pb2

from dragoman.protos.ratelimit.config.ratelimit.v3 import rls_conf_pb2
from dragoman.steadiness import steady_loop
from ratelimit_service import config_file, config_xds
from ratelimit_service.answers import Answers
from ratelimit_service.file_source import FileSource
from ratelimit_service.handler import RateLimiter
from ratelimit_service.memo import Memo
from ratelimit_service.model import Unit
from ratelimit_service.service import ConfigRejectedError, PlanOptions, Service
from ratelimit_service.stats import StatsRegistry
from ratelimit_service.stores.memory import MemoryStore
from tests.support.ratelimit import Clock, RecordedCall, request
from tests.support.turns import Turns, full_collections, turns

MANY = 5_000
# In which other processes may take the processor from the loop, but not in all of them.
ROUNDS = 5


class Limiter:
    """A limiter over memory whose configuration a test changes."""

    def __init__(self) -> None:
        self.stats = StatsRegistry()
        self.handler = RateLimiter(MemoryStore(), self.stats, clock=Clock(), answers=Answers())
        self.service = Service(self.handler, self.stats, PlanOptions())

    def ask(self, body: bytes) -> Any:
        """Returns the limit that a request of one descriptor is told."""
        call = RecordedCall()
        self.handler(body, call)
        (status,) = call.response.statuses
        return status.current_limit.requests_per_unit

    def plan(self, body: bytes) -> Any:
        """Returns what is done for a request, which is remembered of one that came twice."""
        return self.handler.planned(body)

    async def update(self, *resources: bytes, removed: str = "") -> None:
        names = {rls_conf_pb2.RateLimitConfig.FromString(each).domain: each for each in resources}
        await self.service.update(names, {removed} if removed else set())


def resource(domain: str, limits: Mapping[str, int], **fields: Any) -> bytes:
    """Encodes a domain with a limit for each value of the descriptor `k`."""
    config = rls_conf_pb2.RateLimitConfig(name=domain, domain=domain, **fields)
    for value, limit in limits.items():
        descriptor = config.descriptors.add(key="k", value=value)
        descriptor.rate_limit.unit = rls_conf_pb2.HOUR
        descriptor.rate_limit.requests_per_unit = limit
    return config.SerializeToString()


def bringing(domain: str, value: str, limit: int) -> bytes:
    """Encodes a request that brings a limit by the hour."""
    message = rls_pb2.RateLimitRequest.FromString(request(domain, [("k", value)]))
    message.descriptors[0].limit.requests_per_unit = limit
    message.descriptors[0].limit.unit = Unit.HOUR.wire
    return message.SerializeToString()


def many(limit: int) -> bytes:
    return resource("d", {str(index): limit for index in range(MANY)})


def written(limit: int) -> str:
    """The same as a file."""
    lines = (f"- {{key: k, value: '{n}', rate_limit: {{unit: hour, requests_per_unit: {limit}}}}}" for n in range(MANY))
    return "\n".join(["domain: d", "descriptors:", *lines])


async def turns_during(limiter: Limiter, until_limit: int) -> Turns:
    bodies = [request("d", [("k", str(index))]) for index in (0, MANY // 2, MANY - 1)]
    return await turns(lambda: [limiter.ask(body) for body in bodies], until_limit)


async def test_requests_are_answered_while_thousands_of_limits_change_over_xds() -> None:
    limiter = Limiter()
    await limiter.update(many(5))
    found = Turns()
    for limit in range(6, 6 + ROUNDS):
        with steady_loop(), full_collections() as collections:
            updating = asyncio.create_task(limiter.update(many(limit)))
            found = await turns_during(limiter, limit)
            await updating
        assert not collections
        # Read on the loop, they would take one turn; what a turn takes is for the machine to say.
        if found.count >= 10 and found.longest_s < found.whole_s / 2:
            return
    pytest.fail(str(found))


async def test_requests_are_answered_while_thousands_of_limits_change_in_a_file(tmp_path: Path) -> None:
    limiter = Limiter()
    file = tmp_path / "limits.yaml"
    file.write_text(written(5))
    source = FileSource(file, limiter.service, last_good=tmp_path / "kept")
    begun = time.perf_counter()
    await source.load()
    load_s = time.perf_counter() - begun
    found = Turns()
    with steady_loop(), full_collections() as collections:
        following = asyncio.create_task(source.run())
        try:
            for limit in range(6, 6 + ROUNDS):
                (tmp_path / "new").write_text(written(limit))
                (tmp_path / "new").rename(file)
                found = await turns_during(limiter, limit)
                if found.longest_s < load_s / 2:
                    break
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
    assert found.longest_s < load_s / 2
    assert not collections


async def test_a_change_of_one_domain_disturbs_no_other() -> None:
    limiter = Limiter()
    a, b = request("a", [("k", "x")]), request("b", [("k", "x")])
    await limiter.update(resource("a", {"x": 5}), resource("b", {"x": 5}))
    for _ in range(2):
        assert (limiter.ask(a), limiter.ask(b)) == (5, 5)
    kept, gone = limiter.plan(a), limiter.plan(b)
    assert (limiter.plan(a), limiter.plan(b)) == (kept, gone)
    await limiter.update(resource("b", {"x": 7}))
    assert limiter.plan(a) is kept
    assert limiter.plan(b) is not gone
    assert (limiter.ask(a), limiter.ask(b)) == (5, 7)
    assert limiter.plan(b).checks[0].limit is not gone.checks[0].limit


async def test_a_request_with_very_many_limits_is_planned_each_time() -> None:
    limiter = Limiter()
    await limiter.update(resource("d", {"": 5}))
    for count, is_kept in ((16, True), (17, False)):
        body = request("d", *([("k", f"{count}-{index}")] for index in range(count)))
        for _ in range(3):
            limiter.handler(body, RecordedCall())
        assert (limiter.plan(body) is limiter.plan(body)) is is_kept


async def test_limits_beside_the_one_that_changed_keep_what_is_known_of_them() -> None:
    limiter = Limiter()
    body = request("d", [("k", "same")])
    await limiter.update(resource("d", {"same": 5, "other": 5}))
    limiter.ask(body)
    (before,) = limiter.plan(body).checks
    await limiter.update(resource("d", {"more": 1, "same": 5, "other": 6}))
    limiter.ask(body)
    (after,) = limiter.plan(body).checks
    assert after.counter is before.counter
    assert limiter.ask(request("d", [("k", "other")])) == 6


async def test_a_limit_that_a_request_brings_is_refined_by_what_is_configured_now() -> None:
    limiter = Limiter()
    fields = {"dragoman": rls_conf_pb2.DomainExtension(refines=True)}
    body = bringing("d", "x", 3)
    await limiter.update(resource("d", {"x": 5}, **fields))
    assert limiter.ask(body) == 3
    changed = rls_conf_pb2.RateLimitConfig.FromString(resource("d", {"x": 5}, **fields))
    changed.descriptors[0].shadow_mode = True
    await limiter.update(changed.SerializeToString())
    limiter.ask(body)
    assert limiter.plan(body).checks[0].limit.rule.shadow_mode


async def test_what_is_sent_again_as_it_was_is_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    parse = config_xds.parse_resource
    monkeypatch.setattr(
        config_xds, "parse_resource", lambda content, source: read.append(source) or parse(content, source=source)
    )
    limiter = Limiter()
    body = request("a", [("k", "x")])
    await limiter.update(resource("a", {"x": 5}), resource("b", {"x": 5}))
    assert (limiter.ask(body), limiter.ask(body)) == (5, 5)
    plan = limiter.plan(body)
    await limiter.update(resource("a", {"x": 5}), resource("b", {"x": 6}))
    await limiter.update(resource("a", {"x": 5}), resource("b", {"x": 6}))
    assert read == ["a", "b", "b"]
    assert limiter.plan(body) is plan


def test_a_file_of_the_same_bytes_is_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    parse = config_file.parse
    monkeypatch.setattr(
        config_file, "parse", lambda content, source: read.append(source) or parse(content, source=source)
    )
    files = config_file.Files()
    files.read({"a": b"domain: a", "b": b"domain: b"})
    config, faults = files.read({"a": b"domain: a", "b": b"domain: c"})
    assert (read, [*config.domains], faults) == (["a", "b", "b"], ["a", "c"], [])
    config, _ = files.read({"b": b"domain: c"})
    assert [*config.domains] == ["c"]
    config, faults = files.read({"a": b"domain: c", "b": b"domain: c"})
    assert [str(fault) for fault in faults] == ["b:1: domain: 'c' is in a:1 too"]


async def test_an_update_that_is_given_up_leaves_everything_as_it_was() -> None:
    limiter = Limiter()
    body = request("d", [("k", "0")])
    await limiter.update(many(5))
    updating = asyncio.create_task(limiter.update(many(6)))
    await asyncio.sleep(0)
    updating.cancel()
    await asyncio.gather(updating, return_exceptions=True)
    assert limiter.ask(body) == 5
    with pytest.raises(ConfigRejectedError):
        await limiter.service.update({"d": b"\xff", "e": resource("e", {"x": 1})}, set())
    assert [*limiter.service.config.domains] == ["d"]
    await limiter.update(resource("e", {"x": 1}))
    assert [*limiter.service.config.domains] == ["d", "e"]
    await limiter.update(many(7), removed="e")
    assert [*limiter.service.config.domains] == ["d"]
    assert limiter.ask(body) == 7


def test_what_is_forgotten_goes_bit_by_bit() -> None:
    alive: list[int] = []

    class Value:
        def __init__(self, key: int) -> None:
            self.key = key
            alive.append(key)

        def __del__(self) -> None:
            alive.pop()

    size = 1_000
    memo: Memo[int, Value] = Memo(size)
    most = 0
    for index in range(5 * size):
        before = len(alive)
        memo.put(index, Value(index))
        most = max(most, before + 1 - len(alive))
    assert most == 1
    assert len(alive) <= 3 * size
    assert len(memo) <= 2 * size
    kept = memo.kept(lambda key, _: key % 2 == 0)
    assert [each.key for each in kept.values()] == list(range(3 * size, 5 * size, 2))
    memo.dismiss()
    assert len(memo) == 0
    assert len(alive) == len(kept)
