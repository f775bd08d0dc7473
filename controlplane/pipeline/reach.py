"""What each policy reaches: listeners, and routes on them, where it has a part in what is in force."""

from __future__ import annotations

from collections.abc import Iterable

from controlplane.api.meta import GATEWAY_GROUP, ObjectKey
from controlplane.compile.attachment import PARENTS
from controlplane.compile.policies import NOTHING, Merged
from controlplane.compile.protocols import HTTP_ROUTES
from controlplane.compile.targets import Target
from controlplane.pipeline.attachments import Attachments
from controlplane.pipeline.objects import Objects
from controlplane.pipeline.policies import Place, PolicyIndex


class Reach:
    """Follows policies to what they apply to; all reads are recorded."""

    def __init__(self, objects: Objects, index: PolicyIndex, attachments: Attachments) -> None:
        self._objects = objects
        self._index = index
        self._attachments = attachments

    def targets(self, policy: ObjectKey) -> Iterable[Target]:
        """Yields what a policy names and what its selectors choose, in order."""
        targets = self._index.targets(policy)
        yield from targets.named
        for selector in targets.selectors:
            for each in sorted(self._objects.table(selector.group, selector.kind).all_keys()):
                if each.namespace == policy.namespace and selector.matches(self._index.labels.get(each)):
                    yield Target(each)

    def merges(self, policy: ObjectKey) -> Iterable[tuple[ObjectKey, Merged]]:
        """Yields the merges of listeners and of routes that a policy has a part in, each with its Gateway.

        Those of a listener are in force on the routes that have no policies of their own; without routes, nowhere.
        """
        for target in self.targets(policy):
            if target.key.group == GATEWAY_GROUP and target.key.kind in PARENTS:
                yield from self._of_parent(target.key)
            elif target.key.group == GATEWAY_GROUP and target.key.kind in HTTP_ROUTES:
                for place, _ in self._attachments.places(target.key):
                    for merged in self._index.merged(place, target.key).all():
                        yield place.gateway, merged

    def _of_parent(self, parent: ObjectKey) -> Iterable[tuple[ObjectKey, Merged]]:
        """Yields what is inherited at the listeners of a ListenerSet, or of a Gateway and its ListenerSets."""
        found = self._attachments.of_parent(parent)
        if found is None:
            return
        gateway, own = found
        for listener in (self._attachments.judged.get(gateway) or ()) if gateway == parent else own:
            place = Place(gateway, listener.id)
            inherited = self._index.inherited.get(place).default
            if inherited is not NOTHING and self._attachments.domains.get(place):
                yield gateway, inherited
