# pyright: standard, reportAttributeAccessIssue=false
"""Requests that are read by their form, against the plain way to read them: no two are taken for one another."""

from __future__ import annotations

import itertools
import tracemalloc

import hypothesis.strategies as st
import pytest
from envoy.service.ratelimit.v3 import rls_pb2
from google.protobuf.message import DecodeError
from hypothesis import example, given, settings

from ratelimit_service.forms import Forms
from ratelimit_service.reading import Asked, asked, read
from tests.support.ratelimit import request

seeded = settings(deadline=None, derandomize=True, database=None)
NAMED = [("k", "value"), ("dragoman.request", "0000"), ("dragoman.done", "yes")]
KEYS = st.sampled_from(["k", "key", "", "dragoman.request", "dragoman.done", "dragoman.other", "ü"])
VALUES = st.one_of(st.sampled_from(["", "v", "192.0.2.1", "x" * 70, "x" * 130, "ü"]), st.text(max_size=6))
HITS = st.sampled_from([None, 0, 1, 300, 2**40, 2**64 - 1])


def plainly(body: bytes) -> tuple[str, list[Asked]] | None:
    try:
        message = read(body)
    except DecodeError:
        return None
    return message.domain, asked(message.descriptors, message.hits_addend or 1, body)


def learnt(*bodies: bytes) -> Forms:
    forms = Forms(every=1)
    for body in bodies:
        forms.learn(read(body), body)
    return forms


def span(body: bytes, value: bytes) -> range:
    at = body.index(value)
    return range(at, at + len(value))


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    made = rls_pb2.RateLimitRequest(domain=draw(st.sampled_from(["d", "d", "demo/route", "", "d" * 130])))
    made.hits_addend = draw(st.sampled_from([0, 0, 1, 2**32 - 1]))
    for entries in draw(st.lists(st.lists(st.tuples(KEYS, VALUES), max_size=3), max_size=3)):
        descriptor = made.descriptors.add()
        for key, value in entries:
            descriptor.entries.add(key=key, value=value)
        own = draw(HITS)
        if own is not None:
            descriptor.hits_addend.value = own
        if draw(st.integers(0, 9)) == 0:
            descriptor.limit.requests_per_unit = draw(st.integers(0, 3))
    return made.SerializeToString()


@st.composite
def revalued(draw: st.DrawFn, body: bytes) -> bytes:
    """The same request with other values; some are as long, and some are no UTF-8."""
    made = rls_pb2.RateLimitRequest.FromString(body)
    for descriptor in made.descriptors:
        for entry in descriptor.entries:
            size = len(entry.value.encode())
            entry.value = draw(st.one_of(VALUES, st.just("a" * size), st.just(entry.value[::-1])))
    return made.SerializeToString().replace(b"aa", draw(st.sampled_from([b"aa", b"zz", b"\xff\xfe", b"\xc3\xbc"])))


@st.composite
def disturbed(draw: st.DrawFn, body: bytes) -> bytes:
    """Almost the same bytes, in other words: what is read by a form that it does not have would be misread."""
    data = bytearray(body)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(data)))
        match draw(st.integers(0, 3)):
            case 0 if at < len(data):
                data[at] = draw(st.one_of(st.integers(0, 255), st.sampled_from(body or b"\0")))
            case 1 if at + 1 < len(data):
                data[at], data[at + 1] = data[at + 1], data[at]
            case 2:
                part = draw(st.binary(max_size=3))
                data[at : at + len(part)] = part
            case _:
                data[at : at + 1] = b""
                data.insert(draw(st.integers(0, len(data))), draw(st.integers(0, 255)))
    return bytes(data)


@settings(seeded, max_examples=1500)
@given(st.data())
def test_what_a_form_says_of_a_request_is_what_the_request_says(data: st.DataObject) -> None:
    known = data.draw(st.lists(messages(), min_size=1, max_size=3))
    forms = learnt(*known)
    for body in known:
        for other in (body, data.draw(revalued(body)), data.draw(disturbed(body))):
            said = forms.read(other)
            assert said is None or said == plainly(other)


def test_only_bytes_of_values_can_be_others_and_only_such_that_are_text() -> None:
    body = request("d", NAMED, [("other", "1")], [("last", "")], hits=3, own_hits=[None, 7])
    forms = learnt(body)
    # What is said with the end of a request is not looked at.
    unread = span(body, b"yes")
    values = {*span(body, b"value"), *span(body, b"0000"), *span(body, b"1")}
    for at, byte in itertools.product(range(len(body)), range(256)):
        other = body[:at] + bytes((byte,)) + body[at + 1 :]
        said = forms.read(other)
        assert said is None or said == plainly(other), (at, byte)
        known = other == body or at in unread or (at in values and byte < 128)
        assert (said is not None) is known, (at, byte)


@settings(seeded, max_examples=300)
@given(st.text("0123456789abcdef.:", min_size=4, max_size=4), st.text("0123456789", min_size=5, max_size=5))
@example("0000", "value")
def test_requests_that_differ_in_values_as_long_are_not_parsed(caller: str, value: str) -> None:
    forms = learnt(request("d", NAMED, [("other", "1")], hits=3))
    body = request("d", [("k", value), ("dragoman.request", caller), NAMED[2]], [("other", "2")], hits=3)
    expected = [Asked([("k", value)], 3, None, caller.encode(), True), Asked([("other", "2")], 3, None)]
    assert forms.read(body) == ("d", expected) == plainly(body)


@pytest.mark.parametrize(
    "body",
    [
        request("d", NAMED) + b"\x18\x00",
        request("d", [("k", "v")])[:3] + request("d", [("k", "v")]),
        b"\x0a\x81\x00d" + request("d", [("k", "v")])[3:],
        request("d", [("k", "v")]) + b"\x48\x01",
        b"\x12\x08\x0a\x06\x0a\x01k\x12\x01v\x0a\x01d",
        b"\x0a\x01d\x12\x08\x0a\x06\x12\x01v\x0a\x01k",
        b"\x0a\x01d\x12\x0b\x0a\x09\x0a\x01k\x12\x01w\x12\x01v",
        request("d", [("k", "\\xff")]).replace(b"\\xff", b"\xff\xfe\xfd\xfc"),
    ],
    ids=["zero", "twice", "long-length", "unknown", "order", "order-within", "value-twice", "not-utf-8"],
)
def test_a_request_that_is_written_as_protobuf_does_not_write_has_no_form(body: bytes) -> None:
    forms = learnt(body)
    assert forms.read(body) is None
    assert len(forms) == 0


def test_one_with_a_limit_of_its_own_or_of_many_bytes_has_no_form() -> None:
    made = read(request("d", [("k", "v")]))
    made.descriptors[0].limit.requests_per_unit = 1
    assert len(learnt(made.SerializeToString(), request("d", [("k", "v" * 1100)]))) == 0


@pytest.mark.parametrize("body", [b"\x0a\x01d\x12\x80\x01" + b"\x0a\x00" * 64, b"\x0a\x01d" + b"\x12\x00" * 64])
def test_one_of_many_parts_has_no_form_for_that_would_be_many_times_as_large(body: bytes) -> None:
    assert len(learnt(body)) == 0


def test_a_form_takes_some_kilobytes_at_the_most() -> None:
    forms = Forms(every=1)
    widest = [request(f"d{number:03}", [(f"{index:02}" * 28, "v") for index in range(15)]) for number in range(200)]
    tracemalloc.start()
    try:
        for body in widest:
            forms.learn(read(body), body)
        taken = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert len(forms) == len(widest)
    assert taken / len(forms) < 8_000


def test_forms_are_learnt_of_some_requests_and_the_oldest_go() -> None:
    forms = Forms(size=8)
    for size in range(1600):
        body = request("d", [("k", "v" * (size % 900))])
        forms.learn(read(body), body)
    assert 0 < len(forms) <= 16
    alike = Forms(every=1)
    for number in range(100):
        body = request("d", [(f"k{number:02}", "v")])
        alike.learn(read(body), body)
    assert alike.read(request("d", [("k99", "w")])) == ("d", [Asked([("k99", "w")], 1, None)])
    assert alike.read(request("d", [("k00", "w")])) is None


@pytest.mark.parametrize("body", [b"", b"\x0a", b"\x0a\xff", b"\x0a\x01"])
def test_what_is_too_short_for_a_form_is_parsed(body: bytes) -> None:
    assert learnt(request("d", [("k", "v")])).read(body) is None
