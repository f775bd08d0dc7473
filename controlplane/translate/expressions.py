# pyright: standard, reportMissingTypeStubs=false
"""Regular expressions of RE2's syntax, rewritten so that they can be asked of a longer text than they were meant for.

A route's expression is held against the path alone, and a query parameter's against its value alone; a matcher in a
tree sees both only as parts of `:path`. An expression that cannot take the character that ends its part may be
followed by what comes behind that part. Whatever is not understood here is not rewritten.
"""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import groupby
from string import digits, hexdigits
from typing import Any, NamedTuple

import re2

# Matches nothing: what is left of a character that may not be there.
_NOTHING = r"[^\x00-\xFF]"
_ANCHORS = {"^": "head", r"\A": "head", "$": "tail", r"\z": "tail"}
_FLAGS = re.compile(r"\(\?[a-zA-Z-]*\)")
_NEWLINE = r"\n"
_BEYOND_ASCII = r"\x80-\xFF"


class Framed(NamedTuple):
    """An expression in its frame: what may come before the part that it is for, and after it.

    `plain` says that the part is a text, or one of some texts: whatever a request holds, they are told apart at once.
    """

    before: str
    core: str
    after: str
    plain: bool = False

    def __str__(self) -> str:
        return f"{self.before}(?:{self.core}){self.after}"


_AFTER_PATH = r"(?:\?\C*)?"
_AFTER_PARAMETER = r"(?:&\C*)?"


@lru_cache(maxsize=65536)
def on_path(pattern: str) -> Framed | None:
    """Returns an expression that holds for a path, with a query or without, where `pattern` holds for the path alone;
    None where that cannot be said."""
    held = without(pattern, "?")
    return None if held is None else Framed("", held, _AFTER_PATH)


@lru_cache(maxsize=65536)
def on_query(name: str, value: str, *, regex: bool) -> Framed | None:
    """Returns an expression that holds for a `:path` whose first query parameter of this name has this value, as
    Envoy reads it (raw, nothing decoded); None where that cannot be said."""
    before = rf"[^?]*\?(?:{_other_than(name)}&)*{re2.escape(name)}"
    if "&" in name or "=" in name or (not regex and "&" in value):
        return Framed("", _NOTHING, "")
    held = without(value, "&") if regex else re2.escape(value)
    if held is None:
        return None
    # A parameter without a sign of equality has an empty value.
    or_none = "|" if _takes(f"(?:{held})", "") else ""
    return Framed(before, f"=(?:{held}){or_none}", _AFTER_PARAMETER, plain=not regex)


@lru_cache(maxsize=65536)
def literal_prefix(pattern: str) -> str:
    """Returns what every text that the expression matches as a whole begins with; ASCII alone."""
    try:
        # Of characters, not of bytes as elsewhere: the upper bound then says more, and what is ASCII is the same.
        least, most = re2.compile(pattern).possiblematchrange(64)
    except re2.error:
        return ""
    found = ""
    for one, other in zip(least, most, strict=False):
        if one != other or one > 0x7F:
            break
        found += chr(one)
    return found


@lru_cache(maxsize=65536)
def size(pattern: str) -> int:
    """Returns the number of instructions that RE2 makes of an expression."""
    return _compiled(pattern).programsize


@lru_cache(maxsize=65536)
def without(pattern: str, banned: str) -> str | None:
    """Returns an expression, free of groups that capture and of anchors, that matches as a whole what `pattern` does,
    but for texts with the banned character, a sign of ASCII that is no letter and no digit; None where that cannot be
    said."""
    parser = _Parser(pattern, banned)
    try:
        found = parser.alternatives(head=True, tail=True)
        if parser.at != len(pattern):
            return None
        _compiled(found)
    except (_NotUnderstoodError, IndexError, ValueError, re2.error):
        return None
    return found


def _other_than(name: str) -> str:
    """An expression for query parameters of other names, as they stand between ampersands."""
    found = "[^=&][^&]*"
    for character in reversed(name):
        found = f"(?:[^{_in_class(character)}&][^&]*|{re2.escape(character)}(?:{found}))?"
    return found


class _NotUnderstoodError(Exception):
    pass


class _Parser:
    """Reads an expression and writes it anew: only what could match the banned character is changed."""

    def __init__(self, pattern: str, banned: str) -> None:
        self._pattern = pattern
        self._banned = banned
        self._dot_takes_newline = False
        self.at = 0

    def alternatives(self, *, head: bool, tail: bool) -> str:
        """Reads up to the end of the group. What is before it is the text's begin, where `head`, and so on."""
        outer = self._dot_takes_newline
        found = [self._sequence(head=head, tail=tail)]
        while self._next() == "|":
            self.at += 1
            found.append(self._sequence(head=head, tail=tail))
        self._dot_takes_newline = outer
        return "|".join(found)

    def _sequence(self, *, head: bool, tail: bool) -> str:
        found: list[str] = []
        while self._next() not in ("", "|", ")"):
            begins = head and all(_FLAGS.fullmatch(each) for each in found)
            anchor = self._anchor()
            if anchor is not None:
                self._check_anchor(anchor, begins=begins, tail=tail)
                continue
            found.append(self._repeated(head=begins, tail=tail))
        return "".join(found)

    def _anchor(self) -> str | None:
        found = next((each for each in _ANCHORS if self._pattern.startswith(each, self.at)), None)
        if found is None:
            return None
        self.at += len(found)
        return _ANCHORS[found]

    def _check_anchor(self, anchor: str, *, begins: bool, tail: bool) -> None:
        """An anchor goes without saying at the end that it stands for; elsewhere it is not understood."""
        ends = tail and self._next() in ("", "|", ")")
        if not (begins if anchor == "head" else ends):
            raise _NotUnderstoodError
        if self._quantifier():
            raise _NotUnderstoodError

    def _repeated(self, *, head: bool, tail: bool) -> str:
        atom = self._group(head=head, tail=tail) if self._next() == "(" else self._atom()
        while quantifier := self._quantifier():
            atom += quantifier
        return atom

    def _group(self, *, head: bool, tail: bool) -> str:
        outer = self._dot_takes_newline
        opening = self._group_opening()
        if opening.endswith(")"):
            return opening
        ending = self._end_of_group()
        after = self._pattern[ending + 1 : ending + 2]
        inner = self.alternatives(head=head and not self._quantified(ending + 1), tail=tail and after in ("", "|", ")"))
        if self.at != ending:
            raise _NotUnderstoodError
        self.at += 1
        self._dot_takes_newline = outer
        return f"{opening}{inner})"

    def _group_opening(self) -> str:
        """Reads `(`, `(?:`, `(?P<name>`, `(?flags:` or `(?flags)`; no group is left to capture."""
        self.at += 1
        if not self._pattern.startswith("?", self.at):
            return "(?:"
        self.at += 1
        if self._pattern.startswith(("P<", "<"), self.at):
            self.at = self._pattern.index(">", self.at) + 1
            return "(?:"
        start = self.at
        while self._pattern[self.at] not in ":)":
            self.at += 1
        flags = self._pattern[start : self.at]
        on, _, off = flags.partition("-")
        self._dot_takes_newline = (self._dot_takes_newline or "s" in on) and "s" not in off
        self.at += 1
        return f"(?{flags}{self._pattern[self.at - 1]}"

    def _end_of_group(self) -> int:
        """Finds the parenthesis that closes the group whose opening was read."""
        ahead = _Parser(self._pattern, self._banned)
        ahead.at = self.at
        ahead._skip()
        return ahead.at

    def _skip(self) -> None:
        depth = 0
        while True:
            character = self._pattern[self.at]
            if character == ")":
                if depth == 0:
                    return
                depth -= 1
            if character in "\\[":
                self._atom()
                continue
            if character == "(":
                depth += 1
            self.at += 1

    def _quantified(self, at: int) -> bool:
        return self._pattern[at : at + 1] in ("*", "+", "?", "{")

    def _quantifier(self) -> str:
        start = self.at
        if self._next() in ("*", "+", "?"):
            self.at += 1
        elif self._next() == "{":
            closing = self._pattern.find("}", self.at)
            bounds = self._pattern[self.at + 1 : closing].split(",") if closing > 0 else []
            if not (1 <= len(bounds) <= 2 and bounds[0].isdecimal() and all(b.isdecimal() or not b for b in bounds)):
                return ""
            self.at = closing + 1
        return self._pattern[start : self.at]

    def _next(self) -> str:
        return self._pattern[self.at : self.at + 1]

    # -- characters and classes --

    def _atom(self) -> str:
        character = self._next()
        if character == "[":
            return self._class()
        if character == "\\":
            return self._escape()
        self.at += 1
        if character == ".":
            return f"[^{_in_class(self._banned)}{'' if self._dot_takes_newline else _NEWLINE}]"
        if character == self._banned:
            return _NOTHING
        return character

    def _escape(self) -> str:
        kind = self._pattern[self.at + 1]
        if kind == "Q":
            end = self._pattern.find("\\E", self.at)
            literal = self._pattern[self.at + 2 : end if end >= 0 else None]
            self.at = end + 2 if end >= 0 else len(self._pattern)
            # What repeats such a text repeats its last character.
            return "".join(_NOTHING if each == self._banned else re2.escape(each) for each in literal)
        token = self._escaped()
        if kind in "bB":
            return token
        if kind in "C":
            raise _NotUnderstoodError
        if not _takes(token, self._banned):
            return token
        if kind in "DSW":
            return f"[^{token.lower()}{_in_class(self._banned)}]"
        if kind == "P" or token.startswith(r"\p{^"):
            return f"[^{_opposite(token)}{_in_class(self._banned)}]"
        if kind in "p":
            raise _NotUnderstoodError
        return _NOTHING

    def _escaped(self) -> str:
        r"""Reads one escape: `\d`, `\.`, `\x3f`, `\x{3F}`, `\077`, `\pN`, `\p{Greek}`."""
        start, kind = self.at, self._pattern[self.at + 1]
        self.at += 2
        if kind in "pPx" and self._next() == "{":
            self.at = self._pattern.index("}", self.at) + 1
        elif kind in "pP":
            self.at += 1
        elif kind == "x":
            self.at += 2
            if any(each not in hexdigits for each in self._pattern[start + 2 : self.at]):
                raise _NotUnderstoodError
        elif kind in digits:
            while self.at - start < 4 and self._next() in tuple("01234567"):
                self.at += 1
        return self._pattern[start : self.at]

    def _class(self) -> str:
        """Reads a class in brackets, and writes it without the banned character."""
        self.at += 1
        negated = self._next() == "^"
        self.at += negated
        items: list[str] = []
        first = True
        while first or self._next() != "]":
            items.append(self._item(keep=negated))
            first = False
        self.at += 1
        if negated:
            return f"[^{''.join(items)}{_in_class(self._banned)}]"
        return f"[{''.join(items)}]" if any(items) else _NOTHING

    def _item(self, *, keep: bool) -> str:
        """Reads one member of a class; `keep`s it whole, or writes it without the banned character."""
        low = self._member()
        if self._next() == "-" and self._pattern[self.at + 1] != "]":
            if len(low) > 1 and low[1] in "dDsSwWpP":
                raise _NotUnderstoodError
            self.at += 1
            high = self._member()
            token = f"{low}-{high}"
            if keep or not _takes(f"[{token}]", self._banned):
                return token
            before, after = chr(ord(self._banned) - 1), chr(ord(self._banned) + 1)
            parts = (f"{low}-{_in_class(before)}", f"{_in_class(after)}-{high}")
            return "".join(part for part in parts if _compiles(f"[{part}]"))
        if keep or not _takes(f"[{low}]", self._banned):
            return low
        if low.startswith("[:") or low[:2] in (r"\D", r"\S", r"\W"):
            return self._wide(low)
        if low[:2] in (r"\p", r"\P"):
            raise _NotUnderstoodError
        return ""

    def _member(self) -> str:
        if self._pattern.startswith("[:", self.at):
            start = self.at
            self.at = self._pattern.index(":]", self.at) + 2
            return self._pattern[start : self.at]
        if self._next() == "\\":
            if self._pattern[self.at + 1] in "QEbBAzC":
                raise _NotUnderstoodError
            return self._escaped()
        self.at += 1
        return _in_class(self._pattern[self.at - 1])

    def _wide(self, token: str) -> str:
        """Spells out the members of a class but for the banned character: those of ASCII, and all others or none."""
        inside = f"[{token}]"
        codes = [code for code in range(128) if chr(code) != self._banned and _takes(inside, chr(code))]
        ranges = [[code for _, code in run] for _, run in groupby(enumerate(codes), lambda pair: pair[1] - pair[0])]
        found = [rf"\x{{{run[0]:X}}}-\x{{{run[-1]:X}}}" for run in ranges]
        return "".join(found) + (_BEYOND_ASCII if _takes(inside, "é") else "")


def _opposite(token: str) -> str:
    return token.replace("{^", "{", 1) if token.startswith(r"\p") else rf"\p{token[2:]}"


def _in_class(character: str) -> str:
    return rf"\x{{{ord(character):X}}}" if character in "\\]^-[&~|?" or not character.isprintable() else character


def _takes(pattern: str, text: str) -> bool:
    return _compiled(pattern).fullmatch(text.encode()) is not None


def _compiles(pattern: str) -> bool:
    try:
        _compiled(pattern)
    except re2.error:
        return False
    return True


def _compiled(pattern: str) -> Any:
    """Compiles an expression as Envoy does, which sees bytes."""
    options = re2.Options()
    options.log_errors = False
    options.encoding = re2.Options.Encoding.LATIN1
    return re2.compile(pattern.encode(), options)
