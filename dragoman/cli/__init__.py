"""The command line: the one place that joins the parts."""

from __future__ import annotations

from dragoman.cli.app import main

__all__ = ["main"]
