# pyright: standard, reportAttributeAccessIssue=false
"""Reads a RateLimitRequest, also one with texts that are no UTF-8: Envoy passes on what clients send in headers.

If such a request were refused, whoever sends one wrong byte would escape all limits of a route that fails open.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from envoy.service.ratelimit.v3 import rls_pb2
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass


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
