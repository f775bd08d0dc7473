"""The Lua that Redis runs: each algorithm gives one function, called alone or with those of a request's other checks.

A function takes (key, arguments, index of its first argument, time in µs) and returns: the reply; whether it is a
refusal; the reply if nothing is taken; and what writes the state, unless that is done or there is nothing to write.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

# The server's clock is read unless a time is given, so that replicas whose clocks disagree share a counter fairly.
_CLOCK = b"""\
local function clock(given)
  if given and given ~= '' then return tonumber(given) end
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end
"""

_ONE = b"""\
local reply, _, _, write = count(KEYS[1], ARGV, 1, clock(ARGV[%d]))
if write then write() end
return reply
"""

# ARGV: the time; how many checks must not take; then for each key the number of its function, 1 if its refusal counts,
# and its arguments. What one check counts only if it admits, it takes only if no check refuses. Two limits may be on
# one key: what the second was told before the first took is told anew.
_SEVERAL = b"""\
local _
local now, refused, at = clock(ARGV[1]), ARGV[2] ~= '0', 3
local replies, untaken, writes, places, written = {}, {}, {}, {}, {}
for k = 1, #KEYS do
  local which = tonumber(ARGV[at])
  places[k] = at
  local over
  replies[k], over, untaken[k], writes[k] = functions[which](KEYS[k], ARGV, at + 2, now)
  if over and ARGV[at + 1] == '1' then refused = true end
  at = at + 2 + sizes[which]
end
for k = 1, #KEYS do
  if writes[k] then
    if not refused and written[KEYS[k]] then
      local which = tonumber(ARGV[places[k]])
      replies[k], _, _, writes[k] = functions[which](KEYS[k], ARGV, places[k] + 2, now)
    end
    written[KEYS[k]] = true
    if refused then replies[k] = untaken[k] elseif writes[k] then writes[k]() end
  end
end
return replies
"""


@dataclass(frozen=True, slots=True)
class Function:
    """An algorithm in Lua: `body` is a function without its name, which is given `size` arguments."""

    body: bytes
    size: int


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script, with the digest by which EVALSHA names it."""

    body: bytes
    sha: bytes

    @classmethod
    def of(cls, body: bytes) -> Script:
        """Returns the script with its digest."""
        return cls(body, hashlib.sha1(body, usedforsecurity=False).hexdigest().encode())

    @classmethod
    def alone(cls, function: Function) -> Script:
        """Returns the script that counts one check, on one key: ARGV are its arguments, then the time, if not the
        server's. It replies with an integer.
        """
        return cls.of(_CLOCK + b"local count = " + function.body + _ONE % (function.size + 1))

    @classmethod
    def together(cls, functions: Sequence[Function]) -> Script:
        """Returns the script that decides several checks, each on its key. It replies with an integer for each."""
        bodies = b",\n".join(function.body for function in functions)
        sizes = b", ".join(b"%d" % function.size for function in functions)
        return cls.of(_CLOCK + b"local functions = {\n" + bodies + b"}\nlocal sizes = {" + sizes + b"}\n" + _SEVERAL)
