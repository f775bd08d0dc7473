"""Reads a YAML file of settings, keeping the line of every value for messages, in bounded time and memory."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast

import yaml
from yaml.composer import ComposerError

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # PyYAML may be built without libyaml.
_STRING: Final = "tag:yaml.org,2002:str"

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 32
MAX_VALUES = 20_000

ValuePath = tuple[str, ...]
"""Names of fields; items of lists by their index."""


@dataclass(slots=True)
class Document:
    """A file's mapping, where each of its values stands, and what is wrong with it as YAML."""

    file: Path
    value: dict[str, Any] = field(default_factory=dict[str, Any])
    faults: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    """(where, message)."""
    lines: dict[int, array[int]] = field(default_factory=dict[int, "array[int]"])
    """By the identity of a mapping or list: the lines of what is in it, in order."""

    def place(self, path: ValuePath) -> str | None:
        """Returns `FILE:LINE` of a value; None where there is none."""
        value = cast("Any", self.value)
        line = 0
        for part in path:
            position = _position(value, part)
            if position is None:
                return None
            line = self.lines[id(value)][position]
            value = value[position if isinstance(value, list) else part]
        return f"{self.file}:{line}" if path else None

    def places(self) -> Iterator[tuple[ValuePath, str]]:
        """Yields the path of each value, with `FILE:LINE`."""
        waiting: list[tuple[ValuePath, Any]] = [((), self.value)]
        while waiting:
            path, value = waiting.pop()
            for part, item, line in zip(_names(value), _items(value), self.lines.get(id(value), ()), strict=False):
                yield (*path, part), f"{self.file}:{line}"
                waiting.append(((*path, part), item))


def read_document(file: Path, *, max_bytes: int = MAX_BYTES, max_values: int = MAX_VALUES) -> Document:
    """Reads `file`; all that is wrong is in the document's faults."""
    document = Document(file)
    try:
        with file.open("rb") as opened:
            content = opened.read(max_bytes + 1)
        if len(content) > max_bytes:
            document.faults.append((str(file), f"the file has more than {max_bytes} bytes"))
            return document
        _Reader(document, content.decode("utf-8"), max_values).read()
    except OSError as error:
        document.faults.append((str(file), error.strerror or str(error)))
    except UnicodeDecodeError:
        document.faults.append((str(file), "the file is not UTF-8"))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{file}:{mark.line + 1}" if mark is not None else str(file)
        document.faults.append((where, f"not YAML: {getattr(error, 'problem', None) or error}"))
    except _TooMuchError as error:
        document.faults.append((str(file), str(error)))
    return document


def dismantle(value: Any) -> None:
    """Lets go of what was read, bit by bit: all at once, what is large would keep every other thread waiting."""
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            waiting += cast("dict[str, Any]", each).values()
            each.clear()
        elif isinstance(each, list):
            waiting += cast("list[Any]", each)
            each.clear()


class _TooMuchError(Exception):
    """The file, its aliases followed, is larger or deeper than any settings are."""


class _Reader:
    """Makes values of the parser's events: documents of nodes take ten times the memory, and are made of recursion."""

    def __init__(self, document: Document, text: str, max_values: int) -> None:
        self._document = document
        self._events: Iterator[Any] = yaml.parse(text, Loader=_Loader)
        self._max_values = max_values
        self._values = 0
        self._anchors: dict[str, tuple[Any, int]] = {}
        """Values by their anchors, each with how many there are in it."""
        self._path: list[str] = []
        self._scalars: Any = yaml.SafeLoader("")

    def read(self) -> None:
        next(self._events)
        if isinstance(next(self._events), yaml.StreamEndEvent):
            return
        root = next(self._events)
        value = self._value(root)
        next(self._events)
        more = next(self._events)
        if not isinstance(more, yaml.StreamEndEvent):
            self._fault(more, "not YAML: a second document begins")
        elif isinstance(root, yaml.MappingStartEvent):
            self._document.value = value
        else:
            self._fault(root, "the file must hold a mapping of settings")

    def _value(self, event: Any) -> Any:
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        before = self._values
        if isinstance(event, yaml.MappingStartEvent):
            value = self._mapping()
        elif isinstance(event, yaml.SequenceStartEvent):
            value = self._list()
        else:
            value = self._scalar(event)
        if event.anchor is not None:
            self._anchors[event.anchor] = value, self._values - before
        return value

    def _alias(self, event: Any) -> Any:
        found = self._anchors.get(event.anchor)
        if found is None:
            # Also of one that is in what it stands for.
            raise ComposerError(None, None, f"found undefined alias {event.anchor!r}", event.start_mark)
        value, values = found
        self._count(values)
        return value

    def _mapping(self) -> dict[str, Any]:
        value: dict[str, Any] = {}
        lines: array[int] = array("I")
        while not isinstance(key := next(self._events), yaml.MappingEndEvent):
            if not isinstance(key, yaml.ScalarEvent):
                self._below("?", key)
                self._fault(key, "not YAML that settings are written in: a key must be a word")
                self._below("?", next(self._events))
                continue
            name = str(key.value)
            if name in value:
                self._fault(key, f"{'.'.join((*self._path, name))} is given twice")
                self._below(name, next(self._events))
                continue
            lines.append(_line(key))
            value[name] = self._below(name, next(self._events))
        self._document.lines[id(value)] = lines
        return value

    def _list(self) -> list[Any]:
        value: list[Any] = []
        lines: array[int] = array("I")
        while not isinstance(item := next(self._events), yaml.SequenceEndEvent):
            lines.append(_line(item))
            value.append(self._below(str(len(value)), item))
        self._document.lines[id(value)] = lines
        return value

    def _below(self, name: str, event: Any) -> Any:
        self._count(1)
        self._path.append(name)
        if len(self._path) > MAX_DEPTH:
            self._count(self._max_values)
        value = self._value(event)
        self._path.pop()
        return value

    def _count(self, values: int) -> None:
        self._values += values
        if self._values > self._max_values:
            raise _TooMuchError(f"more than {self._max_values} values, or nested more than {MAX_DEPTH} deep")

    def _scalar(self, event: Any) -> Any:
        text, tag = event.value, event.tag
        if tag is None or tag == "!":
            tag = self._scalars.resolve(yaml.ScalarNode, text, event.implicit)
        if tag == _STRING:
            return text
        try:
            return self._scalars.construct_object(yaml.ScalarNode(tag, text, event.start_mark, event.end_mark))
        except yaml.YAMLError as error:
            self._fault(event, str(getattr(error, "problem", None) or error))
        except (ValueError, LookupError, AttributeError, OverflowError):
            # Python's own words, which are of a text that its tag does not fit, may repeat it.
            self._fault(event, f"not of the type {tag.removeprefix('tag:yaml.org,2002:')}")
        finally:
            self._scalars.constructed_objects.clear()
            self._scalars.recursive_objects.clear()
        return None

    def _fault(self, event: Any, message: str) -> None:
        self._document.faults.append((f"{self._document.file}:{_line(event)}", message))


def _line(event: Any) -> int:
    return event.start_mark.line + 1


def _names(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield from cast("dict[str, Any]", value)
    elif isinstance(value, list):
        yield from map(str, range(len(cast("list[Any]", value))))


def _items(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from cast("dict[str, Any]", value).values()
    elif isinstance(value, list):
        yield from cast("list[Any]", value)


def _position(value: Any, part: str) -> int | None:
    if isinstance(value, dict):
        return next((index for index, name in enumerate(cast("dict[str, Any]", value)) if name == part), None)
    if isinstance(value, list) and part.isdigit():
        return int(part) if int(part) < len(cast("list[Any]", value)) else None
    return None
