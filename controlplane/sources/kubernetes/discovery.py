"""Which kinds an API server serves, in which version and under which plural."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from controlplane.kube.client import Api, ApiError
from controlplane.sources.kubernetes.resources import Kind, Resource

_AGGREGATED: Final = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
_VERBS: Final = frozenset({"get", "list", "watch"})


@dataclass(frozen=True, slots=True)
class Discovered:
    """What there is of what was asked for."""

    resources: Mapping[Kind, Resource]
    """Each in the most preferred of the versions that are served."""
    names: Collection[str]
    """`PLURAL.GROUP` of all kinds that are served, asked for or not."""


async def discover(api: Api, wanted: Mapping[Kind, Sequence[str]]) -> Discovered:
    """Asks which of the kinds are served. `wanted` has their versions, the preferred one first. Raises ApiError."""
    resources: dict[Kind, Resource] = {}
    names: set[str] = set()
    for path in ("/api", "/apis"):
        answer = await api.get(path, accept=_AGGREGATED)
        for group in _items(answer, api.url + path):
            try:
                found = _served(group, names)
            except (KeyError, TypeError):
                raise ApiError(0, "Malformed", f"{api.url}{path}: a group that cannot be read") from None
            for kind, by_version in found.items():
                version = next((each for each in wanted.get(kind, ()) if each in by_version), None)
                if version is not None:
                    resources[kind] = by_version[version]
    return Discovered(resources, names)


def _served(group: Mapping[str, Any], names: set[str]) -> dict[Kind, dict[str, Resource]]:
    name = group["metadata"].get("name", "")
    found: dict[Kind, dict[str, Resource]] = {}
    for each in group["versions"]:
        for entry in each.get("resources") or ():
            if not _VERBS.issubset(entry.get("verbs") or ()):
                continue
            kind, version = entry["responseKind"]["kind"], each["version"]
            resource = Resource(name, kind, version, entry["resource"], entry["scope"] == "Namespaced")
            found.setdefault((name, kind), {})[version] = resource
            names.add(resource.name)
    return found


def _items(answer: Mapping[str, Any], url: str) -> list[Mapping[str, Any]]:
    items = answer.get("items")
    if answer.get("kind") != "APIGroupDiscoveryList" or not isinstance(items, list):
        raise ApiError(0, "Malformed", f"{url}: no aggregated discovery (Kubernetes has it from 1.30 on)")
    return cast("list[Mapping[str, Any]]", items)
