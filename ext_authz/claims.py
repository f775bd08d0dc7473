"""Reads claims: nested ones, scopes and roles, and what of them can be a header or a descriptor."""

import base64
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any, cast

MAX_HEADER_VALUE = 4096


def find(claims: Mapping[str, Any], path: str) -> Any:
    """Returns the claim of that name, else the nested one with dots between its steps; None where there is none."""
    if path in claims:
        return claims[path]
    value: Any = claims
    for step in path.split("."):
        if not isinstance(value, dict) or step not in value:
            return None
        value = cast("dict[str, Any]", value)[step]
    return value


def words(value: Any) -> frozenset[str]:
    """Returns the items of a claim that is a list of strings or a string with spaces (RFC 8693 §4.2)."""
    if isinstance(value, str):
        return frozenset(value.split())
    if isinstance(value, list):
        return frozenset(item for item in cast("list[Any]", value) if isinstance(item, str))
    return frozenset()


def scopes(claims: Mapping[str, Any], path: str) -> frozenset[str]:
    """Returns the scopes: in the claim named, else in `scope`, else in `scp`."""
    if path:
        return words(find(claims, path))
    return words(claims.get("scope", claims.get("scp")))


def matches(value: Any, accepted: frozenset[str]) -> bool:
    """Whether a claim is one of the values, or has one among its items."""
    items: Iterable[Any] = cast("list[Any]", value) if isinstance(value, list) else (value,)
    return any(text is not None and text in accepted for text in map(scalar, items))


def scalar(value: Any) -> str | None:
    """Returns a string, number or boolean as Envoy's jwt_authn writes it; None for anything else."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value) if abs(value) < 10**30 else None
    if isinstance(value, float) and math.isfinite(value):
        return str(int(value)) if value.is_integer() and abs(value) < 2**53 else str(value)
    return None


def header_value(value: Any) -> str | None:
    """Returns what a header says of a claim: lists and objects as Base64 of their JSON, as Envoy's jwt_authn has it.

    None where there is no claim, or where it could not be sent unharmed (control characters, too long).
    """
    text = scalar(value)
    if text is None and isinstance(value, (list, dict)):
        text = base64.b64encode(json.dumps(value, separators=(",", ":")).encode()).decode()
    return text if text is not None and sendable(text) else None


def sendable(text: str) -> bool:
    """Whether a text can be a header's value: bounded, no control characters (header injection), encodable."""
    if len(text) > MAX_HEADER_VALUE or any(ord(c) < 0x20 or ord(c) == 0x7F or 0xD800 <= ord(c) < 0xE000 for c in text):
        return False
    return text == text.strip()
