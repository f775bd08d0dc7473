"""What is published is kept soon after, in few writes, and without anything secret."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest

from controlplane.kept.keeper import Keeper
from controlplane.kept.store import Change, Kept, Store, open_store
from controlplane.xds.resources import CLUSTER, SECRET, Resource, Snapshot
from tests.support.waiting import until
from tests.unit.golden.test_golden import FOLDER, compiled

NOW = datetime(2026, 11, 21, 10, 0, tzinfo=UTC)
OWNER = "demo/edge"


def cluster(name: str, text: str = "") -> Resource:
    # Bytes that a cluster can have: its name.
    return Resource.of(CLUSTER, name, b"\x0a" + bytes([len(name + text)]) + (name + text).encode())


def snapshot(*resources: Resource) -> Snapshot:
    found: dict[str, dict[str, Resource]] = {}
    for each in resources:
        found.setdefault(each.type_url, {})[each.name] = each
    return Snapshot(found)


class Kit:
    """A store in a folder and a keeper of it; `standing` is what is published."""

    def __init__(self, folder: Path, *, key: bytes | None = None, write_after_s: float = 0.01) -> None:
        self.folder = folder
        self.key = key
        store, self.kept = open_store(folder / "kept.db", "a", key=key)
        assert store is not None
        self.store: Store = store
        self.standing: Mapping[str, Snapshot] = {}
        self.written: list[list[Change]] = []
        save = store.save

        def saved(changes: list[Change], at: datetime) -> bool:
            self.written.append(changes)
            return save(changes, at)

        store.save = saved  # pyright: ignore[reportAttributeAccessIssue]
        self.keeper = Keeper(
            store, lambda: self.standing, known=self.kept.snapshots, write_after_s=write_after_s, now=lambda: NOW
        )

    def publish(self, **snapshots: Snapshot) -> None:
        self.standing = {f"demo/{name}": each for name, each in snapshots.items()}
        self.keeper.touch()

    def again(self) -> Kept:
        store, kept = open_store(self.folder / "kept.db", "a", key=self.key)
        assert store is not None
        store.close()
        return kept


async def test_a_burst_becomes_one_write_of_what_it_came_to(tmp_path: Path) -> None:
    kit = Kit(tmp_path)
    for number in range(50):
        kit.publish(edge=snapshot(cluster("a", str(number))))
    await until(lambda: kit.written, within_s=5, what="a write")
    await kit.keeper.close()
    assert len(kit.written) == 1
    assert kit.again().snapshots[OWNER].of_type(CLUSTER) == {"a": cluster("a", "49")}


async def test_only_differences_are_written(tmp_path: Path) -> None:
    first = Kit(tmp_path)
    first.publish(edge=snapshot(cluster("a"), cluster("b")), other=snapshot(cluster("c")))
    await first.keeper.close()
    second = Kit(tmp_path)
    second.publish(edge=snapshot(cluster("a"), cluster("b", "2")), other=snapshot(cluster("c")))
    await second.keeper.close()
    (changes,) = second.written
    assert [each.name for change in changes for each in change.put] == ["b"]


async def test_what_is_gone_is_not_kept(tmp_path: Path) -> None:
    kit = Kit(tmp_path)
    kit.publish(edge=snapshot(cluster("a"), cluster("b")), other=snapshot(cluster("c")))
    await until(lambda: kit.written, within_s=5, what="a write")
    kit.publish(edge=snapshot(cluster("b")))
    await kit.keeper.close()
    kept = kit.again()
    assert kept.snapshots.keys() == {OWNER}
    assert kept.snapshots[OWNER].of_type(CLUSTER).keys() == {"b"}


async def test_the_last_change_before_the_end_is_kept(tmp_path: Path) -> None:
    kit = Kit(tmp_path, write_after_s=3600)
    kit.publish(edge=snapshot(cluster("a")))
    await kit.keeper.close()
    assert kit.again().snapshots.keys() == {OWNER}


async def test_without_a_change_nothing_is_written(tmp_path: Path) -> None:
    kit = Kit(tmp_path)
    await kit.keeper.close()
    assert kit.written == []


async def test_a_resource_that_gains_a_secret_is_no_longer_kept(tmp_path: Path) -> None:
    kit = Kit(tmp_path)
    plain = Resource.of(SECRET, "s", b"\x0a\x01s")
    kit.publish(edge=snapshot(plain))
    await until(lambda: kit.written, within_s=5, what="a write")
    # Field 2 is a TLS certificate, in it 2 is the private key, in it 2 its bytes.
    kit.publish(edge=snapshot(Resource.of(SECRET, "s", b"\x0a\x01s\x12\x05\x12\x03\x12\x01k")))
    await kit.keeper.close()
    kept = kit.again()
    assert (kept.withheld, kept.snapshots[OWNER].of_type(SECRET)) == (1, {})


async def test_what_cannot_be_kept_up_to_date_is_not_kept_at_all(tmp_path: Path) -> None:
    kit = Kit(tmp_path)
    kit.publish(edge=snapshot(cluster("a")))
    await until(lambda: kit.written, within_s=5, what="a write")
    kit.store._max_bytes = 1  # pyright: ignore[reportPrivateUsage]
    kit.publish(edge=snapshot(cluster("b")))
    await kit.keeper.close()
    assert kit.again().snapshots == {}


class Failing:
    """A store's `save` that fails in a way that nobody foresaw, so many times."""

    def __init__(self, kit: Kit, times: int) -> None:
        self.left = times
        self.tried = 0
        self._save = kit.store.save
        kit.store.save = self.save  # pyright: ignore[reportAttributeAccessIssue]

    def save(self, changes: list[Change], at: datetime) -> bool:
        self.tried += 1
        if self.left:
            self.left -= 1
            raise RuntimeError("nobody foresaw this")
        return self._save(changes, at)


async def test_a_write_that_fails_in_an_unforeseen_way_is_tried_again_without_another_change(tmp_path: Path) -> None:
    kit = Kit(tmp_path, write_after_s=0.001)
    kit.publish(edge=snapshot(cluster("a"), cluster("b")))
    await until(lambda: kit.written, within_s=5, what="a write")
    failing = Failing(kit, 3)
    kit.publish(edge=snapshot(cluster("a"), cluster("b", "2")))
    await until(lambda: len(kit.written) == 2, within_s=5, what="another write")
    await kit.keeper.close()
    assert failing.tried == 4
    assert kit.again().snapshots[OWNER].of_type(CLUSTER) == {"a": cluster("a"), "b": cluster("b", "2")}


async def test_a_write_that_goes_on_failing_is_tried_less_and_less_often(tmp_path: Path) -> None:
    kit = Kit(tmp_path, write_after_s=0.001)
    failing = Failing(kit, 1000)
    kit.publish(edge=snapshot(cluster("a")))
    pauses: list[float] = []

    def seen() -> bool:
        pause = kit.keeper._pause_s  # pyright: ignore[reportPrivateUsage]
        if pause not in pauses:
            pauses.append(pause)
        return pause >= 0.1

    await until(seen, within_s=5, what="a longer pause")
    assert pauses == sorted(pauses)
    assert failing.tried <= 8
    await kit.keeper.close()


async def test_where_the_last_write_fails_what_is_out_of_date_is_not_kept(tmp_path: Path) -> None:
    before = Kit(tmp_path)
    before.publish(edge=snapshot(cluster("old")))
    await before.keeper.close()
    kit = Kit(tmp_path, write_after_s=3600)
    failing = Failing(kit, 1)
    kit.publish(edge=snapshot(cluster("new")))
    await kit.keeper.close()
    assert failing.tried == 1
    assert kit.again().snapshots == {}


async def test_nothing_is_written_once_it_is_closed(tmp_path: Path) -> None:
    kit = Kit(tmp_path, write_after_s=0.001)
    failing = Failing(kit, 1000)
    kit.publish(edge=snapshot(cluster("a")))
    await until(lambda: failing.tried, within_s=5, what="a try")
    await kit.keeper.close()
    assert kit.keeper._due is None or kit.keeper._due.cancelled()  # pyright: ignore[reportPrivateUsage]


@pytest.mark.parametrize("case", ["https", "keys", "security", "backendtlspolicy"])
@pytest.mark.parametrize("key", [None, bytes(32)], ids=["plain", "encrypted"])
async def test_nothing_secret_is_in_the_folder(tmp_path: Path, case: str, key: bytes | None) -> None:
    pipeline = compiled((FOLDER / f"{case}.in.yaml").read_text())
    published = {f"{k.namespace}_{k.name}": each for k, each in pipeline.snapshots.current().items()}
    published |= {owner.rpartition("/")[2]: each for owner, each in pipeline.guards.snapshots.current().items()}
    kit = Kit(tmp_path, key=key)
    kit.publish(**published)
    await kit.keeper.close()
    text = _bytes_in(tmp_path)
    in_force = b"".join(
        each.body for found in published.values() for of in found.resources.values() for each in of.values()
    )
    for needle in _secrets_of(case):
        assert needle in in_force
        assert needle not in text
    kept = kit.again()
    assert (kept.withheld == 0) == (key is not None)
    if key is not None:
        assert _versions({f"demo/{name}": each for name, each in published.items()}) == _versions(kept.snapshots)


def _versions(snapshots: Mapping[str, Snapshot]) -> dict[tuple[str, str, str], tuple[str, bytes]]:
    return {
        (owner, type_url, name): (each.version, each.body)
        for owner, snapshot in snapshots.items()
        for type_url, resources in snapshot.resources.items()
        for name, each in resources.items()
    }


def _bytes_in(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.iterdir())


def _secrets_of(case: str) -> list[bytes]:
    """Lines of private keys, keys of clients, and hashes of these, as they are in what is made of a case."""
    text = (FOLDER / f"{case}.in.yaml").read_text()
    if case == "keys":
        return [b"key-of-ann", hashlib.sha256(b"key-000").digest()]
    found: list[bytes] = []
    for published in compiled(text).snapshots.current().values():
        for each in published.of_type(SECRET).values():
            _, _, key = each.body.partition(b"PRIVATE KEY-----\n")
            found += [line for line in key.splitlines()[:2] if len(line) > 32]
    return found
