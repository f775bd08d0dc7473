"""What a command loads, and when: who waits for a control plane that starts again waits for that."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

_LOADED = "import json, sys; print(json.dumps(sorted(sys.modules)))"
_ENGINE = ("controlplane.api", "controlplane.compile", "controlplane.translate", "controlplane.pipeline", "yaml")


def loaded(folder: Path, statement: str) -> list[str]:
    """The modules that are there after a statement, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", f"{statement}\n{_LOADED}"], cwd=folder, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    "statement",
    [
        "import dragoman.cli.serve, dragoman.cli.serving, controlplane.kept.front",
        "import dragoman.cli.serving, dragoman.cli.options, controlplane.cluster.doorway, controlplane.replicas",
    ],
    ids=["a folder", "a cluster"],
)
def test_what_was_kept_is_served_before_anything_of_the_engine_is_loaded(tmp_path: Path, statement: str) -> None:
    found = [each for each in loaded(tmp_path, statement) if each.startswith(_ENGINE)]
    assert found == []


def test_serving_what_was_kept_needs_no_models_and_no_web_server(tmp_path: Path) -> None:
    modules = loaded(tmp_path, "import controlplane.kept.front")
    assert not [each for each in modules if each.startswith(("pydantic", "starlette", "uvicorn", "cryptography"))]


def test_a_command_loads_nothing_of_the_others(tmp_path: Path) -> None:
    modules = loaded(tmp_path, "import dragoman.cli.app, dragoman.cli.serve")
    others = ("dragoman.cli.up", "dragoman.cli.key", "dragoman.cli.explain", "ext_authz", "ratelimit_service", "redis")
    assert not [each for each in modules if each.startswith(others)]
