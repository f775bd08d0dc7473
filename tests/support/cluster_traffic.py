"""A steady stream of requests from inside a cluster's network: a process that probes, and who reads what it found."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import ssl
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.support.cluster_network import Network
from tests.support.process import ChildProcess
from tests.support.traffic import Probe, Target
from tests.support.waiting import until


@dataclass(frozen=True, slots=True)
class Tally:
    """What a stream of requests has met so far; `failures` shows the first of those that failed."""

    sent: int
    failed: int
    per_s: float
    failures: tuple[str, ...]
    statuses: dict[str, int]


@dataclass
class Traffic:
    """`async with Traffic(network, address, 80, [Target("/a")]) as traffic`: sends until the block ends.

    The sender is a process of its own, so that what the test does meanwhile slows nothing. With `trust_pem`
    (the authority's certificate) it speaks TLS.
    """

    network: Network
    address: str
    port: int
    targets: Sequence[Target] = (Target(),)
    rate_per_s: float = 240.0
    fresh_every: int = 4
    connections: int = 4
    trust_pem: str = ""
    _process: ChildProcess | None = None
    _folder: tempfile.TemporaryDirectory[str] | None = field(default=None, repr=False)

    async def __aenter__(self) -> Traffic:
        self._folder = tempfile.TemporaryDirectory(prefix="dgm-traffic-")
        log = Path(self._folder.name) / "tally"
        options = ["--address", self.address, "--port", str(self.port), "--rate", str(self.rate_per_s)]
        options += ["--fresh-every", str(self.fresh_every), "--connections", str(self.connections)]
        if self.trust_pem:
            trusted = Path(self._folder.name) / "ca.crt"
            trusted.write_text(self.trust_pem)
            options += ["--trust", str(trusted)]
        targets = [json.dumps(_as_json(target)) for target in self.targets]
        self._process = self.network.spawn(sys.executable, "-m", __name__, *options, *targets, log=log)
        await self.reaches(1, within_s=15)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        if fault is not None and self._process is not None:
            fault.add_note(f"traffic until then: {self.tally()}")
        await self.stop()

    async def stop(self) -> Tally:
        """Sends no more, waits for what is under way, and returns the whole tally."""
        assert self._process is not None, "no traffic was started"
        await self._process.stop(within_s=10)
        return self.tally()

    def tally(self) -> Tally:
        """Returns what is known now."""
        assert self._process is not None
        lines = self._process.output().splitlines()
        for line in reversed(lines):
            if line.startswith("{") and line.endswith("}"):
                values: dict[str, Any] = json.loads(line)
                return Tally(**{**values, "failures": tuple(values["failures"])})
        return Tally(0, 0, 0.0, tuple(lines[-5:]), {})

    async def reaches(self, sent: int, *, within_s: float = 30.0) -> Tally:
        """Waits until so many requests have been answered or have failed."""
        assert self._process is not None

        def enough() -> Tally | None:
            tally = self.tally()
            return tally if tally.sent >= sent else None

        detail = self._process.tail
        tally = await until(enough, what=f"{sent} requests", within_s=within_s, every_s=0.05, detail=detail)
        assert tally is not None
        return tally

    async def goes_on(self, requests: int = 400, *, within_s: float = 30.0) -> Tally:
        """Waits until so many more requests have been answered or have failed."""
        return await self.reaches(self.tally().sent + requests, within_s=within_s)

    def assert_none_failed(self, *, at_least_per_s: float = 200.0) -> None:
        """Raises AssertionError when a request failed, or when fewer were sent than would make that mean something."""
        tally = self.tally()
        shown = "\n".join(f"  {failure}" for failure in tally.failures)
        assert tally.failed == 0, f"{tally.failed} of {tally.sent} requests failed:\n{shown}"
        assert tally.per_s >= at_least_per_s, f"only {tally.per_s:.0f} requests/s were sent"


def _as_json(target: Target) -> dict[str, Any]:
    headers = dict(target.headers)
    return {
        "path": target.path,
        "host": target.host,
        "method": target.method,
        "headers": list(headers.items()),
        "expect": sorted(target.expect),
    }


def _from_json(text: str) -> Target:
    values = json.loads(text)
    headers = [(name, value) for name, value in values["headers"]]
    return Target(values["path"], values["host"], values["method"], headers, frozenset(values["expect"]))


def _tell(probe: Probe) -> None:
    statuses: dict[str, int] = {}
    for result in probe.results:
        answer = str(result.response.status) if result.response is not None else result.error.partition(":")[0]
        statuses[answer] = statuses.get(answer, 0) + 1
    failed = probe.failed
    tally = {
        "sent": len(probe.results),
        "failed": len(failed),
        "per_s": round(probe.reached_per_s, 1),
        "failures": [str(result) for result in failed[:10]],
        "statuses": statuses,
    }
    print(json.dumps(tally), flush=True)


async def _main(arguments: argparse.Namespace) -> None:
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    tls = ssl.create_default_context(cafile=arguments.trust) if arguments.trust else None
    probe = Probe(
        arguments.port,
        [_from_json(text) for text in arguments.targets],
        rate_per_s=arguments.rate,
        fresh_every=arguments.fresh_every,
        connections=arguments.connections,
        address=arguments.address,
        tls=tls,
    )
    async with probe:
        while not ended.is_set():
            try:
                await asyncio.wait_for(ended.wait(), 0.25)
            except TimeoutError:
                _tell(probe)
    _tell(probe)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--fresh-every", type=int, required=True)
    parser.add_argument("--connections", type=int, required=True)
    parser.add_argument("--trust", default="")
    parser.add_argument("targets", nargs="+")
    asyncio.run(_main(parser.parse_args()))
