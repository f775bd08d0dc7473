# pyright: standard
"""Limits counted in a Redis that wants TLS, a certificate and a user; and what becomes of each of them going wrong."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path

import pytest
import redis.asyncio as redis_client

from tests.support.certificates import Authority
from tests.support.redis import RedisServer
from tests.support.redis_cluster import RedisCluster
from tests.support.redis_load import Load, code, limiter, opened
from tests.support.redis_sentinels import SERVICE, Sentinel
from tests.support.redis_tls import TlsRedis, TlsRelay
from tests.support.waiting import until

ROOT = Path(__file__).parents[2]
PASSWORD = "s3cret-pw"


@pytest.fixture
def authority() -> Authority:
    return Authority()


@pytest.fixture
def ca(authority: Authority, tmp_path: Path) -> Path:
    path = tmp_path / "ca.crt"
    path.write_text(authority.cert_pem)
    return path


@pytest.fixture
async def redis(authority: Authority) -> AsyncIterator[TlsRedis]:
    async with TlsRedis(authority.leaf("localhost"), authority=authority, client_ca=authority) as server:
        yield server


def documented_rules() -> list[str]:
    """Returns the ACL rules that the documentation tells operators to give."""
    text = (ROOT / "docs" / "ratelimit" / "stores.md").read_text()
    (line,) = (line for line in text.splitlines() if line.startswith("ACL SETUSER dragoman "))
    return line.split()[3:]


def replace(path: Path, text: str) -> None:
    """Renames a new file into place, as Kubernetes does with a mounted Secret."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.rename(path)


async def add_user(server: RedisServer, password: str = PASSWORD) -> None:
    async with redis_client.from_url(server.url) as client:
        rules = [rule.replace("PASSWORD", password) for rule in documented_rules()]
        await client.execute_command("ACL", "SETUSER", "dragoman", "reset", *rules)


def told(caplog: pytest.LogCaptureFixture, what: str) -> list[str]:
    return [line for line in caplog.messages if what in line]


async def test_counts_over_tls_as_a_user_who_may_do_only_what_the_documentation_says(
    redis: TlsRedis, authority: Authority, ca: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    await add_user(redis)
    cert, key = authority.leaf("limiter").write(tmp_path, "client")
    files = f"ssl_ca_certs={ca}&ssl_certfile={cert}&ssl_keyfile={key}"
    url = f"rediss://dragoman:{PASSWORD}@localhost:{redis.tls_port}/2?{files}"
    async with opened(url, timeout_s=1) as store, Load(limiter(store)) as load:
        given = limiter(store)
        for name in ("open", "shut-bucket"):
            assert await code(given, name) == 1
        await load.until_allowed()
        async with redis_client.from_url(redis.url) as client:
            assert await client.info("keyspace")
            assert {each["user"] for each in await client.client_list() if each["db"] == "2"} == {"dragoman"}
    assert not load.refused
    assert "s3cret" not in caplog.text


async def test_without_a_certificate_of_ours_the_server_lets_nobody_in(
    redis: TlsRedis, ca: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(f"rediss://localhost:{redis.tls_port}/0?ssl_ca_certs={ca}", wait=False) as store:
        await until(lambda: told(caplog, "is out of reach"), what="the refusal in the log")
        assert await code(limiter(store), "shut") == 2
        assert not store.available


async def test_a_certificate_for_another_name_or_of_another_authority_is_not_taken(
    authority: Authority, ca: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = tmp_path / "other.crt"
    other.write_text(Authority("another").cert_pem)
    async with TlsRedis(authority.leaf("redis.example"), authority=authority) as server:
        url = f"rediss://localhost:{server.tls_port}/0?ssl_ca_certs="
        for options, reason in (
            (f"{ca}", "mismatch"),
            (f"{other}&ssl_check_hostname=false", "certificate verify failed"),
        ):
            caplog.clear()
            async with opened(url + options, wait=False) as store:
                await until(lambda told_of=reason: told(caplog, told_of), what=f"{reason} in the log")
                assert await code(limiter(store), "shut") == 2
        async with opened(f"{url}{ca}&ssl_check_hostname=false") as store:
            assert await code(limiter(store), "shut") == 1


async def test_authorities_that_are_replaced_hold_for_the_next_connection(
    authority: Authority, ca: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    new = Authority("next")
    async with (
        RedisServer() as server,
        TlsRelay(server.port, authority.leaf("localhost")) as relay,
        opened(f"rediss://localhost:{relay.port}/0?ssl_ca_certs={ca}") as store,
    ):
        given = limiter(store)
        assert await code(given, "shut") == 1
        relay.present(new.leaf("localhost"))
        relay.cut()
        await until(lambda: told(caplog, "certificate verify failed"), what="the new certificate to be refused")
        replace(ca, "not a certificate")
        await until(lambda: told(caplog, f"the new TLS files of Redis ({ca}) are not used"), what="the fault")
        replace(ca, new.cert_pem)
        await until(lambda: store.available, what="the new authority to be taken")
        assert await code(given, "shut") == 1


async def test_a_password_that_is_replaced_in_its_file_is_used_for_the_next_connection(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    file = tmp_path / "password"
    file.write_text("s3cret-one\n")
    async with RedisServer() as server, redis_client.from_url(server.url) as client:
        await add_user(server, "s3cret-one")
        async with opened(f"redis://dragoman@127.0.0.1:{server.port}/0?password_file={file}") as store:
            given = limiter(store)
            assert await code(given, "shut") == 1
            await client.acl_deluser("dragoman")
            await until(lambda: told(caplog, "out of reach"), what="the user to be gone")
            assert await code(given, "shut") == 2
            await add_user(server, "s3cret-two")
            await until(lambda: not store.available, what="the old password to be refused")
            replace(file, "s3cret-two")
            await until(lambda: store.available, what="the new password to be used")
            assert await code(given, "shut") == 1
    assert "s3cret" not in caplog.text


async def test_a_command_that_the_user_may_not_use_any_more_is_the_fail_mode_and_no_loop(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with RedisServer() as server, redis_client.from_url(server.url) as client:
        await add_user(server)
        async with opened(f"redis://dragoman:{PASSWORD}@127.0.0.1:{server.port}/0") as store:
            given = limiter(store)
            await client.execute_command("ACL", "SETUSER", "dragoman", "-incrby")
            assert [await code(given, "shut") for _ in range(50)] == [2] * 50
            assert [await code(given, "shut-bucket") for _ in range(3)] == [1] * 3
            assert len(told(caplog, "NOPERM")) == 1
            await client.execute_command("ACL", "SETUSER", "dragoman", "+incrby")
            assert await code(given, "shut") == 1


@contextlib.asynccontextmanager
async def relayed_cluster(authority: Authority, relays: list[TlsRelay]) -> AsyncGenerator[None]:
    """A cluster whose nodes tell everybody that they are where their TLS relays are."""
    async with contextlib.AsyncExitStack() as stack:
        cluster = RedisCluster("--cluster-require-full-coverage", "no", password=PASSWORD)
        for node in cluster.nodes:
            relay = await stack.enter_async_context(TlsRelay(node.port, authority.leaf("127.0.0.1")))
            relays.append(relay)
            node.announce(relay.port)
        await stack.enter_async_context(cluster)
        yield


async def test_all_nodes_of_a_cluster_are_asked_over_tls(authority: Authority, ca: Path) -> None:
    relays: list[TlsRelay] = []
    async with relayed_cluster(authority, relays):
        ports = {relay.port for relay in relays}

        url = f"rediss+cluster://:{PASSWORD}@127.0.0.1:{relays[0].port}/?ssl_ca_certs={ca}"
        async with opened(url, timeout_s=1) as store, Load(limiter(store), clients=24) as load:
            await load.until_allowed(10, clients=range(24))
            assert {node.name for node in store.nodes} == {f"127.0.0.1:{port}" for port in ports}
            assert load.refused.total() == 0
            relays[1].cut()
            await load.until_allowed(10, clients=range(24))


async def test_sentinels_and_the_primary_that_they_name_are_asked_over_tls(authority: Authority, ca: Path) -> None:
    leaf = authority.leaf("127.0.0.1")
    async with RedisServer(password=PASSWORD) as server, TlsRelay(server.port, leaf) as front:
        sentinel = Sentinel(front.port, quorum=1, password="s3cret-watch", server_password=PASSWORD)
        try:
            await sentinel.start()
            async with TlsRelay(sentinel.port, leaf) as watch:
                options = f"ssl_ca_certs={ca}&sentinel_password=s3cret-watch"
                url = f"rediss+sentinel://:{PASSWORD}@127.0.0.1:{watch.port}/{SERVICE}?{options}"
                async with opened(url) as store:
                    assert await code(limiter(store), "shut") == 1
                plain = url.replace(f":{watch.port}/", f":{sentinel.port}/") + "&sentinel_ssl=false"
                async with opened(plain) as store:
                    assert await code(limiter(store), "shut") == 1
        finally:
            await sentinel.remove()
