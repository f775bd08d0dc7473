from __future__ import annotations

import os
import signal
import stat
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from controlplane.provision.address import UnixAddress
from controlplane.provision.local import LocalEnvoys
from dragoman.processes import BackOff, ChildError, ChildEvent, Supervisor
from tests.support.envoy import envoy_binary
from tests.support.waiting import until

QUICK = BackOff(first_s=0.01, most_s=0.05)


class Heard:
    """What a supervisor told."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.events: list[ChildEvent] = []

    def exits(self) -> list[int | None]:
        return [event.exit_code for event in self.events if event.state == "ended"]


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest_asyncio.fixture
async def envoys(heard: Heard) -> AsyncIterator[LocalEnvoys]:
    supervisor = Supervisor(
        on_line=lambda name, line: heard.lines.append(f"{name}: {line}"), on_event=heard.events.append
    )
    with tempfile.TemporaryDirectory(prefix="dgm-") as folder:
        async with supervisor:
            yield LocalEnvoys(
                supervisor,
                envoy=Path(envoy_binary()),
                xds=lambda gateway: UnixAddress(f"{folder}/xds.sock"),
                folder=Path(folder),
                concurrency=1,
                log_level="info",
                back_off=QUICK,
            )


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
    assert heard.exits() == [-signal.SIGKILL]
    assert second
    await until(lambda: sum("starting main dispatch loop" in line for line in heard.lines) == 2, what="its log")
    assert heard.lines[0].startswith("envoy demo/edge: ")


async def test_the_admin_socket_is_its_owners_alone(envoys: LocalEnvoys) -> None:
    await envoys.apply({"demo/edge"})
    path = Path(envoys.admin("demo/edge").path)
    assert mode(path) == 0o600
    assert not await envoys.ready("demo/edge")


async def test_an_envoy_that_does_not_start_says_so(tmp_path: Path) -> None:
    async with Supervisor() as supervisor:
        envoys = LocalEnvoys(
            supervisor,
            envoy=tmp_path / "none",
            xds=lambda gateway: UnixAddress("/tmp/x"),
            folder=tmp_path,
        )
        with pytest.raises(ChildError, match="envoy demo/edge"):
            await envoys.apply({"demo/edge"})
        assert envoys.running == frozenset()
