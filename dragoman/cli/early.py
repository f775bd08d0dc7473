"""What is begun before a command is loaded: reading a big folder takes as long as loading does, on another core."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from controlplane.sources.reading import Reading

_READERS = ("up", "serve", "validate", "translate")


def begin_reading(arguments: Sequence[str], environment: Mapping[str, str]) -> Reading | None:
    """Begins to read the folder that a command is about, as far as it can be told before arguments are understood.

    A guess that turns out to be wrong is of no consequence: what was read of another folder is dropped.
    """
    folder = _folder(arguments, environment)
    if folder is None:
        return None
    from controlplane.sources.reading import begin

    return begin(folder)


def _folder(arguments: Sequence[str], environment: Mapping[str, str]) -> str | None:
    if not arguments or arguments[0] not in _READERS or "--help" in arguments:
        return None
    if arguments[0] != "serve":
        return next((each for each in arguments[1:] if not each.startswith("-")), None)
    if any(each.partition("=")[0] == "--state" for each in arguments) or "DRAGOMAN_STATE" in environment:
        return None  # What was kept is served first, and nothing is to compete with that.
    for name, value in zip(arguments, [*arguments[1:], ""], strict=True):
        if name == "--config":
            return value
        if name.startswith("--config="):
            return name.removeprefix("--config=")
    return environment.get("DRAGOMAN_CONFIG")
