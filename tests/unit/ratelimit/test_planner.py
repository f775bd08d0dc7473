"""What is remembered of requests, and that limits which look alike are not taken for one another."""

from __future__ import annotations

from ratelimit_service.answers import Answers
from ratelimit_service.model import Algorithm, Config, Domain, Node, Rule, Unit
from ratelimit_service.planner import Planner
from ratelimit_service.reading import read
from ratelimit_service.stats import StatsRegistry
from ratelimit_service.stores.memory import MemoryStore
from tests.support.ratelimit import Clock, Limiter, request

OK, OVER = 1, 2
COLLIDING = """
domain: d
descriptors:
- {key: a, rate_limit: {unit: day, requests_per_unit: 1}}
- {key: a_b, rate_limit: {unit: day, requests_per_unit: 4}}
- {key: none, rate_limit: {unit: day, requests_per_unit: 0}}
- {key: leased, rate_limit: {unit: day, requests_per_unit: 100, precision: lease(10)}}
- {key: flight, rate_limit: {unit: day, requests_per_unit: 100, algorithm: concurrency}}
"""
NARROW, WIDE = request("d", [("a", "b_c")]), request("d", [("a_b", "c")])


def limiter() -> Limiter:
    return Limiter(COLLIDING, MemoryStore(), clock=Clock())


def remembered(asked: Limiter) -> tuple[int, int]:
    handler = asked.handler
    return len(handler._plans), len(handler._planner._counters)  # pyright: ignore


def test_limits_whose_counters_have_one_name_count_together_and_are_each_over_by_themselves() -> None:
    asked = limiter()

    def code(body: bytes) -> int:
        return asked.ask(body).response.overall_code

    # The narrow one counts what is asked of the store; once it is over, it is not asked again.
    assert [code(body) for body in (NARROW, NARROW, WIDE, NARROW, WIDE, NARROW)] == [OK, OVER, OK, OVER, OK, OVER]
    assert [code(body) for body in (WIDE, NARROW, WIDE)] == [OVER, OVER, OVER]
    assert (asked.stats.of("d", "a").over_local, asked.stats.of("d", "a_b").over_local) == (3, 1)
    asked.use(COLLIDING)
    assert [code(body) for body in (NARROW, WIDE)] == [OVER, OVER]


def test_a_limit_that_is_brought_refines_the_rule_that_the_request_finds_though_another_has_its_path() -> None:
    bucket = Rule("d", "a.b", Unit.DAY, 5, algorithm=Algorithm.TOKEN_BUCKET)
    sliding = Rule("d", "a.b", Unit.DAY, 5, algorithm=Algorithm.SLIDING_WINDOW)
    below = Node("a", children={"b": Node("b", sliding)})
    domain = Domain("d", Node(children={"a.b": Node("a.b", bucket), "a": below}), refines=True)
    planner = Planner(Config({"d": domain}), StatsRegistry(), answers=Answers())

    def found(*entries: tuple[str, str]) -> Algorithm:
        message = read(request("d", entries))
        message.descriptors[0].limit.requests_per_unit = 7
        message.descriptors[0].limit.unit = Unit.DAY.wire
        (check,) = planner.plan(message.SerializeToString()).checks
        assert check.limit.per_unit == 7
        return check.limit.rule.algorithm

    assert found(("a.b", "x")) is Algorithm.TOKEN_BUCKET
    assert found(("a", "x"), ("b", "x")) is Algorithm.SLIDING_WINDOW


def test_a_request_and_its_counter_are_remembered_when_they_come_again() -> None:
    asked = limiter()
    bodies = [request("d", [("a", f"{number}")]) for number in range(100)]
    for body in bodies:
        assert asked.ask(body).response.overall_code == OK
    assert remembered(asked) == (0, 0)
    # One or the other may have been taken for new by a mark that was written over.
    for body in bodies:
        assert asked.ask(body).response.overall_code == OVER
    assert min(remembered(asked)) > 90
    asked.ask(bodies[0])
    assert asked.stats.of("d", "a").over_local == 1


def test_a_counter_that_is_over_is_remembered_from_the_first_request_on() -> None:
    asked = limiter()
    body = request("d", [("none", "x")])
    assert [asked.ask(body).response.overall_code for _ in range(3)] == [OVER] * 3
    assert asked.stats.of("d", "none").over_local == 2


def test_what_is_leased_is_kept_from_the_first_request_on() -> None:
    asked = limiter()
    asked.ask(request("d", [("leased", "x")]))
    assert remembered(asked) == (0, 1)


def test_a_request_that_names_itself_is_not_remembered_whether_or_not_a_limit_applies() -> None:
    asked = limiter()
    for key in ("flight", "a", "nothing"):
        body = request("d", [(key, "x"), ("dragoman.request", "1")])
        for _ in range(3):
            assert asked.ask(body).body is not None
    assert remembered(asked)[0] == 0
