"""The shape that most manifests have, read line by line: block mappings, and lists, of scalars of one line each.

This is no YAML parser but a way around one: a document with a single line that is any less simple is left to libyaml.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Final, TypeAlias, cast

from controlplane.sources.plain import resolve_plain

_KEY: Final = r"[A-Za-z_][A-Za-z0-9_./\-]{0,127}"
# ASCII alone, without `: ` and ` #` in it, and with nothing in front that begins something else.
_PLAIN: Final = r"(?:[A-Za-z0-9/_.$^(+~<=]|-(?=[0-9]))(?:[!-9;-~]|:(?=[!-~])| ++(?=[!\"$-~]))*+"
_LINE: Final = re.compile(
    rf"( *)(- )?(?:({_KEY}):(?= |\Z))?"
    rf"(?: *(?:({_PLAIN})|'([ -&(-~]*)'|\"([ !#-\[\]-~]*)\"|(\{{\}}|\[\])))?"
    r"(?: +#[ -~]*| *)"
)
_BLANK: Final = re.compile(r" *(?:#[ -~]*)?")
# Well below the bound that others are held to.
_MAX_DEPTH: Final = 48
_MAX_REMEMBERED: Final = 200


class Other:
    """In place of data: the document has another shape."""


class _Below:
    """In place of a value: it is on the lines that follow, if there is one."""


_Line: TypeAlias = tuple[int, bool, str | None, Any]
"""Column, whether an item of a list begins there, key (or None), and value (`dict` or `list` for an empty one)."""


def read_blocks(text: str) -> object:
    """The data of a document, the same that libyaml finds; `Other` if it has to be asked."""
    here: Any = {}
    top, indent = here, 0
    outer: list[tuple[int, Any]] = []
    open_key: str | None = None  # A key of `here` whose value may be on the lines that follow.
    for text_line in text.split("\n"):
        # Lines repeat themselves from one manifest to the next.
        line = _known_line(text_line) if len(text_line) <= _MAX_REMEMBERED else _read_line(text_line)
        if line is None:
            continue
        if line is Other or len(outer) > _MAX_DEPTH:
            return Other
        column, item, key, value = cast("_Line", line)
        if column > indent or (item and column == indent and here.__class__ is dict):
            # The items of a list may stand right below its key, at the same column.
            if open_key is None:
                return Other
            outer.append((indent, here))
            here[open_key] = here = [] if item else {}
            indent = column
        else:
            while outer and (column < indent or (not item and here.__class__ is list)):
                indent, here = outer.pop()
            if column != indent or item is (here.__class__ is dict):
                return Other
        open_key = None
        if value.__class__ is type and value is not _Below:
            value = value()
        if key is None:
            here.append(value)
            continue
        if item:
            outer.append((indent, here))
            inner: dict[str, Any] = {}
            here.append(inner)
            here, indent = inner, column + 2
        if key in here:
            return Other
        if value is _Below:
            open_key, value = key, None
        here[key] = value
    return top or Other


def _read_line(text: str) -> _Line | type[Other] | None:
    """What is on a line; None if nothing is."""
    found = _LINE.fullmatch(text)
    if found is None:
        return None if _BLANK.fullmatch(text) else Other
    space, item, key, plain, single, double, empty = found.groups()
    column, value = len(space), _value(plain, single, double, empty)
    if key is None:
        if item is None:
            # Only what is blank has neither.
            return Other if value is not _Below else None
        return Other if value is _Below else (column, True, None, value)
    # `yes` and `null` are no strings.
    return (column, item is not None, key, value) if isinstance(resolve_plain(key), str) else Other


_known_line: Final = lru_cache(maxsize=16_384)(_read_line)


def _value(plain: str | None, single: str | None, double: str | None, empty: str | None) -> Any:
    if plain is not None:
        return resolve_plain(plain)
    if single is not None:
        return single
    if double is not None:
        return double
    return _Below if empty is None else dict if empty == "{}" else list
