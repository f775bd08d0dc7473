"""What unquoted scalars mean: YAML 1.1 as Kubernetes reads it (`yes` is true, times stay text)."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

_WORDS: Final[dict[str, object]] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("y", "Y", "yes", "Yes", "YES", "on", "On", "ON", "true", "True", "TRUE"), True),
    **dict.fromkeys(("n", "N", "no", "No", "NO", "off", "Off", "OFF", "false", "False", "FALSE"), False),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), float("inf")),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), float("-inf")),
}
_INT: Final = re.compile(r"[-+]?(?:0[xX][0-9a-fA-F_]+|0[bB][01_]+|0[oO]?[0-7_]+|[1-9][0-9_]*|0)")
_FLOAT: Final = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
_OCTAL: Final = re.compile(r"([-+]?)0([0-7]+)")
# Longer digits are identifiers rather than numbers, and costly to convert.
_MAX_DIGITS: Final = 40


def resolve_plain(text: str) -> object:
    """The value of an unquoted scalar."""
    return text if len(text) > _MAX_DIGITS else _resolve(text)


@lru_cache(maxsize=16_384)
def _resolve(text: str) -> object:
    # Cached: manifests repeat themselves, and equal texts then share one string.
    if text in _WORDS:
        return _WORDS[text]
    if text[0] in "0123456789+-.":
        if _INT.fullmatch(text) and text[-1] != "_":
            return _int(text.replace("_", ""))
        if _FLOAT.fullmatch(text):
            return float(text)
    return text


def _int(text: str) -> int:
    octal = _OCTAL.fullmatch(text)
    return int(octal.expand(r"\1\2"), 8) if octal else int(text, 0)
