"""The command line: the one place that joins the parts."""

from __future__ import annotations

import gc
import os
import sys

# gRPC's own notes (forks, peers that went away) are not for users; it reads these when it is first imported.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
# Nor does pydantic look for plugins in every package that is installed: that takes longer than to read our settings.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")

from dragoman.cli.early import begin_reading

__all__ = ["main"]

# What they build lives until they end, or until they are ready and say otherwise (serve, up).
_WITHOUT_COLLECTOR = ("up", "serve", "validate", "translate", "explain", "diff")


def main() -> int:
    """Runs the command line; returns the exit code."""
    if sys.argv[1:] and sys.argv[1] in _WITHOUT_COLLECTOR:
        gc.disable()
    begun = begin_reading(sys.argv[1:], os.environ)
    from dragoman.cli.app import run

    return run(begun)
