"""The file of kept snapshots: whole or not at all, noticed when it is not as written, and private."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from controlplane.kept.sealing import KeyFileError, read_key
from controlplane.kept.store import Change, Kept, Store, open_store
from controlplane.xds.resources import CLUSTER, ENDPOINT, SECRET, Resource, Snapshot

NOW = datetime(2026, 11, 21, 10, 0, tzinfo=UTC)
KEY = bytes(range(32))
OWNER = "demo/edge"


def cluster(name: str, text: str = "1") -> Resource:
    return Resource.of(CLUSTER, name, f"{name}={text}".encode(), ("Service demo/echo",), warm_s=2.5)


def opened(folder: Path, *, source: str = "a", key: bytes | None = None) -> tuple[Store, Kept]:
    store, kept = open_store(folder / "kept.db", source, key=key)
    assert store is not None
    return store, kept


def load(folder: Path, *, source: str = "a", key: bytes | None = None) -> Kept:
    store, kept = opened(folder, source=source, key=key)
    store.close()
    return kept


def keep(folder: Path, *changes: Change, key: bytes | None = None) -> None:
    store, _ = opened(folder, key=key)
    assert store.save(changes, NOW)
    store.close()


def names(kept: Kept, owner: str = OWNER) -> set[str]:
    return {name for resources in kept.snapshots[owner].resources.values() for name in resources}


def contents(folder: Path) -> int:
    db = sqlite3.connect(folder / "kept.db")
    (count,) = db.execute("SELECT count(*) FROM contents").fetchone()
    db.close()
    return count


def in_the_folder(folder: Path, needle: bytes) -> bool:
    return any(needle in path.read_bytes() for path in folder.iterdir())


def test_what_is_kept_comes_back_as_it_was(tmp_path: Path) -> None:
    a, b = cluster("a"), Resource.of(ENDPOINT, "a", b"\x00\xff\n")
    keep(tmp_path, Change(OWNER, put=(a, b), withhold=((SECRET, "s"),)))
    assert load(tmp_path) == Kept({OWNER: Snapshot({CLUSTER: {"a": a}, ENDPOINT: {"a": b}}, kept=True)}, 1, NOW)


def test_an_object_that_gave_much_of_a_resource_is_named_once(tmp_path: Path) -> None:
    origins = ("Service demo/echo", "HTTPRoute demo/shop") * 1000
    keep(tmp_path, Change(OWNER, put=(Resource.of(CLUSTER, "a", b"a", origins),)))
    assert load(tmp_path).snapshots[OWNER].of_type(CLUSTER)["a"].origins == origins[:2]


def test_only_what_changes_is_written_and_what_nobody_refers_to_goes(tmp_path: Path) -> None:
    keep(tmp_path, Change(OWNER, put=(cluster("a"), cluster("b"))), Change("demo/other", put=(cluster("a"),)))
    assert contents(tmp_path) == 2
    keep(tmp_path, Change(OWNER, put=(cluster("b", "2"),), drop=((CLUSTER, "a"),)))
    assert contents(tmp_path) == 2
    kept = load(tmp_path)
    assert kept.snapshots[OWNER].of_type(CLUSTER) == {"b": cluster("b", "2")}
    assert kept.snapshots["demo/other"].of_type(CLUSTER) == {"a": cluster("a")}
    keep(tmp_path, Change("demo/other", gone=True))
    assert load(tmp_path).snapshots.keys() == {OWNER}
    assert contents(tmp_path) == 1


def test_what_was_left_out_is_forgotten_when_it_is_told_anew(tmp_path: Path) -> None:
    keep(tmp_path, Change(OWNER, withhold=((SECRET, "old"), (SECRET, "older"))))
    keep(tmp_path, Change(OWNER, withhold=((SECRET, "new"),), anew=True))
    assert load(tmp_path).withheld == 1


def test_the_folder_and_its_files_are_for_nobody_else(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    store, _ = opened(folder)
    store.save([Change(OWNER, put=(cluster("a"),))], NOW)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    store.close()


def test_a_file_that_others_could_read_is_private_once_it_is_opened(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keep(tmp_path, Change(OWNER, put=(cluster("a"),)))
    (tmp_path / "kept.db").chmod(0o644)
    assert names(load(tmp_path)) == {"a"}
    assert (tmp_path / "kept.db").stat().st_mode & 0o777 == 0o600
    assert "could be read by others" in caplog.text


def test_what_is_of_another_source_is_not_served(tmp_path: Path) -> None:
    keep(tmp_path, Change(OWNER, put=(cluster("a"),)))
    assert load(tmp_path, source="b") == Kept()
    assert load(tmp_path) == Kept()


# Runs itself again and again, and ends at one statement later each time, as if the power had gone.
_CRASHES = """
import os, sys
from datetime import UTC, datetime
from pathlib import Path
from controlplane.kept.store import Change, open_store
from controlplane.xds.resources import CLUSTER, Resource

path, steps = Path(sys.argv[1]), 0
def changes(text):
    put = tuple(Resource.of(CLUSTER, f"c{i}", f"c{i}={text}".encode()) for i in range(5))
    return [Change("demo/edge", put=put), Change("demo/other", put=put[:1])]
store, _ = open_store(path, "a")
store.save(changes(0), datetime.now(UTC))
store.close()
done = False
while not done:
    steps += 1
    pid = os.fork()
    if pid == 0:
        store, _ = open_store(path, "a")
        left = [steps]
        def trace(statement):
            left[0] -= 1
            if left[0] < 0:
                os._exit(9)
        store._db.set_trace_callback(trace)
        store.save(changes(steps), datetime.now(UTC))
        os._exit(0)
    done = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    store, kept = open_store(path, "a")
    store.close()
    found = {each.body.partition(b"=")[2] for s in kept.snapshots.values() for each in s.of_type(CLUSTER).values()}
    assert len(found) == 1, (steps, found)
    assert found == {str(steps if done else 0).encode()}, (steps, found)
    assert [len(kept.snapshots[owner].of_type(CLUSTER)) for owner in ("demo/edge", "demo/other")] == [5, 1]
print(steps)
"""


def test_a_process_that_dies_at_any_statement_leaves_what_was_there_before(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _CRASHES, str(tmp_path / "kept.db")], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 10


@pytest.mark.parametrize("at", [0, 30, 100, 0.5, -1])
def test_a_file_that_is_not_as_it_was_written_is_put_aside(tmp_path: Path, at: float) -> None:
    keep(tmp_path, Change(OWNER, put=tuple(cluster(f"c{i}", "x" * 2000) for i in range(20))))
    path = tmp_path / "kept.db"
    damaged = bytearray(path.read_bytes())
    where = int(at * len(damaged)) if isinstance(at, float) else at
    damaged[where : where + 40 if where >= 0 else None] = b"\xa5" * (40 if where >= 0 else 1)
    path.write_bytes(damaged)
    assert load(tmp_path) == Kept()
    assert path.with_name("kept.db.unreadable").read_bytes() == damaged
    keep(tmp_path, Change(OWNER, put=(cluster("a"),)))
    assert names(load(tmp_path)) == {"a"}


def test_a_content_that_is_changed_or_lost_is_noticed(tmp_path: Path) -> None:
    for damage in ("UPDATE contents SET content = content || 'x'", "DELETE FROM contents"):
        keep(tmp_path, Change(OWNER, put=(cluster("a"),)))
        db = sqlite3.connect(tmp_path / "kept.db")
        with db:
            db.execute(damage)
        db.close()
        assert load(tmp_path) == Kept()


def test_a_content_in_the_place_of_another_is_noticed(tmp_path: Path) -> None:
    keep(tmp_path, Change(OWNER, put=(cluster("a"), cluster("b"))))
    db = sqlite3.connect(tmp_path / "kept.db")
    with db:
        db.execute("UPDATE resources SET address = (SELECT address FROM resources WHERE name = 'a')")
    db.close()
    assert load(tmp_path) == Kept()


def test_a_file_of_something_else_is_put_aside(tmp_path: Path) -> None:
    (tmp_path / "kept.db").write_text("nothing of ours")
    assert load(tmp_path) == Kept()
    assert (tmp_path / "kept.db.unreadable").read_text() == "nothing of ours"


@pytest.mark.parametrize(
    "damage",
    [
        "DROP TABLE facts",
        "DROP TABLE contents",
        "ALTER TABLE resources RENAME COLUMN owner TO other",
        "UPDATE facts SET text = CAST(x'ff' AS TEXT) WHERE name = 'at'",
        "UPDATE resources SET name = CAST(x'ff' AS TEXT)",
    ],
)
def test_a_file_of_ours_that_does_not_have_what_it_should_is_put_aside(tmp_path: Path, damage: str) -> None:
    keep(tmp_path, Change(OWNER, put=(cluster("a"),)))
    db = sqlite3.connect(tmp_path / "kept.db")
    with db:
        db.execute(damage)
    db.close()
    assert load(tmp_path) == Kept()
    assert (tmp_path / "kept.db.unreadable").exists()
    keep(tmp_path, Change(OWNER, put=(cluster("b"),)))
    assert names(load(tmp_path)) == {"b"}


def test_a_file_that_another_process_holds_is_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    keep(tmp_path, Change(OWNER, put=(cluster("a"),)))
    other = sqlite3.connect(tmp_path / "kept.db", isolation_level=None)
    other.execute("PRAGMA locking_mode = EXCLUSIVE")
    other.execute("BEGIN EXCLUSIVE")
    assert open_store(tmp_path / "kept.db", "a") == (None, Kept())
    assert "locked" in caplog.text
    other.execute("COMMIT")
    other.close()
    assert names(load(tmp_path)) == {"a"}
    assert not (tmp_path / "kept.db.unreadable").exists()


def test_where_nothing_can_be_kept_there_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file, where a folder should be")
    assert open_store(tmp_path / "state" / "kept.db", "a") == (None, Kept())


def test_more_than_may_be_kept_is_not(tmp_path: Path) -> None:
    store, _ = open_store(tmp_path / "kept.db", "a", max_bytes=1000)
    assert store is not None
    assert store.save([Change(OWNER, put=(cluster("a"),))], NOW)
    assert not store.save([Change(OWNER, put=(cluster("b", "x" * 2000),))], NOW)
    store.clear()
    store.close()
    assert load(tmp_path).snapshots == {}


def test_with_a_key_nothing_can_be_read_without_it(tmp_path: Path) -> None:
    keep(tmp_path, Change(OWNER, put=(cluster("a", "a-secret"),)), key=KEY)
    assert load(tmp_path, key=KEY).snapshots[OWNER].of_type(CLUSTER) == {"a": cluster("a", "a-secret")}
    assert not in_the_folder(tmp_path, b"a-secret")
    # Nor does a hash tell whether a guess is right.
    assert not in_the_folder(tmp_path, cluster("a", "a-secret").version.encode())
    assert load(tmp_path, key=bytes(32)) == Kept()


def test_what_is_encrypted_cannot_be_changed_unnoticed(tmp_path: Path) -> None:
    keep(tmp_path, Change(OWNER, put=(cluster("a"),)), key=KEY)
    db = sqlite3.connect(tmp_path / "kept.db")
    with db:
        (content,) = db.execute("SELECT content FROM contents").fetchone()
        db.execute("UPDATE contents SET content = ?", (content[:-1] + bytes([content[-1] ^ 1]),))
    db.close()
    assert load(tmp_path, key=KEY) == Kept()


@pytest.mark.parametrize("text", [KEY, KEY.hex().encode() + b"\n", b"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="])
def test_a_key_is_read_as_it_is_or_in_base64_or_hexadecimal(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "key"
    path.write_bytes(text)
    assert read_key(path) == KEY


@pytest.mark.parametrize("text", [b"", b"short", b"y" * 33, b"x" * 100])
def test_what_is_no_key_is_refused_and_not_repeated(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "key"
    path.write_bytes(text)
    with pytest.raises(KeyFileError) as fault:
        read_key(path)
    assert not text or text.decode("latin-1") not in str(fault.value)


@pytest.mark.parametrize("source", ["a", "another"])
def test_what_two_processes_write_is_never_mixed(tmp_path: Path, source: str) -> None:
    one, _ = opened(tmp_path)
    assert one.save([Change(OWNER, put=(cluster("one"),))], NOW)
    other, _ = opened(tmp_path, source=source)
    assert other.save([Change(OWNER, put=(cluster("other"),))], NOW)
    assert not one.save([Change(OWNER, put=(cluster("more"),))], NOW)
    one.clear()
    assert one.save([Change(OWNER, put=(cluster("all"),))], NOW)
    assert not other.save([Change(OWNER, drop=((CLUSTER, "other"),))], NOW)
    one.close()
    other.close()
    assert names(load(tmp_path)) == {"all"}


def test_a_time_that_is_none_makes_the_start_a_cold_one(tmp_path: Path) -> None:
    keep(tmp_path, Change(OWNER, put=(cluster("a"),)))
    db = sqlite3.connect(tmp_path / "kept.db")
    with db:
        db.execute("UPDATE facts SET text = 'soon' WHERE name = 'at'")
    db.close()
    assert not load(tmp_path).snapshots
