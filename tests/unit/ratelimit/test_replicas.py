"""Among how many a limit is divided while the store is away: as many as the DNS says that there are."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator

import pytest
from pydantic import ValidationError

from ratelimit_service.replicas import MOST, Replicas
from ratelimit_service.settings import RateLimitSettings
from ratelimit_service.stores.local import Local
from tests.support.dns import DnsServer
from tests.support.waiting import until

NAME = "limiter.shop.svc.cluster.local."


class Scene:
    """The DNS, and who follows it."""

    def __init__(self, dns: DnsServer, *, processes: int = 1) -> None:
        self.dns = dns
        self.local = Local(replicas=7, processes=processes)
        self.told: list[int] = []
        self.replicas = Replicas(NAME, self._tell, nameservers=[("127.0.0.1", dns.port)], every_s=0.01, within_s=0.1)

    def _tell(self, number: int) -> None:
        self.told.append(number)
        self.local.divide_among(number)

    async def divided_among(self, parts: int) -> None:
        await until(lambda: self.local.parts == parts, what=f"{parts} parts", detail=lambda: str(self.local.parts))

    async def asked_again(self) -> None:
        """Waits until the DNS has been asked twice more: what it said before has been heard then."""
        asked = len(self.dns.queries)
        await until(lambda: len(self.dns.queries) >= asked + 4, what="further questions")

    async def without(self, words: str) -> None:
        """Waits until it is said what is reckoned with for want of an answer."""
        await until(
            lambda: words in (self.replicas.without or ""), what=words, detail=lambda: str(self.replicas.without)
        )


@contextlib.asynccontextmanager
async def scene(*addresses: str, processes: int = 1) -> AsyncGenerator[Scene]:
    async with DnsServer({NAME: list(addresses)}) as dns:
        made = Scene(dns, processes=processes)
        task = asyncio.create_task(made.replicas.run())
        try:
            yield made
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def test_a_limit_is_divided_among_as_many_as_there_are_now() -> None:
    async with scene("10.0.0.1", "10.0.0.2") as found:
        await found.divided_among(2)
        assert found.replicas.without is None
        found.dns.set(NAME, "10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5")
        await found.divided_among(5)
        found.dns.set(NAME, "10.0.0.9")
        await found.divided_among(1)
        await found.asked_again()
        assert found.told == [2, 5, 1]


async def test_each_worker_of_a_replica_has_its_part_of_that() -> None:
    async with scene("10.0.0.1", "10.0.0.2", processes=3) as found:
        assert found.local.parts == 21
        await found.divided_among(6)


async def test_the_setting_holds_until_the_dns_has_told() -> None:
    async with scene() as found:
        await found.without("has no address; reckoned with is the setting `replicas`")
        assert (found.local.parts, found.told) == (7, [])
        found.dns.set(NAME, "10.0.0.1")
        await found.divided_among(1)


async def test_the_last_number_holds_while_the_dns_is_silent_fails_or_knows_nothing() -> None:
    async with scene("10.0.0.1", "10.0.0.2", "10.0.0.3") as found:
        await found.divided_among(3)
        found.dns.be_silent()
        await found.without("cannot be resolved: LifetimeTimeout; reckoned with is 3, as it last was")
        found.dns.be_silent(False)
        found.dns.fail()
        await found.without("cannot be resolved: NoNameservers")
        found.dns.fail(False)
        found.dns.set(NAME)
        await found.without("has no address; reckoned with is 3")
        assert (found.local.parts, found.told) == (3, [3])
        found.dns.set(NAME, "10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4")
        await found.divided_among(4)
        assert found.replicas.without is None


@pytest.mark.parametrize("addresses", [["fd00::1", "fd00::2"], ["10.0.0.1", "10.0.0.2", "fd00::1", "fd00::2"]])
async def test_a_replica_with_addresses_of_both_families_counts_once(addresses: list[str]) -> None:
    async with scene(*addresses) as found:
        await found.divided_among(2)


async def test_nobody_is_left_next_to_nothing_by_an_answer_without_end() -> None:
    async with scene(*(f"10.1.{index // 250}.{index % 250 + 1}" for index in range(MOST + 500))) as found:
        await found.divided_among(MOST)


async def test_without_any_dns_the_setting_holds() -> None:
    replicas = Replicas(NAME, lambda number: pytest.fail(str(number)), nameservers=[("127.0.0.1", 1)], within_s=0.1)
    task = asyncio.create_task(replicas.run())
    await until(lambda: replicas.without, what="it to be told")
    task.cancel()


@pytest.mark.parametrize(
    "given", [{"replicas_from": "two words"}, {"replicas_from": ""}, {"dns": ["unix:/a"]}, {"dns": ["10.0.0.53"]}]
)
def test_what_is_no_name_and_no_server_is_refused(given: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        RateLimitSettings.model_validate({"listen": "127.0.0.1:0", "xds": "127.0.0.1:1", **given})
