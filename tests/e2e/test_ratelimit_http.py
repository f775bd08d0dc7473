"""The HTTP port of a pool of workers: one answers for all of them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tests.support.http import fetch
from tests.support.ports import free_port
from tests.support.process import ChildProcess
from tests.support.redis import RedisServer
from tests.support.waiting import until

CONFIG = "{domain: shop, descriptors: [{key: path, rate_limit: {unit: day, requests_per_unit: 2}}]}"
ASKED = json.dumps({"domain": "shop", "descriptors": [{"entries": [{"key": "path", "value": "/"}]}]}).encode()


async def test_a_pool_decides_by_json_and_shows_its_health_and_what_is_in_force(tmp_path: Path) -> None:
    config, settings, http = tmp_path / "limits.yaml", tmp_path / "settings.json", free_port()
    config.write_text(CONFIG)
    async with RedisServer() as redis:
        given = {"listen": f"unix:{tmp_path}/rl", "http": f"127.0.0.1:{http}", "config": str(config), "workers": 2}
        settings.write_text(json.dumps({**given, "redis": redis.url, "store_timeout_s": 5}))
        command = [sys.executable, "-P", "-m", "ratelimit_service", str(settings)]
        process = ChildProcess(command, log=tmp_path / "service.log")

        async def healthy() -> bool:
            answer = await fetch(http, "/healthcheck")
            assert answer.status in (200, 500), process.tail()
            return answer.body == b"OK"

        try:
            await until(healthy, what="the pool", within_s=30, detail=process.tail)
            answers = [await fetch(http, "/json", method="POST", body=ASKED) for _ in range(4)]
            assert [answer.status for answer in answers] == [200, 200, 429, 429]
            assert answers[0].json()["overallCode"] == "OK"
            assert answers[0].header("content-type") == "application/json"
            assert (await fetch(http, "/json", method="POST", body=b"{")).status == 400
            assert (await fetch(http, "/json")).status == 405
            assert (await fetch(http, "/rlconfig")).text.startswith("shop.path: unit=DAY requests_per_unit=2,")
            assert (await fetch(http, "/rlconfig?format=json")).json()["domains"] == ["shop"]
        finally:
            assert await process.stop() == 0
