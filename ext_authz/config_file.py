"""Reads a configuration file into policy messages, with every fault at its line and field."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from dragoman.settings_file import Document, read_document
from ext_authz.config_model import PolicyEntry
from ext_authz.policy import InvalidPolicy
from ext_authz.read_policy import read_policy


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong: `where` is FILE:LINE, `field` the path from the top of the file."""

    where: str
    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.where}: {self.field}: {self.message}" if self.field else f"{self.where}: {self.message}"


@dataclass(slots=True)
class ConfigFile:
    """What a file holds: sound policies as bytes, the ids of the others, the files it names, and the faults."""

    policies: dict[str, bytes] = field(default_factory=dict[str, bytes])
    unsound: set[str] = field(default_factory=set[str])
    files: list[Path] = field(default_factory=list[Path])
    faults: list[Fault] = field(default_factory=list[Fault])
    readable: bool = True
    """False when the file as a whole says nothing: it is not there, or no YAML."""


def read_config(path: Path) -> ConfigFile:
    """Reads `path`; a fault in one policy leaves the others be."""
    document = read_document(path)
    config = ConfigFile()
    if document.faults:
        config.faults += [Fault(where, "", message) for where, message in document.faults]
        config.readable = False
        return config
    for name in document.value.keys() - {"policies"}:
        config.faults.append(_fault(document, (name,), "there is no such field; known is policies"))
    entries = document.value.get("policies")
    if not isinstance(entries, list):
        config.faults.append(_fault(document, ("policies",), "must be a list"))
        config.readable = False
        return config
    for index, entry in enumerate(cast("list[Any]", entries)):
        _read_entry(document, config, index, entry)
    return config


def _read_entry(document: Document, config: ConfigFile, index: int, entry: Any) -> None:
    at = ("policies", str(index))
    raw = cast("dict[str, Any]", entry) if isinstance(entry, dict) else {}
    policy_id = raw.get("id")
    faults: list[Fault] = []
    try:
        parsed = PolicyEntry.model_validate(entry)
        config.files += [document.file.parent / name for name in parsed.files()]
        message = parsed.message(document.file.parent)
        read = read_policy(message)
        if isinstance(read, InvalidPolicy):
            faults += [_fault(document, at, fault) for fault in read.faults]
        elif parsed.id in config.policies or parsed.id in config.unsound:
            faults.append(_fault(document, (*at, "id"), f"{parsed.id!r} is there twice"))
        else:
            config.policies[parsed.id] = message.SerializeToString(deterministic=True)
    except ValidationError as error:
        faults += [_of_pydantic(document, at, each) for each in error.errors(include_input=False)]
    except (OSError, UnicodeDecodeError) as error:
        faults.append(_fault(document, at, f"a JWKS file cannot be read: {error}"))
    config.faults += faults
    if faults and isinstance(policy_id, str):
        config.unsound.add(policy_id)


def _of_pydantic(document: Document, at: tuple[str, ...], error: Mapping[str, Any]) -> Fault:
    path = (*at, *(str(part) for part in error["loc"]))
    message = "there is no such field" if error["type"] == "extra_forbidden" else str(error["msg"])
    return _fault(document, path, message.removeprefix("Value error, "))


def _fault(document: Document, path: tuple[str, ...], message: str) -> Fault:
    """The line is the field's own, else that of what it is missing from."""
    found = (document.places.get(path[:length]) for length in range(len(path), 0, -1))
    where = next((place for place in found if place is not None), str(document.file))
    name = ""
    for part in path:
        name += f"[{part}]" if part.isdigit() else f".{part}" if name else part
    return Fault(where, name, message)
