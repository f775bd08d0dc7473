"""Whether a Gateway is programmed: what its Envoys have said of the configuration (Gateway API: Programmed)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from controlplane.api.meta import ObjectKey
from controlplane.conditions import Condition, ListenerStatus, ObjectStatus, false, true
from controlplane.xds.census import Census, census_of
from controlplane.xds.events import ClientSummary, Nack

PATIENCE_S: Final = 1.0
"""How long an answer of Envoy's is waited for before its absence is told."""


def programmed(
    key: ObjectKey,
    status: ObjectStatus,
    *,
    owner: str,
    clients: Iterable[ClientSummary] | Census,
    nacks: Iterable[Nack] = (),
    hindrance: Condition | None = None,
    patience_s: float = PATIENCE_S,
) -> tuple[ObjectStatus, bool]:
    """Returns the status with `Programmed` filled in, and whether that is final until something else happens.

    It is not while an Envoy has yet to answer. For as long as `patience_s` that does not count against an Envoy that
    has answered all that came before: routes that change all the time shall not make the Gateway seem out of order. So
    who asks `patience_s` after a change is told whether it is acknowledged.

    The status is that of a Gateway or ListenerSet, `owner` the Gateway (`NS/NAME`) whose clients count, of those given
    or as they have been counted; `hindrance` says what keeps clients from reaching it (AddressNotAssigned,
    AddressNotUsable, NoResources). What has no listeners is returned as it is.
    """
    if not status.listeners:
        return status, True
    mine = clients if isinstance(clients, Census) else census_of(each for each in clients if each.owner == owner)
    verdict = _verdict(mine, [nack for nack in nacks if nack.owner == owner], hindrance, patience_s)
    listeners = tuple(_listener(each, verdict) for each in status.listeners)
    whole = unaccepted(key, status.conditions) or _of_kind(key, verdict)
    others = tuple(each for each in status.conditions if each.type != "Programmed")
    final = verdict.severity == 2 or mine.answered
    return replace(status, conditions=(*others, whole), listeners=listeners), final


def unaccepted(key: ObjectKey, said: Iterable[Condition]) -> Condition | None:
    """Returns that a Gateway or ListenerSet is not programmed for it is not accepted; None where it may be.

    That holds whatever the Envoys have: perhaps what was last good.
    """
    accepted = next((each for each in said if each.type == "Accepted" and each.severity == 2), None)
    if accepted is None:
        return None
    reason = accepted.reason if key.kind == "ListenerSet" else "Invalid"
    return false("Programmed", reason, f"the {key.kind} is not accepted")


def _verdict(mine: Census, nacks: list[Nack], hindrance: Condition | None, patience_s: float) -> Condition:
    refused = next((nack for nack in nacks if nack.type_url in mine.rejected), None)
    if refused is not None:
        made_from = f" (made from {refused.made_from})" if refused.origins else ""
        message = f"Envoy rejected {', '.join(refused.names)}{made_from}: {refused.message}"
        return false("Programmed", "Invalid", message)
    if hindrance is not None:
        return hindrance
    if not mine.clients:
        return Condition("Programmed", "Unknown", "Pending", "no Envoy of this Gateway is connected")
    if not mine.lacking and not (mine.unsettled and mine.unsettled_s >= patience_s):
        return true("Programmed")
    return Condition("Programmed", "Unknown", "Pending", "not every Envoy has acknowledged the configuration")


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
