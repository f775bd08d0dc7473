# pyright: standard, reportAttributeAccessIssue=false
"""Reads requests that differ from an earlier one in values alone, without parsing them.

The form of a request is its encoding but for the values of its entries: every other byte, and where the values stand.
It is learnt only of a request that is encoded as protobuf encodes it, which the lengths of the values determine. So a
request with the same bytes around values of the same lengths is what the form says, with these values.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from envoy.extensions.common.ratelimit.v3 import ratelimit_pb2
from envoy.service.ratelimit.v3 import rls_pb2

from ratelimit_service.memo import Memo
from ratelimit_service.reading import DONE_KEY, REQUEST_KEY, Asked, caller_of, hits_of
from ratelimit_service.wire import field, varint

_MAX_BYTES = 1024
_MAX_PARTS = 16
"""Descriptors and entries: of each a form holds some 200 bytes, which an entry without key and value has not itself."""
_MAX_ALIKE = 4
"""Forms of requests that are as long and of one domain."""

Span = tuple[int, int]


class _Described(NamedTuple):
    """A descriptor of a form."""

    entries: tuple[tuple[str, int, int], ...]
    """Keys, and where the values stand."""
    hits: int
    caller: Span | None
    ends: bool


class _Form(NamedTuple):
    pieces: tuple[tuple[int, int, bytes], ...]
    """All that is not a value: from, to, and what stands there."""
    domain: str
    descriptors: tuple[_Described, ...]


class Forms:
    """The forms of requests that came lately. One of so many requests (`every`) that were parsed has its form learnt:
    what comes often is known soon, and a flood of ever new forms costs next to nothing.
    """

    def __init__(self, *, size: int = 1024, every: int = 16) -> None:
        # By the length, and the domain as it is encoded at the beginning.
        self._forms: Memo[tuple[int, bytes], tuple[_Form, ...]] = Memo(size)
        self._every = every
        self._parsed = 0

    def read(self, body: bytes) -> tuple[str, list[Asked]] | None:
        """Returns the domain and the descriptors of a request; None where it has to be parsed."""
        forms = self._forms.get((len(body), body[: body[1] + 2])) if len(body) > 1 else None
        for form in forms or ():
            for start, end, piece in form.pieces:
                if body[start:end] != piece:
                    break
            else:
                return _filled(form, body)
        return None

    def learn(self, request: rls_pb2.RateLimitRequest, body: bytes) -> None:
        """Takes note of a request that was parsed; `body` is the request, encoded."""
        self._parsed += 1
        if self._parsed % self._every or len(body) > _MAX_BYTES:
            return
        descriptors = request.descriptors
        if len(descriptors) + sum(len(descriptor.entries) for descriptor in descriptors) > _MAX_PARTS:
            return
        form = _form_of(request, body)
        if form is not None:
            key = len(body), body[: body[1] + 2]
            self._forms.put(key, (form, *(self._forms.get(key) or ()))[:_MAX_ALIKE])

    def __len__(self) -> int:
        return sum(map(len, self._forms.values()))


def _filled(form: _Form, body: bytes) -> tuple[str, list[Asked]] | None:
    """Returns what a request of the form says; None for one with bytes that are no UTF-8."""
    found: list[Asked] = []
    try:
        for entries, hits, caller, ends in form.descriptors:
            texts = [(key, body[start:end].decode()) for key, start, end in entries]
            if caller is None:
                found.append(Asked(texts, hits, None, b"", ends))
            else:
                found.append(Asked(texts, hits, None, caller_of(body[slice(*caller)].decode()), ends))
    except UnicodeDecodeError:
        return None
    return form.domain, found


def _form_of(request: rls_pb2.RateLimitRequest, body: bytes) -> _Form | None:
    """Returns the form of a request; None for one that is encoded otherwise, or says more than forms do."""
    encoded = bytearray(field(1, request.domain.encode()))
    descriptors: list[_Described] = []
    spans: list[Span] = []
    for descriptor in request.descriptors:
        content, within = _encoded(descriptor)
        encoded += field(2, content)
        offset = len(encoded) - len(content)
        moved = [(start + offset, end + offset) for start, end in within]
        descriptors.append(_described(descriptor, hits_of(descriptor, request.hits_addend or 1), moved))
        spans += moved
    if request.hits_addend:
        encoded += b"\x18" + varint(request.hits_addend)
    if encoded != body:
        return None
    return _Form(tuple(_pieces(body, spans)), request.domain, tuple(descriptors))


def _encoded(descriptor: ratelimit_pb2.RateLimitDescriptor) -> tuple[bytes, list[Span]]:
    """Encodes a descriptor that brings no limit; returns also where in that its values stand."""
    encoded = bytearray()
    spans: list[Span] = []
    for entry in descriptor.entries:
        key, value = entry.key.encode(), entry.value.encode()
        encoded += field(1, (field(1, key) if key else b"") + (field(2, value) if value else b""))
        spans.append((len(encoded) - len(value), len(encoded)))
    if descriptor.HasField("hits_addend"):
        hits = descriptor.hits_addend.value
        encoded += field(3, b"\x08" + varint(hits) if hits else b"")
    return bytes(encoded), spans


def _described(descriptor: ratelimit_pb2.RateLimitDescriptor, hits: int, spans: Sequence[Span]) -> _Described:
    keys = [entry.key for entry in descriptor.entries]
    matched = [(key, *span) for key, span in zip(keys, spans, strict=True) if key not in (REQUEST_KEY, DONE_KEY)]
    caller = spans[keys.index(REQUEST_KEY)] if REQUEST_KEY in keys else None
    return _Described(tuple(matched), hits, caller, DONE_KEY in keys)


def _pieces(body: bytes, spans: Sequence[Span]) -> Iterator[tuple[int, int, bytes]]:
    at = 0
    for start, end in (*spans, (len(body), len(body))):
        if at < start:
            yield at, start, body[at:start]
        at = end
