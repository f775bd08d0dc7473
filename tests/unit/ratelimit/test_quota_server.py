# pyright: standard, reportAttributeAccessIssue=false
"""RateLimitQuotaService over real gRPC streams: what Envoys are told, and what bounds them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import grpc
import grpc.aio
import pytest
from envoy.service.rate_limit_quota.v3 import rlqs_pb2
from envoy.type.v3.ratelimit_strategy_pb2 import RateLimitStrategy

from dragoman.grpc_worker import Address, TlsFiles
from ratelimit_service.main import worker
from ratelimit_service.quota.ledger import Ledger
from ratelimit_service.quota.messages import METHOD
from ratelimit_service.quota.server import QuotaServer, StreamBounds, _Stream, serving
from ratelimit_service.settings import RateLimitSettings
from ratelimit_service.stats import StatsRegistry
from tests.support.certificates import Authority
from tests.support.http import fetch
from tests.support.ratelimit import Clock, loaded
from tests.support.waiting import until

CONFIG = """
domain: shop
descriptors:
  - key: plan
    rate_limit: {unit: second, requests_per_unit: 100, mode: quota}
  - key: watched
    rate_limit: {unit: second, requests_per_unit: 100, mode: quota}
    shadow_mode: true
"""


def report(*buckets: dict[str, str], domain: str = "shop", allowed: int = 1) -> bytes:
    message = rlqs_pb2.RateLimitQuotaUsageReports(domain=domain)
    for bucket in buckets:
        usage = message.bucket_quota_usages.add(num_requests_allowed=allowed)
        usage.bucket_id.bucket.update(bucket)
        usage.time_elapsed.seconds = 0
    return message.SerializeToString()


class Stream:
    """One stream of a client, as an Envoy has it."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.call = channel.stream_stream(METHOD)()

    async def say(self, body: bytes) -> None:
        await self.call.write(body)

    async def hear(self, *, within_s: float = 30) -> Any:
        """Returns the next message."""
        body = await asyncio.wait_for(self.call.read(), within_s)
        assert body is not grpc.aio.EOF, await self.call.code()
        return rlqs_pb2.RateLimitQuotaResponse.FromString(body)

    async def code(self) -> Any:
        """Waits for the end; returns the status."""
        return await asyncio.wait_for(self.call.code(), 30)


@contextlib.asynccontextmanager
async def served(
    bounds: StreamBounds | None = None, *, clock: Clock | None = None
) -> AsyncIterator[tuple[grpc.aio.Channel, QuotaServer, Ledger]]:
    clock = clock or Clock()
    config = loaded(CONFIG)
    ledger = Ledger(lambda: config, StatsRegistry(), clock=clock)
    ledger.open(-1)
    ledger.close(-1)
    clock.now += 60
    async with (
        serving(ledger, listen=Address.parse("127.0.0.1:0"), tls=None, bounds=bounds) as server,
        grpc.aio.insecure_channel(str(server.address)) as channel,
    ):
        yield channel, server, ledger


async def test_a_first_report_is_answered_with_a_share() -> None:
    async with served() as (channel, _, _):
        stream = Stream(channel)
        await stream.say(report({"plan": "gold"}))
        (action,) = (await stream.hear()).bucket_action
        assert dict(action.bucket_id.bucket) == {"plan": "gold"}
        assignment = action.quota_assignment_action
        assert assignment.assignment_time_to_live.seconds == 60
        bucket = assignment.rate_limit_strategy.token_bucket
        assert bucket.tokens_per_fill.value / bucket.fill_interval.seconds == pytest.approx(100)
        assert bucket.max_tokens == 20


async def test_a_limit_in_shadow_mode_lets_all_pass() -> None:
    async with served() as (channel, _, _):
        stream = Stream(channel)
        await stream.say(report({"watched": "x"}))
        (action,) = (await stream.hear()).bucket_action
        strategy = action.quota_assignment_action.rate_limit_strategy
        assert strategy.WhichOneof("strategy") == "blanket_rule"
        assert strategy.blanket_rule == RateLimitStrategy.ALLOW_ALL


async def test_a_second_envoy_halves_what_the_first_has_and_gets_it_when_it_leaves() -> None:
    clock = Clock()
    async with served(clock=clock) as (channel, server, _):
        first, second = Stream(channel), Stream(channel)
        await first.say(report({"plan": "gold"}))
        await first.hear()
        await second.say(report({"plan": "gold"}))
        shares = [_rate(await first.hear()), _rate(await second.hear()), _rate(await second.hear())]
        assert shares == [pytest.approx(50), pytest.approx(0, abs=0.02), pytest.approx(50)]
        first.call.cancel()
        await until(lambda: server.streams == 1, what="the first stream to be gone")
        clock.now += 3
        # As many as its share has let through by now: there is nothing to repay, whenever this is read.
        await second.say(report({"plan": "gold"}, allowed=150))
        clock.now += 4
        assert _rate(await second.hear()) == pytest.approx(100)


def _rate(response: Any) -> float:
    bucket = response.bucket_action[0].quota_assignment_action.rate_limit_strategy.token_bucket
    return bucket.tokens_per_fill.value / bucket.fill_interval.seconds


async def test_a_message_may_be_about_thousands_of_buckets() -> None:
    async with served() as (channel, _, ledger):
        stream = Stream(channel)
        await stream.say(report(*({"plan": str(index)} for index in range(3000))))
        told = 0
        while told < 3000:
            told += len((await stream.hear()).bucket_action)
        assert ledger.buckets == told == 3000


async def test_a_bucket_that_no_rule_is_about_is_told_nothing_and_does_no_harm() -> None:
    async with served() as (channel, _, ledger):
        stream = Stream(channel)
        await stream.say(report({"nobody": "knows"}, {"plan": "gold"}))
        (action,) = (await stream.hear()).bucket_action
        assert dict(action.bucket_id.bucket) == {"plan": "gold"}
        assert ledger.unknown == 1


@pytest.mark.parametrize("body", [b"\xff\xff", report(domain="")])
async def test_what_is_no_report_ends_the_stream(body: bytes) -> None:
    async with served() as (channel, server, _):
        stream = Stream(channel)
        await stream.say(body)
        assert await stream.code() is grpc.StatusCode.INVALID_ARGUMENT
        await until(lambda: server.streams == 0, what="the stream to be gone")


async def test_streams_are_bounded() -> None:
    async with served(StreamBounds(streams=1)) as (channel, server, _):
        first = Stream(channel)
        await first.say(report({"plan": "gold"}))
        await first.hear()
        # On another connection: on this one HTTP/2 itself holds the second stream back.
        options = [("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(str(server.address), options=options) as other:
            assert await Stream(other).code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert server.streams == 1


async def test_a_message_that_is_too_large_ends_the_stream() -> None:
    async with served(StreamBounds(message_bytes=1000)) as (channel, server, _):
        stream = Stream(channel)
        await stream.say(report({"plan": "x" * 2000}))
        assert await stream.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        await until(lambda: server.streams == 0, what="the stream to be gone")


async def test_a_silent_stream_and_an_old_one_are_ended() -> None:
    for bounds in (StreamBounds(silent_s=0.1), StreamBounds(age_s=0.1)):
        async with served(bounds) as (channel, server, _):
            stream = Stream(channel)
            await stream.say(report({"plan": "gold"}))
            await stream.hear()
            assert await stream.code() is grpc.StatusCode.OK
            await until(lambda: server.streams == 0, what="the stream to be gone")


# Else the client's side takes as much as it finds the connection to carry.
NARROW = [("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 65_536)]


async def _say_much(stream: Stream) -> None:
    # The answers are more than what gRPC holds for who does not read: some megabytes.
    with contextlib.suppress(grpc.aio.AioRpcError, grpc.aio.InternalError, asyncio.InvalidStateError):
        for part in range(6):
            await stream.say(report(*({"plan": f"{part}{index:02000}"} for index in range(1_500))))


@contextlib.asynccontextmanager
async def unread(bounds: StreamBounds) -> AsyncIterator[tuple[Stream, QuotaServer]]:
    """Has a client say much and read nothing until the server ends its stream."""
    async with (
        served(bounds) as (_, server, ledger),
        grpc.aio.insecure_channel(str(server.address), options=NARROW) as channel,
    ):
        stream = Stream(channel)
        # Once the stream has ended, nobody takes what is still to be said.
        saying = asyncio.create_task(_say_much(stream))
        await until(lambda: ledger.buckets > 0, what="the first report to be taken")
        await until(lambda: server.streams == 0, what="the stream to be gone", within_s=20)
        try:
            yield stream, server
        finally:
            saying.cancel()
            await asyncio.wait({saying})


async def test_a_stream_that_is_not_read_is_ended_and_told_so_once_it_is_read() -> None:
    async with unread(StreamBounds(write_s=0.2)) as (stream, server):
        assert server.unread == 1
        with contextlib.suppress(grpc.aio.AioRpcError):
            while await asyncio.wait_for(stream.call.read(), 30) is not grpc.aio.EOF:
                pass
        # Why, or that its own words did not get through: whichever the client's side learns first.
        assert await stream.code() in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.INTERNAL)
        await until(lambda: server.unread == 0, what="nothing to be left")


async def test_a_stream_that_is_never_read_goes_with_its_connection() -> None:
    async with unread(StreamBounds(write_s=0.2, age_s=1)) as (_, server):
        await until(lambda: server.unread == 0, what="the connection to be cut", within_s=20)


async def test_what_is_not_read_counts_among_the_streams() -> None:
    async with unread(StreamBounds(write_s=0.2, streams=1)) as (_, server):
        options = [("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(str(server.address), options=options) as other:
            assert await Stream(other).code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_who_reads_a_stream_ends_when_told_so_in_the_moment_of_a_report() -> None:
    loop = asyncio.get_running_loop()
    messages: list[asyncio.Future[bytes]] = [loop.create_future(), loop.create_future()]
    unread, asked = iter(messages), asyncio.Event()

    class Context:
        async def read(self) -> bytes:
            asked.set()
            return await next(unread)

    async with served() as (_, server, ledger):
        ledger.open(1)
        reading = asyncio.create_task(server._read(_Stream(1, cast("Any", Context()), StreamBounds())))
        await asked.wait()
        messages[0].set_result(report({"plan": "free"}))
        await asyncio.sleep(0)
        reading.cancel()
        await asyncio.wait((reading,), timeout=10)
        assert reading.cancelled()


async def test_the_service_serves_it_by_tls_and_tells_of_it_in_metrics(tmp_path: Path, authority: Authority) -> None:
    certificate, key = authority.leaf("localhost").write(tmp_path)
    (tmp_path / "shop.yaml").write_text(CONFIG)
    settings = RateLimitSettings(
        listen="127.0.0.1:0",
        quota_listen="127.0.0.1:0",
        http="127.0.0.1:0",
        config=tmp_path / "shop.yaml",
        tls_certificate=certificate,
        tls_private_key=key,
        drain_s=0.1,
    )
    assert settings.tls == TlsFiles(certificate, key)
    async with worker(settings) as serving:
        assert serving.quota is not None
        assert serving.http is not None
        credentials = grpc.ssl_channel_credentials(authority.cert_pem.encode())
        target = f"localhost:{serving.quota.server.address.port}"
        options = [("grpc.ssl_target_name_override", "localhost")]
        async with grpc.aio.secure_channel(target, credentials, options=options) as channel:
            stream = Stream(channel)
            await stream.say(report({"plan": "gold"}))
            await stream.hear()
            text = (await fetch(serving.http.port, "/metrics")).text
    assert "dragoman_ratelimit_quota_streams 1.0" in text
    assert "dragoman_ratelimit_quota_buckets 1.0" in text
    assert 'dragoman_ratelimit_quota_shares{descriptor="plan",domain="shop"} 1.0' in text
    assert 'dragoman_ratelimit_quota_assigned{descriptor="plan",domain="shop"} 50.0' in text
    assert 'dragoman_ratelimit_quota_reports_total{outcome="taken"} 1.0' in text
    assert 'dragoman_ratelimit_quota_actions_total{action="assigned"} 1.0' in text
