"""Streams of HTTP/2 frames as a client sends them, and what a fuzzer does to them (RFC 9113 §4.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import hypothesis.strategies as st
import ngh2

from tests.unit.dragoman.raw_grpc import PREFACE, message

DATA, HEADERS, RST_STREAM, SETTINGS = 0, 1, 3, 4
END_STREAM, ACK = 1, 1


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame; `claimed` is a length that is not the payload's."""

    kind: int
    flags: int
    stream: int
    payload: bytes
    claimed: int | None = None

    def encode(self) -> bytes:
        length = len(self.payload) if self.claimed is None else self.claimed
        head = length.to_bytes(3, "big") + bytes([self.kind, self.flags])
        return head + self.stream.to_bytes(4, "big") + self.payload


def frames_of(data: bytes) -> list[Frame]:
    """Reads whole frames; what is left of the last one, cut short, is passed over."""
    found: list[Frame] = []
    at = 0
    while at + 9 <= len(data):
        length = int.from_bytes(data[at : at + 3], "big")
        end = at + 9 + length
        if end > len(data):
            break
        stream = int.from_bytes(data[at + 5 : at + 9], "big") & 0x7FFFFFFF
        found.append(Frame(data[at + 3], data[at + 4], stream, data[at + 9 : end]))
        at = end
    return found


def requests(path: str, bodies: Sequence[bytes], *, parts: int = 1, timeout: bytes = b"") -> list[Frame]:
    """Returns the frames of a connection that sends these messages, each cut into so many DATA frames."""
    session = ngh2.Connection(ngh2.Role.CLIENT, ngh2.Configuration(peer_max_concurrent_streams=1 << 20))
    session.initiate_connection({})
    sent = session.data_to_send()
    for body in bodies:
        head = [
            *((b":method", b"POST"), (b":scheme", b"http"), (b":path", path.encode()), (b":authority", b"worker")),
            *((b"content-type", b"application/grpc"), (b"te", b"trailers")),
            *(((b"grpc-timeout", timeout),) if timeout else ()),
        ]
        stream = session.send_request(head, end_stream=False)
        data = message(body)
        size = -(-len(data) // parts)
        for start in range(0, len(data), size):
            session.send_data(stream, data[start : start + size], end_stream=start + size >= len(data))
            sent += session.data_to_send()
    assert sent.startswith(PREFACE)
    return frames_of(sent.removeprefix(PREFACE))


_INDEX = st.integers(0, 1 << 16)
_ODD_LENGTHS = st.sampled_from([0, 1, 8, 16_384, 16_385, 1 << 20, (1 << 24) - 1])


@st.composite
def mutated(draw: st.DrawFn, frames: Sequence[Frame]) -> bytes:
    """Draws the bytes of a connection: those frames, less, more, in another order, and broken here and there."""
    stream = list(frames)
    for _ in range(draw(st.integers(0, 5))):
        _change(draw, stream)
    data = bytearray(draw(st.sampled_from([PREFACE, PREFACE, PREFACE, b"", PREFACE[:10]])))
    data += b"".join(frame.encode() for frame in stream)
    for _ in range(draw(st.integers(0, 3))):
        at = draw(_INDEX) % (len(data) + 1)
        match draw(st.integers(0, 3)):
            case 0 if at < len(data):
                data[at] ^= 1 << draw(st.integers(0, 7))
            case 1:
                data[at:at] = draw(st.binary(max_size=40))
            case 2:
                del data[at : at + draw(st.integers(1, 40))]
            case _:
                del data[at:]
    return bytes(data)


def _change(draw: st.DrawFn, stream: list[Frame]) -> None:
    at = draw(_INDEX) % (len(stream) + 1)
    if at == len(stream):
        kind, flags = draw(st.integers(0, 12)), draw(st.integers(0, 255))
        number, payload = draw(st.sampled_from([0, 1, 2, 3, 5, 7, 99, 0x7FFFFFFF])), draw(st.binary(max_size=64))
        stream.insert(draw(_INDEX) % (len(stream) + 1), Frame(kind, flags, number, payload))
        return
    frame = stream[at]
    match draw(st.integers(0, 6)):
        case 0:
            del stream[at]
        case 1:
            stream.insert(at, frame)
        case 2:
            other = draw(_INDEX) % len(stream)
            stream[at], stream[other] = stream[other], frame
        case 3:
            stream[at] = replace(frame, flags=frame.flags ^ 1 << draw(st.integers(0, 7)))
        case 4:
            stream[at] = replace(frame, stream=draw(st.sampled_from([0, 1, 2, 3, 5, 1 << 30])))
        case 5:
            stream[at] = replace(frame, claimed=draw(_ODD_LENGTHS))
        case _:
            stream[at] = replace(frame, kind=draw(st.integers(0, 12)))
