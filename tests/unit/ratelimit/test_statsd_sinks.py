# pyright: standard
"""How statsd lines come to a collector, and what is said when they do not."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from ratelimit_service.main import worker
from ratelimit_service.model import Rule, Unit
from ratelimit_service.settings import RateLimitSettings
from ratelimit_service.stats import StatsRegistry
from ratelimit_service.statsd.main import Statsd
from ratelimit_service.statsd.sinks import MAX_DATAGRAM, UdpSink, datagrams, sink_of
from ratelimit_service.statsd.target import Dialect, StatsdTarget
from tests.support.http import fetch
from tests.support.ports import free_port
from tests.support.statsd import Collector, counts_of
from tests.support.waiting import until


def test_datagrams_are_not_longer_than_what_passes_whole() -> None:
    lines = [b"%d" % number * 50 + b"\n" for number in range(1000, 1100)]
    packed = list(datagrams(lines))
    assert b"".join(packed) == b"".join(lines)
    assert all(len(each) <= MAX_DATAGRAM and each.endswith(b"\n") for each in packed)
    assert len(packed) < 20
    long = b"x" * 2000 + b"\n"
    assert list(datagrams([b"a\n", long, b"b\n"])) == [b"a\n", long, b"b\n"]


async def test_ten_thousand_limits_come_over_udp_without_a_loss() -> None:
    stats = StatsRegistry()
    stats.configure([Rule("d", f"limit_{number}", Unit.DAY, 1) for number in range(10_000)])
    for _, each in stats.items():
        each.total, each.within = 2, 2
    async with Collector() as collector:
        target = StatsdTarget(Dialect.UDP, "127.0.0.1", collector.port)
        await counts_of(stats).flush(UdpSink(target))
        await until(
            lambda: len(collector.counters) == 20_000, what="all limits", detail=lambda: str(len(collector.counters))
        )
    assert set(collector.counters.values()) == {2}


async def test_a_collector_over_tcp_that_went_and_came_again_is_told_all(caplog: pytest.LogCaptureFixture) -> None:
    stats = StatsRegistry()
    stats.configure([Rule("d", "a", Unit.DAY, 1)])
    name = "ratelimit.service.rate_limit.d.a.total_hits"
    total: Counter[str] = Counter()
    async with Collector(tcp=True, counters=total) as collector:
        port = collector.port
        target = StatsdTarget(Dialect.TCP, "localhost", port)
        statsd = Statsd(counts_of(stats), sink_of(target), name=str(target), every_s=10)
        stats.of("d", "a").total += 1
        await statsd.flush()
        await until(lambda: total[name] == 1, what="the first count")

    async def is_missed() -> bool:
        # The end of the connection may be heard of later: what is sent until then is lost.
        stats.of("d", "a").total += 1
        await statsd.flush()
        return statsd.without is not None

    with caplog.at_level(logging.INFO):
        await until(is_missed, what="the lost collector to be noticed")
        stats.of("d", "a").total += 3
        await statsd.flush()
        async with Collector(tcp=True, port=port, counters=total) as collector:
            await statsd.flush()
            await until(lambda: total[name] >= 5, what="what was counted meanwhile", detail=lambda: str(total))
            await statsd.close()
    assert total[name] <= stats.of("d", "a").total
    assert len(caplog.records) == 2


async def test_a_collector_that_does_not_read_is_given_up() -> None:
    stats = StatsRegistry(max_descriptors=100_000)
    stats.configure([Rule("d", f"{'x' * 200}{number}", Unit.DAY, 1) for number in range(500)])
    blocked: list[Any] = []
    server = await asyncio.start_server(lambda r, w: blocked.append((r, w)), "127.0.0.1", 0, limit=1024)
    try:
        port = server.sockets[0].getsockname()[1]
        sink = sink_of(StatsdTarget(Dialect.TCP, "127.0.0.1", port))
        statsd = Statsd(counts_of(stats), sink, name="collector", every_s=10)
        for _ in range(200):
            for _, each in stats.items():
                each.total += 1
            await statsd.flush()
            if statsd.without is not None:
                break
        assert statsd.without == "collector cannot be told: TimeoutError"
    finally:
        server.close()
        for _, writer in blocked:
            writer.transport.abort()


@pytest.mark.parametrize("host", ["no-such-host.invalid", "x" * 64 + ".example"])
async def test_a_name_that_nobody_has_is_said_and_no_more(host: str) -> None:
    statsd = Statsd(
        counts_of(StatsRegistry(), others={"x": 1}),
        UdpSink(StatsdTarget(Dialect.UDP, host, 8125)),
        name="it",
        every_s=10,
    )
    await statsd.flush()
    assert statsd.without is not None
    assert statsd.without.startswith("it cannot be told: ")


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"statsd": "collector:8125"}, "expected udp://, tcp:// or dogstatsd:// and HOST:PORT"),
        ({"statsd": "udp://unix:/x"}, "expected udp://HOST:PORT"),
        ({"statsd": "udp://collector:0"}, "expected udp://HOST:PORT"),
        ({"statsd": "udp://c:1", "statsd_tags": ["a"]}, "a: expected name:value"),
        ({"statsd": "udp://c:1", "statsd_tags": ["a:b\nc"]}, "expected name:value"),
        ({"statsd": "udp://c:1", "statsd_rewrites": {"a": {"pattern": "a", "name": "b"}}}, "is for statsd: dogstatsd"),
        (
            {"statsd": "dogstatsd://c:1", "statsd_rewrites": {"a": {"pattern": "(", "name": "b"}}},
            "not a regular expression",
        ),
        ({"statsd": "udp://c:1", "statsd_interval_s": 0}, "greater than or equal to 0.1"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused(settings: dict[str, object], fault: str) -> None:
    with pytest.raises(ValidationError, match=fault.replace("(", r"\(")):
        RateLimitSettings(listen="unix:/x", config=Path("x"), **settings)  # type: ignore[arg-type]


async def test_a_worker_whose_collector_is_away_is_ready_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "limits.yaml").write_text("domain: d\n")
    settings = RateLimitSettings(
        listen=f"unix:{tmp_path}/grpc",
        http="127.0.0.1:0",
        config=tmp_path / "limits.yaml",
        statsd=f"tcp://127.0.0.1:{free_port()}",
        statsd_interval_s=0.1,
    )
    async with worker(settings) as running:
        assert running.http is not None
        port = running.http.port

        async def is_said() -> bool:
            ready = await fetch(port, "/health/ready")
            assert ready.status == 200
            return "cannot be told" in str(ready.json()["degraded"].get("statsd"))

        await until(is_said, what="the collector that is away")


def test_addresses_of_ipv6_are_collectors_too() -> None:
    target = StatsdTarget.parse("dogstatsd://[::1]:8125")
    assert (target.host, str(target)) == ("::1", "dogstatsd://[::1]:8125")
