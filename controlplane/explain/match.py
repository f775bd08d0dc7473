# pyright: standard, reportMissingTypeStubs=false
"""Whether a match of a rule holds for a request, condition by condition, as Envoy judges it."""

from __future__ import annotations

import re2

from controlplane.explain.model import Check
from controlplane.explain.request import Seen
from controlplane.ir import Match, PathMatch, ValueMatch


def checks(match: Match, request: Seen) -> tuple[Check, ...]:
    """Returns the verdict on every condition of a match; it matches where all of them hold."""
    found = [Check("path", path_in_words(match.path), request.path, path_holds(match.path, request.path))]
    if match.method is not None:
        found.append(Check("method", match.method, request.method, match.method == request.method))
    found += [_value("header", each, request.headers.get(each.name, ())) for each in match.headers]
    query = request.query
    found += [
        _value("query parameter", each, (query[each.name],) if each.name in query else ()) for each in match.query
    ]
    return tuple(found)


def shortfall(match: Match, request: Seen) -> int:
    """Returns how many conditions of a match, besides its path, do not hold: at a fraction of what `checks` takes."""
    failed = int(match.method is not None and match.method != request.method)
    for each in match.headers:
        failed += not _value_holds(each, request.headers.get(each.name, ()))
    for each in match.query:
        failed += not (each.name in request.query and _value_holds(each, (request.query[each.name],)))
    return failed


def path_holds(path: PathMatch, asked: str) -> bool:
    """Says whether a path, without its query, is matched."""
    if path.kind == "Exact":
        return asked == path.value
    if path.kind == "RegularExpression":
        return fullmatch(path.value, asked)
    return path.value == "/" or asked == path.value or asked.startswith(f"{path.value}/")


def path_in_words(path: PathMatch) -> str:
    """Returns what is asked of the path."""
    if path.kind == "Exact":
        return f"exactly {path.value}"
    if path.kind == "RegularExpression":
        return f"all of it like {path.value}"
    return "any" if path.value == "/" else f"{path.value} or below"


def in_words(match: Match) -> str:
    """Returns a match in one line."""
    values = [*((each, "header") for each in match.headers), *((each, "query") for each in match.query)]
    others = [f"{kind} {each.name}{'~' if each.regex else '='}{each.value}" for each, kind in values]
    signs = {"Exact": "=", "PathPrefix": "", "RegularExpression": "~"}
    return " ".join(filter(None, [match.method, signs[match.path.kind] + match.path.value, *others]))


def _value(kind: str, wanted: ValueMatch, given: tuple[str, ...]) -> Check:
    """Judges a header or parameter; of several headers of one name, one is enough, each by itself."""
    holds = _value_holds(wanted, given)
    asked = f"like {wanted.value}" if wanted.regex else wanted.value
    return Check(f"{kind} {wanted.name}", asked, ", ".join(given) if given else None, holds)


def _value_holds(wanted: ValueMatch, given: tuple[str, ...]) -> bool:
    return any(fullmatch(wanted.value, each) if wanted.regex else each == wanted.value for each in given)


def fullmatch(pattern: str, text: str) -> bool:
    """Says whether an expression is about all of a text."""
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.fullmatch(pattern, text, options) is not None
    except re2.error:
        return False
