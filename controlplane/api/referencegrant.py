"""ReferenceGrant: which other namespaces may refer to objects of this one."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from controlplane.api.meta import Model, Resource
from controlplane.api.scalars import Group, Kind, NamespaceName, ObjectName


class ReferenceGrantFrom(Model):
    """Objects that may refer."""

    group: Group
    """API group of the objects."""
    kind: Kind
    """Kind of the objects, such as HTTPRoute or Gateway."""
    namespace: NamespaceName
    """Namespace of the objects."""


class ReferenceGrantTo(Model):
    """Objects that may be referred to."""

    group: Group
    """API group of the objects; empty for the core group."""
    kind: Kind
    """Kind of the objects, such as Service or Secret."""
    name: ObjectName | None = None
    """One object; all of the kind when absent."""


class ReferenceGrantSpec(Model):
    """Who may refer to what; all combinations are allowed."""

    from_: Annotated[tuple[ReferenceGrantFrom, ...], Field(alias="from", min_length=1, max_length=16)]
    to: Annotated[tuple[ReferenceGrantTo, ...], Field(min_length=1, max_length=16)]


class ReferenceGrant(Resource):
    """Allows references from other namespaces into its own."""

    kind: Literal["ReferenceGrant"] = "ReferenceGrant"
    spec: ReferenceGrantSpec
