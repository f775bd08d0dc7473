"""The CPU time of processes, to the nanosecond where the kernel tells, and their memory."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

CLOCK_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def cpu_s(*pids: int) -> float:
    """CPU seconds, user and system, of processes and their living descendants."""
    return sum(_cpu_of(each) for pid in pids for each in process_tree(pid))


def memory_bytes(pid: int) -> int:
    """The resident memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def process_tree(pid: int) -> Iterator[int]:
    """A process and its descendants."""
    yield pid
    for task in _listed(Path(f"/proc/{pid}/task")):
        try:
            children = (task / "children").read_text().split()
        except OSError:
            continue
        for child in children:
            yield from process_tree(int(child))


def _cpu_of(pid: int) -> float:
    try:
        # The first field is time on a CPU, in ns; /proc/PID/stat counts ticks of 10 ms.
        tasks = [(task / "schedstat").read_text().split() for task in _listed(Path(f"/proc/{pid}/task"))]
        return sum(int(fields[0]) for fields in tasks) / 1e9
    except OSError:
        return _ticks_of(pid) / CLOCK_TICKS_PER_S


def _ticks_of(pid: int) -> int:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    # utime, stime: proc(5) fields 14 and 15.
    return sum(map(int, fields[11:13]))


def _listed(folder: Path) -> Sequence[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return ()
