"""Who opens a stream, where the address that it came by does not tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from controlplane.xds.credentials import ServerTls
from controlplane.xds.identity import Principal, Refusal

Metadata = Sequence[tuple[str, str | bytes]]


class Authenticator(Protocol):
    """Tells by what a client shows who it is."""

    async def authenticate(self, metadata: Metadata) -> Principal | Refusal:
        """Returns who shows this, or why that is nobody; does not raise, and takes a few seconds at the most."""
        ...


@dataclass(frozen=True, slots=True)
class Authenticated:
    """How an address is served whose clients must say, and prove, who they are; `tls` None is plaintext."""

    authenticator: Authenticator
    tls: ServerTls | None = None


def bearer_token(metadata: Metadata) -> str | Refusal:
    """Returns the token of `authorization: Bearer TOKEN` (RFC 6750 §2.1)."""
    found = [value for name, value in metadata if name.lower() == "authorization"]
    if len(found) != 1:
        return Refusal("a stream must show one token: authorization: Bearer TOKEN")
    text = found[0] if isinstance(found[0], str) else found[0].decode("ascii", "replace")
    scheme, _, token = text.partition(" ")
    token = token.strip(" ")
    if scheme.lower() != "bearer" or not token:
        return Refusal("what authorization shows is not a bearer token")
    return token
