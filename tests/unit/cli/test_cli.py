"""The command line: what it says, what it refuses, and how its settings are layered."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from dragoman.cli.app import app
from dragoman.cli.errors import CommandError
from dragoman.cli.settings import ServeSettings, load
from tests.support import manifests as m
from tests.support.envoy import validate

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"


def dragoman(*arguments: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).parent / "dragoman"), *arguments]
    environment = {**os.environ, "COLUMNS": "160", **(env or {})}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)


def write(folder: Path, *documents: object) -> Path:
    (folder / "all.yaml").write_text(yaml.safe_dump_all(documents))
    return folder


def test_a_flag_goes_before_the_environment_and_that_before_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(f"config: {tmp_path}\nxds: 127.0.0.1:1\nhttp: 127.0.0.1:2\nlog_level: DEBUG\n")
    monkeypatch.setenv("DRAGOMAN_HTTP", "127.0.0.1:3")
    monkeypatch.setenv("DRAGOMAN_XDS", "127.0.0.1:4")
    monkeypatch.setenv("DRAGOMAN_REDIS", "redis://of-another-command")
    settings = load(ServeSettings, file, xds="127.0.0.1:5", http=None)
    assert (settings.xds, settings.http, settings.log_level) == ("127.0.0.1:5", "127.0.0.1:3", "DEBUG")
    assert settings.config == tmp_path


def test_an_unknown_variable_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRAGOMAN_HTPP", "127.0.0.1:3")
    with pytest.raises(CommandError, match=r"DRAGOMAN_HTPP: .*did you mean DRAGOMAN_HTTP"):
        load(ServeSettings, None, config=tmp_path)


def test_validate_names_file_line_object_and_field(tmp_path: Path) -> None:
    write(tmp_path, m.gateway_class(), m.gateway(), m.route("r", [m.rule("/a", "missing")]))
    done = dragoman("validate", str(tmp_path))
    assert done.returncode == 1
    line = next(i for i, text in enumerate((tmp_path / "all.yaml").read_text().splitlines(), 1) if "missing" in text)
    expected = f"{tmp_path}/all.yaml:{line}: HTTPRoute demo/r spec.rules[0].backendRefs[0].name: "
    assert f"{expected}Service demo/missing does not exist" in done.stdout
    assert "1 fault" in done.stderr
    assert "Traceback" not in done.stderr


def test_validate_is_content_with_the_quickstart() -> None:
    done = dragoman("validate", str(EXAMPLES / "quickstart"))
    assert done.returncode == 0, done.stdout
    assert "no faults" in done.stdout


def test_translate_shows_the_configuration_without_secrets() -> None:
    done = dragoman("translate", str(EXAMPLES / "quickstart"), "--gateway", "demo/edge")
    assert done.returncode == 0, done.stderr
    shown = yaml.safe_load(done.stdout)["demo/edge"]
    assert shown["RouteConfiguration"][0]["name"] == "demo/edge/8080"
    assert "demo-key-for-trying-only" not in done.stdout
    assert dragoman("translate", str(EXAMPLES / "quickstart"), "--gateway", "demo/nowhere").returncode == 1


def test_bootstrap_prints_what_envoy_takes() -> None:
    done = dragoman("bootstrap", "--gateway", "demo/edge", "--xds", "127.0.0.1:18000", "--admin", "")
    accepted, message = validate(yaml.safe_load(done.stdout))
    assert accepted, message
    assert dragoman("bootstrap", "--gateway", "edge", "--xds", "127.0.0.1:18000").returncode == 1


def test_the_id_of_a_key_is_whole_in_a_narrow_terminal(tmp_path: Path) -> None:
    keys = ("--keys", str(tmp_path / "keys.db"))
    made = CliRunner().invoke(app, ["key", "create", "alice", "--plan", "gold", *keys])
    listed = CliRunner().invoke(app, ["key", "list", *keys], env={"COLUMNS": "60"})
    assert made.stdout.split("_")[1] in listed.stdout


def test_a_key_is_shown_once_listed_without_its_secret_and_revoked(tmp_path: Path) -> None:
    keys = ("--keys", str(tmp_path / "keys.db"))
    made = dragoman("key", "create", "alice", "--scope", "read", "--metadata", "plan=gold", "--expires-in", "1d", *keys)
    key = made.stdout.strip()
    key_id = key.split("_")[1]
    listed = dragoman("key", "list", *keys)
    assert "alice" in listed.stdout
    assert key_id in listed.stdout
    assert key not in listed.stdout
    assert dragoman("key", "revoke", key_id, *keys).returncode == 0
    assert "revoked" in dragoman("key", "list", *keys).stdout
    assert dragoman("key", "revoke", "nobody", *keys).returncode == 1
    assert key.encode() not in (tmp_path / "keys.db").read_bytes()


@pytest.mark.parametrize(
    "command",
    ["up", "serve", "bootstrap", "authz", "ratelimit", "validate", "translate", "explain", "diff", "key", "version"],
)
def test_a_command_explains_itself(command: str) -> None:
    done = CliRunner().invoke(app, [command, "--help"], prog_name="dragoman")
    assert done.exit_code == 0
    assert f"Usage: dragoman {command}" in done.output


def test_validate_asks_envoy_about_what_is_risky(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "bin" / "envoy"
    fake.parent.mkdir()
    fake.write_text(
        "#!/bin/sh\n"
        "for last; do :; done\n"
        'grep -q bad "$last" || exit 0\n'
        "echo \"error initializing configuration '$last': it is bad\" >&2; exit 1\n"
    )
    fake.chmod(0o700)
    monkeypatch.setattr("controlplane.provision.binary.find_envoy", lambda: fake)
    match = {"path": {"type": "RegularExpression", "value": "/bad.*"}}
    routes = [m.route("risky", [{**m.to_backend("/", "echo"), "matches": [match]}]), m.route("plain", [])]
    folder = tmp_path / "config"
    folder.mkdir()
    (folder / "all.yaml").write_text(
        yaml.safe_dump_all([m.gateway_class(), m.gateway(), m.backend("echo", 80), *routes])
    )
    said = CliRunner().invoke(app, ["validate", str(folder), "--validate-with", "envoy"])
    assert "HTTPRoute demo/risky: rejected by Envoy: it is bad" in said.output
    assert "1 fault" in str(said.exception)
    assert CliRunner().invoke(app, ["validate", str(folder)]).exit_code == 0


def test_an_envoy_to_be_asked_that_is_not_there_is_told_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controlplane.provision.binary.find_envoy", lambda: None)
    for command in (["serve", "--config", str(tmp_path)], ["validate", str(tmp_path)]):
        said = CliRunner().invoke(app, [*command, "--validate-with", "envoy"])
        assert said.exit_code != 0
        assert "there is no `envoy` beside this Python" in str(said.exception)
