"""Finds the line of a field, by composing its document again; only what is at fault pays for lines."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import yaml

from controlplane.sources.changes import Origin
from controlplane.sources.manifest import find_text

_STEP: Final = re.compile(r"\[(\d+)\]|\['((?:[^'\\]|\\.)*)'\]|\[\"((?:[^\"\\]|\\.)*)\"\]|\.?([^.\[]+)")
_Loader: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def line_of(origin: Origin, path: str) -> int:
    """The line (from 1) of a field such as `spec.rules[0].backendRefs`, or of the nearest of its parents that exists.

    That of the document if it has changed since, or cannot be read.
    """
    chunk = find_text(origin)
    if chunk is None:
        return origin.line
    try:
        node = yaml.compose(chunk.data.decode(), Loader=_Loader)
    except (yaml.YAMLError, UnicodeDecodeError):
        return chunk.line
    return chunk.line if node is None else chunk.line + _find(node, [*_steps(origin.prefix), *_steps(path)])


def _steps(path: str) -> Iterator[str | int]:
    for found in _STEP.finditer(path):
        index, single, double, name = found.groups()
        yield int(index) if index is not None else next(each for each in (single, double, name) if each is not None)


def _find(node: Any, steps: list[str | int]) -> int:
    line = node.start_mark.line
    for step in steps:
        found = _item(node, step) if isinstance(step, int) else _value(node, step)
        if found is None:
            break
        line, node = found
    return line


def _item(node: Any, index: int) -> tuple[int, Any] | None:
    if not isinstance(node, yaml.SequenceNode) or index >= len(node.value):
        return None
    return node.value[index].start_mark.line, node.value[index]


def _value(node: Any, name: str) -> tuple[int, Any] | None:
    if not isinstance(node, yaml.MappingNode):
        return None
    pairs: list[tuple[Any, Any]] = node.value
    for key, value in pairs:
        if key.value == name:
            return key.start_mark.line, value
    for key, value in pairs:
        if key.value == "<<":
            for merged in value.value if isinstance(value, yaml.SequenceNode) else (value,):
                found = _value(merged, name)
                if found is not None:
                    return found
    return None
