# pyright: standard, reportAttributeAccessIssue=false
"""Protobuf as bytes: deterministic encoding, and messages assembled from parts that were encoded before."""

from __future__ import annotations

from typing import Any

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message


def encode(message: Message) -> bytes:
    """Encodes a message with its maps sorted, so that equal messages have equal bytes."""
    return message.SerializeToString(deterministic=True)


def packed(message: Message) -> AnyMessage:
    """Packs a message into an Any, deterministically."""
    return AnyMessage(type_url=f"type.googleapis.com/{message.DESCRIPTOR.full_name}", value=encode(message))


def embed(number: int, part: bytes) -> bytes:
    """Returns an encoded message as field `number` of the message around it (length-delimited)."""
    return varint(number << 3 | 2) + varint(len(part)) + part


def varint(value: int) -> bytes:
    """Encodes an unsigned integer as protobuf does."""
    if value < 0x4000:  # Nearly all lengths, asked for with every part that is put into another.
        return bytes((value,)) if value < 0x80 else bytes((value & 0x7F | 0x80, value >> 7))
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def duration(seconds: float) -> Duration:
    """Returns a protobuf Duration, to the millisecond."""
    millis = round(seconds * 1000)
    return Duration(seconds=millis // 1000, nanos=millis % 1000 * 1_000_000)


def field_numbers(message: type[Any]) -> dict[str, int]:
    """Returns the numbers of a message type's fields by name."""
    return {field.name: field.number for field in message.DESCRIPTOR.fields}
