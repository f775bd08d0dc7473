"""Encodes the commands that the Redis store sends."""

from __future__ import annotations

from ratelimit_service.checks import Check, Counter


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
        counter.command = command("INCRBY", counter.key, 1)
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
    return command("EXPIRE", counter.key, counter.limit.seconds)


def evalsha(check: Check, tick: int | None) -> bytes:
    """Has the algorithm's script count; the server's clock counts unless a tick is given."""
    counter = check.counter
    script = check.limit.script
    assert script is not None
    if check.hits == 1 and tick is None and not check.caller:
        if not counter.command:
            counter.command = command("EVALSHA", script.sha, *_arguments(check, tick))
        return counter.command
    return command("EVALSHA", script.sha, *_arguments(check, tick))


def eval_whole(check: Check, tick: int | None) -> bytes:
    """The same for a server that has forgotten the script."""
    assert check.limit.script is not None
    return command("EVAL", check.limit.script.body, *_arguments(check, tick))


def _arguments(check: Check, tick: int | None) -> tuple[bytes | int, ...]:
    arguments = (1, check.counter.prefix, *check.limit.counting.arguments(check))
    return arguments if tick is None else (*arguments, tick)
