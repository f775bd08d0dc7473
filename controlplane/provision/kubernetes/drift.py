"""What an object says in the fields that were applied: pure. Should that change, somebody else changed it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

_MISSING = "<missing>"


def projected(seen: object, applied: object) -> Any:
    """Returns what an object says in the fields that a document has.

    The API server writes some values in its own way (`0.5` of CPU as `500m`), so what it answered to an apply is what
    later states are compared with, not the document.
    """
    if isinstance(applied, Mapping):
        there: Mapping[str, Any] = cast("Any", seen) if isinstance(seen, Mapping) else {}
        fields = cast("Mapping[str, Any]", applied).items()
        return {key: projected(there.get(key, _MISSING), value) for key, value in fields}
    if isinstance(applied, list) and isinstance(seen, list):
        return _items(cast("list[Any]", seen), cast("list[Any]", applied))
    return seen


def _items(seen: list[Any], applied: list[Any]) -> list[Any]:
    """Items that have names are found by them: others may have added theirs."""
    if applied and all(_has_name(each) for each in applied):
        by_name = {each["name"]: each for each in seen if _has_name(each)}
        return [projected(by_name.get(each["name"], _MISSING), each) for each in applied]
    if len(seen) != len(applied):
        return seen
    return [projected(one, other) for one, other in zip(seen, applied, strict=True)]


def _has_name(item: object) -> bool:
    return isinstance(item, Mapping) and "name" in item
