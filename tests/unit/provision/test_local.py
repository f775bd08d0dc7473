from __future__ import annotations

import asyncio
import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from controlplane.provision.address import UnixAddress
from controlplane.provision.keeper import BackOff, Keeper
from controlplane.provision.local import LocalEnvoys
from tests.support.envoy import envoy_binary
from tests.support.waiting import until

QUICK = BackOff(first_s=0.01, most_s=0.05)


class Heard:
    """What a LocalEnvoys or a Keeper told."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.exits: list[tuple[int, float]] = []


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest_asyncio.fixture
async def envoys(heard: Heard, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LocalEnvoys]:
    with tempfile.TemporaryDirectory(prefix="dgm-") as folder:
        local = LocalEnvoys(
            envoy=Path(envoy_binary()),
            xds=lambda gateway: UnixAddress(f"{folder}/xds.sock"),
            folder=Path(folder),
            concurrency=1,
            log_level="info",
            on_line=lambda gateway, line: heard.lines.append(f"{gateway} {line}"),
            on_exit=lambda gateway, code, wait_s: heard.exits.append((code, wait_s)),
            back_off=QUICK,
        )
        yield local
        await local.stop()


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_every_gateway_has_an_envoy_of_its_own_and_loses_it_when_it_goes(envoys: LocalEnvoys) -> None:
    await envoys.apply({"demo/edge", "demo/inner"})
    pids = {gateway: envoys.pid(gateway) for gateway in envoys.running}
    assert len(set(pids.values())) == 2
    await envoys.apply({"demo/edge"})
    assert envoys.running == {"demo/edge"}
    assert envoys.pid("demo/edge") == pids["demo/edge"]
    assert not alive(pids["demo/inner"] or 0)
    await envoys.stop()
    assert not alive(pids["demo/edge"] or 0)


async def test_an_envoy_that_dies_is_started_again(envoys: LocalEnvoys, heard: Heard) -> None:
    await envoys.apply({"demo/edge"})
    first = envoys.pid("demo/edge")
    assert first is not None
    os.kill(first, signal.SIGKILL)
    second = await until(
        lambda: (pid := envoys.pid("demo/edge")) not in (None, first) and pid, what="another Envoy", within_s=10
    )
    assert heard.exits[0] == (-signal.SIGKILL, QUICK.first_s)
    assert second
    await until(lambda: any("starting main dispatch loop" in line for line in heard.lines[-5:]), what="its log")
    assert "starting main dispatch loop" in envoys.log("demo/edge").read_text()


async def test_the_admin_socket_is_its_owners_alone(envoys: LocalEnvoys) -> None:
    await envoys.apply({"demo/edge"})
    path = Path(envoys.admin("demo/edge").path)
    await until(path.exists, what="the admin socket")
    assert mode(path) == 0o600
    assert not await envoys.ready("demo/edge")


async def test_a_program_that_keeps_failing_is_started_less_and_less_often(heard: Heard, tmp_path: Path) -> None:
    keeper = Keeper(
        (sys.executable, "-c", "print('no'); raise SystemExit(3)"),
        log=tmp_path / "a.log",
        on_line=heard.lines.append,
        on_exit=lambda code, wait_s: heard.exits.append((code, wait_s)),
        back_off=QUICK,
    )
    await keeper.start()
    await until(lambda: len(heard.exits) >= 4, what="four ends")
    await keeper.stop()
    assert heard.exits[:4] == [(3, 0.01), (3, 0.02), (3, 0.04), (3, 0.05)]
    assert heard.lines[0] == "no"
    assert (tmp_path / "a.log").read_text().startswith("no\n")


async def test_a_program_that_ignores_the_request_to_end_is_killed(heard: Heard, tmp_path: Path) -> None:
    deaf = "import signal,time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
    keeper = Keeper(
        (sys.executable, "-c", deaf),
        log=tmp_path / "a.log",
        on_line=heard.lines.append,
        on_exit=lambda code, wait_s: None,
    )
    await keeper.start()
    pid = keeper.pid
    await until(lambda: heard.lines == ["deaf"], what="the program")
    await keeper.stop(within_s=0.05)
    assert pid
    assert not alive(pid)


async def test_children_die_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    script = f"""
import asyncio
from pathlib import Path
from controlplane.provision.keeper import Keeper

async def main():
    keeper = Keeper(("/bin/sleep", "60"), log=Path({str(tmp_path / "a.log")!r}), on_line=print, on_exit=print)
    await keeper.start()
    print(keeper.pid, flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", script, stdout=subprocess.PIPE, cwd="/")
    assert parent.stdout is not None
    child = int(await parent.stdout.readline())
    await until(lambda: "sleep" in Path(f"/proc/{child}/comm").read_text(), what="the child")
    parent.kill()
    await parent.communicate()
    await until(lambda: not alive(child), what="the child to die")
