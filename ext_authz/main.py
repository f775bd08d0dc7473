"""Runs the service: `run` for the command line; one worker in this process, several under a supervisor."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import uvloop

from dragoman import logs
from dragoman.grpc_worker import Address
from dragoman.open_files import allow_many
from dragoman.signals import serve_until, stop_on_signals
from dragoman.workers import WorkerPlace, listen_addresses, run_workers
from ext_authz.settings import AuthzSettings
from ext_authz.worker import worker


def run(settings: AuthzSettings) -> int:
    """Serves until SIGTERM or SIGINT, then drains; returns the exit code."""
    logs.configure(level=settings.log_level, format=settings.log_format, fields={"service": "authz"})
    allow_many()
    try:
        listen_addresses(Address.parse(settings.listen), settings.workers)
        return uvloop.run(_one(settings) if settings.workers == 1 else _several(settings))
    except (OSError, ValueError) as error:
        sys.stderr.write(f"dragoman authz: {logs.in_words(error)}\n")
        return 1


async def _one(settings: AuthzSettings) -> int:
    await serve_until(stop_on_signals(), worker(settings))
    return 0


async def _several(settings: AuthzSettings) -> int:
    stop = stop_on_signals()
    with tempfile.TemporaryDirectory(prefix="dragoman-") as folder:

        def command(place: WorkerPlace) -> Sequence[str]:
            # In a file that is ours alone: the store's URL may hold a password, and everybody can read command lines.
            file = Path(folder) / f"{place.name}.json"
            own = {"listen": str(place.listen), "http": str(place.http), "workers": 1}
            with os.fdopen(os.open(file, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w") as output:
                output.write(settings.model_copy(update=own).model_dump_json())
            return ["-m", "ext_authz", str(file)]

        return await run_workers(
            command,
            python=sys.executable,
            listen=Address.parse(settings.listen),
            count=settings.workers,
            stop=stop,
            http=None if settings.http is None else Address.parse(settings.http),
            grace_s=settings.drain_s,
        )
