"""The vocabulary: typed models of every kind that Dragoman reads, a module a kind."""

from __future__ import annotations

from controlplane.api.kinds import KINDS
from controlplane.api.meta import ObjectKey, Resource

__all__ = ["KINDS", "ObjectKey", "Resource"]
