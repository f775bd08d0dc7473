"""Encodes RateLimitResponse from parts that are prepared once, since every request pays for it.

The numbers are the field numbers of envoy/service/ratelimit/v3/rls.proto.
"""

from __future__ import annotations

import json
from functools import lru_cache

from ratelimit_service.model import MAX_LIMIT, Algorithm, Rule

OVERALL_OK = b"\x08\x01"
OVERALL_OVER = b"\x08\x02"
_STATUSES, _HEADERS, _RAW_BODY, _METADATA, _QUOTA = 2, 3, 5, 6, 7
_CODE_OK, _CODE_OVER = b"\x08\x01", b"\x08\x02"


def varint(value: int) -> bytes:
    """Encodes a non-negative integer."""
    if value < 0x80:
        return b"%c" % value
    if value < 0x4000:
        return b"%c%c" % (value & 0x7F | 0x80, value >> 7)
    if value < 0x200000:
        return b"%c%c%c" % (value & 0x7F | 0x80, value >> 7 & 0x7F | 0x80, value >> 14)
    if value < 0x10000000:
        return b"%c%c%c%c" % (value & 0x7F | 0x80, value >> 7 & 0x7F | 0x80, value >> 14 & 0x7F | 0x80, value >> 21)
    if value <= MAX_LIMIT:
        low, high = value & 0x3FFF, value >> 14
        return b"%c%c%c%c%c" % (
            low & 0x7F | 0x80,
            low >> 7 | 0x80,
            high & 0x7F | 0x80,
            high >> 7 & 0x7F | 0x80,
            high >> 14,
        )
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def field(number: int, content: bytes) -> bytes:
    """Encodes a field of length-delimited type."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def header(name: bytes, value: bytes) -> bytes:
    """Encodes an entry of response_headers_to_add."""
    return field(_HEADERS, field(1, name) + field(2, value))


def raw_body(content: bytes) -> bytes:
    """Encodes the body that Envoy sends with its refusal."""
    return field(_RAW_BODY, content)


def metadata(struct: bytes) -> bytes:
    """Encodes the dynamic metadata."""
    return field(_METADATA, struct)


def quota(requests: int, valid_until: int) -> bytes:
    """Encodes the quota of the descriptor set: so many requests, until a Unix time in seconds."""
    return field(_QUOTA, b"\x08" + varint(requests) + field(2, b"\x08" + varint(valid_until)))


STATUS_OK = field(_STATUSES, _CODE_OK)
"""The status of a descriptor that no limit applies to."""
STATUS_UNLIMITED = field(_STATUSES, _CODE_OK + b"\x18" + varint(MAX_LIMIT))
"""The status of a descriptor whose limit is `unlimited`."""
STATUS_OVER = field(_STATUSES, _CODE_OVER)
JSON_CONTENT = header(b"content-type", b"application/json")


@lru_cache(maxsize=8192)
def _until_reset(seconds: int) -> bytes:
    return field(4, b"\x08" + varint(seconds))


@lru_cache(maxsize=8192)
def retry_header(seconds: int) -> bytes:
    """The header retry-after, encoded; a client is never told to come back at once."""
    return header(b"retry-after", b"%d" % max(1, seconds))


@lru_cache(maxsize=256)
def unavailable(retry_after_s: int) -> bytes:
    """What goes with a refusal because the store cannot be asked: headers and body, encoded."""
    body = {
        "error": "rate_limit_unavailable",
        "message": "The rate limit cannot be checked right now.",
        "retry_after": retry_after_s,
    }
    return retry_header(retry_after_s) + JSON_CONTENT + raw_body(json.dumps(body, separators=(",", ":")).encode())


def too_large() -> bytes:
    """What goes with the refusal of a request that is too large to be looked at: header and body, encoded."""
    body = {"error": "rate_limited", "message": "The request is too large for its rate limits to be checked."}
    return JSON_CONTENT + raw_body(json.dumps(body, separators=(",", ":")).encode())


class RuleParts:
    """The parts of a response that one rule determines."""

    __slots__ = ("_body", "_ok", "_ok_size", "_over", "known_refusal", "known_verdict")

    def __init__(self, rule: Rule) -> None:
        per = "at a time" if rule.algorithm is Algorithm.CONCURRENCY else f"per {rule.per}"
        limit = b"\x08" + varint(rule.requests_per_unit) + b"\x10" + varint(rule.unit.wire)
        if rule.name:
            limit += field(3, rule.name.encode())
        if rule.unit_multiplier > 1:
            limit += field(4, b"\x08" + varint(rule.unit_multiplier))
        current_limit = field(2, limit)
        self._ok = _CODE_OK + current_limit
        self._ok_size = len(self._ok) + 1
        self._over = _CODE_OVER + current_limit
        message = f"Too many requests: the limit is {rule.requests_per_unit} {per}."
        error = {"error": "rate_limited", "message": message, "retry_after": 0}
        self._body = json.dumps(error, separators=(",", ":")).encode().removesuffix(b"0}")
        self.known_verdict: tuple[bool, int, int] | None = None
        """The last refusal, and its encoding: a flood meets the same one until the second is over."""
        self.known_refusal = b""

    def allowed(self, remaining: int, reset_s: int, header: bytes, numbers: bytes) -> bytes:
        """The whole RateLimitResponse to a request with one descriptor, which is allowed."""
        left, reset = varint(remaining), _until_reset(reset_s)
        size = self._ok_size + len(left) + len(reset)
        if size < 0x80:
            return b"\x08\x01\x12%c%b\x18%b%b%b%b" % (size, self._ok, left, reset, header, numbers)
        return OVERALL_OK + self.status(False, remaining, reset_s) + header + numbers

    def status(self, over: bool, remaining: int, reset_s: int) -> bytes:
        """The DescriptorStatus, encoded as an entry of `statuses`."""
        left, reset = varint(remaining), _until_reset(reset_s)
        size = self._ok_size + len(left) + len(reset)
        length = b"%c" % size if size < 0x80 else varint(size)
        return b"\x12%b%b\x18%b%b" % (length, self._over if over else self._ok, left, reset)

    def refusal(self, retry_after_s: int) -> bytes:
        """What goes with a refusal: retry-after, content type and JSON body, encoded."""
        body = b"%b%d}" % (self._body, max(1, retry_after_s))
        return retry_header(retry_after_s) + JSON_CONTENT + raw_body(body)
