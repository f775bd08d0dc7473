"""What a store of API keys holds and offers; the key itself is in none of it, only its SHA-256."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """An API key as it is stored. Times are in seconds since the epoch."""

    id: str
    """The lookup prefix: the part of the key that is no secret, `dgm_ID_secret`."""
    sha256: bytes
    consumer: str
    created_at: float
    scopes: tuple[str, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])
    tenant: str = ""
    expires_at: float | None = None
    revoked_at: float | None = None


@dataclass(frozen=True, slots=True)
class Changes:
    """Which keys were made or revoked since a generation; None: any may have been (the store is another one)."""

    generation: int
    key_ids: tuple[str, ...] | None


class StoreUnavailableError(Exception):
    """The store cannot be asked now; the message says why, without credentials."""


class KeyStore(Protocol):
    """Where API keys live. Every method raises StoreUnavailableError when the store is out of reach."""

    async def find(self, key_id: str) -> KeyRecord | None:
        """Returns the key of that id, revoked or not."""
        ...

    async def add(self, record: KeyRecord) -> None:
        """Keeps a new key; raises KeyError when the id is taken."""
        ...

    async def list(self) -> Sequence[KeyRecord]:
        """Returns all keys, oldest first."""
        ...

    async def revoke(self, key_id: str, at: float) -> bool:
        """Revokes a key; False when there is none of that id. A key that was revoked before keeps its time."""
        ...

    async def change(self, key_id: str, metadata: Mapping[str, str], tenant: str | None = None) -> bool:
        """Sets metadata of a key (an empty value takes one away) and, if given, its tenant; False when there is no
        key of that id."""
        ...

    async def changes(self, since: int | None) -> Changes:
        """Returns the generation of the store and which keys changed after `since` (None: just the generation)."""
        ...

    async def wait(self, timeout_s: float) -> None:
        """Returns when something may have changed, at the latest after the timeout."""
        ...

    async def close(self) -> None:
        """Lets go of connections."""
        ...
