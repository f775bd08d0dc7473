"""API keys that are kept in Secrets: names of clients, and their keys."""

from __future__ import annotations

from collections.abc import Iterable

from controlplane.api.core import Secret
from controlplane.api.meta import ObjectKey, SecretObjectReference
from controlplane.compile.grants import permitted
from controlplane.compile.view import View
from controlplane.conditions import Condition, false


def read_keys(
    view: View, source: ObjectKey, refs: Iterable[SecretObjectReference], field: str
) -> tuple[tuple[tuple[str, str], ...], list[Condition]]:
    """Returns (client, key) pairs, and what is wrong with the Secrets; keys that are there count all the same."""
    clients: dict[str, str] = {}
    faults: list[Condition] = []
    for index, ref in enumerate(refs):
        at = f"{field}[{index}]"
        target = ObjectKey(ref.group, ref.kind, ref.namespace or source.namespace, ref.name)
        found = _secret(view, source, target, at)
        if isinstance(found, Condition):
            faults.append(found)
            continue
        for client in sorted(found.data):
            fault = _take(clients, client, found.data[client], target, at)
            if fault is not None:
                faults.append(fault)
    return tuple((client, key) for key, client in clients.items()), faults


def _secret(view: View, source: ObjectKey, target: ObjectKey, field: str) -> Secret | Condition:
    if (target.group, target.kind) != ("", "Secret"):
        message = f"{target.kind} is not a kind of credential; expected a Secret"
        return false("ResolvedRefs", "InvalidKind", message, f"{field}.kind")
    if not permitted(view, source=source, target=target):
        message = f"no ReferenceGrant in namespace {target.namespace} lets this policy refer to {target}"
        return false("ResolvedRefs", "RefNotPermitted", message, field)
    found = view.get(target)
    if not isinstance(found, Secret):
        return false("ResolvedRefs", "SecretNotFound", f"{target} does not exist; its keys are refused", field)
    return found


def _take(clients: dict[str, str], client: str, value: bytes, target: ObjectKey, field: str) -> Condition | None:
    """Adds a key; messages never show one."""
    try:
        # Files that were made with an editor or `echo` end in a line break, which no header can carry.
        key = value.decode("ascii").rstrip("\r\n")
    except UnicodeDecodeError:
        key = ""
    if not key or not key.isprintable():
        message = f"the key of {client} in {target} is empty or has characters that no header can carry"
        return false("ResolvedRefs", "InvalidKey", message, field)
    other = clients.setdefault(key, client)
    if other != client:
        message = f"{client} in {target} has the same key as {other}, whom it stands for"
        return false("ResolvedRefs", "DuplicateKey", message, field)
    return None
