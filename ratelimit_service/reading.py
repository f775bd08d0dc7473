# pyright: standard, reportAttributeAccessIssue=false
"""Reads a RateLimitRequest, also one with texts that are no UTF-8: Envoy passes on what clients send in headers.

If such a request were refused, whoever sends one wrong byte would escape all limits of a route that fails open.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

from envoy.extensions.common.ratelimit.v3 import ratelimit_pb2
from envoy.service.ratelimit.v3 import rls_pb2
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

REQUEST_KEY, DONE_KEY = "dragoman.request", "dragoman.done"
"""Entries that are not matched. The first one's value tells the request from others; the second says that it ended."""
MAX_HITS = 2**32
"""More than any limit: what is above counts as this much, so that counters cannot overflow."""
_RESERVED = b"dragoman."
_MAX_CALLER_BYTES = 64

Entries = Sequence[tuple[str, str]]
"""Keys and values."""


class Asked(NamedTuple):
    """A descriptor of a request. What a message holds is read once: each look into it costs as much as a lookup."""

    entries: Entries
    """Those that are matched."""
    hits: int
    limit: ratelimit_pb2.RateLimitDescriptor.RateLimitOverride | None
    """The limit that it brings."""
    caller: bytes = b""
    """What tells the request from others, if it says so."""
    ends: bool = False
    """Whether it says that the request has ended."""


def asked(descriptors: Sequence[ratelimit_pb2.RateLimitDescriptor], hits: int, body: bytes) -> list[Asked]:
    """Returns what descriptors ask for: so many hits, unless they say otherwise. `body` is the request, encoded."""
    # Cheap to rule out: where a reserved entry is, so is what both begin with.
    reserved = _RESERVED in body
    found: list[Asked] = []
    for descriptor in descriptors:
        entries = [(entry.key, entry.value) for entry in descriptor.entries]
        limit = descriptor.limit if descriptor.HasField("limit") else None
        caller, ends = _taken_out(entries) if reserved else (b"", False)
        found.append(Asked(entries, hits_of(descriptor, hits), limit, caller, ends))
    return found


def hits_of(descriptor: ratelimit_pb2.RateLimitDescriptor, hits: int) -> int:
    """Returns how many hits a descriptor asks for, which are those of the request unless it says otherwise."""
    return min(descriptor.hits_addend.value, MAX_HITS) if descriptor.HasField("hits_addend") else hits


def caller_of(value: str) -> bytes:
    """Returns what tells a request from others that names itself so."""
    caller = value.encode()
    return caller if len(caller) <= _MAX_CALLER_BYTES else hashlib.sha256(caller).digest()


def _taken_out(entries: list[tuple[str, str]]) -> tuple[bytes, bool]:
    """Takes the reserved entries out; returns what tells the request from others, and whether it has ended."""
    caller = next((caller_of(value) for key, value in entries if key == REQUEST_KEY), b"")
    ends = any(key == DONE_KEY for key, _ in entries)
    entries[:] = [entry for entry in entries if entry[0] not in (REQUEST_KEY, DONE_KEY)]
    return caller, ends


def read(body: bytes) -> rls_pb2.RateLimitRequest:
    """Returns the request, with `\\xNN` for each byte that is no UTF-8; raises DecodeError for what is no request."""
    try:
        return rls_pb2.RateLimitRequest.FromString(body)
    except DecodeError:
        request = _bytes_class().FromString(body)
    request.domain = _text(request.domain)
    for descriptor in request.descriptors:
        for entry in descriptor.entries:
            entry.key, entry.value = _text(entry.key), _text(entry.value)
    return rls_pb2.RateLimitRequest.FromString(request.SerializeToString())


def _text(value: bytes) -> bytes:
    return value.decode("utf-8", "backslashreplace").encode()


@cache
def _bytes_class() -> Any:
    """Returns the class of a request with bytes for texts; all else is unknown to it, and so kept as it is."""
    file = FileDescriptorProto(name="dragoman/rls_bytes.proto", package="dragoman", syntax="proto3")
    for name, texts, children in (
        ("Entry", ("key", "value"), ()),
        ("Descriptor", (), (("entries", 1, "Entry"),)),
        ("Request", ("domain",), (("descriptors", 2, "Descriptor"),)),
    ):
        made = file.message_type.add(name=name)
        for number, text in enumerate(texts, 1):
            made.field.add(
                name=text,
                number=number,
                type=FieldDescriptorProto.TYPE_BYTES,
                label=FieldDescriptorProto.LABEL_OPTIONAL,
            )
        for child, number, kind in children:
            made.field.add(
                name=child,
                number=number,
                type=FieldDescriptorProto.TYPE_MESSAGE,
                type_name=f".dragoman.{kind}",
                label=FieldDescriptorProto.LABEL_REPEATED,
            )
    pool = DescriptorPool()
    pool.Add(file)
    return GetMessageClass(pool.FindMessageTypeByName("dragoman.Request"))
