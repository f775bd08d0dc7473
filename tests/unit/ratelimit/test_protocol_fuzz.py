# pyright: standard, reportAttributeAccessIssue=false
"""The limiter's answer to bytes and to messages that nobody means, in every form that answers have."""

from __future__ import annotations

import asyncio
import json

import hypothesis.strategies as st
import pytest
from envoy.service.ratelimit.v3 import rls_pb2
from google.protobuf import json_format
from hypothesis import example, given, settings

from dragoman.grpc_worker import StatusCode
from dragoman.http_server import Health, serve_http
from ratelimit_service import http
from ratelimit_service.answers import AnswerOptions
from ratelimit_service.headers import ResponseHeaders
from ratelimit_service.reading import read
from ratelimit_service.stores.memory import MemoryStore
from tests.support.http import fetch
from tests.support.ratelimit import Clock, Limiter, RecordedCall, request

LIMITS = """
domain: d
descriptors:
- {key: k, rate_limit: {unit: second, requests_per_unit: 3, name: "na\\"me"}}
- {key: k, value: v*, detailed_metric: true, rate_limit: {unit: year, requests_per_unit: 4294967295}}
- {key: zero, rate_limit: {unit: minute, requests_per_unit: 0}}
- {key: soft, quota_mode: true, rate_limit: {unit: day, requests_per_unit: 1}}
- {key: shadow, shadow_mode: true, rate_limit: {unit: hour, requests_per_unit: 1}}
- {key: bucket, rate_limit: {unit: minute, requests_per_unit: 2, algorithm: token_bucket, burst: 3}}
- {key: free, rate_limit: {unlimited: true}}
- key: a
  descriptors: [{key: b, rate_limit: {unit: week, requests_per_unit: 5, replaces: [{name: 'na"me'}]}}]
"""
FORMS = [
    AnswerOptions(),
    AnswerOptions(headers=ResponseHeaders.BOTH, metadata=True),
    AnswerOptions(headers=ResponseHeaders.PLAIN, quota_mode=True),
    AnswerOptions(headers=ResponseHeaders.NONE, shadow_mode=True, metadata=True),
]
IDS = ["default", "everything", "quota mode", "shadow mode"]

seeded = settings(deadline=None, derandomize=True, database=None)


def limiter(options: AnswerOptions = FORMS[0]) -> Limiter:
    return Limiter(LIMITS, MemoryStore(), clock=Clock(), answers=options)


def assert_answered(call: RecordedCall, body: bytes) -> None:
    """One answer: a status that says what is wrong with the request, or a response that fits it."""
    assert (call.body is None) != (call.failure is None)
    if call.failure is not None:
        assert call.failure[0] is StatusCode.INVALID_ARGUMENT
        assert call.failure[1]
        return
    asked, response = read(body), call.response
    assert len(response.statuses) == len(asked.descriptors)
    assert response.overall_code in (1, 2)
    assert {status.code for status in response.statuses} <= {1, 2}
    assert bool(response.raw_body) == (response.overall_code == 2)
    names = [header.key for header in response.response_headers_to_add]
    assert len(names) == len(set(names))
    assert all(header.value.isascii() and header.value.isprintable() for header in response.response_headers_to_add)
    assert ("retry-after" in names) == (response.overall_code == 2)
    # It is written as protobuf writes it: nothing is there twice, nothing is unknown.
    assert json_format.Parse(json_format.MessageToJson(response), rls_pb2.RateLimitResponse()) == response


KEYS = ("k", "v", "va", "zero", "soft", "shadow", "bucket", "free", "a", "b", "d")
FIELDS = ("domain", "descriptors", "entries", "key", "value", "hitsAddend", "limit", "unit", "requestsPerUnit", "x")
WORDS = st.one_of(st.sampled_from(KEYS), st.text(max_size=12))
ENTRIES = st.lists(st.tuples(WORDS, WORDS), max_size=3)
NUMBERS = st.one_of(st.integers(0, 5), st.integers(0, 2**32 - 1))
HUGE = st.one_of(st.none(), st.integers(0, 4), st.integers(0, 2**64 - 1))


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    asked = rls_pb2.RateLimitRequest(domain=draw(st.sampled_from(["d", "d", "d", "other", ""])))
    asked.hits_addend = draw(NUMBERS)
    for entries in draw(st.lists(ENTRIES, max_size=5)):
        descriptor = asked.descriptors.add()
        for key, value in entries:
            descriptor.entries.add(key=key, value=value)
        own = draw(HUGE)
        if own is not None:
            descriptor.hits_addend.value = own
        if draw(st.integers(0, 5)) == 0:
            descriptor.limit.requests_per_unit = draw(NUMBERS)
            descriptor.limit.unit = draw(st.integers(0, 9))
    return asked.SerializeToString()


@st.composite
def broken(draw: st.DrawFn) -> bytes:
    data = bytearray(draw(messages()))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        match draw(st.integers(0, 3)):
            case 0 if at < len(data):
                data[at] = draw(st.integers(0, 255))
            case 1:
                data[at:at] = draw(st.binary(max_size=12))
            case 2:
                del data[at : at + draw(st.integers(1, 8))]
            case _:
                data += data[:at]
    return bytes(data)


@pytest.mark.parametrize("options", FORMS, ids=IDS)
def test_any_message_is_answered_once_and_soundly(options: AnswerOptions) -> None:
    given_limiter = limiter(options)

    @settings(seeded, max_examples=150)
    @given(st.one_of(messages(), broken(), st.binary(max_size=300)), st.floats(0, 3))
    def answered(body: bytes, later: float) -> None:
        given_limiter.clock.now += later
        for _ in range(3):
            assert_answered(given_limiter.ask(body), body)

    answered()


def test_as_many_descriptors_as_are_allowed_are_answered() -> None:
    for options in FORMS:
        body = request("d", *([("k", f"v{number}"), ("x", "y")] for number in range(256)))
        assert_answered(limiter(options).ask(body), body)


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)),
    lambda below: st.one_of(
        st.lists(below, max_size=3),
        st.dictionaries(
            st.sampled_from(FIELDS),
            below,
            max_size=4,
        ),
    ),
    max_leaves=12,
)


def test_any_json_is_decided_or_is_a_bad_request() -> None:
    given_limiter = limiter()
    route = http.Route("/json", http.JsonEndpoint(given_limiter.handler).answer, methods=["POST"])
    with asyncio.Runner() as runner:
        server = runner.run(serve_http(health=Health(), routes=[route]))

        @settings(seeded, max_examples=150)
        @given(st.one_of(JSON.map(lambda value: json.dumps(value).encode()), st.binary(max_size=100)))
        @example(b'{"domain": "d", "descriptors": [null]}')
        @example(b'{"domain": "d", "descriptors": [{"hitsAddend": "18446744073709551616"}]}')
        @example(b'{"domain": "d", "descriptors": [{"limit": {"unit": 77}}]}')
        @example(b'{"domain": "d", "descriptors": [{"limit": {"unit": "EPOCH"}}]}')
        @example(b'{"domain": "d", "hitsAddend": 1e400, "descriptors": [{}]}')
        @example(b'{"domain": "d", "hitsAddend": 1.5, "descriptors": [{}]}')
        def decided(body: bytes) -> None:
            answer = runner.run(fetch(server.address.port, "/json", method="POST", body=body))
            assert answer.status in (200, 400, 429)
            assert answer.text.startswith("Bad Request" if answer.status == 400 else "{")

        decided()
        runner.run(server.close())
