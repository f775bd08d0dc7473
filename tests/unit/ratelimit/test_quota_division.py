"""A limit is divided among simulated Envoys by what they report."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratelimit_service.quota.division import IDLE_S, LINGER_S, REPORT_S, SETTLE_S, Division, divide
from tests.unit.ratelimit.quota_envoys import Loads, World

LIMIT = 150.0
# Reports of each Envoy come once in 5 s; the first whole one after a change has been acted on after two of them.
ACTED_ON_S = 2 * REPORT_S + 1


def steady(rate: float) -> Loads:
    return lambda _: rate


def near(rate: float, limit: float = LIMIT) -> bool:
    return abs(rate / limit - 1) <= 0.05


@given(
    st.floats(0.01, 1e6),
    st.lists(st.none() | st.floats(0, 1e6), min_size=1, max_size=40),
)
def test_shares_add_up_to_the_limit_and_nobody_envies_who_wants_less(limit: float, demands: list[float | None]) -> None:
    shares = divide(limit, demands)
    assert sum(shares) == pytest.approx(limit)
    assert all(share > 0 for share in shares)
    known = sorted((demand, share) for demand, share in zip(demands, shares, strict=True) if demand is not None)
    for (_, less), (_, more) in pairwise(known):
        assert less <= more * (1 + 1e-9)


def test_small_demands_get_what_they_need_and_great_ones_share_the_rest() -> None:
    small, great, unknown = divide(150, [10, 1000, None])
    assert 10 < small < 12
    assert great == unknown == pytest.approx((150 - small) / 2)


def test_what_nobody_needs_is_shared_alike() -> None:
    busy, idle = divide(100, [40, 0])
    assert busy > 60
    assert idle > 20


@pytest.mark.parametrize(
    ("loads", "expected"),
    [((100, 100, 100), 150), ((300, 10, 0.2), 150), ((60, 60, 60), 150), ((50, 40, 20), 110), ((100, 20, 20), 140)],
)
def test_as_much_as_the_limit_allows_passes_after_the_first_reports(loads: tuple[float, ...], expected: float) -> None:
    world = World(LIMIT, [steady(each) for each in loads])
    world.run(40)
    assert near(world.rate(REPORT_S + 1, 20), expected)
    assert near(world.rate(20, 40), expected)


def test_load_that_moves_takes_its_share_along() -> None:
    moved: list[Loads] = [
        lambda t: 100 if t < 20 else 200,
        steady(100),
        lambda t: 100 if t < 20 else 0,
    ]
    world = World(LIMIT, moved)
    world.run(45)
    assert near(world.rate(10, 20))
    assert world.rate(20, 20 + ACTED_ON_S) <= LIMIT * 1.05
    assert near(world.rate(20 + ACTED_ON_S, 45))


def test_the_share_of_an_envoy_that_died_goes_to_the_others_once_it_could_have_come_back() -> None:
    world = World(LIMIT, [steady(100), steady(100), lambda t: 100 if t < 20 else None])
    world.run(20 + LINGER_S - 1)
    assert near(world.rate(10, 20))
    assert near(world.rate(20.5, 20 + LINGER_S - 1), 100)
    world.run(10)
    assert near(world.rate(20 + LINGER_S + 0.1, 20 + LINGER_S + 8))


def test_an_envoy_that_joins_gets_a_share_at_once_and_the_sum_stays() -> None:
    world = World(LIMIT, [steady(200), steady(100), lambda t: 100 if t >= 20 else 0])
    world.run(35)
    assert near(world.rate(20, 22))
    assert near(world.rate(22, 35))
    assert near(world.division.holders[2].held, 50)


def test_what_passed_before_the_first_assignment_is_paid_back() -> None:
    division = Division(LIMIT, burst=30, refresh_s=20)
    division.report(1, 0, allowed=1, denied=0, elapsed_s=0)
    assert division.assign(0) == {1: LIMIT}
    division.report(1, 5, allowed=1500, denied=0, elapsed_s=5)
    assert division.assign(5)[1] < LIMIT * 0.85
    division.sent(1, division.holders[1].told or 0, 5)
    for now in range(10, 90, 5):
        division.report(1, now, allowed=int(division.holders[1].held * 5), denied=500, elapsed_s=5)
        for who, share in division.assign(now).items():
            division.sent(who, share, now)
    assert division.holders[1].held == pytest.approx(LIMIT, rel=0.02)


def test_a_share_grows_only_when_the_smaller_one_of_another_is_on_its_way() -> None:
    division = Division(100, burst=5, refresh_s=20)
    division.report(1, 0, allowed=1, denied=0, elapsed_s=0)
    division.assign(0)
    division.report(2, 1, allowed=1, denied=0, elapsed_s=0)
    told = division.assign(1)
    assert told == {1: 50, 2: 0}
    assert not division.sent(2, 0, 1)
    assert division.assign(1) == {}
    assert division.sent(1, 50, 1)
    assert division.assign(1) == {2: 50}


def test_a_message_that_was_overtaken_changes_nothing() -> None:
    division = Division(100, burst=5, refresh_s=20)
    for who in (1, 2):
        division.report(who, 0, allowed=1, denied=0, elapsed_s=0)
    division.assign(0)
    division.report(3, 1, allowed=1, denied=0, elapsed_s=0)
    division.assign(1)
    division.leave(3, 1)
    division.left.clear()
    assert set(division.assign(2)) == {1, 2}
    assert not division.sent(1, 100 / 3, 2)
    assert division.held == 100


def test_one_that_comes_back_goes_on_with_what_it_had() -> None:
    division = Division(LIMIT, burst=30, refresh_s=20)
    for who in (1, 2):
        division.report(who, 0, allowed=1, denied=0, elapsed_s=0)
        for told, share in division.assign(0).items():
            division.sent(told, share, 0)
    division.leave(1, 10)
    division.report(3, 14, allowed=75 * 5, denied=100, elapsed_s=5)
    assert division.left == []
    assert division.holders[3].held == 75
    assert division.assign(14)[3] == pytest.approx(75, rel=0.1)


def test_after_a_start_envoys_keep_what_they_come_with_until_all_could_have_come() -> None:
    division = Division(LIMIT, burst=30, refresh_s=20, settled_at=SETTLE_S)
    told: dict[int, float] = {}
    for who, passed in ((1, 500), (2, 200), (3, 50)):
        division.report(who, who, allowed=passed, denied=300, elapsed_s=5)
        told |= division.assign(who)
    assert told == {1: 100, 2: 40, 3: 10}
    division.report(4, 4, allowed=1, denied=0, elapsed_s=0)
    assert division.assign(4) == {4: 0}
    # Two have more than their part of it: the others wait for that.
    assert set(division.assign(SETTLE_S)) == {1, 2}


def test_one_without_requests_for_long_is_found() -> None:
    division = Division(LIMIT, burst=30, refresh_s=20)
    division.report(1, 0, allowed=1, denied=0, elapsed_s=0)
    division.report(2, 0, allowed=1, denied=0, elapsed_s=0)
    division.report(2, IDLE_S, allowed=0, denied=1, elapsed_s=5)
    assert division.idle(IDLE_S) == []
    assert division.idle(IDLE_S + 1) == [1]


def test_an_edited_limit_is_told_at_once() -> None:
    division = Division(100, burst=5, refresh_s=20)
    division.report(1, 0, allowed=1, denied=0, elapsed_s=0)
    division.assign(0)
    division.change(40, 2)
    assert division.assign(1) == {1: 40}
    division.change(400, 20)
    assert division.assign(1) == {1: 400}


@st.composite
def lives(draw: st.DrawFn) -> list[Loads]:
    """Loads that step up and down, of Envoys that come and go, quiet from the 60th second on."""

    def life() -> Loads:
        steps = draw(st.lists(st.tuples(st.floats(0, 50), st.sampled_from([None, 0, 5, 40, 160, 400])), max_size=4))
        steps = [(0.0, draw(st.sampled_from([None, 30, 200]))), *sorted(steps, key=lambda step: step[0])]
        last = draw(st.sampled_from([None, 0, 20, 300]))

        def load(now: float) -> float | None:
            return last if now >= 60 else [value for at, value in steps if at <= now][-1]

        return load

    return [life() for _ in range(draw(st.integers(1, 5)))]


@settings(max_examples=30, deadline=None)
@given(lives())
def test_whatever_envoys_come_go_and_send_the_sum_stays_within_the_limit_and_finds_it(loads: list[Loads]) -> None:
    world = World(LIMIT, loads)
    world.run(100)
    for begin in range(0, 90, 5):
        assert world.rate(begin, begin + 10) - world.let_in(begin, begin + 10) <= LIMIT * 1.05
    wanted = min(LIMIT, sum(load(61) or 0.0 for load in loads))
    settled = 60 + LINGER_S + ACTED_ON_S
    assert world.rate(settled, 100) == pytest.approx(wanted, rel=0.05, abs=0.5)


def test_what_an_envoy_makes_up_makes_a_limit_smaller_for_some_minutes_alone() -> None:
    division = Division(LIMIT, burst=0.0, refresh_s=20)
    division.report(1, 0.0, allowed=0, denied=0, elapsed_s=0.0)
    (share,) = division.assign(0.0).values()
    division.report(1, 5.0, allowed=2**64 - 1, denied=0, elapsed_s=5.0)
    (smaller,) = division.assign(5.0).values()
    assert smaller < share
    for time in range(10, 400, 5):
        division.report(1, time, allowed=100, denied=100, elapsed_s=5.0)
    assert division.assign(400.0)[1] == pytest.approx(LIMIT)
