"""The command line: the one place that joins the parts."""

from __future__ import annotations

import os

# gRPC's own notes (forks, peers that went away) are not for users; it reads these when it is first imported.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

from dragoman.cli.app import main

__all__ = ["main"]
