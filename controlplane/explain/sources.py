"""Where objects are written: an object's own place, or that of the Ingress that it was expanded from."""

from __future__ import annotations

from collections.abc import Callable

from controlplane.api.meta import ObjectKey
from controlplane.engine import Engine
from controlplane.explain.model import Source
from controlplane.sources.locate import line_of

Locate = Callable[[ObjectKey, str], Source]
"""Returns the source of a field (a path such as `spec.rules[0]`, empty for the whole) of an object."""


def locator(engine: Engine) -> Locate:
    """Returns what finds fields in the source of an engine."""

    def locate(key: ObjectKey, path: str) -> Source:
        if engine.ingresses.is_made(key):
            place = engine.ingresses.place_of(key, path)
            behind = place.ingress if place is not None else engine.ingresses.maker_of(key)
            if behind is not None:
                return locate(behind, place.field if place is not None else "")
        origin = engine.line_of(key)
        if origin is None or not origin.file:
            return Source(str(key), path)
        return Source(str(key), path, f"{origin.file}:{line_of(origin, path)}")

    return locate


def unlocated(key: ObjectKey, path: str) -> Source:
    """Tells the object and the field alone."""
    return Source(str(key), path)
