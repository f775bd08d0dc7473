"""What a client has or asked for, told as the difference from a snapshot's own mapping, which all clients share."""

from __future__ import annotations

from abc import abstractmethod
from collections import ChainMap
from collections.abc import Iterable, Iterator, Mapping, Set
from types import MappingProxyType
from typing import Final, Generic, TypeVar

from controlplane.xds.resources import Resource

Have = Mapping[str, Resource]

_V = TypeVar("_V")

_NOTHING: Final[Have] = MappingProxyType({})
MIN_SHARED: Final = 8
"""Fewer names take less than the check whether they can be shared."""


class _Overlay(Generic[_V]):
    """Name → value, where the values of `_base` hold unless `_own` says another (None: that the name is absent).

    `_base` is never written to; it is a snapshot's mapping, or nothing.
    """

    __slots__ = ("_base", "_own", "_size")

    def __init__(self) -> None:
        self._base = _NOTHING
        self._own: dict[str, _V | None] = {}
        self._size = 0

    @abstractmethod
    def _value(self, resource: Resource) -> _V:
        """Returns what a resource of the base says."""

    def __len__(self) -> int:
        return self._size

    def __contains__(self, name: str) -> bool:
        return self._own[name] is not None if name in self._own else name in self._base

    def __iter__(self) -> Iterator[str]:
        own, base = self._own, self._base
        if not own:
            yield from base
            return
        yield from (name for name in base if name not in own or own[name] is not None)
        yield from (name for name, value in own.items() if value is not None and name not in base)

    def get(self, name: str) -> _V | None:
        """Returns the value, None where the name is absent."""
        if name in self._own:
            return self._own[name]
        resource = self._base.get(name)
        return None if resource is None else self._value(resource)

    def discard(self, name: str) -> None:
        """Takes a name away."""
        if name not in self:
            return
        self._size -= 1
        if name in self._base:
            self._own[name] = None
        else:
            del self._own[name]

    def begin(self, values: Mapping[str, _V], have: Have | None) -> bool:
        """Takes over what is there at first; returns whether that is the very same as the snapshot's, and shared."""
        self._own = dict(values)
        self._size = len(self._own)
        return have is not None and self.share(have)

    def share(self, have: Have) -> bool:
        """Takes a snapshot's mapping for the base where it holds the very same; returns whether it does."""
        if self._base is have:
            return not self._own
        if self._base is not _NOTHING or not MIN_SHARED <= self._size == len(have) or isinstance(have, ChainMap):
            return False
        own = self._own
        if not all(own.get(name) == self._value(resource) for name, resource in have.items()):
            return False
        self._base, self._own = have, {}
        return True

    def rebase(self, have: Have, changes: Set[str] | None = None) -> None:
        """Takes another snapshot's mapping for the base; `changes` has every name that differs (None: any may)."""
        if self._base is _NOTHING or self._base is have:
            return
        for name in self._base.keys() | have.keys() if changes is None else changes:
            value, resource = self.get(name), have.get(name)
            if value == (None if resource is None else self._value(resource)):
                self._own.pop(name, None)
            else:
                self._own[name] = value
        self._base = have

    def _set(self, name: str, value: _V) -> None:
        self._size += name not in self
        resource = self._base.get(name)
        if resource is not None and self._value(resource) == value:
            self._own.pop(name, None)
        else:
            self._own[name] = value


class Versions(_Overlay[str]):
    """Name → version of what a client has."""

    __slots__ = ()

    def _value(self, resource: Resource) -> str:
        return resource.version

    def set(self, name: str, version: str) -> None:
        """Takes in that the client has a version."""
        self._set(name, version)

    def update(self, versions: Iterable[tuple[str, str]]) -> None:
        """Takes in several."""
        for name, version in versions:
            self._set(name, version)


class Names(_Overlay[bool]):
    """The names that a client has asked for."""

    __slots__ = ()

    def _value(self, resource: Resource) -> bool:
        return True

    def add(self, name: str) -> None:
        """Takes a name in."""
        self._set(name, True)
