"""What routes in force may name is written before it is published, and read again whatever became of the process."""

from __future__ import annotations

import stat
from pathlib import Path

from controlplane.kept.requirements import Requirements
from controlplane.xds.resources import EXTENSION_CONFIG, Resource, Snapshot
from tests.unit.xds.made import snapshot

NAME = "dragoman/jwt"


def having(body: bytes) -> Snapshot:
    return snapshot(Resource.of(EXTENSION_CONFIG, NAME, body), Resource.of(EXTENSION_CONFIG, "another", b"?"))


def test_what_was_noted_is_there_after_a_kill(tmp_path: Path) -> None:
    before = Requirements(tmp_path / "requirements", name=NAME)
    before.note({"demo/edge": having(b"one\ntwo"), "demo/other": having(b"three")})
    before.note({"demo/edge": having(b"four\n"), "demo/other": None, "demo/none": snapshot()})
    assert Requirements(tmp_path / "requirements", name=NAME).load() == {"demo/edge": b"four\n"}


def test_it_is_for_its_user_alone(tmp_path: Path) -> None:
    Requirements(tmp_path / "requirements", name=NAME).note({"demo/edge": having(b"one")})
    (file,) = (tmp_path / "requirements").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_what_has_not_changed_is_not_written_again(tmp_path: Path) -> None:
    requirements = Requirements(tmp_path / "requirements", name=NAME)
    requirements.note({"demo/edge": having(b"one")})
    (file,) = (tmp_path / "requirements").iterdir()
    file.unlink()
    requirements.note({"demo/edge": having(b"one")})
    assert not list((tmp_path / "requirements").iterdir())


def test_a_folder_that_cannot_be_written_or_read_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "requirements").write_text("no folder")
    requirements = Requirements(tmp_path / "requirements", name=NAME)
    assert requirements.load() == {}
    requirements.note({"demo/edge": having(b"one")})
