"""What clients are told of their limits in headers, in each of the forms."""

from __future__ import annotations

import re
import time
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given as for_all
from hypothesis import settings
from pydantic import ValidationError

from ratelimit_service.answers import AnswerOptions
from ratelimit_service.headers import HeaderNames, HeaderWriter, ResponseHeaders, policy_names
from ratelimit_service.model import Algorithm, Rule, Unit
from ratelimit_service.settings import RateLimitSettings
from ratelimit_service.stores.memory import MemoryStore
from tests.support.ratelimit import Clock, Limiter, request, response_of

LIMITS = """
domain: d
descriptors:
- {key: a, rate_limit: {unit: minute, requests_per_unit: 3, name: burst}}
- {key: b, rate_limit: {unit: day, requests_per_unit: 5}}
"""
A, B = [("a", "x")], [("b", "x")]


def limiter(style: str, **names: str) -> Limiter:
    options = AnswerOptions(headers=ResponseHeaders(style), header_names=HeaderNames(**names))
    clock = Clock(1_800_000_010.5)
    return Limiter(LIMITS, MemoryStore(), clock=clock, answers=options)


def headers(response: Any) -> dict[str, str]:
    found = [(header.key, header.value) for header in response.response_headers_to_add]
    assert len({name for name, _ in found}) == len(found)
    return dict(found)


def test_draft_03_gives_three_headers_with_the_policies_in_the_first() -> None:
    given = limiter("draft-03")
    assert headers(given.ask(request("d", A, B)).response) == {
        "x-ratelimit-limit": '3, 3;w=60;name="burst", 5;w=86400',
        "x-ratelimit-remaining": "2",
        "x-ratelimit-reset": "50",
    }


def test_plain_gives_a_number_each_by_the_names_that_were_asked_for() -> None:
    given = limiter("plain", limit="ratelimit-limit", remaining="left", reset="x-reset")
    assert headers(given.ask(request("d", A)).response) == {"ratelimit-limit": "3", "left": "2", "x-reset": "50"}


def test_ietf_gives_the_policy_and_what_is_left_of_it() -> None:
    given = limiter("ietf")
    assert headers(given.ask(request("d", A)).response) == {
        "ratelimit-policy": '"burst";q=3;w=60',
        "ratelimit": '"burst";r=2;t=50',
    }


def test_ietf_tells_of_each_limit_that_applies_and_calls_one_without_a_name_by_its_rate() -> None:
    given = limiter("ietf")
    reset = 86400 - 1_800_000_010 % 86400
    for left in (2, 1):
        assert headers(given.ask(request("d", A, [("none", "x")], B)).response) == {
            "ratelimit-policy": '"burst";q=3;w=60, "5-per-day";q=5;w=86400',
            "ratelimit": f'"burst";r={left};t=50, "5-per-day";r={left + 2};t={reset}',
        }


def test_both_gives_the_headers_of_both_drafts() -> None:
    given = limiter("both")
    for body in (request("d", A), request("d", A, B)):
        found = headers(given.ask(body).response)
        assert list(found) == [
            *("x-ratelimit-limit", "ratelimit-policy"),
            *("x-ratelimit-remaining", "x-ratelimit-reset", "ratelimit"),
        ]


@pytest.mark.parametrize("style", list(ResponseHeaders))
def test_a_refusal_tells_of_the_limit_that_refuses_for_the_longest_and_when_to_come_back(style: str) -> None:
    given = limiter(style)
    for _ in range(2):
        found = headers(given.ask(request("d", A, B, hits=9)).response)
        reset = str(86400 - 1_800_000_010 % 86400)
        assert found["retry-after"] == reset
        assert found.get("x-ratelimit-reset", reset) == reset
        assert found.get("x-ratelimit-limit", "5").startswith("5")
        assert found.get("ratelimit", f";t={reset}").endswith(f";t={reset}")


@pytest.mark.parametrize("style", list(ResponseHeaders))
def test_the_same_refusal_is_encoded_once_and_a_later_one_anew(style: str) -> None:
    given = limiter(style)
    body = request("d", A)
    answers = [given.ask(body).body for _ in range(6)]
    assert answers[3] == answers[4] == answers[5] != answers[2]
    given.clock.now += 1
    later = headers(given.ask(body).response)
    assert later["retry-after"] == "49"
    assert later.get("x-ratelimit-reset", "49") == "49"


@pytest.mark.parametrize("style", list(ResponseHeaders))
def test_what_no_limit_applies_to_has_no_headers(style: str) -> None:
    given = limiter(style)
    assert headers(given.ask(request("d", [("none", "x")])).response) == {}
    assert headers(given.ask(request("other", A)).response) == {}


ITEM = re.compile(r'("(?:[ !#-\[\]-~]|\\["\\])*")((?:;[a-z]+=(?:\d{1,15}|"[ !#-\[\]-~]*"))*)(?:, |$)')


def parsed(value: str) -> list[tuple[str, dict[str, str]]]:
    """Reads a List of Strings with parameters, strictly (RFC 9651 §4.2)."""
    found: list[tuple[str, dict[str, str]]] = []
    at = 0
    while at < len(value):
        match = ITEM.match(value, at)
        assert match is not None, value[at:]
        found.append((match[1], dict(part.split("=", 1) for part in match[2].split(";")[1:])))
        at = match.end()
    return found


def rule(name: str = "", **fields: Any) -> Rule:
    return Rule("d", "k", **{"unit": Unit.MINUTE, "requests_per_unit": 10, **fields}, name=name)


def told(*rules: Rule, style: str = "ietf") -> dict[str, str]:
    writer = HeaderWriter(ResponseHeaders(style))
    verdicts = [(False, number, 7) for number in range(len(rules))]
    encoded = writer.fixed(rules)[0] + writer.several(0, writer.items(rules), verdicts)
    return headers(response_of(encoded))


@pytest.mark.parametrize(
    ("given", "policy"),
    [
        (rule("plain"), '"plain";q=10;w=60'),
        (rule('two "quotes" and a \\'), r'"two \"quotes\" and a \\";q=10;w=60'),
        (rule("grün"), '"10-per-minute";q=10;w=60'),
        (rule("a\r\nset-cookie: b"), '"10-per-minute";q=10;w=60'),
        (rule(requests_per_unit=0), '"0-per-minute";q=0;w=60'),
        (rule("bucket", algorithm=Algorithm.TOKEN_BUCKET), '"bucket";q=10;w=60'),
        (rule("bucket", algorithm=Algorithm.TOKEN_BUCKET, burst=25), '"bucket";q=25;w=150'),
        (
            rule(unit=Unit.YEAR, requests_per_unit=1, algorithm=Algorithm.TOKEN_BUCKET, burst=2**32 - 1),
            f'"1-per-year";q={2**32 - 1};w=999999999999999',
        ),
        (rule(algorithm=Algorithm.CONCURRENCY), '"10-concurrent";q=10;qu="concurrent-requests"'),
    ],
)
def test_a_policy_is_written_as_the_draft_says(given: Rule, policy: str) -> None:
    assert told(given)["ratelimit-policy"] == policy
    assert len(parsed(policy)) == 1


def test_limits_of_one_name_are_told_apart() -> None:
    found = told(rule("x"), rule("x"), rule("x-2"), rule(), rule())
    names = [name for name, _ in parsed(found["ratelimit-policy"])]
    assert names == ['"x"', '"x-2"', '"x-2-2"', '"10-per-minute"', '"10-per-minute-2"']
    assert [name for name, _ in parsed(found["ratelimit"])] == names


def test_many_limits_of_one_name_are_told_apart_at_once() -> None:
    began = time.process_time()
    names = policy_names([rule("x"), *[rule(f"x-{number}") for number in range(2, 2000, 2)], *[rule("x")] * 1000])
    assert len(set(names)) == 2000
    assert time.process_time() - began < 1


@settings(max_examples=300, deadline=None)
@for_all(st.lists(st.text(max_size=30), min_size=1, max_size=4), st.integers(0, 2**32 - 1))
def test_whatever_limits_are_called_the_headers_are_well_formed(names: list[str], per_unit: int) -> None:
    found = told(*(rule(name, requests_per_unit=per_unit) for name in names), style="both")
    policies, limits = parsed(found["ratelimit-policy"]), parsed(found["ratelimit"])
    assert [name for name, _ in policies] == [name for name, _ in limits]
    assert len({name for name, _ in policies}) == len(names)
    assert all(parameters == {"q": str(per_unit), "w": "60"} for _, parameters in policies)
    assert all(value.isascii() and value.isprintable() for value in found.values())


def test_a_long_name_makes_a_long_header() -> None:
    given = Limiter(
        LIMITS.replace("burst", "x" * 1000),
        MemoryStore(),
        clock=Clock(),
        answers=AnswerOptions(headers=ResponseHeaders.IETF),
    )
    assert headers(given.ask(request("d", A)).response)["ratelimit"] == f'"{"x" * 1000}";r=2;t=60'


def test_names_of_headers_are_checked_and_put_in_lower_case() -> None:
    def named(name: str) -> RateLimitSettings:
        return RateLimitSettings.model_validate(
            {"listen": "127.0.0.1:0", "config": "x", "limit_header": name, "response_headers": "plain"}
        )

    assert named("RateLimit-Limit").answers.header_names.limit == "ratelimit-limit"
    assert named("RateLimit-Limit").answers.headers is ResponseHeaders.PLAIN
    for wrong in ("", "a b", "a:b", "ä", "a\r\nb", "x" * 129):
        with pytest.raises(ValidationError):
            named(wrong)
