# pyright: standard, reportAttributeAccessIssue=false
"""Windows of several units (`unit_multiplier`), in files, over xDS, and in limits that requests bring."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from google.protobuf.json_format import ParseDict
from google.protobuf.unknown_fields import UnknownFieldSet
from hypothesis import given
from hypothesis import strategies as st

from dragoman.grpc_worker import StatusCode
from dragoman.protos.ratelimit.config.ratelimit.v3 import rls_conf_pb2
from ratelimit_service.algorithms.registry import counting
from ratelimit_service.algorithms.ticks import MAX_EXACT
from ratelimit_service.answers import AnswerOptions
from ratelimit_service.config_file import parse
from ratelimit_service.config_xds import parse_resource
from ratelimit_service.headers import ResponseHeaders
from ratelimit_service.model import MAX_LIMIT, MAX_WINDOW_S, Algorithm, Rule, Unit
from ratelimit_service.quota.terms import Terms
from ratelimit_service.stores import shared_rule
from ratelimit_service.stores.memory import MemoryStore
from tests.support.ratelimit import Clock, Limiter, request
from tests.support.ratelimit import request_that_brings as brought

OK, OVER = 1, 2
TEN = "domain: d\ndescriptors:\n- {key: k, rate_limit: {unit: minute, unit_multiplier: 10, requests_per_unit: 2}}\n"
ASK = request("d", [("k", "a")])


def limiter(yaml: str = TEN, **options: Any) -> Limiter:
    return Limiter(yaml, MemoryStore(), clock=Clock(1_800_000_090.0), **options)


def refusal(body: bytes) -> tuple[StatusCode, str] | None:
    return limiter().ask(body).failure


@pytest.mark.parametrize("algorithm", ["fixed_window", "sliding_window", "token_bucket", "leaky_bucket"])
def test_as_many_are_admitted_as_the_limit_says_in_as_many_units(algorithm: str) -> None:
    limit = f"{{unit: second, unit_multiplier: 30, requests_per_unit: 10, algorithm: {algorithm}}}"
    asked = limiter(f"domain: d\ndescriptors:\n- {{key: k, rate_limit: {limit}}}\n")
    admitted = 0
    for _ in range(600):
        admitted += asked.ask(ASK).response.overall_code == OK
        asked.clock.now += 1
    # Twenty windows; of a slow stream a sliding one admits somewhat less than the limit.
    assert 160 <= admitted <= 210


def test_a_window_begins_at_a_multiple_of_its_length() -> None:
    asked = limiter()
    response = asked.ask(ASK).response
    assert response.statuses[0].duration_until_reset.seconds == 510
    assert [asked.ask(ASK).response.overall_code for _ in range(2)] == [OK, OVER]
    asked.clock.now += 509
    assert asked.ask(ASK).response.overall_code == OVER
    asked.clock.now += 1
    assert asked.ask(ASK).response.overall_code == OK


def test_answers_tell_the_number_its_unit_and_how_many_of_them() -> None:
    asked = limiter(answers=AnswerOptions(headers=ResponseHeaders.BOTH))
    response = [asked.ask(ASK).response for _ in range(3)][-1]
    limit = response.statuses[0].current_limit
    assert (limit.requests_per_unit, limit.unit) == (2, Unit.MINUTE.wire)
    # Newer than our types: a UInt32Value in field 4.
    assert [(each.field_number, each.data) for each in UnknownFieldSet(limit)] == [(4, b"\x08\x0a")]
    told = {header.key: header.value for header in response.response_headers_to_add}
    assert told["x-ratelimit-limit"] == "2, 2;w=600"
    assert told["ratelimit-policy"] == '"2-per-10-minutes";q=2;w=600'
    assert b"the limit is 2 per 10 minutes." in response.raw_body


def test_a_request_can_bring_a_limit_of_several_units() -> None:
    asked = limiter()
    body = brought("d", [("k", "a")], per_unit=3, unit=Unit.MINUTE, times=20)
    first = asked.ask(body).response
    assert first.statuses[0].duration_until_reset.seconds == 1110
    assert [asked.ask(body).response.overall_code for _ in range(3)] == [OK, OK, OVER]
    # What is configured counts apart: its window is another.
    assert asked.ask(ASK).response.overall_code == OK
    other = brought("d", [("k", "a")], per_unit=3, unit=Unit.MINUTE, times=30)
    assert asked.ask(other).response.overall_code == OK


def test_units_that_a_request_leaves_open_are_one() -> None:
    plain = brought("d", [("k", "a")], per_unit=3, unit=Unit.MINUTE)
    for added in (b"\x1a\x00", b"\x1a\x02\x08\x00", b"\x1a\x02\x08\x01", b"\x18\x05"):
        body = brought("d", [("k", "a")], per_unit=3, unit=Unit.MINUTE, added=added)
        assert limiter().ask(body).body == limiter().ask(plain).body
    in_parts = brought("d", [("k", "a")], per_unit=3, unit=Unit.MINUTE, added=b"\x1a\x02\x08\x05\x1a\x02\x08\x09")
    nine = brought("d", [("k", "a")], per_unit=3, unit=Unit.MINUTE, times=9)
    assert limiter().ask(in_parts).body == limiter().ask(nine).body


def test_a_limit_that_makes_no_sense_is_refused() -> None:
    ten_years = brought("d", [("k", "a")], per_unit=3, unit=Unit.YEAR, times=10)
    assert limiter().ask(ten_years).response.overall_code == OK
    code, message = refusal(brought("d", [("k", "a")], per_unit=3, unit=Unit.YEAR, times=11)) or (None, "")
    assert code is StatusCode.INVALID_ARGUMENT
    assert "unit_multiplier: is from 1 to 10" in message
    broken = brought("d", [("k", "a")], per_unit=3, unit=Unit.YEAR, added=b"\x1a\x02\x08\xff")
    assert refusal(broken) == (StatusCode.INVALID_ARGUMENT, "not a RateLimitRequest")


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        ("unit: minute, unit_multiplier: 0, requests_per_unit: 2", "must be a whole number from 1"),
        ("unit: year, unit_multiplier: 11, requests_per_unit: 2", "is from 1 to 10"),
        ("unlimited: true, unit_multiplier: 2", "makes no sense with unlimited"),
    ],
)
def test_a_file_with_units_that_make_no_sense_is_at_fault(limit: str, message: str) -> None:
    _, faults = parse(f"domain: d\ndescriptors:\n- key: k\n  rate_limit: {{{limit}}}\n".encode(), source="f")
    assert [(fault.line, fault.field) for fault in faults] == [(4, "descriptors[0].rate_limit.unit_multiplier")]
    assert message in faults[0].message


def test_xds_and_files_say_the_same() -> None:
    limit = {"unit": "MINUTE", "requestsPerUnit": 2, "dragoman": {"unitMultiplier": 10}}
    given = {"name": "d", "domain": "d", "descriptors": [{"key": "k", "rateLimit": limit}]}
    content = ParseDict(given, rls_conf_pb2.RateLimitConfig()).SerializeToString()
    ((domain, _),), _ = parse(TEN.encode(), source="f")
    assert parse_resource(content, source="x") == (domain, [])


def test_what_is_divided_among_envoys_is_what_the_whole_window_allows() -> None:
    rule = Rule("d", "k", Unit.MINUTE, 600, 10)
    assert Terms.of(rule).limit == 1.0


def test_workers_tell_one_another_how_long_a_window_is() -> None:
    rule = Rule("d", "k", Unit.MINUTE, 5, 10, algorithm=Algorithm.SLIDING_WINDOW)
    assert shared_rule.read(shared_rule.written(rule).body).seconds == 600
    assert shared_rule.written(rule) != shared_rule.written(replace(rule, unit_multiplier=1))


@given(
    st.sampled_from(list(Unit)),
    st.integers(1, MAX_WINDOW_S),
    st.integers(0, MAX_LIMIT),
    st.sampled_from([Algorithm.SLIDING_WINDOW, Algorithm.TOKEN_BUCKET, Algorithm.LEAKY_BUCKET]),
)
def test_any_window_is_counted_in_whole_ticks_and_in_numbers_that_are_exact(
    unit: Unit, times: int, limit: int, algorithm: Algorithm
) -> None:
    rule = Rule("d", "k", unit, limit, 1 + times % (MAX_WINDOW_S // unit.seconds), algorithm=algorithm)
    assert rule.fault() is None
    scale = counting(algorithm).scale(rule)
    assert scale.tick_us * scale.cost == rule.seconds * 1_000_000
    parts = scale.capacity if algorithm is not Algorithm.SLIDING_WINDOW else 2 * scale.capacity
    assert parts <= MAX_EXACT * 1.01


def test_lengths_of_windows_that_requests_make_up_are_bounded_in_memory() -> None:
    asked = limiter("domain: d\non_store_error: deny\ndescriptors: []\n")
    kept = [brought("d", [("k", "a")], per_unit=1, unit=Unit.SECOND, times=times) for times in range(2, 514)]
    assert {asked.ask(body).response.overall_code for body in kept} == {OK}
    further = brought("d", [("k", "a")], per_unit=1, unit=Unit.SECOND, times=1000)
    assert asked.ask(further).response.overall_code == OVER
    # Those that have ended make room.
    asked.clock.now += 100
    assert asked.ask(further).response.overall_code == OK
    assert asked.ask(kept[-1]).response.overall_code == OVER
