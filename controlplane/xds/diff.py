"""What changed between two snapshots of one owner, found once and shared by all of its clients."""

from __future__ import annotations

from collections.abc import Mapping

from controlplane.xds.resources import Resource, Snapshot

# Type URL → name → the resource as it was, if it is gone; None, if it is new or changed.
Diff = Mapping[str, Mapping[str, Resource | None]]


def diff(old: Snapshot, new: Snapshot) -> Diff:
    """Returns the changes by type; a mapping that is the very same object is not looked into."""
    changes: dict[str, Mapping[str, Resource | None]] = {}
    for type_url in old.resources.keys() | new.resources.keys():
        before, after = old.of_type(type_url), new.of_type(type_url)
        if before is not after and (changed := _diff_type(before, after)):
            changes[type_url] = changed
    return changes


def _diff_type(before: Mapping[str, Resource], after: Mapping[str, Resource]) -> Mapping[str, Resource | None]:
    changed: dict[str, Resource | None] = {}
    for name, resource in after.items():
        previous = before.get(name)
        if previous is not resource and (previous is None or previous.version != resource.version):
            changed[name] = None
    if changed or len(before) != len(after):
        changed.update((name, resource) for name, resource in before.items() if name not in after)
    return changed
