"""Reads YAML documents field by field, with every fault at its line, and in bounded time and memory."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import yaml
from yaml.reader import ReaderError

from ratelimit_service.model import MAX_LIMIT, Fault

T = TypeVar("T")

MAX_BYTES: Final = 32 * 1024 * 1024
MAX_NESTING: Final = 128
MAX_EVENTS: Final = 3_000_000
MAX_ITEMS: Final = 2_000_000
MAX_FAULTS: Final = 1000

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TAG: Final = "tag:yaml.org,2002:"
_INTEGER: Final = re.compile(r"([+-]?)(0[xX][0-9a-fA-F]{1,16}|0[bB][01]{1,64}|0[oO]?[0-7]{0,21}|[1-9][0-9]{0,19})")
_TRUE: Final = frozenset({"y", "yes", "true", "on"})
_FALSE: Final = frozenset({"n", "no", "false", "off"})
_DURATION: Final = re.compile(r"(?:[0-9]{1,9}(?:\.[0-9]{1,9})?(?:ms|s|m|h))+")
_PART: Final = re.compile(r"([0-9.]+)(ms|s|m|h)")
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


class TooLargeError(Exception):
    """The file unfolds to more than anybody wants to limit."""


@dataclass(slots=True)
class YamlFile:
    """A file that is read: `source` names it, `faults` is what was found wrong with it."""

    source: str
    faults: list[Fault] = field(default_factory=list[Fault])
    items: int = 0

    def documents(self, content: bytes) -> Iterator[yaml.Node]:
        """Yields the documents that say something; what is no YAML becomes a fault. Raises TooLargeError."""
        if len(content) > MAX_BYTES:
            raise TooLargeError(f"is larger than {MAX_BYTES} bytes")
        try:
            _check_size(content)
            # Generated files often end with `---`, after which there is nothing.
            yield from (node for node in yaml.compose_all(content, Loader=_Loader) if not _is_null(node))
        except yaml.YAMLError as error:
            line, message = _told(error, content)
            self.faults.append(Fault(self.source, line, "", f"is not YAML: {message}"))
        except (ValueError, RecursionError) as error:
            self.faults.append(Fault(self.source, 0, "", f"is not YAML: {error}"))

    def fault(self, node: yaml.Node, path: str, message: str) -> None:
        """Notes what is wrong at a node."""
        if len(self.faults) >= MAX_FAULTS:
            raise TooLargeError(f"has more than {MAX_FAULTS} faults")
        self.faults.append(Fault(self.source, line_of(node), path, message))

    def count(self, items: int) -> None:
        """Counts fields and items, each time that an alias repeats them; raises TooLargeError for too many."""
        self.items += items
        if self.items > MAX_ITEMS:
            raise TooLargeError(f"unfolds to more than {MAX_ITEMS} fields")


def line_of(node: yaml.Node) -> int:
    """Returns the line that a node begins in, counted from 1."""
    return node.start_mark.line + 1


def _told(error: yaml.YAMLError, content: bytes) -> tuple[int, str]:
    """Returns the line of what is no YAML, and what is wrong there."""
    if isinstance(error, ReaderError):
        return content.count(b"\n", 0, error.position) + 1, str(error).splitlines()[0]
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return 0, str(error).splitlines()[0]
    line, message = error.problem_mark.line + 1, str(error.problem)
    begun = error.context_mark.line + 1 if error.context_mark is not None else line
    # A quote that is never closed is noticed at the end of the file.
    return line, f"{message} {error.context}, which begins in line {begun}" if begun < line else message


def dismantle(document: yaml.Node) -> None:
    """Lets go of a document that was read, node by node: all at once, a large one would keep every thread waiting."""
    waiting = [document]
    while waiting:
        node = waiting.pop()
        if isinstance(node, yaml.SequenceNode):
            waiting += node.value
        elif isinstance(node, yaml.MappingNode):
            for pair in node.value:
                waiting += pair
        else:
            continue
        node.value.clear()


def _check_size(content: bytes) -> None:
    # libyaml's composer calls itself for each level, and ends the process when the stack does; its parser does not.
    depth = 0
    for count, event in enumerate(yaml.parse(content, Loader=_Loader)):
        if count > MAX_EVENTS:
            raise TooLargeError(f"has more than {MAX_EVENTS} YAML nodes")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_NESTING:
                raise TooLargeError(f"has more than {MAX_NESTING} levels of YAML")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


@dataclass(slots=True)
class YamlMap:
    """A mapping of the file: its fields are taken one by one, by type. A null is as good as no field."""

    file: YamlFile
    node: yaml.Node
    path: str
    fields: Mapping[str, yaml.Node]

    def at(self, name: str) -> str:
        """Returns the path of a field."""
        return f"{self.path}.{name}" if self.path else name

    def report(self, name: str, message: str) -> None:
        """Notes a fault of a field; `name` may lead further down, `rate_limit.unit`."""
        first, _, rest = name.partition(".")
        node = self.fields.get(first, self.node)
        for part in rest.split(".") if rest else ():
            below = node.value if isinstance(node, yaml.MappingNode) else ()
            node = next((value for key, value in below if key.value == part), node)
        self.file.fault(node, self.at(name), message)

    def text(self, name: str) -> str:
        """Returns a string as it is written, of whatever scalar; empty when it is missing."""
        node = self.fields.get(name)
        if node is None:
            return ""
        if isinstance(node, yaml.ScalarNode) and node.tag != f"{_TAG}binary":
            try:
                node.value.encode()
            except UnicodeEncodeError:
                self.report(name, "is not Unicode")
                return ""
            return node.value
        self.report(name, "must be a string")
        return ""

    def flag(self, name: str) -> bool:
        """Returns a boolean in any of the words of YAML 1.1; false when it is missing."""
        node = self.fields.get(name)
        if node is None:
            return False
        if isinstance(node, yaml.ScalarNode) and (node.tag == f"{_TAG}bool" or not node.style):
            word = node.value.lower()
            if word in _TRUE or word in _FALSE:
                return word in _TRUE
        self.report(name, "must be true or false")
        return False

    def number(self, name: str, *, least: int = 0) -> int:
        """Returns a whole number, also in YAML's other bases; 0 when it is missing."""
        node = self.fields.get(name)
        if node is None:
            return 0
        value = _integer(node)
        if value is not None and least <= value <= MAX_LIMIT:
            return value
        self.report(name, f"must be a whole number from {least} to {MAX_LIMIT}")
        return 0

    def choice(self, name: str, choices: Mapping[str, T], default: T) -> T:
        """Returns what a word stands for, in upper or lower case."""
        if name not in self.fields:
            return default
        value = self.text(name)
        if value.lower() in choices:
            return choices[value.lower()]
        self.report(name, f"{value[:64]!r} is none of {', '.join(choices)}")
        return default

    def seconds(self, name: str) -> float:
        """Returns a duration such as 500ms or 1m30s in seconds; 0 when it is missing."""
        if name not in self.fields:
            return 0.0
        text = self.text(name)
        if _DURATION.fullmatch(text):
            seconds = sum(float(amount) * _SECONDS[unit] for amount, unit in _PART.findall(text))
            if 0.001 <= seconds <= MAX_LIMIT / 1000:
                return round(seconds, 3)
        self.report(name, f"must be a duration of at least 1ms, such as 500ms, 10s, 5m or 1h30m, not {text[:64]!r}")
        return 0.0

    def maps(self, name: str, fields: frozenset[str], elsewhere: Mapping[str, str] | None = None) -> Iterator[YamlMap]:
        """Yields the mappings of a list, each with `fields` only."""
        node = self.fields.get(name)
        if node is None:
            return
        if not isinstance(node, yaml.SequenceNode):
            self.report(name, "must be a list")
            return
        for index, item in enumerate(node.value):
            given = yaml_map(self.file, item, f"{self.at(name)}[{index}]", fields, elsewhere)
            if given is not None:
                yield given


def yaml_map(
    file: YamlFile, node: yaml.Node, path: str, known: frozenset[str], elsewhere: Mapping[str, str] | None = None
) -> YamlMap | None:
    """Returns a mapping with `known` fields, None for what is none; `elsewhere` says where other fields belong."""
    if not isinstance(node, yaml.MappingNode):
        file.fault(node, path, "must be a mapping")
        return None
    fields: dict[str, yaml.Node] = {}
    for key, value in _entries(file, node, path, 0):
        name = key.value if isinstance(key, yaml.ScalarNode) else "?"
        full = f"{path}.{name[:64]}" if path else name[:64]
        if name not in known:
            hint = (elsewhere or {}).get(name)
            file.fault(key, full, f"belongs {hint}" if hint else f"unknown field; {_suggested(name[:64], known)}")
        elif not _is_null(value):
            fields[name] = value
    return YamlMap(file, node, path, fields)


def _suggested(name: str, known: frozenset[str]) -> str:
    close = difflib.get_close_matches(name.lower(), sorted(known), n=1, cutoff=0.75)
    return f"did you mean {close[0]}?" if close else f"known are {', '.join(sorted(known))}"


def _entries(file: YamlFile, node: yaml.MappingNode, path: str, depth: int) -> Iterator[tuple[yaml.Node, yaml.Node]]:
    """Yields the fields of a mapping, those that it merges (`<<`) before its own, which go before them."""
    if depth > MAX_NESTING:
        raise TooLargeError(f"merges more than {MAX_NESTING} levels")
    file.count(1 + len(node.value))
    own: dict[str, tuple[yaml.Node, yaml.Node]] = {}
    for key, value in node.value:
        if key.tag == f"{_TAG}merge":
            yield from _merged(file, value, path, depth)
            continue
        name = key.value if isinstance(key, yaml.ScalarNode) else "?"
        if name in own:
            file.fault(key, f"{path}.{name[:64]}" if path else name[:64], "is there twice")
        own[name] = key, value
    yield from own.values()


def _merged(file: YamlFile, value: yaml.Node, path: str, depth: int) -> Iterator[tuple[yaml.Node, yaml.Node]]:
    sources = value.value[::-1] if isinstance(value, yaml.SequenceNode) else (value,)
    file.count(len(sources))
    for source in sources:
        if isinstance(source, yaml.MappingNode):
            yield from _entries(file, source, path, depth + 1)
        else:
            file.fault(value, path, "<< takes a mapping, or a list of mappings")


def _is_null(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag == f"{_TAG}null"


def _integer(node: yaml.Node) -> int | None:
    if not isinstance(node, yaml.ScalarNode) or (node.style and node.tag != f"{_TAG}int"):
        return None
    found = _INTEGER.fullmatch(node.value.replace("_", "")[:70])
    if found is None:
        return None
    sign, digits = found.groups()
    octal = len(digits) > 1 and digits[0] == "0" and digits[1].isdigit()
    value = int(digits, 8) if octal else int(digits, 0)
    return -value if sign == "-" else value
