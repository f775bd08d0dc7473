"""ListenerSets: which may join a Gateway, and what it makes of them (Gateway API: ListenerSet)."""

from __future__ import annotations

from collections.abc import Sequence

from controlplane.api.gateway import Gateway, ListenerNamespaces
from controlplane.api.listenerset import ListenerSet
from controlplane.compile.gateway import GatewayListener
from controlplane.compile.namespaces import admits
from controlplane.compile.view import View
from controlplane.conditions import Condition, false, true


def allowed(view: View, gateway: Gateway, source: ListenerSet) -> bool:
    """Says whether a Gateway lets a ListenerSet join (Gateway API: GatewaySpec.allowedListeners); none by default."""
    asked = gateway.spec.allowed_listeners
    namespaces = asked.namespaces if asked is not None else ListenerNamespaces()
    return admits(view, namespaces, source.metadata.namespace, home=gateway.metadata.namespace)


def accepted(listeners: Sequence[GatewayListener]) -> Condition:
    """Returns the verdict on a ListenerSet that may join: at least one of its listeners must serve."""
    bad = [each.name for each in listeners if not each.serves]
    if len(bad) == len(listeners):
        return false("Accepted", "ListenersNotValid", "no listener is valid", "spec.listeners")
    if bad:
        return true("Accepted", "ListenersNotValid", f"listeners that do not serve: {', '.join(bad)}")
    return true("Accepted")
