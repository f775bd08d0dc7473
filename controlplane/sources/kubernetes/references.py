"""Which Secrets and ConfigMaps an object refers to, told from the document alone; and who refers to what by now."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, cast

from controlplane.api.meta import ENVOY_GATEWAY_GROUP, GATEWAY_GROUP, POLICY_GROUP, ObjectKey
from controlplane.sources.kubernetes.resources import INGRESS_GROUP, Kind

# Fields, wherever they stand, whose value is a reference or a list of references. The kind is a Secret unless it is
# written.
_FIELDS: Final = frozenset(
    {
        "caCertificateRef",
        "caCertificateRefs",
        "certificateRef",
        "certificateRefs",
        "clientCertificateRef",
        "clientIDRef",
        "clientSecret",
        "credentialRefs",
        "parametersRef",
        "pullSecretRef",
        "refs",  # of certificate revocation lists
        "secretRef",
        "users",
        "valueRef",
    }
)
# `NAME` or `NAMESPACE/NAME` of a Secret.
_INGRESS_ANNOTATIONS: Final = tuple(
    f"nginx.ingress.kubernetes.io/{name}" for name in ("auth-secret", "auth-tls-secret", "proxy-ssl-secret")
)
_GATEWAY_KINDS: Final = frozenset({"Gateway", "ListenerSet", "BackendTLSPolicy"})

_NONE: Final[frozenset[ObjectKey]] = frozenset()


def refers(kind: Kind) -> bool:
    """Whether objects of a kind may refer to Secrets or ConfigMaps at all."""
    group, name = kind
    if group == GATEWAY_GROUP:
        return name in _GATEWAY_KINDS
    return group in (POLICY_GROUP, ENVOY_GATEWAY_GROUP) or kind == (INGRESS_GROUP, "Ingress")


def references(document: Mapping[str, Any]) -> frozenset[ObjectKey]:
    """Returns the Secrets and ConfigMaps that an object as the API server has it refers to, permitted or not."""
    metadata: Mapping[str, Any] = document["metadata"]
    namespace = str(metadata.get("namespace") or "")
    found = set(_in_fields(document.get("spec"), namespace))
    if document.get("kind") == "Ingress":
        found |= _of_ingress(document, namespace)
    return frozenset(found) if found else _NONE


def _in_fields(spec: object, namespace: str) -> list[ObjectKey]:
    found: list[ObjectKey] = []
    stack = [spec]
    while stack:
        here = stack.pop()
        if isinstance(here, dict):
            for name, value in cast("dict[str, object]", here).items():
                if isinstance(value, dict | list):
                    stack.append(cast("object", value))
                    if name in _FIELDS:
                        found += _read(cast("object", value), namespace)
        elif isinstance(here, list):
            stack += [each for each in cast("list[object]", here) if isinstance(each, dict | list)]
    return found


def _read(value: object, namespace: str) -> list[ObjectKey]:
    each = cast("Sequence[object]", value if isinstance(value, list) else [value])
    keys = (_key(cast("Mapping[str, object]", ref), namespace) for ref in each if isinstance(ref, dict))
    return [key for key in keys if key is not None]


def _key(reference: Mapping[str, object], namespace: str) -> ObjectKey | None:
    group, kind = reference.get("group") or "", reference.get("kind") or "Secret"
    name, where = reference.get("name"), reference.get("namespace") or namespace
    if group != "" or kind not in ("Secret", "ConfigMap"):
        return None
    if not isinstance(name, str) or not isinstance(where, str) or not name or not where:
        return None
    return ObjectKey("", str(kind), where, name)


def _of_ingress(document: Mapping[str, Any], namespace: str) -> set[ObjectKey]:
    found: set[ObjectKey] = set()
    spec: object = document.get("spec")
    tls: object = cast("dict[str, object]", spec).get("tls") if isinstance(spec, dict) else None
    for entry in cast("list[object]", tls) if isinstance(tls, list) else []:
        name = cast("dict[str, object]", entry).get("secretName") if isinstance(entry, dict) else None
        if isinstance(name, str) and name:
            found.add(ObjectKey("", "Secret", namespace, name))
    annotations: Mapping[str, Any] = document["metadata"].get("annotations") or {}
    for annotation in _INGRESS_ANNOTATIONS:
        before, slash, after = str(annotations.get(annotation) or "").partition("/")
        where, name = (before, after) if slash else (namespace, before)
        if where and name:
            found.add(ObjectKey("", "Secret", where, name))
    return found


class References:
    """Counts who refers to what: objects as they were handed over, and as they are about to be.

    `on_change` hears when something is referred to for the first time (True) and no more (False).
    """

    def __init__(self, on_change: Callable[[ObjectKey, bool], None]) -> None:
        self._on_change = on_change
        self._now: dict[ObjectKey, frozenset[ObjectKey]] = {}
        self._next: dict[ObjectKey, frozenset[ObjectKey]] = {}
        self._counts: dict[ObjectKey, int] = {}

    def __contains__(self, key: ObjectKey) -> bool:
        return key in self._counts

    def propose(self, owner: ObjectKey, targets: frozenset[ObjectKey]) -> None:
        """Notes what an object is about to refer to; what it referred to still counts."""
        before = self._next.get(owner, _NONE)
        if targets or owner in self._now:
            self._next[owner] = targets
        else:
            self._next.pop(owner, None)
        self._count(targets, before)

    def settle(self, owner: ObjectKey) -> None:
        """Notes that the object has been handed over as it was proposed."""
        if owner not in self._next:
            return
        before, targets = self._now.pop(owner, _NONE), self._next.pop(owner)
        if targets:
            self._now[owner] = targets
        self._count(_NONE, before)

    def _count(self, more: frozenset[ObjectKey], fewer: frozenset[ObjectKey]) -> None:
        for key in more:
            self._counts[key] = self._counts.get(key, 0) + 1
            if self._counts[key] == 1:
                self._on_change(key, True)
        for key in fewer:
            self._counts[key] -= 1
            if not self._counts[key]:
                del self._counts[key]
                self._on_change(key, False)
