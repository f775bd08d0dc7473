"""How Kubernetes merges a patch into a document: JSON merge patch, and strategic merge for lists of named things."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, cast

# The field that tells the items of a list apart; a list under any other name is replaced. As Kubernetes' own types say.
_KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "containers": ("name",),
    "initContainers": ("name",),
    "volumes": ("name",),
    "env": ("name",),
    "imagePullSecrets": ("name",),
    "hostAliases": ("ip",),
    "volumeMounts": ("mountPath",),
    "volumeDevices": ("devicePath",),
    "topologySpreadConstraints": ("topologyKey",),
    "ports": ("containerPort", "port"),
}


def merged(
    document: Mapping[str, Any], patch: Mapping[str, Any], *, how: Literal["StrategicMerge", "JSONMerge"]
) -> Any:
    """Returns the document with the patch merged into it; neither is changed."""
    return json_merge(document, patch) if how == "JSONMerge" else strategic_merge(document, patch)


def json_merge(document: object, patch: object) -> Any:
    """Merges as RFC 7386 says: null removes, mappings merge, anything else replaces."""
    if not isinstance(patch, Mapping):
        return patch
    out = dict(cast("Mapping[str, Any]", document)) if isinstance(document, Mapping) else {}
    for key, value in cast("Mapping[str, Any]", patch).items():
        if value is None:
            out.pop(key, None)
        else:
            out[key] = json_merge(out.get(key), value)
    return out


def strategic_merge(document: object, patch: object, *, name: str = "") -> Any:
    """Merges as `kubectl patch --type strategic` does, with its `$patch: delete` and `$patch: replace`."""
    if isinstance(patch, Mapping):
        return _maps(document, cast("Mapping[str, Any]", patch))
    if isinstance(patch, list) and isinstance(document, list):
        return _lists(cast("list[Any]", document), cast("list[Any]", patch), _KEYS.get(name, ()))
    return [_plain(each) for each in cast("list[Any]", patch)] if isinstance(patch, list) else patch


def _maps(document: object, patch: Mapping[str, Any]) -> dict[str, Any]:
    before = dict(cast("Mapping[str, Any]", document)) if isinstance(document, Mapping) else {}
    directive = patch.get("$patch")
    if directive == "delete":
        return {}
    out = {} if directive == "replace" else before
    for key, value in patch.items():
        if key.startswith("$"):
            continue
        if value is None:
            out.pop(key, None)
        else:
            out[key] = strategic_merge(out.get(key), value, name=key)
    return out


def _lists(document: Sequence[Any], patch: Sequence[Any], keys: tuple[str, ...]) -> list[Any]:
    key = next((key for key in keys if patch and all(_has(each, key) for each in [*document, *patch])), None)
    if key is None or any(_has(each, "$patch") and each["$patch"] == "replace" for each in patch):
        return [_plain(each) for each in patch if not _has(each, "$patch")]
    out = list(document)
    for each in patch:
        at = next((index for index, item in enumerate(out) if item[key] == each[key]), None)
        if each.get("$patch") == "delete":
            out = [item for item in out if item[key] != each[key]]
        elif at is None:
            out.append(_plain(each))
        else:
            out[at] = _maps(out[at], each)
    return out


def _has(item: object, key: str) -> bool:
    return isinstance(item, Mapping) and key in item


def _plain(item: object) -> Any:
    return _maps({}, cast("Mapping[str, Any]", item)) if isinstance(item, Mapping) else item
