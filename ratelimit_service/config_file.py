"""Reads configuration files in envoyproxy/ratelimit's YAML format, with every fault at its line and field."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

from ratelimit_service.build import MAX_DEPTH, MAX_DESCRIPTORS, DraftDescriptor, Part, Place, Report, build_domain, join
from ratelimit_service.config_folder import read
from ratelimit_service.model import MAX_LIMIT, Algorithm, Config, Domain, Fault, Mode, OnStoreError, Rule, Unit
from ratelimit_service.yaml_fields import TooLargeError, YamlFile, YamlMap, dismantle, line_of, yaml_map


def read_path(path: Path, *, merge_domains: bool = False) -> tuple[Config, list[Fault]]:
    """Reads a file, or the files of a folder and of those below it; returns what is sound of it, and the faults.

    A domain is in one file, unless `merge_domains` says that several may each give a part of it.
    """
    files, faults = read(path)
    config, wrong = read_files(files, merge_domains=merge_domains)
    return config, faults + wrong


def read_files(files: Mapping[str, bytes], *, merge_domains: bool = False) -> tuple[Config, list[Fault]]:
    """Does the same for files that are read already, by name."""
    return Files(merge_domains=merge_domains).read(files)


class Files:
    """Reads files again and again, and parses only those whose bytes are not as they were."""

    def __init__(self, *, merge_domains: bool = False) -> None:
        self._merge_domains = merge_domains
        self._parsed: dict[str, _Parsed] = {}

    def read(self, files: Mapping[str, bytes]) -> tuple[Config, list[Fault]]:
        """Returns what is sound of the files, and the faults."""
        before, self._parsed = self._parsed, {}
        for source, content in files.items():
            digest = hashlib.sha256(content).digest()
            known = before.get(source)
            if known is None or known.digest != digest:
                known = _Parsed(digest, *parse(content, source=source))
            self._parsed[source] = known
        parts = [Part(domain, source, line) for source, each in self._parsed.items() for domain, line in each.domains]
        domains, twice = join(parts, merge_domains=self._merge_domains, kind="file")
        return Config(domains), [fault for each in self._parsed.values() for fault in each.faults] + twice


class _Parsed(NamedTuple):
    digest: bytes
    domains: Sequence[tuple[Domain, int]]
    faults: Sequence[Fault]


def parse(content: bytes, *, source: str) -> tuple[list[tuple[Domain, int]], list[Fault]]:
    """Returns the domains of one file, each with its line, and the faults, which call the file `source`."""
    file = YamlFile(source)
    domains: list[tuple[Domain, int]] = []
    try:
        reader = _Reader(file)
        for document in file.documents(content):
            domain = reader.domain(document)
            if domain is not None:
                domains.append((domain, line_of(document)))
            dismantle(document)
    except TooLargeError as error:
        file.faults.append(Fault(source, 0, "", str(error)))
    if not domains and not file.faults:
        file.faults.append(Fault(source, 0, "", "holds no domain"))
    return domains, file.faults


MAX_REPLACES: Final = 1000

_ROOT: Final = frozenset({"domain", "descriptors", "on_store_error"})
_FLAGS: Final = ("shadow_mode", "quota_mode", "detailed_metric", "value_to_metric", "share_threshold")
_DESCRIPTOR: Final = frozenset({"key", "value", "rate_limit", "descriptors", *_FLAGS})
_THEIRS: Final = frozenset({"unit", "requests_per_unit", "unlimited", "name", "replaces"})
_COUNTED: Final = frozenset({"unit_multiplier", "algorithm", "burst", "delay", "lease_time", "precision"})
_OURS: Final = _COUNTED | {"mode", "on_store_error", "hidden"}
_RATE_LIMIT: Final = _THEIRS | _OURS
# envoyproxy/ratelimit passes over a field that it knows from elsewhere; here it is told where it belongs.
_NOT_IN_LIMIT: Final = dict.fromkeys(_DESCRIPTOR, "beside rate_limit, not in it")
_NOT_IN_DESCRIPTOR: Final = {**dict.fromkeys(_RATE_LIMIT, "in rate_limit"), "domain": "at the top of the file"}
_NOT_IN_ROOT: Final = dict.fromkeys(_DESCRIPTOR, "in a descriptor") | dict.fromkeys(_RATE_LIMIT, "in rate_limit")

_UNITS: Final = {unit.name.lower(): unit for unit in Unit}
_NO_UNIT: Final = ("", "unknown")
_ON_STORE_ERROR: Final = {choice.value: choice for choice in OnStoreError}
_ALGORITHMS: Final = {choice.value: choice for choice in Algorithm}
_MODES: Final = {choice.value: choice for choice in Mode}
_LEASE: Final = re.compile(r"lease\(\s*([1-9][0-9]{0,9})\s*\)")


class _Reader:
    def __init__(self, file: YamlFile) -> None:
        self._file = file
        self._descriptors = 0
        self._on_store_error = OnStoreError.ALLOW

    def domain(self, document: yaml.Node) -> Domain | None:
        if _is_manifest(document):
            self._file.fault(
                document, "", "is a Kubernetes object, no file of limits: `dragoman validate` checks those"
            )
            return None
        root = yaml_map(self._file, document, "", _ROOT, _NOT_IN_ROOT)
        if root is None:
            return None
        name = root.text("domain")
        if not name:
            root.report("domain", "must not be empty")
            return None
        self._on_store_error = root.choice("on_store_error", _ON_STORE_ERROR, OnStoreError.ALLOW)
        return build_domain(name, self._on_store_error, self._below(root, 1))

    def _below(self, given: YamlMap, depth: int) -> Iterator[DraftDescriptor]:
        found = given.maps("descriptors", _DESCRIPTOR, _NOT_IN_DESCRIPTOR)
        return (self._descriptor(item, depth) for item in found)

    def _descriptor(self, given: YamlMap, depth: int) -> DraftDescriptor:
        self._descriptors += 1
        if depth > MAX_DEPTH or self._descriptors > MAX_DESCRIPTORS:
            raise TooLargeError(f"has more than {MAX_DEPTH} levels or {MAX_DESCRIPTORS} descriptors")
        flags = {name: given.flag(name) for name in _FLAGS}
        rule = partial(self._rule, given, flags) if "rate_limit" in given.fields else None
        report: Report = given.report
        return DraftDescriptor(
            given.text("key"),
            given.text("value"),
            rule,
            self._below(given, depth + 1),
            report,
            value_to_metric=flags["value_to_metric"],
            share_threshold=flags["share_threshold"],
        )

    def _rule(self, descriptor: YamlMap, flags: Mapping[str, bool], place: Place) -> Rule | None:
        path = descriptor.at("rate_limit")
        limit = yaml_map(self._file, descriptor.fields["rate_limit"], path, _RATE_LIMIT, _NOT_IN_LIMIT)
        if limit is None:
            return None
        unlimited = limit.flag("unlimited")
        return Rule(
            domain=place.domain,
            path=place.path,
            shared=place.shared,
            value_to_metric=place.value_to_metric,
            unit=_unit(limit, unlimited=unlimited),
            requests_per_unit=limit.number("requests_per_unit"),
            unlimited=unlimited,
            name=limit.text("name"),
            replaces=_replaces(limit),
            shadow_mode=flags["shadow_mode"],
            quota_mode=flags["quota_mode"],
            detailed_metric=flags["detailed_metric"],
            on_store_error=limit.choice("on_store_error", _ON_STORE_ERROR, self._on_store_error),
            **_own(limit),
        )


def _is_manifest(document: yaml.Node) -> bool:
    fields = document.value if isinstance(document, yaml.MappingNode) else ()
    return {"apiVersion", "kind"} <= {key.value for key, _ in fields if isinstance(key, yaml.ScalarNode)}


def _own(limit: YamlMap) -> dict[str, Any]:
    """Returns what envoyproxy/ratelimit has no word for."""
    return {
        "unit_multiplier": limit.number("unit_multiplier", least=1) or 1,
        "algorithm": limit.choice("algorithm", _ALGORITHMS, Algorithm.FIXED_WINDOW),
        "burst": limit.number("burst", least=1),
        "delay_s": limit.seconds("delay"),
        "lease_time_s": limit.seconds("lease_time"),
        "lease": _lease(limit),
        "mode": limit.choice("mode", _MODES, Mode.REQUEST),
        "hidden": limit.flag("hidden"),
    }


def _unit(limit: YamlMap, *, unlimited: bool) -> Unit:
    word = limit.text("unit").lower()
    if word in _NO_UNIT and not unlimited:
        limit.report("unit", f"is missing; it is one of {', '.join(_UNITS)}")
    if word in _UNITS and unlimited:
        limit.report("unit", "makes no sense with unlimited")
    return Unit.SECOND if word in _NO_UNIT else limit.choice("unit", _UNITS, Unit.SECOND)


def _lease(limit: YamlMap) -> int:
    text = limit.text("precision").lower()
    found = _LEASE.fullmatch(text)
    if found is not None and int(found[1]) <= MAX_LIMIT:
        return int(found[1])
    if text not in ("", "exact"):
        limit.report("precision", f"must be exact, or lease(N) to take N hits at a time, not {text[:64]!r}")
    return 1


def _replaces(limit: YamlMap) -> tuple[str, ...]:
    names: list[str] = []
    node = limit.fields.get("replaces")
    if isinstance(node, yaml.SequenceNode) and len(node.value) > MAX_REPLACES:
        limit.report("replaces", f"has more than {MAX_REPLACES} names")
        return ()
    for item in limit.maps("replaces", frozenset({"name"})):
        name = item.text("name")
        if not name:
            item.report("name", "must not be empty")
        names.append(name)
    return tuple(names)
