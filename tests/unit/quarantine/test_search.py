"""Whoever is at fault is found, and nobody else, in few trials."""

from __future__ import annotations

from collections.abc import Callable, Collection
from math import log2

from hypothesis import given
from hypothesis import strategies as st

from controlplane.quarantine.search import Search

SUSPECTS = list(range(40))


def run(search: Search[int], refused: Callable[[frozenset[int]], str | None]) -> int:
    """Asks about every trial; returns how many there were."""
    trials = 0
    while not search.done:
        trials += 1
        assert trials < 2000, "the search never ends"
        message = refused(search.trial)
        if message is None:
            search.accepted()
        else:
            search.rejected(message)
    return trials


@given(bad=st.sets(st.sampled_from(SUSPECTS), min_size=1))
def test_exactly_those_at_fault_are_convicted(bad: set[int]) -> None:
    search = Search(SUSPECTS, "bad")
    trials = run(search, lambda trial: "bad" if trial & bad else None)
    assert search.convicted.keys() == bad
    assert search.trial == set(SUSPECTS) - bad
    assert not search.unexplained
    assert trials <= (len(bad) + 1) * (log2(len(SUSPECTS)) + 3)


@given(bad=st.sets(st.sampled_from(SUSPECTS), min_size=1, max_size=4), heeded=st.booleans())
def test_a_message_that_names_the_culprit_saves_trials(bad: set[int], heeded: bool) -> None:
    def named(keys: Collection[int], message: str) -> Collection[int]:
        return [key for key in keys if heeded and message == f"number {key}"]

    def refused(trial: frozenset[int]) -> str | None:
        return f"number {min(trial & bad)}" if trial & bad else None

    search = Search(SUSPECTS, f"number {min(bad)}", named=named)
    trials = run(search, refused)
    assert search.convicted == {key: f"number {key}" for key in bad}
    assert not heeded or trials <= 3 * len(bad) + 1


@given(wrong=st.sampled_from(SUSPECTS), bad=st.sampled_from(SUSPECTS))
def test_a_message_that_names_the_wrong_one_does_no_harm(wrong: int, bad: int) -> None:
    search = Search(SUSPECTS, "x", named=lambda keys, message: [wrong] if wrong in keys else [])
    run(search, lambda trial: "x" if bad in trial else None)
    assert search.convicted.keys() == {bad}


@given(pair=st.sets(st.sampled_from(SUSPECTS), min_size=2, max_size=2), alone=st.sets(st.sampled_from(SUSPECTS)))
def test_of_two_that_are_bad_together_one_is_convicted(pair: set[int], alone: set[int]) -> None:
    search = Search(SUSPECTS, "bad")
    run(search, lambda trial: "bad" if trial & alone or trial >= pair else None)
    others = search.convicted.keys() - alone
    assert others == (set() if pair & alone else {max(pair)})


def test_what_is_rejected_without_any_suspect_is_nobody_s_fault() -> None:
    search = Search(SUSPECTS, "bad")
    run(search, lambda trial: "always")
    assert search.unexplained
    assert search.convicted == {}


@given(bad=st.sets(st.sampled_from(SUSPECTS), min_size=1, max_size=3), turn=st.integers(0, 6))
def test_what_turns_bad_for_another_reason_convicts_nobody_more(bad: set[int], turn: int) -> None:
    trials = 0

    def refused(trial: frozenset[int]) -> str | None:
        nonlocal trials
        trials += 1
        return "bad" if trials > turn or trial & bad else None

    search = Search(SUSPECTS, "bad")
    run(search, refused)
    assert search.convicted.keys() <= bad | set(list(search.convicted)[-1:])


@given(
    bad=st.sets(st.sampled_from(SUSPECTS), min_size=1, max_size=3),
    leaving=st.lists(st.tuples(st.integers(0, 8), st.sampled_from(SUSPECTS)), max_size=5),
)
def test_who_leaves_meanwhile_is_not_convicted_and_hides_nobody(bad: set[int], leaving: list[tuple[int, int]]) -> None:
    search = Search(SUSPECTS, "bad")
    left: set[int] = set()
    trials = 0
    while not search.done:
        for when, who in leaving:
            if when == trials and who not in left:
                search.leave(who)
                left.add(who)
        trials += 1
        if search.trial & bad - left:
            search.rejected("bad")
        else:
            search.accepted()
    assert search.convicted.keys() == bad - left
    assert search.trial == set(SUSPECTS) - bad - left


@given(bad=st.sets(st.integers(0, 60), min_size=1, max_size=4), when=st.integers(0, 8))
def test_who_joins_later_is_judged_too(bad: set[int], when: int) -> None:
    more = list(range(40, 61))
    search = Search(SUSPECTS, "bad")
    trials, joined = 0, False
    while not search.done:
        trials += 1
        # Until they join they are in force whatever is tried.
        trial = search.trial | (frozenset[int]() if joined else frozenset(more))
        if not joined and trials > when and trial & bad & set(more):
            search.join(more, "bad")
            joined = True
        elif trial & bad:
            search.rejected("bad")
        else:
            search.accepted()
    if joined:
        assert search.convicted.keys() >= bad & set(more)
    if joined and when == 0:
        assert search.convicted.keys() == bad
