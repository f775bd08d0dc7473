"""From a parsed document to a typed object, or to faults that people can act on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from pydantic import ValidationError

from controlplane.api.faults import Fault, describe, join_path, suggest, to_faults
from controlplane.api.kinds import KINDS, SERVED
from controlplane.api.meta import ObjectKey, Resource

__all__ = ["Fault", "Loaded", "key_of", "load"]

# Fields of Kubernetes' ObjectMeta; those that the models do not have are accepted and dropped.
_METADATA: Final = frozenset(
    {
        "annotations",
        "creationTimestamp",
        "deletionGracePeriodSeconds",
        "deletionTimestamp",
        "finalizers",
        "generateName",
        "generation",
        "labels",
        "managedFields",
        "name",
        "namespace",
        "ownerReferences",
        "resourceVersion",
        "selfLink",
        "uid",
    }
)


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a document gave: an object, or the faults that it was refused for."""

    key: ObjectKey | None
    """The identity, also of a refused object as long as it can be told."""
    object: Resource | None
    faults: tuple[Fault, ...] = ()


def load(document: Mapping[str, object]) -> Loaded:
    """The typed object of a manifest, or its faults with the path of each field at fault."""
    identity = _identify(document)
    if isinstance(identity, Fault):
        return Loaded(key_of(document), None, (identity,))
    unknown = _unknown_metadata(document)
    model = KINDS[identity]
    try:
        loaded = model.model_validate(document, by_name=False)
    except ValidationError as error:
        return _second_try(document, model, error, unknown)
    return Loaded(key_of(document), None, unknown) if unknown else Loaded(loaded.key, loaded)


def key_of(document: Mapping[str, object]) -> ObjectKey | None:
    """The identity of a manifest, read without validation; None when it has no kind or no name."""
    api_version, kind, metadata = document.get("apiVersion"), document.get("kind"), document.get("metadata")
    if not isinstance(api_version, str) or not isinstance(kind, str) or not isinstance(metadata, Mapping):
        return None
    meta = cast("Mapping[str, object]", metadata)
    name, namespace = meta.get("name"), meta.get("namespace")
    if not isinstance(name, str) or not name:
        return None
    group = _split(api_version)[0]
    model = KINDS.get((group, kind))
    if model is not None and model.cluster_scoped:
        return ObjectKey(group, kind, "", name)
    return ObjectKey(group, kind, namespace if isinstance(namespace, str) and namespace else "default", name)


def _split(api_version: str) -> tuple[str, str]:
    group, slash, version = api_version.partition("/")
    return (group, version) if slash else ("", group)


def _identify(document: Mapping[str, object]) -> tuple[str, str] | Fault:
    for field in ("apiVersion", "kind"):
        value = document.get(field)
        if value is None:
            return Fault(field, "required field is missing")
        if not isinstance(value, str):
            return Fault(field, f"expected a string; got {describe(value)}")
    api_version, kind = str(document["apiVersion"]), str(document["kind"])
    group, version = _split(api_version)
    served = SERVED.get((group, kind))
    if served is None:
        return _unknown_kind(group, version, kind)
    if version not in served.versions:
        best = f"{group}/{served.versions[0]}" if group else served.versions[0]
        return Fault("apiVersion", f"version {version!r} of {kind} is not served; use {best!r}")
    return group, kind


def _unknown_kind(group: str, version: str, kind: str) -> Fault:
    kinds = sorted(known for known_group, known in SERVED if known_group == group)
    if not kinds:
        groups = sorted({known for known, _ in SERVED if known})
        return Fault("apiVersion", f"unknown API group {group!r}{suggest(group, groups)}")
    where = f"group {group!r}" if group else f"apiVersion {version!r}"
    return Fault("kind", f"unknown kind {kind!r} of {where}{suggest(kind, kinds)}")


def _unknown_metadata(document: Mapping[str, object]) -> tuple[Fault, ...]:
    metadata = document.get("metadata")
    if not isinstance(metadata, Mapping):
        return ()
    names = cast("Mapping[str, object]", metadata).keys() - _METADATA
    return tuple(
        Fault(join_path("metadata", name), f"unknown field{suggest(name, sorted(_METADATA))}") for name in sorted(names)
    )


def _second_try(
    document: Mapping[str, object], model: type[Resource], error: ValidationError, unknown: tuple[Fault, ...]
) -> Loaded:
    # The API server drops nulls, so `hostnames:` with nothing behind it means the default; this costs nothing
    # where there are no faults.
    pruned = _without_nulls(document)
    if pruned != document:
        try:
            loaded = model.model_validate(pruned, by_name=False)
        except ValidationError as again:
            error = again
        else:
            return Loaded(key_of(document), None, unknown) if unknown else Loaded(loaded.key, loaded)
    return Loaded(key_of(document), None, (*unknown, *to_faults(error, pruned, model)))


def _without_nulls(document: Mapping[str, object]) -> dict[str, object]:
    pruned = cast("dict[str, object]", _prune(document))
    metadata = pruned.get("metadata")
    if isinstance(metadata, dict) and cast("dict[str, object]", metadata).get("namespace") == "":
        del cast("dict[str, object]", metadata)["namespace"]
    return pruned


def _prune(value: Any) -> Any:
    if isinstance(value, Mapping):
        items = cast("Mapping[object, object]", value).items()
        return {key: _prune(item) for key, item in items if item is not None}
    if isinstance(value, list):
        return [_prune(item) for item in cast("list[object]", value)]
    return value
