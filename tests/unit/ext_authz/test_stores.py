"""What both stores of API keys do: hold, list, revoke, and tell what changed."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ext_authz.key_lookup import KeyLookup
from ext_authz.keys import NewKey, StoreLocation, add_key, change_key, create_key, list_keys, new_key_faults, revoke_key
from ext_authz.stores.records import KeyStore, StoreUnavailableError
from ext_authz.stores.redis import RedisKeyStore
from ext_authz.stores.sqlite import SqliteKeyStore
from tests.support.redis import RedisServer
from tests.support.waiting import soon, until

Connect = Callable[[], KeyStore]
WANTED = NewKey("acme", ["read", "write"], {"plan": "gold"}, "t1", 3600)


async def test_a_key_is_kept_as_it_was_made_and_never_itself(connect: Connect, tmp_path: Path) -> None:
    made = await add_key(connect(), WANTED, 1000.5)
    assert await connect().find(made.record.id) == made.record
    assert (made.record.consumer, made.record.tenant, made.record.expires_at) == ("acme", "t1", 4600.5)
    assert made.key.startswith(f"dgm_{made.record.id}_")
    secret = made.key.rpartition("_")[2]
    assert secret not in repr(made)
    for file in tmp_path.iterdir():  # noqa: ASYNC240
        assert secret.encode() not in file.read_bytes()


async def test_an_unknown_key_is_not_found_and_not_revoked(connect: Connect) -> None:
    store = connect()
    assert await store.find("nosuchkey000") is None
    assert not await store.revoke("nosuchkey000", 1.0)
    assert await store.list() == []


async def test_an_id_that_is_taken_is_refused(connect: Connect) -> None:
    store = connect()
    made = await add_key(store, WANTED, 1.0)
    with pytest.raises(KeyError):
        await store.add(made.record)
    assert len(await store.list()) == 1


async def test_keys_are_listed_oldest_first_and_a_revocation_keeps_its_time(connect: Connect) -> None:
    store = connect()
    made = [(await add_key(store, WANTED, at)).record.id for at in (3.0, 1.0, 2.0)]
    assert [record.id for record in await connect().list()] == [made[1], made[2], made[0]]
    assert await store.revoke(made[0], 10.0)
    assert await store.revoke(made[0], 20.0)
    found = await connect().find(made[0])
    assert found is not None
    assert found.revoked_at == 10.0


async def test_what_a_key_says_of_its_consumer_can_be_changed(connect: Connect) -> None:
    store = connect()
    made = await add_key(store, replace(WANTED, metadata={"plan": "gold", "café": "1/2"}), 1.0)
    start = await store.changes(None)
    assert await store.change(made.record.id, {"plan": "free", "region": "eu"})
    assert await connect().find(made.record.id) == replace(
        made.record, metadata={"plan": "free", "café": "1/2", "region": "eu"}
    )
    assert (await store.changes(start.generation)).key_ids == (made.record.id,)
    assert await store.change(made.record.id, {"plan": "", "region": "", "café": ""}, "")
    assert await connect().find(made.record.id) == replace(made.record, metadata={}, tenant="")
    assert await store.change(made.record.id, {}, "t2")
    assert await connect().find(made.record.id) == replace(made.record, metadata={}, tenant="t2")
    assert not await store.change("nosuchkey000", {"plan": "free"})
    assert [record.id for record in await store.list()] == [made.record.id]


async def test_a_change_that_no_key_could_be_made_with_is_refused(tmp_path: Path) -> None:
    location = StoreLocation(tmp_path / "keys.db")
    made = await asyncio.to_thread(create_key, location, WANTED)
    with pytest.raises(ValueError, match=r"metadata\.plan"):
        await asyncio.to_thread(change_key, location, made.record.id, metadata={"plan": "a\nb"})
    many = {f"m{number}": "x" for number in range(32)}
    with pytest.raises(ValueError, match="more than 32"):
        await asyncio.to_thread(change_key, location, made.record.id, metadata=many)
    assert await asyncio.to_thread(change_key, location, made.record.id, metadata={**many, "plan": ""})
    assert not await asyncio.to_thread(change_key, location, "nosuchkey000", metadata={"plan": "a"})


async def test_changes_since_a_generation_are_named(connect: Connect) -> None:
    writer, reader = connect(), connect()
    first = (await add_key(writer, WANTED, 1.0)).record.id
    start = await reader.changes(None)
    assert start.key_ids is None
    assert (await reader.changes(start.generation)).key_ids == ()
    second = (await add_key(writer, WANTED, 1.0)).record.id
    await writer.revoke(first, 2.0)
    changes = await reader.changes(start.generation)
    assert changes.key_ids is not None
    assert set(changes.key_ids) == {first, second}
    assert (await reader.changes(changes.generation)).key_ids == ()


async def test_whoever_waits_learns_of_a_change_within_half_a_second(connect: Connect) -> None:
    writer, reader = connect(), connect()
    keys = [(await add_key(writer, WANTED, 1.0)).record.id for _ in range(4)]
    told: list[tuple[str, ...] | None] = []
    lookup = KeyLookup(reader, on_change=lambda ids: told.append(None if ids is None else tuple(ids)))
    task = asyncio.create_task(lookup.follow())
    await until(lambda: told == [None], what="the start")
    revoked: list[str] = []

    async def learns() -> float:
        started = time.monotonic()
        revoked.append(keys[len(revoked)])
        await writer.revoke(revoked[-1], 2.0)
        await until(lambda: told == [None, *((each,) for each in revoked)], what="the change", every_s=0.001)
        return time.monotonic() - started

    await soon(learns, within_s=0.5)
    task.cancel()


async def test_look_ups_of_one_key_share_one_question(connect: Connect) -> None:
    class Counting:
        def __init__(self, store: KeyStore) -> None:
            self.asked = 0
            self._store = store

        async def find(self, key_id: str) -> object:
            self.asked += 1
            await asyncio.sleep(0)
            return await self._store.find(key_id)

    store = Counting(connect())
    lookup = KeyLookup(store, on_change=lambda ids: None)  # pyright: ignore[reportArgumentType]
    found = await asyncio.gather(*(lookup.find("nosuchkey000") for _ in range(50)))
    assert (found, store.asked) == ([None] * 50, 1)


async def test_too_many_look_ups_at_once_are_refused(connect: Connect) -> None:
    class Hanging:
        async def find(self, key_id: str) -> None:
            await asyncio.Event().wait()

        async def close(self) -> None: ...

    lookup = KeyLookup(Hanging(), on_change=lambda ids: None)  # pyright: ignore[reportArgumentType]
    waiting = [asyncio.create_task(lookup.find(f"key{number}")) for number in range(256)]
    await asyncio.sleep(0)
    with pytest.raises(StoreUnavailableError, match="too many"):
        await lookup.find("one-more")
    await lookup.close()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_what_was_read_before_a_change_is_read_again() -> None:
    class Slow:
        def __init__(self) -> None:
            self.release = asyncio.Event()
            self.asked = 0

        async def find(self, key_id: str) -> None:
            self.asked += 1
            if self.asked == 1:
                await self.release.wait()

    store = Slow()
    lookup = KeyLookup(store, on_change=lambda ids: None)  # pyright: ignore[reportArgumentType]
    asking = asyncio.create_task(lookup.find("key"))
    await until(lambda: store.asked == 1, what="the question")
    lookup.epoch += 1
    store.release.set()
    await asking
    assert store.asked == 2


def test_the_command_line_makes_lists_and_revokes(tmp_path: Path) -> None:
    location = StoreLocation(tmp_path / "keys.db")
    made = create_key(location, WANTED)
    assert list_keys(location) == [made.record]
    assert revoke_key(location, made.record.id)
    assert not revoke_key(location, "nosuchkey000")
    assert list_keys(location)[0].revoked_at is not None


def test_a_key_that_cannot_be_is_refused_with_its_fields(tmp_path: Path) -> None:
    bad = NewKey("", ["a b"], {"x": "\r\n", "": ""}, " t", 0)
    at = {fault.partition(":")[0] for fault in new_key_faults(bad)}
    assert at == {"consumer", "scopes", "metadata.x", "tenant", "expires_in_s"}
    with pytest.raises(ValueError, match="consumer: is missing"):
        create_key(StoreLocation(tmp_path / "keys.db"), bad)
    assert not (tmp_path / "keys.db").exists()


def test_the_sqlite_file_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "keys.db"
    path.touch(0o644)
    create_key(StoreLocation(path), WANTED)
    assert path.stat().st_mode & 0o777 == 0o600


async def test_a_sqlite_file_that_vanishes_is_an_outage_and_one_put_in_its_place_is_read(tmp_path: Path) -> None:
    path, other = tmp_path / "keys.db", tmp_path / "other.db"
    store, second = SqliteKeyStore(path), SqliteKeyStore(other)
    made = await add_key(store, WANTED, 1.0)
    replacement = await add_key(second, WANTED, 1.0)
    await second.close()
    start = await store.changes(None)
    path.unlink()
    with pytest.raises(StoreUnavailableError):
        await store.changes(start.generation)
    with pytest.raises(StoreUnavailableError):
        await store.find(made.record.id)
    os.replace(other, path)
    for name in ("keys.db-wal", "keys.db-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    assert (await store.changes(start.generation)).key_ids is None
    assert await store.find(made.record.id) is None
    assert await store.find(replacement.record.id) is not None
    await store.close()


async def test_a_sqlite_file_that_is_garbage_is_an_outage(tmp_path: Path) -> None:
    path = tmp_path / "keys.db"
    path.write_bytes(b"not a database" * 1000)
    with pytest.raises(StoreUnavailableError, match=r"keys\.db"):
        await SqliteKeyStore(path).find("nosuchkey000")


async def test_redis_that_comes_back_empty_makes_everything_suspect(redis_server: RedisServer) -> None:
    store = RedisKeyStore(redis_server.url)
    made = await add_key(store, WANTED, 1.0)
    start = await store.changes((await store.changes(None)).generation)
    assert start.key_ids == ()
    await redis_server.kill()
    with pytest.raises(StoreUnavailableError):
        await store.find(made.record.id)
    await redis_server.start()
    for _ in range(5):
        await add_key(store, WANTED, 1.0)
    assert (await store.changes(start.generation)).key_ids is None
    await store.close()


async def test_a_frozen_redis_is_given_up_soon_and_its_password_is_not_told() -> None:
    async with RedisServer(password="hunter2") as server:
        store = RedisKeyStore(server.url)
        await add_key(store, WANTED, 1.0)
        server.pause()

        async def is_given_up() -> float:
            started = time.monotonic()
            with pytest.raises(StoreUnavailableError) as caught:
                await store.find("nosuchkey000")
            assert "hunter2" not in str(caught.value)
            return time.monotonic() - started

        await soon(is_given_up, within_s=1.0)
        server.resume()
        await until(lambda: _found_none(store), what="an answer")
        await store.close()


async def _found_none(store: KeyStore) -> bool:
    try:
        return await store.find("nosuchkey000") is None
    except StoreUnavailableError:
        return False
