"""ListenerSet: more listeners for a Gateway, owned by another team."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from controlplane.api.gateway import Listener, check_listeners
from controlplane.api.meta import GATEWAY_GROUP, Model, Resource
from controlplane.api.scalars import Group, Kind, NamespaceName, ObjectName


class ParentGatewayReference(Model):
    """The Gateway that the listeners join."""

    name: ObjectName
    group: Group = GATEWAY_GROUP
    kind: Kind = "Gateway"
    namespace: NamespaceName | None = None
    """Namespace of the Gateway; that of the ListenerSet when absent."""


class ListenerSetSpec(Model):
    """The Gateway, and the listeners that join it."""

    parent_ref: ParentGatewayReference
    listeners: Annotated[tuple[Listener, ...], Field(min_length=1, max_length=64), AfterValidator(check_listeners)]


class ListenerSet(Resource):
    """Listeners that join those of a Gateway, which must allow it in `allowedListeners`."""

    kind: Literal["ListenerSet"] = "ListenerSet"
    spec: ListenerSetSpec
