"""The state file: what is kept, what is not, and what becomes of a file that cannot be used."""

from __future__ import annotations

import os
import sqlite3
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from controlplane.api.load import load
from controlplane.api.meta import ObjectKey
from controlplane.state import Fact, Kept, Rejected, State
from tests.support import manifests as m
from tests.support.certificates import Authority

ROUTE = m.route("shop", [m.rule("/shop", "one")], hostnames=["shop.example.com"])
BACKEND = m.backend("one", 8080)


def kept(document: dict[str, Any], file: str = "") -> Kept:
    loaded = load(document)
    assert loaded.key is not None, loaded.faults
    assert loaded.object is not None, loaded.faults
    return Kept(loaded.key, loaded.object, file)


def contents(path: Path) -> bytes:
    return b"".join(each.read_bytes() for each in path.parent.iterdir() if each.name.startswith(path.name))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "state.db"


def test_what_was_accepted_is_recalled_by_the_next_process(path: Path) -> None:
    state = State(path)
    route, backend = kept(ROUTE), kept(BACKEND)
    state.save([route, backend])
    state.close()
    again = State(path)
    assert again.recall([route.key, backend.key]) == {route.key: route.object, backend.key: backend.object}
    assert again.recall([ObjectKey("", "Service", "demo", "unknown")]) == {}
    assert again.keys() == {route.key, backend.key}
    again.close()


def test_what_is_forgotten_is_not_recalled(path: Path) -> None:
    state = State(path)
    route = kept(ROUTE)
    state.save([route])
    state.save([Kept(route.key, None)])
    assert state.recall([route.key]) == {}
    state.close()


def test_objects_are_found_by_the_file_that_they_were_written_in(path: Path) -> None:
    state = State(path)
    route, backend = kept(ROUTE, "a.yaml"), kept(BACKEND, "b.yaml")
    state.save([route, backend])
    assert state.of_files(["a.yaml"]) == {route.key: "a.yaml"}
    state.save([kept(ROUTE, "b.yaml")])
    assert state.of_files(["a.yaml"]) == {}
    assert state.of_files(["a.yaml", "b.yaml"]) == {route.key: "b.yaml", backend.key: "b.yaml"}
    state.close()


def test_secrets_are_never_written(path: Path, authority: Authority) -> None:
    certificate = authority.leaf("a.example.com")
    secret = kept(certificate.secret("demo", "tls"))
    state = State(path)
    state.save([secret, kept(ROUTE)])
    assert state.recall([secret.key]) == {}
    state.close()
    assert b"PRIVATE" not in contents(path)
    assert b"demo-tls" not in contents(path)


def test_facts_are_kept_by_kind_and_name(path: Path) -> None:
    state = State(path)
    state.save([], [Fact("addresses", "a.test", "192.0.2.1"), Fact("key set", "https://a.test/keys", "{}")])
    state.save([], [Fact("addresses", "b.test", "192.0.2.2"), Fact("key set", "https://a.test/keys", None)])
    assert state.facts("addresses") == {"a.test": "192.0.2.1", "b.test": "192.0.2.2"}
    assert state.facts("key set") == {}
    state.close()


def test_the_file_is_its_owners_alone(path: Path) -> None:
    state = State(path)
    state.save([kept(ROUTE)])
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    state.close()


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620, 0o700])
def test_a_file_of_a_wider_mode_becomes_its_owners_alone(
    path: Path, mode: int, caplog: pytest.LogCaptureFixture
) -> None:
    first = State(path)
    first.save([kept(ROUTE)])
    copies = {each: each.read_bytes() for each in path.parent.iterdir()}
    assert {each.name for each in copies} == {"state.db", "state.db-wal", "state.db-shm"}
    first.close()
    for each, data in copies.items():
        each.write_bytes(data)
        each.chmod(mode)
    state = State(path)
    assert {each.name: stat.S_IMODE(each.stat().st_mode) for each in path.parent.iterdir()} == dict.fromkeys(
        ("state.db", "state.db-wal", "state.db-shm"), 0o600
    )
    assert state.keys() == {kept(ROUTE).key}
    state.close()
    told = [each for each in caplog.messages if "could be read by others" in each]
    assert len(told) == (3 if mode & 0o044 else 0)


def test_a_file_that_is_its_owners_alone_is_opened_without_a_word(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    State(path).close()
    State(path).close()
    assert caplog.messages == []


def test_an_object_of_an_unreasonable_size_is_not_kept(path: Path) -> None:
    state = State(path)
    big = kept(m.manifest("v1", "ConfigMap", "big", None, data={"text": "x" * 2_000_000}))
    state.save([big, kept(ROUTE)])
    assert state.keys() == {kept(ROUTE).key}
    state.close()


@pytest.mark.parametrize("fault", ["garbage", "of something else", "of a later version"])
def test_a_file_that_cannot_be_used_is_put_aside(path: Path, fault: str) -> None:
    path.parent.mkdir()
    if fault == "garbage":
        path.write_bytes(b"this is no database" * 100)
    else:
        db = sqlite3.connect(path)
        db.execute(f"PRAGMA application_id = {1 if fault == 'of something else' else 0x44524147}")
        db.execute("PRAGMA user_version = 1000")
        db.execute("CREATE TABLE other (x)")
        db.commit()
        db.close()
    state = State(path)
    state.save([kept(ROUTE)])
    assert state.keys() == {kept(ROUTE).key}
    state.close()
    assert path.with_name("state.db.unreadable").exists()


def test_a_file_that_another_process_holds_is_left_alone_and_the_start_says_so(path: Path) -> None:
    state = State(path)
    state.save([kept(ROUTE)])
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("PRAGMA locking_mode = EXCLUSIVE")
    state.close()
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(OSError, match="locked") as fault:
        State(path)
    assert str(path) in str(fault.value)
    assert fault.value.strerror is None, "a command would say no more than this"
    assert not path.with_name("state.db.unreadable").exists()
    other.execute("COMMIT")
    other.close()
    again = State(path)
    assert again.keys() == {kept(ROUTE).key}
    again.close()


def test_where_no_file_can_be_had_the_start_says_which_and_why(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    for path in (tmp_path / "taken" / "state.db", tmp_path):
        with pytest.raises(OSError, match=r"cannot be used: (File exists|Is a directory)") as fault:
            State(path)
        assert str(path) in str(fault.value)


def test_processes_that_begin_at_once_share_a_file_that_is_whole(path: Path) -> None:
    with ThreadPoolExecutor(4) as threads:
        states = list(threads.map(lambda _: State(path), range(4)))
    for state in states:
        state.close()
    assert not path.with_name("state.db.unreadable").exists()


def test_a_document_that_this_version_does_not_understand_is_not_recalled(path: Path) -> None:
    state = State(path)
    route = kept(ROUTE)
    state.save([route])
    state.close()
    db = sqlite3.connect(path)
    db.execute("""UPDATE accepted SET document = replace(document, '"rules"', '"ruls"')""")
    db.commit()
    db.close()
    again = State(path)
    assert again.recall([route.key]) == {}
    again.close()


def test_a_write_that_fails_harms_nobody(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    state = State(path)
    other = sqlite3.connect(path)
    other.execute("BEGIN EXCLUSIVE")
    state.save([kept(ROUTE)])
    assert "locked" in caplog.text
    other.rollback()
    other.close()
    state.save([kept(ROUTE)])
    assert state.keys() == {kept(ROUTE).key}
    state.close()


def edited(document: dict[str, Any], path: str) -> dict[str, Any]:
    return {**document, "spec": {**document["spec"], "rules": [m.rule(path, "one")]}}


def test_what_envoys_had_confirmed_is_known_until_they_confirm_another_version(path: Path) -> None:
    state = State(path)
    first, second, third = (kept(edited(ROUTE, each)) for each in ("/1", "/2", "/3"))
    assert first.object is not None
    state.save([first])
    for each in (second, third):
        state.save([replace(each, confirmed=False)])
        state.close()
        state = State(path)
        assert each.object is not None
        assert state.confirmed({each.key: each.object}) == {each.key: first.object}
        assert state.recall([each.key]) == {each.key: each.object}
    state.save([third])
    assert state.confirmed({first.key: first.object}) == {third.key: third.object}
    state.close()


def test_what_is_new_and_not_confirmed_has_nothing_before_it(path: Path) -> None:
    state = State(path)
    first, second = (kept(edited(ROUTE, each)) for each in ("/1", "/2"))
    assert second.object is not None
    state.save([replace(first, confirmed=False)])
    state.save([replace(second, confirmed=False)])
    assert state.confirmed({second.key: second.object}) == {}
    state.save([Kept(first.key, None)])
    state.save([second])
    assert state.confirmed({second.key: second.object})[second.key] is second.object
    state.close()


def test_what_envoys_reject_is_remembered_until_it_is_forgotten_but_of_secrets(
    path: Path, authority: Authority
) -> None:
    state = State(path)
    route, secret = kept(ROUTE), kept(authority.leaf("a.example.com").secret("demo", "tls"))
    state.save([], rejected=[Rejected(route.key, "abc", "no"), Rejected(secret.key, "def", "neither")])
    state.save([], rejected=[Rejected(route.key, "abd", "no more")])
    state.close()
    state = State(path)
    assert state.rejected() == [Rejected(route.key, "abd", "no more")]
    state.save([], rejected=[Rejected(route.key, None)])
    assert state.rejected() == []
    state.close()


def test_a_file_of_the_version_before_keeps_what_it_has(path: Path) -> None:
    state = State(path)
    route = kept(ROUTE)
    state.save([route])
    state.close()
    db = sqlite3.connect(path)
    db.executescript("DROP TABLE before; DROP TABLE rejected; PRAGMA user_version = 1;")
    db.close()
    state = State(path)
    assert state.recall([route.key]) == {route.key: route.object}
    assert state.rejected() == []
    state.close()
