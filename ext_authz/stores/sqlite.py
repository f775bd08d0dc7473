"""API keys in a SQLite file (WAL mode): a look-up takes some 20 µs, so it runs where it is asked for, in the loop."""

import asyncio
import contextlib
import json
import os
import sqlite3
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ext_authz.stores.records import Changes, KeyRecord, StoreUnavailableError

POLL_S = 0.25
FILE_MODE = 0o600
_SCHEMA = """
CREATE TABLE IF NOT EXISTS generation (only INTEGER PRIMARY KEY CHECK (only = 1), value INTEGER NOT NULL);
INSERT OR IGNORE INTO generation VALUES (1, 0);
CREATE TABLE IF NOT EXISTS keys (
  id TEXT PRIMARY KEY, sha256 BLOB NOT NULL, consumer TEXT NOT NULL, tenant TEXT NOT NULL, scopes TEXT NOT NULL,
  metadata TEXT NOT NULL, created_at REAL NOT NULL, expires_at REAL, revoked_at REAL, generation INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS keys_by_generation ON keys (generation);
"""
_COLUMNS = "id, sha256, consumer, created_at, scopes, metadata, tenant, expires_at, revoked_at"


class SqliteKeyStore:
    """A `KeyStore` in a file of mode 0600, made if there is none. Each change takes the next generation number."""

    def __init__(self, path: Path, *, busy_s: float = 0.05) -> None:
        self._path = path
        self._busy_s = busy_s
        self._connection: sqlite3.Connection | None = None
        self._inode = -1
        self._opened_once = False
        self._reopened = False

    async def find(self, key_id: str) -> KeyRecord | None:
        with self._asking() as connection:
            row = connection.execute(f"SELECT {_COLUMNS} FROM keys WHERE id = ?", (key_id,)).fetchone()  # noqa: S608
            return None if row is None else _record(row)

    async def add(self, record: KeyRecord) -> None:
        with self._asking() as connection, _transaction(connection) as generation:
            values = (
                *(record.id, record.sha256, record.consumer, record.tenant, json.dumps(record.scopes)),
                *(json.dumps(dict(record.metadata)), record.created_at, record.expires_at, record.revoked_at),
            )
            try:
                connection.execute(f"INSERT INTO keys VALUES ({'?, ' * 9}?)", (*values, generation))  # noqa: S608
            except sqlite3.IntegrityError as error:
                raise KeyError(record.id) from error

    async def list(self) -> Sequence[KeyRecord]:
        with self._asking() as connection:
            rows = connection.execute(f"SELECT {_COLUMNS} FROM keys ORDER BY created_at, id")  # noqa: S608
            return [_record(row) for row in rows]

    async def revoke(self, key_id: str, at: float) -> bool:
        with self._asking() as connection, _transaction(connection) as generation:
            statement = "UPDATE keys SET revoked_at = coalesce(revoked_at, ?), generation = ? WHERE id = ?"
            return connection.execute(statement, (at, generation, key_id)).rowcount == 1

    async def change(self, key_id: str, metadata: Mapping[str, str], tenant: str | None = None) -> bool:
        with self._asking() as connection, _transaction(connection) as generation:
            row = connection.execute("SELECT metadata FROM keys WHERE id = ?", (key_id,)).fetchone()
            if row is None:
                return False
            merged = {name: value for name, value in (json.loads(row[0]) | dict(metadata)).items() if value}
            statement = "UPDATE keys SET metadata = ?, tenant = coalesce(?, tenant), generation = ? WHERE id = ?"
            connection.execute(statement, (json.dumps(merged), tenant, generation, key_id))
            return True

    async def changes(self, since: int | None) -> Changes:
        self._check_file()
        with self._asking() as connection:
            generation = int(connection.execute("SELECT value FROM generation").fetchone()[0])
            reopened, self._reopened = self._reopened, False
            if since is None or reopened or generation < since:
                return Changes(generation, None)
            rows = (
                connection.execute("SELECT id FROM keys WHERE generation > ?", (since,)) if generation > since else ()
            )
            return Changes(generation, tuple(row[0] for row in rows))

    async def wait(self, timeout_s: float) -> None:
        await asyncio.sleep(min(timeout_s, POLL_S))

    async def close(self) -> None:
        self._let_go()

    @contextlib.contextmanager
    def _asking(self) -> Generator[sqlite3.Connection]:
        try:
            yield self._connection or self._open()
        except (sqlite3.Error, OSError, ValueError) as error:
            self._let_go()
            raise StoreUnavailableError(f"{self._path}: {error}") from error

    def _open(self) -> sqlite3.Connection:
        # Only the first opening makes the file: one that vanished later is an outage, not a store without keys.
        if not self._opened_once:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            os.close(os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, FILE_MODE))
            os.chmod(self._path, FILE_MODE)
        uri = f"{self._path.absolute().as_uri()}?mode=rw"
        connection = sqlite3.connect(uri, uri=True, timeout=self._busy_s, isolation_level=None)
        try:
            connection.execute("PRAGMA synchronous = FULL")
            if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'keys_by_generation'").fetchone() is None:
                # Only then, for it takes the lock for writing.
                connection.execute("PRAGMA journal_mode = WAL")
                connection.executescript(_SCHEMA)
        except sqlite3.Error:
            connection.close()
            raise
        self._inode = os.stat(self._path).st_ino
        self._reopened = True
        self._opened_once = True
        self._connection = connection
        return connection

    def _check_file(self) -> None:
        """Lets go of a file that is no longer the one at the path (deleted, or restored from elsewhere)."""
        try:
            same = os.stat(self._path).st_ino == self._inode
        except OSError:
            same = False
        if not same:
            self._let_go()

    def _let_go(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Generator[int]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        row = connection.execute("UPDATE generation SET value = value + 1 RETURNING value").fetchone()
        yield int(row[0])
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _record(row: Sequence[Any]) -> KeyRecord:
    key_id, sha256, consumer, created_at, scopes, metadata, tenant, expires_at, revoked_at = row
    return KeyRecord(
        id=key_id,
        sha256=sha256,
        consumer=consumer,
        created_at=created_at,
        scopes=tuple(json.loads(scopes)),
        metadata=json.loads(metadata),
        tenant=tenant,
        expires_at=expires_at,
        revoked_at=revoked_at,
    )
