# pyright: standard, reportAttributeAccessIssue=false
"""Dynamic metadata, limits that report and never refuse, and what holds for all requests."""

from __future__ import annotations

from typing import Any

from envoy.service.ratelimit.v3 import rls_pb2
from google.protobuf import json_format

from ratelimit_service.answers import AnswerOptions
from ratelimit_service.model import OnStoreError
from ratelimit_service.stores.memory import MemoryStore
from tests.support.ratelimit import Clock, Limiter, request

OK, OVER = 1, 2
LIMITS = """
domain: d
descriptors:
- {key: hard, rate_limit: {unit: day, requests_per_unit: 1}}
- {key: soft, quota_mode: true, rate_limit: {unit: day, requests_per_unit: 1}}
- {key: shadow, shadow_mode: true, quota_mode: true, rate_limit: {unit: day, requests_per_unit: 1}}
- {key: free, rate_limit: {unlimited: true}}
"""
HARD, SOFT, SHADOW, FREE = ([(key, "x")] for key in ("hard", "soft", "shadow", "free"))


def limiter(**options: Any) -> Limiter:
    return Limiter(LIMITS, MemoryStore(), clock=Clock(), answers=AnswerOptions(**options))


def metadata(response: Any) -> Any:
    return json_format.MessageToDict(response.dynamic_metadata)


def codes(response: Any) -> list[int]:
    return [status.code for status in response.statuses]


def test_there_is_no_metadata_unless_it_is_asked_for() -> None:
    response = limiter().ask(request("d", SOFT)).response
    assert not response.HasField("dynamic_metadata")


def test_metadata_tells_the_request() -> None:
    given = limiter(metadata=True)
    message = rls_pb2.RateLimitRequest.FromString(request("d", [("hard", "x"), ("b", "")], HARD, hits=1, own_hits=(3,)))
    message.descriptors[0].limit.requests_per_unit = 7
    message.descriptors[0].limit.unit = 3
    response = given.ask(message.SerializeToString()).response
    assert metadata(response) == {
        "domain": "d",
        "descriptors": [
            {"entries": ["hard=x", "b="], "limit": "requests_per_unit:7 unit:HOUR", "hitsAddend": 3},
            {"entries": ["hard=x"]},
        ],
        "hitsAddend": 1,
        "quotaModeEnabled": False,
    }


def test_metadata_is_there_too_where_nothing_is_counted() -> None:
    given = limiter(metadata=True)
    assert metadata(given.ask(request("d", [("none", "x")])).response)["descriptors"] == [{"entries": ["none=x"]}]
    assert metadata(given.ask(request("other", [], hits=2)).response) == {
        "domain": "other",
        "descriptors": [{"entries": []}],
        "hitsAddend": 2,
        "quotaModeEnabled": False,
    }


def test_a_limit_in_quota_mode_lets_through_and_names_itself_in_the_metadata() -> None:
    given = limiter(metadata=True)
    body = request("d", [("none", "x")], SOFT, SHADOW)
    first, second = (given.ask(body).response for _ in range(2))
    assert "quotaModeViolations" not in metadata(first)
    assert metadata(first)["quotaModeEnabled"] is True
    assert (second.overall_code, codes(second)) == (OK, [OK, OK, OK])
    # What is in shadow mode as well is none of it.
    assert metadata(second)["quotaModeViolations"] == [1]
    assert second.statuses[1].limit_remaining == 0
    assert second.raw_body == b""
    stats = given.stats.of("d", "soft")
    assert (stats.total, stats.over, stats.quota, stats.shadow) == (2, 1, 1, 0)
    assert given.stats.of("d", "shadow").shadow == 1


def test_a_limit_in_quota_mode_does_not_keep_another_from_refusing() -> None:
    given = limiter(metadata=True)
    body = request("d", SOFT, HARD)
    response = [given.ask(body).response for _ in range(2)][1]
    assert (response.overall_code, codes(response)) == (OVER, [OK, OVER])
    assert metadata(response)["quotaModeViolations"] == [0]


def test_one_descriptor_in_quota_mode_is_let_through_also_when_it_is_known_to_be_over() -> None:
    given = limiter()
    answers = [given.ask(request("d", SOFT)).response for _ in range(4)]
    assert [answer.overall_code for answer in answers] == [OK] * 4
    assert given.stats.of("d", "soft").over_local == 2


def test_with_quota_mode_for_all_nothing_is_refused_and_all_is_named() -> None:
    given = limiter(metadata=True, quota_mode=True)
    body = request("d", HARD, SOFT)
    response = [given.ask(body).response for _ in range(3)][2]
    assert (response.overall_code, codes(response)) == (OK, [OK, OK])
    assert metadata(response)["quotaModeViolations"] == [0, 1]


def test_with_shadow_mode_for_all_the_statuses_tell_what_the_request_is_not_refused_for() -> None:
    given = limiter(shadow_mode=True)
    for body in (request("d", HARD), request("d", [("hard", "y")], FREE)):
        response = [given.ask(body).response for _ in range(3)][2]
        assert (response.overall_code, response.statuses[0].code) == (OK, OVER)
        assert response.raw_body == b""
        assert not any(header.key == "retry-after" for header in response.response_headers_to_add)
    assert given.answers.shadowed == 4


def test_with_shadow_mode_for_all_an_unknown_domain_is_let_through() -> None:
    given = Limiter(
        LIMITS,
        MemoryStore(),
        clock=Clock(),
        answers=AnswerOptions(shadow_mode=True),
        unknown_domain=OnStoreError.DENY,
    )
    assert given.ask(request("other", HARD)).response.overall_code == OK


def test_a_descriptor_without_a_limit_has_all_of_it_left() -> None:
    for given in (limiter(), limiter(metadata=True)):
        for body in (request("d", FREE), request("d", FREE, HARD), request("d", HARD, FREE)):
            response = given.ask(body).response
            (unlimited,) = (status for status in response.statuses if not status.HasField("current_limit"))
            assert (unlimited.code, unlimited.limit_remaining) == (OK, 2**32 - 1)
