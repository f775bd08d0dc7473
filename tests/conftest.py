"""Fixtures that start real servers for a test and stop them after it; what they logged is attached to a failure."""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import settings

from tests.support.certificates import Authority
from tests.support.dns import DnsServer
from tests.support.envoy import Envoy
from tests.support.jwks_server import JwksServer
from tests.support.redis import RedisServer
from tests.support.tokens import SigningKey
from tests.support.upstream import Upstream

# The same examples in every run: a failure belongs to the change that it appears with. `--hypothesis-seed` explores.
settings.register_profile("recorded", derandomize=True, deadline=None)
settings.load_profile("recorded")

Report = Callable[[], str]
_REPORTS = pytest.StashKey[list[Report]]()


@pytest.fixture(autouse=True)
def untouched_process() -> Iterator[None]:
    """Commands that are tested in this process set up its logs, environment and garbage collector for themselves."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    known, collects = frozenset(os.environ), gc.isenabled()
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name in os.environ.keys() - known:
        if name.startswith("DRAGOMAN_"):
            del os.environ[name]
    if collects:
        gc.enable()


@pytest.fixture
def reports(request: pytest.FixtureRequest) -> list[Report]:
    """Functions whose text is attached to the report when the test fails: append to it."""
    return request.node.stash.setdefault(_REPORTS, [])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Asks for the logs while the servers still stand."""
    report = yield
    if report.failed:
        for number, tell in enumerate(item.stash.get(_REPORTS, []), 1):
            try:
                report.sections.append((f"server {number}", tell()))
            except OSError as fault:
                report.sections.append((f"server {number}", f"its log cannot be read: {fault}"))
    return report


@pytest_asyncio.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    """Whatever is entered into it is left at the end of the test, in reverse."""
    async with AsyncExitStack() as exits:
        yield exits


@pytest.fixture
def start_envoy(stack: AsyncExitStack, reports: list[Report]) -> Callable[..., Awaitable[Envoy]]:
    """`await start_envoy(bootstrap, ready=True, **options of Envoy)` → a running Envoy."""

    async def start(bootstrap: Any, *, ready: bool = True, **options: Any) -> Envoy:
        envoy = Envoy(bootstrap, **options)
        reports.append(envoy.report)
        stack.push_async_callback(envoy.stop)
        await envoy.start(ready=ready)
        return envoy

    return start


@pytest.fixture
def start_upstream(stack: AsyncExitStack) -> Callable[..., Awaitable[Upstream]]:
    """`await start_upstream("name", **options of Upstream)` → a running Upstream."""

    async def start(name: str = "echo", **options: Any) -> Upstream:
        return await stack.enter_async_context(Upstream(name, **options))

    return start


@pytest_asyncio.fixture
async def upstream() -> AsyncIterator[Upstream]:
    """A plain echo backend on loopback."""
    async with Upstream("echo") as server:
        yield server


@pytest_asyncio.fixture
async def redis_server() -> AsyncIterator[RedisServer]:
    """A real, empty Redis."""
    async with RedisServer() as server:
        yield server


@pytest_asyncio.fixture
async def dns_server() -> AsyncIterator[DnsServer]:
    """A DNS server that knows no name until told."""
    async with DnsServer() as server:
        yield server


@pytest.fixture(scope="session")
def authority() -> Authority:
    """A certificate authority that nobody trusts unless told."""
    return Authority()


@pytest.fixture(scope="session")
def rsa_key() -> SigningKey:
    """An RS256 key; made once, for it is slow to make."""
    return SigningKey.make("rsa-1", "RS256")


@pytest.fixture
def signing_key() -> SigningKey:
    """An ES256 key of the test's own."""
    return SigningKey.make("key-1", "ES256")


@pytest_asyncio.fixture
async def issuer(signing_key: SigningKey) -> AsyncIterator[JwksServer]:
    """The JWKS endpoint of `signing_key`."""
    async with JwksServer(signing_key) as server:
        yield server
