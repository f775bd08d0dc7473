"""`dragoman up` as a newcomer meets it: it starts, its lines work, edits take effect, Ctrl-C leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.support.curl import parse_curl
from tests.support.http import fetch
from tests.support.ports import free_ports
from tests.support.waiting import until

QUICKSTART = Path(__file__).resolve().parents[2] / "examples" / "quickstart"


class Up:
    """A running `dragoman up`, and what it has printed so far."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[str] = []

    async def read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            self.lines.append(line.decode().rstrip())

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    async def says(self, pattern: str, *, after: int = 0, within_s: float = 60.0) -> str:
        def find() -> str | None:
            return next((line for line in self.lines[after:] if re.search(pattern, line)), None)

        found = await until(find, what=f"a line with {pattern!r}", within_s=within_s, detail=lambda: self.text)
        assert found is not None
        return found


def quickstart(folder: Path, port: int, echo_port: int) -> Path:
    """The quickstart on ports of our own, so that tests run side by side."""
    folder.mkdir()
    for path in QUICKSTART.glob("*.yaml"):
        text = path.read_text().replace("port: 8080", f"port: {port}").replace("port: 18080", f"port: {echo_port}")
        (folder / path.name).write_text(text)
    return folder


@asynccontextmanager
async def up(folder: Path, home: Path) -> AsyncIterator[Up]:
    command = [str(Path(sys.executable).parent / "dragoman"), "up", str(folder), "--http", "127.0.0.1:0"]
    environment = {**os.environ, "HOME": str(home), "COLUMNS": "200"}
    process = await asyncio.create_subprocess_exec(
        *command, cwd=home, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    running = Up(process)
    reading = asyncio.create_task(running.read())
    try:
        yield running
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)
            try:
                await asyncio.wait_for(process.wait(), 20)
            except TimeoutError:
                process.kill()
                raise
        await reading


def children_of(pid: int) -> list[int]:
    """The ids of all processes below one, from /proc."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(stat.parent.name)] = int(fields[1])
    found: list[int] = []
    for child, parent in parents.items():
        if parent == pid:
            found += [child, *children_of(child)]
    return found


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.serial
async def test_the_quickstart_does_what_its_lines_say_and_follows_edits(tmp_path: Path) -> None:
    port, echo_port = free_ports(2)
    folder = quickstart(tmp_path / "config", port, echo_port)
    async with up(folder, tmp_path) as running:
        await running.says("Dragoman is up", within_s=60)
        await running.says("Edit a file")
        tried = 0
        for line in running.lines:
            command, hash_, expect = line.strip().partition("  # ")
            if not command.startswith("curl "):
                continue
            tried += 1
            # Five requests a minute, which must not end between them.
            await until(lambda: time.time() % 60 < 50, what="a minute to begin", within_s=15)
            answers = await parse_curl(shlex.split(command)[1:]).run()
            statuses = [answer.status for answer in answers]
            wanted = [200] * 5 + [429] if "five times" in expect else [int(expect[:3])]
            assert hash_
            assert statuses == wanted, f"{line}\n{answers[-1].text}\n{running.text}"
        assert tried >= 6

        at = len(running.lines)
        route = (folder / "open.yaml").read_text()
        (folder / "open.yaml").write_text(route.replace("value: /open", "value: /opened"))
        said = await running.says("HTTPRoute demo/open: in force after", after=at)
        assert re.search(r"after \d+\.\d ms", said)
        assert (await fetch(port, "/opened")).status == 200

        at = len(running.lines)
        (folder / "open.yaml").write_text(route.replace("backendRefs", "backendRef"))
        rejected = await running.says("✗.*open.yaml:", after=at)
        assert "backendRefs" in rejected
        said = [line for line in running.lines[at:] if "HTTPRoute demo/open: " in line]
        assert said == ["HTTPRoute demo/open: the change is not in force"], running.text
        assert (await fetch(port, "/opened")).status == 200

        at = len(running.lines)
        os.kill(children_of(running.process.pid)[0], signal.SIGKILL)
        await running.says("was ended by signal 9; it is started again", after=at)
        at = len(running.lines)
        await until(lambda: len(children_of(running.process.pid)) >= 4, what="it to be started again")
        children = children_of(running.process.pid)
    assert running.process.returncode == 0, running.text
    assert not any("started again" in line for line in running.lines[at:])
    await until(lambda: not any(map(is_running, children)), what="every child to be gone")
    assert "Traceback" not in running.text


@pytest.mark.serial
async def test_a_busy_port_is_said_before_anything_starts(tmp_path: Path) -> None:
    port, echo_port = free_ports(2)
    folder = quickstart(tmp_path / "config", port, echo_port)
    holder = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", port)
    async with holder, up(folder, tmp_path) as running:
        assert await asyncio.wait_for(running.process.wait(), 30) == 1
    assert re.search(rf"Gateway demo/edge: port {port} .* is held by", running.text), running.text
    assert "nothing was started" in running.text
    assert "Traceback" not in running.text
