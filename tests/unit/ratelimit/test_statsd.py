# pyright: standard
"""What a statsd collector is told: the lines that envoyproxy/ratelimit sent it, name for name and count for count."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from dragoman import settings as layers
from dragoman.grpc_worker import StatusCode
from dragoman.metrics import CallMetrics
from ratelimit_service.environment import translate
from ratelimit_service.model import Rule, Unit
from ratelimit_service.settings import RateLimitSettings
from ratelimit_service.stats import StatsRegistry
from ratelimit_service.statsd.counts import LIMITS, TIMES_AT_ONCE, Counts
from ratelimit_service.statsd.main import Statsd
from ratelimit_service.statsd.names import Writer, sanitised
from ratelimit_service.statsd.sinks import sink_of
from ratelimit_service.statsd.target import Dialect, Rewrite, StatsdTarget, tags_of
from ratelimit_service.stores.memory import MemoryStore
from tests.support.recorded import FOLDER, Recorded
from tests.support.replay import Replay
from tests.support.statsd import Collector, counts_of
from tests.support.waiting import until

RECORDINGS = sorted((FOLDER / "statsd").glob("*.json"))
LOCAL = "over_limit_with_local_cache"


class Kept:
    """A sink that keeps lines, or fails."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.fails = False

    async def send(self, lines: Sequence[bytes]) -> None:
        if self.fails:
            raise ConnectionRefusedError("nobody listens")
        self.lines += [line.decode().rstrip("\n") for line in lines]

    def close(self) -> None:
        self.lines.append("closed")

    def taken(self) -> list[str]:
        taken, self.lines = sorted(self.lines), []
        return taken


def settings_of(environ: Mapping[str, str], port: int) -> RateLimitSettings:
    translated = translate({**environ, "STATSD_HOST": "127.0.0.1", "STATSD_PORT": str(port)})
    assert translated.faults == []
    ours = {f"DRAGOMAN_{name.upper()}": value for name, value in translated.settings.items()}
    return layers.load(RateLimitSettings, environ=ours)


@pytest.mark.parametrize("recording", RECORDINGS, ids=lambda path: path.stem)
async def test_a_collector_is_told_what_envoyproxy_ratelimit_told_it(recording: Path) -> None:
    recorded = Recorded.read(recording)
    replay = Replay(recorded, MemoryStore())
    await replay.ask_all(recorded)
    async with Collector(tcp="tcp" in recording.stem) as collector:
        # What the variables of the recording say of tags, protocol and names is what we do.
        settings = settings_of(recorded.env, collector.port)
        assert settings.statsd is not None
        target = StatsdTarget.parse(settings.statsd)
        writer = Writer(target.dialect, tags=tags_of(settings.statsd_tags), rewrites=settings.statsd_rewrites)

        def others() -> Mapping[str, int]:
            told = {
                "ratelimit.service.config_load_success": 1,
                "ratelimit.service.global_shadow_mode": replay.answers.shadowed,
            }
            told["ratelimit_server.ShouldRateLimit.total_requests"] = len(recorded.exchanges) + 1
            # The recording's first request finds out that the service is there.
            unknown = replay.stats.unknown_domains | {"none": 1}
            return told | {f"{LIMITS}.{name}.domain_not_found": count for name, count in unknown.items()}

        counts = Counts(replay.stats, writer, others=lambda: others().items(), calls=dict)
        statsd = Statsd(counts, sink_of(target), name=str(target), every_s=10)
        await statsd.flush()
        await statsd.close()
        expected = dict(recorded.stats)
        with contextlib.suppress(AssertionError):
            await until(lambda: told(collector, recorded) == expected, what="all that was counted", within_s=3)
    assert told(collector, recorded) == expected
    assert collector.garbled == []


def told(collector: Collector, recorded: Recorded) -> dict[str, int]:
    """What the collector was told, without what that service tells only if it has a cache."""
    cached = "LOCAL_CACHE_SIZE_IN_BYTES" in recorded.env
    return {name: count for name, count in collector.counters.items() if cached or LOCAL not in name}


async def test_only_what_is_new_is_told() -> None:
    stats, sink = StatsRegistry(), Kept()
    stats.configure([Rule("d", "a", Unit.DAY, 1), Rule("d", "b", Unit.DAY, 1)])
    counts = counts_of(stats)
    await counts.flush(sink)
    assert sink.taken() == []
    stats.of("d", "a").total += 3
    await counts.flush(sink)
    assert sink.taken() == ["ratelimit.service.rate_limit.d.a.total_hits:3|c"]
    stats.of("d", "a").total += 1
    stats.of("d", "b").over += 2
    await counts.flush(sink)
    assert sink.taken() == [
        "ratelimit.service.rate_limit.d.a.total_hits:1|c",
        "ratelimit.service.rate_limit.d.b.over_limit:2|c",
    ]


async def test_a_limit_that_went_and_came_again_counts_from_the_beginning() -> None:
    stats, sink = StatsRegistry(), Kept()
    counts = counts_of(stats)
    rules = [Rule("d", "a", Unit.DAY, 1)]
    stats.configure(rules)
    stats.of("d", "a").total += 5
    await counts.flush(sink)
    stats.configure([])
    stats.configure(rules)
    stats.of("d", "a").total += 2
    await counts.flush(sink)
    assert sink.taken()[1:] == ["ratelimit.service.rate_limit.d.a.total_hits:5|c"]


async def test_what_could_not_be_told_is_told_later_once(caplog: pytest.LogCaptureFixture) -> None:
    stats, sink = StatsRegistry(), Kept()
    stats.configure([Rule("d", "a", Unit.DAY, 1)])
    others = {"ratelimit.service.config_load_success": 1}
    statsd = Statsd(counts_of(stats, others=others), sink, name="udp://collector:8125", every_s=10)
    sink.fails = True
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            stats.of("d", "a").total += 1
            await statsd.flush()
        assert statsd.without == "udp://collector:8125 cannot be told: nobody listens"
        sink.fails = False
        await statsd.flush()
    assert statsd.without is None
    assert sink.taken() == [
        "ratelimit.service.config_load_success:1|c",
        "ratelimit.service.rate_limit.d.a.total_hits:3|c",
    ]
    # Said when it begins and when it ends, and not at each flush.
    assert [record.getMessage() for record in caplog.records] == [
        "statsd: udp://collector:8125 cannot be told: nobody listens",
        "statsd: udp://collector:8125 is told again",
    ]


async def test_what_was_counted_last_is_told_at_the_end() -> None:
    stats, sink = StatsRegistry(), Kept()
    stats.configure([Rule("d", "a", Unit.DAY, 1)])
    statsd = Statsd(counts_of(stats), sink, name="collector", every_s=10)
    stats.of("d", "a").total += 1
    await statsd.close()
    assert sink.lines == ["ratelimit.service.rate_limit.d.a.total_hits:1|c", "closed"]


async def test_times_are_a_sample_that_is_spread_as_all_of_them_are() -> None:
    calls, sink = CallMetrics(), Kept()
    for seconds, times in ((0.0002, 900), (0.004, 90), (20.0, 10)):
        for _ in range(times):
            calls("/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit", StatusCode.OK, seconds)
    counts = counts_of(StatsRegistry(), calls=calls)
    await counts.flush(sink)
    lines = sink.taken()
    assert "ratelimit_server.ShouldRateLimit.total_requests:1000|c" in lines
    times = [line.split(":")[1].split("|") for line in lines if ".response_time:" in line]
    assert len(times) == TIMES_AT_ONCE
    assert {(kind, rate) for _, kind, rate in times} == {("ms", "@0.1")}
    values = sorted(float(value) for value, _, _ in times)
    assert all(0.1 <= value <= 0.25 for value in values[:90])
    assert all(2.5 <= value <= 5 for value in values[90:99])
    assert values[99] == 10_000
    # Few are told one by one.
    calls("/x/ShouldRateLimit", StatusCode.OK, 0.003)
    await counts.flush(sink)
    assert sink.taken() == [
        "ratelimit_server.ShouldRateLimit.response_time:3.75|ms",
        "ratelimit_server.ShouldRateLimit.total_requests:1|c",
    ]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("d.k_10.0.0.1", "d.k_10_0_0_1"),
        ("d.k_a:b|c", "d.k_a_b_c"),
        ("d.k_x:1|c\nother.service.down:1|c", "d.k_x_1_c_other.service.down_1_c"),
        ("d.k_\r\x00\x85\u2028é", "d.k_____é"),
    ],
)
def test_a_value_cannot_make_a_line_of_its_own(name: str, expected: str) -> None:
    assert sanitised(name) == expected


def test_tags_are_in_the_name_or_as_datadog_has_them() -> None:
    tags = {"zone": "eu.1", "app": "a:b|c", "none": ""}
    assert Writer(Dialect.TCP, tags=tags).counter("x", 2) == b"x.__app=a_b_c.__zone=eu_1:2|c\n"
    assert Writer(Dialect.DOGSTATSD, tags=tags).counter("x", 2) == b"x:2|c|#app:a_b_c,zone:eu_1\n"
    assert Writer(Dialect.DOGSTATSD).timer("x", 1.5, rate=0.25) == b"x:1.5|ms|@0.25\n"


def test_the_first_rewrite_that_fits_counts() -> None:
    rewrites = {
        "one": Rewrite(pattern=r"^a\.(\w+)(\.x)?$", name="one.$1.$0.$2.$7", tags={"t": "v$1"}),
        "all": Rewrite(pattern=".", name="other"),
    }
    writer = Writer(Dialect.DOGSTATSD, rewrites=rewrites)
    assert writer.counter("a.b", 1) == b"one.b.a.b..$7:1|c|#t:vb\n"
    assert writer.counter("c", 1) == b"other:1|c\n"


def test_domains_that_nobody_configured_are_bounded() -> None:
    stats = StatsRegistry()
    for number in range(150):
        stats.count_unknown(f"{number}" * 200, 2)
    assert len(stats.unknown_domains) == 101
    assert sum(stats.unknown_domains.values()) == 300
    assert stats.unknown_domain == 150
