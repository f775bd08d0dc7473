"""Real child processes under supervision."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from dragoman.processes import BackOff, ChildError, ChildEvent, ChildSpec, Supervisor
from tests.support.waiting import until

QUICK = BackOff(first_s=0.01, most_s=0.05)


def python(name: str, code: str, *arguments: str, **options: object) -> ChildSpec:
    return ChildSpec(name, (sys.executable, "-u", "-c", code, *arguments), back_off=QUICK, **options)  # type: ignore[arg-type]


WAIT = "import signal, sys; print('up'); signal.sigwait([signal.SIGTERM]); print('bye'); sys.exit(0)"
WAIT_BLOCKING = "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM]); " + WAIT
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up')\nwhile True: time.sleep(60)"


class Log:
    """What a supervisor tells."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []
        self.events: list[ChildEvent] = []

    def line(self, name: str, line: str) -> None:
        self.lines.append((name, line))

    def supervisor(self) -> Supervisor:
        return Supervisor(on_line=self.line, on_event=self.events.append)

    def ready(self, line: str = "up") -> Callable[[], Awaitable[bool]]:
        async def said() -> bool:
            return any(each == line for _, each in self.lines)

        return said


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


async def test_a_child_is_started_heard_and_ended() -> None:
    log = Log()
    async with log.supervisor() as supervisor:
        await supervisor.start(python("one", WAIT_BLOCKING, ready=log.ready()))
        assert supervisor.state("one") == "ready"
        pid = supervisor.pid("one")
        assert pid is not None
        assert await supervisor.stop("one") == {"one": 0}
        assert not alive(pid)
    assert log.lines == [("one", "up"), ("one", "bye")]
    assert [event.state for event in log.events] == ["starting", "ready", "ended"]


async def test_the_environment_is_ours_and_what_the_spec_adds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OURS", "1")
    log = Log()
    show = "import os; print(os.environ['OURS'], os.environ['THEIRS']); " + WAIT_BLOCKING
    async with log.supervisor() as supervisor:
        await supervisor.start(python("one", show, env={"THEIRS": "2"}, ready=log.ready("1 2")))


async def test_a_child_that_dies_is_started_again_with_back_off() -> None:
    log = Log()
    async with log.supervisor() as supervisor:
        await supervisor.start(python("one", WAIT_BLOCKING, ready=log.ready()))
        pid = supervisor.pid("one")
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await until(lambda: supervisor.restarts("one") == 1 and supervisor.state("one") == "ready", what="its return")
        assert supervisor.pid("one") not in (None, pid)
    assert (-9, 0.01) in [(event.exit_code, event.next_start_s) for event in log.events]


async def test_the_wait_doubles_up_to_its_bound(tmp_path: Path) -> None:
    log = Log()
    second_time_on = f"import os, sys; os.path.exists({str(tmp_path / 'ran')!r}) and sys.exit(3); "
    first_time = f"open({str(tmp_path / 'ran')!r}, 'w'); print('up'); import time; time.sleep(0.05)"
    async with log.supervisor() as supervisor:
        await supervisor.start(python("one", second_time_on + first_time, ready=log.ready()))
        await until(lambda: supervisor.restarts("one") >= 4, what="four restarts")
    waits = [event.next_start_s for event in log.events if event.next_start_s is not None]
    assert waits[:5] == [0.01, 0.02, 0.04, 0.05, 0.05][: len(waits[:5])]


async def test_a_first_start_that_fails_is_an_error_with_the_last_words() -> None:
    async with Supervisor() as supervisor:
        with pytest.raises(ChildError, match="port 80 is taken") as caught:
            await supervisor.start(
                python("one", "import sys; print('port 80 is taken'); sys.exit(2)", ready=Log().ready())
            )
        assert caught.value.exit_code == 2
        with pytest.raises(ChildError, match="no program no-such-program"):
            await supervisor.start(ChildSpec("two", ("no-such-program",)))
        assert supervisor.names == frozenset()


async def test_a_child_that_does_not_get_ready_in_time_is_ended() -> None:
    log = Log()
    async with log.supervisor() as supervisor:
        with pytest.raises(ChildError, match="not ready after"):
            await supervisor.start(python("one", WAIT_BLOCKING, ready=log.ready("never"), ready_within_s=0.2))
    pids = {event.pid for event in log.events}
    assert not any(alive(pid) for pid in pids if pid is not None)


async def test_a_child_that_will_not_end_is_killed_with_what_it_started() -> None:
    log = Log()
    with_child = (
        "import subprocess, sys; "
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); print(child.pid); "
    )
    async with log.supervisor() as supervisor:
        spec = python("one", with_child + STUBBORN, ready=log.ready(), stop_grace_s=0.2)
        await supervisor.start(spec)
        grandchild = int(log.lines[0][1])
        assert alive(grandchild)
        assert await supervisor.stop() == {"one": -9}
    await until(lambda: not alive(grandchild), what="the end of the grandchild")


async def test_children_die_with_their_parent(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        "import asyncio, sys\n"
        "from dragoman.processes import ChildSpec, Supervisor\n"
        "async def main():\n"
        "    async with Supervisor() as supervisor:\n"
        "        await supervisor.start(ChildSpec('one', (sys.executable, '-c', 'import time; time.sleep(600)')))\n"
        "        print(supervisor.pid('one'), flush=True)\n"
        "        await asyncio.sleep(600)\n"
        "asyncio.run(main())\n"
    )
    parent = await asyncio.create_subprocess_exec(sys.executable, str(script), stdout=subprocess.PIPE)
    assert parent.stdout is not None
    child = int(await asyncio.wait_for(parent.stdout.readline(), 10))
    assert alive(child)
    parent.kill()
    await parent.wait()
    await until(lambda: not alive(child), what="the end of the child")


async def test_much_output_and_long_lines_do_not_stall_a_child() -> None:
    log = Log()
    much = "print('x' * 300_000); [print(n) for n in range(20_000)]; " + WAIT_BLOCKING
    async with log.supervisor() as supervisor:
        await supervisor.start(python("one", much, ready=log.ready()))
        await supervisor.stop()
    text = [line for _, line in log.lines]
    assert sum(map(len, text[: text.index("0")])) == 300_000
    assert text[-2:] == ["up", "bye"]
