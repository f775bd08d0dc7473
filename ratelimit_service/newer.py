# pyright: standard, reportAttributeAccessIssue=false
"""Finds in a request what it says in fields that are newer than our protobuf types, and that change what it asks."""

from __future__ import annotations

from envoy.extensions.common.ratelimit.v3 import ratelimit_pb2
from envoy.service.ratelimit.v3 import rls_pb2
from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

_IS_NEGATIVE_HITS, _UNIT_MULTIPLIER = 4, 3
_TRUE = b"\x20\x01"
_ONE = b"\x08\x01"


def has_negative_hits(request: rls_pb2.RateLimitRequest, body: bytes) -> bool:
    """Tells whether hits of a descriptor are to be given back (`is_negative_hits`); `body` is the request, encoded."""
    # Cheap to rule out: where the field is, these two bytes are.
    return _TRUE in body and any(_told(each, _IS_NEGATIVE_HITS) for each in request.descriptors)


def has_multiplier(limit: ratelimit_pb2.RateLimitDescriptor.RateLimitOverride) -> bool:
    """Tells whether a limit is per so many units (`unit_multiplier`), other than one."""
    return any(value != _ONE for value in _told(limit, _UNIT_MULTIPLIER))


def _told(message: Message, number: int) -> list[object]:
    """Returns what is there of a field that the type does not have; zeros and false are nothing."""
    found = [field.data for field in UnknownFieldSet(message) if field.field_number == number]
    return [value for value in found if value]
