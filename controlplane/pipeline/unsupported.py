"""The fields of an object that have no effect yet, as conditions."""

from __future__ import annotations

from controlplane.api.fields import unsupported_fields
from controlplane.conditions import Condition
from controlplane.pipeline.objects import Admitted


def unsupported(admitted: Admitted | None) -> tuple[Condition, ...]:
    """Names the fields of an object's newest version that have no effect yet."""
    object_ = admitted.object if admitted is not None else None
    if object_ is None:
        return ()
    return tuple(
        Condition(
            "NotSupported", "True", "UnsupportedField", "has no effect yet" + (mark.hint and f"; {mark.hint}"), path
        )
        for path, mark in unsupported_fields(object_)
    )
