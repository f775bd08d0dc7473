"""`dragoman ratelimit check` tells faults by file, line and field; beside it `dragoman ratelimit` serves as ever."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dragoman.cli.app import app
from dragoman.cli.errors import CommandError
from ratelimit_service import config_folder

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


def test_the_settings_of_the_service_say_what_is_checked_and_how(tmp_path: Path) -> None:
    limits, file = tmp_path / "limits", tmp_path / "settings.yaml"
    limits.mkdir()
    (limits / "a.yaml").write_text(GOOD.format(domain="a"))
    (limits / "b.yaml").write_text(GOOD.format(domain="a").replace("key: a", "key: b"))
    file.write_text(f"listen: 127.0.0.1:8081\nconfig: {limits}\nmerge_domains: true\n")
    summed_up = "a: 2 limits\n2 files, 1 domain, 2 limits, no faults\n"
    assert check("--settings", file) == (summed_up, "")
    assert check("--settings", file, limits) == (summed_up, "")
    before = CliRunner().invoke(app, ["ratelimit", "--settings", str(file), "check"], prog_name="dragoman")
    assert before.stdout == summed_up
    assert check(limits)[1] == "1 fault"
    assert check()[1] == "name the files to be checked, or give the --settings that do"


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
    assert said == f"{second}:1: domain: 'same' is in {first}:1 too\n"
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
    assert "listen: is missing; give --listen or DRAGOMAN_LISTEN" in str(done.exception)
    shown = CliRunner().invoke(app, ["ratelimit", "--help"], prog_name="dragoman").output
    assert "--listen" in shown
    assert "check" in shown


def test_what_begins_elsewhere_is_told_where_it_begins(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("domain: d\ndescriptors:\n- key: 'a\n- key: b\n")
    message = "is not YAML: found unexpected end of stream while scanning a quoted scalar, which begins in line 3"
    assert check(file)[0] == f"{file}:5: {message}\n"


@pytest.mark.parametrize("wrong", [b"\0", b"\xff"])
def test_a_byte_that_is_none_of_yaml_is_told_with_its_line(tmp_path: Path, wrong: bytes) -> None:
    file = tmp_path / "a.yaml"
    file.write_bytes(b"domain: d\ndescriptors:\n- key: " + wrong + b"\n- key: b\n")
    assert check(file)[0].startswith(f"{file}:3: is not YAML: unacceptable character ")


def test_manifests_are_told_apart_from_files_of_limits(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text("apiVersion: v1\nkind: ConfigMap\n---\n" + GOOD.format(domain="a"))
    said, _ = check(file)
    assert said == f"{file}:1: is a Kubernetes object, no file of limits: `dragoman validate` checks those\n"


def test_a_folder_that_links_back_to_itself_is_read_once(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "a.yaml").write_text(GOOD.format(domain="a"))
    (tmp_path / "below" / "up").symlink_to("..")
    (tmp_path / "here").symlink_to(".")
    assert check(tmp_path)[0] == "a: 1 limit\n1 file, 1 domain, 1 limit, no faults\n"


def test_a_folder_that_is_none_of_limits_is_not_read_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config_folder, "MAX_TOTAL_BYTES", 1000)
    for name in ("a", "b", "c"):
        (tmp_path / name).write_text("#" * 400)
    assert check(tmp_path)[0] == f"{tmp_path}: has more than 1000 bytes in its files\n"


def test_links_in_a_circle_are_told_by_name(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(GOOD.format(domain="a"))
    (tmp_path / "b.yaml").symlink_to("c.yaml")
    (tmp_path / "c.yaml").symlink_to("b.yaml")
    said, _ = check(tmp_path)
    assert said == "".join(f"{tmp_path}/{name}.yaml: Too many levels of symbolic links\n" for name in "bc")


def test_a_pipe_in_a_folder_is_not_waited_for_and_one_that_is_named_is_read(tmp_path: Path) -> None:
    pipe, folder = tmp_path / "pipe", tmp_path / "config"
    folder.mkdir()
    os.mkfifo(pipe)
    (folder / "a.yaml").symlink_to(pipe)
    assert check(folder)[0] == f"{folder}/a.yaml: is neither a file nor a folder\n"
    writer = threading.Thread(target=pipe.write_text, args=(GOOD.format(domain="a"),), daemon=True)
    writer.start()
    assert check(pipe)[0] == "a: 1 limit\n1 file, 1 domain, 1 limit, no faults\n"
    writer.join(5)
