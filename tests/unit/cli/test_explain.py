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


def of_quota(path: Path, mode: str) -> str:
    """A folder with a limit that Envoys may enforce by themselves."""
    limit = {"global": {"rules": [{"limit": {"requests": 5, "unit": "Minute"}, "mode": mode}]}}
    spec = {"targetRefs": [REF], "rateLimit": limit}
    policy = m.manifest("dragoman.dev/v1alpha1", "BackendTrafficPolicy", "limits", spec)
    return folder(path, m.route("r", [m.to_backend("/", "far")]), policy)


def test_without_word_of_a_quota_service_a_limit_with_mode_quota_is_told_to_be_asked_about(tmp_path: Path) -> None:
    live = of_quota(tmp_path / "live", "Quota")
    done = run("validate", live)
    assert isinstance(done.exception, CommandError)
    assert "no quota service is known (--ratelimit-quota); the service is asked about each request" in done.output
    assert "no quota service is known (--ratelimit-quota)" in run("explain", "http://example.com/", live).output


@pytest.mark.parametrize(
    ("options", "variables", "at"),
    [
        (("--quota",), {}, ""),
        (("--ratelimit-quota", "10.0.0.9:9001"), {}, " at 10.0.0.9:9001"),
        ((), {"DRAGOMAN_QUOTA": "true", "DRAGOMAN_RATELIMIT_SERVICE_HOST": "of Kubernetes"}, ""),
        ((), {"DRAGOMAN_RATELIMIT_QUOTA": "10.0.0.9:9001,10.0.0.8:9001"}, " at 10.0.0.8:9001"),
    ],
)
def test_the_settings_of_up_and_serve_say_that_envoys_enforce_limits_with_mode_quota(
    options: tuple[str, ...], variables: dict[str, str], at: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    live = of_quota(tmp_path / "live", "Quota")
    assert run("validate", live, *options).exit_code == 0
    done = run("explain", "http://example.com/", live, *options)
    assert "5 requests a minute: counts this request" in done.output
    assert f"each Envoy enforces the share that the rate limit service{at} assigns to it" in done.output
    assert "dragoman/quota" in run("translate", live, *options).output


def test_commands_on_a_folder_take_the_file_of_settings_that_serve_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live, settings = of_quota(tmp_path / "live", "Quota"), tmp_path / "serve.yaml"
    file = str(settings)
    settings.write_text("xds: 127.0.0.1:18000\nvalidate_with: envoy\nratelimit_quota: ['10.0.0.9:9001']\n")
    assert run("validate", live, "--settings", file).exit_code == 0
    told = "the rate limit service at 10.0.0.9:9001 assigns to it"
    assert told in run("explain", "http://example.com/", live, "--settings", file).output
    assert "dragoman/quota" in run("translate", live, "--settings", file).output
    assert run("diff", live, live, "--settings", file).exit_code == 0
    options = ("--ratelimit-quota", "10.0.0.8:9001")
    done = run("explain", "http://example.com/", live, "--settings", file, *options)
    assert told.replace("10.0.0.9", "10.0.0.8") in done.output
    monkeypatch.setenv("DRAGOMAN_SETTINGS", file)
    assert run("validate", live).exit_code == 0
    settings.write_text("ratelimit_quota: [nowhere]\n")
    assert f"{file}:1: ratelimit_quota: 'nowhere'" in str(run("validate", live).exception)


def test_a_limit_that_envoys_are_to_enforce_is_a_change_of_the_routes(tmp_path: Path) -> None:
    old, new = of_quota(tmp_path / "old", "Request"), of_quota(tmp_path / "new", "Quota")
    done = run("diff", old, new, "--quota")
    assert "→ 5 requests a minute; each Envoy enforces its share of that (mode Quota)" in done.output
    assert "Faults" not in done.output
    assert "+ BackendTrafficPolicy demo/limits spec.rateLimit.global.rules[0].mode" in run("diff", old, new).output


@pytest.mark.parametrize(
    "command",
    [
        ("explain", "http://h/", "--server", "http://127.0.0.1:1", "--quota"),
        ("diff", ".", "--server", "http://127.0.0.1:1", "--ratelimit-quota", "a:1"),
        ("validate", ".", "--ratelimit-quota", "nowhere"),
    ],
)
def test_settings_that_are_no_addresses_or_not_for_folders_are_refused(command: tuple[str, ...]) -> None:
    done = run(*command)
    assert isinstance(done.exception, CommandError)
    assert "quota" in str(done.exception)


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
