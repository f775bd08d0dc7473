"""Whether a Gateway is programmed: what its Envoys have said of the configuration (Gateway API: Programmed)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from controlplane.api.meta import ObjectKey
from controlplane.conditions import Condition, ListenerStatus, ObjectStatus, false, true
from controlplane.xds.events import ClientSummary, Nack
from controlplane.xds.resources import LISTENER


def programmed(
    key: ObjectKey,
    status: ObjectStatus,
    *,
    owner: str,
    clients: Iterable[ClientSummary],
    nacks: Iterable[Nack] = (),
    hindrance: Condition | None = None,
) -> tuple[ObjectStatus, bool]:
    """Returns the status with `Programmed` filled in, and whether that is final until something else happens.

    It is not while an Envoy has yet to answer. The status is that of a Gateway or ListenerSet, `owner` the Gateway
    (`NS/NAME`) whose clients count; `hindrance` says what keeps clients from reaching it (AddressNotAssigned,
    AddressNotUsable, NoResources). What has no listeners is returned as it is.
    """
    if not status.listeners:
        return status, True
    mine = [client for client in clients if client.owner == owner]
    verdict = _verdict(mine, [nack for nack in nacks if nack.owner == owner], hindrance)
    listeners = tuple(_listener(each, verdict) for each in status.listeners)
    whole = _unaccepted(key, status) or _of_kind(key, verdict)
    others = tuple(each for each in status.conditions if each.type != "Programmed")
    final = whole.status != "Unknown" or not mine
    return replace(status, conditions=(*others, whole), listeners=listeners), final


def _verdict(mine: list[ClientSummary], nacks: list[Nack], hindrance: Condition | None) -> Condition:
    refused = next((nack for nack in nacks if _still_rejected(mine, nack)), None)
    if refused is not None:
        made_from = f" (made from {', '.join(refused.origins)})" if refused.origins else ""
        message = f"Envoy rejected {', '.join(refused.names)}{made_from}: {refused.message}"
        return false("Programmed", "Invalid", message)
    if hindrance is not None:
        return hindrance
    if not mine:
        return Condition("Programmed", "Unknown", "Pending", "no Envoy of this Gateway is connected")
    if all(client.settled and LISTENER in client.types for client in mine):
        return true("Programmed")
    return Condition("Programmed", "Unknown", "Pending", "not every Envoy has acknowledged the configuration")


def _still_rejected(mine: list[ClientSummary], nack: Nack) -> bool:
    return any(nack.type_url in c.types and c.types[nack.type_url].rejected for c in mine)


def _unaccepted(key: ObjectKey, status: ObjectStatus) -> Condition | None:
    """What is not accepted is not programmed, whatever the Envoys have: perhaps what was last good."""
    accepted = next((each for each in status.conditions if each.type == "Accepted" and each.severity == 2), None)
    if accepted is None:
        return None
    reason = accepted.reason if key.kind == "ListenerSet" else "Invalid"
    return false("Programmed", reason, f"the {key.kind} is not accepted")


def _of_kind(key: ObjectKey, verdict: Condition) -> Condition:
    """The reasons that concern addresses are a Gateway's alone."""
    if key.kind == "Gateway" or verdict.status != "False" or verdict.reason == "Invalid":
        return verdict
    return replace(verdict, reason="ParentNotProgrammed")


def _listener(listener: ListenerStatus, verdict: Condition) -> ListenerStatus:
    conflict = next((c for c in listener.conditions if c.type == "Conflicted" and c.status == "True"), None)
    others = tuple(c for c in listener.conditions if c.type != "Programmed")
    if conflict is not None:
        own = false("Programmed", conflict.reason, conflict.message, conflict.field)
    elif any(c.type == "Programmed" and c.status == "Unknown" for c in listener.conditions):
        known = verdict.reason in ("Programmed", "Invalid", "Pending")
        own = verdict if known else replace(verdict, reason="Pending")
    else:
        return listener
    return replace(listener, conditions=(*others, own))
