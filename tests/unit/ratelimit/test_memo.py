"""What is remembered: bounded, of what comes again, and forgotten bit by bit."""

from __future__ import annotations

from ratelimit_service.memo import Memo


class Value:
    """Something that counts how many of its kind there are."""

    alive = 0

    def __init__(self) -> None:
        Value.alive += 1

    def __del__(self) -> None:
        Value.alive -= 1


def test_what_is_offered_is_held_from_the_second_time_on() -> None:
    memo: Memo[bytes, int] = Memo(8)
    assert not memo.offer(b"a", 1)
    assert (memo.get(b"a"), len(memo)) == (None, 0)
    assert memo.offer(b"a", 2)
    assert memo.get(b"a") == 2


def test_a_flood_of_keys_that_come_once_drives_nothing_out() -> None:
    memo: Memo[bytes, int] = Memo(8)
    memo.put(b"kept", 1)
    for number in range(100_000):
        memo.offer(b"%d" % number, number)
    assert memo.get(b"kept") == 1


def test_no_single_put_forgets_more_than_a_few_values() -> None:
    memo: Memo[int, Value] = Memo(100)
    for number in range(1000):
        before = Value.alive
        memo.put(number, Value())
        assert before + 1 - Value.alive <= 1
        assert Value.alive <= 300
