"""Encodes the commands that the Redis store sends."""

from __future__ import annotations

from collections.abc import Sequence

from ratelimit_service.algorithms.registry import TOGETHER
from ratelimit_service.checks import Check, Counter

# What every new counter sends, encoded but for the key.
_INCRBY_ONE = b"*3\r\n$6\r\nINCRBY\r\n$%d\r\n%b\r\n$1\r\n1\r\n"
_EXPIRE = b"*3\r\n$6\r\nEXPIRE\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n"


def command(*arguments: bytes | str | int) -> bytes:
    """Encodes a command in RESP."""
    parts = [b"*%d\r\n" % len(arguments)]
    for argument in arguments:
        content = argument if isinstance(argument, bytes) else str(argument).encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(content), content))
    return b"".join(parts)


def incrby(check: Check, start: int) -> bytes:
    """Adds the hits to the counter of the window that begins at `start`, named as envoyproxy/ratelimit names it."""
    counter = check.counter
    if counter.window != start:
        counter.window = start
        counter.sent_expiry = 0
        counter.key = b"%b%d" % (counter.prefix, start)
        counter.command = _INCRBY_ONE % (len(counter.key), counter.key)
    return counter.command if check.hits == 1 else command("INCRBY", counter.key, check.hits)


def key_of(check: Check, now: float) -> bytes:
    """Returns the key that the check counts in at that time."""
    counter, limit = check.counter, check.limit
    if limit.script is not None:
        return counter.prefix
    second = int(now)
    start = second - second % limit.seconds
    if counter.window != start:
        incrby(check, start)
    return counter.key


def expire(counter: Counter) -> bytes:
    """Has the counter of a window go when the window's length has passed."""
    seconds = b"%d" % counter.limit.seconds
    return _EXPIRE % (len(counter.key), counter.key, len(seconds), seconds)


def evalsha(check: Check, now_us: int | None) -> bytes:
    """Has the algorithm's script count; the server's clock counts unless a time is given."""
    counter = check.counter
    script = check.limit.script
    if check.together:
        return command("EVALSHA", TOGETHER.sha, *_arguments_together(check, now_us))
    assert script is not None
    if check.hits == 1 and now_us is None and not check.caller and check.patience_us < 0:
        if not counter.command:
            counter.command = command("EVALSHA", script.sha, *_arguments(check, now_us))
        return counter.command
    return command("EVALSHA", script.sha, *_arguments(check, now_us))


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
    return first._replace(together=tuple((index, _key(check, int(now)), check) for index, check in asked))


def _key(check: Check, second: int) -> bytes:
    # Notes on the counter stay as they are: not every store keeps the same.
    if check.limit.script is not None:
        return check.counter.prefix
    return b"%b%d" % (check.counter.prefix, second - second % check.limit.seconds)


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
