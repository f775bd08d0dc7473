"""Asks Envoy itself whether it takes a configuration: `envoy --mode validate`, with everything inlined."""

from __future__ import annotations

import asyncio
import json
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from controlplane.quarantine.entry import tidy
from controlplane.translate.inline import inlined
from controlplane.xds.resources import ROUTE, Snapshot

_SAYS: Final = re.compile(r"error initializing configuration '[^']*': (.*)", re.DOTALL)
_LONGEST_OUTPUT: Final = 64 * 1024


class NotValidatedError(Exception):
    """Envoy could not be asked: it did not run, not to its end, or not in time. That is no fault of any object."""


@dataclass(frozen=True, slots=True)
class Validator:
    """`envoy` is the binary; `runtime` overrides Envoy's runtime, for Envoys that run with another one."""

    envoy: Path
    within_s: float = 10.0
    runtime: Mapping[str, object] = field(default_factory=dict[str, object])

    async def refusal(self, snapshot: Snapshot, published: Snapshot | None) -> str | None:
        """Returns why Envoy refuses a snapshot, None where it takes it; raises NotValidatedError.

        Of the routes only what differs from what is `published` is looked at: Envoys have told of the rest.
        """
        text = await asyncio.to_thread(self._document, _changed(snapshot, published))
        with tempfile.TemporaryDirectory(prefix="dragoman-") as folder:  # Of mode 0700: private keys are in it.
            path = Path(folder) / "envoy.json"
            await asyncio.to_thread(path.write_bytes, text)
            code, said = await self._run(path)
        if code == 0:
            return None
        found = _SAYS.search(said)
        if code != 1 or found is None:
            raise NotValidatedError(f"envoy --mode validate ended with {code}: {tidy(said[-400:])}")
        return tidy(found[1].replace(str(path), "the configuration"))

    def _document(self, snapshot: Snapshot) -> bytes:
        document: dict[str, Any] = inlined(snapshot)
        document["layeredRuntime"]["layers"][0]["staticLayer"].update(self.runtime)
        return json.dumps(document).encode()

    async def _run(self, path: Path) -> tuple[int, str]:
        options = ("--mode", "validate", "--disable-hot-restart", "--log-level", "critical", "-c", str(path))
        environment = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "TMPDIR")}
        try:
            process = await asyncio.create_subprocess_exec(
                str(self.envoy),
                *options,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                env=environment,
            )
        except OSError as error:
            raise NotValidatedError(f"{self.envoy} does not run: {error}") from None
        assert process.stderr is not None
        try:
            async with asyncio.timeout(self.within_s):
                _, said = await process.communicate()
        except TimeoutError:
            raise NotValidatedError(f"envoy --mode validate took longer than {self.within_s:.0f} s") from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return process.returncode or 0, said[-_LONGEST_OUTPUT:].decode(errors="replace")


def _changed(snapshot: Snapshot, published: Snapshot | None) -> Snapshot:
    if published is None:
        return snapshot
    before = published.of_type(ROUTE)
    routes = {
        name: each
        for name, each in snapshot.of_type(ROUTE).items()
        if name not in before or before[name].version != each.version
    }
    return Snapshot({**snapshot.resources, ROUTE: routes})
