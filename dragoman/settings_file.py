"""Reads a YAML file of settings, keeping the line of every value for messages."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import yaml

try:
    from yaml import CSafeLoader as _Loader
except ImportError:  # PyYAML was built without libyaml.
    from yaml import SafeLoader as _Loader

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 32
MAX_VALUES = 20_000


@dataclass(slots=True)
class Document:
    """A file's mapping, where each of its values stands, and what is wrong with it as YAML."""

    file: Path
    value: dict[str, Any] = field(default_factory=dict[str, Any])
    places: dict[tuple[str, ...], str] = field(default_factory=dict[tuple[str, ...], str])
    """Path of a value (list items by their index) → `FILE:LINE`."""
    faults: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    """(where, message)."""


def read_document(file: Path) -> Document:
    """Reads `file`; all that is wrong is in the document's faults."""
    document = Document(file)
    try:
        if file.stat().st_size > MAX_BYTES:
            document.faults.append((str(file), f"the file has more than {MAX_BYTES} bytes"))
            return document
        root = yaml.compose(file.read_text("utf-8"), Loader=_Loader)
    except OSError as error:
        document.faults.append((str(file), error.strerror or str(error)))
        return document
    except UnicodeDecodeError:
        document.faults.append((str(file), "the file is not UTF-8"))
        return document
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{file}:{mark.line + 1}" if mark is not None else str(file)
        document.faults.append((where, f"not YAML: {getattr(error, 'problem', None) or error}"))
        return document
    if root is None:
        return document
    if not isinstance(root, yaml.MappingNode):
        document.faults.append((_place(document, root), "the file must hold a mapping of settings"))
        return document
    try:
        document.value = cast("dict[str, Any]", _value(document, root, ()))
    except _TooMuchError as error:
        document.faults.append((str(file), str(error)))
    return document


class _TooMuchError(Exception):
    """The file, its aliases followed, is larger or deeper than any settings are."""


def _value(document: Document, node: yaml.Node, path: tuple[str, ...]) -> Any:
    if len(path) > MAX_DEPTH or len(document.places) > MAX_VALUES:
        raise _TooMuchError(f"more than {MAX_VALUES} values, or nested more than {MAX_DEPTH} deep")
    if isinstance(node, yaml.MappingNode):
        return _mapping(document, node, path)
    if isinstance(node, yaml.SequenceNode):
        items: list[Any] = []
        for index, item in enumerate(node.value):
            document.places[(*path, str(index))] = _place(document, item)
            items.append(_value(document, item, (*path, str(index))))
        return items
    try:
        return yaml.SafeLoader("").construct_object(node)  # pyright: ignore[reportUnknownMemberType]
    except (yaml.YAMLError, ValueError) as error:
        document.faults.append((_place(document, node), str(getattr(error, "problem", None) or error)))
        return None


def _mapping(document: Document, node: yaml.MappingNode, path: tuple[str, ...]) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for key, item in node.value:
        name = str(key.value)
        if name in value:
            document.faults.append((_place(document, key), f"{'.'.join((*path, name))} is given twice"))
            continue
        document.places[(*path, name)] = _place(document, key)
        value[name] = _value(document, item, (*path, name))
    return value


def _place(document: Document, node: yaml.Node) -> str:
    return f"{document.file}:{node.start_mark.line + 1}"
