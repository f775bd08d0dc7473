"""Objects as an API server has them, for the tests of statuses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from controlplane.api.meta import GATEWAY_GROUP, ObjectKey
from controlplane.conditions import ObjectStatus
from controlplane.status.encode import Setting, encode

CONTROLLER = "dragoman.dev/gateway-controller"
SETTING = Setting(CONTROLLER)
NOW = datetime(2026, 5, 1, 12, 0, 0, tzinfo=UTC)
STAMP = "2026-05-01T12:00:00Z"
BEFORE = "2026-04-01T00:00:00Z"


@dataclass(frozen=True, slots=True)
class Seen:
    status: Mapping[str, Any] = field(default_factory=dict[str, Any])
    generation: int = 1
    resource_version: str = "1"
    uid: str = "u"
    api_version: str = "gateway.networking.k8s.io/v1"
    plural: str = "httproutes"


def key(kind: str, name: str = "one", group: str = GATEWAY_GROUP) -> ObjectKey:
    return ObjectKey(group, kind, "" if kind == "GatewayClass" else "demo", name)


def by_type(conditions: list[dict[str, Any]]) -> dict[str, tuple[str, str]]:
    return {each["type"]: (each["status"], each["reason"]) for each in conditions}


def written(
    object_: ObjectKey, status: ObjectStatus | None, seen: Seen | None = None, setting: Setting = SETTING
) -> dict[str, Any]:
    found = encode(object_, status, seen or Seen(), now=NOW, setting=setting)
    assert found is not None
    return found


def again(object_: ObjectKey, status: ObjectStatus | None, observed: dict[str, Any]) -> dict[str, Any] | None:
    return encode(object_, status, Seen(observed), now=NOW + timedelta(hours=1), setting=SETTING)
