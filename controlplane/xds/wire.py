"""Protobuf framing by hand: what surrounds a resource's bytes, so that they are joined and never serialised again."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

# Field numbers of envoy.service.discovery.v3, as tags of length-delimited fields (number << 3 | 2).
_ANY_TYPE_URL: Final = b"\x0a"
_ANY_VALUE: Final = b"\x12"
_RESOURCE_VERSION: Final = b"\x0a"
_RESOURCE_ANY: Final = b"\x12"
_RESOURCE_NAME: Final = b"\x1a"
_RESPONSE_VERSION: Final = b"\x0a"
_RESPONSE_RESOURCE: Final = b"\x12"
_RESPONSE_TYPE_URL: Final = b"\x22"
_RESPONSE_NONCE: Final = b"\x2a"
_DELTA_REMOVED: Final = b"\x32"


def delta_head(type_url: str, name: str, version: str, body_length: int) -> bytes:
    """Returns what precedes the body in a `DeltaDiscoveryResponse.resources` entry; the body ends the entry."""
    any_head = _any_head(type_url, body_length)
    resource_head = b"".join(
        (
            _text(_RESOURCE_NAME, name),
            _text(_RESOURCE_VERSION, version),
            _RESOURCE_ANY,
            _varint(len(any_head) + body_length),
            any_head,
        )
    )
    return _RESPONSE_RESOURCE + _varint(len(resource_head) + body_length) + resource_head


def sotw_head(type_url: str, body_length: int) -> bytes:
    """Returns what precedes the body in a `DiscoveryResponse.resources` entry; the body ends the entry."""
    any_head = _any_head(type_url, body_length)
    return _RESPONSE_RESOURCE + _varint(len(any_head) + body_length) + any_head


def delta_tail(type_url: str, nonce: str, removed: Iterable[str]) -> bytes:
    """Returns what follows the entries (heads and bodies in turn) of a serialised DeltaDiscoveryResponse."""
    gone = (_text(_DELTA_REMOVED, name) for name in removed)
    return b"".join((_text(_RESPONSE_TYPE_URL, type_url), _text(_RESPONSE_NONCE, nonce), *gone))


def sotw_tail(type_url: str, nonce: str, version: str) -> bytes:
    """Returns what follows the entries (heads and bodies in turn) of a serialised DiscoveryResponse."""
    return _text(_RESPONSE_VERSION, version) + _text(_RESPONSE_TYPE_URL, type_url) + _text(_RESPONSE_NONCE, nonce)


def _any_head(type_url: str, body_length: int) -> bytes:
    return _text(_ANY_TYPE_URL, type_url) + _ANY_VALUE + _varint(body_length)


def _text(tag: bytes, text: str) -> bytes:
    encoded = text.encode()
    return tag + _varint(len(encoded)) + encoded


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
