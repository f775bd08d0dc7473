"""`dragoman ratelimit check` tells faults by file, line and field; beside it `dragoman ratelimit` serves as ever."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from dragoman.cli.app import app
from dragoman.cli.errors import CommandError

GOOD = "domain: {domain}\ndescriptors:\n- key: a\n  rate_limit: {{unit: minute, requests_per_unit: 3}}\n"


def check(*arguments: str | Path) -> tuple[str, str]:
    """The lines that it prints, and what it ends with."""
    done = CliRunner().invoke(app, ["ratelimit", "check", *map(str, arguments)], prog_name="dragoman")
    assert (done.exit_code == 0) == (done.exception is None)
    assert done.exception is None or isinstance(done.exception, CommandError)
    return done.stdout, str(done.exception or "")


def test_a_sound_folder_is_summed_up(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(GOOD.format(domain="a"))
    (tmp_path / "b.yml").write_text(GOOD.format(domain="b") + "- key: b\n  rate_limit: {unlimited: true}\n")
    assert check(tmp_path) == ("a: 1 limit\nb: 2 limits\n2 files, 2 domains, 3 limits, no faults\n", "")


def test_every_fault_has_its_file_line_and_field(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("domain: a\ndescriptors:\n- key: a\n  rate_limit: {unit: eon}\n- value: v\n")
    (tmp_path / "b.yaml").write_text("domain: [\n")
    said, ended = check(tmp_path)
    first, second, third = said.splitlines()
    assert first.startswith(f"{tmp_path}/a.yaml:4: descriptors[0].rate_limit.unit: 'eon' is none of second, ")
    assert second == f"{tmp_path}/a.yaml:5: descriptors[1].key: must not be empty"
    assert third.startswith(f"{tmp_path}/b.yaml:2: is not YAML: ")
    assert ended == "3 faults"


def test_several_paths_are_one_configuration(tmp_path: Path) -> None:
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    first.write_text(GOOD.format(domain="same"))
    second.write_text(GOOD.format(domain="same"))
    said, _ = check(first, second)
    assert said == f"{second}:1: domain: 'same' is in another file or document too\n"
    said, _ = check("--merge-domains", first, second)
    assert said == f"{second}:1: descriptors: 'a' is in another file too\n"
    second.write_text("domain: same\ndescriptors:\n- key: b\n  rate_limit: {unit: day}\n")
    assert check("--merge-domains", first, second)[0].endswith("2 files, 1 domain, 2 limits, no faults\n")


@pytest.mark.parametrize("name", ["missing.yaml", "."])
def test_what_is_not_there_is_a_fault(tmp_path: Path, name: str) -> None:
    said, ended = check(tmp_path / name)
    assert said.startswith(str(tmp_path))
    assert ended == "1 fault"


def test_a_file_that_is_passed_over_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(GOOD.format(domain="a"))
    (tmp_path / "a.yaml.bak").write_text("nothing")
    done = CliRunner().invoke(app, ["ratelimit", "check", str(tmp_path)])
    assert "a.yaml.bak: is not read" in done.stderr


def test_without_check_the_service_asks_for_its_settings() -> None:
    done = CliRunner().invoke(app, ["ratelimit", "--workers", "2"])
    assert "listen: Field required" in str(done.exception)
    shown = CliRunner().invoke(app, ["ratelimit", "--help"], prog_name="dragoman").output
    assert "--listen" in shown
    assert "check" in shown
