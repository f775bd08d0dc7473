"""The judge of answers under change finds what is wrong, and lets pass what is right."""

from __future__ import annotations

import time

from tests.support.storm.judge import BROKEN, Ask, Heard, Target


def target(*now: str) -> Target:
    return Target(Ask("/a", "a.example"), frozenset(now))


def heard(answer: str, *, at: float | None = None, envoy: str = "north") -> Heard:
    sent_at = time.monotonic() if at is None else at
    return Heard(answer, sent_at, sent_at + 0.001, envoy=envoy)


def test_only_what_is_allowed_passes_where_nothing_changes() -> None:
    steady = target("200 b1")
    assert steady.judge(heard("200 b1")) is None
    assert steady.judge(heard("200 b2")) == "allowed was 200 b1"
    assert steady.judge(heard("404")) is not None
    assert steady.judge(heard(BROKEN)) is not None


def test_a_change_allows_the_old_and_the_new_and_nothing_else() -> None:
    edited = target("200 b1")
    edited.moves_to(["200 b2"])
    assert edited.judge(heard("200 b1")) is None
    assert edited.judge(heard("200 b2", envoy="south")) is None
    assert edited.judge(heard("503")) == "allowed was 200 b1, or as of the change 200 b2"


def test_the_old_after_the_new_is_a_fault_at_the_same_envoy_alone() -> None:
    edited = target("200 b1")
    edited.moves_to(["200 b2"])
    now = time.monotonic()
    assert edited.judge(heard("200 b2", at=now)) is None
    assert edited.judge(heard("200 b1", at=now, envoy="north")) is None, "it was sent before the new one came"
    assert edited.judge(heard("200 b1", at=now + 1, envoy="south")) is None
    fault = edited.judge(heard("200 b1", at=now + 1, envoy="north"))
    assert fault is not None
    assert "had answered as after the change" in fault


def test_the_old_is_a_fault_once_the_change_is_in_effect() -> None:
    edited = target("200 b1")
    edited.moves_to(["404"])
    before = time.monotonic()
    edited.has_moved()
    assert edited.judge(heard("200 b1", at=before)) is None, "it was sent before"
    assert edited.judge(heard("200 b1", at=time.monotonic() + 1)) is not None
    assert edited.judge(heard("404", at=time.monotonic() + 1)) is None


def test_changes_upon_one_another_allow_all_that_was_on_the_way() -> None:
    edited = target("200 b1")
    edited.moves_to(["200 b2"])
    edited.moves_to(["200 b3"])
    assert all(edited.judge(heard(answer, envoy="")) is None for answer in ("200 b1", "200 b2", "200 b3"))
    edited.has_moved()
    assert edited.judge(heard("200 b2", at=time.monotonic() + 1)) is not None


def test_what_may_be_answered_only_in_between_is_a_fault_before_and_after() -> None:
    listener = target("404")
    listener.between = frozenset({"421"})
    assert listener.judge(heard("421")) is not None
    listener.moves_to(["200 b1"])
    assert listener.judge(heard("421")) is None
    listener.has_moved()
    assert listener.judge(heard("421", at=time.monotonic() + 1)) is not None


def test_only_an_answer_that_was_not_possible_before_proves_a_change() -> None:
    moved = target("200 b1")
    moved.moves_to(["200 b1", "200 b2"])
    assert moved.proof == {"200 b2"}
    moved.has_moved()
    assert moved.proof == {"200 b1", "200 b2"}
