"""The file that the last good snapshots are kept in: each content once, under its hash, and where it belongs.

It is a help, not a source: a file that cannot be read, or in which anything is not as it was written, is put aside, and
the start is a cold one.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sqlite3
import threading
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Final

from controlplane.kept.sealing import Plain, Sealer
from controlplane.sqlite_files import connect, is_bad, put_aside
from controlplane.xds.resources import Resource, Snapshot

_log = logging.getLogger(__name__)

_APPLICATION_ID: Final = 0x4452474B
_SCHEMA: Final = 1
MAX_BYTES: Final = 1 << 30
_JSON: Final = json.JSONDecoder()

_Row = tuple[str, str, str, bytes | None]
"""Owner, type, name, and the address of the content: None where that is left out."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What was kept: the snapshots by owner, how many resources were left out of them, and of when it is."""

    snapshots: Mapping[str, Snapshot] = field(default_factory=lambda: MappingProxyType({}))
    withheld: int = 0
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """What is new of an owner: resources to keep, those that are there and are left out, and those that are gone."""

    owner: str
    put: tuple[Resource, ...] = ()
    withhold: tuple[tuple[str, str], ...] = ()
    drop: tuple[tuple[str, str], ...] = ()
    anew: bool = False
    """Whether `withhold` is all that is left out."""
    gone: bool = False
    """Whether all of the owner's is to go."""


class Store:
    """The file, opened by `open_store`. What fails once it is open is logged, for nothing depends on it.

    May be used from several threads.
    """

    def __init__(self, path: Path, db: sqlite3.Connection, cipher: Sealer | Plain, max_bytes: int) -> None:
        self._path = path
        self._db = db
        self._cipher = cipher
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._source = ""
        self._written: str | None = None  # What the last write left as its mark; None: nobody has written yet.

    @property
    def whole(self) -> bool:
        """Whether resources with secrets may be kept too, for they are encrypted."""
        return isinstance(self._cipher, Sealer)

    def close(self) -> None:
        """Closes the file."""
        with self._lock:
            self._db.close()

    def load(self, source: str) -> Kept:
        """Returns what was kept of a source; nothing where it is of another. Raises DatabaseError for a bad file."""
        with self._lock:
            self._source = source
            facts = dict(self._db.execute("SELECT name, text FROM facts"))
            if facts.get("source") != source or facts.get("key") != self._cipher.identity:
                if facts:
                    _log.warning("what %s holds is of another source, or for another key: it is forgotten", self._path)
                self._begin()
                return Kept()
            self._written = facts.get("written")
            # Two scans and a dictionary are quicker than to look for each content in the file.
            contents: dict[bytes, bytes] = dict(self._db.execute("SELECT address, content FROM contents"))
            rows = self._db.execute("SELECT owner, type, name, address FROM resources").fetchall()
        found: dict[str, dict[str, dict[str, Resource]]] = {}
        withheld = 0
        for owner, type_url, name, address in rows:
            of_owner = found.setdefault(owner, {})
            if address is None:
                withheld += 1
            else:
                resource = self._resource(type_url, name, address, contents.get(address))
                of_owner.setdefault(type_url, {})[name] = resource
        snapshots = {owner: Snapshot(resources, kept=True) for owner, resources in found.items()}
        try:
            at = datetime.fromtimestamp(float(facts["at"]), UTC) if "at" in facts else None
        except (ValueError, OverflowError, OSError) as fault:
            raise sqlite3.DatabaseError(f"its time: {fault}") from None
        return Kept(snapshots, withheld, at)

    def save(self, changes: Iterable[Change], at: datetime) -> bool:
        """Takes all of this over at once, or none of it; says whether it has."""
        try:
            with self._transaction() as db:
                db.execute(_PUT_FACT, ("at", str(at.timestamp())))
                mark = self._mark(db)
                for change in changes:
                    self._apply(db, change)
                db.execute(_COLLECT)
                (size,) = db.execute("SELECT coalesce(sum(length(content)), 0) FROM contents").fetchone()
                if size > self._max_bytes:
                    raise sqlite3.Error(f"{size} bytes are more than the {self._max_bytes} that may be kept")
        except (sqlite3.Error, ValueError) as fault:
            _log.warning("%s: %s", self._path, fault)
            return False
        self._written = mark
        return True

    def clear(self) -> None:
        """Forgets everything: what is not kept up to date is better not kept."""
        with contextlib.suppress(sqlite3.Error, ValueError), self._lock:
            self._begin()

    def _begin(self) -> None:
        mark = os.urandom(8).hex()
        with self._db:
            self._db.execute("DELETE FROM resources")
            self._db.execute("DELETE FROM contents")
            self._db.execute("DELETE FROM facts")
            facts = [("source", self._source), ("key", self._cipher.identity), ("written", mark)]
            self._db.executemany(_PUT_FACT, facts)
        self._written = mark

    def _mark(self, db: sqlite3.Connection) -> str:
        """Marks what is being written. What another process has written meanwhile is not to be mixed with it."""
        row = db.execute("SELECT text FROM facts WHERE name = 'written'").fetchone()
        if (row[0] if row is not None else None) != self._written:
            raise sqlite3.Error("another process writes there too: each needs a folder of its own")
        mark = os.urandom(8).hex()
        db.execute(_PUT_FACT, ("written", mark))
        return mark

    def _apply(self, db: sqlite3.Connection, change: Change) -> None:
        if change.gone:
            db.execute("DELETE FROM resources WHERE owner = ?", (change.owner,))
        if change.anew:
            db.execute("DELETE FROM resources WHERE owner = ? AND address IS NULL", (change.owner,))
        dropped = [(change.owner, type_url, name) for type_url, name in change.drop]
        db.executemany("DELETE FROM resources WHERE owner = ? AND type = ? AND name = ?", dropped)
        rows: list[_Row] = [(change.owner, type_url, name, None) for type_url, name in change.withhold]
        for resource in change.put:
            content = _encode(resource)
            address = self._cipher.address(content)
            if db.execute("SELECT 1 FROM contents WHERE address = ?", (address,)).fetchone() is None:
                sealed = self._cipher.seal(address, content)
                db.execute("INSERT INTO contents VALUES (?, ?)", (address, sealed))
            rows.append((change.owner, resource.type_url, resource.name, address))
        db.executemany("INSERT OR REPLACE INTO resources VALUES (?, ?, ?, ?)", rows)

    def _resource(self, type_url: str, name: str, address: bytes, sealed: bytes | None) -> Resource:
        if sealed is None:
            raise sqlite3.DatabaseError(f"{name} is not there")
        try:
            found = _decode(self._cipher.open(address, sealed))
            if (found.type_url, found.name) != (type_url, name):
                raise ValueError("another resource is in its place")
            return found
        except (ValueError, KeyError, TypeError) as fault:
            raise sqlite3.DatabaseError(f"{name}: {fault}") from None

    @contextlib.contextmanager
    def _transaction(self) -> Generator[sqlite3.Connection]:
        with self._lock, self._db:
            yield self._db


def open_store(
    path: Path, source: str, *, key: bytes | None = None, max_bytes: int = MAX_BYTES
) -> tuple[Store | None, Kept]:
    """Opens the file of a source and returns what is kept in it; a bad one is put aside, and there is nothing.

    Where no file can be had, it is logged and there is no store: nothing depends on it.
    """
    cipher = Plain() if key is None else Sealer(key)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            return _opened(path, source, cipher, max_bytes)
        except sqlite3.Error as fault:
            if not is_bad(fault):
                raise
            aside = put_aside(path)
            _log.warning("%s cannot be read (%s): it is now %s, and not served", path, fault, aside.name)
            return _opened(path, source, cipher, max_bytes)
    except (OSError, sqlite3.Error) as fault:
        _log.warning("no snapshot is kept: %s: %s", path, fault)
        return None, Kept()


def _opened(path: Path, source: str, cipher: Sealer | Plain, max_bytes: int) -> tuple[Store, Kept]:
    store = Store(path, _open(path), cipher, max_bytes)
    try:
        return store, store.load(source)
    except BaseException:
        store.close()
        raise


_PUT_FACT: Final = "INSERT OR REPLACE INTO facts VALUES (?, ?)"
_COLLECT: Final = """
DELETE FROM contents WHERE address NOT IN (SELECT address FROM resources WHERE address IS NOT NULL)
"""
# Two processes that begin at once are not to meet halfway: to one of them the file would look like a bad one.
_CREATE: Final = f"""
BEGIN IMMEDIATE;
DROP TABLE IF EXISTS resources;
DROP TABLE IF EXISTS contents;
DROP TABLE IF EXISTS facts;
CREATE TABLE resources (owner TEXT, type TEXT, name TEXT, address BLOB, PRIMARY KEY (owner, type, name)) WITHOUT ROWID;
CREATE TABLE contents (address BLOB PRIMARY KEY, content BLOB NOT NULL);
CREATE TABLE facts (name TEXT PRIMARY KEY, text TEXT NOT NULL) WITHOUT ROWID;
CREATE INDEX resources_by_address ON resources (address);
PRAGMA application_id = {_APPLICATION_ID};
PRAGMA user_version = {_SCHEMA};
COMMIT;
"""


def _open(path: Path) -> sqlite3.Connection:
    db = connect(path)
    try:
        db.execute("PRAGMA journal_size_limit = 4194304")
        application, schema = (
            db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")
        )
        if (application, schema) == (0, 0) or (application == _APPLICATION_ID and schema < _SCHEMA):
            db.executescript(_CREATE)
        elif (application, schema) != (_APPLICATION_ID, _SCHEMA):
            raise sqlite3.DatabaseError("written by something else, or by a later version")
    except BaseException:
        db.close()
        raise
    return db


def _encode(resource: Resource) -> bytes:
    head = [resource.type_url, resource.name, resource.version, resource.warm_s, list(dict.fromkeys(resource.origins))]
    return json.dumps(head, separators=(",", ":")).encode() + b"\n" + resource.body


def _decode(content: bytes) -> Resource:
    head, _, body = content.partition(b"\n")
    type_url, name, version, warm_s, origins = _JSON.decode(str(head, "utf-8"))
    return Resource(type_url, name, body, version, tuple(origins), warm_s)
