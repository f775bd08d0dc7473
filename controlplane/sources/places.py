"""Where each object is written; of several places the first in path order counts."""

from __future__ import annotations

from collections.abc import Iterator

from controlplane.api.meta import ObjectKey
from controlplane.sources.changes import Origin, SourceFault
from controlplane.sources.manifest import already_defined


class Places:
    """The files that define each object."""

    def __init__(self) -> None:
        self._places: dict[ObjectKey, tuple[Origin, ...]] = {}
        self._contested: dict[ObjectKey, None] = {}

    def winner(self, key: ObjectKey) -> Origin | None:
        """The place that counts; None if the object is nowhere."""
        places = self._places.get(key)
        return places[0] if places else None

    def is_contested(self, key: ObjectKey) -> bool:
        """Whether several files define an object."""
        return key in self._contested

    def keys(self) -> Iterator[ObjectKey]:
        """All objects."""
        return iter(self._places)

    def put(self, key: ObjectKey, file: str, place: Origin | None) -> None:
        """Says where a file defines an object now; None if it does no more."""
        before = self._places.get(key)
        if before is None and place is not None:
            self._places[key] = (place,)
            return
        others = tuple(other for other in before or () if other.file != file)
        places = others if place is None else tuple(sorted((*others, place), key=lambda each: each.file.split("/")))
        if places:
            self._places[key] = places
        else:
            self._places.pop(key, None)
        if len(places) > 1:
            self._contested[key] = None
        else:
            self._contested.pop(key, None)

    def faults(self) -> Iterator[SourceFault]:
        """A fault for each place that does not count."""
        for key in self._contested:
            first, *others = self._places[key]
            for other in others:
                yield already_defined(key, other, first)
