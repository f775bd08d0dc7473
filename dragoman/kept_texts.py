"""Keeps texts by name in a private file, for the next start of who goes on from what was good last."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, cast

from dragoman.xds_client import write_privately

_PART: Final = 1 << 16


def keep_texts(file: Path, texts: Mapping[str, str]) -> None:
    """Replaces what is kept; raises OSError, and ValueError for what is no Unicode."""
    write_privately(file, _parts(texts))


def kept_texts(file: Path) -> dict[str, str]:
    """Returns what is kept; raises OSError, and ValueError where it is damaged."""
    try:
        kept = json.loads(file.read_bytes())
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(kept, dict):
        raise ValueError("it holds no texts")
    found = cast("dict[str, object]", kept)
    texts = {name: text for name, text in found.items() if isinstance(text, str)}
    if len(texts) < len(found):
        raise ValueError("it holds something that is no text")
    return texts


def _parts(texts: Mapping[str, str]) -> Iterator[bytes]:
    # One JSON object. A large one would be encoded in one go, and keep every other thread waiting.
    separator = "{"
    for name, text in texts.items():
        yield f'{separator}{json.dumps(name)}: "'.encode()
        for begin in range(0, len(text), _PART):
            yield json.dumps(text[begin : begin + _PART])[1:-1].encode()
        yield b'"'
        separator = ",\n"
    yield b"{}" if separator == "{" else b"}"
