# pyright: standard, reportAttributeAccessIssue=false
"""Reads what a request says in fields that are newer than our protobuf types, and that change what it asks."""

from __future__ import annotations

from typing import TypeVar

from envoy.extensions.common.ratelimit.v3 import ratelimit_pb2
from envoy.service.ratelimit.v3 import rls_pb2
from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet
from google.protobuf.wrappers_pb2 import UInt32Value

_IS_NEGATIVE_HITS, _UNIT_MULTIPLIER = 4, 3
_TRUE = b"\x20\x01"
_NONE: frozenset[int] = frozenset()

T = TypeVar("T")


def gives_back(request: rls_pb2.RateLimitRequest, body: bytes) -> frozenset[int]:
    """Returns the descriptors, by position, whose hits are given back (`is_negative_hits`); `body` is the request."""
    # Cheap to rule out: where the field is, these two bytes are.
    if _TRUE not in body:
        return _NONE
    given = enumerate(request.descriptors)
    return frozenset(position for position, each in given if any(_told(each, _IS_NEGATIVE_HITS, int)[-1:]))


def multiplier_of(limit: ratelimit_pb2.RateLimitDescriptor.RateLimitOverride) -> int:
    """Returns of how many units a limit says that its window is (`unit_multiplier`); raises DecodeError."""
    # What is there several times is one message in parts.
    parts = _told(limit, _UNIT_MULTIPLIER, bytes)
    return UInt32Value.FromString(b"".join(parts)).value or 1 if parts else 1


def _told(message: Message, number: int, kind: type[T]) -> list[T]:
    """Returns what is there, in order, of a field that the type does not have."""
    found = (field.data for field in UnknownFieldSet(message) if field.field_number == number)
    return [data for data in found if isinstance(data, kind)]
