# pyright: standard, reportAttributeAccessIssue=false
"""The rate limiter's rows: CPU a decision, decisions a second and waiting times, by store, load, keys and workers."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import limiter_changes, peers
from benchmarks.asked import CALLS, ROUNDS, Cost, Served, check_that_it, cost, costs, served
from benchmarks.cpu import memory_bytes, process_tree
from benchmarks.grpc_load import Load, run
from benchmarks.rows import Row
from ratelimit_service.handler import METHOD
from tests.support.ratelimit import request
from tests.support.redis import RedisServer
from tests.support.waiting import until

_US = 20.0
_RATIO = 0.5
_PEER = "envoyproxy/ratelimit"
# What both can be asked on a core that they share with nobody but Redis and the load.
_RATE = 8_000.0
_HUGE = 2**31
_DIGITS = b"00000000"
_KNOWN_KEYS = 4_000

_LIMITS = {
    "domain": "bench",
    "descriptors": [
        {"key": "route", "value": "r", "rate_limit": {"unit": "hour", "requests_per_unit": _HUGE}},
        {"key": "tenant", "value": "t", "rate_limit": {"unit": "day", "requests_per_unit": _HUGE}},
        {"key": "client", "rate_limit": {"unit": "hour", "requests_per_unit": _HUGE}},
        {"key": "free", "rate_limit": {"unlimited": True}},
        {"key": "none", "rate_limit": {"unit": "year", "requests_per_unit": 0}},
    ],
}
_ALGORITHMS = ("sliding_window", "token_bucket", "leaky_bucket")
_OURS = {
    "domain": "bench",
    "descriptors": [
        *_LIMITS["descriptors"],
        *(
            {"key": name, "rate_limit": {"unit": "second", "requests_per_unit": 100_000_000, "algorithm": name}}
            for name in _ALGORITHMS
        ),
        {
            "key": "flight",
            "rate_limit": {"unit": "minute", "requests_per_unit": 100_000, "algorithm": "concurrency"},
        },
        {"key": "leased", "rate_limit": {"unit": "hour", "requests_per_unit": _HUGE, "precision": "lease(100)"}},
    ],
}
_ONE = request("bench", [("route", "r")])
_THREE = request("bench", [("route", "r")], [("tenant", "t")], [("client", "192.0.2.17")])
_OVER = request("bench", [("none", "x")])


@dataclass(frozen=True, slots=True)
class _Size:
    """How much is asked for a row."""

    calls: int
    rounds: int
    keys: int


_WHOLE, _QUICK = _Size(CALLS, ROUNDS, 1_000_000), _Size(CALLS // 5, 2, 100_000)


async def measure(peer: Path | None, *, quick: bool = False) -> list[Row]:
    """Measures one limiter beside its load; where the peer is given, in turns with it."""
    rows: list[Row] = []
    size = _QUICK if quick else _WHOLE
    async with _scene(peer, size) as scene:
        await check_that_it(scene.redis, METHOD, _ONE)
        await until(lambda: _refuses(scene.redis), what="Redis to be asked")
        rows += await _by_store(scene)
        rows += await _by_load(scene)
        rows += await _at_a_rate(scene)
        rows += await _by_algorithm(scene)
        rows += await _many_keys(scene)
    rows += await _workers(size)
    rows += await limiter_changes.measure(rounds=size.rounds)
    return rows


async def _refuses(service: Served) -> bool:
    # Until its store answers, and answers in time, it allows what it cannot know.
    try:
        await check_that_it(service, METHOD, _OVER, passes=False)
    except RuntimeError:
        return False
    return True


class _Scene:
    """One worker for each store, on limits that nobody reaches; and the peer on the same Redis, or None."""

    def __init__(self, size: _Size, memory: Served, redis: Served, peer: Served | None) -> None:
        self.size = size
        self.memory = memory
        self.redis = redis
        self.peer = peer

    @property
    def compared(self) -> list[tuple[str, Served]]:
        """Ours on Redis, and the peer where it is given."""
        return [("Redis", self.redis), *([(f"Redis, {_PEER}", self.peer)] if self.peer is not None else [])]


@asynccontextmanager
async def _scene(peer: Path | None, size: _Size) -> AsyncIterator[_Scene]:
    async with RedisServer() as redis, AsyncExitStack() as stack:
        memory = await stack.enter_async_context(served("ratelimit_service", _OURS, {"max_keys": 2 * size.keys}))
        ours = await stack.enter_async_context(served("ratelimit_service", _OURS, {"redis": redis.unix_url}))
        theirs = None
        if peer is not None:
            home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dgb-")))
            process, address = await stack.enter_async_context(peers.limiter(peer, [_LIMITS], redis, home))
            theirs = Served(process, [address])
        yield _Scene(size, memory, ours, theirs)


async def _by_store(scene: _Scene) -> list[Row]:
    compared = scene.compared
    asked = [
        ("no store", scene.memory, request("bench", [("free", "x")])),
        ("memory", scene.memory, _ONE),
        *((name, service, _ONE) for name, service in compared),
        ("Redis, leases of 100", scene.redis, request("bench", [("leased", "x")])),
        ("memory, over the limit", scene.memory, _OVER),
        *((f"{name}, over the limit", service, _OVER) for name, service in compared),
    ]
    loads = [(service, _load(scene.size, body)) for _, service, body in asked]
    found = await costs(loads, rounds=scene.size.rounds)
    rows: list[Row] = []
    for (name, _, _), each in zip(asked, found, strict=True):
        rows += _rows(f"rate-limit decision with {name}", each, budget=None if _PEER in name else _US)
    if scene.peer is not None:
        ratio = found[2].cpu_us / found[3].cpu_us
        rows.append(Row(f"rate-limit decision with Redis: CPU against {_PEER}", ratio, "×", _RATIO))
    return rows


async def _by_load(scene: _Scene) -> list[Row]:
    rows: list[Row] = []
    asked = [("memory", scene.memory), *scene.compared]
    loads = [(f"{count} in flight", _load(scene.size, _ONE, in_flight=count)) for count in (1, 4, 256)]
    loads.append(("3 descriptors", _load(scene.size, _THREE)))
    for title, load in loads:
        found = await costs([(service, load) for _, service in asked], rounds=2)
        for (name, _), each in zip(asked, found, strict=True):
            rows += _rows(f"rate-limit decision with {name}, {title}", each)
        if scene.peer is not None:
            name = f"rate-limit decision with Redis, {title}: CPU against {_PEER}"
            rows.append(Row(name, found[1].cpu_us / found[2].cpu_us, "×"))
    return rows


async def _at_a_rate(scene: _Scene) -> list[Row]:
    load = Load(method=METHOD, body=_ONE, per_s=_RATE, requests=scene.size.calls)
    found: list[list[Cost]] = [[] for _ in scene.compared]
    for _ in range(3):
        for (_, service), each in zip(scene.compared, found, strict=True):
            each.append(await cost(service, load))
    best = [min(each, key=lambda one: one.load.p99_ms) for each in found]
    most = best[1].load.p99_ms if len(best) > 1 else None
    rows: list[Row] = []
    for (name, _), each in zip(scene.compared, best, strict=True):
        title = f"rate-limit decision with {name} at {_RATE:,.0f} a second"
        rows.append(Row(f"{title}, p50", each.load.p50_ms, "ms"))
        rows.append(Row(f"{title}, p99", each.load.p99_ms, "ms", None if _PEER in name else most))
        rows.append(Row(f"{title}: CPU of the service", each.cpu_us, "µs"))
    return rows


async def _by_algorithm(scene: _Scene) -> list[Row]:
    rows: list[Row] = []
    calls = scene.size.calls
    loads = [(name.replace("_", " "), _load(scene.size, request("bench", [(name, "x")]))) for name in _ALGORITHMS]
    loads.append(("concurrency (begin or end)", Load(method=METHOD, body=b"", body_of=_flights(), requests=calls)))
    for algorithm, load in loads:
        for store, service in (("memory", scene.memory), ("Redis", scene.redis)):
            (found,) = await costs([(service, load)], rounds=2)
            title = f"rate-limit decision with {store}, {algorithm}: CPU of the service"
            rows.append(Row(title, found.cpu_us, "µs"))
    return rows


async def _many_keys(scene: _Scene) -> list[Row]:
    keys = scene.size.keys
    body_of, known = _keyed(keys), _keyed(_KNOWN_KEYS)
    before = _memory_of(scene.memory)
    await run(scene.memory.addresses, Load(method=METHOD, body=b"", body_of=body_of, requests=keys))
    a_key = (_memory_of(scene.memory) - before) / keys
    rows = [Row(f"memory of a counter, {keys:,} keys in memory", a_key, "bytes")]
    asked = [("memory", scene.memory), *scene.compared]
    for title, bodies in (("a key for each request", body_of), (f"{_KNOWN_KEYS:,} keys in turns", known)):
        load = Load(method=METHOD, body=b"", body_of=bodies, requests=scene.size.calls)
        found = await costs([(service, load) for _, service in asked], rounds=2)
        for (name, _), each in zip(asked, found, strict=True):
            rows.append(Row(f"rate-limit decision with {name}, {title}: CPU of the service", each.cpu_us, "µs"))
        if scene.peer is not None:
            ratio = found[1].cpu_us / found[2].cpu_us
            rows.append(Row(f"rate-limit decision with Redis, {title}: CPU against {_PEER}", ratio, "×", _RATIO))
    return rows


async def _workers(size: _Size) -> list[Row]:
    rows: list[Row] = []
    async with RedisServer() as redis:
        for name, settings in (("memory", {}), ("Redis", {"redis": redis.unix_url})):
            async with served("ratelimit_service", _OURS, settings, workers=2) as service:
                (found,) = await costs([(service, _load(size, _ONE, in_flight=64))], rounds=size.rounds)
                rows += _rows(f"rate-limit decision with {name}, 2 workers", found)
    return rows


def _load(size: _Size, body: bytes, *, in_flight: int = 32) -> Load:
    calls = size.calls if in_flight > 1 else size.calls // 5
    return Load(method=METHOD, body=body, in_flight=in_flight, requests=calls)


def _flights() -> Callable[[int], bytes]:
    """Every other call says that the request of the one before has ended."""
    caller = ("dragoman.request", _DIGITS.decode())
    begin = request("bench", [("flight", "x"), caller])
    end = request("bench", [("flight", "x"), caller, ("dragoman.done", "1")])
    return lambda index: (end if index % 2 else begin).replace(_DIGITS, b"%08d" % (index // 2))


def _keyed(count: int) -> Callable[[int], bytes]:
    """One key after the other, from load to load: no service meets one again before it has met many others."""
    before, after = request("bench", [("client", _DIGITS.decode())]).split(_DIGITS)
    numbers = itertools.count()
    return lambda index: b"%b%08d%b" % (before, next(numbers) % count, after)


def _memory_of(service: Served) -> int:
    return sum(memory_bytes(pid) for pid in process_tree(service.process.pid))


def _rows(title: str, found: Cost, *, budget: float | None = None) -> Sequence[Row]:
    return (
        Row(f"{title}: CPU of the service", found.cpu_us, "µs", budget),
        Row(title, found.load.requests_per_s, "decisions/s"),
        Row(f"{title}, p50", found.load.p50_ms, "ms"),
        Row(f"{title}, p99", found.load.p99_ms, "ms"),
    )


if __name__ == "__main__":
    from rich.console import Console

    from benchmarks.rows import print_table

    print_table(asyncio.run(measure(None)), Console())
