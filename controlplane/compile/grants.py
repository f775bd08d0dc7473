"""Whether an object may refer to one of another namespace (Gateway API: ReferenceGrant)."""

from __future__ import annotations

from controlplane.api.meta import ObjectKey
from controlplane.compile.view import View


def permitted(view: View, *, source: ObjectKey, target: ObjectKey) -> bool:
    """Says whether `source` may refer to `target`: always within a namespace, else if a grant there says so."""
    if source.namespace == target.namespace:
        return True
    return any(
        any((f.group, f.kind, f.namespace) == (source.group, source.kind, source.namespace) for f in grant.spec.from_)
        and any(
            (t.group, t.kind) == (target.group, target.kind) and t.name in (None, target.name) for t in grant.spec.to
        )
        for grant in view.grants(target.namespace)
    )
