# pyright: standard, reportAttributeAccessIssue=false
"""The dynamic metadata of an answer, in the fields that envoyproxy/ratelimit gives it (RESPONSE_DYNAMIC_METADATA)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from envoy.extensions.common.ratelimit.v3 import ratelimit_pb2
from envoy.service.ratelimit.v3 import rls_pb2
from google.protobuf import struct_pb2
from google.protobuf.descriptor import FieldDescriptor

from ratelimit_service.reading import DONE_KEY, REQUEST_KEY


def metadata_of(request: rls_pb2.RateLimitRequest, *, quota_mode: bool) -> bytes:
    """Returns the encoded Struct of a request; `quota_mode` says whether a limit that applies has it."""
    struct = struct_pb2.Struct()
    fields = struct.fields
    fields["domain"].string_value = request.domain
    descriptors = fields["descriptors"].list_value
    descriptors.SetInParent()
    for descriptor in request.descriptors:
        _describe(descriptor, descriptors.values.add().struct_value)
    if request.hits_addend:
        fields["hitsAddend"].number_value = request.hits_addend
    fields["quotaModeEnabled"].bool_value = quota_mode
    return struct.SerializeToString(deterministic=True)


@lru_cache(maxsize=1024)
def violations(positions: Sequence[int]) -> bytes:
    """Returns what the Struct has more of when these descriptors, by position, are over a limit in quota mode."""
    struct = struct_pb2.Struct()
    found = struct.fields["quotaModeViolations"].list_value
    for position in positions:
        found.values.add().number_value = position
    return struct.SerializeToString()


def _describe(descriptor: ratelimit_pb2.RateLimitDescriptor, struct: struct_pb2.Struct) -> None:
    entries = struct.fields["entries"].list_value
    entries.SetInParent()
    for entry in descriptor.entries:
        if entry.key not in (REQUEST_KEY, DONE_KEY):
            entries.values.add().string_value = f"{entry.key}={entry.value}"
    if descriptor.HasField("limit"):
        # As Go's protobuf shows a message, but for its spaces, which it varies.
        shown = (f"{field.name}:{_shown(field, value)}" for field, value in descriptor.limit.ListFields())
        struct.fields["limit"].string_value = " ".join(shown)
    if descriptor.HasField("hits_addend"):
        struct.fields["hitsAddend"].number_value = descriptor.hits_addend.value


def _shown(field: FieldDescriptor, value: int) -> str:
    known = field.enum_type.values_by_number.get(value) if field.enum_type is not None else None
    return known.name if known is not None else str(value)
