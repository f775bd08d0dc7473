"""`dragoman explain` and `dragoman diff` on folders: what they print, and their exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from dragoman.cli.app import app
from dragoman.cli.errors import CommandError
from tests.support import manifests as m

REF = {"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": "r"}
PROVIDER = {"name": "main", "issuer": "https://issuer.example", "remoteJWKS": {"uri": "https://issuer.example/keys"}}
BACKEND: dict[str, Any] = {"endpoints": [{"fqdn": {"hostname": "backend.example", "port": 80}}]}


def folder(path: Path, *documents: m.Manifest) -> str:
    path.mkdir()
    world = [m.gateway_class(), m.gateway(), m.manifest("dragoman.dev/v1alpha1", "Backend", "far", BACKEND)]
    (path / "all.yaml").write_text(yaml.safe_dump_all([*world, *documents]))
    return str(path)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments], prog_name="dragoman")


def test_what_is_fetched_while_a_gateway_runs_is_taken_to_be_there(tmp_path: Path) -> None:
    policy = m.manifest(
        "dragoman.dev/v1alpha1", "SecurityPolicy", "tokens", {"targetRefs": [REF], "jwt": {"providers": [PROVIDER]}}
    )
    live = folder(tmp_path / "live", m.route("r", [m.to_backend("/", "far")]), policy)
    done = run("explain", "http://example.com/", live, "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["outcome"]["kind"] == "forward"
    assert [each["field"] for each in found["policies"]] == ["jwt"]
    assert found["policies"][0]["source"]["place"].startswith(f"{live}/all.yaml:")
    assert "at the addresses of backend.example" in found["outcome"]["backends"][0]["note"]


def test_the_exit_code_says_whether_something_changes(tmp_path: Path) -> None:
    old = folder(tmp_path / "old", m.route("r", [m.to_backend("/a", "far")]))
    new = folder(tmp_path / "new", m.route("r", [m.to_backend("/b", "far")]))
    same = run("diff", old, old)
    assert (same.exit_code, same.stdout) == (0, "nothing changes\n")
    done = run("diff", old, new)
    assert done.exit_code == 1
    assert "- demo/edge http://*:80 /a" in done.stdout
    assert "+ demo/edge http://*:80 /b" in done.stdout


@pytest.mark.parametrize("command", [("explain", "http://h/"), ("diff", "."), ("explain", "ftp://h/", ".")])
def test_what_is_asked_for_must_be_clear(command: tuple[str, ...]) -> None:
    done = run(*command)
    assert isinstance(done.exception, CommandError)


def test_an_explanation_is_printed_whole_however_its_texts_look(tmp_path: Path) -> None:
    """Square brackets are no mark-up, and lines are not broken."""
    pattern = "/[bold]" + "x" * 200
    rule = {"matches": [{"path": {"type": "RegularExpression", "value": pattern}}]}
    live = folder(tmp_path / "live", m.route("r", [rule]))
    done = run("explain", "http://example.com/", live)
    assert done.exit_code == 1
    assert f"wanted all of it like {pattern}" in done.stdout
