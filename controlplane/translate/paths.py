"""What matches `:path` where a rule is about the path: Envoy's descriptors and buckets see the query behind it, too."""

from __future__ import annotations

import re
from typing import Final

from controlplane import ir

_QUERY: Final = r"(?:\?.*)?"
# The parts of an expression (RE2) that may match a question mark without naming it, or the end of the path.
_PART: Final = re.compile(
    r"""
    (?P<quoted> \\Q (?s:.)*? (?: \\E | \Z ) )
    | (?P<end> \$ | \\z )
    | (?P<any> \. )
    | \\ (?P<other> [DWS] | P (?: \{ [^}]* \} | . ) )
    | \[ \^ (?P<none_of> \]? (?: \[:\^?\w+:\] | \\[pP]\{[^}]*\} | \\(?s:.) | [^\]\\] )* ) \]
    | (?P<one_of> \[ \]? (?: \[:\^?\w+:\] | \\[pP]\{[^}]*\} | \\(?s:.) | [^\]\\] )* \] )
    | \\ (?s:.)
    """,
    re.VERBOSE,
)


def path_regex(path: ir.PathRule) -> str:
    """Returns what matches `:path`."""
    if path.kind == "RegularExpression":
        return f"(?:{_PART.sub(_before_query, path.value)}){_QUERY}"
    if path.kind == "Exact":
        return f"{re.escape(path.value)}{_QUERY}"
    return rf"{re.escape(path.value.rstrip('/'))}(?:[/?].*)?"


def _before_query(found: re.Match[str]) -> str:
    """Returns a part of an expression as it is to be where a query may follow.

    Else `/search$` would not be about `/search?page=2`, and `.*/health` about `/orders?/health`.
    """
    if found["quoted"]:
        # The last one need not end.
        return found[0] if found[0].endswith(r"\E") else rf"{found[0]}\E"
    if found["end"]:
        return f"{_QUERY}$"
    if found["any"]:
        return "[^?]"
    if found["other"]:
        return rf"[^?\{found['other'].lower()[0]}{found['other'][1:]}]"
    none_of = found["none_of"]
    if none_of is None:
        return found[0]
    # As a range, so that a `-` that follows stays one.
    return rf"[^?-?\{none_of}]" if none_of.startswith("]") else f"[^?-?{none_of}]"
