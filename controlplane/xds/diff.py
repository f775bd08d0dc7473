"""What changed between two snapshots of one owner, found once and shared by all of its clients."""

from __future__ import annotations

from collections.abc import Mapping, Set

from controlplane.xds.resources import Resource, Snapshot

# Type URL → the names that are new, changed or gone.
Diff = Mapping[str, Set[str]]


def diff(old: Snapshot, new: Snapshot) -> Diff:
    """Returns the changes by type; a mapping that is the very same object is not looked into."""
    changes: dict[str, Set[str]] = {}
    for type_url in old.resources.keys() | new.resources.keys():
        before, after = old.of_type(type_url), new.of_type(type_url)
        if before is not after and (changed := _diff_type(before, after)):
            changes[type_url] = changed
    return changes


def _diff_type(before: Mapping[str, Resource], after: Mapping[str, Resource]) -> Set[str]:
    changed: set[str] = set()
    for name, resource in after.items():
        previous = before.get(name)
        if previous is not resource and (previous is None or previous.version != resource.version):
            changed.add(name)
    if changed or len(before) != len(after):
        changed.update(before.keys() - after.keys())
    return changed
