"""A service run as several real worker processes."""

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import grpc.aio
import pytest

from dragoman.grpc_worker import Address
from dragoman.processes import BackOff
from dragoman.workers import WorkerPlace, listen_addresses, run_workers
from tests.support.http import fetch
from tests.support.ports import free_port
from tests.support.waiting import until

WORKER = """
import asyncio, os, sys
from dragoman.grpc_worker import Address, serve
from dragoman.http_server import Health, serve_http
from dragoman.metrics import CallMetrics, new_registry
from dragoman.signals import stop_on_signals

async def main(listen, http, mode):
    stop, health, registry, calls = stop_on_signals(), Health(), new_registry(), CallMetrics()
    registry.register(calls)
    if mode == "refuse":
        sys.exit(7)
    methods = {"/t.S/Pid": lambda body, call: call.done(str(os.getpid()).encode())}
    server = await serve(methods, listen=Address.parse(listen), observe=calls)
    health.set("config", os.path.exists("unready") and "no config" or True)
    web = await serve_http(health=health, registry=registry, listen=Address.parse(http))
    health.started()
    await stop.wait()
    if mode == "stubborn":
        await asyncio.sleep(600)
    await server.drain(1)
    await web.close()
    sys.exit(3 if mode == "fail" else 0)

asyncio.run(main(*sys.argv[1:]))
"""


@dataclass
class Pool:
    """A running pool, as the test sees it."""

    places: tuple[WorkerPlace, ...]
    stop: asyncio.Event
    task: asyncio.Task[int]

    async def end(self) -> int:
        self.stop.set()
        return await asyncio.wait_for(self.task, 20)


@contextlib.asynccontextmanager
async def pool(
    tmp_path: Path, *, count: int = 2, mode: str = "", http: Address | None = None, grace_s: float = 5
) -> AsyncIterator[Pool]:
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    stop = asyncio.Event()
    running: asyncio.Future[tuple[WorkerPlace, ...]] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(
        run_workers(
            lambda place: [str(script), str(place.listen), str(place.http), mode],
            python=sys.executable,
            listen=Address(path=str(tmp_path / "s.sock")),
            count=count,
            stop=stop,
            http=http,
            grace_s=grace_s,
            back_off=BackOff(first_s=0.01),
            on_running=running.set_result,
        )
    )
    try:
        await asyncio.wait({task, running}, timeout=20, return_when=asyncio.FIRST_COMPLETED)
        yield Pool(running.result() if running.done() else (), stop, task)
    finally:
        stop.set()
        await asyncio.wait({task}, timeout=20)


async def pid_at(address: Address) -> int:
    async with grpc.aio.insecure_channel(str(address)) as channel:
        return int(await channel.unary_unary("/t.S/Pid")(b"", timeout=10, wait_for_ready=True))


async def test_each_worker_has_a_socket_of_its_own_and_all_end_when_told(tmp_path: Path) -> None:
    async with pool(tmp_path) as running:
        assert [str(place.listen) for place in running.places] == [f"unix:{tmp_path}/s.sock.{n}" for n in (0, 1)]
        pids = {await pid_at(place.listen) for place in running.places}
        assert len(pids) == 2
        assert await running.end() == 0
        assert not [name for name in os.listdir(tmp_path) if name.startswith("s.sock")]


async def test_a_worker_that_dies_comes_back_while_the_other_serves(tmp_path: Path) -> None:
    async with pool(tmp_path) as running:
        first, second = (place.listen for place in running.places)
        killed, other = await pid_at(first), await pid_at(second)
        os.kill(killed, signal.SIGKILL)
        assert await pid_at(second) == other
        assert await pid_at(first) != killed


async def test_one_port_answers_for_all_workers(tmp_path: Path) -> None:
    http = Address(host="127.0.0.1", port=free_port())
    async with pool(tmp_path, http=http) as running:
        for place in running.places:
            await pid_at(place.listen)
        metrics = (await fetch(http.port, "/metrics")).text
        for worker in ("0", "1"):
            assert f'dragoman_grpc_calls_total{{code="OK",method="/t.S/Pid",worker="{worker}"}} 1.0' in metrics
        assert 'worker="supervisor"' in metrics
        ready = await fetch(http.port, "/health/ready")
        assert (ready.status, ready.json()["status"]) == (200, "ready")
        assert (await fetch(http.port, "/health/startup")).status == 200


async def test_the_pool_is_not_ready_while_a_worker_is_not_and_says_which(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "unready").touch()
    http = Address(host="127.0.0.1", port=free_port())
    async with pool(tmp_path, http=http):
        ready = await fetch(http.port, "/health/ready")
        assert ready.status == 503
        assert ready.json()["failing"] == ["0", "1"]
        assert ready.json()["workers"]["0"]["checks"] == {"config": "no config"}


async def test_a_worker_that_cannot_start_ends_the_pool_with_its_exit_code(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with pool(tmp_path, mode="refuse") as running:
        assert await asyncio.wait_for(running.task, 20) == 7
    assert any(record.levelno == logging.ERROR and "exit code 7" in record.message for record in caplog.records)


@pytest.mark.parametrize(("mode", "grace_s"), [("fail", 5.0), ("stubborn", 0.0)])
async def test_a_worker_that_does_not_end_well_shows_in_the_exit_code(
    tmp_path: Path, mode: str, grace_s: float
) -> None:
    async with pool(tmp_path, count=1, mode=mode, grace_s=grace_s) as running:
        assert await running.end() == 1


@pytest.mark.parametrize(
    ("listen", "count", "expected"),
    [
        ("unix:/run/a.sock", 1, ["unix:/run/a.sock"]),
        ("unix:/run/a.sock", 2, ["unix:/run/a.sock.0", "unix:/run/a.sock.1"]),
        ("127.0.0.1:0", 1, ["127.0.0.1:0"]),
        ("[::1]:9000", 3, ["[::1]:9000", "[::1]:9001", "[::1]:9002"]),
    ],
)
def test_addresses_are_counted_from_the_first(listen: str, count: int, expected: list[str]) -> None:
    assert [str(address) for address in listen_addresses(Address.parse(listen), count)] == expected


@pytest.mark.parametrize(("listen", "count"), [("127.0.0.1:0", 2), ("127.0.0.1:65535", 2), ("unix:/a", 0)])
def test_addresses_that_cannot_be_are_refused(listen: str, count: int) -> None:
    with pytest.raises(ValueError):
        listen_addresses(Address.parse(listen), count)


POOL = """
import asyncio, sys
from dragoman.grpc_worker import Address
from dragoman.signals import stop_on_signals
from dragoman.workers import run_workers

async def main(worker, listen):
    return await run_workers(
        lambda place: [worker, str(place.listen), str(place.http), ""],
        python=sys.executable, listen=Address.parse(listen), count=2, stop=stop_on_signals(),
    )

sys.exit(asyncio.run(main(*sys.argv[1:])))
"""


async def separate_pool(tmp_path: Path) -> tuple[asyncio.subprocess.Process, list[int]]:
    """A supervising process and the ids of its workers."""
    worker, script, listen = tmp_path / "worker.py", tmp_path / "pool.py", Address(path=str(tmp_path / "s.sock"))
    worker.write_text(WORKER)
    script.write_text(POOL)
    process = await asyncio.create_subprocess_exec(sys.executable, str(script), str(worker), str(listen))
    return process, [await pid_at(address) for address in listen_addresses(listen, 2)]


def gone(pids: list[int]) -> bool:
    return not any(Path(f"/proc/{pid}/cmdline").exists() for pid in pids)


async def test_the_workers_of_a_killed_supervisor_do_not_outlive_it(tmp_path: Path) -> None:
    supervisor, pids = await separate_pool(tmp_path)
    supervisor.kill()
    await supervisor.wait()
    await until(lambda: gone(pids), what="the end of the workers")


async def test_sigterm_ends_the_whole_in_order(tmp_path: Path) -> None:
    supervisor, pids = await separate_pool(tmp_path)
    supervisor.terminate()
    assert await asyncio.wait_for(supervisor.wait(), 20) == 0
    assert gone(pids)
