"""Reads configuration files in envoyproxy/ratelimit's YAML format, with every fault at its line and field."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml

from ratelimit_service.build import MAX_DEPTH, MAX_DESCRIPTORS, DraftDescriptor, Report, build_domain
from ratelimit_service.model import MAX_LIMIT, Algorithm, Config, Domain, Fault, OnStoreError, Rule, Unit

T = TypeVar("T")

MAX_FILE_BYTES = 32 * 1024 * 1024
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NOT_SUPPORTED = "is not supported yet"
_UNITS = {unit.name.lower(): unit for unit in Unit}


def read_path(path: Path) -> tuple[Config, list[Fault]]:
    """Reads a file, or every .yaml and .yml file of a folder; returns what is sound of it, and the faults."""
    domains: dict[str, Domain] = {}
    faults: list[Fault] = []
    for file in files_of(path):
        try:
            content = file.read_bytes()
        except OSError as error:
            faults.append(Fault(str(file), 0, "", error.strerror or "cannot be read"))
            continue
        parsed, wrong = parse(content, source=str(file))
        faults += wrong
        for domain, line in parsed:
            if domain.name in domains:
                faults.append(Fault(str(file), line, "domain", f"{domain.name!r} is in another file or document too"))
            domains[domain.name] = domain
    return Config(domains), faults


def files_of(path: Path) -> list[Path]:
    """Returns the files that a path stands for, in the order in which they are read."""
    if not path.is_dir():
        return [path]
    return sorted(file for file in path.iterdir() if file.suffix in (".yaml", ".yml") and not file.name.startswith("."))


def parse(content: bytes, *, source: str) -> tuple[list[tuple[Domain, int]], list[Fault]]:
    """Returns the domains of one file, each with its line, and the faults, which call the file `source`."""
    file = _File(source)
    if len(content) > MAX_FILE_BYTES:
        return [], [Fault(source, 0, "", f"is larger than {MAX_FILE_BYTES} bytes")]
    domains: list[tuple[Domain, int]] = []
    try:
        for document in yaml.compose_all(content, Loader=_Loader):
            domain = _domain(file, document)
            if domain is not None:
                domains.append((domain, _line(document)))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        message = getattr(error, "problem", None) or str(error).splitlines()[0]
        file.faults.append(Fault(source, mark.line + 1 if mark else 0, "", f"is not YAML: {message}"))
    except _TooLargeError as error:
        file.faults.append(Fault(source, 0, "", str(error)))
    except (ValueError, RecursionError) as error:
        file.faults.append(Fault(source, 0, "", f"is not YAML: {error}"))
    if not domains and not file.faults:
        file.faults.append(Fault(source, 0, "", "holds no domain"))
    return domains, file.faults


class _TooLargeError(Exception):
    """The file unfolds to more than anybody wants to limit."""


@dataclass(slots=True)
class _File:
    source: str
    faults: list[Fault] = field(default_factory=list[Fault])
    descriptors: int = 0

    def fault(self, node: yaml.Node, path: str, message: str) -> None:
        self.faults.append(Fault(self.source, _line(node), path, message))


def _line(node: yaml.Node) -> int:
    return node.start_mark.line + 1


@dataclass(slots=True)
class _Map:
    """A mapping of the file: its fields are taken one by one, by type."""

    file: _File
    node: yaml.Node
    path: str
    fields: Mapping[str, yaml.Node]

    def at(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name

    def report(self, name: str, message: str) -> None:
        node = self.node
        for part in name.split("."):
            below = node.value if isinstance(node, yaml.MappingNode) else ()
            node = next((value for key, value in below if key.value == part), node)
        self.file.fault(node, self.at(name), message)

    def text(self, name: str) -> str:
        node = self.fields.get(name)
        if node is None or node.tag == "tag:yaml.org,2002:null":
            return ""
        if isinstance(node, yaml.ScalarNode):
            return node.value
        self.report(name, "must be a string")
        return ""

    def flag(self, name: str) -> bool:
        node = self.fields.get(name)
        if node is None:
            return False
        if isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:bool":
            return node.value.lower() in ("true", "yes", "on")
        self.report(name, "must be true or false")
        return False

    def number(self, name: str, *, least: int = 0) -> int:
        node = self.fields.get(name)
        if node is None:
            return 0
        if isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:int" and node.value.isdigit():
            value = int(node.value[:20])
            if least <= value <= MAX_LIMIT:
                return value
        self.report(name, f"must be a whole number from {least} to {MAX_LIMIT}")
        return 0

    def choice(self, name: str, choices: Mapping[str, T], default: T) -> T:
        if name not in self.fields:
            return default
        value = self.text(name).lower()
        if value in choices:
            return choices[value]
        self.report(name, f"{value!r} is none of {', '.join(choices)}")
        return default

    def maps(self, name: str, fields: frozenset[str]) -> list[_Map]:
        node = self.fields.get(name)
        if node is None or node.tag == "tag:yaml.org,2002:null":
            return []
        if not isinstance(node, yaml.SequenceNode):
            self.report(name, "must be a list")
            return []
        found = (_map(self.file, item, f"{self.at(name)}[{i}]", fields) for i, item in enumerate(node.value))
        return [item for item in found if item is not None]


_ROOT = frozenset({"domain", "descriptors", "on_store_error"})
_DESCRIPTOR = frozenset({"key", "value", "rate_limit", "descriptors", "shadow_mode", "detailed_metric"})
_RATE_LIMIT = frozenset(
    {"unit", "requests_per_unit", "unlimited", "name", "replaces", "algorithm", "burst", "on_store_error"}
)
_LATER = frozenset({"quota_mode", "value_to_metric", "share_threshold"})
_ON_STORE_ERROR = {choice.value: choice for choice in OnStoreError}
_ALGORITHMS = {choice.value: choice for choice in Algorithm}


def _map(file: _File, node: yaml.Node, path: str, known: frozenset[str]) -> _Map | None:
    if not isinstance(node, yaml.MappingNode):
        file.fault(node, path, "must be a mapping")
        return None
    fields: dict[str, yaml.Node] = {}
    for key, value in node.value:
        name = key.value if isinstance(key, yaml.ScalarNode) else "?"
        full = f"{path}.{name}" if path else name
        if name in _LATER and known is _DESCRIPTOR:
            file.fault(key, full, _NOT_SUPPORTED)
        elif name not in known:
            file.fault(key, full, f"unknown field; known are {', '.join(sorted(known))}")
        elif name in fields:
            file.fault(key, full, "is there twice")
        fields[name] = value
    return _Map(file, node, path, fields)


def _domain(file: _File, document: yaml.Node) -> Domain | None:
    root = _map(file, document, "", _ROOT)
    if root is None:
        return None
    name = root.text("domain")
    if not name:
        root.report("domain", "must not be empty")
        return None
    on_store_error = root.choice("on_store_error", _ON_STORE_ERROR, OnStoreError.ALLOW)
    drafts = [_descriptor(item, on_store_error, 1) for item in root.maps("descriptors", _DESCRIPTOR)]
    return build_domain(name, on_store_error, drafts)


def _descriptor(given: _Map, on_store_error: OnStoreError, depth: int) -> DraftDescriptor:
    given.file.descriptors += 1
    if depth > MAX_DEPTH or given.file.descriptors > MAX_DESCRIPTORS:
        raise _TooLargeError(f"has more than {MAX_DEPTH} levels or {MAX_DESCRIPTORS} descriptors")
    flags = {name: given.flag(name) for name in ("shadow_mode", "detailed_metric")}
    rule = _rule(given, flags, on_store_error) if "rate_limit" in given.fields else None
    below = [_descriptor(item, on_store_error, depth + 1) for item in given.maps("descriptors", _DESCRIPTOR)]
    report: Report = given.report
    return DraftDescriptor(given.text("key"), given.text("value"), rule, below, report)


def _rule(descriptor: _Map, flags: Mapping[str, bool], on_store_error: OnStoreError) -> Rule | None:
    path = descriptor.at("rate_limit")
    limit = _map(descriptor.file, descriptor.fields["rate_limit"], path, _RATE_LIMIT)
    if limit is None:
        return None
    unlimited = limit.flag("unlimited")
    return Rule(
        domain="",
        path="",
        unit=_unit(limit, unlimited=unlimited),
        requests_per_unit=limit.number("requests_per_unit"),
        unlimited=unlimited,
        name=limit.text("name"),
        replaces=_replaces(limit),
        shadow_mode=flags["shadow_mode"],
        detailed_metric=flags["detailed_metric"],
        algorithm=limit.choice("algorithm", _ALGORITHMS, Algorithm.FIXED_WINDOW),
        burst=limit.number("burst", least=1),
        on_store_error=limit.choice("on_store_error", _ON_STORE_ERROR, on_store_error),
    )


def _unit(limit: _Map, *, unlimited: bool) -> Unit:
    if not unlimited:
        if "unit" not in limit.fields:
            limit.report("unit", f"is missing; it is one of {', '.join(_UNITS)}")
        return limit.choice("unit", _UNITS, Unit.SECOND)
    if "unit" in limit.fields:
        limit.report("unit", "makes no sense with unlimited")
    return Unit.SECOND


def _replaces(limit: _Map) -> tuple[str, ...]:
    names: list[str] = []
    for item in limit.maps("replaces", frozenset({"name"})):
        name = item.text("name")
        if not name:
            item.report("name", "must not be empty")
        names.append(name)
    return tuple(names)
