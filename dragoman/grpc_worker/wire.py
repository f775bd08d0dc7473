"""The parts of gRPC over HTTP/2 that have nothing to do with an engine: frames, timeouts, messages, headers.

https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
"""

import functools
import struct

from dragoman.grpc_worker.api import StatusCode

Headers = tuple[tuple[bytes, bytes], ...]

_prefix = struct.Struct(">BI")
PREFIX_BYTES = _prefix.size
MAX_MESSAGE_CHARS = 1024

RESPONSE_HEADERS: Headers = ((b":status", b"200"), (b"content-type", b"application/grpc"))
OK_TRAILERS: Headers = ((b"grpc-status", b"0"),)

_TIMEOUT_UNITS_S = {0x48: 3600.0, 0x4D: 60.0, 0x53: 1.0, 0x6D: 1e-3, 0x75: 1e-6, 0x6E: 1e-9}  # H M S m u n


def parse_timeout(value: bytes) -> float | None:
    """Seconds of a `grpc-timeout` header (at most eight digits and a unit); None when it is malformed."""
    unit_s = _TIMEOUT_UNITS_S.get(value[-1]) if value else None
    digits = value[:-1]
    if unit_s is None or not digits.isdigit() or len(digits) > 8:
        return None
    return int(digits) * unit_s


def percent_encode(message: str) -> bytes:
    """A `grpc-message` value: printable ASCII but '%' stands for itself, every other byte of the UTF-8 is %XX."""
    data = message[:MAX_MESSAGE_CHARS].encode("utf-8", "replace")
    return b"".join(b"%c" % byte if 0x20 <= byte <= 0x7E and byte != 0x25 else b"%%%02X" % byte for byte in data)


@functools.lru_cache(maxsize=128)
def error_trailers(code: StatusCode, message: str) -> Headers:
    """The one HEADERS frame of a reply that is an error and nothing else ("Trailers-Only")."""
    status = (b"grpc-status", b"%d" % code)
    text = ((b"grpc-message", percent_encode(message)),) if message else ()
    return (*RESPONSE_HEADERS, status, *text)


def http_refusal(status: bytes, code: StatusCode, message: str) -> Headers:
    """A reply to what is not a gRPC request at all; gRPC headers are added for clients that look only at those."""
    return ((b":status", status), *error_trailers(code, message)[1:])


def fault_of_message(message: bytes | bytearray, at_end: bool, max_bytes: int) -> tuple[StatusCode, str] | None:
    """Why what has arrived of a request cannot become one plain message; None while it can, or is one."""
    if len(message) < PREFIX_BYTES:
        return (StatusCode.INTERNAL, "the request has no whole message") if at_end else None
    flags, length = _prefix.unpack_from(message)
    if flags == 1:
        return StatusCode.UNIMPLEMENTED, "compressed messages are not supported"
    if flags != 0:
        return StatusCode.INTERNAL, "the message has unknown flags"
    if length > max_bytes:
        return StatusCode.RESOURCE_EXHAUSTED, f"the message has {length} bytes, {max_bytes} are allowed"
    surplus = len(message) - PREFIX_BYTES - length
    if surplus > 0:
        return StatusCode.INTERNAL, "the request has more than one message"
    return (StatusCode.INTERNAL, "the request has no whole message") if at_end and surplus else None


def is_grpc_content_type(value: bytes) -> bool:
    """`application/grpc` alone, or followed by `+SUBTYPE` or `;PARAMETERS`."""
    return value.startswith(b"application/grpc") and value[16:17] in (b"", b"+", b";")


NOT_GRPC = http_refusal(b"415", StatusCode.INTERNAL, "the content-type is not application/grpc")
NOT_POST = http_refusal(b"405", StatusCode.INTERNAL, "the method is not POST")
UNKNOWN_METHOD = error_trailers(StatusCode.UNIMPLEMENTED, "unknown method")
