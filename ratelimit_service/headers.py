"""Tells clients of their limits in response headers, as drafts of two generations write them.

`X-RateLimit-Limit`, `-Remaining`, `-Reset`: draft-polli-ratelimit-headers-03, as Envoy writes them. `RateLimit-Policy`
and `RateLimit`: draft-ietf-httpapi-ratelimit-headers-11, structured fields (RFC 9651).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from ratelimit_service.model import Algorithm, Rule
from ratelimit_service.wire import header

# RFC 9651 §3.3.1: an Integer has at most fifteen digits.
_MAX_INTEGER = 10**15 - 1
_PREPARED_LENGTHS = 256


class ResponseHeaders(StrEnum):
    """Which headers an answer carries beside `Retry-After`."""

    NONE = "none"
    PLAIN = "plain"
    """Three headers of one number each, as envoyproxy/ratelimit writes them."""
    DRAFT_03 = "draft-03"
    """The same three, and the policies that apply in the first."""
    IETF = "ietf"
    """`RateLimit-Policy` and `RateLimit`."""
    BOTH = "both"
    """`draft-03` and `ietf`."""


@dataclass(frozen=True, slots=True)
class HeaderNames:
    """What the three headers are called; those of the IETF have their names."""

    limit: str = "x-ratelimit-limit"
    remaining: str = "x-ratelimit-remaining"
    reset: str = "x-ratelimit-reset"


Numbers = Callable[[bytes, int, int], bytes]
"""Takes a limit's item, what remains and the seconds until it resets; returns the headers that tell, encoded."""


class HeaderWriter:
    """Encodes headers; what a rule determines of them is asked for once (`fixed`, `items`), the rest each time."""

    __slots__ = ("_legacy_names", "_legacy_policies", "_prefixes", "_reset", "_shows_ietf", "_shows_legacy", "numbers")

    def __init__(self, style: ResponseHeaders, names: HeaderNames = HeaderNames()) -> None:
        self._shows_legacy = style in (ResponseHeaders.PLAIN, ResponseHeaders.DRAFT_03, ResponseHeaders.BOTH)
        self._shows_ietf = style in (ResponseHeaders.IETF, ResponseHeaders.BOTH)
        self._legacy_policies = style is not ResponseHeaders.PLAIN
        self._legacy_names = names
        # By how many digits the number has: all of the header that comes before them.
        self._prefixes = _prefixes(names.remaining.encode(), 24)
        self._reset: Callable[[int], bytes] = lru_cache(maxsize=8192)(_number_header(names.reset.encode()))
        self.numbers: Numbers = self._ietf_numbers if self._shows_ietf else _no_numbers
        if self._shows_legacy:
            self.numbers = self._both_numbers if self._shows_ietf else self._legacy_numbers

    def numbers_of(self, rule: Rule) -> Numbers:
        """Returns what tells the numbers of a rule's limit."""
        return _no_numbers if rule.hidden else self.numbers

    def fixed(self, rules: Sequence[Rule]) -> tuple[bytes, ...]:
        """Returns what does not change of the headers, for each of the rules being the one that they tell of."""
        shown = iter(self._fixed([rule for rule in rules if not rule.hidden]))
        return tuple(b"" if rule.hidden else next(shown) for rule in rules)

    def _fixed(self, rules: Sequence[Rule]) -> tuple[bytes, ...]:
        limits = [b""] * len(rules)
        policies = b""
        if self._shows_legacy:
            name = self._legacy_names.limit.encode()
            shown = b"".join(_legacy_policy(rule) for rule in rules) if self._legacy_policies else b""
            limits = [header(name, b"%d%b" % (rule.requests_per_unit, shown)) for rule in rules]
        if self._shows_ietf:
            named = zip(policy_names(rules), rules, strict=True)
            policies = header(b"ratelimit-policy", b", ".join(name + _policy(rule) for name, rule in named))
        return tuple(limit + policies for limit in limits)

    def items(self, rules: Sequence[Rule]) -> tuple[bytes, ...]:
        """Returns for each rule how its item of `RateLimit` begins."""
        shown = [rule for rule in rules if not rule.hidden] if self._shows_ietf else []
        names = iter(policy_names(shown))
        return tuple(next(names) + b";r=" if self._shows_ietf and not rule.hidden else b"" for rule in rules)

    def several(self, least: int, items: Sequence[bytes], verdicts: Sequence[tuple[bool, int, int] | None]) -> bytes:
        """Returns the headers for a request with several limits; the number of `least` stands for all where one can."""
        found = b""
        told = verdicts[least]
        if self._shows_legacy and told is not None:
            found = self._legacy_numbers(b"", told[1], told[2])
        if self._shows_ietf:
            known = [
                (item, verdict) for item, verdict in zip(items, verdicts, strict=True) if item and verdict is not None
            ]
            value = b", ".join(b"%b%d;t=%d" % (item, remaining, reset) for item, (_, remaining, reset) in known)
            found += header(b"ratelimit", value)
        return found

    def _legacy_numbers(self, item: bytes, remaining: int, reset_s: int) -> bytes:
        digits = b"%d" % remaining
        return b"%b%b%b" % (self._prefixes[len(digits)], digits, self._reset(reset_s))

    def _ietf_numbers(self, item: bytes, remaining: int, reset_s: int) -> bytes:
        value = b"%b%d;t=%d" % (item, remaining, reset_s)
        if len(value) < _PREPARED_LENGTHS:
            return _RATELIMIT[len(value)] + value
        return header(b"ratelimit", value)

    def _both_numbers(self, item: bytes, remaining: int, reset_s: int) -> bytes:
        return self._legacy_numbers(item, remaining, reset_s) + self._ietf_numbers(item, remaining, reset_s)


def policy_names(rules: Sequence[Rule]) -> list[bytes]:
    """Returns a name for each rule, a quoted String (RFC 9651 §3.3.3), no two of them alike."""
    # In order; how often each was wanted, lest many rules of one name be counted again for each.
    names: dict[bytes, None] = {}
    wanted: dict[str, int] = {}
    for rule in rules:
        base = rule.name if _can_be_quoted(rule.name) else _name_of(rule)
        number = wanted.get(base, 0) + 1
        name = quoted(base if number == 1 else f"{base}-{number}")
        while name in names:
            number += 1
            name = quoted(f"{base}-{number}")
        wanted[base] = number
        names[name] = None
    return list(names)


def quoted(text: str) -> bytes:
    """Returns a quoted string, which RFC 9651 (String) and RFC 9110 (quoted-string) write alike."""
    return b'"%b"' % text.replace("\\", "\\\\").replace('"', '\\"').encode("ascii")


def _can_be_quoted(name: str) -> bool:
    return bool(name) and name.isascii() and name.isprintable()


def _name_of(rule: Rule) -> str:
    # What descriptors are called inside is nobody's business outside.
    if rule.algorithm is Algorithm.CONCURRENCY:
        return f"{rule.requests_per_unit}-concurrent"
    return f"{rule.requests_per_unit}-per-{rule.per.replace(' ', '-')}"


def _policy(rule: Rule) -> bytes:
    if rule.algorithm is Algorithm.CONCURRENCY:
        return b';q=%d;qu="concurrent-requests"' % rule.requests_per_unit
    if rule.algorithm is Algorithm.TOKEN_BUCKET and rule.burst and rule.requests_per_unit:
        # The quota is what may be used at once, its window the time in which that comes back.
        window_s = -(-rule.burst * rule.seconds // rule.requests_per_unit)
        return b";q=%d;w=%d" % (rule.burst, min(window_s, _MAX_INTEGER))
    return b";q=%d;w=%d" % (rule.requests_per_unit, rule.seconds)


def _legacy_policy(rule: Rule) -> bytes:
    policy = b", %d;w=%d" % (rule.requests_per_unit, rule.seconds)
    if rule.algorithm is Algorithm.TOKEN_BUCKET and rule.burst:
        policy += b";burst=%d" % rule.burst
    return policy + b";name=" + quoted(rule.name) if _can_be_quoted(rule.name) else policy


def _number_header(name: bytes) -> Callable[[int], bytes]:
    def encode(number: int) -> bytes:
        return header(name, b"%d" % number)

    return encode


def _no_numbers(item: bytes, remaining: int, reset_s: int) -> bytes:
    return b""


def _prefixes(name: bytes, lengths: int) -> tuple[bytes, ...]:
    return tuple(header(name, b"0" * length)[: -length or None] for length in range(lengths))


_RATELIMIT = _prefixes(b"ratelimit", _PREPARED_LENGTHS)
