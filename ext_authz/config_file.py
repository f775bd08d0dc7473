"""Reads a configuration file into policy messages, with every fault at its line and field."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast

from pydantic import ValidationError

from dragoman.protos.dragoman.authz.v1 import policy_pb2 as pb
from dragoman.settings_file import Document, dismantle, read_document
from ext_authz.config_model import PolicyEntry
from ext_authz.policy import InvalidPolicy
from ext_authz.read_policy import read_policy

MAX_BYTES: Final = 32 * 1024 * 1024
MAX_VALUES: Final = 2_000_000
MAX_JWKS_BYTES: Final = 1024 * 1024
MAX_FAULTS: Final = 1000

FileState = tuple[str] | tuple[str, int, int, int]
"""Tells whether a file has changed: path, time of the content, size and inode; the path alone where there is none."""

Check = Callable[[pb.Policy, bytes], tuple[str, ...]]
"""Says what is wrong with a policy, given as a message and encoded."""


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
    files: dict[Path, str | None] = field(default_factory=dict[Path, "str | None"])
    """The JWKS files that policies name, with their contents; None for one that cannot be read."""
    states: set[FileState] = field(default_factory=set["FileState"])
    """Those of the file and of those that it names, before they were read."""
    faults: list[Fault] = field(default_factory=list[Fault])
    readable: bool = True
    """False when the file as a whole says nothing: it is not there, or no YAML."""


def sound(message: pb.Policy, body: bytes) -> tuple[str, ...]:
    """Says what is wrong with a policy by itself."""
    read = read_policy(message)
    return read.faults if isinstance(read, InvalidPolicy) else ()


def read_config(path: Path, *, check: Check = sound) -> ConfigFile:
    """Reads `path`; a fault in one policy leaves the others be."""
    config = ConfigFile(states={state_of(path)})
    document = read_document(path, max_bytes=MAX_BYTES, max_values=MAX_VALUES)
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
        _read_entry(document, config, index, entry, check)
    dismantle(document.value)
    return config


def state_of(file: Path) -> FileState:
    """Returns what differs once a file has changed."""
    try:
        found = file.stat()
    except OSError:
        return (str(file),)
    return str(file), found.st_mtime_ns, found.st_size, found.st_ino


def _read_entry(document: Document, config: ConfigFile, index: int, entry: Any, check: Check) -> None:
    at = ("policies", str(index))
    raw = cast("dict[str, Any]", entry) if isinstance(entry, dict) else {}
    policy_id = raw.get("id")
    faults: list[Fault] = []
    try:
        parsed = PolicyEntry.model_validate(entry)
        message = parsed.message(lambda name: _jwks(config, document.file.parent / name))
        if parsed.api_keys is not None:
            dismantle(parsed.api_keys.keys)
        if parsed.id in config.policies or parsed.id in config.unsound:
            faults.append(_fault(document, (*at, "id"), f"{parsed.id!r} is there twice"))
        else:
            body = message.SerializeToString(deterministic=True)
            faults += [_fault(document, at, fault) for fault in check(message, body)]
            if not faults:
                config.policies[parsed.id] = body
    except ValidationError as error:
        faults += [_of_pydantic(document, at, each) for each in error.errors(include_input=False)[:MAX_FAULTS]]
    except (OSError, UnicodeDecodeError) as error:
        faults.append(_fault(document, at, f"a JWKS file cannot be read: {error}"))
    config.faults += faults
    if faults and isinstance(policy_id, str):
        config.unsound.add(policy_id)


def _jwks(config: ConfigFile, file: Path) -> str:
    """Reads a file once for all policies that name it."""
    if file not in config.files:
        config.states.add(state_of(file))
        config.files[file] = None
    text = config.files[file]
    if text is None:
        if not file.is_file():
            # A pipe would be waited for until somebody writes to it.
            raise OSError(errno.ENOENT, "there is no such file", str(file))
        with file.open("rb") as opened:
            content = opened.read(MAX_JWKS_BYTES + 1)
        if len(content) > MAX_JWKS_BYTES:
            raise OSError(errno.EFBIG, f"it has more than {MAX_JWKS_BYTES} bytes", str(file))
        text = config.files[file] = content.decode("utf-8")
    return text


def _of_pydantic(document: Document, at: tuple[str, ...], error: Mapping[str, Any]) -> Fault:
    path = (*at, *(str(part) for part in error["loc"]))
    message = "there is no such field" if error["type"] == "extra_forbidden" else str(error["msg"])
    return _fault(document, path, message.removeprefix("Value error, "))


def _fault(document: Document, path: tuple[str, ...], message: str) -> Fault:
    """The line is the field's own, else that of what it is missing from."""
    found = (document.place(path[:length]) for length in range(len(path), 0, -1))
    where = next((place for place in found if place is not None), str(document.file))
    name = ""
    for part in path:
        name += f"[{part}]" if part.isdigit() else f".{part}" if name else part
    return Fault(where, name, message)
