# pyright: standard, reportAttributeAccessIssue=false
"""What ShouldRateLimit answers to each kind of request, counted in memory."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import hypothesis.strategies as st
import pytest
from envoy.service.ratelimit.v3 import rls_pb2
from hypothesis import given, settings

from dragoman.grpc_worker import StatusCode
from ratelimit_service.answers import AnswerOptions
from ratelimit_service.handler import RateLimiter
from ratelimit_service.headers import ResponseHeaders
from ratelimit_service.model import OnStoreError
from ratelimit_service.stats import OTHER, StatsRegistry
from ratelimit_service.stores.memory import MemoryStore
from tests.support.ratelimit import Clock, Limiter, RecordedCall, request

OK, OVER = 1, 2


def limiter(yaml: str, **options: Any) -> Limiter:
    return Limiter(f"domain: d\ndescriptors:\n{yaml}", MemoryStore(), clock=Clock(), **options)


def codes(response: Any) -> list[int]:
    return [status.code for status in response.statuses]


def headers(response: Any) -> dict[str, str]:
    return {header.key: header.value for header in response.response_headers_to_add}


BASIC = "- {key: k, rate_limit: {unit: minute, requests_per_unit: 2, name: two a minute}}\n"


def test_a_status_tells_the_limit_what_is_left_and_when_it_resets() -> None:
    given = limiter(BASIC)
    given.clock.now = 1_800_000_010.75
    response = given.ask(request("d", [("k", "a")])).response
    (status,) = response.statuses
    assert response.overall_code == OK
    assert status.code == OK
    assert (status.current_limit.requests_per_unit, status.current_limit.unit) == (2, 2)
    assert status.current_limit.name == "two a minute"
    assert status.limit_remaining == 1
    assert status.duration_until_reset.seconds == 50
    assert headers(response) == {
        "x-ratelimit-limit": '2, 2;w=60;name="two a minute"',
        "x-ratelimit-remaining": "1",
        "x-ratelimit-reset": "50",
    }
    assert response.raw_body == b""


def test_a_refusal_brings_retry_after_and_a_json_body() -> None:
    given = limiter(BASIC)
    response = given.ask(request("d", [("k", "a")], hits=3)).response
    assert (response.overall_code, codes(response)) == (OVER, [OVER])
    assert headers(response)["retry-after"] == "60"
    assert headers(response)["content-type"] == "application/json"
    assert json.loads(response.raw_body) == {
        "error": "rate_limited",
        "message": "Too many requests: the limit is 2 per minute.",
        "retry_after": 60,
    }


def test_x_ratelimit_headers_can_be_left_to_envoy() -> None:
    given = limiter(BASIC, answers=AnswerOptions(headers=ResponseHeaders.NONE))
    assert headers(given.ask(request("d", [("k", "a")])).response) == {}
    refused = given.ask(request("d", [("k", "a")], hits=9)).response
    assert headers(refused).keys() == {"retry-after", "content-type"}


def test_hits_addend_counts_so_many_and_none_counts_as_one() -> None:
    given = limiter("- {key: k, rate_limit: {unit: day, requests_per_unit: 10}}")
    left = [
        given.ask(request("d", [("k", "a")], hits=hits)).response.statuses[0].limit_remaining for hits in (None, 4, 0)
    ]
    assert left == [9, 5, 4]


def test_a_descriptor_has_hits_of_its_own_and_zero_of_them_only_looks() -> None:
    given = limiter("- {key: k, rate_limit: {unit: day, requests_per_unit: 10}}")
    body = request("d", [("k", "a")], [("k", "b")], [("k", "c")], hits=2, own_hits=(5, 0, None))
    for expected in ([5, 10, 8], [0, 10, 6]):
        response = given.ask(body).response
        assert [status.limit_remaining for status in response.statuses] == expected
    response = given.ask(body).response
    assert codes(response) == [OVER, OK, OK]
    # Looking at what is over says so.
    assert codes(given.ask(request("d", [("k", "a")], own_hits=(0,))).response) == [OVER]


def test_more_hits_than_any_counter_holds_are_over_and_break_nothing() -> None:
    given = limiter("- {key: k, rate_limit: {unit: day, requests_per_unit: 4294967295}}")
    body = request("d", [("k", "a")], own_hits=(2**64 - 1,))
    assert codes(given.ask(body).response) == [OVER]


def test_what_no_limit_applies_to_is_allowed_without_numbers() -> None:
    given = limiter(BASIC + "- {key: parent, descriptors: [{key: child, rate_limit: {unit: day}}]}\n")
    for descriptor in ([("other", "x")], [("k", "a"), ("more", "b")], [("parent", "x")], []):
        response = given.ask(request("d", descriptor)).response
        assert (response.overall_code, codes(response)) == (OK, [OK])
        assert not response.statuses[0].HasField("current_limit")
    assert given.ask(request("unknown", [("k", "a")])).response.overall_code == OK
    assert given.stats.unknown_domain == 1


def test_an_unknown_domain_can_be_refused() -> None:
    given = limiter(BASIC, unknown_domain=OnStoreError.DENY)
    response = given.ask(request("unknown", [("k", "a")], [("k", "b")])).response
    assert (response.overall_code, codes(response)) == (OVER, [OVER, OVER])
    assert json.loads(response.raw_body)["error"] == "rate_limit_unavailable"


def test_the_most_specific_descriptor_wins() -> None:
    given = limiter("""
- {key: k, value: exact, rate_limit: {unit: day, requests_per_unit: 1}}
- {key: k, value: ex*, rate_limit: {unit: day, requests_per_unit: 2}}
- {key: k, value: e*, rate_limit: {unit: day, requests_per_unit: 3}}
- {key: k, rate_limit: {unit: day, requests_per_unit: 4}}
""")
    found = {
        value: given.ask(request("d", [("k", value)])).response.statuses[0].current_limit.requests_per_unit
        for value in ("exact", "exac", "else", "other", "")
    }
    assert found == {"exact": 1, "exac": 2, "else": 3, "other": 4, "": 4}


def test_each_value_under_a_wildcard_has_a_counter_of_its_own() -> None:
    given = limiter("- {key: k, value: ex*, rate_limit: {unit: day, requests_per_unit: 1}}")
    answers = [given.ask(request("d", [("k", value)])).response.overall_code for value in ("exa", "exb", "exa")]
    assert answers == [OK, OK, OVER]


def test_nested_descriptors_are_counted_together() -> None:
    given = limiter("""
- key: tenant
  descriptors:
    - key: path
      value: /search
      rate_limit: {unit: day, requests_per_unit: 1}
""")
    bodies = [request("d", [("tenant", tenant), ("path", "/search")]) for tenant in "aba"]
    assert [given.ask(body).response.overall_code for body in bodies] == [OK, OK, OVER]


def test_a_limit_in_shadow_mode_reports_and_counts_but_allows() -> None:
    given = limiter("- {key: k, shadow_mode: true, rate_limit: {unit: day, requests_per_unit: 1}}")
    response = [given.ask(request("d", [("k", "a")])).response for _ in range(3)][-1]
    assert (response.overall_code, codes(response)) == (OK, [OK])
    assert response.raw_body == b""
    stats = given.stats.of("d", "k")
    assert (stats.total, stats.within, stats.over, stats.shadow) == (3, 1, 2, 2)


def test_an_unlimited_descriptor_is_not_counted() -> None:
    given = limiter("- {key: k, rate_limit: {unlimited: true}}")
    response = given.ask(request("d", [("k", "a")], hits=10**6)).response
    assert (response.overall_code, codes(response)) == (OK, [OK])


def test_a_limit_that_another_replaces_is_left_out() -> None:
    given = limiter("""
- {key: all, rate_limit: {unit: day, requests_per_unit: 1, name: base}}
- {key: vip, rate_limit: {unit: day, requests_per_unit: 5, replaces: [{name: base}]}}
""")
    for _ in range(3):
        response = given.ask(request("d", [("all", "x")], [("vip", "x")])).response
        assert codes(response) == [OK, OK]
        assert not response.statuses[0].HasField("current_limit")
    assert given.ask(request("d", [("all", "x")])).response.statuses[0].limit_remaining == 0


def test_a_limit_that_the_request_brings_stands_for_the_configured_one() -> None:
    given = limiter("- {key: k, shadow_mode: true, rate_limit: {unit: day, requests_per_unit: 100}}")
    message = rls_pb2.RateLimitRequest.FromString(request("d", [("k", "a")]))
    message.descriptors[0].limit.requests_per_unit = 1
    message.descriptors[0].limit.unit = 3
    answers = [given.ask(message.SerializeToString()).response for _ in range(2)]
    assert [answer.overall_code for answer in answers] == [OK, OVER]
    assert (answers[0].statuses[0].current_limit.requests_per_unit, answers[0].statuses[0].current_limit.unit) == (1, 3)
    message.descriptors[0].limit.unit = 99
    failure = given.ask(message.SerializeToString()).failure
    assert failure is not None
    assert failure[0] is StatusCode.INVALID_ARGUMENT


def test_the_overall_answer_tells_of_the_limit_with_the_least_left_and_the_longest_wait() -> None:
    given = limiter("""
- {key: day, rate_limit: {unit: day, requests_per_unit: 1}}
- {key: minute, rate_limit: {unit: minute, requests_per_unit: 1}}
- {key: wide, rate_limit: {unit: hour, requests_per_unit: 9}}
""")
    body = request("d", [("wide", "x")], [("minute", "x")], [("none", "x")], [("day", "x")])
    first = given.ask(body).response
    assert headers(first)["x-ratelimit-limit"] == "1, 9;w=3600, 1;w=60, 1;w=86400"
    assert headers(first)["x-ratelimit-remaining"] == "0"
    second = given.ask(body).response
    assert codes(second) == [OK, OVER, OK, OVER]
    assert headers(second)["retry-after"] == str(86400 - 1_800_000_000 % 86400)


def test_metrics_of_a_detailed_descriptor_tell_its_values_apart_up_to_a_bound() -> None:
    given = limiter("- {key: k, detailed_metric: true, rate_limit: {unit: day, requests_per_unit: 1}}")
    for number in range(1500):
        given.ask(request("d", [("k", f"v{number}")]))
    names = {path for (_, path), _ in given.stats.items()}
    assert "k_v0" in names
    assert len(names) <= 1002
    assert dict(given.stats.items())["d", OTHER].total > 0
    assert sum(stats.total for _, stats in given.stats.items()) == 1500


@pytest.mark.parametrize("brings_a_limit", [False, True])
def test_long_values_are_not_kept_for_metrics(brings_a_limit: bool) -> None:
    given = limiter("- {key: k, detailed_metric: true, rate_limit: {unit: minute, requests_per_unit: 2}}\n")

    def ask(index: int) -> None:
        message = rls_pb2.RateLimitRequest.FromString(request("d", [("k", f"{index}" + "x" * 50_000)]))
        if brings_a_limit:
            message.descriptors[0].limit.unit = 2
            message.descriptors[0].limit.requests_per_unit = 1
        assert given.ask(message.SerializeToString()).response.overall_code == OK

    ask(0)
    tracemalloc.start()
    try:
        for index in range(1, 400):
            ask(index)
        assert tracemalloc.get_traced_memory()[0] < 4_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("options", "code"),
    [(AnswerOptions(), OVER), (AnswerOptions(shadow_mode=True), OK), (AnswerOptions(quota_mode=True), OK)],
)
def test_a_request_too_large_to_be_looked_at_is_refused_unless_nothing_is(options: AnswerOptions, code: int) -> None:
    given = limiter(BASIC, answers=options)
    assert rls_pb2.RateLimitResponse.FromString(given.handler.too_large()).overall_code == code
    assert given.stats.malformed == 1


def test_hits_near_the_limit_are_counted() -> None:
    given = limiter("- {key: k, rate_limit: {unit: day, requests_per_unit: 10}}")
    for _ in range(12):
        given.ask(request("d", [("k", "a")]))
    stats = given.stats.of("d", "k")
    assert (stats.total, stats.within, stats.near, stats.over, stats.over_local) == (12, 10, 2, 2, 1)


@pytest.mark.parametrize(
    "body",
    [b"", b"\xff\xff", request("", [("k", "a")]), request("d"), request("d", *([[("k", "a")]] * 1025))],
    ids=["empty", "garbage", "no domain", "no descriptors", "too many descriptors"],
)
def test_a_malformed_request_is_an_invalid_argument(body: bytes) -> None:
    given = limiter(BASIC)
    failure = given.ask(body).failure
    assert failure is not None
    assert failure[0] is StatusCode.INVALID_ARGUMENT
    assert given.stats.malformed == 1


def test_what_is_no_utf_8_is_counted_as_any_other_value() -> None:
    given = limiter(BASIC)

    def asked(value: bytes) -> bytes:
        return request("d", [("k", "??")]).replace(b"??", value)

    assert [given.ask(asked(b"\xff\xfe")).response.overall_code for _ in range(3)] == [OK, OK, OVER]
    assert [given.ask(asked(b"\xffa")).response.overall_code for _ in range(3)] == [OK, OK, OVER]
    both = request("d", [("k", "ok")], [("k", "??")]).replace(b"??", b"\xc3\x28")
    assert [given.ask(both).response.overall_code for _ in range(3)] == [OK, OK, OVER]
    assert given.stats.malformed == 0


ENTRY = b"\x0a\x06\x0a\x01k\x12\x01a"


def newer(descriptor: bytes) -> bytes:
    """A request whose descriptor has fields that our protobuf types do not know."""
    return b"\x0a\x01d\x12" + bytes([len(descriptor)]) + descriptor


@pytest.mark.parametrize(
    "descriptor",
    [
        ENTRY + b"\x20\x00",
        ENTRY + b"\xa2\x06\x02\x20\x01",
        b"\x0a\x07\x0a\x01k\x12\x02\x20\x01",
        ENTRY + b"\x12\x08\x08\x05\x10\x02\x1a\x02\x08\x01",
    ],
    ids=["false", "elsewhere", "in a value", "one unit"],
)
def test_what_newer_fields_say_without_a_consequence_is_passed_over(descriptor: bytes) -> None:
    assert limiter(BASIC).ask(newer(descriptor)).response.overall_code == OK


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_get_one_answer(body: bytes) -> None:
    call = limiter(BASIC).ask(body)
    assert (call.body is None) != (call.failure is None)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=20), st.text(max_size=600), st.integers(0, 2**32 - 1))
def test_any_descriptor_gets_an_answer_that_parses(key: str, value: str, hits: int) -> None:
    given = limiter("- {key: k, rate_limit: {unit: day, requests_per_unit: 3}}")
    for name in (key, "k"):
        assert given.ask(request("d", [(name, value)], hits=hits)).response.overall_code in (OK, OVER)


def test_before_any_configuration_the_service_is_unavailable() -> None:
    handler = RateLimiter(MemoryStore(), StatsRegistry(), clock=Clock())
    call = RecordedCall()
    handler(request("d", [("k", "a")]), call)
    assert call.failure == (StatusCode.UNAVAILABLE, "no configuration is loaded")


def test_a_new_configuration_keeps_counts_and_takes_effect_for_the_next_request() -> None:
    given = limiter("- {key: k, rate_limit: {unit: day, requests_per_unit: 1}}")
    body = request("d", [("k", "a")])
    assert [given.ask(body).response.overall_code for _ in range(2)] == [OK, OVER]
    given.use("domain: d\ndescriptors:\n- {key: k, rate_limit: {unit: day, requests_per_unit: 3}}")
    assert given.ask(body).response.statuses[0].limit_remaining == 0
    assert given.stats.of("d", "k").total == 3


def test_keys_of_any_length_are_bounded_and_stay_apart() -> None:
    given = limiter("- {key: k, rate_limit: {unit: day, requests_per_unit: 1}}")
    values = ["x" * 5000 + tail for tail in "aba"]
    answers = [given.ask(request("d", [("k", value)])).response.overall_code for value in values]
    assert answers == [OK, OK, OVER]
