"""Policies of the services outlive their last reference for a while: routes in force may still name them."""

from __future__ import annotations

from dataclasses import dataclass, field

from controlplane.xds.order import SERVICE_POLICIES
from controlplane.xds.resources import Resource, Snapshot


@dataclass(slots=True)
class Lingering:
    """The policies of one owner that left its snapshot: (type, name) → resource and until when it stays."""

    _resources: dict[tuple[str, str], tuple[Resource, float]] = field(
        default_factory=dict[tuple[str, str], tuple[Resource, float]]
    )

    def extend(self, snapshot: Snapshot, previous: Snapshot, *, linger_s: float, now: float) -> Snapshot:
        """Returns the snapshot with what lingers; what `previous` had and it lacks lingers from now on."""
        for type_url in SERVICE_POLICIES:
            after = snapshot.of_type(type_url)
            for name, resource in previous.of_type(type_url).items():
                if name not in after:
                    self._resources[type_url, name] = (resource, now + max(linger_s, resource.linger_s))
        self._resources = {
            key: (resource, end)
            for key, (resource, end) in self._resources.items()
            if end > now and key[1] not in snapshot.of_type(key[0])
        }
        if not self._resources:
            return snapshot
        merged = {type_url: dict(snapshot.of_type(type_url)) for type_url, _ in self._resources}
        for (type_url, name), (resource, _) in self._resources.items():
            merged[type_url][name] = resource
        return Snapshot({**snapshot.resources, **merged})

    def expired(self, now: float) -> bool:
        """Whether the time of anything that lingers is over."""
        return any(end <= now for _, end in self._resources.values())
