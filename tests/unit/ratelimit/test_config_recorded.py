# pyright: standard
"""What envoyproxy/ratelimit answered to recorded requests, this service answers too: see tools/record_ratelimit.py."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from ratelimit_service.stats import StatsRegistry
from ratelimit_service.stores.base import Store
from ratelimit_service.stores.memory import MemoryStore
from ratelimit_service.stores.redis_store import RedisStore
from ratelimit_service.stores.redis_url import RedisTarget
from tests.support.recorded import FOLDER, Recorded
from tests.support.redis import RedisServer
from tests.support.replay import Replay
from tests.support.waiting import until

OVER_LIMIT = 2
RECORDINGS = sorted(FOLDER.glob("*.json"))


@pytest.fixture(params=["memory", "redis"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    if request.param == "memory":
        yield MemoryStore()
        return
    async with RedisServer() as redis:
        # Time enough for a machine that is busy with other tests.
        counting = RedisStore(RedisTarget.parse(redis.unix_url), timeout_s=5.0)
        counting.start()
        await until(lambda: counting.available, what="the connection to Redis")
        yield counting
        await counting.close()


@pytest.mark.parametrize("recording", RECORDINGS, ids=lambda path: path.stem)
async def test_every_recorded_request_is_answered_as_it_was(recording: Path, store: Store) -> None:
    recorded = Recorded.read(recording)
    replay = Replay(recorded, store)
    wrong: list[str] = []
    for number, (at, domain, descriptors, hits, answer) in enumerate(recorded.exchanges):
        given = await replay.ask(at, domain, descriptors, hits)
        if not agrees(given, answer):
            wrong.append(f"{number}: {domain} {descriptors} {hits}\n  theirs {answer}\n  ours   {given}")
    assert wrong == [], "\n".join(wrong[:10])


def agrees(ours: Any, theirs: Any) -> bool:
    """Compares answers; the two differences are told in docs/ratelimit/migrating.md."""
    (our_code, our_statuses, our_headers, our_quota), (code, statuses, headers, quota) = ours, theirs
    # Of a limit in quota mode that is over, they leave out the time until it resets.
    shown = [
        each if each[5:] != [0] else [*each[:5], mine[5]] for mine, each in zip(our_statuses, statuses, strict=True)
    ]
    over = [each for each in statuses if each[0] == OVER_LIMIT]
    if len(over) > 1 and our_headers != headers:
        # Of several limits that are over, they tell of the last one, and we of the one that lasts longest.
        headers = [str(max(over, key=lambda each: each[5])[5])]
        our_headers = our_headers[2:]
    return (our_code, our_statuses, our_headers, our_quota) == (code, shown, headers, quota)


@pytest.mark.parametrize("recording", RECORDINGS, ids=lambda path: path.stem)
async def test_metrics_count_what_was_counted_under_the_same_names(recording: Path) -> None:
    recorded = Recorded.read(recording)
    replay = Replay(recorded, MemoryStore())
    for at, domain, descriptors, hits, _ in recorded.exchanges:
        await replay.ask(at, domain, descriptors, hits)
    expected = dict(recorded.stats)
    assert replay.answers.shadowed == expected.pop("ratelimit.service.global_shadow_mode", 0)
    assert counted(replay.stats) == expected


def counted(stats: StatsRegistry) -> dict[str, int]:
    """The counters as statsd has them."""
    found: Counter[str] = Counter()
    for (domain, path), each in stats.items():
        name = sanitised(f"{domain}.{path}")
        numbers = {"total_hits": each.total, "over_limit": each.over, "near_limit": each.near}
        numbers |= {"within_limit": each.within, "shadow_mode": each.shadow}
        found.update({f"{name}.{what}": number for what, number in numbers.items() if number})
    return dict(sorted(found.items()))


def sanitised(name: str) -> str:
    """What envoyproxy/ratelimit makes of a name that has colons, bars or addresses."""
    name = name.replace(":", "_").replace("|", "_")
    return re.sub(r"\d{1,3}(?:\.\d{1,3}){3}", lambda found: found[0].replace(".", "_"), name)
