"""YAML and JSON text into plain data, read as Kubernetes reads it, with bounds and with the place of each fault."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from hashlib import blake2b
from typing import Any, Final, NamedTuple, cast

import yaml

from controlplane.sources.blocks import Other, read_blocks
from controlplane.sources.plain import resolve_plain

MAX_DEPTH: Final = 64
# Aliases may repeat what is written, but not blow it up.
MAX_ALIASED_NODES: Final = 100_000

# The whole line, unless the document begins on it.
_SEPARATOR: Final = re.compile(rb"^---(?:[ \t]*(?:[ \t]#[^\n]*)?\r?(?:\n|\Z)|(?=[ \t]))", re.MULTILINE)
_CONTENT: Final = re.compile(rb"^[ \t]*[^ \t\r\n#%]", re.MULTILINE)
_STRING_TAG: Final = "tag:yaml.org,2002:str"
_KNOWN_TAGS: Final = ("int", "float", "bool", "null", "map", "seq")
_Loader: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class DocumentError(Exception):
    """Text that cannot be read; line and column from 1, column 0 if not known."""

    def __init__(self, message: str, line: int = 1, column: int = 0) -> None:
        super().__init__(message)
        self.message, self.line, self.column = message, line, column


class Chunk(NamedTuple):
    """The text between two separators."""

    data: bytes
    line: int
    """First line in the file, from 1."""

    @property
    def digest(self) -> bytes:
        """Tells texts apart."""
        return blake2b(self.data, digest_size=16).digest()

    @property
    def blank(self) -> bool:
        """Whether there is nothing but comments and directives."""
        return _CONTENT.search(self.data.removeprefix(b"---")) is None


def split(data: bytes) -> Iterator[Chunk]:
    """The documents of a YAML file, blank ones too: no scalar can hold a line that begins with `---`."""
    data = data.removeprefix(b"\xef\xbb\xbf")
    start, line = 0, 1
    for found in _SEPARATOR.finditer(data):
        yield Chunk(data[start : found.start()], line)
        line += data.count(b"\n", start, found.end())
        start = found.end() if found.group() != b"---" else found.start()
    yield Chunk(data[start:], line)


def parse_yaml(data: bytes) -> object:
    """The data of one document; DocumentError says where it cannot be read."""
    try:
        text = data.decode()
        short = read_blocks(text)
        return parse_by_libyaml(text) if short is Other else short
    except UnicodeDecodeError as error:
        raise DocumentError("not UTF-8", data.count(b"\n", 0, error.start) + 1) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        words = ", ".join(part for part in (error.context, error.problem) if part)
        raise DocumentError(words, mark.line + 1 if mark else 1, mark.column + 1 if mark else 0) from None
    except yaml.YAMLError as error:
        raise DocumentError(f"not YAML: {getattr(error, 'reason', error)}") from None


def parse_by_libyaml(text: str) -> object:
    """The data of one document; DocumentError or yaml.YAMLError says where it cannot be read."""
    return _Builder(text).build()


def parse_json(data: bytes) -> object:
    """The data of a JSON file; DocumentError says where it cannot be read."""
    try:
        return json.loads(data.decode("utf-8-sig"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise DocumentError(error.msg, error.lineno, error.colno) from None
    except UnicodeDecodeError as error:
        raise DocumentError("not UTF-8", data.count(b"\n", 0, error.start) + 1) from None
    except RecursionError:
        raise DocumentError("nested too deeply") from None
    except ValueError as error:  # A number of thousands of digits.
        raise DocumentError(str(error)) from None


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        raise DocumentError(f"duplicate key {next(name for name in names if names.count(name) > 1)!r}")
    return made


def _no_constant(name: str) -> object:
    raise DocumentError(f"{name} is not JSON")


class _Builder:
    """Builds data from events, without nodes between them: twice as fast as PyYAML's own constructor."""

    def __init__(self, text: str) -> None:
        self._events: Iterator[Any] = iter(yaml.parse(text, Loader=_Loader))
        self._anchors: dict[str, tuple[object, int]] = {}
        self._nodes = 0
        self._aliased = 0

    def build(self) -> object:
        next(self._events)
        event = next(self._events)
        if not isinstance(event, yaml.DocumentStartEvent):
            return None
        made = self._node(next(self._events), 0)
        for _ in self._events:
            pass  # The end may be malformed too.
        return made

    def _node(self, event: Any, depth: int) -> object:
        self._nodes += 1
        if event.__class__ is yaml.ScalarEvent:
            made = _scalar(event)
            if event.anchor is not None:
                self._anchors[event.anchor] = (made, 1)
            return made
        if event.__class__ is yaml.AliasEvent:
            return self._alias(event)
        if depth >= MAX_DEPTH:
            raise _error(f"nested more than {MAX_DEPTH} deep", event)
        _check_tag(event)
        before = self._nodes + self._aliased
        build = self._mapping if event.__class__ is yaml.MappingStartEvent else self._sequence
        made = build(depth + 1)
        if event.anchor is not None:
            self._anchors[event.anchor] = (made, self._nodes + self._aliased - before + 1)
        return made

    def _alias(self, event: Any) -> object:
        known = self._anchors.get(event.anchor)
        if known is None:
            raise _error(f"alias *{event.anchor} has no anchor before it", event)
        made, size = known
        self._aliased += size
        if self._aliased > MAX_ALIASED_NODES:
            raise _error(f"aliases repeat more than {MAX_ALIASED_NODES} values", event)
        return made

    def _sequence(self, depth: int) -> list[object]:
        made: list[object] = []
        event = next(self._events)
        while event.__class__ is not yaml.SequenceEndEvent:
            made.append(self._node(event, depth))
            event = next(self._events)
        return made

    def _mapping(self, depth: int) -> dict[str, object]:
        made: dict[str, object] = {}
        merged: list[object] = []
        event = next(self._events)
        while event.__class__ is not yaml.MappingEndEvent:
            key = self._node(event, depth)
            if key == "<<" and event.__class__ is yaml.ScalarEvent and event.implicit[0]:
                merged.append(_mappings(self._node(next(self._events), depth), event))
            else:
                name = key if key.__class__ is str else _key(key, event)
                if name in made:
                    raise _error(f"duplicate key {name!r}", event)
                made[name] = self._node(next(self._events), depth)  # pyright: ignore[reportArgumentType]
            event = next(self._events)
        return made if not merged else _merge(made, merged)


def _scalar(event: Any) -> object:
    if event.implicit[0]:
        return resolve_plain(event.value)
    if event.tag is None or event.implicit[1] or event.tag in (_STRING_TAG, "!"):
        return event.value
    _check_tag(event)
    return resolve_plain(event.value)


def _check_tag(event: Any) -> None:
    tag = event.tag
    if tag is not None and tag != "!" and tag.removeprefix("tag:yaml.org,2002:") not in _KNOWN_TAGS:
        raise _error(f"tag {tag!r} is not supported", event)


def _key(key: object, event: Any) -> str:
    """Keys that are not strings become what JSON would make of them, as in Kubernetes."""
    if isinstance(key, bool | int | float) or key is None:
        return json.dumps(key)
    raise _error("expected a key that is a string", event)


def _mappings(value: object, event: Any) -> object:
    many = cast("list[object]", value) if isinstance(value, list) else [value]
    if not all(isinstance(each, dict) for each in many):
        raise _error("expected a mapping, or a list of mappings, to merge", event)
    return many


def _merge(own: dict[str, object], merged: list[object]) -> dict[str, object]:
    made: dict[str, object] = {}
    for many in reversed(cast("list[list[dict[str, object]]]", merged)):
        for each in reversed(many):
            made.update(each)
    return made | own


def _error(message: str, event: Any) -> DocumentError:
    return DocumentError(message, event.start_mark.line + 1, event.start_mark.column + 1)
