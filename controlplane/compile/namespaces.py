"""Which namespaces are let in: those of routes on a listener, those of ListenerSets on a Gateway."""

from __future__ import annotations

from controlplane.api.gateway import ListenerNamespaces, RouteNamespaces
from controlplane.api.meta import ObjectKey
from controlplane.compile.view import View


def admits(view: View, allowed: RouteNamespaces | ListenerNamespaces, namespace: str, *, home: str) -> bool:
    """Says whether objects of a namespace may attach; `home` is the namespace of what they attach to."""
    if allowed.from_ == "All":
        return True
    if allowed.from_ == "Same":
        return namespace == home
    if allowed.from_ == "Selector" and allowed.selector is not None:
        found = view.get(ObjectKey("", "Namespace", "", namespace))
        labels = {"kubernetes.io/metadata.name": namespace}
        return allowed.selector.matches(labels | found.metadata.labels if found is not None else labels)
    return False
