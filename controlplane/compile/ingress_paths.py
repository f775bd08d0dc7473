"""Paths of an Ingress, and what ingress-nginx rewrites them to, as matches and filters of HTTPRoutes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from controlplane.api.ingress import HTTPIngressPath
from controlplane.compile.ingress_annotations import Settings

_REGEX: Final = re.compile(r"[\\^$*+?()\[\]{}|]")
_LITERAL: Final = r"(?:/[^\\^$*+?()\[\]{}|]*?)?"
# What people write to cut off a prefix: `/api(/|$)(.*)` with `/$2`, and `/api/(.*)` or `/api/?(.*)` with `/$1`.
_CUT: Final = re.compile(rf"\^?(?P<prefix>{_LITERAL})(?:(?P<both>\(/\|\$\))|/\??)\(\.\*\)\$?")
_TARGET: Final = re.compile(r"(?P<new>[^$]*/)\$(?P<group>\d)")
# What begins with a parenthesis and is no group that can be referred to.
_OPENS: Final = re.compile(r"\\.|\(\?[:imsU-]|\[\(\]")
_GROUP: Final = re.compile(r"\$(\d)")


@dataclass(frozen=True, slots=True)
class Matched:
    """A path as `matches[].path` has it, and how it is rewritten: by a URLRewrite filter, or by an expression."""

    path: Mapping[str, str]
    rewrite: Mapping[str, Any] | None = None
    expression: tuple[str, str] | None = None
    """Pattern and substitution, both as RE2 has them."""


def matched(each: HTTPIngressPath, settings: Settings) -> Matched:
    """Returns what a path matches and becomes."""
    path = each.path or "/"
    regex = (settings.regex or settings.rewrite is not None) and _REGEX.search(path) is not None
    if settings.rewrite is None:
        return Matched(_expression(path) if regex else _plain(each, path))
    prefix = _cut(path, settings.rewrite)
    if prefix is not None:
        return Matched({"type": "PathPrefix", "value": prefix[0]}, _replace("Prefix", prefix[1]))
    match = _expression(path) if regex else _plain(each, path)
    groups = _OPENS.sub("", path).count("(") if regex else 0
    if "$" not in settings.rewrite or not groups:
        return Matched(match, _replace("Full", _GROUP.sub("", settings.rewrite)))
    return Matched(match, expression=(f"^(?i:{_without_anchor(path)}).*", _substitution(settings.rewrite, groups)))


def _plain(each: HTTPIngressPath, path: str) -> Mapping[str, str]:
    return {"type": "Exact" if each.path_type == "Exact" else "PathPrefix", "value": path}


def _expression(path: str) -> Mapping[str, str]:
    """ingress-nginx looks for the expression at the start of the path, in any case."""
    return {"type": "RegularExpression", "value": f"(?i:{_without_anchor(path)}).*"}


def _without_anchor(path: str) -> str:
    return path.removeprefix("^")


def _cut(path: str, target: str) -> tuple[str, str] | None:
    """Returns a prefix and what takes its place, where that is all that path and target mean."""
    found, wanted = _CUT.fullmatch(path), _TARGET.fullmatch(target)
    if found is None or wanted is None:
        return None
    if wanted["group"] != ("2" if found["both"] else "1"):
        return None
    return found["prefix"] or "/", wanted["new"]


def _replace(what: str, value: str) -> Mapping[str, Any]:
    if what == "Full":
        return {"path": {"type": "ReplaceFullPath", "replaceFullPath": value}}
    return {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": value}}


def _substitution(target: str, groups: int) -> str:
    """A group that the path does not have is empty to nginx, and a fault to RE2."""
    escaped = target.replace("\\", r"\\")
    return _GROUP.sub(lambda group: rf"\{group[1]}" if 0 < int(group[1]) <= groups else "", escaped)
