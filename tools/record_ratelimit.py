# pyright: standard, reportAttributeAccessIssue=false
"""Records what envoyproxy/ratelimit answers: `python tools/record_ratelimit.py --peer PATH` rewrites the recordings.

Each configuration of tests/unit/ratelimit/recorded is asked random requests, the same ones every time, of the real
service with a real Redis. A test asks ours the same and compares.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import grpc.aio
from envoy.service.ratelimit.v3 import rls_pb2
from envoy.type.v3 import ratelimit_unit_pb2

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.support.ports import free_ports
from tests.support.process import ChildProcess
from tests.support.recorded import FOLDER, Recorded, answer_of, request_of
from tests.support.redis import RedisServer
from tests.support.statsd import Collector
from tests.support.waiting import until

_METHOD: Final = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"
_DAY: Final = ratelimit_unit_pb2.DAY
_THEIRS: Final = ("ratelimit.go.", "ratelimit.redis_pool.", "ratelimit.localcache.", "runtime.", "datadog.")
"""What begins so is about the insides of that service."""
_STATS: Final = ("total_hits", "over_limit", "near_limit", "within_limit", "shadow_mode")

Entry = tuple[str, str]
Descriptor = dict[str, Any]


@dataclass(frozen=True)
class Scene:
    """What is asked of which files, and how the service is set."""

    name: str
    files: tuple[str, ...]
    requests: int
    pause_s: float = 0.0
    env: Mapping[str, str] = field(default_factory=dict)
    lines: bool = False
    """Whether all statsd lines are recorded, with their tags, rather than what they add up to for each limit."""


_TAGGED: Final = {"EXTRA_TAGS": "zone:eu.1,app:shop", "LOCAL_CACHE_SIZE_IN_BYTES": "1000000"}
_DATADOG: Final = {
    "USE_STATSD": "false",
    "USE_DOG_STATSD": "true",
    "USE_DOG_STATSD_MOGRIFIERS": "LIMIT,CALL",
    "DOG_STATSD_MOGRIFIER_LIMIT_PATTERN": r"^ratelimit\.service\.rate_limit\.([^.]*)\.(.*)\.([^.]*)$",
    "DOG_STATSD_MOGRIFIER_LIMIT_NAME": "ratelimit.limit.$3",
    "DOG_STATSD_MOGRIFIER_LIMIT_TAGS": "domain:$1,descriptor:$2,none:$4",
    "DOG_STATSD_MOGRIFIER_CALL_PATTERN": r"ratelimit_server\.(?P<method>\w+)\.(total_)?(\w+)",
    "DOG_STATSD_MOGRIFIER_CALL_NAME": "ratelimit.call.$3",
    "DOG_STATSD_MOGRIFIER_CALL_TAGS": "method:$1,kind:x$2",
}

SCENES: Final = (
    Scene("features", ("features.yaml",), 2000),
    Scene("windows", ("windows.yaml",), 400, pause_s=0.01),
    Scene("merged", ("merged-1.yaml", "merged-2.yaml"), 100, env={"MERGE_DOMAIN_CONFIG": "true"}),
    Scene("all-in-shadow-mode", ("features.yaml",), 300, env={"SHADOW_MODE": "true"}),
    Scene("all-in-quota-mode", ("features.yaml",), 300, env={"QUOTA_MODE": "true"}),
    Scene("looking", ("looking.yaml",), 1500, env={"STOP_CACHE_KEY_INCREMENT_WHEN_OVERLIMIT": "true"}),
    Scene("statsd-tcp", ("features.yaml",), 200, env={"SHADOW_MODE": "true"}, lines=True),
    Scene("statsd-udp", ("features.yaml",), 300, env=_TAGGED | {"STATSD_PROTOCOL": "udp"}, lines=True),
    Scene("statsd-dogstatsd", ("features.yaml",), 300, env=_TAGGED | _DATADOG, lines=True),
)

# Values to choose from for each key; what is not in the configuration is among them.
_VALUES: Final[Mapping[str, Sequence[str]]] = {
    "plain": ("a", "b", "10.0.0.1", "", "a:b|c"),
    "chosen": ("gold", "silver", "goldfish"),
    "path": ("/a/b", "/a/bc", "/a/bcd", "/a/x", "/z", "", "/a/b*", "*"),
    "wide": ("open", "shut"),
    "wide_open": ("", "x"),
    "prefix": ("a", "b"),
    "shared": ("s/1", "s/2", "s/*", "t/1", "deep"),
    "free": ("x",),
    "staff": ("x",),
    "base": ("a", "b"),
    "other": ("a",),
    "vip": ("a",),
    "shadow": ("a", "b"),
    "quota": ("a", "b"),
    "detail": ("a", "b", ""),
    "told": ("a", "b", ""),
    "never": ("a",),
    "most": ("a",),
    "node": ("a",),
    "hour": ("a", "b"),
    "unknown": ("a",),
}
_PATHS: Final[Sequence[Sequence[tuple[str, Sequence[str]]]]] = (
    (("tree", ("t", "t1", "v", "w")), ("leaf", ("l", "l1", "x", ""))),
    (("tree", ("v",)), ("leaf", ("l",)), ("twig", ("a", "b", ""))),
    (("tree", ("v",)), ("leaf", ("l",)), ("twig", ("a",)), ("beyond", ("a",))),
    (("tree", ("v", "t1")),),
    (("shared", ("deep/1", "deep/2")), ("user", ("ann", "bob"))),
    (("shared", ("deep/1", "deep/2")), ("kind", ("k1", "k2", "x"))),
    (("detail", ("a", "b")), ("more", ("x", "y", ""))),
    (("told", ("a", "b")), ("more", ("m1", "m2", "x"))),
    (("told", ("a", "b")), ("quiet", ("q", ""))),
    (("node", ("a",)), ("below", ("x", "y"))),
    (("node", ("a",)), ("empty", ("x",))),
    (("plain", ("a",)), ("more", ("b",))),
)


def features(chance: random.Random) -> tuple[str, list[Descriptor], int]:
    """Returns a request for the features: its domain, descriptors and hits_addend."""
    domain = "features" if chance.random() < 0.97 else "no-such-domain"
    descriptors: list[Descriptor] = []
    for _ in range(chance.choices((1, 2, 3, 4), (60, 25, 10, 5))[0]):
        if chance.random() < 0.3:
            entries = [(key, chance.choice(values)) for key, values in chance.choice(_PATHS)]
        else:
            key = chance.choice(list(_VALUES))
            entries = [(key, chance.choice(_VALUES[key]))]
        descriptor: Descriptor = {"e": entries}
        if chance.random() < 0.15:
            descriptor["h"] = chance.choice((0, 0, 1, 2, 5))
        if chance.random() < 0.06:
            # Of counters of their own: what is over one limit is not counted further here, so a counter that two
            # limits share may stand lower.
            limit = chance.choice((1, 3, 5))
            key, value = chance.choice(
                (("plain", "brought"), ("shadow", "brought"), ("unknown", "10.1.2.3"), ("tree", ""))
            )
            descriptor |= {"e": [(key, f"{value}-{limit}")], "l": [limit, _DAY]}
        descriptors.append(descriptor)
    if chance.random() < 0.02:
        descriptors.append({"e": []})
    return domain, descriptors, chance.choices((0, 1, 2, 3), (70, 10, 15, 5))[0]


def windows(chance: random.Random) -> tuple[str, list[Descriptor], int]:
    """Returns a request for short windows."""
    entries = chance.choice(
        (
            [("second", chance.choice("ab"))],
            [("minute", "a")],
            [("both", "a")],
            [("both", "a"), ("shadow", chance.choice("ab"))],
        )
    )
    return "windows", [{"e": entries}], chance.choice((0, 0, 0, 2))


def looking(chance: random.Random) -> tuple[str, list[Descriptor], int]:
    """Returns a request for several limits at a time, some of them used up before others."""
    descriptors: list[Descriptor] = []
    for _ in range(chance.choices((1, 2, 3, 4), (10, 40, 30, 20))[0]):
        key = chance.choice(("small", "small", "large", "huge", "shadow", "quota", "none", "unlimited"))
        descriptor: Descriptor = {"e": [(key, str(chance.randrange(12)))]}
        if chance.random() < 0.3:
            descriptor["h"] = chance.choice((0, 1, 2, 4))
        descriptors.append(descriptor)
    if chance.random() < 0.1:
        descriptors.append(descriptors[0])
    return "looking", descriptors, chance.choices((0, 2, 3), (80, 15, 5))[0]


def merged(chance: random.Random) -> tuple[str, list[Descriptor], int]:
    """Returns a request for the domain of two files."""
    entry = chance.choice((("a", "1"), ("b", "1"), ("w", "x1"), ("w", "y1"), ("c", "1")))
    return "merged", [{"e": [entry]}], 0


_MAKERS: Final = {"windows.yaml": windows, "merged-1.yaml": merged, "looking.yaml": looking}


def requests_of(scene: Scene) -> Iterator[tuple[str, list[Descriptor], int]]:
    """Yields the scene's requests, the same ones every time."""
    chance = random.Random(scene.name)  # noqa: S311  (no secret)
    make = _MAKERS.get(scene.files[0], features)
    for _ in range(scene.requests):
        yield make(chance)


async def record(scene: Scene, peer: Path, home: Path) -> Recorded:
    """Plays a scene to the service, and returns what it answered."""
    exchanges: list[Any] = []
    stats: Counter[str] = Counter()
    async with (
        RedisServer() as redis,
        _statsd(stats, scene) as statsd,
        _serving(scene, peer, home, redis, statsd) as ask,
    ):
        for domain, descriptors, hits in requests_of(scene):
            # A request is in the second that it is noted with.
            await asyncio.sleep(max(0.0, 1.001 - time.time() % 1) if time.time() % 1 > 0.9 else 0)
            at = time.time()
            response = rls_pb2.RateLimitResponse.FromString(await ask(request_of(domain, descriptors, hits)))
            assert int(time.time()) == int(at), "the machine is too busy to record"
            exchanges.append([int(at), domain, descriptors, hits, answer_of(response)])
            await asyncio.sleep(scene.pause_s)
        await _all_stats(stats)
    return Recorded(scene.files, dict(scene.env), exchanges, _told(stats))


@contextlib.asynccontextmanager
async def _serving(scene: Scene, peer: Path, home: Path, redis: RedisServer, statsd: int) -> AsyncIterator[Any]:
    folder = home / scene.name / "config"
    folder.mkdir(parents=True)
    for name in scene.files:
        (folder / name).write_bytes((FOLDER / name).read_bytes())
    port, debug_port, grpc_port = free_ports(3)
    socket = home / f"{scene.name}.sock"
    env = {
        "USE_STATSD": "true",
        "STATSD_HOST": "127.0.0.1",
        "STATSD_PORT": str(statsd),
        "STATS_FLUSH_INTERVAL": "100ms",
        "GOSTATS_FLUSH_INTERVAL_SECONDS": "1",
        "LOG_LEVEL": "warn",
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "DEBUG_HOST": "127.0.0.1",
        "DEBUG_PORT": str(debug_port),
        "GRPC_HOST": "127.0.0.1",
        "GRPC_PORT": str(grpc_port),
        "GRPC_UDS": str(socket),
        "BACKEND_TYPE": "redis",
        "REDIS_SOCKET_TYPE": "unix",
        "REDIS_URL": redis.unix_path,
        "RUNTIME_ROOT": str(home),
        "RUNTIME_SUBDIRECTORY": scene.name,
        "RUNTIME_WATCH_ROOT": "false",
        "LIMIT_RESPONSE_HEADERS_ENABLED": "true",
        "RESPONSE_DYNAMIC_METADATA": "true",
        **scene.env,
    }
    process = ChildProcess([str(peer)], log=home / f"{scene.name}.log", cwd=home, env=env)
    try:
        async with grpc.aio.insecure_channel(f"unix:{socket}") as channel:
            ask = channel.unary_unary(_METHOD)

            async def serves() -> bool:
                assert process.exit_code is None, process.tail()
                with contextlib.suppress(grpc.aio.AioRpcError):
                    await ask(request_of("none", [{"e": [("none", "")]}], 0))
                    return True
                return False

            await until(serves, what="the service", detail=process.tail)
            yield ask
    finally:
        await process.stop()


@contextlib.asynccontextmanager
async def _statsd(stats: Counter[str], scene: Scene) -> AsyncIterator[int]:
    """Adds up the counters that come in, over UDP or TCP; yields the port."""
    if scene.lines:
        async with Collector(tcp=scene.name.endswith("tcp"), counters=stats) as collector:
            yield collector.port
        return

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.CancelledError, ConnectionError):
            async for line in reader:
                name, _, rest = line.decode().strip().removeprefix("ratelimit.service.rate_limit.").rpartition(":")
                value, _, kind = rest.partition("|")
                if kind == "c" and name.endswith(_STATS):
                    stats[name] += int(value)
        writer.close()

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def _told(stats: Counter[str]) -> dict[str, int]:
    return {name: count for name, count in sorted(stats.items()) if not name.startswith(_THEIRS)}


async def _all_stats(stats: Counter[str]) -> None:
    for _ in range(4):
        before = _told(stats)
        await asyncio.sleep(3)
        if _told(stats) == before and before:
            return
    raise AssertionError("the statistics do not come to an end")


async def main() -> None:
    """Records the scenes that are named, else all of them."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--peer", type=Path, required=True, help="the binary of envoyproxy/ratelimit")
    options.add_argument("scene", nargs="*", help="what to record [default: all]")
    given = options.parse_args()
    for scene in SCENES:
        if given.scene and scene.name not in given.scene:
            continue
        with tempfile.TemporaryDirectory(prefix="dgm-") as home:
            recorded = await record(scene, given.peer, Path(home))
        recorded.write((FOLDER / "statsd" if scene.lines else FOLDER) / f"{scene.name}.json")
        sys.stdout.write(f"{scene.name}: {len(recorded.exchanges)} requests, {len(recorded.stats)} counters\n")


if __name__ == "__main__":
    asyncio.run(main())
