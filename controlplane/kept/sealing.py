"""Encryption of what is kept, with a key of the operator's: AES-256-GCM."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from pathlib import Path
from typing import Final

KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_MAX_FILE_BYTES: Final = 4096


class KeyFileError(ValueError):
    """A key file that cannot be used; the message holds nothing of the key."""


class Sealer:
    """Seals and opens with one key. `identity` tells keys apart and says nothing of them."""

    def __init__(self, key: bytes) -> None:
        # Only here: who keeps nothing sealed need not wait for the library.
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        self._cipher = AESGCM(key)
        self._address_key = hashlib.blake2b(b"address", key=key).digest()
        self.identity = hashlib.blake2b(b"identity", key=key, digest_size=16).hexdigest()

    def address(self, content: bytes) -> bytes:
        """Returns the address of a content: without the key nobody can check a guess against it."""
        return hashlib.blake2b(content, key=self._address_key, digest_size=16).digest()

    def seal(self, address: bytes, content: bytes) -> bytes:
        """Returns a content as it is kept at its address."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, content, address)

    def open(self, address: bytes, sealed: bytes) -> bytes:
        """Returns the content; raises ValueError where it is not what was sealed for this address."""
        from cryptography.exceptions import InvalidTag

        try:
            return self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], address)
        except InvalidTag:
            raise ValueError("it is not what was written") from None


class Plain:
    """Keeps contents as they are, found under the hash of each."""

    identity: Final = ""

    def address(self, content: bytes) -> bytes:
        """Returns the hash of a content."""
        return hashlib.blake2b(content, digest_size=16).digest()

    def seal(self, address: bytes, content: bytes) -> bytes:
        """Returns the content."""
        return content

    def open(self, address: bytes, sealed: bytes) -> bytes:
        """Returns the content; raises ValueError where it is not that of the address."""
        if self.address(sealed) != address:
            raise ValueError("it is not what was written")
        return sealed


def read_key(path: Path) -> bytes:
    """Reads a key of 32 bytes, as they are or in Base64 or hexadecimal digits; raises KeyFileError."""
    try:
        with path.open("rb") as file:
            found = file.read(_MAX_FILE_BYTES)
    except OSError as error:
        raise KeyFileError(f"{path}: {error.strerror}") from None
    if len(found) == KEY_BYTES:
        return found
    text = found.strip()
    for decode in (binascii.unhexlify, _base64):
        try:
            key = decode(text)
        except ValueError:
            continue
        if len(key) == KEY_BYTES:
            return key
    raise KeyFileError(f"{path}: a key is {KEY_BYTES} bytes, as they are or in Base64 or hexadecimal digits")


def _base64(text: bytes) -> bytes:
    return base64.b64decode(text, validate=True)
