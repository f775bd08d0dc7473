"""CustomResourceDefinitions of our kinds, made from their models."""

from __future__ import annotations

from controlplane.api.crds.document import definition, definitions

__all__ = ["definition", "definitions"]
