"""The pipeline: compile and translate, wired into one graph of derived collections."""

from __future__ import annotations

from controlplane.pipeline.objects import Admitted, Objects
from controlplane.pipeline.pipeline import Bindings, Pipeline

__all__ = ["Admitted", "Bindings", "Objects", "Pipeline"]
