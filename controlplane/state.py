"""What outlives the process: the last accepted version of each object, what Envoys reject, addresses, key sets.

It is a help, not a source: an object that the source does not have any more is not brought back by it, and a file that
cannot be read is put aside. Secrets are never written.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import threading
from collections.abc import Collection, Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from controlplane.api.core import ConfigMap
from controlplane.api.load import load
from controlplane.api.meta import ObjectKey, Resource
from controlplane.sqlite_files import connect, is_bad, put_aside

_log = logging.getLogger(__name__)

_APPLICATION_ID: Final = 0x44524147
_SCHEMA: Final = 2
_MAX_DOCUMENT_BYTES: Final = 1024 * 1024

FactKind = Literal["addresses", "key set"]


@dataclass(frozen=True, slots=True)
class Kept:
    """An accepted object and the file that it was written in, if any; None in place of the object: forget it.

    Until it is `confirmed` by Envoys, the version before it is kept too.
    """

    key: ObjectKey
    object: Resource | None
    file: str = ""
    confirmed: bool = True


@dataclass(frozen=True, slots=True)
class Rejected:
    """A version of an object that Envoys reject, and what they say; None in place of the version: forget it."""

    key: ObjectKey
    version: str | None
    message: str = ""


@dataclass(frozen=True, slots=True)
class Fact:
    """Something learned from the network; None in place of the text: forget it."""

    kind: FactKind
    name: str
    text: str | None


class State:
    """The file. Raises OSError where it cannot be opened; what fails later is logged, for nothing depends on it.

    May be used from several threads.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._db = _opened(path)
        except (OSError, sqlite3.Error) as fault:
            reason = fault.strerror if isinstance(fault, OSError) else None
            raise OSError(f"the state file {path} cannot be used: {reason or fault}") from fault

    def close(self) -> None:
        """Closes the file."""
        with self._lock:
            self._db.close()

    def recall(self, keys: Collection[ObjectKey]) -> dict[ObjectKey, Resource]:
        """Returns those of the objects that are kept, and that this version understands."""
        found = ((key, load(document)) for key, document in self.documents(keys).items())
        return {key: each.object for key, each in found if each.object is not None and each.key == key}

    def documents(self, keys: Collection[ObjectKey]) -> dict[ObjectKey, Mapping[str, object]]:
        """Returns the manifests of those of the objects that are kept."""
        found: dict[ObjectKey, Mapping[str, object]] = {}
        with self._transaction() as db:
            for key in keys:
                row = db.execute("SELECT document FROM accepted WHERE key = ?", (_encode(key),)).fetchone()
                if row is not None:
                    found[key] = json.loads(row[0])
        return found

    def keys(self) -> set[ObjectKey]:
        """Returns which objects are kept."""
        with self._transaction() as db:
            return {_decode(key) for (key,) in db.execute("SELECT key FROM accepted")}
        return set[ObjectKey]()

    def of_files(self, files: Collection[str]) -> dict[ObjectKey, str]:
        """Returns the objects that were last written in these files, each with its file."""
        found: dict[ObjectKey, str] = {}
        with self._transaction() as db:
            for file in files:
                rows = db.execute("SELECT key FROM accepted WHERE file = ?", (file,))
                found.update((_decode(key), file) for (key,) in rows)
        return found

    def facts(self, kind: FactKind) -> dict[str, str]:
        """Returns all facts of a kind, by name."""
        with self._transaction() as db:
            return dict(db.execute("SELECT name, text FROM facts WHERE kind = ?", (kind,)).fetchall())
        return {}

    def confirmed(self, current: Mapping[ObjectKey, Resource]) -> dict[ObjectKey, Resource]:
        """Returns the versions that Envoys had confirmed of objects: where it is the current one, that itself."""
        found: dict[ObjectKey, Resource] = {}
        with self._transaction() as db:
            texts = {
                key: db.execute(_GET_CONFIRMED, (name, name)).fetchone() for key in current if (name := _encode(key))
            }
            for key, row in texts.items():
                if row is None or row[0] is None:
                    continue
                same = row[0] == _document(Kept(key, current[key]))
                object_ = current[key] if same else load(json.loads(row[0])).object
                if object_ is not None:
                    found[key] = object_
        return found

    def rejected(self) -> list[Rejected]:
        """Returns the versions that Envoys reject."""
        with self._transaction() as db:
            rows = db.execute("SELECT key, version, message FROM rejected").fetchall()
            return [Rejected(_decode(key), version, message) for key, version, message in rows]
        return []

    def save(self, objects: Iterable[Kept], facts: Iterable[Fact] = (), rejected: Iterable[Rejected] = ()) -> None:
        """Takes all of this over at once, or none of it."""
        kept = [(each.confirmed, (_encode(each.key), each.file, _document(each))) for each in objects]
        rows = [row for _, row in kept]
        new = [(row[0], row[2]) for confirmed, row in kept if not confirmed and row[2] is not None]
        settled = [(row[0],) for confirmed, row in kept if confirmed or row[2] is None]
        learned = [(each.kind, each.name, each.text) for each in facts]
        refused = [(_encode(each.key), each.version, each.message) for each in rejected if each.key.kind != "Secret"]
        with self._transaction() as db:
            db.executemany(_KEEP_BEFORE, [(key, key, key, text) for key, text in new])
            db.executemany("DELETE FROM before WHERE key = ?", settled)
            db.executemany("DELETE FROM rejected WHERE key = ?", [(key,) for key, _, _ in refused])
            db.executemany("INSERT INTO rejected VALUES (?, ?, ?)", [row for row in refused if row[1] is not None])
            db.executemany("DELETE FROM accepted WHERE key = ?", [(key,) for key, _, text in rows if text is None])
            db.executemany(_PUT_OBJECT, [row for row in rows if row[2] is not None])
            db.executemany("DELETE FROM facts WHERE kind = ? AND name = ?", [f[:2] for f in learned if f[2] is None])
            db.executemany(_PUT_FACT, [fact for fact in learned if fact[2] is not None])

    @contextmanager
    def _transaction(self) -> Generator[sqlite3.Connection]:
        try:
            with self._lock, self._db:
                yield self._db
        except (sqlite3.Error, ValueError) as fault:
            _log.warning("%s: %s", self._path, fault)


_PUT_OBJECT: Final = """
INSERT INTO accepted (key, file, document) VALUES (?, ?, ?)
ON CONFLICT (key) DO UPDATE SET file = excluded.file, document = excluded.document
WHERE file IS NOT excluded.file OR document IS NOT excluded.document
"""
_PUT_FACT: Final = """
INSERT INTO facts (kind, name, text) VALUES (?, ?, ?)
ON CONFLICT (kind, name) DO UPDATE SET text = excluded.text WHERE text IS NOT excluded.text
"""
# What was confirmed before a version that is not: nothing where there was nothing. Not noted where it is that very
# version, nor where it is noted already.
_KEEP_BEFORE: Final = """
INSERT OR IGNORE INTO before (key, document)
SELECT ?, (SELECT document FROM accepted WHERE key = ?)
WHERE NOT EXISTS (SELECT 1 FROM accepted WHERE key = ? AND document IS ?)
"""
_GET_CONFIRMED: Final = """
SELECT document FROM (
    SELECT 0 AS place, document FROM before WHERE key = ? UNION ALL SELECT 1, document FROM accepted WHERE key = ?
) ORDER BY place LIMIT 1
"""
_ADD: Final = """
CREATE TABLE IF NOT EXISTS before (key TEXT PRIMARY KEY, document TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS rejected (key TEXT PRIMARY KEY, version TEXT NOT NULL, message TEXT NOT NULL) WITHOUT ROWID;
"""
# Two processes that begin at once are not to meet halfway: to one of them the file would look like a bad one.
_CREATE: Final = f"""
BEGIN IMMEDIATE;
DROP TABLE IF EXISTS accepted;
DROP TABLE IF EXISTS facts;
CREATE TABLE accepted (key TEXT PRIMARY KEY, file TEXT NOT NULL, document TEXT NOT NULL) WITHOUT ROWID;
CREATE INDEX accepted_by_file ON accepted (file);
CREATE TABLE facts (kind TEXT, name TEXT, text TEXT NOT NULL, PRIMARY KEY (kind, name)) WITHOUT ROWID;
{_ADD}
PRAGMA application_id = {_APPLICATION_ID};
PRAGMA user_version = {_SCHEMA};
COMMIT;
"""


def _opened(path: Path) -> sqlite3.Connection:
    try:
        return _open(path)
    except sqlite3.Error as fault:
        if not is_bad(fault):
            raise
        _log.warning("%s cannot be read (%s): it is now %s", path, fault, put_aside(path).name)
        return _open(path)


def _open(path: Path) -> sqlite3.Connection:
    db = connect(path)
    try:
        application, schema = (
            db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")
        )
        if (application, schema) == (0, 0):
            db.executescript(_CREATE)
        elif application == _APPLICATION_ID and schema < _SCHEMA:
            db.executescript(f"{_ADD} PRAGMA user_version = {_SCHEMA};")
        elif (application, schema) != (_APPLICATION_ID, _SCHEMA):
            raise sqlite3.DatabaseError("written by something else, or by a later version")
    except BaseException:
        db.close()
        raise
    return db


def _document(kept: Kept) -> str | None:
    """The object as its manifest would have it; None for what is not to be kept."""
    if kept.object is None or kept.key.kind == "Secret":
        return None
    if isinstance(kept.object, ConfigMap) and kept.object.binary_data:
        return None
    text = kept.object.model_dump_json(by_alias=True, exclude_unset=True)
    return text if len(text) <= _MAX_DOCUMENT_BYTES else None


def _encode(key: ObjectKey) -> str:
    return json.dumps(key)


def _decode(text: str) -> ObjectKey:
    group, kind, namespace, name = json.loads(text)
    return ObjectKey(group, kind, namespace, name)
