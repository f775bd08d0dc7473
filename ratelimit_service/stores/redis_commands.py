"""Encodes the commands that the Redis store sends, and holds its script."""

from __future__ import annotations

import hashlib

from ratelimit_service.checks import Check, Counter


def command(*arguments: bytes | str | int) -> bytes:
    """Encodes a command in RESP."""
    parts = [b"*%d\r\n" % len(arguments)]
    for argument in arguments:
        content = argument if isinstance(argument, bytes) else str(argument).encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(content), content))
    return b"".join(parts)


# A bucket is "LEVEL TICK": how full it was, and when. Numbers stay below 2^53, where a double is exact. The server's
# clock is read unless a tick is given, so that replicas whose clocks disagree share one bucket fairly.
TOKEN_BUCKET = b"""\
local cost, capacity, drain = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local tps, hits, tick = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6] or '')
if not tick then
  local time = redis.call('TIME')
  tick = time[1] * tps + math.floor(time[2] * tps / 1000000)
end
local level = 0
local held = redis.call('GET', KEYS[1])
if held then
  local then_level, then_tick = string.match(held, '^(%d+) (%d+)$')
  level, then_tick = tonumber(then_level), tonumber(then_tick)
  if tick > then_tick then
    level = math.max(0, level - (tick - then_tick) * drain)
  else
    tick = then_tick
  end
end
if hits == 0 then return level end
local added = level + hits * cost
if added > capacity then return -1 - level end
local ttl_ms = math.ceil((added / drain + 1) * 1000 / tps) + 1
redis.call('SET', KEYS[1], string.format('%.0f %.0f', added, tick), 'PX', ttl_ms)
return added
"""
TOKEN_BUCKET_SHA = hashlib.sha1(TOKEN_BUCKET, usedforsecurity=False).hexdigest().encode()
LOAD_TOKEN_BUCKET = command("SCRIPT", "LOAD", TOKEN_BUCKET)


def incrby(check: Check, start: int) -> bytes:
    """Adds the hits to the counter of the window that begins at `start`, named as envoyproxy/ratelimit names it."""
    counter = check.counter
    if counter.window != start:
        counter.window = start
        counter.sent_expiry = 0
        counter.key = b"%b%d" % (counter.prefix, start)
        counter.command = command("INCRBY", counter.key, 1)
    return counter.command if check.hits == 1 else command("INCRBY", counter.key, check.hits)


def expire(counter: Counter) -> bytes:
    """Has the counter of a window go when the window's length has passed."""
    return command("EXPIRE", counter.key, counter.limit.seconds)


def evalsha(check: Check, tick: int | None) -> bytes:
    """Takes tokens from a bucket; the server's clock counts unless a tick is given."""
    counter = check.counter
    if check.hits == 1 and tick is None:
        if not counter.command:
            counter.command = command("EVALSHA", TOKEN_BUCKET_SHA, *_arguments(check, tick))
        return counter.command
    return command("EVALSHA", TOKEN_BUCKET_SHA, *_arguments(check, tick))


def eval_whole(check: Check, tick: int | None) -> bytes:
    """The same for a server that has forgotten the script."""
    return command("EVAL", TOKEN_BUCKET, *_arguments(check, tick))


def _arguments(check: Check, tick: int | None) -> tuple[bytes | int, ...]:
    limit = check.limit
    arguments = (1, check.counter.prefix, limit.cost, limit.capacity, limit.drain, limit.tps, check.hits)
    return arguments if tick is None else (*arguments, tick)
