"""The status of everything as data: what `/status`, `dragoman validate` and `dragoman up` show."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from controlplane.api.meta import ObjectKey
from controlplane.conditions import Condition, ObjectStatus, false
from controlplane.engine import Engine
from controlplane.provision.binding import Clash
from controlplane.sources.locate import line_of
from controlplane.status.ingress import ingress_status, is_ingress
from controlplane.status.programmed import programmed
from controlplane.xds.cache import SnapshotCache
from controlplane.xds.events import ClientSummary, Nack


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, and where: `file:line`, object and field."""

    file: str
    line: int
    object: str
    field: str
    message: str
    reason: str = ""

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.file else ""
        subject = f"{self.object} {self.field}" if self.field else self.object
        return ": ".join(part for part in (where, subject, self.message) if part)


@dataclass(frozen=True, slots=True)
class Report:
    """Statuses by object, all findings, and how far each xDS client is."""

    statuses: tuple[tuple[ObjectKey, ObjectStatus], ...]
    findings: tuple[Finding, ...]
    clients: tuple[ClientSummary, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Returns the report as JSON has it."""
        return {
            "objects": [{"object": str(key), **_status_json(status)} for key, status in self.statuses],
            "findings": [
                {"file": f.file, "line": f.line, "object": f.object, "field": f.field, "message": f.message}
                for f in self.findings
            ],
            "clients": [_client_json(client) for client in self.clients],
        }


def report(engine: Engine, cache: SnapshotCache | None = None, nacks: Iterable[Nack] = ()) -> Report:
    """Returns the report of an engine as it stands; without a cache, nothing is known of any Envoy."""
    clients = cache.clients() if cache is not None else ()
    rejected = tuple(nacks)
    found = sorted(statuses_of(engine), key=lambda item: item[0])
    statuses = tuple(
        (key, _clashing(key, _programmed(key, status, clients, rejected), engine.clashes)) for key, status in found
    )
    return Report(statuses, tuple(findings(engine, dict(statuses))), clients)


def statuses_of(engine: Engine) -> Iterator[tuple[ObjectKey, ObjectStatus]]:
    """Yields what is said about each object; of what Ingresses expand to, it is said about the Ingresses."""
    for key, status in engine.pipeline.statuses.current().items():
        if is_ingress(key):
            yield key, ingress_status(engine.pipeline, engine.ingresses, key, status)
        elif not engine.ingresses.is_made(key):
            yield key, status


def findings(engine: Engine, statuses: dict[ObjectKey, ObjectStatus]) -> list[Finding]:
    """Returns everything that is wrong, by file and line."""
    out = [Finding(f.file, f.line, "", "", f.message) for f in engine.faults]
    for key, status in statuses.items():
        out += [_finding(engine, key, condition) for condition in status.faults()]
    return sorted(dict.fromkeys(out), key=lambda f: (f.file, f.line, f.object, f.field))


def _finding(engine: Engine, key: ObjectKey, condition: Condition) -> Finding:
    origin = engine.line_of(key)
    if origin is None:
        return Finding("", 0, str(key), condition.field, condition.message, condition.reason)
    line = line_of(origin, condition.field)
    return Finding(origin.file, line, str(key), condition.field, condition.message, condition.reason)


def _programmed(
    key: ObjectKey, status: ObjectStatus, clients: tuple[ClientSummary, ...], nacks: tuple[Nack, ...]
) -> ObjectStatus:
    owner = f"{key.namespace}/{key.name}"
    return programmed(key, status, owner=owner, clients=clients, nacks=nacks, patience_s=0.0)[0]


def _clashing(key: ObjectKey, status: ObjectStatus, clashes: tuple[Clash, ...]) -> ObjectStatus:
    """Marks the listeners whose port somebody else has."""
    mine = [clash for clash in clashes if status.listeners and clash.gateway == f"{key.namespace}/{key.name}"]
    verdicts = [false("Programmed", "AddressNotUsable", str(clash), "spec.listeners") for clash in mine]
    return replace(status, conditions=(*status.conditions, *verdicts)) if verdicts else status


def _condition_json(condition: Condition) -> dict[str, str]:
    return {
        "type": condition.type,
        "status": condition.status,
        "reason": condition.reason,
        "message": condition.message,
        **({"field": condition.field} if condition.field else {}),
    }


def _status_json(status: ObjectStatus) -> dict[str, Any]:
    out: dict[str, Any] = {}
    if status.conditions:
        out["conditions"] = [_condition_json(c) for c in status.conditions]
    if status.parents:
        out["parents"] = [
            {"parent": p.parent, "conditions": [_condition_json(c) for c in p.conditions]} for p in status.parents
        ]
    if status.listeners:
        out["listeners"] = [
            {
                "name": each.name,
                "attachedRoutes": each.attached_routes,
                "supportedKinds": list(each.supported_kinds),
                "conditions": [_condition_json(c) for c in each.conditions],
            }
            for each in status.listeners
        ]
    return out


def _client_json(client: ClientSummary) -> dict[str, Any]:
    return {
        "owner": client.owner,
        "node": client.node_id,
        "protocol": client.protocol,
        "settled": client.settled,
        "rejected": sorted({name for summary in client.types.values() for name in summary.rejected}),
    }
