# pyright: standard
"""Several workers without Redis: they count in one memory, the first worker's, exactly."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import tempfile
from collections import Counter
from pathlib import Path

from tests.support.ratelimit import request
from tests.support.ratelimit_process import ask, metrics, ready, running
from tests.support.waiting import until

OK, OVER = 1, 2
CONFIG = """
domain: d
descriptors:
  - {key: k, rate_limit: {unit: day, requests_per_unit: 1000}}
  - {key: b, rate_limit: {unit: day, requests_per_unit: 1000, algorithm: token_bucket}}
  - {key: open, rate_limit: {unit: day, requests_per_unit: 10}}
  - {key: strict, rate_limit: {unit: day, requests_per_unit: 10, on_store_error: deny}}
  - {key: local, rate_limit: {unit: day, requests_per_unit: 10, on_store_error: local}}
"""


def sockets(tmp_path: Path, workers: int) -> list[Path]:
    return [tmp_path / f"rl.sock.{worker}" for worker in range(workers)]


async def until_all_count(process: object, workers: int) -> None:
    """Waits until every worker can ask the first one."""

    async def all_count() -> bool:
        state = await ready(process)
        return state["status"] == "ready" and not any(each["degraded"] for each in state["workers"].values())

    await until(all_count, what=f"{workers} workers to reach the memory", within_s=20)


async def test_three_workers_share_limits_in_memory_exactly(tmp_path: Path) -> None:
    config = tmp_path / "limits.yaml"
    config.write_text(CONFIG)
    async with running(tmp_path, config=str(config), workers=3, store_timeout_s=5) as process:
        await until_all_count(process, 3)
        for key in "kb":
            bodies = [request("d", [(key, "x")])] * 500
            answers = await asyncio.gather(*(ask(path, *bodies) for path in sockets(tmp_path, 3)))
            codes = Counter(response.overall_code for part in answers for response in part)
            assert codes == {OK: 1000, OVER: 500}
        found = await metrics(process)
        # Some were known to be over, and not asked for.
        assert 0 < found["dragoman_ratelimit_store_served_total", frozenset({("worker", "0")})] <= 2000
        assert found["dragoman_ratelimit_store_keys", frozenset({("worker", "0")})] == 2
        assert await process.stop() == 0


async def test_a_worker_that_knows_of_a_limit_that_it_is_used_up_asks_no_more(tmp_path: Path) -> None:
    config = tmp_path / "limits.yaml"
    config.write_text(CONFIG)
    served = "dragoman_ratelimit_store_served_total", frozenset({("worker", "0")})
    async with running(tmp_path, config=str(config), workers=2, store_timeout_s=5) as process:
        await until_all_count(process, 2)
        first, other = sockets(tmp_path, 2)
        for key in "kb":
            body = request("d", [(key, "x")])
            await ask(first, *[body] * 1001)
            # The first one knows; the other one has to learn it.
            assert [r.overall_code for r in await ask(other, body)] == [OVER]
            asked = (await metrics(process))[served]
            assert {r.overall_code for r in await ask(other, *[body] * 200)} == {OVER}
            found = await metrics(process)
            assert found[served] == asked
            labels = frozenset({("domain", "d"), ("descriptor", key), ("worker", "1")})
            assert found["dragoman_ratelimit_hits_over_local_total", labels] == 200


async def test_the_memory_of_a_pool_is_for_its_user_alone(tmp_path: Path) -> None:
    config = tmp_path / "limits.yaml"
    config.write_text(CONFIG)
    with tempfile.TemporaryDirectory(prefix="dgm-") as folder:
        async with running(tmp_path, environment={"TMPDIR": folder}, config=str(config), workers=2) as process:
            await until_all_count(process, 2)
            (socket,) = await asyncio.to_thread(lambda: list(Path(folder).glob("dragoman-ratelimit-*/memory.sock")))
            modes = [stat.S_IMODE(os.stat(path).st_mode) for path in (socket, socket.parent)]
            assert modes == [0o600, 0o700]


async def test_the_others_follow_on_store_error_while_the_worker_that_counts_is_away_and_come_back(
    tmp_path: Path,
) -> None:
    config = tmp_path / "limits.yaml"
    config.write_text(CONFIG)
    bodies = [request("d", [(key, "x")]) for key in ("open", "strict")]
    async with running(tmp_path, config=str(config), workers=2) as process:
        await until_all_count(process, 2)
        _, other = sockets(tmp_path, 2)
        for _ in range(10):
            await ask(other, bodies[0])
        assert [r.overall_code for r in await ask(other, *bodies)] == [OVER, OK]
        since = frozenset({("worker", "0")})
        before = (await metrics(process))["dragoman_ratelimit_store_since_seconds", since]
        os.kill(await asyncio.to_thread(worker_of, process.pid, 0), signal.SIGKILL)

        async def followed() -> bool:
            codes = [r.overall_code for r in await ask(other, request("d", [("open", "y")]), bodies[1])]
            return codes == [OK, OVER]

        await until(followed, what="the other worker to follow on_store_error")
        # Of ten in all, this one of two lets through five by itself.
        local = [await ask(other, request("d", [("local", "x")])) for _ in range(8)]
        assert [r.overall_code for (r,) in local] == [OK] * 5 + [OVER] * 3
        await until_all_count(process, 2)
        assert [r.overall_code for r in await ask(other, request("d", [("open", "z")]), bodies[1])] == [OK, OK]
        found = await metrics(process)
        assert found["dragoman_ratelimit_store_since_seconds", since] > before
        assert found["dragoman_ratelimit_local_checks_total", frozenset({("worker", "1")})] == 8
        assert await process.stop() == 0
    told = process.output()
    assert told.count("the worker that counts in memory is out of reach") == 1
    assert told.count("the worker that counts in memory answers again") == 1
    assert told.count("its counts with it: all limits begin anew") == 1


def worker_of(supervisor: int, index: int) -> int:
    """Returns the process id of a worker."""
    children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
    (found,) = [pid for pid in children if f"/{index}.json".encode() in Path(f"/proc/{pid}/cmdline").read_bytes()]
    return int(found)
