"""Encodes the commands that the Redis store sends."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

from ratelimit_service.algorithms.fixed_window import RETURNED
from ratelimit_service.algorithms.registry import TOGETHER
from ratelimit_service.checks import Check, Counter

# What every new counter sends, encoded but for the key.
_INCRBY_ONE = b"*3\r\n$6\r\nINCRBY\r\n$%d\r\n%b\r\n$1\r\n1\r\n"
_EXPIRE = b"*3\r\n$6\r\nEXPIRE\r\n$%d\r\n%b\r\n%b"
_FIRST_ONE = _INCRBY_ONE + _EXPIRE


def command(*arguments: bytes | str | int) -> bytes:
    """Encodes a command in RESP."""
    return b"*%d\r\n%b" % (len(arguments), _words(arguments))


def _words(arguments: Iterable[bytes | str | int]) -> bytes:
    parts: list[bytes] = []
    for argument in arguments:
        if isinstance(argument, int):
            content = b"%d" % argument
        else:
            content = argument if isinstance(argument, bytes) else argument.encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(content), content))
    return b"".join(parts)


def incrby(check: Check, start: int) -> bytes:
    """Adds the hits to the counter of the window that begins at `start`, named as envoyproxy/ratelimit names it."""
    counter = check.counter
    if counter.window != start:
        _turn(counter, start)
    if check.hits != 1:
        return _several(check, counter.key)
    if not counter.command:
        counter.command = _INCRBY_ONE % (len(counter.key), counter.key)
    return counter.command


def first(check: Check, start: int) -> bytes:
    """The same, and has the counter go when the window's length has passed: what is sent first in a window."""
    counter = check.counter
    if counter.window != start:
        _turn(counter, start)
    key = counter.key
    if check.hits != 1:
        return _several(check, key) + expire(check, key)
    size = len(key)
    return _FIRST_ONE % (size, key, size, key, _seconds(check.limit.seconds))


def _several(check: Check, key: bytes) -> bytes:
    if check.hits < 0:
        return command("EVAL", RETURNED, 1, key, check.hits, check.limit.seconds)
    return command("INCRBY", key, check.hits)


def expire(check: Check, key: bytes) -> bytes:
    """Has a counter of the check go when the window's length has passed."""
    return _EXPIRE % (len(key), key, _seconds(check.limit.seconds))


@lru_cache(maxsize=1024)
def _seconds(seconds: int) -> bytes:
    return _words((seconds,))


def key_of(check: Check, now: float) -> bytes:
    """Returns the key that the check counts in at that time, and notes it."""
    counter, limit = check.counter, check.limit
    if limit.script is not None:
        return counter.prefix
    second = int(now)
    start = second - second % limit.seconds
    if counter.window != start:
        _turn(counter, start)
    return counter.key


def key_at(check: Check, now: float) -> bytes:
    """The same without a note: of a time that may have passed, or where not every store keeps the same."""
    if check.limit.script is not None:
        return check.counter.prefix
    second = int(now)
    return b"%b%d" % (check.counter.prefix, second - second % check.limit.seconds)


def _turn(counter: Counter, start: int) -> None:
    counter.window = start
    counter.sent_expiry = 0
    counter.key = b"%b%d" % (counter.prefix, start)
    counter.command = b""


def evalsha(check: Check, now_us: int | None) -> bytes:
    """Has the algorithm's script count; the server's clock counts unless a time is given."""
    if check.together:
        return command("EVALSHA", TOGETHER.sha, *_arguments_together(check, now_us))
    limit, counter = check.limit, check.counter
    assert limit.script is not None
    if check.hits != 1 or now_us is not None or check.patience_us >= 0:
        return command("EVALSHA", limit.script.sha, *_arguments(check, now_us))
    if not limit.counting.needs_caller:
        if not counter.command:
            counter.command = command("EVALSHA", limit.script.sha, *_arguments(check, None))
        return counter.command
    if not counter.command:
        # All but what differs from request to request.
        words = ("EVALSHA", limit.script.sha, *_arguments(check, None))
        counter.command = b"*%d\r\n%b" % (len(words), _words(words[:-2]))
    caller = check.caller
    return b"%b$%d\r\n%b\r\n$1\r\n%d\r\n" % (counter.command, len(caller), caller, check.ends)


def eval_whole(check: Check, now_us: int | None) -> bytes:
    """The same for a server that has forgotten the script."""
    if check.together:
        return command("EVAL", TOGETHER.body, *_arguments_together(check, now_us))
    assert check.limit.script is not None
    return command("EVAL", check.limit.script.body, *_arguments(check, now_us))


def decide(asked: Sequence[tuple[int, Check]], now: float) -> Check:
    """Returns a check that stands for several that one server decides in one call, all with keys in one slot.

    `asked` are the checks, with their places among the flight's replies; at least one has a script. What `evalsha`
    makes of it is answered with a list of integers, in this order.
    """
    first = next(check for _, check in asked if check.limit.script is not None)
    return first._replace(together=tuple((index, key_at(check, now), check) for index, check in asked))


def _arguments(check: Check, now_us: int | None) -> tuple[bytes | int, ...]:
    arguments = (1, check.counter.prefix, *check.limit.counting.arguments(check))
    return arguments if now_us is None else (*arguments, now_us)


def _arguments_together(check: Check, now_us: int | None) -> list[bytes | int]:
    parts = check.together
    refused = int(any(not each.take for _, _, each in parts))
    arguments = [len(parts), *(key for _, key, _ in parts), b"" if now_us is None else now_us, refused]
    for _, _, each in parts:
        limit = each.limit
        arguments += (limit.counting.number, int(limit.binding), *limit.counting.arguments(each))
    return arguments
